"""A whole clip to a robot: as the stream does it, within limits, with a report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.clip_to_robot import clip_to_robot
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.retargeter import Retargeter


@pytest.fixture(scope="module")
def g1() -> Robot:
    return load_robot("unitree_g1")


def test_a_long_clip_is_what_the_retargeter_makes_of_it(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    clip, seen = random_clip(frames=250), []
    result = clip_to_robot(g1, clip, limited=False, progress=seen.append)
    assert seen == [240, 250]
    whole = Retargeter(g1).retarget(clip)
    for name in ("joint_positions", "root_positions", "root_quaternions", "contacts"):
        np.testing.assert_allclose(getattr(result.motion, name), getattr(whole, name), atol=1e-12)
    assert result.counts.velocity_clamps == result.counts.acceleration_clamps == 0


def test_limits_hold_and_what_they_changed_is_counted(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    wild = random_clip(frames=40, frame_rate=4.0)  # resampled to 30 FPS; made slow, it is told to last 1.3 s
    wild = MotionClip(wild.rotations[::3], wild.root_positions[::3], 30.0)
    free, kept = clip_to_robot(g1, wild, limited=False), clip_to_robot(g1, wild)
    speeds = [np.abs(np.diff(result.motion.joint_positions, axis=0)) * 30 for result in (free, kept)]
    assert (speeds[0] > g1.velocity_limits).any() or kept.counts.acceleration_clamps > 0
    assert (speeds[1] <= g1.velocity_limits * (1 + 1e-9)).all()
    assert kept.counts.velocity_clamps + kept.counts.acceleration_clamps > 0


def test_the_report_is_of_hands_feet_and_soles(g1: Robot) -> None:
    standing = MotionClip(np.tile(np.eye(3), (30, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (30, 1)))
    result = clip_to_robot(g1, standing)
    assert 0 <= result.foot_error_cm < 2
    assert 0 <= result.hand_error_cm < 5
    assert result.slip_cm_s < 0.1


def test_other_rates_are_resampled_and_nothing_is_refused(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    result = clip_to_robot(g1, random_clip(frames=41, frame_rate=120.0))
    assert len(result.motion) == 11
    assert result.motion.frame_rate == 30.0
    with pytest.raises(MotionDataError, match="no frames"):
        clip_to_robot(g1, random_clip(frames=40).sliced(0, 0))


def test_one_frame_is_enough(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    assert len(clip_to_robot(g1, random_clip(frames=40).sliced(0, 1)).motion) == 1
