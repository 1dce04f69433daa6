"""Causal motion VAE: 4 frames of 272 features <-> one latent, streaming both ways with exact state.

Two bodies behind one interface: :mod:`~llamo_ros.model.vae_conv`, the paper's, and :mod:`~llamo_ros.model.vae_patch`.
By default no variance is predicted (sigma-VAE, paper section 3.1, Eq. 3): the encoder gives mu only, and training adds
noise of a drawn scale to it. Inference always uses mu.
"""

# B batch, T frames, L latents (T = 4 L), F features (272), C latent channels

from __future__ import annotations

import torch
from torch import Tensor, nn

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.model.causal_layers import CausalBody
from llamo_ros.model.config import FRAMES_PER_LATENT, MotionVaeConfig
from llamo_ros.model.stream_state import StreamState
from llamo_ros.model.vae_conv import ConvDecoder, ConvEncoder
from llamo_ros.model.vae_patch import PatchDecoder, PatchEncoder

FEATURE_COUNT = 272
BODIES = {"patch": (PatchEncoder, PatchDecoder), "conv": (ConvEncoder, ConvDecoder)}
LOG_VARIANCE_RANGE = (-30.0, 20.0)  # of a predicted variance, as in MotionStreamer


class MotionVae(nn.Module):
    """Frames <-> latents. Features go in and come out in natural units; normalisation lives inside.

    A state is a list of tensors with the batch first (:mod:`~llamo_ros.model.stream_state`); None is the state before a
    clip. A clip given in parts, each with the state that came with the part before, gives what it gives in one go.
    """

    def __init__(self, config: MotionVaeConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = BODIES[config.body]
        outputs = config.latent_dim * (2 if config.variance == "predicted" else 1)
        self.encoder: CausalBody = encoder(FEATURE_COUNT, config.width, outputs, config.dilations)
        self.decoder: CausalBody = decoder(config.latent_dim, config.width, FEATURE_COUNT, config.dilations)
        self.register_buffer("feature_mean", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std", torch.ones(FEATURE_COUNT))

    def normalise(self, features: Tensor) -> Tensor:
        """Features (..., 272) to zero mean, unit scale."""
        return (features - self.feature_mean) / self.feature_std

    def denormalise(self, features: Tensor) -> Tensor:
        """Inverse of :meth:`normalise`."""
        return features * self.feature_std + self.feature_mean

    def encode(self, features_BTF: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Latents mu (B, T/4, C) of frames (B, T, 272), and the state to give with the frames that follow.

        Latent i depends on frames up to 4 i + 3.

        Raises:
            ShapeError: T is not a multiple of 4, the features are not 272, or the state is of other streams.
            ParameterError: the state is of another body, or of ``decode``.
        """
        posterior, state = self._posterior(features_BTF, state)
        return posterior[..., : self.config.latent_dim], state

    def decode(self, z_BLC: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Features (B, 4 L, 272) of latents (B, L, C), and the state to give with the latents that follow.

        Frames 4 i to 4 i + 3 depend on latents up to i. Features are float32 for weights of 16 bits.

        Raises:
            ShapeError: the latents are not (B, L, C), or the state is of other streams.
            ParameterError: the state is of another body, or of ``encode``.
        """
        self.check_decoded(z_BLC, state)
        x_BTF, state = self.decoder(z_BLC.to(_dtype(self.decoder)), state)
        return self.denormalise(_at_least_float32(x_BTF)), state

    def check_encoded(self, features_BTF: Tensor, state: StreamState | None) -> None:
        """Raise what :meth:`encode` would, before anything is computed."""
        shape = tuple(features_BTF.shape)
        if len(shape) != 3 or shape[2] != FEATURE_COUNT or shape[1] % FRAMES_PER_LATENT:
            raise ShapeError("features", shape, "(B, 4 L, 272)", "Cut the clip to 4-frame groups.")
        _check_state(state, self.encoder, shape[0])

    def check_decoded(self, z_BLC: Tensor, state: StreamState | None) -> None:
        """Raise what :meth:`decode` would, before anything is computed."""
        if z_BLC.ndim != 3 or z_BLC.shape[2] != self.config.latent_dim:
            raise ShapeError("latents", tuple(z_BLC.shape), f"(B, L, {self.config.latent_dim})", "Is it another VAE's?")
        _check_state(state, self.decoder, z_BLC.shape[0])

    def empty_encoder_state(self, batch: int) -> StreamState:
        """State of ``batch`` streams before their first frame; gives what None gives, and can be joined with others."""
        return _empty_state(self.encoder, batch)

    def empty_decoder_state(self, batch: int) -> StreamState:
        """State of ``batch`` streams before their first latent; gives what None gives, and can be joined."""
        return _empty_state(self.decoder, batch)

    def forward(self, features_BTF: Tensor, sigma_max: float | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Training pass: reconstructed features (B, T, 272) and mu (B, T/4, C); see :meth:`training_pass`."""
        return self.training_pass(features_BTF, sigma_max)[:2]

    def training_pass(
        self, features_BTF: Tensor, sigma_max: float | Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Reconstruction from latents with noise, mu, and the logarithm of the variance if the encoder predicts one.

        Args:
            features_BTF: Frames, shape (B, T, 272), in natural units.
            sigma_max: In place of what the configuration says: the noise has a standard deviation drawn from
                U(0, sigma_max), a number or one per channel (C,).

        Returns:
            Features (B, T, 272), mu (B, T/4, C), and log variance (B, T/4, C) or None; all float32.
        """
        posterior = self._posterior(features_BTF, None)[0].float()
        mu_BLC, log_variance = posterior, None
        if self.config.variance == "predicted":
            mu_BLC, log_variance = posterior.chunk(2, dim=-1)
            log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)
        if log_variance is not None and sigma_max is None:
            sigma = (0.5 * log_variance).exp()
        else:
            sigma = self._drawn_sigma(mu_BLC, sigma_max)
        reconstructed, _ = self.decode(mu_BLC + sigma * torch.randn_like(mu_BLC))
        return reconstructed.float(), mu_BLC, log_variance

    def _drawn_sigma(self, mu_BLC: Tensor, sigma_max: float | Tensor | None) -> Tensor:
        """Standard deviation of the noise, drawn per element, latent or clip (paper Eq. 3)."""
        batch, latents, channels = mu_BLC.shape
        shape = {"element": (batch, latents, channels), "token": (batch, latents, 1), "clip": (batch, 1, 1)}
        share = torch.rand(shape[self.config.sigma_per], device=mu_BLC.device)
        if sigma_max is not None:
            return sigma_max * share
        drawn = self.config.sigma_max * share
        return drawn.sqrt() if self.config.variance == "variance" else drawn

    def _posterior(self, features_BTF: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        """What the encoder gives: mu, and behind it in the last dimension the log variance if it predicts one."""
        self.check_encoded(features_BTF, state)
        x_BTF = self.normalise(_at_least_float32(features_BTF))
        return self.encoder(x_BTF.to(_dtype(self.encoder)), state)


def _dtype(body: CausalBody) -> torch.dtype:
    return next(body.parameters()).dtype


def _at_least_float32(x: Tensor) -> Tensor:
    """For (de)normalising: bfloat16 has three digits, too few to take a mean off a position and keep its motion."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _empty_state(body: CausalBody, batch: int) -> StreamState:
    weight = next(body.parameters())
    return [weight.new_zeros(batch, *shape) for shape in body.state_shapes()]


def _check_state(state: StreamState | None, body: CausalBody, batch: int) -> None:
    if state is None:
        return
    expected = [(batch, *shape) for shape in body.state_shapes()]
    if len(state) != len(expected):
        raise ParameterError(
            f"the state has {len(state)} tensors, expected {len(expected)}: it comes from another body, or from encode "
            "where decode needs it. Give each the state that it returned."
        )
    for past, shape in zip(state, expected, strict=True):
        if tuple(past.shape) != shape:
            raise ShapeError("a tensor of the state", tuple(past.shape), str(shape), "Is it of other streams?")
