from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.evaluation.task_scores import (
    active_side,
    extrapolated,
    held,
    interpolated,
    largest_turns_around,
    position_error,
    speed_ratio,
)
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix
from llamo_ros.motion.skeleton import JOINT_INDEX


def turning(frames: int, joint: str = "left_shoulder", speed: float = 1.0, ahead: float = 0.5) -> MotionClip:
    """One joint turns and the body goes ahead, both at a constant speed, [rad/s] and [m/s]."""
    time = np.arange(frames) / 30.0
    rotvec = np.zeros((frames, 22, 3))
    rotvec[:, JOINT_INDEX[joint], 2] = speed * time
    roots = np.stack([0 * time, 0.9 + 0 * time, ahead * time], axis=-1)
    return MotionClip(axis_angle_to_matrix(rotvec), roots)


def test_the_error_is_the_mean_distance_of_joints_at_one_frame() -> None:
    clip = turning(30)
    moved = MotionClip(clip.rotations, clip.root_positions + [0.3, 0.0, 0.4])
    assert position_error(moved, clip, 20) == pytest.approx(0.5)
    with pytest.raises(ParameterError, match="frame 30"):
        position_error(moved, clip, 30)


def test_a_constant_velocity_is_extrapolated_exactly_and_a_posture_is_held() -> None:
    clip = turning(60)
    made = extrapolated(clip.sliced(0, 30), 30)
    np.testing.assert_allclose(made.rotations, clip.rotations[30:], atol=1e-6)
    np.testing.assert_allclose(made.root_positions, clip.root_positions[30:], atol=1e-9)
    still = held(clip.sliced(0, 30), 30)
    assert np.abs(still.rotations - clip.rotations[29]).max() == 0.0 and len(still) == 30


def test_a_constant_velocity_is_interpolated_exactly() -> None:
    clip = turning(60)
    made = interpolated(clip.sliced(0, 20), clip.sliced(40), 20)
    np.testing.assert_allclose(made.rotations, clip.rotations[20:40], atol=1e-6)
    np.testing.assert_allclose(made.root_positions, clip.root_positions[20:40], atol=1e-9)


def test_a_jump_at_a_seam_is_seen_within_its_reach_only(random_clip: Callable[..., MotionClip]) -> None:
    clip = turning(40)
    rotations = clip.rotations.copy()
    rotations[20:, 5] = axis_angle_to_matrix(np.array([0.5, 0.0, 0.0]))
    jump = MotionClip(rotations, clip.root_positions)
    assert largest_turns_around(jump, 20) == pytest.approx(0.5)
    assert largest_turns_around(jump, 17) == pytest.approx(0.5)
    assert largest_turns_around(jump, 16) == pytest.approx(1 / 30)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_active_side_is_that_of_the_wrist_that_moves(side: str) -> None:
    clip = turning(60, f"{side}_shoulder")
    assert active_side(clip) == side
    assert active_side(clip.mirrored()) == {"left": "right", "right": "left"}[side]
    assert active_side(turning(60, "spine1")) == "", "both move alike"


def test_a_motion_played_slower_has_that_ratio_of_speeds() -> None:
    clip = turning(90)
    slower = MotionClip(clip.rotations, clip.root_positions, 20.0).resampled(30.0)
    assert speed_ratio(slower, clip) == pytest.approx(2 / 3, rel=0.01)
