"""What the Triton kernels of the flow sampler are made of: functions that run inside a kernel.

Everything is computed in float32: what is stored in fewer bits is widened as soon as it is loaded. Activations are
loaded with ``.cg``, past the cache of one multiprocessor, because in the persistent kernels another one wrote them.
"""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps
# M = 3WN + 2W modulations of a row, K inputs and OUT outputs of a layer
# BLOCK_R rows, BLOCK_O outputs, BLOCK_K inputs at once; BLOCK_W: all W of them and up to the next power of two

from __future__ import annotations

import triton
import triton.language as tl

from llamo_ros.kernels.flow_sampler import reference
from llamo_ros.kernels.triton_linear import scaled_and_biased, silu

EPSILON = tl.constexpr(reference.LAYER_NORM_EPSILON)


@triton.jit
def modulation(time_ptr, condition_ptr, step, row, rows, slot, i, live, W: tl.constexpr, M: tl.constexpr):
    """Values `i` of one shift, scale or gate in `row`: the part of flow time plus, where it comes apart, the other.

    Slots 3n, 3n + 1, 3n + 2 are shift, scale and gate of block n; 3N, 3N + 1 are shift and scale of the output.
    """
    column = slot * W + i
    row = tl.cast(row, tl.int64)
    time_row = tl.cast(step, tl.int64)
    if condition_ptr is None:
        time_row = time_row * rows + row
    value = tl.load(time_ptr + time_row * M + column, mask=live, other=0.0)
    if condition_ptr is not None:
        value += tl.load(condition_ptr + row * M + column, mask=live, other=0.0)
    return value


@triton.jit
def modulated_row(
    hidden_ptr,
    time_ptr,
    condition_ptr,
    step,
    row,
    rows,
    slot,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """LayerNorm(hidden[row]) * (1 + scale) + shift, (BLOCK_W,), 0 beyond W; shift is in `slot`, scale in the next."""
    i = tl.arange(0, BLOCK_W)
    live = i < W
    hidden = tl.load(hidden_ptr + tl.cast(row, tl.int64) * W + i, mask=live, other=0.0, cache_modifier=".cg")
    centred = tl.where(live, hidden - tl.sum(hidden, axis=0) / W, 0.0)
    variance = tl.sum(centred * centred, axis=0) / W
    shift = modulation(time_ptr, condition_ptr, step, row, rows, slot, i, live, W, M)
    scale = modulation(time_ptr, condition_ptr, step, row, rows, slot + 1, i, live, W, M)
    return tl.where(live, centred * tl.rsqrt(variance + EPSILON) * (1.0 + scale) + shift, 0.0)


# --------------------------------------------------------------------------------------------- one row: dot products


@triton.jit
def weight_tile(
    weight_ptr, layer, first, K: tl.constexpr, OUT: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Weights from all K inputs to the outputs from `first` on, shape (BLOCK_O, BLOCK_K), as they are stored."""
    o = tl.cast(first + tl.arange(0, BLOCK_O), tl.int64)[:, None]
    k = tl.arange(0, BLOCK_K)[None, :]
    at = weight_ptr + tl.cast(layer, tl.int64) * K * OUT + o * K + k
    return tl.load(at, mask=(o < OUT) & (k < K), other=0.0)


@triton.jit
def linear_of_row(tile, x, scale_ptr, bias_ptr, layer, first, OUT: tl.constexpr, BLOCK_O: tl.constexpr):
    """Outputs from `first` on, shape (BLOCK_O,), for one row `x` (BLOCK_K,) that is 0 beyond K."""
    value = tl.sum(tile.to(tl.float32) * x[None, :], axis=1)
    return scaled_and_biased(value, scale_ptr, bias_ptr, layer, first + tl.arange(0, BLOCK_O), OUT)


@triton.jit
def input_task(
    x_ptr,
    weight_ptr,
    bias_ptr,
    hidden_ptr,
    row,
    batch,
    first,
    W: tl.constexpr,
    Z: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    """hidden[row, first:] = input layer of the latent, which a conditional row shares with its null row."""
    z = tl.arange(0, BLOCK_Z)
    x = tl.load(x_ptr + tl.cast(row % batch, tl.int64) * Z + z, mask=z < Z, other=0.0, cache_modifier=".cg")
    tile = weight_tile(weight_ptr, 0, first, Z, W, BLOCK_O, BLOCK_Z)
    value = linear_of_row(tile, x, None, bias_ptr, 0, first, W, BLOCK_O)
    o = first + tl.arange(0, BLOCK_O)
    tl.store(hidden_ptr + tl.cast(row, tl.int64) * W + o, value, mask=o < W)


@triton.jit
def first_task(
    tile,
    hidden_ptr,
    time_ptr,
    condition_ptr,
    scale_ptr,
    bias_ptr,
    inner_ptr,
    step,
    layer,
    row,
    rows,
    first,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """inner[row, first:] = SiLU(first layer of the modulated row)."""
    x = modulated_row(hidden_ptr, time_ptr, condition_ptr, step, row, rows, 3 * layer, W, M, BLOCK_W)
    value = silu(linear_of_row(tile, x, scale_ptr, bias_ptr, layer, first, W, BLOCK_O))
    o = first + tl.arange(0, BLOCK_O)
    tl.store(inner_ptr + tl.cast(row, tl.int64) * W + o, value, mask=o < W)


@triton.jit
def second_task(
    tile,
    inner_ptr,
    time_ptr,
    condition_ptr,
    scale_ptr,
    bias_ptr,
    hidden_ptr,
    step,
    layer,
    row,
    rows,
    first,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """hidden[row, first:] += gate * second layer of the inner row."""
    i = tl.arange(0, BLOCK_W)
    x = tl.load(inner_ptr + tl.cast(row, tl.int64) * W + i, mask=i < W, other=0.0, cache_modifier=".cg")
    value = linear_of_row(tile, x, scale_ptr, bias_ptr, layer, first, W, BLOCK_O)
    o = first + tl.arange(0, BLOCK_O)
    gate = modulation(time_ptr, condition_ptr, step, row, rows, 3 * layer + 2, o, o < W, W, M)
    at = hidden_ptr + tl.cast(row, tl.int64) * W + o
    hidden = tl.load(at, mask=o < W, other=0.0, cache_modifier=".cg")
    tl.store(at, hidden + gate * value, mask=o < W)


@triton.jit
def output_task(
    hidden_ptr,
    time_ptr,
    condition_ptr,
    weight_ptr,
    bias_ptr,
    guidance_ptr,
    x_ptr,
    step,
    step_size,
    sample,
    batch,
    rows,
    first,
    N: tl.constexpr,
    W: tl.constexpr,
    Z: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """x[sample, first:] += step_size * velocity, guided where `guidance_ptr` is not None."""
    tile = weight_tile(weight_ptr, 0, first, W, Z, BLOCK_O, BLOCK_W)
    modulated = modulated_row(hidden_ptr, time_ptr, condition_ptr, step, sample, rows, 3 * N, W, M, BLOCK_W)
    velocity = linear_of_row(tile, modulated, None, bias_ptr, 0, first, Z, BLOCK_O)
    if guidance_ptr is not None:
        modulated = modulated_row(hidden_ptr, time_ptr, condition_ptr, step, sample + batch, rows, 3 * N, W, M, BLOCK_W)
        null = linear_of_row(tile, modulated, None, bias_ptr, 0, first, Z, BLOCK_O)
        velocity = null + tl.load(guidance_ptr) * (velocity - null)
    z = first + tl.arange(0, BLOCK_O)
    at = x_ptr + tl.cast(sample, tl.int64) * Z + z
    x = tl.load(at, mask=z < Z, other=0.0, cache_modifier=".cg")
    tl.store(at, x + step_size * velocity, mask=z < Z)


# ----------------------------------------------------------------------------------------- many rows: matrix products


@triton.jit
def modulate_task(
    hidden_ptr,
    time_ptr,
    condition_ptr,
    modulated_ptr,
    step,
    layer,
    row,
    rows,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """modulated[row] = input of the block's first layer."""
    value = modulated_row(hidden_ptr, time_ptr, condition_ptr, step, row, rows, 3 * layer, W, M, BLOCK_W)
    i = tl.arange(0, BLOCK_W)
    tl.store(modulated_ptr + tl.cast(row, tl.int64) * W + i, value, mask=i < W)


@triton.jit
def gate_rows(
    value,
    time_ptr,
    condition_ptr,
    hidden_ptr,
    step,
    layer,
    first_row,
    rows,
    first,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """hidden[first_row:, first:] += gate * value, shape (BLOCK_R, BLOCK_O)."""
    r = tl.cast(first_row + tl.arange(0, BLOCK_R), tl.int64)[:, None]
    o = (first + tl.arange(0, BLOCK_O))[None, :]
    live = (r < rows) & (o < W)
    gate = modulation(time_ptr, condition_ptr, step, r, rows, 3 * layer + 2, o, live, W, M)
    at = hidden_ptr + r * W + o
    hidden = tl.load(at, mask=live, other=0.0, cache_modifier=".cg")
    tl.store(at, hidden + gate * value, mask=live)
