"""One motion goes over into another: placing, cross-fading and braking human frames. Core convention, y up.

A frame is split into its heading, where it stands (x and z), and the rest. The rest is cross-faded; heading and place
are cross-faded as velocities and summed up, so that a walk which turns into standing slows down, never pulled back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import heading
from llamo_ros.motion.rotations import (
    axis_angle_to_matrix,
    geodesic_angle,
    matrix_to_axis_angle,
    rotation_about_y,
    slerp_matrices,
)
from llamo_ros.motion.skeleton import FRAME_RATE

FloatArray = NDArray[np.float64]

BRAKE_FRAMES = 6  # 0.2 s: longer would carry the joints too far without a model, shorter looks like a jerk
_SHORTEST_FADE = 8
_LONGEST_FADE = 45
_LONGEST_RISE = 300  # frames of a fade between roots at different heights
_RISE_SPEED = 1.0  # [m/s] that a fade may add to the root's height
_PEAK_OF_MIN_JERK = 1.875  # largest slope of the fade, per its length
_LARGEST_TURN = 0.5  # [rad] per frame that braking continues at most


def fade_weights(count: int) -> FloatArray:
    """Weights (count,) of the new motion in a minimum-jerk cross-fade, strictly between 0 and 1."""
    s = np.arange(1, count + 1) / (count + 1)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s**2)


def fade_length(old: MotionClip, new: MotionClip, speed_limit: float) -> int:
    """Frames that a cross-fade between the first frames of two motions needs, 8 to 45, or more to another height.

    Args:
        old: Motion that is left; its first frame counts.
        new: Motion that is entered; its first frame counts.
        speed_limit: Joint speed that the fade may add, [rad/s]; kept unless 1.5 s are too short for it.
    """
    apart = geodesic_angle(split_heading(old.sliced(0, 1))[1], split_heading(new.sliced(0, 1))[1]).max()
    rise = abs(float(new.root_positions[0, 1] - old.root_positions[0, 1]))
    turning, rising = np.ceil(_PEAK_OF_MIN_JERK * FRAME_RATE * np.array([apart / speed_limit, rise / _RISE_SPEED]))
    return int(max(np.clip(turning, _SHORTEST_FADE, _LONGEST_FADE), min(rising, _LONGEST_RISE)))


def braked(clip: MotionClip) -> MotionClip:
    """Frames that continue the end of a motion to rest with a linearly falling velocity; the last one is at rest.

    Args:
        clip: At least one frame; the last two tell the velocity. A single frame is at rest already.

    Returns:
        Six frames at the same rate.
    """
    last = clip.sliced(len(clip) - 1)
    before = clip.sliced(len(clip) - 2, len(clip) - 1) if len(clip) > 1 else last
    turn = matrix_to_axis_angle(np.swapaxes(before.rotations, -1, -2) @ last.rotations)
    angle = np.linalg.norm(turn, axis=-1, keepdims=True)
    turn = turn * np.minimum(1.0, _LARGEST_TURN / np.maximum(angle, _LARGEST_TURN))
    step = last.root_positions - before.root_positions
    # Sum of the velocities left after 1, 2, ... frames; the last of them is zero.
    travel = np.cumsum(1.0 - np.arange(1, BRAKE_FRAMES + 1) / BRAKE_FRAMES)
    rotations = last.rotations @ axis_angle_to_matrix(travel[:, None, None] * turn)
    return MotionClip(rotations, last.root_positions + travel[:, None] * step, clip.frame_rate)


@dataclass
class Splice:
    """Carries a new motion over from an old one, chunk by chunk.

    Attributes:
        start: Frame before the first one that is made, in the world of the player; one frame.
        old: Frames that the old motion would play from there on, B of them: the length of the cross-fade.
    """

    start: MotionClip
    old: MotionClip

    def __post_init__(self) -> None:
        self._weights = fade_weights(len(self.old))
        self._done = 0
        self._heading = float(heading(self.start.rotations[:, 0])[0])
        self._xz = self.start.root_positions[0, [0, 2]].copy()
        self._previous_old = self.start
        self._previous_new: MotionClip | None = None

    @property
    def fading(self) -> int:
        """Frames of the cross-fade that are still to come."""
        return len(self.old) - self._done

    def carry_over(self, new: MotionClip) -> MotionClip:
        """The next frames of the new motion, placed where the player stands, cross-faded as far as the fade reaches."""
        if not len(new):
            return new
        faded = min(len(new), self.fading)
        old = self.old.sliced(self._done, self._done + faded)
        weights = np.concatenate([self._weights[self._done : self._done + faded], np.ones(len(new) - faded)])
        new_turns, new_steps = _movement(self._previous_new or new.sliced(0, 1), new)
        old_turns, old_steps = np.zeros_like(new_turns), np.zeros_like(new_steps)
        old_turns[:faded], old_steps[:faded] = _movement(self._previous_old, old)
        turns = weights * new_turns + (1.0 - weights) * old_turns
        steps = weights[:, None] * new_steps + (1.0 - weights[:, None]) * old_steps

        _, local = split_heading(new)
        height = new.root_positions[:, 1].copy()
        if faded:
            _, old_local = split_heading(old)
            fraction = np.broadcast_to(weights[:faded, None], old_local.shape[:2])
            local[:faded] = slerp_matrices(old_local, local[:faded], fraction)
            height[:faded] += (1.0 - weights[:faded]) * (old.root_positions[:, 1] - height[:faded])
        headings = self._heading + np.cumsum(turns)
        before = np.concatenate([[self._heading], headings[:-1]])
        roots = np.zeros((len(new), 3))
        roots[:, [0, 2]] = steps
        roots = np.cumsum((rotation_about_y(before) @ roots[..., None])[..., 0], axis=0)
        roots[:, [0, 2]] += self._xz
        roots[:, 1] = height
        local[:, 0] = rotation_about_y(headings) @ local[:, 0]

        self._done += faded
        self._heading, self._xz = float(headings[-1]), roots[-1, [0, 2]].copy()
        self._previous_new = new.sliced(len(new) - 1)
        self._previous_old = old.sliced(faded - 1) if faded else self._previous_old
        return MotionClip(local, roots, new.frame_rate)


def split_heading(clip: MotionClip) -> tuple[FloatArray, FloatArray]:
    """Headings (T,), [rad], and local rotations (T, 22, 3, 3) with the heading removed from the pelvis."""
    headings = heading(clip.rotations[:, 0])
    local = clip.rotations.copy()
    local[:, 0] = rotation_about_y(-headings) @ local[:, 0]
    return headings, local


def _movement(before: MotionClip, clip: MotionClip) -> tuple[FloatArray, FloatArray]:
    """Turn to the left (T,), [rad], and step (x, z) in the heading of the frame before (T, 2), [m], of each frame."""
    if not len(clip):
        return np.zeros(0), np.zeros((0, 2))
    both = concatenated([before, clip])
    headings = heading(both.rotations[:, 0])
    turns = np.diff(headings)
    turns = (turns + np.pi) % (2.0 * np.pi) - np.pi
    steps = rotation_about_y(-headings[:-1]) @ np.diff(both.root_positions, axis=0)[..., None]
    return turns, steps[:, [0, 2], 0]
