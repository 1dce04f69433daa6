"""The launches of the backbone step in Triton, and their order in a layer: matrix products and what is between them."""

# R tokens, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.kernels.backbone_step.triton_layers import (
    cache_kernel,
    residual_norm_kernel,
    rotary_attention_kernel,
    swiglu_kernel,
)
from llamo_ros.kernels.backbone_step.triton_plan import Buffers, Matrix, PackedBranch, Part
from llamo_ros.kernels.triton_launch import Launch, ceil_div, dot_type, launch, matrix_tile, power_of_two
from llamo_ros.kernels.triton_linear import linear_kernel


@dataclass(frozen=True)
class Product:
    """A matrix product by PyTorch: out = x @ weight.T."""

    x: Tensor
    weight: Tensor
    out: Tensor

    def run(self) -> None:
        """Put it on the current stream; it runs later."""
        torch.mm(self.x, self.weight.t(), out=self.out)


def linear(x: Tensor, matrix: Matrix, out: Tensor) -> Launch | Product:
    """Out (R, outputs) = x (R, inputs) times the matrix: by PyTorch, or in Triton where weights have scales."""
    if matrix.scale is None:
        return Product(x, matrix.values, out)
    outputs, inputs = matrix.values.shape
    tile = matrix_tile(len(x), outputs, is_float32=False)
    arguments = {
        "x_ptr": x,
        "weight_ptr": matrix.values,
        "scale_ptr": matrix.scale,
        "bias_ptr": None,
        "out_ptr": out,
        "layer": 0,
        "rows": len(x),
        "K": inputs,
        "OUT": outputs,
        "WITH_SILU": False,
        "DOT": dot_type(matrix.values),
    }
    grid = (ceil_div(outputs, tile["BLOCK_O"]), ceil_div(len(x), tile["BLOCK_R"]))
    return launch(linear_kernel, grid, 4, arguments | tile)


def residual_norm(x: Tensor, change: Tensor | None, weight: Tensor, out: Tensor, epsilon: float) -> Launch:
    """X += change, out = RMSNorm(x)."""
    rows, width = x.shape
    arguments = {"x_ptr": x, "change_ptr": change, "weight_ptr": weight, "out_ptr": out, "epsilon": epsilon, "D": width}
    return launch(residual_norm_kernel, (rows,), 4, arguments | {"BLOCK_D": power_of_two(width)})


def attention(
    branch: PackedBranch, buffers: Buffers, keys: Tensor, values: Tensor, layer: int, is_prompt: bool
) -> Iterator[Launch]:
    """Rotary embedding and attention of a layer, between its first and its second matrix product."""
    block_e = power_of_two(branch.head_width)
    block_g = power_of_two(branch.heads // branch.kv_heads)
    arguments = {
        "heads_ptr": buffers.heads,
        "cosine_ptr": buffers.cosine,
        "sine_ptr": buffers.sine,
        "keys_ptr": keys,
        "values_ptr": values,
        "cache_rows_ptr": buffers.cache_rows,
        "lengths_ptr": buffers.lengths,
        "out_ptr": buffers.attended,
        "layer": layer,
        "cache_size": keys.shape[1],
        "capacity": keys.shape[3],
        "score_scale": branch.head_width**-0.5,
        "H": branch.heads,
        "K": branch.kv_heads,
        "E": branch.head_width,
        "BLOCK_G": block_g,
        "BLOCK_E": block_e,
        "BLOCK_L": min(64, max(4, 8192 // (block_g * block_e))),  # 64 products per thread
        "WITH_CACHE": not is_prompt,
    }
    grid = (len(buffers.x), branch.kv_heads)
    if is_prompt:
        yield launch(cache_kernel, grid, 1, arguments)
    yield launch(rotary_attention_kernel, grid, 4, arguments)


def swiglu(gate_up: Tensor, out: Tensor) -> Launch:
    """Out (R, F) = SiLU(gate) * up of gate_up (R, 2 F)."""
    rows, channels = out.shape
    block = min(1024, power_of_two(channels))
    arguments = {"gate_up_ptr": gate_up, "out_ptr": out, "F": channels, "BLOCK_F": block}
    return launch(swiglu_kernel, (ceil_div(channels, block), rows), 4, arguments)


def step_launches(
    buffers: Buffers, parts: list[Part], keys: Tensor, values: Tensor, is_prompt: bool
) -> Iterator[Launch | Product]:
    """Everything from x to hidden, in its order: with one branch 8 launches per layer, and one.

    Args:
        buffers: Of all tokens.
        parts: The tokens of each branch.
        keys: Cache, shape (layers, rows, K, L, E).
        values: Likewise.
        is_prompt: Whether any two tokens are of one sequence.
    """
    branch = parts[0].branch
    for index in range(len(branch.layers)):
        for part in parts:
            layer, own, epsilon = part.branch.layers[index], part.buffers, part.branch.norm_epsilon
            change = own.change if index else None
            yield residual_norm(own.x, change, layer["attention_norm"], own.normed, epsilon)
            yield linear(own.normed, layer["query_key_value"], own.heads)
        yield from attention(branch, buffers, keys, values, index, is_prompt)
        for part in parts:
            layer, own, epsilon = part.branch.layers[index], part.buffers, part.branch.norm_epsilon
            yield linear(own.attended, layer["attention_output"], own.change)
            yield residual_norm(own.x, own.change, layer["feed_forward_norm"], own.normed, epsilon)
            yield linear(own.normed, layer["gate_up"], own.gate_up)
            yield swiglu(own.gate_up, own.gated)
            yield linear(own.gated, layer["down"], own.change)
    for part in parts:
        own = part.buffers
        yield residual_norm(own.x, own.change, part.branch.norm, own.hidden, part.branch.norm_epsilon)
