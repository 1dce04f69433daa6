"""A linear layer for many rows in Triton, on tensor cores, and its parts for kernels that go on with the result."""

# K inputs and OUT outputs of a layer; BLOCK_R rows, BLOCK_O outputs, BLOCK_K inputs at once

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(x):
    """X * sigmoid(x). Where exp overflows the quotient is the limit, 0."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def scaled_and_biased(value, scale_ptr, bias_ptr, layer, o, OUT: tl.constexpr):
    """`value` of outputs `o`, which broadcasts to it, times the scale of quantised weights, plus the bias, if any."""
    at = tl.cast(layer, tl.int64) * OUT + o
    if scale_ptr is not None:
        value *= tl.load(scale_ptr + at, mask=o < OUT, other=0.0)
    if bias_ptr is not None:
        value += tl.load(bias_ptr + at, mask=o < OUT, other=0.0)
    return value


@triton.jit
def linear_of_rows(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    layer,
    first_row,
    rows,
    first,
    K: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DOT: tl.constexpr,
):
    """Outputs from `first` on for the rows of x (rows, K) from `first_row` on, shape (BLOCK_R, BLOCK_O).

    Both operands are converted to DOT. bfloat16 holds every int8 and float8 exactly. Under the interpreter, where
    tl.dot would multiply the bit patterns of bfloat16, DOT is float32.
    """
    r = tl.cast(first_row + tl.arange(0, BLOCK_R), tl.int64)[:, None]
    o = tl.cast(first + tl.arange(0, BLOCK_O), tl.int64)[None, :]
    weight_ptr += tl.cast(layer, tl.int64) * K * OUT
    total = tl.zeros((BLOCK_R, BLOCK_O), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x_at, weight_at = k[None, :], k[:, None]
        x = tl.load(x_ptr + r * K + x_at, mask=(r < rows) & (x_at < K), other=0.0, cache_modifier=".cg")
        weight = tl.load(weight_ptr + o * K + weight_at, mask=(o < OUT) & (weight_at < K), other=0.0)
        total = tl.dot(x.to(DOT), weight.to(DOT), total, input_precision="ieee")
    return scaled_and_biased(total, scale_ptr, bias_ptr, layer, o, OUT)


@triton.jit
def store_rows(value, out_ptr, first_row, rows, first, OUT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_O: tl.constexpr):
    """out[first_row:, first:] = value, shape (BLOCK_R, BLOCK_O)."""
    r = tl.cast(first_row + tl.arange(0, BLOCK_R), tl.int64)[:, None]
    o = (first + tl.arange(0, BLOCK_O))[None, :]
    tl.store(out_ptr + r * OUT + o, value, mask=(r < rows) & (o < OUT))


@triton.jit(do_not_specialize=["layer", "rows"])
def linear_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    out_ptr,
    layer,
    rows,
    K: tl.constexpr,
    OUT: tl.constexpr,
    WITH_SILU: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DOT: tl.constexpr,
):
    """Many rows: a layer, SiLU if wanted. Grid: outputs, rows."""
    first, first_row = tl.program_id(0) * BLOCK_O, tl.program_id(1) * BLOCK_R
    value = linear_of_rows(
        x_ptr,
        weight_ptr,
        scale_ptr,
        bias_ptr,
        layer,
        first_row,
        rows,
        first,
        K,
        OUT,
        BLOCK_R,
        BLOCK_O,
        BLOCK_K,
        DOT,
    )
    if WITH_SILU:
        value = silu(value)
    store_rows(value, out_ptr, first_row, rows, first, OUT, BLOCK_R, BLOCK_O)
