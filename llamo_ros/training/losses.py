"""The three losses of a batch of sequences: flow matching, next token, exit (paper: L = L_FM + l1 L_NTP + l2 L_End)."""

# B batch, P prefix tokens, S other tokens, C latent channels, K draws, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache, KeyValuePrefix
from llamo_ros.model.sequence import SequenceBatch


@dataclass(frozen=True)
class LossSettings:
    """Choices of the losses; see docs/decisions.md for those the paper leaves open.

    Attributes:
        draws: Draws of (t, noise) per latent (paper: 4).
        flow_time: Distribution of t: "logit-normal" (0, 1) or "uniform".
        time_per: A t for every "latent" (paper), or one for all latents of a sequence, "motion": the time part of a
            separable flow head then costs next to nothing.
        input_noise: Teacher-forced latents get noise of scale U(0, this), one scale per sequence (paper: eta).
        exit_weight: Weight of the exit loss.
        exit_positive: Weight of the last latent of a motion against its other latents.
        caption_weight: Weight of the next-token loss.
    """

    draws: int = 4
    flow_time: str = "logit-normal"
    time_per: str = "motion"
    input_noise: float = 0.2
    exit_weight: float = 0.05
    exit_positive: float = 5.0
    caption_weight: float = 0.3

    def __post_init__(self) -> None:
        for name, known in (("flow_time", ("logit-normal", "uniform")), ("time_per", ("latent", "motion"))):
            if getattr(self, name) not in known:
                raise ParameterError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}.")
        if self.draws < 1:
            raise ParameterError(f"draws is {self.draws}, expected at least 1.")


@dataclass(frozen=True)
class SequenceNoise:
    """Everything random in the losses of a batch.

    Attributes:
        inputs: Noise on teacher-forced latents, already scaled, shape (B, S, C).
        flow: Start of the flow, shape (K, B, S, C).
        t: Flow time, shape (K, B, S or 1).
    """

    inputs: Tensor
    flow: Tensor
    t: Tensor

    @classmethod
    def drawn(cls, batch: SequenceBatch, settings: LossSettings, seeds: Sequence[int]) -> SequenceNoise:
        """Noise of each row from a generator of its own, so that it does not depend on the other rows.

        Args:
            batch: The sequences.
            settings: How much and of which distribution.
            seeds: One seed per row.
        """
        size, channels = batch.latents.shape[1:]
        inputs, flow, times = [], [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(int(seed))
            scale = settings.input_noise * torch.rand(1, generator=generator)
            uniform = torch.rand(settings.draws, generator=generator)
            # Latent by latent and in steps of 16, PyTorch's block, so that what pads a row changes nothing before it.
            noise = torch.randn(-(-size // 16) * 16, settings.draws + 1, channels, generator=generator)[:size]
            inputs.append(scale * noise[:, 0])
            flow.append(noise[:, 1:].transpose(0, 1))
            if settings.time_per == "latent":
                generator.manual_seed(int(seed) + 1)
                uniform = torch.rand(size, settings.draws, generator=generator).T
            times.append(uniform.reshape(settings.draws, -1))
        t = torch.stack(times, dim=1)
        if settings.flow_time == "logit-normal":
            t = torch.sigmoid(torch.special.ndtri(t.clamp(1e-6, 1 - 1e-6)))
        device = batch.latents.device
        return cls(torch.stack(inputs).to(device), torch.stack(flow, dim=1).to(device), t.to(device))

    def without_input_noise(self) -> SequenceNoise:
        """The same flow noise with clean teacher-forced latents, for validation."""
        return SequenceNoise(torch.zeros_like(self.inputs), self.flow, self.t)


class LossSums(NamedTuple):
    """Sums of each loss over the batch and how many terms are in them, so that several processes can share one mean."""

    flow: Tensor
    exit: Tensor
    text: Tensor
    counts: Tensor


class SequenceLosses(nn.Module):
    """The model with its losses around it: one forward pass per step, as engines of parallel training want it."""

    def __init__(self, llamo: Llamo, settings: LossSettings) -> None:
        super().__init__()
        self.llamo, self.settings = llamo, settings

    @staticmethod
    def counts(batch: SequenceBatch, draws: int) -> Tensor:
        """Terms of the flow, exit and text loss, shape (3,); known before anything is computed."""
        targets = batch.flow_target.sum()
        return torch.stack([targets * draws * batch.latents.shape[-1], targets, batch.text_target.sum()]).to(
            torch.float64
        )

    def total(self, sums: LossSums, counts: Tensor) -> Tensor:
        """The loss to minimise, as means over ``counts`` terms (3,) of the flow, exit and text loss."""
        weights = (1.0, self.settings.exit_weight, self.settings.caption_weight)
        parts = (sums.flow, sums.exit, sums.text)
        terms = zip(weights, parts, counts.clamp(min=1).float(), strict=True)
        return sum((weight * part / count for weight, part, count in terms), start=sums.flow.new_zeros(()))

    def forward(self, batch: SequenceBatch, noise: SequenceNoise, counts: Tensor | None = None) -> LossSums:
        """Sums of the losses over the targets of a batch.

        Args:
            batch: The sequences.
            noise: Everything random.
            counts: Terms (3,) of the losses over all processes, if there are others. Every process computes the losses
                that any of them has terms of, since engines want the same modules used in all.
        """
        is_motion = batch.tokens == MOTION
        latents = batch.latents
        hidden = self._hidden(batch, (latents + noise.inputs)[is_motion])
        own = self.counts(batch, self.settings.draws)
        has_flow, _, has_text = ((own if counts is None else counts) > 0).tolist()
        zero = hidden.new_zeros((), dtype=torch.float32)
        flow = exit_loss = text = zero
        if has_flow:
            flow = self._flow(batch, noise, hidden)
            exit_loss = F.binary_cross_entropy_with_logits(
                self.llamo.exit_head(hidden[batch.flow_target]).float(),
                batch.exit_label[batch.flow_target].float(),
                pos_weight=torch.tensor(self.settings.exit_positive, device=hidden.device),
                reduction="sum",
            )
        if has_text:
            read, written = batch.text_target[:, 1:], batch.tokens[:, 1:]
            logits = self.llamo.backbone.text.logits(hidden[:, :-1][read])
            text = F.cross_entropy(logits.float(), written[read], reduction="sum")
        return LossSums(flow, exit_loss, text, own)

    def _flow(self, batch: SequenceBatch, noise: SequenceNoise, hidden: Tensor) -> Tensor:
        """Squared error of the velocity at x_t = (1 - t) eps + t z, whose target is z - eps, from the token before."""
        wanted, latents = batch.flow_target[:, 1:], batch.latents[:, 1:]
        start, t = noise.flow[:, :, 1:], noise.t if noise.t.shape[2] == 1 else noise.t[:, :, 1:]
        condition = self.llamo.projector(hidden[:, :-1])
        x = (1 - t[..., None]) * start + t[..., None] * latents
        velocity = self.llamo.flow_head(x, t, condition)
        return F.mse_loss(velocity[:, wanted].float(), (latents - start)[:, wanted].float(), reduction="sum")

    def _hidden(self, batch: SequenceBatch, latents_NC: Tensor) -> Tensor:
        """Hidden states (B, S, D) of everything behind the prefix."""
        llamo = self.llamo
        mask = torch.cat([batch.prefix != PADDING, torch.ones_like(batch.tokens, dtype=torch.bool)], dim=1)
        if any(parameter.requires_grad for parameter in llamo.backbone.text.parameters()):
            hidden = llamo(torch.cat([batch.prefix, batch.tokens], dim=1), latents_NC, key_mask=mask)
            return hidden[:, batch.prefix.shape[1] :]
        return llamo(batch.tokens, latents_NC, self._read(batch.prefix), mask)

    @torch.no_grad()
    def _read(self, prefix_BP: Tensor) -> KeyValuePrefix:
        """The prefix through the frozen text branch, which motion never changes: nothing to learn on the way."""
        llamo = self.llamo
        dtype = llamo.special_tokens.dtype
        cache = KeyValueCache(llamo.config.backbone, *prefix_BP.shape, dtype, prefix_BP.device)
        llamo(prefix_BP, llamo.latent_mean.new_zeros(0, llamo.config.vae.latent_dim), cache, prefix_BP != PADDING)
        return KeyValuePrefix(cache)
