"""Resampling: positions lie on one smooth path through the frames, and velocities are its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.resampling import RobotTrajectory, resampled
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion


def smooth_motion(frames: int = 31, rate: float = 30.0, speed: float = 1.0) -> RobotMotion:
    """Two joints, a root that moves and tumbles, and feet that come and go."""
    t = np.arange(frames) / rate
    joints = np.stack([np.sin(speed * t), 0.5 * np.cos(2 * speed * t)], axis=1)
    root = np.stack([0.8 * t, np.sin(speed * t), 0.9 + 0.1 * np.cos(3 * speed * t)], axis=1)
    turns = Rotation.from_euler("ZYX", np.stack([3 * speed * t, np.sin(2 * t), 0.5 * np.cos(t)], axis=1))
    contacts = np.stack([np.abs(np.sin(5 * t)), (np.arange(frames) // 7) % 2], axis=1)
    return RobotMotion(("a", "b"), joints, root, turns.as_quat(), contacts, rate)


@pytest.mark.parametrize("rate", [7.0, 30.0, 50.0, 120.0, 29.97])
def test_samples_lie_at_their_times_and_never_behind_the_last_frame(rate: float) -> None:
    motion = smooth_motion(frames=31)  # the last frame lies at 1 s
    result = resampled(motion, rate)
    assert result.motion.frame_rate == rate
    assert len(result) == int(np.floor(1.0 * rate + 1e-9)) + 1
    truth = np.sin(np.arange(len(result)) / rate)
    assert (
        np.abs(result.motion.joint_positions[:, 0] - truth).max() < 1e-4
    )  # at the ends paths go on straight: h^2 / 8 of a bend


def test_frames_that_coincide_are_kept() -> None:
    motion = smooth_motion()
    result = resampled(motion, 50.0).motion
    np.testing.assert_allclose(result.joint_positions[::5], motion.joint_positions[::3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.root_positions[::5], motion.root_positions[::3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.contacts[::5], motion.contacts[::3], rtol=0, atol=1e-12)
    ours, theirs = result.root_quaternions[::5], motion.root_quaternions[::3]
    np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=1)), 1.0, atol=1e-12)


def test_the_same_rate_changes_nothing_and_adds_velocities() -> None:
    motion = smooth_motion()
    result = resampled(motion, 30.0)
    np.testing.assert_allclose(result.motion.joint_positions, motion.joint_positions, rtol=0, atol=1e-14)
    t = np.arange(31) / 30
    assert np.abs(result.joint_velocities[3:-3, 0] - np.cos(t[3:-3])).max() < 1e-6  # fourth order away from the ends
    assert np.abs(result.root_linear_velocities[3:-3, 0] - 0.8).max() < 1e-12


def test_velocities_are_the_derivatives_of_the_positions() -> None:
    motion = smooth_motion(speed=3.0)
    fine = 30 * 4000.0  # finite differences over a 4000th of a frame: what is left is rounding and their own error
    path = resampled(motion, fine)
    middle = slice(1, -1)
    for values, velocities in (
        (path.motion.joint_positions, path.joint_velocities),
        (path.motion.root_positions, path.root_linear_velocities),
    ):
        differences = (values[2:] - values[:-2]) * fine / 2
        assert np.abs(differences - velocities[middle]).max() < 2e-4  # the second derivative jumps at frames
    turns = Rotation.from_quat(path.motion.root_quaternions)
    spins = (turns[2:] * turns[:-2].inv()).as_rotvec() * fine / 2  # left difference: world axes
    assert np.abs(spins - path.root_angular_velocities[middle]).max() < 2e-3


def test_velocities_have_no_jumps() -> None:
    path = resampled(smooth_motion(speed=3.0), 30 * 1000.0)
    for velocities in (path.joint_velocities, path.root_linear_velocities, path.root_angular_velocities):
        assert np.abs(np.diff(velocities, axis=0)).max() < 5e-3  # no acceleration here passes 150 per s^2


def test_a_uniform_turn_is_slerp() -> None:
    t = np.arange(10)
    motion = smooth_motion(frames=10)
    axis = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5])
    motion = replace(motion, root_quaternions=Rotation.from_rotvec(0.3 * t[:, None] * axis).as_quat())
    path = resampled(motion, 50.0)
    angles = Rotation.from_quat(path.motion.root_quaternions).magnitude()
    np.testing.assert_allclose(np.unwrap(angles), 0.3 * np.arange(len(path)) * 30 / 50, atol=1e-9)
    np.testing.assert_allclose(path.root_angular_velocities, np.tile(9.0 * axis, (len(path), 1)), atol=1e-9)


def test_quaternion_signs_do_not_matter_and_stay_continuous() -> None:
    motion = smooth_motion(speed=2.0)
    flipped = motion.root_quaternions * np.where(np.arange(31) % 2, -1.0, 1.0)[:, None]
    np.testing.assert_allclose(
        resampled(replace(motion, root_quaternions=flipped), 50.0).root_angular_velocities,
        resampled(motion, 50.0).root_angular_velocities,
        atol=1e-9,
    )
    quaternions = resampled(motion, 50.0).motion.root_quaternions
    assert ((quaternions[1:] * quaternions[:-1]).sum(axis=1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1.0, atol=1e-12)


def test_contacts_stay_between_swing_and_stance() -> None:
    contacts = resampled(smooth_motion(), 173.0).motion.contacts
    assert contacts.min() >= 0
    assert contacts.max() <= 1


def test_limits_hold_between_frames_too() -> None:
    motion = smooth_motion(speed=12.0)  # bends a lot between frames
    lower, upper = motion.joint_positions.min(axis=0), motion.joint_positions.max(axis=0)  # frames touch them
    free = resampled(motion, 1000.0).motion.joint_positions
    kept = resampled(motion, 1000.0, (lower, upper))
    assert (free > upper).any()  # otherwise this test shows nothing
    assert (kept.motion.joint_positions <= upper + 1e-12).all()
    assert (kept.motion.joint_positions >= lower - 1e-12).all()
    differences = np.diff(kept.motion.joint_positions, axis=0) * 1000
    middles = (kept.joint_velocities[1:] + kept.joint_velocities[:-1]) / 2
    assert np.abs(differences - middles).max() < 0.05  # of up to 12 rad/s: still the path's own derivative


def test_a_retargeted_walk_keeps_the_robots_limits(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    motion = Retargeter(g1).retarget(random_clip(frames=40))
    path = resampled(motion, 50.0, (g1.lower, g1.upper))
    assert (path.motion.joint_positions >= g1.lower - 1e-9).all()
    assert (path.motion.joint_positions <= g1.upper + 1e-9).all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_motions_work(frames: int) -> None:
    result = resampled(smooth_motion(frames=frames), 50.0)
    assert len(result) == {1: 1, 2: 2, 3: 4}[frames]
    assert np.isfinite(result.root_angular_velocities).all()
    if frames == 1:
        assert not result.joint_velocities.any()


def test_inputs_are_not_written() -> None:
    motion = smooth_motion()
    before = motion.joint_positions.copy()
    resampled(motion, 50.0, (np.full(2, -0.1), np.full(2, 0.1)))
    np.testing.assert_array_equal(motion.joint_positions, before)


@pytest.mark.parametrize("rate", [0.0, -30.0, np.nan, np.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ParameterError, match="frame_rate"):
        resampled(smooth_motion(), rate)


def test_motion_that_is_empty_or_broken_is_refused() -> None:
    with pytest.raises(MotionDataError, match="no frames"):
        resampled(smooth_motion(frames=0), 50.0)
    motion = smooth_motion()
    root = motion.root_positions.copy()
    root[4] = np.nan
    with pytest.raises(MotionDataError, match="frame 4"):
        resampled(replace(motion, root_positions=root), 50.0)
    with pytest.raises(ShapeError, match="joint_velocities"):
        RobotTrajectory(motion, np.zeros((31, 3)), np.zeros((31, 3)), np.zeros((31, 3)))
