"""Causal motion VAE: 4 frames of 272 features <-> one latent, streaming both ways with exact state.

The body folds 4 frames into one vector and works at 7.5 Hz throughout ("patchified"); it learns far faster than the
convolutional body of the paper at this size and streams cheaper. There is no predicted variance (sigma-VAE, paper
section 3.1, Eq. 3): the encoder gives mu only, and training adds noise of a drawn scale to it.
"""

# B batch, T frames, L latents (T = 4 L), F features (272), W width, C latent channels

from __future__ import annotations

import torch
from torch import Tensor, nn

from llamo_ros.core.errors import ShapeError
from llamo_ros.model.config import FRAMES_PER_LATENT, MotionVaeConfig

FEATURE_COUNT = 272


class CausalLinear(nn.Module):
    """Causal convolution over time written as one matrix product on shifted copies of the input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.linear = nn.Linear(inputs * kernel, outputs)

    @property
    def lookback(self) -> int:
        """Rows of past input that the next output depends on."""
        return (self.kernel - 1) * self.dilation

    def forward(self, x_BLW: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (B, L, outputs) and the past (B, lookback, inputs) to give with the next rows; None is silence."""
        if past is None:
            past = x_BLW.new_zeros(x_BLW.shape[0], self.lookback, x_BLW.shape[2])
        history = torch.cat([past, x_BLW], dim=1)
        length = x_BLW.shape[1]
        taps = [history[:, k * self.dilation : k * self.dilation + length] for k in range(self.kernel)]
        return self.linear(torch.cat(taps, dim=-1)), history[:, history.shape[1] - self.lookback :]


class ResidualBlock(nn.Module):
    """x + W2 SiLU(causal conv(norm(x)))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.temporal = CausalLinear(width, width, kernel=3, dilation=dilation)
        self.mix = nn.Linear(width, width)
        nn.init.zeros_(self.mix.bias)
        with torch.no_grad():
            self.mix.weight.mul_(0.3)

    def forward(self, x_BLW: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Output (B, L, W) and the past to give with the next rows."""
        hidden, past = self.temporal(self.norm(x_BLW), past)
        return x_BLW + self.mix(nn.functional.silu(hidden)), past


class CausalStack(nn.Module):
    """Input layer, residual blocks, output layer; the list of pasts is its whole streaming state."""

    def __init__(self, inputs: int, width: int, outputs: int, dilations: tuple[int, ...], input_kernel: int) -> None:
        super().__init__()
        self.input = CausalLinear(inputs, width, kernel=input_kernel)
        self.blocks = nn.ModuleList(ResidualBlock(width, dilation) for dilation in dilations)
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Output (B, L, outputs) and the state to give with the next rows."""
        pasts = state or [None] * (len(self.blocks) + 1)
        x, past = self.input(x, pasts[0])
        new_state = [past]
        for block, past in zip(self.blocks, pasts[1:], strict=True):
            x, past = block(x, past)
            new_state.append(past)
        return self.output(nn.functional.silu(x)), new_state


class MotionVae(nn.Module):
    """Frames <-> latents. Features go in and come out in natural units; normalisation lives inside."""

    def __init__(self, config: MotionVaeConfig) -> None:
        super().__init__()
        self.config = config
        patch = FRAMES_PER_LATENT * FEATURE_COUNT
        self.encoder = CausalStack(patch, config.width, config.latent_dim, config.dilations, input_kernel=1)
        self.decoder = CausalStack(config.latent_dim, config.width, patch, config.dilations, input_kernel=2)
        self.register_buffer("feature_mean", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std", torch.ones(FEATURE_COUNT))

    def normalise(self, features: Tensor) -> Tensor:
        """Features (..., 272) to zero mean, unit scale."""
        return (features - self.feature_mean) / self.feature_std

    def denormalise(self, features: Tensor) -> Tensor:
        """Inverse of :meth:`normalise`."""
        return features * self.feature_std + self.feature_mean

    def encode(self, features_BTF: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Latents mu (B, T/4, C) of frames (B, T, 272), and the state to give with the frames that follow.

        Raises:
            ShapeError: T is not a multiple of 4, or the features are not 272.
        """
        if features_BTF.ndim != 3 or features_BTF.shape[2] != FEATURE_COUNT or features_BTF.shape[1] % 4:
            raise ShapeError("features", tuple(features_BTF.shape), "(B, 4 L, 272)", "Cut the clip to 4-frame groups.")
        return self._encode_normalised(self.normalise(features_BTF), state)

    def _encode_normalised(self, x_BTF: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        batch, frames, _ = x_BTF.shape
        return self.encoder(x_BTF.reshape(batch, frames // FRAMES_PER_LATENT, -1), state)

    def decode(self, z_BLC: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Features (B, 4 L, 272) of latents (B, L, C), and the state to give with the latents that follow."""
        x_BLP, state = self.decoder(z_BLC, state)
        return self.denormalise(x_BLP.reshape(z_BLC.shape[0], -1, FEATURE_COUNT)), state

    def forward(self, features_BTF: Tensor, sigma_max: float | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Training pass: reconstructed features and mu, with noise of scale U(0, sigma_max) on each latent (Eq. 3).

        ``sigma_max`` (a number, or one per channel) takes the place of the configured one.
        """
        most = self.config.sigma_max if sigma_max is None else sigma_max
        mu_BLC, _ = self.encode(features_BTF)
        mu_BLC = mu_BLC.float()
        sigma_BLC = most * torch.rand(*mu_BLC.shape[:2], 1, device=mu_BLC.device)
        reconstructed, _ = self.decode(mu_BLC + sigma_BLC * torch.randn_like(mu_BLC))
        return reconstructed.float(), mu_BLC
