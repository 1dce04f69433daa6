"""What the backbone step in Triton is made of: the kernels between its matrix products, and their order in a layer.

Everything is computed in float32: what is stored in fewer bits is widened as soon as it is loaded.
"""

# R tokens, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache
# BLOCK_G: the H / K query heads that share a key/value head, and up to the next power of two; likewise BLOCK_D, BLOCK_E
# BLOCK_L columns at once

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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


@triton.jit
def rotated(x_ptr, cosine, sine, e, E: tl.constexpr, live):
    """Rotary embedding of the heads at `x_ptr`, whose channels are `e` along the last axis; `sine` has its signs."""
    partner = tl.where(e < E // 2, e + E // 2, e - E // 2)  # the channel that one is rotated with
    x = tl.load(x_ptr + e, mask=live, other=0.0).to(tl.float32)
    return x * cosine + tl.load(x_ptr + partner, mask=live, other=0.0).to(tl.float32) * sine


@triton.jit
def angles(cosine_ptr, sine_ptr, token, e, E: tl.constexpr):
    """Cosine and sine of a token's channels `e`; the sine has the sign that its channel is rotated with."""
    cosine = tl.load(cosine_ptr + token * E + e, mask=e < E, other=0.0)
    sine = tl.load(sine_ptr + token * E + e, mask=e < E, other=0.0)
    return cosine, tl.where(e < E // 2, -sine, sine)


@triton.jit
def column_zero(cache_rows_ptr, token, layer, kv_head, cache_size, capacity, K: tl.constexpr, E: tl.constexpr):
    """Where in a cache (layers, cache_size, K, capacity, E) the columns of a token's sequence begin, int64."""
    row = tl.cast(layer, tl.int64) * cache_size + tl.load(cache_rows_ptr + token)
    return (row * K + kv_head) * capacity * E


@triton.jit(do_not_specialize=["layer", "cache_size", "capacity"])
def cache_kernel(
    heads_ptr,
    cosine_ptr,
    sine_ptr,
    keys_ptr,
    values_ptr,
    cache_rows_ptr,
    lengths_ptr,
    layer,
    cache_size,
    capacity,
    H: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Rotated keys, and values, of `heads` (R, H + 2 K, E) to their columns of the cache. Grid: tokens, K."""
    token, kv_head = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1)
    e = tl.arange(0, BLOCK_E)
    cosine, sine = angles(cosine_ptr, sine_ptr, token, e, E)
    heads_ptr += token * (H + 2 * K) * E
    key = rotated(heads_ptr + (H + kv_head) * E, cosine, sine, e, E, e < E)
    value = tl.load(heads_ptr + (H + K + kv_head) * E + e, mask=e < E, other=0.0)
    past = column_zero(cache_rows_ptr, token, layer, kv_head, cache_size, capacity, K, E)
    at = past + tl.load(lengths_ptr + token) * E + e
    tl.store(keys_ptr + at, key, mask=e < E)
    tl.store(values_ptr + at, value, mask=e < E)


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
    WITH_CACHE: tl.constexpr,
):
    """Rotary embedding, the new column of the cache, and attention over all up to it. Grid: tokens, K.

    `heads` holds queries, keys and values, shape (R, H + 2 K, E). WITH_CACHE also does what cache_kernel does, which
    must come before where a token attends to another one of this call. Softmax is taken in one pass: what was summed
    is scaled down whenever a greater score comes.
    """
    token, kv_head = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1)
    e = tl.arange(0, BLOCK_E)
    live = e < E
    cosine, sine = angles(cosine_ptr, sine_ptr, token, e, E)
    heads_ptr += token * (H + 2 * K) * E
    key = rotated(heads_ptr + (H + kv_head) * E, cosine, sine, e, E, live)
    value = tl.load(heads_ptr + (H + K + kv_head) * E + e, mask=live, other=0.0).to(tl.float32)
    length = tl.load(lengths_ptr + token)
    past = column_zero(cache_rows_ptr, token, layer, kv_head, cache_size, capacity, K, E)
    if WITH_CACHE:
        tl.store(keys_ptr + past + length * E + e, key, mask=live)
        tl.store(values_ptr + past + length * E + e, value, mask=live)

    g = tl.arange(0, BLOCK_G)[:, None]
    shared: tl.constexpr = H // K
    query_at = (kv_head * shared + g) * E
    live_query = (g < shared) & live[None, :]
    query = rotated(heads_ptr + query_at, cosine[None, :], sine[None, :], e[None, :], E, live_query) * score_scale

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
    tl.store(out_ptr + token * H * E + query_at + e[None, :], attended / total[:, None], mask=live_query)


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
    def ffn_width(self) -> int:
        """F."""
        return self.layers[0]["down"].values.shape[1]

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
    """The memory of calls with R tokens. A CUDA graph keeps the addresses, so arguments are copied in here.

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

    def part(self, first: int, last: int) -> Buffers:
        """The memory of tokens `first` to `last` - 1."""
        return Buffers(*(tensor[first:last] for tensor in vars(self).values()))


def make_buffers(motion: PackedBranch, text: PackedBranch, text_rows: int, rows: int) -> tuple[Buffers, list[Part]]:
    """Uninitialised memory for calls with `rows` tokens, the first `text_rows` of text, on the device of the weights.

    Returns:
        All of it, and the parts that go through each branch.
    """
    width, heads_width = len(motion.norm), motion.heads * motion.head_width

    def empty(*columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((rows, *columns), dtype=dtype, device=motion.norm.device)

    narrow = motion.activation
    buffers = Buffers(
        x=empty(width),
        cosine=empty(motion.head_width),
        sine=empty(motion.head_width),
        cache_rows=empty(dtype=torch.int64),
        lengths=empty(dtype=torch.int64),
        normed=empty(width, dtype=narrow),
        heads=empty(heads_width + 2 * motion.kv_heads * motion.head_width, dtype=narrow),
        attended=empty(heads_width, dtype=narrow),
        gate_up=empty(2 * motion.ffn_width, dtype=narrow),
        gated=empty(motion.ffn_width, dtype=narrow),
        change=empty(width, dtype=narrow),
        hidden=empty(width),
    )
    parts = [Part(text, buffers.part(0, text_rows)), Part(motion, buffers.part(text_rows, rows))]
    if text.ffn_width != motion.ffn_width:
        wider = {"gate_up": 2 * text.ffn_width, "gated": text.ffn_width}
        own = {name: empty(columns, dtype=narrow)[:text_rows] for name, columns in wider.items()}
        parts[0] = Part(text, replace(parts[0].buffers, **own))
    return buffers, [part for part in parts if len(part.buffers.x)]


@dataclass(frozen=True)
class Part:
    """Some of the tokens of a call.

    Attributes:
        branch: The weights that they go through.
        buffers: Their memory.
    """

    branch: PackedBranch
    buffers: Buffers


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
