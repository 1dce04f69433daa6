"""The flow sampler in plain PyTorch: the definition that every fast version is tested against."""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps, M = 3WN + 2W

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from llamo_ros.kernels.flow_sampler import FlowHeadWeights

LAYER_NORM_EPSILON = 1e-6


def flow_sampler(
    weights: FlowHeadWeights, noise_BZ: Tensor, modulations_SRM: Tensor, guidance_scale: float | None = None
) -> Tensor:
    """Follow the velocity field from flow time 0 (noise) to 1 (latents) in S Euler steps.

    Args:
        weights: The flow head without its time, condition and modulation layers.
        noise_BZ: Where to start, shape (B, Z).
        modulations_SRM: Shift, scale, gate of each block, then shift, scale of the output, shape (S, R, M).
        guidance_scale: None for R = B. Otherwise R = 2B, B conditional rows then B null rows, and the velocity is
            null + guidance_scale * (conditional - null).

    Returns:
        Latents, shape (B, Z), in the dtype of the arguments.
    """
    x_BZ = noise_BZ
    for modulation_RM in modulations_SRM:
        if guidance_scale is None:
            velocity_BZ = velocity_field(weights, x_BZ, modulation_RM)
        else:
            velocity_RZ = velocity_field(weights, torch.cat([x_BZ, x_BZ]), modulation_RM)
            conditional_BZ, null_BZ = velocity_RZ.chunk(2)
            velocity_BZ = null_BZ + guidance_scale * (conditional_BZ - null_BZ)
        x_BZ = x_BZ + velocity_BZ / len(modulations_SRM)
    return x_BZ


def velocity_field(weights: FlowHeadWeights, x_RZ: Tensor, modulation_RM: Tensor) -> Tensor:
    """dx/dt at one flow time, shape (R, Z): MAR's residual MLP with adaptive LayerNorm."""
    width = len(weights.input_weight)
    *block_modulations, final_shift, final_scale = modulation_RM.split(width, dim=-1)
    h_RW = F.linear(x_RZ, weights.input_weight, weights.input_bias)
    for n in range(len(weights.first_weight)):
        shift, scale, gate = block_modulations[3 * n : 3 * n + 3]
        u_RW = layer_norm(h_RW) * (1 + scale) + shift
        u_RW = F.silu(F.linear(u_RW, weights.first_weight[n], weights.first_bias[n]))
        u_RW = F.linear(u_RW, weights.second_weight[n], weights.second_bias[n])
        h_RW = h_RW + gate * u_RW
    return F.linear(layer_norm(h_RW) * (1 + final_scale) + final_shift, weights.output_weight, weights.output_bias)


def layer_norm(h_RW: Tensor) -> Tensor:
    """Mean 0 and variance 1 over W. An affine LayerNorm is folded into the modulation by the caller."""
    return F.layer_norm(h_RW, h_RW.shape[-1:], eps=LAYER_NORM_EPSILON)
