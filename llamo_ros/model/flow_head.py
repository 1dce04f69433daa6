"""Flow-matching head: the velocity of a latent on the way from noise to motion.

MAR's AdaLN MLP as the paper cites it (supplement): x_t = (1 - t) eps + t z, target v = z - eps, Euler from t = 0 to 1.
With ``modulation="separable"`` (ours) every shift, scale and gate is A(SiLU(t)) + C(SiLU(c)): the time part is a table
and the condition part one product per latent. "joint" is MAR's A(SiLU(t + c)).
"""

# N rows (latents), C latent channels, W width, D condition width, K Euler steps, M = 3 W blocks + 2 W modulations

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.core.errors import ParameterError
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler
from llamo_ros.model.config import FlowHeadConfig

TIME_CHANNELS = 256


class FlowBlock(nn.Module):
    """x + gate * l2(SiLU(l1(LN(x) * (1 + scale) + shift)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.l1 = nn.Linear(width, width)
        self.l2 = nn.Linear(width, width)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """Hidden state (..., W) after the block; the modulations broadcast to it."""
        hidden = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return x + gate * self.l2(F.silu(self.l1(hidden)))


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
        self.blocks = nn.ModuleList(FlowBlock(width) for _ in range(config.blocks))
        self.output = nn.Linear(width, latent_dim)
        for layer in (self.time_modulation, self.output):  # adaLN-zero: the head starts as the zero field
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        half = TIME_CHANNELS // 2
        self.register_buffer(
            "frequencies", torch.exp(-math.log(10_000.0) * torch.arange(half) / half), persistent=False
        )

    def _time_embedding(self, t: Tensor) -> Tensor:
        angles = self.config.time_scale * t[..., None] * self.frequencies
        return self.time_out(F.silu(self.time_in(torch.cat([angles.cos(), angles.sin()], dim=-1))))

    def modulations(self, t: Tensor, condition: Tensor) -> Tensor:
        """All shifts, scales and gates (..., M) for flow time t (...,) and condition (..., D)."""
        if self.config.modulation == "separable":
            by_time = self.time_modulation(F.silu(self._time_embedding(t)))
            return by_time + self.condition_modulation(F.silu(self.condition(condition)))
        return self.time_modulation(F.silu(self._time_embedding(t) + self.condition(condition)))

    def forward(self, x_NC: Tensor, t_N: Tensor, condition_ND: Tensor) -> Tensor:
        """Velocity (..., C) of latents (..., C) at flow time t (...,), given conditions (..., D) that broadcast."""
        modulations = self.modulations(t_N, condition_ND)
        width, blocks = self.config.width, self.config.blocks
        *parts, final_shift, final_scale = modulations.split(width, dim=-1)
        hidden = self.input(x_NC)
        for index in range(blocks):
            hidden = self.blocks[index](hidden, *parts[3 * index : 3 * index + 3])
        hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6) * (1 + final_scale) + final_shift
        return self.output(hidden)

    def sampler(self, steps: int, backend: str = "auto") -> LatentSampler:
        """A sampler with this head's present weights and a fixed number of Euler steps."""
        return LatentSampler(self, steps, backend)


class LatentSampler:
    """Noise to latents with a head's weights as they are now and a fixed number of Euler steps.

    Everything that depends on flow time alone is computed once here, which is exact; per latent only the condition's
    part and the loop remain.
    """

    def __init__(self, head: FlowHead, steps: int, backend: str = "auto") -> None:
        blocks = head.blocks
        weights = FlowHeadWeights(
            input_weight=head.input.weight,
            input_bias=head.input.bias,
            first_weight=torch.stack([block.l1.weight for block in blocks]),
            first_bias=torch.stack([block.l1.bias for block in blocks]),
            second_weight=torch.stack([block.l2.weight for block in blocks]),
            second_bias=torch.stack([block.l2.bias for block in blocks]),
            output_weight=head.output.weight,
            output_bias=head.output.bias,
        )
        self._head = head
        self._sampler = FlowSampler(weights, backend=backend)
        with torch.no_grad():
            t = torch.arange(steps, device=head.input.weight.device) / steps
            self._embedding_KW = head._time_embedding(t)
            self._time_KM = head.time_modulation(F.silu(self._embedding_KW))

    @property
    def backend(self) -> str:
        """Which implementation of the loop runs: cpu or reference."""
        return self._sampler.backend

    @torch.no_grad()
    def __call__(self, noise_BC: Tensor, condition_RD: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Latents (B, C).

        Args:
            noise_BC: Where the flow starts, shape (B, C).
            condition_RD: Projected hidden states, shape (B, D) without guidance, (2 B, D) with: conditional, then null.
            guidance_scale: 1 is no guidance.
        """
        head = self._head
        guidance = None if guidance_scale == 1.0 else guidance_scale
        embedded_RW = head.condition(condition_RD)
        if head.config.modulation == "separable":
            return self._sampler(
                noise_BC,
                time_modulations=self._time_KM,
                condition_modulations=head.condition_modulation(F.silu(embedded_RW)),
                guidance_scale=guidance,
            )
        joint_KRM = head.time_modulation(F.silu(self._embedding_KW[:, None] + embedded_RW))
        return self._sampler(noise_BC, modulations=joint_KRM, guidance_scale=guidance)
