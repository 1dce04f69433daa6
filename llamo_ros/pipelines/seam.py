"""Seam: frames that are made go on from the frame that was given, not from what the VAE makes of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import POSITIONS, local_rotations
from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from llamo_ros.pipelines.splicing import fade_weights, split_heading

FADE_FRAMES = 12  # 0.4 s: the VAE is off by a few degrees, which is then a few degrees per second


class Seam:
    """Fades out the error of the VAE at the last frame that was given.

    The made frames keep the model's velocities; only the difference between the given frame and its reconstruction is
    added to them, whole right behind the seam and gone after ``FADE_FRAMES``. A VAE without error changes nothing.
    """

    def __init__(self, last: MotionClip, rebuilt: NDArray[np.floating]) -> None:
        """Compare the two.

        Args:
            last: The last given frame.
            rebuilt: Features (272,) of the same frame, as the VAE decodes them.
        """
        decoded = local_rotations(np.asarray(rebuilt, dtype=np.float64))
        self._turn = matrix_to_axis_angle(np.swapaxes(decoded, -1, -2) @ split_heading(last)[1][0])
        self._rise = float(last.root_positions[0, 1] - rebuilt[POSITIONS.start + 1])
        self._weights = 1.0 - fade_weights(FADE_FRAMES)

    def joined(self, clip: MotionClip) -> MotionClip:
        """The next frames, corrected as far as the fade reaches."""
        weights, self._weights = self._weights[: len(clip)], self._weights[len(clip) :]
        if not len(weights):
            return clip
        return faded_in(clip, self._turn, self._rise, np.pad(weights, (0, len(clip) - len(weights))))


def faded_in(clip: MotionClip, turn: NDArray[np.floating], rise: float, weights: NDArray[np.floating]) -> MotionClip:
    """Frames with part of a difference added.

    Args:
        clip: The frames.
        turn: Rotation vectors (22, 3) behind each joint's own rotation, [rad].
        rise: Of the root, [m].
        weights: Part of the difference that each frame gets, shape (T,).
    """
    rotations = clip.rotations @ axis_angle_to_matrix(weights[:, None, None] * turn)
    roots = clip.root_positions + np.outer(weights, [0.0, rise, 0.0])
    return MotionClip(rotations, roots, clip.frame_rate, clip.text)
