"""Latents with captions: every training clip and its mirror image through the VAE, and how clips are drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.training.captions import Paraphrases, mirrored_text
from llamo_ros.training.pack import Pack, PackedSequence, mirror_features
from llamo_ros.training.segments import find_segments, lengthened_stand

MIN_LATENTS = 4
# Share of each source among drawn clips. Within Bandai a label's share grows with count^0.25 only, so that 1,266 arm
# raises do not drown 15 bows.
SHARES = {"bandai": 0.48, "h3d": 0.16, "cmu_trial": 0.06, "segment": 0.30}
SEGMENT_SHARES = {"turn-left": 0.25, "turn-right": 0.25, "stand": 0.35, "jump": 0.15}


@dataclass(frozen=True)
class LatentClip:
    """One motion as latents, with its words.

    Attributes:
        latents: VAE latents mu, not normalised, shape (L, C).
        captions: What may be said of it, mirrored already.
        content: Label for paraphrases, or empty.
        style: Label for paraphrases, or empty.
        source: ``bandai``, ``h3d``, ``cmu_trial`` or ``segment``.
        describable: Whether its captions are sentences to learn captioning from.
    """

    latents: Tensor
    captions: tuple[str, ...]
    content: str
    style: str
    source: str
    describable: bool


@torch.no_grad()
def _encoded(vae: MotionVae, features: np.ndarray) -> Tensor:
    frames = len(features) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    batch = torch.from_numpy(np.array(features[:frames], dtype=np.float32))[None]
    return vae.encode(batch.to(vae.feature_mean.device))[0][0].float().cpu()


def latent_clips(vae: MotionVae, pack: Pack, split: str, mirrored: bool) -> list[LatentClip]:
    """Whole clips of a split, and their mirror images if asked for."""
    clips = []
    for row in tqdm(pack.split(split), desc=f"encoding {split}", unit="clip"):
        for side in (False, True) if mirrored else (False,):
            features = np.asarray(pack.of(row))
            latents = _encoded(vae, mirror_features(features) if side else features)
            if len(latents) >= MIN_LATENTS:
                clips.append(_clip(latents, row, row.content, side, row.kind))
    return clips


def segment_clips(vae: MotionVae, pack: Pack, seed: int) -> list[LatentClip]:
    """Labelled parts of training clips, both sides; stands are lengthened to 3 to 7 s."""
    rng = np.random.default_rng(seed)
    clips = []
    for segment in tqdm(find_segments(pack, pack.split("train")), desc="encoding parts", unit="part"):
        features = np.asarray(pack.of(segment.sequence)[segment.start : segment.stop])
        repeats = 3 if segment.label == "stand" else 1
        for side in (False, True) * repeats:
            part = lengthened_stand(features, int(rng.integers(90, 210))) if segment.label == "stand" else features
            latents = _encoded(vae, mirror_features(part) if side else part)
            if len(latents) >= MIN_LATENTS:
                clips.append(_clip(latents, segment.sequence, segment.label, side, "segment"))
    return clips


def _clip(latents: Tensor, row: PackedSequence, content: str, mirrored: bool, source: str) -> LatentClip:
    captions = () if source == "segment" else row.captions
    if mirrored:
        captions, content = tuple(map(mirrored_text, captions)), mirrored_text(content)
    sentence = source in ("bandai", "h3d") and bool(captions) and any(len(c.split()) > 3 for c in captions)
    style = row.style if source != "segment" or content == "stand" else ""
    return LatentClip(latents, captions, content, style, source, sentence)


class BalancedSampler:
    """Draws clips by source, then by content label."""

    def __init__(self, clips: list[LatentClip], shares: dict[str, float]) -> None:
        self.clips = clips
        counts = Counter((clip.source, clip.content) for clip in clips)
        weights = np.zeros(len(clips))
        for index, clip in enumerate(clips):
            count = counts[clip.source, clip.content]
            if clip.source == "segment":
                weights[index] = SEGMENT_SHARES[clip.content] / count
            else:
                weights[index] = count**-0.75 if clip.content else 1.0
        source = np.array([clip.source for clip in clips])
        for name, share in shares.items():
            chosen = source == name
            if chosen.any():
                weights[chosen] *= share / weights[chosen].sum()
        weights[~np.isin(source, list(shares))] = 0.0
        self._chances = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator) -> LatentClip:
        """One clip."""
        return self.clips[min(int(np.searchsorted(self._chances, rng.random())), len(self.clips) - 1)]


class PromptDrawer:
    """The words of a clip: one of its captions, or our own wording of its label."""

    def __init__(self, paraphrase_share: float = 0.4) -> None:
        self.paraphrases, self.share = Paraphrases(), paraphrase_share

    def draw(self, clip: LatentClip, rng: np.random.Generator) -> str:
        """One wording."""
        known = self.paraphrases.knows(clip.content)
        if known and (not clip.captions or rng.random() < self.share):
            return self.paraphrases.draw(clip.content, clip.style, rng)
        return str(rng.choice(clip.captions))
