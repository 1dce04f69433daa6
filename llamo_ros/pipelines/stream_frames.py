"""StreamFrames: features of a stream to frames that never jump, also where a new motion begins from another posture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import StreamingDecoder
from llamo_ros.pipelines.seam import Seam
from llamo_ros.pipelines.splicing import Splice, braked, fade_length

BLEND_SPEED = 4.0  # [rad/s] that a cross-fade may add to a joint, the default of playback too


class StreamFrames:
    """Decodes features; after :meth:`blend` it cross-fades from the posture of the moment to the new motion.

    Heading and place are integrals that go on through a cross-fade (:mod:`~llamo_ros.pipelines.splicing`).
    """

    def __init__(self, decoder: StreamingDecoder, before: MotionClip | None = None, seam: Seam | None = None) -> None:
        """Begin.

        Args:
            decoder: Knows where the motion begins.
            before: The one or two frames before the first one; None for none.
            seam: Corrects the first frames where they go on from ``before``.
        """
        self._decoder, self._seam = decoder, seam
        self._splice: Splice | None = None
        self._last = before  # the two newest frames
        self._blends = False

    @property
    def decoder(self) -> StreamingDecoder:
        """What makes the frames of features."""
        return self._decoder

    def blend(self) -> None:
        """The next features begin a motion of their own."""
        self._blends = self._last is not None

    def decode(self, features: NDArray[np.floating]) -> MotionClip:
        """Frames of features (T, 272), continuing those before; errors as :meth:`StreamingDecoder.decode`."""
        clip = self._decoder.decode(features)
        if self._blends:
            self._splice, self._seam, self._blends = self._spliced(clip), None, False
        if self._seam is not None:
            clip = self._seam.joined(clip)
        if self._splice is not None:
            # Also after the fade: it knows where the new motion stands.
            clip = self._splice.carry_over(clip)
        recent = clip if self._last is None else concatenated([self._last, clip])
        self._last = recent.sliced(max(0, len(recent) - 2))
        return clip

    def _spliced(self, new: MotionClip) -> Splice:
        """A fade from the motion so far, which comes to rest within 0.2 s."""
        old = braked(self._last)
        length = fade_length(old, new, BLEND_SPEED)
        rest = [old.sliced(len(old) - 1)] * max(0, length - len(old))
        return Splice(self._last.sliced(len(self._last) - 1), concatenated([old, *rest]).sliced(0, length))
