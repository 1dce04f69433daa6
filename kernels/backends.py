"""Which implementation of a kernel runs: chosen by device, or the one asked for by name, never silently another."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

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


def choose_instruction_set(requested: str | None) -> str:
    """The one that was asked for, or the fastest of this machine.

    Raises:
        BackendError: this machine does not have it.
    """
    available = instruction_sets()
    if requested is not None and requested not in available:
        raise BackendError(
            f"instruction_set {requested!r} does not run on this machine. It has: {', '.join(available)}."
        )
    return requested or available[0]


def check_precision(precision: str, backend: str) -> str:
    """The precision as given: in which the "cpu" backend keeps weights. The reference computes in float32.

    Raises:
        ParameterError: there is no such precision.
        BackendError: the backend does not have it.
    """
    if precision not in PRECISIONS:
        raise ParameterError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}.")
    if backend == "reference" and precision != "float32":
        raise BackendError(f"backend 'reference' computes in float32, not in {precision}; ask for backend='cpu'.")
    return precision


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
