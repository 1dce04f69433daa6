"""What a launch of the Triton kernels needs: packed weights, the memory they work in, and the sizes of their tiles."""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps, M = 3WN + 2W

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llamo_ros.kernels.triton_launch import ceil_div, power_of_two, quantize

if TYPE_CHECKING:
    from llamo_ros.kernels.flow_sampler import FlowHeadWeights

# Up to this many rows each program computes LayerNorm and modulation itself. With more, all programs together would
# read the rows and their modulations more often than the weights, and matrix products on tensor cores are faster.
MAX_DOT_PRODUCT_ROWS = 4


@dataclass(frozen=True)
class PackedWeights:
    """The flow head as the kernels read it.

    Only the blocks' weights are of the type named; where that needs scales, a weight is scale times value.

    Attributes:
        input_weight: Shape (W, Z), float32 like all others but two: the input and the output layer are small.
        input_bias: Shape (W,).
        first_weight: Shape (N, W, W), of the type named as `second_weight`.
        first_scale: Of each output, shape (N, W); None if the type needs none.
        first_bias: Shape (N, W).
        second_weight: Shape (N, W, W).
        second_scale: Shape (N, W), or None.
        second_bias: Shape (N, W).
        output_weight: Shape (Z, W).
        output_bias: Shape (Z,).
    """

    input_weight: Tensor
    input_bias: Tensor
    first_weight: Tensor
    first_scale: Tensor | None
    first_bias: Tensor
    second_weight: Tensor
    second_scale: Tensor | None
    second_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor

    @property
    def is_float32(self) -> bool:
        """Whether nothing is rounded: neither weights nor what they are multiplied with."""
        return self.first_weight.dtype == torch.float32

    @property
    def sizes(self) -> dict[str, int]:
        """Z, W, N and M by the names that the kernels have for them."""
        blocks, width, _ = self.first_weight.shape
        return {"Z": len(self.output_weight), "W": width, "N": blocks, "M": (3 * blocks + 2) * width}


def pack(weights: FlowHeadWeights, dtype: str) -> PackedWeights:
    """Copy the weights to what the kernels read; `dtype` is a key of STORAGE."""
    source = weights.map(lambda tensor: tensor.detach().clone(memory_format=torch.contiguous_format))
    first_weight, first_scale = quantize(source.first_weight, dtype)
    second_weight, second_scale = quantize(source.second_weight, dtype)
    return PackedWeights(
        input_weight=source.input_weight,
        input_bias=source.input_bias,
        first_weight=first_weight,
        first_scale=first_scale,
        first_bias=source.first_bias,
        second_weight=second_weight,
        second_scale=second_scale,
        second_bias=source.second_bias,
        output_weight=source.output_weight,
        output_bias=source.output_bias,
    )


@dataclass(frozen=True)
class Buffers:
    """The memory of one kind of call. A CUDA graph keeps the addresses, so arguments are copied in here.

    Attributes:
        x: Noise, in the end latents, shape (B, Z), float32 as all others but the last two.
        time: Shape (S, M); (S, R, M) where modulations do not come apart.
        condition: Shape (R, M), or None.
        guidance: The scale, shape (1,), or None.
        hidden: State of the residual MLP, shape (R, W).
        modulated: Input of the blocks' first layer, shape (R, W); used with many rows.
        inner: Input of their second layer, shape (R, W).
    """

    x: Tensor
    time: Tensor
    condition: Tensor | None
    guidance: Tensor | None
    hidden: Tensor
    modulated: Tensor
    inner: Tensor

    @property
    def rows(self) -> int:
        """R."""
        return len(self.hidden)


def make_buffers(weights: PackedWeights, batch: int, steps: int, guided: bool, separable: bool) -> Buffers:
    """Uninitialised memory for calls of one kind, on the device of the weights."""
    rows, sizes = batch * (2 if guided else 1), weights.sizes
    # Tensor cores want their operands in 16 bits, dot products in the registers do not.
    narrow = torch.float32 if weights.is_float32 or rows <= MAX_DOT_PRODUCT_ROWS else torch.bfloat16

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=weights.input_weight.device)

    return Buffers(
        x=empty(batch, sizes["Z"]),
        time=empty(steps, sizes["M"]) if separable else empty(steps, rows, sizes["M"]),
        condition=empty(rows, sizes["M"]) if separable else None,
        guidance=empty(1) if guided else None,
        hidden=empty(rows, sizes["W"]),
        modulated=empty(rows, sizes["W"], dtype=narrow),
        inner=empty(rows, sizes["W"], dtype=narrow),
    )


# ----------------------------------------------------------------------------------------------------------- arguments


def argument_pool(weights: PackedWeights, buffers: Buffers) -> dict[str, Any]:
    """Arguments that have one name and one value in all kernels; :func:`launch` takes those that a kernel has."""
    return weights.sizes | {
        "x_ptr": buffers.x,
        "time_ptr": buffers.time,
        "condition_ptr": buffers.condition,
        "guidance_ptr": buffers.guidance,
        "hidden_ptr": buffers.hidden,
        "modulated_ptr": buffers.modulated,
        "inner_ptr": buffers.inner,
        "step_size": 1.0 / len(buffers.time),
        "batch": len(buffers.x),
        "rows": buffers.rows,
    }


def first_layer(weights: PackedWeights) -> dict[str, Any]:
    """Arguments of a kernel for the first layer of a block."""
    return {
        "weight_ptr": weights.first_weight,
        "scale_ptr": weights.first_scale,
        "bias_ptr": weights.first_bias,
    }


def second_layer(weights: PackedWeights) -> dict[str, Any]:
    """Arguments of a kernel for the second layer of a block."""
    return {
        "weight_ptr": weights.second_weight,
        "scale_ptr": weights.second_scale,
        "bias_ptr": weights.second_bias,
    }


# ------------------------------------------------------------------------------------------------------ sizes of tiles


def dot_product_tile(outputs: int, inputs: int, max_programs: int) -> tuple[int, int]:
    """BLOCK_O and warps of a program that has all inputs of a few outputs in its registers.

    Args:
        outputs: Of the layer.
        inputs: Of the layer.
        max_programs: Programs at most; the fewer, the less often the row is read, and the fewer meet at a barrier.
    """
    block = max(4, power_of_two(ceil_div(outputs, max_programs)))
    elements = block * power_of_two(inputs)
    return block, min(16, max(4, power_of_two(elements // 2048)))  # 64 elements per thread while warps last


def input_tile(width: int, channels: int, rows: int, max_programs: int) -> tuple[int, int]:
    """BLOCK_O and warps for the input layer of one row: `max_programs` for all rows, if that is not too much each."""
    block_z = power_of_two(channels)
    spread = power_of_two(ceil_div(width * rows, max_programs))
    block = max(4, min(power_of_two(width), spread, 8192 // block_z))
    return block, min(16, max(4, power_of_two(block * block_z // 2048)))
