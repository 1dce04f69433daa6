"""Which implementation of a kernel runs: chosen by device, or the one asked for by name, never silently another."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from llamo_ros.core.errors import BackendError, ParameterError

if TYPE_CHECKING:  # kernels on NumPy arrays run in programs without torch
    import torch

BACKENDS = ("auto", "reference", "cpu")
PRECISIONS = ("float32", "bfloat16", "int8")


def choose_backend(requested: str, device: torch.device | None) -> str:
    """The backend for tensors on `device`: "reference" (PyTorch, any device) or "cpu" (the compiled kernels).

    Args:
        requested: "auto" takes "cpu" for tensors in main memory and "reference" for any others. Other names are taken
            at their word.
        device: Where the tensors are; None for NumPy arrays.

    Raises:
        BackendError: there is no such backend, or it cannot compute on this device.
    """
    if requested not in BACKENDS:
        raise BackendError(f"there is no backend {requested!r}. Backends: {', '.join(BACKENDS)}.")
    if requested == "auto":
        return "cpu" if device is None or device.type == "cpu" else "reference"
    if requested == "cpu" and device is not None and device.type != "cpu":
        raise BackendError(
            f"backend 'cpu' was asked for, but the tensors are on {device}. "
            "Move them with .cpu(), or use backend='auto' to choose by device."
        )
    return requested


def instruction_sets() -> tuple[str, ...]:
    """Those that the "cpu" backend can use on this machine, the fastest first; "portable" is always the last.

    Raises:
        BackendError: the kernels are not built.
    """
    return tuple(compiled_kernels("instruction_sets").instruction_sets())


class Choice(NamedTuple):
    """How a kernel with packed weights runs.

    Attributes:
        backend: "reference" or "cpu".
        instruction_set: One of :func:`instruction_sets`; None for "reference".
        precision: In which weights are kept; "float32" for "reference".
    """

    backend: str
    instruction_set: str | None
    precision: str


def choose(requested: str, device: torch.device, instruction_set: str | None, precision: str) -> Choice:
    """Backend, instruction set and precision for tensors on `device`.

    Args:
        requested: As for :func:`choose_backend`.
        device: Where the tensors are.
        instruction_set: For the "cpu" backend; None takes the fastest of this machine.
        precision: One of ``PRECISIONS``.

    Raises:
        ParameterError: there is no such precision.
        BackendError: the backend cannot run here, or does not have the instruction set or the precision.
    """
    if precision not in PRECISIONS:
        raise ParameterError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}.")
    backend = choose_backend(requested, device)
    if backend == "reference":
        for name, value, own in (("instruction_set", instruction_set, None), ("precision", precision, "float32")):
            if value != own:
                raise BackendError(
                    f"{name} {value!r} means nothing to backend 'reference', which is PyTorch in float32. "
                    "Leave it out, or ask for backend='cpu'."
                )
        return Choice(backend, None, precision)
    available = instruction_sets()
    if instruction_set is not None and instruction_set not in available:
        raise BackendError(
            f"instruction_set {instruction_set!r} does not run on this machine. It has: {', '.join(available)}."
        )
    return Choice(backend, instruction_set or available[0], precision)


def check_threads(threads: int, backend: str) -> None:
    """Refuse a number of threads that cannot be.

    Args:
        threads: How many compute one call, the caller included.
        backend: "reference" or "cpu".

    Raises:
        ParameterError: `threads` is not a whole number from 1 to the cores that this process may use.
        BackendError: more than one for "reference", whose threads PyTorch manages.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(threads, int) or not 1 <= threads <= cores:
        raise ParameterError(f"threads is {threads!r}, expected 1 to {cores}, the cores that this process may use.")
    if threads > 1 and backend == "reference":
        raise BackendError(
            f"threads {threads} means nothing to backend 'reference', which uses those of torch.set_num_threads(). "
            "Leave it out, or ask for backend='cpu'."
        )


def compiled_kernels(operation: str) -> ModuleType:
    """The extension module ``llamo_ros._kernels``, which holds every compiled kernel.

    Args:
        operation: The kernel that is needed, by the name of its folder.

    Raises:
        BackendError: the module was not built, or for another Python, or before this kernel was written.
    """
    advice = (
        "Build them with `pip install .` or `colcon build` in the llamo_ros repository, or ask for "
        "backend='reference', which is slower."
    )
    try:
        from llamo_ros import _kernels  # here and not above: the reference must work without it
    except ImportError as error:
        raise BackendError(f"the compiled kernels cannot be imported ({error}). {advice}") from error
    if not hasattr(_kernels, operation):
        raise BackendError(f"the compiled kernels were built before {operation!r} was part of them. {advice}")
    return _kernels
