"""The root goes where the standing feet say, within its limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.rotations import quaternion_xyzw_to_matrix
from llamo_ros.retarget.profile import Robot, RootLimits
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.retarget.root_path import RootPath

RATE = 30.0


def soles(robot: Robot, joints: np.ndarray, positions: np.ndarray, quaternions: np.ndarray) -> np.ndarray:
    """Corners of the soles in the world, shape (T, F, C, 3)."""
    poses, root = robot.model.link_poses(joints), quaternion_xyzw_to_matrix(quaternions)
    corners = []
    for foot in robot.feet:
        link = robot.limbs[foot.limb].links[2]
        relative = poses.positions[:, None, link] + foot.sole @ np.swapaxes(poses.rotations[:, link], -1, -2)
        corners.append(positions[:, None] + relative @ np.swapaxes(root, -1, -2))
    return np.stack(corners, axis=1)


def stepping(robot: Robot, frames: int = 60) -> RobotMotion:
    """The root glides ahead and turns over a left foot that stands; the joints of that leg make up for it."""
    time = np.arange(frames) / RATE
    joints = np.tile(robot.standing, (frames, 1))
    joints[:, robot.joint_names.index("left_hip_pitch_joint")] += 0.2 * np.sin(2 * time)
    joints[:, robot.joint_names.index("left_knee_joint")] += 0.2 * np.sin(3 * time) ** 2
    joints[:, robot.joint_names.index("left_hip_yaw_joint")] += 0.2 * np.sin(2 * time)
    quaternions = np.tile([0.0, 0.0, 0.0, 1.0], (frames, 1))
    free = RobotMotion(
        robot.joint_names, joints, np.zeros((frames, 3)), quaternions, np.tile([1.0, 0.0], (frames, 1)), RATE
    )
    # make it a motion whose left foot stands, by the class under test itself, from joints that do not move
    still = replace(free, joint_positions=np.tile(joints[:1], (frames, 1)))
    positions, quaternions = RootPath(robot, RATE).follow(still, joints)
    return replace(free, root_positions=positions, root_quaternions=quaternions)


def in_chunks(path: RootPath, motion: RobotMotion, planned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [path.follow(motion.sliced(k, k + 4), planned[k : k + 4]) for k in range(0, len(motion), 4)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.fixture
def unlimited(g1: Robot) -> Robot:
    return replace(g1, root_limits=RootLimits(1e3, 1e6, 1e9, 1e3, 1e6))


def test_where_joints_do_as_meant_the_root_does_so_to_the_bit(g1: Robot) -> None:
    motion = stepping(g1)
    positions, quaternions = in_chunks(RootPath(g1, RATE), motion, motion.joint_positions)
    np.testing.assert_array_equal(positions, motion.root_positions)
    np.testing.assert_array_equal(quaternions, motion.root_quaternions)


def test_a_standing_foot_stays_though_its_leg_lags(unlimited: Robot) -> None:
    motion = stepping(unlimited)
    planned = np.concatenate([motion.joint_positions[:5], 0.7 * motion.joint_positions[5:] + 0.3 * unlimited.standing])
    positions, quaternions = in_chunks(RootPath(unlimited, RATE), motion, planned)
    foot = soles(unlimited, planned, positions, quaternions)[:, 0]
    assert np.abs(np.diff(foot.mean(axis=1)[:, :2], axis=0)).max() < 1e-9
    toes = foot[:, 2:].mean(axis=1) - foot[:, :2].mean(axis=1)
    assert np.ptp(np.unwrap(np.arctan2(toes[:, 1], toes[:, 0]))) < 1e-2  # heading; the sole also tilts a little
    left_alone = soles(unlimited, planned, motion.root_positions, motion.root_quaternions)[:, 0].mean(axis=1)
    assert np.ptp(left_alone[:, :2], axis=0).max() > 0.02  # the retargeted root would have dragged it


def test_no_sole_gets_under_the_floor(unlimited: Robot) -> None:
    motion = stepping(unlimited)
    meant = soles(unlimited, motion.joint_positions, motion.root_positions, motion.root_quaternions)[..., 2].min((1, 2))
    planned = np.tile(unlimited.standing, (len(motion), 1))
    positions, quaternions = in_chunks(RootPath(unlimited, RATE), motion, planned)
    np.testing.assert_allclose(soles(unlimited, planned, positions, quaternions)[..., 2].min((1, 2)), meant, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_roots_limits_hold_for_any_motion(g1: Robot, seed: int) -> None:
    generator = np.random.default_rng(seed)
    path, limits = RootPath(g1, RATE), g1.root_limits
    positions, quaternions, count = [], [], 0
    for _ in range(60):
        frames = int(generator.integers(1, 6))
        count += frames
        joints = generator.uniform(g1.lower, g1.upper, (frames, g1.model.joint_count))
        root = generator.normal(0.0, generator.choice([0.01, 3.0]), (frames, 3))
        turns = generator.normal(0.0, 1.0, (frames, 4)) * [0.3, 0.3, 1.0, 1.0]
        turns /= np.linalg.norm(turns, axis=1, keepdims=True)
        contacts = generator.integers(0, 2, (frames, 2)).astype(float)
        motion = RobotMotion(g1.joint_names, joints, root, turns, contacts, RATE)
        planned = joints if generator.random() < 0.5 else np.tile(g1.standing, (frames, 1))
        part = path.hold(planned) if generator.random() < 0.2 else path.follow(motion, planned)
        positions.append(part[0])
        quaternions.append(part[1])
        if generator.random() < 0.1:
            tail = path.tail(planned[-1:])
            later = np.concatenate([*[np.concatenate(tail, axis=1)]])
            path.resume(np.concatenate(positions), np.concatenate(quaternions), later, planned[-1], contacts[-1])
    place, turns = np.concatenate(positions), np.concatenate(quaternions)
    assert len(place) == len(turns) == count
    for order, limit in enumerate((limits.speed, limits.acceleration, limits.jerk), start=1):
        assert np.linalg.norm(np.diff(place, n=order, axis=0), axis=1).max() * RATE**order <= limit * (1 + 1e-6)
    heading = np.unwrap(2 * np.arctan2(turns[:, 2], turns[:, 3]))
    assert np.abs(np.diff(heading)).max() * RATE <= limits.turn_rate * (1 + 1e-6)
    assert np.abs(np.diff(heading, n=2)).max() * RATE**2 <= limits.turn_acceleration * (1 + 1e-6)
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1.0, atol=1e-12)
    assert ((turns[1:] * turns[:-1]).sum(axis=1) > 0).all()
    counts = path.counts
    assert min(counts.speed_clamps, counts.acceleration_clamps, counts.jerk_clamps, counts.turn_clamps) > 0
    assert counts.slides > 0


def test_a_motion_that_does_not_continue_is_taken_up_where_the_robot_is(unlimited: Robot) -> None:
    motion = stepping(unlimited)
    path = RootPath(unlimited, RATE)
    before = path.follow(motion.sliced(0, 20), motion.joint_positions[:20])
    elsewhere = replace(motion, root_positions=motion.root_positions + [3.0, -2.0, 0.0])
    after = path.follow(elsewhere.sliced(19), motion.joint_positions[19:], continues=False)
    np.testing.assert_allclose(after[0][0], before[0][-1], atol=1e-9)
    np.testing.assert_allclose(after[0], motion.root_positions[19:], atol=1e-9)


def test_a_fixed_base_does_not_move(g1: Robot) -> None:
    motion = stepping(g1)
    path = RootPath(g1, RATE, is_fixed=True)
    positions, quaternions = in_chunks(path, motion, motion.joint_positions)
    held = path.hold(motion.joint_positions[:3])
    for array in (positions, quaternions, np.concatenate([positions[:1], held[0]])):
        assert np.ptp(array, axis=0).max() == 0.0
    standing = soles(g1, g1.standing[None], positions[:1], quaternions[:1])
    assert abs(standing[..., 2].min()) < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root_positions": np.nan}, "not finite"),
        ({"root_positions": 1e6}, "farther"),
        ({"root_quaternions": 0.0}, "quaternion is zero"),
        ({"root_quaternions": np.inf}, "not finite"),
    ],
    ids=str,
)
def test_a_root_that_is_nonsense_is_refused(g1: Robot, change: dict[str, float], message: str) -> None:
    motion = stepping(g1, 8)
    (name, value), path = next(iter(change.items())), RootPath(g1, RATE)
    with pytest.raises(MotionDataError, match=message):
        path.follow(replace(motion, **{name: np.full_like(getattr(motion, name), value)}), motion.joint_positions)


def test_a_preview_of_the_tail_plans_nothing(g1: Robot) -> None:
    motion = stepping(g1)
    path, other = RootPath(g1, RATE), RootPath(g1, RATE)
    for each in (path, other):
        each.follow(motion.sliced(0, 30), motion.joint_positions[:30])
    path.tail(np.tile(g1.standing, (10, 1)))
    for one, two in zip(
        *(each.follow(motion.sliced(30), motion.joint_positions[30:]) for each in (path, other)), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def gliding(robot: Robot, frames: int = 40) -> RobotMotion:
    """The root glides ahead at 2 m/s and turns; joints stand still and no foot stands."""
    time = np.arange(frames) / RATE
    turn = 2.0 * time
    return RobotMotion(
        robot.joint_names,
        np.tile(robot.standing, (frames, 1)),
        np.stack([2.0 * time, 0 * time, 0.8 + 0 * time], axis=1),
        np.stack([0 * time, 0 * time, np.sin(turn / 2), np.cos(turn / 2)], axis=1),
        np.zeros((frames, len(robot.feet))),
        RATE,
    )


def test_a_root_that_still_moves_when_the_joints_rest_brakes_to_rest_as_its_tail_said(g1: Robot) -> None:
    robot = replace(g1, root_limits=RootLimits(1.5, 5.0, 100.0, 1.5, 10.0))
    motion, path = gliding(robot), RootPath(robot, RATE)
    before = path.follow(motion, motion.joint_positions)
    still = motion.joint_positions[-1:]
    tail = path.tail(np.repeat(still, 2, axis=0))
    assert np.abs(np.diff(tail[0][-2:], axis=0)).max() < 1e-9 and np.abs(np.diff(tail[1][-2:], axis=0)).max() < 1e-9
    held = [np.concatenate(rows) for rows in zip(*(path.hold(still) for _ in range(len(tail[0]) + 20)), strict=True)]
    count = len(tail[0])
    np.testing.assert_allclose(held[0], np.concatenate([tail[0], np.repeat(tail[0][-1:], 20, axis=0)]), atol=1e-9)
    np.testing.assert_allclose(held[1][:count], tail[1], atol=1e-9)
    positions = np.concatenate([before[0], held[0]])
    for order, limit in enumerate((1.5, 5.0, 100.0), start=1):
        assert np.linalg.norm(np.diff(positions, n=order, axis=0), axis=1).max() * RATE**order <= limit * (1 + 1e-6)
    # what comes next is taken up from there, not from where the root would have been
    positions, _ = path.follow(motion, motion.joint_positions)
    assert np.linalg.norm(positions[0] - held[0][-1]) < 0.01
