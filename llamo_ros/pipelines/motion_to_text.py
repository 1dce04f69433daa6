"""Motion in, caption out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from llamo_ros.core.errors import MotionDataError
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.generation import generate_caption
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import encode_clip
from llamo_ros.motion.skeleton import FRAME_RATE

MAX_FRAMES = 300  # 10 s, the longest clip seen in training


@dataclass(frozen=True)
class Caption:
    """What is done in a motion.

    Attributes:
        text: One sentence.
        confidence: Geometric mean probability of its tokens, 0 to 1.
    """

    text: str
    confidence: float


class MotionToText:
    """Describes clips with one model; keeps it loaded."""

    def __init__(self, model: Llamo, tokenizer: TextTokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path = "llamo-mini", device: str = "cpu", threads: int = 1
    ) -> MotionToText:
        """Load a shipped model by name, or a checkpoint folder; see :meth:`TextToMotion.from_checkpoint`."""
        torch.set_num_threads(threads)
        return cls(*load_checkpoint(checkpoint, device))

    @torch.inference_mode()
    def __call__(self, clip: MotionClip) -> Caption:
        """Caption of a clip; of the first 10 s of a longer one. Any frame rate, any place and heading.

        Raises:
            MotionDataError: the clip has fewer than 8 frames at 30 FPS.
        """
        if clip.frame_rate != FRAME_RATE:
            clip = clip.resampled(FRAME_RATE)
        frames = min(len(clip), MAX_FRAMES) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
        if frames < 2 * FRAMES_PER_LATENT:
            raise MotionDataError(f"clip has {len(clip)} frames at 30 FPS; at least 8 are needed for a caption.")
        features = torch.from_numpy(encode_clip(clip.sliced(0, frames)).astype(np.float32))[None]
        latents = self._model.vae.encode(features.to(self._model.latent_mean.device))[0][0]
        ids, confidence = generate_caption(
            self._model,
            self._model.normalise_latents(latents),
            self._tokenizer.bos,
            self._tokenizer.eos,
            forbidden=(self._tokenizer.pad, self._tokenizer.bos),
        )
        return Caption(self._tokenizer.decode(ids), confidence)
