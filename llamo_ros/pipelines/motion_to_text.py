"""Motion in, caption out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from llamo_ros.core.errors import MotionDataError
from llamo_ros.kernels.backends import checked_threads
from llamo_ros.model.caption_generation import CaptionOptions
from llamo_ros.model.checkpoint import checkpoint_folder, load_checkpoint, read_config
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.caption_stream import MIN_LATENTS, WINDOW, CaptionStream
from llamo_ros.pipelines.caption_writer import Caption, CaptionPiece, CaptionWriter
from llamo_ros.pipelines.confidence import ConfidenceCalibration

MAX_FRAMES = WINDOW * FRAMES_PER_LATENT  # 10 s, the longest clip seen in training
_MIN_FRAMES = MIN_LATENTS * FRAMES_PER_LATENT


class MotionToText:
    """Describes clips with one model; keeps it loaded. Safe to call from several threads."""

    def __init__(
        self, model: Llamo, tokenizer: TextTokenizer, calibration: ConfidenceCalibration | None = None
    ) -> None:
        self._writer = CaptionWriter(model, tokenizer, calibration)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path = "llamo-mini", device: str = "cpu", threads: int = 1
    ) -> MotionToText:
        """Load a shipped model by name, or a checkpoint folder; see :meth:`TextToMotion.from_checkpoint`.

        ``threads`` are those of PyTorch in this process where it runs whole layers; compiled kernels caption on one.

        Raises:
            ParameterError: ``threads`` is not a whole number from 1 to the cores that this process may use.
            CheckpointError: the checkpoint or its calibration is unknown, incomplete or damaged.
        """
        torch.set_num_threads(checked_threads(threads))
        _, metadata = read_config(checkpoint_folder(checkpoint))
        captioner = cls(*load_checkpoint(checkpoint, device), ConfidenceCalibration.of_metadata(metadata))
        if captioner._writer.runtime.is_compiled:
            torch.set_num_threads(1)
        return captioner

    def __call__(self, clip: MotionClip, options: CaptionOptions | None = None) -> Caption:
        """Caption of a clip; of the first 10 s of a longer one. Any frame rate, any place and heading.

        Args:
            clip: The motion.
            options: Greedy if None.

        Raises:
            MotionDataError: the clip has fewer than 8 frames at 30 FPS.
        """
        return self._read(clip).caption(options)

    def pieces(self, clip: MotionClip, options: CaptionOptions | None = None) -> Iterator[CaptionPiece]:
        """The same piece by piece, each as soon as it is written.

        Raises:
            MotionDataError: the clip has fewer than 8 frames at 30 FPS.
        """
        return self._read(clip).pieces(options)

    def log_likelihood(self, clip: MotionClip, text: str) -> float:
        """Mean log-probability of the tokens of ``text`` as the caption of a clip (of its first 10 s).

        Raises:
            MotionDataError: the clip has fewer than 8 frames at 30 FPS.
            PromptError: the text is empty, too long, or not text.
        """
        return self._read(clip).log_likelihood(text)

    def prompt_score(self, clip: MotionClip) -> float:
        """How well the model, as a captioner, finds the clip's own text in it; for ``TextToMotion.best_of``.

        Errors as for :meth:`log_likelihood`.
        """
        return self.log_likelihood(clip, clip.text)

    def open(self) -> CaptionStream:
        """A stream that takes frames as they come and captions the motion so far at any time."""
        return CaptionStream(self._writer)

    def _read(self, clip: MotionClip) -> CaptionStream:
        if clip.frame_rate != FRAME_RATE:
            clip = clip.resampled(FRAME_RATE)
        if len(clip) < _MIN_FRAMES:
            raise MotionDataError(
                f"clip has {len(clip)} frames at 30 FPS; at least {_MIN_FRAMES} are needed for a caption."
            )
        stream = self.open()
        stream.add(clip.sliced(0, MAX_FRAMES))
        return stream


__all__ = ["MAX_FRAMES", "Caption", "MotionToText"]
