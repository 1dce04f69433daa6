"""Motions with their words: every training clip and its mirror image, as latents, and how clips are drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.motion.representation272 import decode_features, encode_clip
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.wording import plain_caption
from llamo_ros.training.captions import Paraphrases, mirrored_text
from llamo_ros.training.pack import Pack, PackedSequence, mirror_features
from llamo_ros.training.segments import find_segments, lengthened_stand

Clip = TypeVar("Clip", bound="WordedClip")
Item = TypeVar("Item")

MIN_LATENTS = 4
# Speeds of the versions of a motion that "now slower" and "now faster" ask for.
SLOWER, FASTER = 0.65, 1.5
# Share of each source among drawn clips, and among those that captioning is learned from. A source that is not named
# here, an import, has the share of its clips; the others share the rest in these proportions.
SHARES = {"bandai": 0.55, "h3d": 0.12, "cmu_trial": 0.03, "segment": 0.30}
DESCRIBABLE_SHARES = {"bandai": 0.5, "h3d": 0.5}
SEGMENT_SHARES = {"turn-left": 0.20, "turn-right": 0.20, "stand": 0.46, "jump": 0.14}
# Within the labelled takes every family of contents has a share, whatever it counts, so that 1,266 arm raises do not
# drown 15 bows; what is in no family has 1. Waves differ from raises in their fast parts only, and turns from steps in
# their heading: they need more. Within a family a label's share grows with count^0.25 only.
FAMILIES = {
    ("raise-up-left-hand", "raise-up-right-hand", "raise-up-both-hands"): 1.5,
    ("wave-left-hand", "wave-right-hand", "wave-both-hands", "bye", "byebye"): 3.0,
    ("run", "dash"): 1.0,
    ("walk", "walk-left", "walk-right"): 1.0,
    ("walk-turn-left", "walk-turn-right"): 1.5,
    ("walk-back",): 1.0,
    ("bow",): 1.0,
}


@dataclass(frozen=True)
class WordedClip:
    """What may be said of a motion.

    Attributes:
        captions: What may be said of it, mirrored already.
        content: Label for paraphrases, or empty.
        style: Label for paraphrases, or empty.
        source: ``bandai``, ``h3d``, ``cmu_trial`` or ``segment``.
        describable: Whether its captions are sentences to learn captioning from.
        key: Sequence it comes from, the same for its mirror image; empty for a part of one.
        mirrored: Whether it is the mirror image.
    """

    captions: tuple[str, ...]
    content: str
    style: str
    source: str
    describable: bool
    key: str = ""
    mirrored: bool = False


@dataclass(frozen=True)
class LatentClip(WordedClip):
    """A motion as VAE latents mu, not normalised, shape (L, C), with its words.

    ``slower`` and ``faster`` are the same motion at another speed, where there is one.
    """

    latents: Tensor = field(kw_only=True)
    slower: Tensor | None = field(default=None, kw_only=True)
    faster: Tensor | None = field(default=None, kw_only=True)


def worded_clips(pack: Pack, split: str, mirrored: bool) -> Iterator[tuple[NDArray[np.floating], WordedClip]]:
    """Features (T, 272) and words of the whole clips of a split, and of their mirror images if asked for."""
    for row in tqdm(pack.split(split), desc=f"reading {split}", unit="clip"):
        yield from clips_of_sequence(pack, row, mirrored)


def clips_of_sequence(
    pack: Pack, row: PackedSequence, mirrored: bool
) -> Iterator[tuple[NDArray[np.floating], WordedClip]]:
    """Features (T, 272) and words of one clip, and of its mirror image if asked for."""
    features = np.asarray(pack.of(row))
    for side in (False, True) if mirrored else (False,):
        yield mirror_features(features) if side else features, _words(row, row.content, side, row.kind)


def worded_segments(pack: Pack, seed: int) -> Iterator[tuple[NDArray[np.floating], WordedClip]]:
    """Features and words of the labelled parts of training clips, both sides; stands are lengthened to 3 to 7 s."""
    rng = np.random.default_rng(seed)
    for row in tqdm(pack.split("train"), desc="reading parts", unit="clip"):
        yield from segments_of_sequence(pack, row, rng)


def segments_of_sequence(
    pack: Pack, row: PackedSequence, rng: np.random.Generator, mirrored: bool = True
) -> Iterator[tuple[NDArray[np.floating], WordedClip]]:
    """Features and words of the labelled parts of one training clip; see :func:`worded_segments`."""
    for segment in find_segments(pack, [row]):
        features = np.asarray(pack.of(segment.sequence)[segment.start : segment.stop])
        repeats = 3 if segment.label == "stand" else 1
        for side in ((False, True) if mirrored else (False,)) * repeats:
            part = lengthened_stand(features, int(rng.integers(90, 210))) if segment.label == "stand" else features
            yield mirror_features(part) if side else part, _words(segment.sequence, segment.label, side, "segment")


def latent_clips(vae: MotionVae, worded: Iterable[tuple[NDArray[np.floating], WordedClip]]) -> list[LatentClip]:
    """Motions through the VAE; those of fewer than ``MIN_LATENTS`` latents are left out."""
    return [
        LatentClip(**vars(words), latents=_encoded(vae, features))
        for features, words in worded
        if len(features) >= MIN_LATENTS * FRAMES_PER_LATENT
    ]


def with_other_speeds(vae: MotionVae, pack: Pack, clips: list[LatentClip], count: int, seed: int) -> list[LatentClip]:
    """The clips, ``count`` of them (at most 5 s long, with words) with their slower and faster versions."""
    rng = np.random.default_rng(seed)
    rows = {row.id: row for row in pack.split("train")}
    able = [i for i, clip in enumerate(clips) if clip.key in rows and clip.captions and len(clip.latents) <= 38]
    chosen = rng.permutation(able)[:count]
    clips = list(clips)
    for index in tqdm(chosen, desc="other speeds", unit="clip"):
        clip = clips[index]
        features = np.asarray(pack.of(rows[clip.key]))
        motion = decode_features(np.asarray(mirror_features(features) if clip.mirrored else features, dtype=np.float64))
        versions = (
            _encoded(vae, encode_clip(replace(motion, frame_rate=FRAME_RATE * speed).resampled(FRAME_RATE)))
            for speed in (SLOWER, FASTER)
        )
        slower, faster = (latents if len(latents) >= MIN_LATENTS else None for latents in versions)
        clips[index] = replace(clip, slower=slower, faster=faster)
    return clips


@torch.no_grad()
def _encoded(vae: MotionVae, features: NDArray[np.floating]) -> Tensor:
    frames = len(features) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    batch = torch.from_numpy(np.array(features[:frames], dtype=np.float32))[None]
    return vae.encode(batch.to(vae.feature_mean.device))[0][0].float().cpu()


def _words(row: PackedSequence, content: str, mirrored: bool, source: str) -> WordedClip:
    captions = () if source == "segment" else tuple(c for c in row.captions if plain_caption(c))
    if mirrored:
        captions, content = tuple(map(mirrored_text, captions)), mirrored_text(content)
    sentence = source not in ("cmu_trial", "segment") and any(len(c.split()) > 3 for c in captions)
    style = row.style if source != "segment" or content == "stand" else ""
    key = row.id if source != "segment" else ""
    return WordedClip(captions, content, style, source, sentence, key, mirrored)


def shares_record() -> dict[str, str]:
    """The shares that clips are drawn by, as JSON, for the record of a run."""
    families = {", ".join(labels): share for labels, share in FAMILIES.items()}
    shares = {
        "source_shares": SHARES,
        "describable_shares": DESCRIBABLE_SHARES,
        "segment_shares": SEGMENT_SHARES,
        "family_shares": families,
    }
    return {name: json.dumps(value) for name, value in shares.items()}


def shares_of(clips: Sequence[WordedClip], known: dict[str, float]) -> dict[str, float]:
    """Share of each source of the clips, sum 1: an unknown one has that of its clips, the known ones the rest."""
    counts = Counter(clip.source for clip in clips)
    unknown = {source: count / len(clips) for source, count in counts.items() if source not in known}
    present = {source: share for source, share in known.items() if counts[source]}
    rest = 1.0 - sum(unknown.values())
    return unknown | {source: rest * share / sum(present.values()) for source, share in present.items()}


class BalancedSampler(Generic[Clip]):
    """Draws clips by source, then by content label; ``shares`` are of each source, those left out have none."""

    def __init__(self, clips: Sequence[Clip], shares: dict[str, float]) -> None:
        self.clips = clips
        counts = Counter((clip.source, clip.content) for clip in clips)
        family_of = {label: family for family in FAMILIES for label in family}
        families: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for (origin, content), count in counts.items():
            families[origin, family_of.get(content, ())] += count**0.25
        weights = np.ones(len(clips))
        for index, clip in enumerate(clips):
            count = counts[clip.source, clip.content]
            if clip.source == "segment":
                weights[index] = SEGMENT_SHARES[clip.content] / count
            elif clip.content:
                family = family_of.get(clip.content, ())
                weights[index] = FAMILIES.get(family, 1.0) * count**-0.75 / families[clip.source, family]
        source = np.array([clip.source for clip in clips])
        for name, share in shares.items():
            chosen = source == name
            if chosen.any():
                weights[chosen] *= share / weights[chosen].sum()
        weights[~np.isin(source, list(shares))] = 0.0
        self._weigh(weights)

    def _weigh(self, weights: NDArray[np.float64]) -> None:
        self._weights = weights
        self._chances = np.cumsum(weights / weights.sum())

    def only(self, fits: Callable[[Clip], bool]) -> BalancedSampler[Clip] | None:
        """Draws of those clips alone that fit, in the proportions of before; None if no clip does."""
        weights = self._weights * np.array([fits(clip) for clip in self.clips], dtype=np.float64)
        if not weights.any():
            return None
        part = copy(self)
        part._weigh(weights)
        return part

    def draw(self, rng: np.random.Generator) -> Clip:
        """One clip."""
        place = np.searchsorted(self._chances, rng.random(), side="right")  # never a clip without a chance
        return self.clips[min(int(place), len(self.clips) - 1)]


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

    def has_words(self, clip: WordedClip) -> bool:
        """Whether there is anything to say of a clip; an import may have clips without captions."""
        return bool(clip.captions) or self.paraphrases.knows(clip.content)

    def draw(self, clip: WordedClip, rng: np.random.Generator) -> str:
        """One wording of a clip that has words."""
        known = self.paraphrases.knows(clip.content)
        if known and (not clip.captions or rng.random() < self.share):
            return self.paraphrases.draw(clip.content, clip.style, rng)
        return str(rng.choice(clip.captions))
