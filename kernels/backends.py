"""Which implementation of a kernel runs: chosen by device, or the one asked for by name, never silently another."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.core.numbers import whole_number

if TYPE_CHECKING:  # kernels on NumPy arrays run in programs without torch
    import torch

BACKENDS = ("auto", "reference", "cpu", "triton")
# In which weights may be kept. "float8" is e4m3, with a scale per output as "int8".
PRECISIONS = {
    "reference": ("float32",),
    "cpu": ("float32", "bfloat16", "int8"),
    "triton": ("float32", "bfloat16", "int8", "float8"),
}


def choose_backend(requested: str, device: torch.device | None, has_triton: bool = False) -> str:
    """The backend for tensors on `device`.

    That is "reference" (PyTorch, any device), "cpu" (the compiled kernels) or "triton" (NVIDIA GPUs).

    Args:
        requested: "auto" takes "cpu" for tensors in main memory, "triton" for others if it can run there, and else
            "reference"; why it cannot says :func:`why_not_triton`. Other names are taken at their word.
        device: Where the tensors are; None for NumPy arrays.
        has_triton: Whether the operation has Triton kernels.

    Raises:
        BackendError: there is no such backend, or it cannot compute on this device.
    """
    if requested not in BACKENDS:
        raise BackendError(f"there is no backend {requested!r}. Backends: {', '.join(BACKENDS)}.")
    if requested == "auto":
        if device is None or device.type == "cpu":
            return "cpu"
        return "triton" if has_triton and not why_not_triton(device) else "reference"
    if requested == "triton":
        if device is None or not has_triton:
            raise BackendError(
                "backend 'triton' was asked for, and this operation has no kernel in Triton. Use backend='auto'."
            )
        check_triton(device)
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
        backend: "reference", "cpu" or "triton".
        instruction_set: One of :func:`instruction_sets` for "cpu"; None for the others.
        precision: In which weights are kept; "float32" for "reference".
    """

    backend: str
    instruction_set: str | None
    precision: str


def choose(
    requested: str, device: torch.device, instruction_set: str | None, precision: str, has_triton: bool = False
) -> Choice:
    """Backend, instruction set and precision for tensors on `device`.

    Args:
        requested: As for :func:`choose_backend`.
        device: Where the tensors are.
        instruction_set: For the "cpu" backend; None takes the fastest of this machine.
        precision: One of those that ``PRECISIONS`` has for the backend.
        has_triton: Whether the operation has Triton kernels.

    Raises:
        ParameterError: there is no such precision.
        BackendError: the backend cannot run here, or does not have the instruction set or the precision.
    """
    if precision not in PRECISIONS["triton"]:
        raise ParameterError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS['triton'])}.")
    backend = choose_backend(requested, device, has_triton)
    if backend == "reference":
        for name, value, own in (("instruction_set", instruction_set, None), ("precision", precision, "float32")):
            if value != own:
                reason = why_not_triton(device) if has_triton and requested == "auto" else ""
                raise BackendError(
                    f"{name} {value!r} means nothing to backend 'reference', which is PyTorch in float32. "
                    "Leave it out, or ask for backend='cpu'."
                    + (f" Backend 'triton' was not chosen: {reason}" if reason else "")
                )
        return Choice(backend, None, precision)
    if precision not in PRECISIONS[backend]:
        raise BackendError(
            f"backend {backend!r} cannot keep weights in {precision}. It has: {', '.join(PRECISIONS[backend])}."
        )
    if backend == "triton":
        if instruction_set is not None:
            raise BackendError(
                f"instruction_set {instruction_set!r} means nothing to backend 'triton'. Leave it out, or ask for "
                "backend='cpu'."
            )
        check_triton(device, precision)
        return Choice(backend, None, precision)
    available = instruction_sets()
    if instruction_set is not None and instruction_set not in available:
        raise BackendError(
            f"instruction_set {instruction_set!r} does not run on this machine. It has: {', '.join(available)}."
        )
    return Choice(backend, instruction_set or available[0], precision)


def why_not_triton(device: torch.device, precision: str = "float32") -> str:
    """Why Triton kernels cannot run on tensors on `device`, and what to do; empty if they can. Imports no Triton.

    Args:
        device: Where the tensors are.
        precision: In which weights are kept, one of those that ``PRECISIONS`` has for "triton".
    """
    import torch  # here and not above: kernels on NumPy arrays run in programs without it

    # What Triton itself takes for yes. Then it runs kernels in Python, on tensors in main memory.
    is_interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
    if is_interpreted and device.type != "cpu":
        return (
            f"TRITON_INTERPRET is set, so Triton kernels run on the CPU, but the tensors are on {device}. Unset it, or "
            "move them with .cpu()."
        )
    if not is_interpreted and device.type != "cuda":
        return (
            f"Triton kernels need an NVIDIA GPU, but the tensors are on {device}. Move them with .to('cuda'), or use "
            "backend='auto'. To try the kernels on a CPU, very slowly, set TRITON_INTERPRET=1 before Python starts."
        )
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed. Install it with `pip install 'triton>=3.6,<3.10'`."
    if is_interpreted:
        return ""
    if torch.version.hip is not None or not torch.cuda.is_available():
        return "PyTorch finds no NVIDIA GPU. Check the driver and that PyTorch is built for CUDA, or use the CPU."
    capability = torch.cuda.get_device_capability(device)
    has = f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}"
    if capability < (8, 0):
        return f"Triton kernels need a GPU of compute capability 8.0, and {has}. Use backend='reference'."
    if precision == "float8" and capability < (8, 9):
        return f"float8 weights need a GPU of compute capability 8.9, and {has}. Use 'int8' or 'bfloat16'."
    return ""


def check_triton(device: torch.device, precision: str = "float32") -> None:
    """Raise BackendError unless Triton kernels with weights in this precision run on tensors on `device`."""
    if reason := why_not_triton(device, precision):
        raise BackendError(f"backend 'triton' cannot run. {reason}")


def check_threads(threads: int, backend: str) -> None:
    """Refuse a number of threads that cannot be.

    Args:
        threads: How many compute one call, the caller included.
        backend: "reference", "cpu" or "triton".

    Raises:
        ParameterError: `threads` is not a whole number from 1 to the cores that this process may use.
        BackendError: more than one for another backend than "cpu".
    """
    if checked_threads(threads) > 1 and backend != "cpu":
        own = "which uses those of torch.set_num_threads()" if backend == "reference" else "which runs on a GPU"
        raise BackendError(
            f"threads {threads} means nothing to backend {backend!r}, {own}. Leave it out, or ask for backend='cpu'."
        )


def checked_threads(threads: int) -> int:
    """The number of threads as a plain one.

    Raises:
        ParameterError: it is not a whole number from 1 to the cores that this process may use.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number = whole_number(threads)
    if number is None or not 1 <= number <= cores:
        raise ParameterError(
            f"threads is {threads!r}, expected a whole number from 1 to {cores}, the cores that this process may use."
        )
    return number


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
