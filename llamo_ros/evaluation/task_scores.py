"""Scores of motion tasks: how far a completion is from the real motion, how it meets it, what a turn changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import heading
from llamo_ros.motion.rotations import (
    axis_angle_to_matrix,
    geodesic_angle,
    matrix_to_axis_angle,
    rotation_about_y,
    slerp_matrices,
)
from llamo_ros.motion.skeleton import JOINT_INDEX

FloatArray = NDArray[np.float64]

_ARMS = {"left": ("left_shoulder", "left_wrist"), "right": ("right_shoulder", "right_wrist")}
CLEAR_SIDE = 1.5  # times as much movement as on the other side; below, no side is the active one


def position_error(made: MotionClip, real: MotionClip, frame: int) -> float:
    """Mean distance of the 22 joints at one frame, in the world, [m].

    Raises:
        ParameterError: one of the two ends before that frame.
    """
    if not 0 <= frame < min(len(made), len(real)):
        raise ParameterError(f"frame {frame} is not in motions of {len(made)} and {len(real)} frames.")
    pair = [clip.sliced(frame, frame + 1).joint_positions()[0] for clip in (made, real)]
    return float(np.linalg.norm(pair[0] - pair[1], axis=-1).mean())


def largest_turn(clip: MotionClip, frame: int) -> float:
    """Largest turn of a joint from frame - 1 to ``frame``, [rad]."""
    return float(geodesic_angle(clip.rotations[frame - 1], clip.rotations[frame]).max())


def largest_turns_around(clip: MotionClip, frame: int, reach: int = 3) -> float:
    """Largest of :func:`largest_turn` over the ``reach`` frames before and after a seam at ``frame``, [rad]."""
    frames = range(max(1, frame - reach), min(len(clip), frame + reach + 1))
    return max(largest_turn(clip, number) for number in frames)


def held(clip: MotionClip, frames: int) -> MotionClip:
    """The last posture, kept: the baseline of a constant pose."""
    return concatenated([clip.sliced(len(clip) - 1)] * frames)


def extrapolated(clip: MotionClip, frames: int) -> MotionClip:
    """Goes on at the velocity of the last two frames, joints and root: the baseline of a constant velocity."""
    before, last = clip.rotations[-2], clip.rotations[-1]
    turn = matrix_to_axis_angle(np.swapaxes(before, -1, -2) @ last)
    step = clip.root_positions[-1] - clip.root_positions[-2]
    times = np.arange(1, frames + 1)
    rotations = last @ axis_angle_to_matrix(times[:, None, None] * turn)
    return MotionClip(rotations, clip.root_positions[-1] + times[:, None] * step, clip.frame_rate)


def interpolated(start: MotionClip, end: MotionClip, frames: int) -> MotionClip:
    """From the last posture of a clip to the first of another on the shortest way: the baseline of in-between."""
    share = np.arange(1, frames + 1) / (frames + 1)
    first, last = (np.broadcast_to(r, (frames, 22, 3, 3)) for r in (start.rotations[-1], end.rotations[0]))
    rotations = slerp_matrices(first, last, np.broadcast_to(share[:, None], (frames, 22)))
    roots = (1 - share[:, None]) * start.root_positions[-1] + share[:, None] * end.root_positions[0]
    return MotionClip(rotations, roots, start.frame_rate)


def active_side(clip: MotionClip) -> str:
    """Side of the wrist that moves more, seen from its shoulder: "left", "right", or "" where that is not clear."""
    positions = clip.joint_positions()
    to_heading = rotation_about_y(-heading(clip.rotations[:, 0]))
    travel = {}
    for side, (base, tip) in _ARMS.items():
        reach = positions[:, JOINT_INDEX[tip]] - positions[:, JOINT_INDEX[base]]
        seen = (to_heading @ reach[..., None])[..., 0]
        travel[side] = float(np.linalg.norm(np.diff(seen, axis=0), axis=-1).sum())
    more = max(travel, key=travel.__getitem__)
    return more if travel[more] >= CLEAR_SIDE * min(travel.values()) else ""


def speed_ratio(second: MotionClip, first: MotionClip) -> float:
    """How many times as fast the joints move in the second motion, in the world, on average."""

    def speed(clip: MotionClip) -> float:
        return float(np.linalg.norm(np.diff(clip.joint_positions(), axis=0), axis=-1).mean()) * clip.frame_rate

    return speed(second) / max(speed(first), 1e-9)
