"""Motions with their words: every training clip and its mirror image, as latents, and how clips are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.training.captions import Paraphrases, mirrored_text
from llamo_ros.training.pack import Pack, PackedSequence, mirror_features
from llamo_ros.training.segments import find_segments, lengthened_stand

Clip = TypeVar("Clip", bound="WordedClip")
Item = TypeVar("Item")

MIN_LATENTS = 4
# Share of each source among drawn clips.
SHARES = {"bandai": 0.52, "h3d": 0.15, "cmu_trial": 0.05, "segment": 0.28}
SEGMENT_SHARES = {"turn-left": 0.20, "turn-right": 0.20, "stand": 0.42, "jump": 0.18}
# Within the labelled takes every family of contents has the same share, whatever it counts, so that 1,266 arm raises do
# not drown 15 bows; what is in no family shares one. Within a family a label's share grows with count^0.25 only.
FAMILIES = (
    ("raise-up-left-hand", "raise-up-right-hand", "raise-up-both-hands"),
    ("wave-left-hand", "wave-right-hand", "wave-both-hands", "bye", "byebye"),
    ("run", "dash"),
    ("walk", "walk-left", "walk-right"),
    ("walk-turn-left", "walk-turn-right"),
    ("walk-back",),
    ("bow",),
)


@dataclass(frozen=True)
class WordedClip:
    """What may be said of a motion.

    Attributes:
        captions: What may be said of it, mirrored already.
        content: Label for paraphrases, or empty.
        style: Label for paraphrases, or empty.
        source: ``bandai``, ``h3d``, ``cmu_trial`` or ``segment``.
        describable: Whether its captions are sentences to learn captioning from.
    """

    captions: tuple[str, ...]
    content: str
    style: str
    source: str
    describable: bool


@dataclass(frozen=True)
class LatentClip(WordedClip):
    """A motion as VAE latents mu, not normalised, shape (L, C), with its words."""

    latents: Tensor


def worded_clips(pack: Pack, split: str, mirrored: bool) -> Iterator[tuple[NDArray[np.floating], WordedClip]]:
    """Features (T, 272) and words of the whole clips of a split, and of their mirror images if asked for."""
    for row in tqdm(pack.split(split), desc=f"reading {split}", unit="clip"):
        features = np.asarray(pack.of(row))
        for side in (False, True) if mirrored else (False,):
            yield mirror_features(features) if side else features, _words(row, row.content, side, row.kind)


def worded_segments(pack: Pack, seed: int) -> Iterator[tuple[NDArray[np.floating], WordedClip]]:
    """Features and words of the labelled parts of training clips, both sides; stands are lengthened to 3 to 7 s."""
    rng = np.random.default_rng(seed)
    for segment in tqdm(find_segments(pack, pack.split("train")), desc="reading parts", unit="part"):
        features = np.asarray(pack.of(segment.sequence)[segment.start : segment.stop])
        repeats = 3 if segment.label == "stand" else 1
        for side in (False, True) * repeats:
            part = lengthened_stand(features, int(rng.integers(90, 210))) if segment.label == "stand" else features
            yield mirror_features(part) if side else part, _words(segment.sequence, segment.label, side, "segment")


def latent_clips(vae: MotionVae, worded: Iterable[tuple[NDArray[np.floating], WordedClip]]) -> list[LatentClip]:
    """Motions through the VAE; those of fewer than ``MIN_LATENTS`` latents are left out."""
    return [
        LatentClip(**vars(words), latents=_encoded(vae, features))
        for features, words in worded
        if len(features) >= MIN_LATENTS * FRAMES_PER_LATENT
    ]


@torch.no_grad()
def _encoded(vae: MotionVae, features: NDArray[np.floating]) -> Tensor:
    frames = len(features) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    batch = torch.from_numpy(np.array(features[:frames], dtype=np.float32))[None]
    return vae.encode(batch.to(vae.feature_mean.device))[0][0].float().cpu()


def _words(row: PackedSequence, content: str, mirrored: bool, source: str) -> WordedClip:
    captions = () if source == "segment" else row.captions
    if mirrored:
        captions, content = tuple(map(mirrored_text, captions)), mirrored_text(content)
    sentence = source in ("bandai", "h3d") and bool(captions) and any(len(c.split()) > 3 for c in captions)
    style = row.style if source != "segment" or content == "stand" else ""
    return WordedClip(captions, content, style, source, sentence)


class BalancedSampler(Generic[Clip]):
    """Draws clips by source, then by content label."""

    def __init__(self, clips: Sequence[Clip], shares: dict[str, float]) -> None:
        self.clips = clips
        counts = Counter((clip.source, clip.content) for clip in clips)
        family_of = {label: number for number, labels in enumerate(FAMILIES) for label in labels}
        families: Counter[tuple[str, int]] = Counter()
        for (origin, content), count in counts.items():
            families[origin, family_of.get(content, -1)] += count**0.25
        weights = np.ones(len(clips))
        for index, clip in enumerate(clips):
            count = counts[clip.source, clip.content]
            if clip.source == "segment":
                weights[index] = SEGMENT_SHARES[clip.content] / count
            elif clip.content:
                weights[index] = count**-0.75 / families[clip.source, family_of.get(clip.content, -1)]
        source = np.array([clip.source for clip in clips])
        for name, share in shares.items():
            chosen = source == name
            if chosen.any():
                weights[chosen] *= share / weights[chosen].sum()
        weights[~np.isin(source, list(shares))] = 0.0
        self._chances = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator) -> Clip:
        """One clip."""
        return self.clips[min(int(np.searchsorted(self._chances, rng.random())), len(self.clips) - 1)]


def similar(
    draw: Callable[[], Item], count: int, length: Callable[[Item], int], rng: np.random.Generator
) -> list[Item]:
    """``count`` items of similar length, so that few tokens are padding: draws six times as many, sorts, keeps a part.

    Each part is as likely, so each item is drawn as often as by ``draw`` alone.
    """
    drawn = sorted((draw() for _ in range(6 * count)), key=length)
    start = int(rng.integers(6)) * count
    return drawn[start : start + count]


class PromptDrawer:
    """The words of a clip: one of its captions, or our own wording of its label."""

    def __init__(self, paraphrase_share: float = 0.4) -> None:
        self.paraphrases, self.share = Paraphrases(), paraphrase_share

    def draw(self, clip: WordedClip, rng: np.random.Generator) -> str:
        """One wording."""
        known = self.paraphrases.knows(clip.content)
        if known and (not clip.captions or rng.random() < self.share):
            return self.paraphrases.draw(clip.content, clip.style, rng)
        return str(rng.choice(clip.captions))
