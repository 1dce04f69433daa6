"""Grounding of the text model: while it learns captions it also learns what body motion they stand for.

Next-token prediction alone has no reason to keep words apart that stand in the same places. In a corpus that holds
every caption and its mirror image, the values of "turns left" and "turns right" came out with a cosine of 0.94 to 0.99,
and the motion branch, which sees a prompt only through these frozen keys and values, mixed up the sides. So what each
layer makes its keys and values from must also predict a summary of the motion.
"""

# B batch, S sequence, D width, G numbers of the motion summary, P = layers read

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.mixture_of_transformers import TEXT_ONLY, MixtureOfTransformers
from llamo_ros.training.motion_data import (
    SHARES,
    BalancedSampler,
    PromptDrawer,
    WordedClip,
    shares_of,
    similar,
    worded_clips,
    worded_segments,
)
from llamo_ros.training.pack import Pack

# A motion is summarised by the mean of each of these features in four equal parts of it, and their spread over the
# whole: root velocity, heading change and joint positions of the 272-dim representation.
SUMMARISED = slice(0, 74)
PARTS = 4
# Principal components of the summary that are predicted, each scaled to unit variance, so that a turn counts as much as
# a raised hand.
SUMMARY_DIM = 32


@dataclass(frozen=True)
class SummarisedClip(WordedClip):
    """A motion as its raw summary, shape (74 * (PARTS + 1),), with its words."""

    summary: NDArray[np.float32] = field(kw_only=True)


def raw_summary(features: NDArray[np.floating], mean: NDArray, std: NDArray) -> NDArray[np.float32]:
    """Mean of the normalised features in each part of a motion (T, 272), T >= PARTS, then their spread overall."""
    values = ((features - mean) / std)[:, SUMMARISED]
    parts = [part.mean(0) for part in np.array_split(values, PARTS)]
    return np.concatenate([*parts, values.std(0)]).astype(np.float32)


class Grounding:
    """Draws prompts, balanced as for motion training, with the motion summaries that they should predict.

    Raises:
        DatasetError: no training or no validation clip has a caption.
    """

    def __init__(self, pack: Pack, seed: int) -> None:
        clips = _summarised(pack, chain(worded_clips(pack, "train", mirrored=True), worded_segments(pack, seed)))
        self._val = [clip for clip in _summarised(pack, worded_clips(pack, "val", mirrored=False)) if clip.captions]
        if not self._val:
            raise DatasetError("the pack has no validation clip with a caption; pack data whose index has some.")
        self._prompts = PromptDrawer()
        clips = [clip for clip in clips if self._prompts.has_words(clip)]
        if not clips:
            raise DatasetError("the pack has no training clip with a caption; pack data whose index has some.")
        self._sampler = BalancedSampler(clips, shares_of(clips, SHARES))
        rng = np.random.default_rng(seed)
        sample = np.stack([self._sampler.draw(rng).summary for _ in range(4000)])
        self._mean = sample.mean(0)
        _, scales, axes = np.linalg.svd(sample - self._mean, full_matrices=False)
        kept = min(SUMMARY_DIM, int((scales > 1e-4 * scales[0]).sum()))
        self.dim = kept
        self._project = (axes[:kept] / (scales[:kept, None] / np.sqrt(len(sample)))).T.astype(np.float32)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[str], Tensor]:
        """Prompts, and the summaries (count, G) of the motions they describe, each dimension of unit variance."""

        def pair() -> tuple[str, SummarisedClip]:
            clip = self._sampler.draw(rng)
            return self._prompts.draw(clip, rng), clip

        texts, clips = zip(*similar(pair, count, lambda drawn: len(drawn[0]), rng), strict=True)
        return list(texts), self._projected(clips)

    def validation(self) -> tuple[list[str], Tensor]:
        """First captions of all validation clips, and the summaries (N, G) of their motions."""
        return [clip.captions[0] for clip in self._val], self._projected(self._val)

    def _projected(self, clips: Sequence[SummarisedClip]) -> Tensor:
        return torch.from_numpy((np.stack([clip.summary for clip in clips]) - self._mean) @ self._project)


def _summarised(pack: Pack, worded: Iterable[tuple[NDArray[np.floating], WordedClip]]) -> list[SummarisedClip]:
    return [
        SummarisedClip(**vars(words), summary=raw_summary(features, pack.mean, pack.std))
        for features, words in worded
        if len(features) >= PARTS
    ]


class GroundedText(MixtureOfTransformers):
    """The text branch with one linear map per layer from its normed input to the motion summary.

    The maps serve training only; a motion run takes the text branch alone.
    """

    def __init__(self, base: MixtureOfTransformers, summary_dim: int) -> None:
        super().__init__(base.config)
        self.load_state_dict(base.state_dict())
        self.grounding = nn.ModuleList(nn.Linear(base.config.width, summary_dim) for _ in self._read())

    def _read(self) -> list[nn.Module]:
        """Norms whose output is read: what keys and values of each layer but the first are made from, and the last."""
        return [*(layer.input_layernorm for layer in self.text.layers[1:]), self.text.norm]

    def summaries(self, tokens_BS: Tensor, last_B: Tensor) -> Tensor:
        """Predicted summaries (P, B, 2, G) at each prompt's last token and at the [BOM] behind it.

        Args:
            tokens_BS: [BOS] and prompt, padded on the right with any token, shape (B, S).
            last_B: Index of each prompt's last token, shape (B,).
        """
        x_BSD = F.pad(self.text.embed_tokens(tokens_BS), (0, 0, 0, 1))
        rows = torch.arange(len(last_B), device=last_B.device)
        begin = self.text.embed_tokens.weight.mean(0)  # as [BOM] starts: Llamo.initialise_motion
        x_BSD = x_BSD.index_put((rows, last_B + 1), begin.expand(len(rows), -1))
        seen: list[Tensor] = []
        hooks = [norm.register_forward_hook(lambda _m, _i, out: seen.append(out)) for norm in self._read()]
        try:
            self(x_BSD, TEXT_ONLY)
        finally:
            for hook in hooks:
                hook.remove()
        both = torch.stack([last_B, last_B + 1], dim=1)
        return torch.stack([head(out[rows[:, None], both]) for head, out in zip(self.grounding, seen, strict=True)])

    def grounding_loss(self, tokens_BS: Tensor, last_B: Tensor, summary_BG: Tensor) -> Tensor:
        """Mean squared error of the predicted summaries; 1 is a text model that knows nothing of motion."""
        predicted = self.summaries(tokens_BS, last_B)
        return F.mse_loss(predicted.float(), summary_BG[None, :, None].expand_as(predicted))
