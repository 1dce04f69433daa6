"""What one core can do at most, to compare kernels with: bytes read per second, multiply-adds per second.

This is no operation of a model, so there is no reference: the limit is whatever the machine reaches.

    read_bandwidth(524_288)        # [byte/s] of whichever cache level holds half a megabyte
    multiply_add_rate("int8")      # [operation/s]
"""

from __future__ import annotations

import math

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.core.numbers import real_number, whole_number
from llamo_ros.kernels.backends import compiled_kernels, instruction_sets

__all__ = ["MULTIPLIED", "multiply_add_rate", "read_bandwidth"]

_LARGEST = 2**46  # addresses that a process has on common machines

MULTIPLIED = ("float32", "int8")  # bfloat16 weights are widened, and multiplied as float32


def read_bandwidth(size: int, seconds: float = 0.1, instruction_set: str | None = None) -> float:
    """Rate at which one thread reads a buffer again and again, plainly or fetching ahead, [byte/s]: the best round.

    Args:
        size: Of the buffer, [byte], from 1 to what memory holds; rounded up to a kilobyte. It decides which cache level
            is measured.
        seconds: How long to try, [s], > 0. At least one round is made, of 16 MB or the buffer.
        instruction_set: Of the loads; None takes the fastest of this machine.

    Raises:
        ParameterError: a number is out of range.
        BackendError: the kernels are not built, or the machine does not have the instruction set.
    """
    number = whole_number(size)
    if number is None or not 1 <= number <= _LARGEST:
        raise ParameterError(f"size is {size!r}, expected a whole number from 1 to {_LARGEST} bytes.")
    kernels, chosen = _prepared(seconds, instruction_set)
    try:
        return kernels.machine_probe_read_rate(number, seconds, chosen)
    except MemoryError as error:
        raise ParameterError(f"size is {number} bytes, for which there is no memory. Use less.") from error


def multiply_add_rate(kind: str = "float32", seconds: float = 0.1, instruction_set: str | None = None) -> float:
    """Rate at which one thread multiplies and adds in registers, [operation/s]; a product and its sum are two.

    Args:
        kind: "float32" or "int8"; int8 with the instructions that the kernels use for it.
        seconds: How long to try, [s], > 0.
        instruction_set: None takes the fastest of this machine.

    Raises:
        ParameterError: there is no such kind, or `seconds` is not positive.
        BackendError: the kernels are not built, or the machine does not have the instruction set.
    """
    if kind not in MULTIPLIED:
        raise ParameterError(f"kind is {kind!r}, expected one of {', '.join(MULTIPLIED)}.")
    kernels, chosen = _prepared(seconds, instruction_set)
    return kernels.machine_probe_multiply_add_rate(kind, seconds, chosen)


def _prepared(seconds: float, instruction_set: str | None) -> tuple[object, str]:
    """The compiled module and the instruction set, checked."""
    if not (math.isfinite(real_number(seconds)) and seconds > 0):
        raise ParameterError(f"seconds is {seconds!r}, expected a positive number.")
    kernels = compiled_kernels("machine_probe")
    available = instruction_sets()
    if instruction_set is not None and instruction_set not in available:
        raise BackendError(
            f"instruction_set {instruction_set!r} does not run on this machine. It has: {', '.join(available)}."
        )
    return kernels, instruction_set or available[0]
