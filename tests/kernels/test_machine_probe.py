"""The limits are compared with nothing: only that what is timed really reads and calculates."""

from __future__ import annotations

import math

import pytest

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.kernels.backends import compiled_kernels, instruction_sets
from llamo_ros.kernels.machine_probe import MULTIPLIED, multiply_add_rate, read_bandwidth


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("size", [1, 1024, 1025, 300_000])
@pytest.mark.parametrize("name", instruction_sets())
def test_every_byte_is_read_once(name: str, size: int, prefetch: bool) -> None:
    words = math.ceil(size / 1024) * 128
    total = compiled_kernels("machine_probe").machine_probe_read_sum(size, name, prefetch)
    assert total == words * (words - 1) // 2


@pytest.mark.parametrize("name", instruction_sets())
def test_rates_are_positive_whatever_the_instruction_set(name: str) -> None:
    assert read_bandwidth(4096, 1e-3, name) > 0
    for kind in MULTIPLIED:
        assert multiply_add_rate(kind, 1e-3, name) > 0


def test_what_makes_no_sense_is_refused() -> None:
    for size in (0, -5, 2**63, 1.5, "x", None, math.nan):
        with pytest.raises(ParameterError, match=f"size is {size!r}, expected a whole number from 1"):
            read_bandwidth(size)
    for seconds in (math.nan, math.inf, 0, "x", None):
        with pytest.raises(ParameterError, match=f"seconds is {seconds!r}, expected a positive number"):
            read_bandwidth(1, seconds)
    with pytest.raises(ParameterError, match="kind is 'int4', expected one of float32, int8"):
        multiply_add_rate("int4")
    with pytest.raises(BackendError, match="It has: .*portable"):
        multiply_add_rate("int8", 1e-3, "avx10")
