"""The Triton kernels of the backbone step between its matrix products: norm, rotary attention with the cache, SwiGLU.

Everything is computed in float32: what is stored in fewer bits is widened as soon as it is loaded.
"""

# R tokens, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache
# BLOCK_G: the H / K query heads that share a key/value head, and up to the next power of two; likewise BLOCK_D, BLOCK_E
# BLOCK_L columns at once

from __future__ import annotations

import triton
import triton.language as tl

from llamo_ros.kernels.triton_linear import silu


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
