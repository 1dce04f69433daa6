from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.placement import canonicalised
from llamo_ros.motion.rotations import rotation_about_y

EXACT = 1e-12  # double precision on metres


@pytest.mark.parametrize("yaw", [0.0, 1.0, -3.0])
def test_first_frame_stands_at_the_origin_and_faces_plus_z(random_clip: Callable, yaw: float) -> None:
    clip = random_clip(0)
    rotations = clip.rotations.copy()
    rotations[:, 0] = rotation_about_y(np.array(yaw)) @ rotations[:, 0]
    placed = canonicalised(replace(clip, rotations=rotations, root_positions=clip.root_positions + [5.0, -2.0, 1.0]))
    positions = placed.joint_positions()
    np.testing.assert_allclose(positions[0, 0, [0, 2]], 0, atol=EXACT)
    to_left = positions[0, 1] - positions[0, 2]
    assert to_left[0] > 0 and abs(to_left[2]) < EXACT
    assert abs(np.percentile(positions[:, [7, 8, 10, 11], 1].min(1), 1)) < EXACT


def test_only_place_and_facing_change(random_clip: Callable) -> None:
    clip = random_clip(1)
    placed = canonicalised(clip)
    np.testing.assert_array_equal(placed.rotations[:, 1:], clip.rotations[:, 1:])
    distances = [np.linalg.norm(np.diff(c.joint_positions(), axis=0), axis=-1) for c in (placed, clip)]
    np.testing.assert_allclose(distances[0], distances[1], atol=EXACT)


def test_canonical_motion_stays_as_it_is(random_clip: Callable) -> None:
    once = canonicalised(random_clip(2))
    np.testing.assert_allclose(canonicalised(once).joint_positions(), once.joint_positions(), atol=EXACT)


def test_empty_clip_stays_empty() -> None:
    assert len(canonicalised(MotionClip(np.zeros((0, 22, 3, 3)), np.zeros((0, 3))))) == 0
