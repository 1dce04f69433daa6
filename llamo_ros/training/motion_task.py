"""Training of the motion side: flow matching for text -> motion, next-token prediction for motion -> text, exit."""

# B batch, P prompt tokens, L latents of the longest motion, S sequence, N latents in the batch, C channels, D width

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache, KeyValuePrefix
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.motion_data import SHARES, BalancedSampler, LatentClip, PromptDrawer, similar

MAX_TEXT = 40


@dataclass(frozen=True)
class MotionLossSettings:
    """Choices of motion training; see docs/decisions.md for those the paper leaves open.

    Attributes:
        caption_share: Share of steps that train motion -> text (paper, stage 2: 0.2).
        text_drop: Share of prompts replaced by the empty prompt, for guidance.
        draws: Draws of noise per latent, and of flow time per motion (paper: 4 of both per latent).
        input_noise: Teacher-forced latents get noise of scale U(0, this), one scale per clip.
        exit_weight: Weight of the exit loss.
        exit_positive: Weight of the one positive of a clip against its negatives.
        caption_weight: Weight of the next-token loss.
        max_latents: Longer clips are cropped at random.
    """

    caption_share: float = 0.15
    text_drop: float = 0.1
    draws: int = 4
    input_noise: float = 0.2
    exit_weight: float = 0.05
    exit_positive: float = 5.0
    caption_weight: float = 0.3
    max_latents: int = 60


@dataclass(frozen=True)
class PromptedMotions:
    """Prompts and the motions to generate for them.

    Attributes:
        prompts: [BOS] and text, padded on the left with ``PADDING``, shape (B, P).
        latents: Normalised latents, padded on the right with zeros, shape (B, L, C).
        real: True where there is a latent, shape (B, L).
        ends: True at the last latent of a motion that truly ends there, shape (B, L).
    """

    prompts: Tensor
    latents: Tensor
    real: Tensor
    ends: Tensor


@dataclass(frozen=True)
class CaptionedMotions:
    """[BOS] [BOM] motion [EOM] text [EOS] of each row, padded on the right.

    Attributes:
        tokens: Sequences, shape (B, S).
        latents: Normalised latents in reading order, shape (N, C).
        lengths: Latents of each row.
    """

    tokens: Tensor
    latents: Tensor
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
        """Clips of similar length."""
        return similar(lambda: sampler.draw(rng), self.batch_size, self._length, rng)

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

    def text_to_motion_batch(
        self, clips: list[LatentClip], texts: list[str], rng: np.random.Generator
    ) -> PromptedMotions:
        """Prompts on the left, motions on the right of one column."""
        prompts = [[self.tokenizer.bos, *self._text_ids(text)] for text in texts]
        longest = max(map(len, prompts))
        prompts = [[PADDING] * (longest - len(prompt)) + prompt for prompt in prompts]
        motions, complete = zip(*(self._cropped(clip, rng) for clip in clips), strict=True)
        lengths = torch.tensor([len(motion) for motion in motions])
        places = torch.arange(int(lengths.max()))
        real = places < lengths[:, None]
        ends = (places == lengths[:, None] - 1) & torch.tensor(complete)[:, None]
        latents = pad_sequence([self.model.normalise_latents(m.to(self.device)) for m in motions], batch_first=True)
        return PromptedMotions(
            torch.tensor(prompts).to(self.device), latents, real.to(self.device), ends.to(self.device)
        )

    def motion_to_text_batch(
        self, clips: list[LatentClip], texts: list[str], rng: np.random.Generator
    ) -> CaptionedMotions:
        """Motions with the captions behind them."""
        motions = [self._cropped(clip, rng)[0] for clip in clips]
        start, end = [self.tokenizer.bos, self.model.begin_motion], self.model.end_motion
        rows = [
            [*start, *[MOTION] * len(motion), end, *self._text_ids(text), self.tokenizer.eos]
            for motion, text in zip(motions, texts, strict=True)
        ]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])
        latents = self.model.normalise_latents(torch.cat(motions).to(self.device))
        return CaptionedMotions(tokens.to(self.device), latents, [len(motion) for motion in motions])

    def _input_noise(self, rows: int) -> Tensor:
        """Scale of the noise on each row's teacher-forced latents (rows, 1), as the model will see its own (eta)."""
        return self.settings.input_noise * torch.rand(rows, 1, device=self.device)

    @torch.no_grad()
    def _read(self, prompts_BP: Tensor) -> KeyValuePrefix:
        """The prompts through the frozen text branch, which motion never changes: nothing to learn on the way."""
        model = self.model
        cache = KeyValueCache(model.config.backbone, *prompts_BP.shape, torch.float32, self.device)
        model(prompts_BP, model.latent_mean.new_zeros(0, model.config.vae.latent_dim), cache, prompts_BP != PADDING)
        return KeyValuePrefix(cache)

    def flow_and_exit_loss(self, batch: PromptedMotions, noisy: bool = True) -> tuple[Tensor, Tensor]:
        """Flow-matching loss and exit loss of text-to-motion sequences."""
        latents, real = batch.latents, batch.real
        inputs = latents
        if noisy:
            inputs = latents + self._input_noise(len(latents))[..., None] * torch.randn_like(latents)
        begin = torch.full((len(latents), 1), self.model.begin_motion, device=self.device)
        # Padding goes through the motion branch, whose tokens then need no gathering; nothing real attends to it.
        tokens = torch.cat([begin, begin.new_full(real.shape, MOTION)], dim=1)
        mask = torch.cat([batch.prompts != PADDING, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        hidden = self.model(tokens, inputs.flatten(0, 1), self._read(batch.prompts), mask)
        condition_BLD = self.model.projector(hidden[:, :-1])  # the token before each latent: [BOM] or a latent
        draws = self.settings.draws
        noise = torch.randn(draws, *latents.shape, device=self.device)
        # Logit-normal, one t per draw and motion: the time part of the head then costs next to nothing.
        t = torch.sigmoid(torch.randn(draws, len(latents), 1, device=self.device))
        x = (1 - t[..., None]) * noise + t[..., None] * latents
        velocity = self.model.flow_head(x, t, condition_BLD)
        flow = F.mse_loss(velocity[:, real].float(), (latents - noise)[:, real].float())
        exit_logits = self.model.exit_head(hidden[:, 1:][real]).float()
        exit_loss = F.binary_cross_entropy_with_logits(
            exit_logits,
            batch.ends[real].float(),
            pos_weight=torch.tensor(self.settings.exit_positive, device=self.device),
        )
        return flow, exit_loss

    def caption_loss(self, batch: CaptionedMotions, noisy: bool = True) -> Tensor:
        """Next-token loss of the captions after the motion."""
        inputs = batch.latents
        if noisy:
            lengths = torch.tensor(batch.lengths, device=self.device)
            inputs = inputs + self._input_noise(len(lengths)).repeat_interleave(lengths, 0) * torch.randn_like(inputs)
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
        if rng.random() < s.caption_share:
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
