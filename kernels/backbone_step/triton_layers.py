"""What the backbone step in Triton is made of: the kernels between its matrix products, and their order in a layer.

Everything is computed in float32: what is stored in fewer bits is widened as soon as it is loaded.
"""

# R rows, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache
# BLOCK_G: the H / K query heads that share a key/value head, and up to the next power of two; likewise BLOCK_D, BLOCK_E
# BLOCK_L columns at once

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llamo_ros.kernels.triton_launch import (
    Launch,
    ceil_div,
    dot_type,
    launch,
    matrix_tile,
    power_of_two,
    quantize,
)
from llamo_ros.kernels.triton_linear import linear_kernel, silu

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step import BranchWeights


@triton.jit
def residual_norm_kernel(x_ptr, change_ptr, weight_ptr, out_ptr, epsilon, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """X += change, unless that is None, and out = RMSNorm(x). Grid: rows."""
    i = tl.arange(0, BLOCK_D)
    live = i < D
    at = tl.cast(tl.program_id(0), tl.int64) * D + i
    x = tl.load(x_ptr + at, mask=live, other=0.0)
    if change_ptr is not None:
        x += tl.load(change_ptr + at, mask=live, other=0.0).to(tl.float32)
        tl.store(x_ptr + at, x, mask=live)
    weight = tl.load(weight_ptr + i, mask=live, other=0.0)
    normed = weight * (x * tl.rsqrt(tl.sum(x * x, axis=0) / D + epsilon))
    tl.store(out_ptr + at, normed, mask=live)


@triton.jit(do_not_specialize=["layer", "cache_size", "capacity"])
def rotary_attention_kernel(
    heads_ptr,
    cosine_ptr,
    sine_ptr,
    keys_ptr,
    values_ptr,
    cache_rows_ptr,
    lengths_ptr,
    out_ptr,
    layer,
    cache_size,
    capacity,
    score_scale,
    H: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Rotary embedding, the new column of the cache, and attention over it. Grid: rows, key/value heads.

    `heads` holds queries, keys and values, shape (R, H + 2 K, E); the caches are (layers, cache_size, K, capacity, E).
    Softmax is taken in one pass: what was summed is scaled down whenever a greater score comes.
    """
    row, kv_head = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1)
    e = tl.arange(0, BLOCK_E)
    live = e < E
    cosine = tl.load(cosine_ptr + row * E + e, mask=live, other=0.0)
    sine = tl.load(sine_ptr + row * E + e, mask=live, other=0.0)
    sine = tl.where(e < E // 2, -sine, sine)
    partner = tl.where(e < E // 2, e + E // 2, e - E // 2)  # of a channel: the one it is rotated with
    heads_ptr += row * (H + 2 * K) * E

    key_ptr = heads_ptr + (H + kv_head) * E
    key = tl.load(key_ptr + e, mask=live, other=0.0).to(tl.float32) * cosine
    key += tl.load(key_ptr + partner, mask=live, other=0.0).to(tl.float32) * sine
    value = tl.load(heads_ptr + (H + K + kv_head) * E + e, mask=live, other=0.0).to(tl.float32)
    length = tl.load(lengths_ptr + row)
    past = (tl.cast(layer, tl.int64) * cache_size + tl.load(cache_rows_ptr + row)) * K + kv_head
    past *= tl.cast(capacity, tl.int64) * E
    tl.store(keys_ptr + past + length * E + e, key, mask=live)
    tl.store(values_ptr + past + length * E + e, value, mask=live)

    g = tl.arange(0, BLOCK_G)[:, None]
    shared: tl.constexpr = H // K
    query_at = (kv_head * shared + g) * E
    live_query = (g < shared) & live[None, :]
    query = tl.load(heads_ptr + query_at + e[None, :], mask=live_query, other=0.0).to(tl.float32) * cosine[None, :]
    query += tl.load(heads_ptr + query_at + partner[None, :], mask=live_query, other=0.0).to(tl.float32) * sine[None, :]
    query *= score_scale

    # The new column comes first and from the registers: what was just stored need not be loaded.
    greatest = tl.sum(query * key[None, :], axis=1)
    total = tl.full((BLOCK_G,), 1.0, tl.float32)
    attended = tl.zeros((BLOCK_G, BLOCK_E), tl.float32) + value[None, :]
    start = length * 0
    while start < length:  # Triton 3.6 cannot interpret range with such a bound and a new NumPy
        column = start + tl.arange(0, BLOCK_L)
        at = past + column[:, None] * E + e[None, :]
        live_column = (column < length)[:, None] & live[None, :]
        keys = tl.load(keys_ptr + at, mask=live_column, other=0.0).to(tl.float32)
        scores = tl.sum(query[:, None, :] * keys[None, :, :], axis=2)
        scores = tl.where((column < length)[None, :], scores, float("-inf"))
        greater = tl.maximum(greatest, tl.max(scores, axis=1))
        shrink = tl.exp(greatest - greater)
        shares = tl.exp(scores - greater[:, None])
        values = tl.load(values_ptr + at, mask=live_column, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(shares, axis=1)
        attended = attended * shrink[:, None] + tl.sum(shares[:, :, None] * values[None, :, :], axis=1)
        greatest = greater
        start += BLOCK_L
    tl.store(out_ptr + row * H * E + query_at + e[None, :], attended / total[:, None], mask=live_query)


@triton.jit
def swiglu_kernel(gate_up_ptr, out_ptr, F: tl.constexpr, BLOCK_F: tl.constexpr):
    """SiLU(gate) * up of gate_up (R, 2 F). Grid: channels, rows."""
    row = tl.cast(tl.program_id(1), tl.int64)
    i = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    live = i < F
    gate = tl.load(gate_up_ptr + row * 2 * F + i, mask=live, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * F + F + i, mask=live, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * F + i, silu(gate) * up, mask=live)


# ------------------------------------------------------------------------------------------------------------- weights


@dataclass(frozen=True)
class Matrix:
    """The weights of a linear layer without bias.

    Attributes:
        values: Shape (outputs, inputs), of a type in ``STORAGE``.
        scale: Of each output, shape (outputs,), float32; None if the type needs none.
    """

    values: Tensor
    scale: Tensor | None


@dataclass(frozen=True)
class PackedBranch:
    """All layers of a branch as the step reads them.

    Attributes:
        heads: H.
        kv_heads: K.
        head_width: E.
        norm_epsilon: Added to the mean square in every RMSNorm.
        norm: Weight of the final one, shape (D,), float32 as all norms.
        layers: Norms and matrices of each layer, by the names of
            :class:`~llamo_ros.kernels.backbone_step.LayerWeights`.
    """

    heads: int
    kv_heads: int
    head_width: int
    norm_epsilon: float
    norm: Tensor
    layers: tuple[dict[str, Any], ...]

    @property
    def activation(self) -> torch.dtype:
        """Type of what matrices are multiplied with, and of the products."""
        return torch.float32 if self.layers[0]["down"].values.dtype == torch.float32 else torch.bfloat16


def pack(weights: BranchWeights, precision: str) -> PackedBranch:
    """Copy the weights to what the step reads; `precision` is a key of STORAGE."""

    def packed(tensor: Tensor) -> Tensor | Matrix:
        tensor = tensor.detach().float().clone(memory_format=torch.contiguous_format)
        return tensor if tensor.ndim == 1 else Matrix(*quantize(tensor, precision))

    return PackedBranch(
        weights.heads,
        weights.kv_heads,
        weights.head_width,
        weights.norm_epsilon,
        packed(weights.norm),
        tuple({name: packed(tensor) for name, tensor in vars(layer).items()} for layer in weights.layers),
    )


# --------------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Buffers:
    """The memory of calls with R rows. A CUDA graph keeps the addresses, so arguments are copied in here.

    Attributes:
        x: Tokens, later what the layers made of them, shape (R, D), float32.
        cosine: Shape (R, E), float32.
        sine: Shape (R, E), float32.
        cache_rows: Shape (R,), int64.
        lengths: Shape (R,), int64.
        normed: What matrices are multiplied with, shape (R, D), of the type of activations as all that follow.
        heads: Queries, keys, values, shape (R, (H + 2 K) E).
        attended: Shape (R, H E).
        gate_up: Shape (R, 2 F).
        gated: Shape (R, F).
        change: What is added to x next, shape (R, D).
        hidden: The result, shape (R, D), float32.
    """

    x: Tensor
    cosine: Tensor
    sine: Tensor
    cache_rows: Tensor
    lengths: Tensor
    normed: Tensor
    heads: Tensor
    attended: Tensor
    gate_up: Tensor
    gated: Tensor
    change: Tensor
    hidden: Tensor


def make_buffers(branch: PackedBranch, rows: int) -> Buffers:
    """Uninitialised memory for calls with `rows` rows, on the device of the weights."""
    width, ffn_width = branch.layers[0]["down"].values.shape
    heads, kv_heads, head_width = branch.heads, branch.kv_heads, branch.head_width

    def empty(*columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((rows, *columns), dtype=dtype, device=branch.norm.device)

    narrow = branch.activation
    return Buffers(
        x=empty(width),
        cosine=empty(head_width),
        sine=empty(head_width),
        cache_rows=empty(dtype=torch.int64),
        lengths=empty(dtype=torch.int64),
        normed=empty(width, dtype=narrow),
        heads=empty((heads + 2 * kv_heads) * head_width, dtype=narrow),
        attended=empty(heads * head_width, dtype=narrow),
        gate_up=empty(2 * ffn_width, dtype=narrow),
        gated=empty(ffn_width, dtype=narrow),
        change=empty(width, dtype=narrow),
        hidden=empty(width),
    )


# ------------------------------------------------------------------------------------------------------------ launches


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


def attention(branch: PackedBranch, buffers: Buffers, keys: Tensor, values: Tensor, layer: int) -> Launch:
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
    }
    return launch(rotary_attention_kernel, (len(buffers.x), branch.kv_heads), 4, arguments)


def swiglu(gate_up: Tensor, out: Tensor) -> Launch:
    """Out (R, F) = SiLU(gate) * up of gate_up (R, 2 F)."""
    rows, channels = out.shape
    block = min(1024, power_of_two(channels))
    arguments = {"gate_up_ptr": gate_up, "out_ptr": out, "F": channels, "BLOCK_F": block}
    return launch(swiglu_kernel, (ceil_div(channels, block), rows), 4, arguments)


def step_launches(branch: PackedBranch, buffers: Buffers, keys: Tensor, values: Tensor) -> Iterator[Launch | Product]:
    """Everything from x to hidden, in its order: 8 launches per layer and one."""
    change = None
    for index, layer in enumerate(branch.layers):
        yield residual_norm(buffers.x, change, layer["attention_norm"], buffers.normed, branch.norm_epsilon)
        yield linear(buffers.normed, layer["query_key_value"], buffers.heads)
        yield attention(branch, buffers, keys, values, index)
        change = buffers.change
        yield linear(buffers.attended, layer["attention_output"], change)
        yield residual_norm(buffers.x, change, layer["feed_forward_norm"], buffers.normed, branch.norm_epsilon)
        yield linear(buffers.normed, layer["gate_up"], buffers.gate_up)
        yield swiglu(buffers.gate_up, buffers.gated)
        yield linear(buffers.gated, layer["down"], change)
    yield residual_norm(buffers.x, change, branch.norm, buffers.hidden, branch.norm_epsilon)
