"""A whole clip to a robot: as the stream does it, within limits, with a report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.clip_to_robot import clip_to_robot
from llamo_ros.retarget.body_part import BodyPart, joints_of
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


def test_the_root_keeps_its_limits_too(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    walk = random_clip(frames=60)
    roots = walk.root_positions.copy()
    roots[30:, 0] += 2.0  # a jump to the side
    torn = MotionClip(walk.rotations, roots, walk.frame_rate)
    free, kept = clip_to_robot(g1, torn, limited=False), clip_to_robot(g1, torn)
    speeds = [np.linalg.norm(np.diff(r.motion.root_positions, axis=0), axis=1).max() * 30 for r in (free, kept)]
    assert speeds[0] > g1.root_limits.speed >= speeds[1] - 1e-6
    assert kept.root_counts.speed_clamps > 0
    assert free.root_counts.speed_clamps == 0


@pytest.mark.parametrize("limited", [True, False])
def test_a_part_of_the_body_follows_alone(g1: Robot, random_clip: Callable[..., MotionClip], limited: bool) -> None:
    clip = random_clip(frames=60)
    for part in (BodyPart.UPPER, BodyPart.LEGS):
        result, others = clip_to_robot(g1, clip, limited, part=part), ~joints_of(g1, part)
        np.testing.assert_allclose(result.motion.joint_positions[:, others], np.tile(g1.standing[others], (60, 1)))
        assert np.ptp(result.motion.joint_positions[:, ~others], axis=0).max() > 0.1
        assert np.isnan(result.hand_error_cm) == (part is BodyPart.LEGS)
        assert np.isnan(result.foot_error_cm) == (part is BodyPart.UPPER)


@pytest.mark.parametrize("limited", [True, False])
def test_a_base_that_is_bolted_down_stays(g1: Robot, random_clip: Callable[..., MotionClip], limited: bool) -> None:
    motion = clip_to_robot(g1, random_clip(frames=300), limited, has_fixed_base=True).motion
    assert np.ptp(motion.root_positions, axis=0).max() == 0 and np.ptp(motion.root_quaternions, axis=0).max() == 0
