"""Flow-matching head: the velocity of a latent on the way from noise to motion.

MAR's AdaLN MLP as the paper cites it (supplement): x_t = (1 - t) eps + t z, target v = z - eps.
With ``modulation="separable"`` (ours) every shift, scale and gate is A(SiLU(t)) + C(SiLU(c)): the time part is a table
and the condition part one product per latent. "joint" is MAR's A(SiLU(t + c)). How the field is followed from noise to
a latent: ``llamo_ros.model.latent_sampler``.
"""

# C latent channels, W width, D condition width, M = 3 W blocks + 2 W modulations

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import FlowHeadConfig

TIME_CHANNELS = 256


class FlowBlock(nn.Module):
    """x + gate * l2(SiLU(l1(LN(x) * (1 + scale) + shift)))."""

    def __init__(self, width: int, affine_norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine_norm)
        self.l1 = nn.Linear(width, width)
        self.l2 = nn.Linear(width, width)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """Hidden state (..., W) after the block; the modulations broadcast to it."""
        return x + gate * self.l2(F.silu(self.l1(self.norm(x) * (1 + scale) + shift)))


class FlowHead(nn.Module):
    """Velocity field v(x_t, t, condition)."""

    def __init__(self, config: FlowHeadConfig, latent_dim: int, condition_dim: int) -> None:
        super().__init__()
        if config.modulation not in ("separable", "joint"):
            raise ParameterError(f"modulation is {config.modulation!r}, expected 'separable' or 'joint'.")
        self.config, self.latent_dim = config, latent_dim
        width = config.width
        modulations = 3 * width * config.blocks + 2 * width
        self.input = nn.Linear(latent_dim, width)
        self.time_in = nn.Linear(TIME_CHANNELS, width)
        self.time_out = nn.Linear(width, width)
        self.condition = nn.Linear(condition_dim, width)
        self.time_modulation = nn.Linear(width, modulations)
        if config.modulation == "separable":
            self.condition_modulation = nn.Linear(width, modulations, bias=False)
            nn.init.zeros_(self.condition_modulation.weight)
        self.blocks = nn.ModuleList(FlowBlock(width, config.affine_norm) for _ in range(config.blocks))
        self.output = nn.Linear(width, latent_dim)
        for layer in (self.time_modulation, self.output):  # adaLN-zero: the head starts as the zero field
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; what the head computes in."""
        return self.input.weight.dtype

    def time_embedding(self, t: Tensor) -> Tensor:
        """Embedding (..., W) of flow time (...,)."""
        half = TIME_CHANNELS // 2
        # No buffer: a model turned to bfloat16 would round the frequencies, and angles reach 1000 rad.
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
        angles = self.config.time_scale * t[..., None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.dtype)
        return self.time_out(F.silu(self.time_in(waves)))

    def modulations(self, t: Tensor, condition: Tensor) -> Tensor:
        """All shifts, scales and gates (..., M) for flow time t (...,) and condition (..., D)."""
        by_condition = self.condition(condition.to(self.dtype))
        if self.config.modulation == "separable":
            by_time = self.time_modulation(F.silu(self.time_embedding(t)))
            return by_time + self.condition_modulation(F.silu(by_condition))
        return self.time_modulation(F.silu(self.time_embedding(t) + by_condition))

    def forward(self, x_NC: Tensor, t_N: Tensor, condition_ND: Tensor) -> Tensor:
        """Velocity (..., C) of latents (..., C) at flow time t (...,), given conditions (..., D) that broadcast.

        Inputs may be of any floating dtype (the rest of the model may be bfloat16): the head computes in the dtype of
        its own weights, and the velocity has the dtype of the latents.
        """
        modulations = self.modulations(t_N, condition_ND)
        width, blocks = self.config.width, self.config.blocks
        *parts, final_shift, final_scale = modulations.split(width, dim=-1)
        hidden = self.input(x_NC.to(self.dtype))
        for index in range(blocks):
            hidden = self.blocks[index](hidden, *parts[3 * index : 3 * index + 3])
        hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6) * (1 + final_scale) + final_shift
        return self.output(hidden).to(x_NC.dtype)
