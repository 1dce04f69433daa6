"""IsaacLab's order of joints and bodies, and the motion of every body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from llamo_ros.core.errors import RobotError, ShapeError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.resampling import RobotTrajectory, resampled
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.retarget.robot import robot_from_urdf
from llamo_ros.retarget.tracker_motion import isaac_order, tracker_motion

# Unitree G1 with 29 joints: URDF index of each joint in IsaacLab's order, as TextOp writes it out.
G1_PERMUTATION = [
    *(0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10),
    *(16, 23, 5, 11, 17, 24, 18, 25, 19, 26, 20, 27, 21, 28),
]
# IsaacLab bodies that BeyondMimic and SONIC name: SONIC's metadata lists them by these numbers.
G1_BODIES = {0: "pelvis", 4: "left_hip_roll_link", 10: "left_knee_link", 18: "left_ankle_roll_link", 9: "torso_link"}

TREE = """<robot name="tree"><link name="root"/><link name="plate"/><link name="a"/><link name="b"/><link name="c"/>
<link name="d"/><link name="tip"/>
<joint name="to_a" type="revolute"><parent link="root"/><child link="a"/><axis xyz="0 0 1"/>
  <origin xyz="0 0.1 0.2" rpy="0.3 0 0"/><limit lower="-2" upper="2" velocity="3"/></joint>
<joint name="to_c" type="revolute"><parent link="a"/><child link="c"/><axis xyz="0 1 0"/>
  <origin xyz="0.2 0 0"/><limit lower="-2" upper="2" velocity="3"/></joint>
<joint name="to_plate" type="fixed"><parent link="root"/><child link="plate"/><origin xyz="0 0 0.5"/></joint>
<joint name="to_b" type="revolute"><parent link="plate"/><child link="b"/><axis xyz="1 0 0"/>
  <origin xyz="0 0 0.1"/><limit lower="-2" upper="2" velocity="3"/></joint>
<joint name="to_tip" type="fixed"><parent link="c"/><child link="tip"/></joint>
<joint name="to_d" type="prismatic"><parent link="tip"/><child link="d"/><axis xyz="1 0 0"/>
  <limit lower="-1" upper="1" velocity="3"/></joint></robot>"""


def test_the_g1_has_the_published_permutation(g1: Robot) -> None:
    order = isaac_order(g1.model)
    assert order.joints.tolist() == G1_PERMUTATION
    assert len(order.bodies) == 30
    assert {k: g1.model.link_names[order.bodies[k]] for k in G1_BODIES} == G1_BODIES


def test_fixed_links_are_no_level_of_their_own() -> None:
    model = robot_from_urdf(TREE)
    order = isaac_order(model)
    assert [model.joint_names[j] for j in order.joints] == ["to_a", "to_b", "to_c", "to_d"]
    assert [model.link_names[b] for b in order.bodies] == ["root", "a", "b", "c", "d"]


def test_bodies_move_as_their_poses_say(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    fine = 3000.0
    trajectory = resampled(Retargeter(g1).retarget(random_clip(frames=12)), fine)
    moving = tracker_motion(g1.model, trajectory)  # also more frames than are computed at once
    differences = (moving.body_positions[2:] - moving.body_positions[:-2]) * fine / 2
    # a path's acceleration may jump at the frames of the motion, by up to some 1000 m/s^2 in random motion
    np.testing.assert_allclose(differences, moving.body_linear_velocities[1:-1], atol=0.05)
    for body in (0, 9, 18, 29):
        turns = Rotation.from_quat(moving.body_quaternions[:, body][:, [1, 2, 3, 0]])
        spins = (turns[2:] * turns[:-2].inv()).as_rotvec() * fine / 2
        np.testing.assert_allclose(spins, moving.body_angular_velocities[1:-1, body], atol=0.2)
    signs = (moving.body_quaternions[1:] * moving.body_quaternions[:-1]).sum(axis=-1)
    assert (signs > 0).all()


def test_velocities_are_exact_for_sliding_joints_and_fixed_links_too() -> None:
    model = robot_from_urdf(TREE)
    rng = np.random.default_rng(0)
    q, q_rate, spin, speed = rng.normal(size=4), rng.normal(size=4), rng.normal(size=3), rng.normal(size=3)
    step = 1e-5
    times = np.array([-step, 0.0, step])[:, None]
    turns = Rotation.from_rotvec(times * spin) * Rotation.from_rotvec([0.3, -0.4, 1.0])
    motion = RobotMotion(model.joint_names, q + times * q_rate, times * speed, turns.as_quat(), np.zeros((3, 0)), 30.0)
    rates = [np.tile(value, (3, 1)) for value in (q_rate, speed, spin)]
    moving = tracker_motion(model, RobotTrajectory(motion, *rates))
    differences = (moving.body_positions[2] - moving.body_positions[0]) / (2 * step)
    np.testing.assert_allclose(differences, moving.body_linear_velocities[1], atol=1e-8)
    bodies = [Rotation.from_quat(frame[:, [1, 2, 3, 0]]) for frame in moving.body_quaternions]
    spins = (bodies[2] * bodies[0].inv()).as_rotvec() / (2 * step)
    np.testing.assert_allclose(spins, moving.body_angular_velocities[1], atol=1e-8)


def test_the_root_is_body_0_and_joints_are_reordered(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    trajectory = resampled(Retargeter(g1).retarget(random_clip(frames=8)), 50.0)
    moving = tracker_motion(g1.model, trajectory)
    np.testing.assert_allclose(moving.body_positions[:, 0], trajectory.motion.root_positions, atol=1e-12)
    np.testing.assert_allclose(moving.body_linear_velocities[:, 0], trajectory.root_linear_velocities, atol=1e-12)
    for column, name in enumerate(moving.joint_names):
        source = trajectory.motion.joint_names.index(name)
        np.testing.assert_array_equal(moving.joint_positions[:, column], trajectory.motion.joint_positions[:, source])


def test_another_robots_motion_is_refused(g1: Robot, random_clip: Callable[..., MotionClip]) -> None:
    trajectory = resampled(Retargeter(g1).retarget(random_clip(frames=8)), 50.0)
    with pytest.raises(RobotError, match="another robot"):
        tracker_motion(robot_from_urdf(TREE), trajectory)
    with pytest.raises(ShapeError, match="body_positions"):
        moving = tracker_motion(g1.model, trajectory)
        replace(moving, body_positions=moving.body_positions[:, 1:])
