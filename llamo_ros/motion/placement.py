"""Where a clip stands and faces: the canonical start that models and viewers expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import rotation_about_y
from llamo_ros.motion.skeleton import JOINT_INDEX

_HIPS = JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]
_FEET = [JOINT_INDEX[name] for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]
FLOOR_PERCENTILE = 1.0


def canonicalised(clip: MotionClip) -> MotionClip:
    """The clip moved so that its floor is at y = 0 and its first frame stands at x = z = 0 and faces +z.

    The floor is the 1st percentile over time of the lowest ankle or foot joint: one low outlier does not lift the rest.
    These are joints, so the sole lies about 2 cm lower. Facing is the horizontal normal of the line between the hips.
    An empty clip is returned as it is.
    """
    if len(clip) == 0:
        return clip
    positions = clip.joint_positions()
    floor = np.percentile(positions[:, _FEET, 1].min(axis=1), FLOOR_PERCENTILE)
    to_left = positions[0, _HIPS[0]] - positions[0, _HIPS[1]]
    turn = rotation_about_y(np.arctan2(to_left[2], to_left[0]))
    start = np.array([clip.root_positions[0, 0], floor, clip.root_positions[0, 2]])
    rotations = clip.rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    return replace(clip, rotations=rotations, root_positions=(clip.root_positions - start) @ turn.T)
