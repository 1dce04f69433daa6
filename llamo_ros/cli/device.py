"""Which PyTorch device a subcommand runs on."""

from __future__ import annotations

from llamo_ros.core.errors import ParameterError


def device_of(name: str) -> str:
    """PyTorch's name of the device; ``auto`` is the GPU where there is one.

    Raises:
        ParameterError: ``cuda`` is asked for and there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ParameterError("there is no CUDA GPU that PyTorch can use here. Use --device cpu.")
    return name
