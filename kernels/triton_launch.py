"""What every launch of a Triton kernel needs: its arguments, the types that weights are kept in, and sizes of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret  # as it was when the kernels beside this file were defined

# By name: the type of the blocks' weights, and the greatest value that a weight is scaled to (None: not scaled).
STORAGE = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "float8": (torch.float8_e4m3fn, 448.0),
    "int8": (torch.int8, 127.0),
}


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: A ``triton.jit`` function.
        grid: Programs along each axis.
        arguments: All its arguments by name, constants too.
        options: For Triton, such as num_warps.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]

    def run(self) -> None:
        """Put it on the current stream; it runs later."""
        self.kernel[self.grid](**self.arguments, **self.options)


def launch(kernel: Any, grid: tuple[int, ...], warps: int, pool: dict[str, Any], **options: Any) -> Launch:
    """A launch with those arguments of the pool that the kernel has; `options` go to Triton."""
    arguments = {name: pool[name] for name in kernel.arg_names}
    return Launch(kernel, grid, arguments, {"num_warps": warps, **options})


def quantize(weight: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    """Values and scales of a weight (..., O, K), so that values * scales[..., None] is nearest to it.

    Args:
        weight: Float32.
        dtype: A key of STORAGE.

    Returns:
        The values (..., O, K) in the type named, and one scale per output, (..., O), float32; None if not scaled.
    """
    storage, greatest = STORAGE[dtype]
    if greatest is None:
        return weight.to(storage), None
    largest = weight.abs().amax(dim=-1)
    scale = torch.where(largest > 0, largest / greatest, 1.0)
    values = (weight / scale[..., None]).clamp(-greatest, greatest)
    return (values.round() if storage == torch.int8 else values).to(storage), scale


def dot_type(weight: Tensor) -> tl.dtype:
    """What tl.dot multiplies: float32 for float32 and under the interpreter, bfloat16 for everything else."""
    return tl.float32 if INTERPRETED or weight.dtype == torch.float32 else tl.bfloat16


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size` and 1."""
    return 1 << max(size - 1, 0).bit_length()


def ceil_div(size: int, part: int) -> int:
    """How many parts cover `size`."""
    return -(-size // part)


def matrix_tile(rows: int, outputs: int, is_float32: bool) -> dict[str, int]:
    """BLOCK_R, BLOCK_O and BLOCK_K for a layer of the blocks: narrow, so that there are enough programs."""
    return {
        "BLOCK_R": min(64, max(16, power_of_two(rows))),
        "BLOCK_O": 32 if outputs >= 1024 else 16,
        "BLOCK_K": 32 if is_float32 else 128,
    }
