"""CaptionStream: frames as they come, captions of the motion so far at any time; nothing is encoded twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.model.caption_generation import CaptionOptions
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.stream_state import StreamState
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import FEATURE_COUNT, encode_clip
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.caption_writer import Caption, CaptionPiece, CaptionWriter

MIN_LATENTS = 2  # a shorter motion says nothing
WINDOW = 75  # latents, 10 s
KEPT = 37  # latents, 5 s


class CaptionStream:
    """Captions a motion while it grows. For one thread.

    Each group of four frames is encoded once, when it is complete, by the VAE with its state, and read once into the
    keys and values that every caption of the window uses: the caption equals that of the whole window at once.

    The model knows motions of at most 10 s. When the window is full it slides: its newest 5 s become a new window
    (their latents are read once more, not encoded), and older ones are forgotten. So a caption of a long motion is
    about its last 5 to 10 s, see :attr:`start_index`.
    """

    def __init__(self, writer: CaptionWriter, window: int = WINDOW, kept: int = KEPT) -> None:
        """Begin without frames.

        Args:
            writer: Writes the captions.
            window: Most latents that a caption is about.
            kept: Latents kept when the window slides.

        Raises:
            ParameterError: not 0 <= kept < window, or the window is shorter than 2 latents.
        """
        if not (0 <= kept < window and window >= MIN_LATENTS):
            raise ParameterError(f"window is {window} and kept {kept}, expected 0 <= kept < window and window >= 2.")
        self._writer, self._window, self._kept = writer, window, kept
        self._prefix = writer.prefix(window)
        self._recent: deque[Tensor] = deque(maxlen=window)
        self._waiting = np.empty((0, FEATURE_COUNT))
        self._last: MotionClip | None = None
        self._state: StreamState | None = None
        self._encoded = 0

    @property
    def start_index(self) -> int:
        """Index in the stream of the window's first frame."""
        return (self._encoded - len(self._prefix)) * FRAMES_PER_LATENT

    @property
    def frames(self) -> int:
        """Frames in the window; up to three more wait for their group of four."""
        return len(self._prefix) * FRAMES_PER_LATENT

    def add(self, clip: MotionClip) -> None:
        """Take the next frames, any number.

        Raises:
            MotionDataError: they are not at 30 FPS: a stream cannot be resampled piece by piece.
        """
        if clip.frame_rate != FRAME_RATE:
            raise MotionDataError(f"frames are at {clip.frame_rate:g} FPS, expected 30; resample the source.")
        if not len(clip):
            return
        # Features of a frame need the frame before.
        features = encode_clip(clip) if self._last is None else encode_clip(concatenated([self._last, clip]))[1:]
        self._last = clip.sliced(len(clip) - 1)
        self._waiting = np.concatenate([self._waiting, features])
        complete = len(self._waiting) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
        if complete:
            self._encode(self._waiting[:complete])
            self._waiting = self._waiting[complete:]

    def caption(self, options: CaptionOptions | None = None) -> Caption:
        """Caption of the window so far.

        Raises:
            MotionDataError: it has fewer than 8 frames.
        """
        self._check_length()
        return self._writer.caption(self._prefix, options)

    def pieces(self, options: CaptionOptions | None = None) -> Iterator[CaptionPiece]:
        """The same piece by piece, each as soon as it is written.

        Raises:
            MotionDataError: the window has fewer than 8 frames.
        """
        self._check_length()
        return self._writer.pieces(self._prefix, options)

    def log_likelihood(self, text: str) -> float:
        """Mean log-probability of the tokens of a text as the caption of the window.

        Raises:
            MotionDataError: the window has fewer than 8 frames.
            PromptError: the text is empty, too long, or not text.
        """
        self._check_length()
        return self._writer.log_likelihood(self._prefix, text)

    @torch.inference_mode()
    def _encode(self, features: np.ndarray) -> None:
        model = self._writer.model
        batch = torch.from_numpy(features.astype(np.float32))[None].to(model.latent_mean.device)
        encoded, self._state = self._writer.runtime.encode(batch, self._state)
        latents = list(model.normalise_latents(encoded)[0])
        self._encoded += len(latents)
        while latents:
            if not self._prefix.room:
                self._slide()
            part, latents = latents[: self._prefix.room], latents[self._prefix.room :]
            self._prefix.extend(torch.stack(part))
            self._recent.extend(part)

    def _slide(self) -> None:
        kept = list(self._recent)[self._window - self._kept :]
        self._prefix = self._writer.prefix(self._window)
        if kept:
            self._prefix.extend(torch.stack(kept))

    def _check_length(self) -> None:
        if len(self._prefix) < MIN_LATENTS:
            raise MotionDataError(
                f"there are {self.frames} frames in whole groups of four; at least "
                f"{MIN_LATENTS * FRAMES_PER_LATENT} are needed for a caption."
            )
