"""How calls take turns, and what is said of their times; nothing here depends on how long something takes."""

from __future__ import annotations

import os

import pytest
import torch

from llamo_ros.benchmark import timing
from llamo_ros.benchmark.timing import LEAST, one_core, quietest_core, spread, take_turns
from llamo_ros.core.errors import ParameterError


def test_a_spread_is_in_milliseconds() -> None:
    found = spread([0.001 * value for value in range(1, 102)])
    assert found == pytest.approx({"p50_ms": 51, "p90_ms": 91, "p99_ms": 100, "max_ms": 101, "calls": 101})


def test_functions_take_turns_and_each_is_timed() -> None:
    called: list[str] = []
    times = take_turns({name: lambda name=name: called.append(name) for name in "ab"}, 1e-9)
    assert {name: len(values) for name, values in times.items()} == {"a": LEAST, "b": LEAST}
    assert called == ["a", "b", *(["a", "a", "b", "b"] * LEAST)]  # each timed call has one before it


def test_no_function_is_called_without_end() -> None:
    assert len(take_turns({"a": lambda: None}, 60.0, most=7)["a"]) == 7


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot bind a process")
def test_one_core_is_left_as_it_was_found() -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_core() as core:
        assert os.sched_getaffinity(0) == {core}
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == (cores, threads)


def test_the_quietest_core_is_the_one_that_was_idle_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LOOK", 0.0)
    for times, core in (([{0: 5, 1: 9, 2: 0}, {0: 8, 1: 10, 2: 9}], 0), ([{}], 1), ([{0: 1, 1: 1}, {0: 2, 1: 2}], 1)):
        readings = iter(times)
        monkeypatch.setattr(timing, "_idle_time", lambda readings=readings: next(readings))
        assert quietest_core({0, 1}) == core


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot bind a process")
def test_a_core_that_is_not_there_is_refused_by_its_number() -> None:
    with pytest.raises(ParameterError, match="core is 100000"), one_core(100000):
        pass
