"""One token per row through all layers of a Llama branch, in plain PyTorch: the definition of every fast version."""

# R rows, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step import BranchWeights


def backbone_step(
    weights: BranchWeights,
    tokens_RD: Tensor,
    cosine_RE: Tensor,
    sine_RE: Tensor,
    keys: Tensor,
    values: Tensor,
    cache_rows: list[int],
    lengths: list[int],
) -> Tensor:
    """Final hidden states, normed, shape (R, D), in the dtype of the arguments.

    Args:
        weights: Of the branch.
        tokens_RD: Embedded tokens, shape (R, D).
        cosine_RE: Of the angle of each channel at the row's position, shape (R, E).
        sine_RE: Likewise.
        keys: Of all layers, shape (layers, rows, K, L, E); that of the new token is written.
        values: Likewise.
        cache_rows: Which of the cache's rows is whose.
        lengths: Earlier tokens of each row; the new one goes behind them.
    """
    x_RD = tokens_RD
    for index, layer in enumerate(weights.layers):
        normed_RD = rms_norm(x_RD, layer.attention_norm, weights.norm_epsilon)
        heads_RHE = F.linear(normed_RD, layer.query_key_value).unflatten(-1, (-1, weights.head_width))
        sizes = (weights.heads, weights.kv_heads, weights.kv_heads)
        queries_RHE, keys_RKE, values_RKE = heads_RHE.split(sizes, dim=1)
        queries_RHE, keys_RKE = (rotated(x, cosine_RE, sine_RE) for x in (queries_RHE, keys_RKE))
        attended = []
        for r, (row, length) in enumerate(zip(cache_rows, lengths, strict=True)):
            keys[index, row, :, length], values[index, row, :, length] = keys_RKE[r], values_RKE[r]
            shared = weights.heads // weights.kv_heads
            keys_HLE = keys[index, row, :, : length + 1].repeat_interleave(shared, dim=0)
            values_HLE = values[index, row, :, : length + 1].repeat_interleave(shared, dim=0)
            scores_HL = (keys_HLE @ queries_RHE[r, :, :, None])[..., 0] / weights.head_width**0.5
            attended.append((scores_HL.softmax(-1)[:, None] @ values_HLE).flatten())
        x_RD = x_RD + F.linear(torch.stack(attended), layer.attention_output)
        normed_RD = rms_norm(x_RD, layer.feed_forward_norm, weights.norm_epsilon)
        gate_RF, up_RF = F.linear(normed_RD, layer.gate_up).chunk(2, dim=-1)
        x_RD = x_RD + F.linear(F.silu(gate_RF) * up_RF, layer.down)
    return rms_norm(x_RD, weights.norm, weights.norm_epsilon)


def rms_norm(x_RD: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """X (R, D) scaled to unit root mean square, times the weight."""
    return weight_D * (x_RD * torch.rsqrt(x_RD.square().mean(-1, keepdim=True) + epsilon))


def rotated(x_RHE: Tensor, cosine_RE: Tensor, sine_RE: Tensor) -> Tensor:
    """Rotary position embedding: channel i and channel i + E / 2 are rotated together."""
    first, second = x_RHE.chunk(2, dim=-1)
    return x_RHE * cosine_RE[:, None] + torch.cat((-second, first), dim=-1) * sine_RE[:, None]
