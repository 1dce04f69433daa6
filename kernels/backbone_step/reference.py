"""Tokens through all layers of a Mixture-of-Transformers, in plain PyTorch: the definition of every fast version."""

# R tokens, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step import BranchWeights, LayerWeights


def backbone_step(
    motion: BranchWeights,
    text: BranchWeights,
    tokens_RD: Tensor,
    cosine_RE: Tensor,
    sine_RE: Tensor,
    keys: Tensor,
    values: Tensor,
    cache_rows: list[int],
    lengths: list[int],
    text_rows: int = 0,
) -> Tensor:
    """Final hidden states, normed, shape (R, D), in the dtype of the arguments.

    Args:
        motion: Weights of the motion branch.
        text: Weights of the text branch.
        tokens_RD: Embedded tokens, those of text first, shape (R, D).
        cosine_RE: Of the angle of each channel at the token's position, shape (R, E).
        sine_RE: Likewise.
        keys: Of all layers, shape (layers, rows, K, L, E); those of the new tokens are written.
        values: Likewise.
        cache_rows: Row of the cache that holds each token's sequence.
        lengths: Earlier tokens of its sequence: the column it goes to, and the last one it attends to.
        text_rows: How many tokens are text.
    """
    branches = ((text, slice(0, text_rows)), (motion, slice(text_rows, None)))
    shared, width = motion.heads // motion.kv_heads, motion.head_width
    x_RD = tokens_RD
    for index in range(len(motion.layers)):
        heads_RHE = torch.cat(
            [
                F.linear(
                    rms_norm(x_RD[rows], branch.layers[index].attention_norm, branch.norm_epsilon),
                    branch.layers[index].query_key_value,
                ).unflatten(-1, (-1, width))
                for branch, rows in branches
            ]
        )
        queries_RHE, keys_RKE, values_RKE = heads_RHE.split((motion.heads, motion.kv_heads, motion.kv_heads), dim=1)
        queries_RHE, keys_RKE = (rotated(x, cosine_RE, sine_RE) for x in (queries_RHE, keys_RKE))
        places = list(zip(cache_rows, lengths, strict=True))
        for r, (row, length) in enumerate(places):
            keys[index, row, :, length], values[index, row, :, length] = keys_RKE[r], values_RKE[r]
        attended_RA = x_RD.new_empty(len(places), motion.heads * width)
        for r, (row, length) in enumerate(places):
            keys_HLE = keys[index, row, :, : length + 1].repeat_interleave(shared, dim=0)
            values_HLE = values[index, row, :, : length + 1].repeat_interleave(shared, dim=0)
            scores_HL = (keys_HLE @ queries_RHE[r, :, :, None])[..., 0] / width**0.5
            attended_RA[r] = (scores_HL.softmax(-1)[:, None] @ values_HLE).flatten()
        x_RD = torch.cat(
            [
                _finished(x_RD[rows], attended_RA[rows], branch.layers[index], branch.norm_epsilon)
                for branch, rows in branches
            ]
        )
    return torch.cat([rms_norm(x_RD[rows], branch.norm, branch.norm_epsilon) for branch, rows in branches])


def _finished(x_RD: Tensor, attended_RA: Tensor, layer: LayerWeights, epsilon: float) -> Tensor:
    """Tokens of one branch at the end of a layer."""
    x_RD = x_RD + F.linear(attended_RA, layer.attention_output)
    gate_RF, up_RF = F.linear(rms_norm(x_RD, layer.feed_forward_norm, epsilon), layer.gate_up).chunk(2, dim=-1)
    return x_RD + F.linear(F.silu(gate_RF) * up_RF, layer.down)


def rms_norm(x_RD: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """X (R, D) scaled to unit root mean square, times the weight."""
    return weight_D * (x_RD * torch.rsqrt(x_RD.square().mean(-1, keepdim=True) + epsilon))


def rotated(x_RHE: Tensor, cosine_RE: Tensor, sine_RE: Tensor) -> Tensor:
    """Rotary position embedding: channel i and channel i + E / 2 are rotated together."""
    first, second = x_RHE.chunk(2, dim=-1)
    return x_RHE * cosine_RE[:, None] + torch.cat((-second, first), dim=-1) * sine_RE[:, None]
