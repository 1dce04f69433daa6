"""Training of the motion side: flow matching for text -> motion, next-token prediction for motion -> text, exit."""

# B batch, S sequence, N latents in the batch, K = 4 draws of (t, eps) per latent, C latent channels, D width

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.motion_data import SHARES, BalancedSampler, LatentClip, PromptDrawer

MAX_TEXT = 40


@dataclass(frozen=True)
class MotionLossSettings:
    """Choices of motion training; see docs/decisions.md for those the paper leaves open.

    Attributes:
        caption_share: Share of steps that train motion -> text (paper, stage 2: 0.2).
        text_drop: Share of prompts replaced by the empty prompt, for guidance.
        draws: (t, eps) draws per latent (paper: 4).
        input_noise: Teacher-forced latents get noise of scale U(0, this), one scale per clip.
        exit_weight: Weight of the exit loss.
        exit_positive: Weight of the one positive of a clip against its negatives.
        caption_weight: Weight of the next-token loss.
        max_latents: Longer clips are cropped at random.
    """

    caption_share: float = 0.25
    text_drop: float = 0.1
    draws: int = 4
    input_noise: float = 0.2
    exit_weight: float = 0.05
    exit_positive: float = 5.0
    caption_weight: float = 0.3
    max_latents: int = 60


@dataclass(frozen=True)
class MotionBatch:
    """A padded batch.

    Attributes:
        tokens: Sequences, shape (B, S).
        latents: Normalised latents in reading order, shape (N, C).
        ends: True at the last latent of a motion that truly ends there, shape (N,).
        lengths: Latents of each row.
    """

    tokens: Tensor
    latents: Tensor
    ends: Tensor
    lengths: list[int]


class MotionTask:
    """Draws balanced batches of one length class; the text side and the VAE stay frozen."""

    def __init__(
        self,
        model: Llamo,
        tokenizer: TextTokenizer,
        train: list[LatentClip],
        val: list[LatentClip],
        batch_size: int = 16,
        settings: MotionLossSettings | None = None,
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.settings = settings or MotionLossSettings()
        model.freeze_text_and_vae()
        everything = torch.cat([clip.latents for clip in train])
        with torch.no_grad():
            model.latent_mean.copy_(everything.mean(0))
            model.latent_std.copy_(everything.std(0))
        self.sampler = BalancedSampler(train, SHARES)
        self.describable = BalancedSampler([clip for clip in train if clip.describable], {"bandai": 0.5, "h3d": 0.5})
        self.prompts = PromptDrawer()
        self.val = val
        self.device = model.latent_mean.device

    def _bucket(self, sampler: BalancedSampler, rng: np.random.Generator) -> list[LatentClip]:
        """Clips of similar length: draw six batches, sort, keep a random one. Little padding, same distribution."""
        drawn = sorted((sampler.draw(rng) for _ in range(6 * self.batch_size)), key=self._length)
        start = rng.integers(6) * self.batch_size
        return drawn[start : start + self.batch_size]

    def _length(self, clip: LatentClip) -> int:
        return min(len(clip.latents), self.settings.max_latents)

    def _cropped(self, clip: LatentClip, rng: np.random.Generator) -> tuple[Tensor, bool]:
        """The latents to learn from, and whether the motion ends with the last of them."""
        most, length = self.settings.max_latents, len(clip.latents)
        if length <= most:
            return clip.latents, True
        from_start = clip.source != "cmu_trial" and rng.random() < 0.5
        offset = 0 if from_start else int(rng.integers(0, length - most + 1))
        return clip.latents[offset : offset + most], offset + most == length

    def _text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)[:MAX_TEXT]

    def text_to_motion_batch(self, clips: list[LatentClip], texts: list[str], rng: np.random.Generator) -> MotionBatch:
        """[BOS] text [BOM] motion, left-padded so that all motions start in one column."""
        prefixes = [[self.tokenizer.bos, *self._text_ids(text), self.model.begin_motion] for text in texts]
        longest = max(map(len, prefixes))
        prefixes = [[PADDING] * (longest - len(prefix)) + prefix for prefix in prefixes]
        return self._batch(prefixes, [[]] * len(clips), clips, rng)

    def motion_to_text_batch(self, clips: list[LatentClip], texts: list[str], rng: np.random.Generator) -> MotionBatch:
        """[BOS] [BOM] motion [EOM] text [EOS], padded on the right."""
        prefixes = [[self.tokenizer.bos, self.model.begin_motion]] * len(clips)
        suffixes = [[self.model.end_motion, *self._text_ids(text), self.tokenizer.eos] for text in texts]
        return self._batch(prefixes, suffixes, clips, rng)

    def _batch(
        self, prefixes: list[list[int]], suffixes: list[list[int]], clips: list[LatentClip], rng: np.random.Generator
    ) -> MotionBatch:
        rows, latents, ends, lengths = [], [], [], []
        for prefix, suffix, clip in zip(prefixes, suffixes, clips, strict=True):
            motion, complete = self._cropped(clip, rng)
            rows.append([*prefix, *[MOTION] * len(motion), *suffix])
            latents.append(motion)
            lengths.append(len(motion))
            ends.append(torch.zeros(len(motion), dtype=torch.bool))
            ends[-1][-1] = complete
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])
        normalised = self.model.normalise_latents(torch.cat(latents).to(self.device))
        return MotionBatch(tokens.to(self.device), normalised, torch.cat(ends).to(self.device), lengths)

    def _noisy(self, batch: MotionBatch) -> Tensor:
        """Latents as the model will see its own: with noise of one scale per clip (paper section 4.1, eta)."""
        scale = self.settings.input_noise * torch.rand(len(batch.lengths), 1, device=self.device)
        scale = scale.repeat_interleave(torch.tensor(batch.lengths, device=self.device), dim=0)
        return batch.latents + scale * torch.randn_like(batch.latents)

    def flow_and_exit_loss(self, batch: MotionBatch, noisy: bool = True) -> tuple[Tensor, Tensor]:
        """Flow-matching loss and exit loss of text-to-motion sequences."""
        inputs = self._noisy(batch) if noisy else batch.latents
        hidden = self.model(batch.tokens, inputs, key_mask=batch.tokens != PADDING)
        is_motion = batch.tokens == MOTION
        predicts = F.pad(is_motion[:, 1:], (0, 1))  # the token before each latent: [BOM] or the latent before
        condition_ND = self.model.projector(hidden[predicts])
        draws, count = self.settings.draws, len(batch.latents)
        noise = torch.randn(draws, *batch.latents.shape, device=self.device)
        t = torch.sigmoid(torch.randn(draws, count, device=self.device))  # logit-normal
        x = (1 - t[..., None]) * noise + t[..., None] * batch.latents
        velocity = self.model.flow_head(x, t, condition_ND)
        flow = F.mse_loss(velocity.float(), (batch.latents - noise).float())
        exit_logits = self.model.exit_head(hidden[is_motion]).float()
        exit_loss = F.binary_cross_entropy_with_logits(
            exit_logits, batch.ends.float(), pos_weight=torch.tensor(self.settings.exit_positive, device=self.device)
        )
        return flow, exit_loss

    def caption_loss(self, batch: MotionBatch, noisy: bool = True) -> Tensor:
        """Next-token loss of the captions after the motion."""
        inputs = self._noisy(batch) if noisy else batch.latents
        hidden = self.model(batch.tokens, inputs, key_mask=batch.tokens != PADDING)
        vocab = self.model.config.backbone.vocab_size
        target = batch.tokens[:, 1:]
        # Text targets after [EOM]; the [BOM] and [EOM] themselves are never predicted.
        kept = (target >= 0) & (target < vocab)
        logits = self.model.backbone.text.logits(hidden[:, :-1][kept])
        return F.cross_entropy(logits.float(), target[kept])

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`."""
        s = self.settings
        captioning = rng.random() < s.caption_share
        # Captions train the [BOM] and [EOM] rows. A prompt would reach [BOM] alone, at the price of a backward pass
        # through the frozen text branch.
        self.model.special_tokens.requires_grad_(captioning)
        if captioning:
            clips = self._bucket(self.describable, rng)
            texts = [str(rng.choice(clip.captions)) for clip in clips]
            loss = self.caption_loss(self.motion_to_text_batch(clips, texts, rng))
            return s.caption_weight * loss, {"nll": loss.item()}
        clips = self._bucket(self.sampler, rng)
        texts = ["" if rng.random() < s.text_drop else self.prompts.draw(clip, rng) for clip in clips]
        flow, exit_loss = self.flow_and_exit_loss(self.text_to_motion_batch(clips, texts, rng))
        return flow + s.exit_weight * exit_loss, {"flow": flow.item(), "exit": exit_loss.item()}

    def validate(self) -> dict[str, float]:
        """Flow, exit and caption losses on the validation split, by source; ``score`` is the mean flow loss."""
        rng = np.random.default_rng(1)
        figures = {}
        for source in ("h3d", "bandai"):
            clips = sorted((c for c in self.val if c.source == source and c.captions), key=self._length)
            totals = np.zeros(3)
            for i in range(0, len(clips), self.batch_size):
                part = clips[i : i + self.batch_size]
                texts = [clip.captions[0] for clip in part]
                batch = self.text_to_motion_batch(part, texts, rng)
                flow, exit_loss = self.flow_and_exit_loss(batch, noisy=False)
                nll = self.caption_loss(self.motion_to_text_batch(part, texts, rng), noisy=False)
                totals += len(part) * np.array([flow.item(), exit_loss.item(), nll.item()])
            for name, value in zip(("flow", "exit", "nll"), totals / max(1, len(clips)), strict=True):
                figures[f"{source}_{name}"] = float(value)
        figures["score"] = 0.5 * (figures["h3d_flow"] + figures["bandai_flow"])
        return figures
