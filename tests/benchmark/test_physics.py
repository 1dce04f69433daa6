"""Played motion: gains, the smooth path, the held robot, and what is counted as saturated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llamo_ros.benchmark.mujoco_robot import to_qpos
from llamo_ros.benchmark.physics import (
    SETTLING,
    STEP,
    HeldRobot,
    Played,
    motors_of,
    pd_gains,
    read_physics,
    scores_of,
    smooth_path,
    urdf_torque_limits,
)
from llamo_ros.core.errors import ParameterError, RobotError, ShapeError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.profile import load_robot

FACTS = config_path("benchmark", "unitree_g1_physics.yaml")
URDF = config_path("robots", "unitree_g1.urdf")


@pytest.fixture(scope="module")
def held(g1_mjcf: Path) -> HeldRobot:
    return HeldRobot(g1_mjcf, read_physics(FACTS), urdf_torque_limits(g1_mjcf.with_suffix(".urdf")))


def standing(held: HeldRobot, frames: int = 60) -> np.ndarray:
    robot = load_robot("unitree_g1")
    joints, root = np.tile(robot.standing, (frames, 1)), np.tile([0.0, 0.0, 0.8], (frames, 1))
    turned = np.tile([0.0, 0.0, 0.0, 1.0], (frames, 1))
    return to_qpos(robot.joint_names, joints, root, turned, held.motors.joint_names)


def played(demanded: np.ndarray, errors: np.ndarray, limits: list[float]) -> Played:
    reference = np.zeros((len(demanded), 7 + len(limits)))
    reached = reference.copy()
    reached[:, 7:] = errors
    names = tuple(f"joint{number}" for number in range(len(limits)))
    return Played(names, reference, np.zeros((len(demanded), 8)), reached, demanded, demanded, np.array(limits))


def test_gains_make_an_oscillator_of_that_frequency_and_damping() -> None:
    stiffness, damping = pd_gains(np.array([0.01]), frequency=10.0, damping_ratio=2.0)
    roots = np.roots([0.01, damping[0], stiffness[0]])
    omega = 2 * np.pi * 10
    np.testing.assert_allclose(roots.prod(), omega**2)
    np.testing.assert_allclose(-roots.sum(), 2 * 2.0 * omega)
    with pytest.raises(ParameterError, match="frequency 0"):
        pd_gains(np.array([0.01]), 0.0, 2.0)


def test_the_g1_has_the_gains_and_limits_of_its_source() -> None:
    names = load_robot("unitree_g1").joint_names
    motors = motors_of(read_physics(FACTS), names, urdf_torque_limits(URDF))
    stiffness, limits = (
        dict(zip(names, motors.stiffness, strict=True)),
        dict(zip(names, motors.torque_limits, strict=True)),
    )
    for joint, value in {  # N m/rad, as BeyondMimic's configuration evaluates
        "left_hip_pitch_joint": 40.179, "right_knee_joint": 99.098, "left_ankle_roll_joint": 2 * 14.2506,
        "waist_yaw_joint": 40.179, "waist_pitch_joint": 2 * 14.2506, "right_elbow_joint": 14.2506,
        "left_wrist_yaw_joint": 16.778,
    }.items():  # fmt: skip
        assert stiffness[joint] == pytest.approx(value, rel=1e-4), joint
    assert limits["left_ankle_pitch_joint"] == 35 and limits["right_wrist_yaw_joint"] == 5


def test_a_joint_without_motor_or_limit_is_named() -> None:
    facts = read_physics(FACTS)
    with pytest.raises(RobotError, match="'tail_joint' has 0 motors"):
        motors_of(facts, ["tail_joint"], {"tail_joint": 1.0})
    with pytest.raises(RobotError, match="'left_knee_joint' has 1 motors and torque limit None"):
        motors_of(facts, ["left_knee_joint"], {})


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("motors: {}\n")
    with pytest.raises(RobotError, match="has no armatures, damping_ratio, natural_frequency, shapes"):
        read_physics(tmp_path / "part.yaml")
    with pytest.raises(RobotError, match="cannot be read"):
        read_physics(tmp_path / "none.yaml")
    with pytest.raises(RobotError, match="See --urdf"):
        urdf_torque_limits(tmp_path / "none.urdf")


def test_the_path_goes_through_all_frames_without_jumps_of_acceleration() -> None:
    random, rate = np.random.default_rng(0), 50.0
    frames = np.cumsum(random.normal(size=(9, 10)), axis=0)
    frames[:, 3:7] = [1.0, 0, 0, 0]
    frames[4, 3:7] *= -1  # the same orientation
    path = smooth_path(frames, rate)
    assert len(path) == 8 * 20 + 1
    np.testing.assert_allclose(path[::20, 7:], frames[:, 7:], atol=1e-12)
    np.testing.assert_allclose(path[:, 3:7], np.tile([1.0, 0, 0, 0], (161, 1)), atol=1e-12)
    bends = np.diff(path[:, 7:], n=2, axis=0)
    # A cubic's second difference changes by the same amount in each step; linear frames would jump within one.
    assert np.abs(np.diff(bends, axis=0)).max() < 0.1 * np.abs(bends).max()


def test_saturation_counts_joint_steps_that_ask_for_the_limit_or_more() -> None:
    settling = round(SETTLING / STEP)
    demanded = np.zeros((settling + 10, 2))
    demanded[:settling] = 100  # not counted
    demanded[settling : settling + 3, 0] = [10, -10, 9.99]  # two of three at the limit of 10
    demanded[-1, 1] = -60  # beyond 20
    errors = np.zeros_like(demanded)
    errors[settling:, 1] = 0.3
    scores = scores_of(played(demanded, errors, [10.0, 20.0]))
    assert scores["saturated"] == pytest.approx(3 / 20)
    assert scores["largest_torque"] == pytest.approx(3.0) and scores["largest_torque_joint"] == "joint1"
    assert scores["joints"]["joint0"]["saturated"] == pytest.approx(0.2)
    assert scores["needed_over"] == pytest.approx(1 / 20)  # only what is beyond
    assert scores["worst_joint"] == "joint1" and scores["joints"]["joint1"]["rms"] == pytest.approx(0.3)
    assert scores["error_rms"] == pytest.approx(0.3 / np.sqrt(2)) and scores["error_max"] == pytest.approx(0.3)
    with pytest.raises(ShapeError, match="the motion"):
        scores_of(played(demanded[:settling], errors[:settling], [10.0, 20.0]))


def test_a_held_robot_stays_on_its_reference_with_feedforward_and_sags_without(held: HeldRobot) -> None:
    qpos = standing(held)
    sagging, exact = (held.play(qpos, 30.0, feedforward) for feedforward in (False, True))
    assert scores_of(exact)["error_max"] < 1e-3 < scores_of(sagging)["error_max"]
    assert scores_of(exact)["root_off_mm"] < 1  # the weld gives way under the robot's weight, but little
    # What holds a posture is the gravity that inverse dynamics finds.
    np.testing.assert_allclose(exact.demanded[-1], exact.needed[-1], atol=0.1)


def test_a_root_that_is_thrown_up_costs_torque(held: HeldRobot) -> None:
    """The limbs feel the root's acceleration: with g upwards, holding a posture needs twice the torque."""
    rate, qpos = 30.0, standing(held)
    times = np.arange(len(qpos)) / rate
    qpos[:, 2] += 0.5 * 9.81 * times**2
    thrown, still = held.play(qpos, rate, True), held.play(standing(held), rate, True)
    middle = len(thrown.needed) // 2
    np.testing.assert_allclose(thrown.needed[middle], 2 * still.needed[middle], atol=0.05)
    assert scores_of(thrown)["error_max"] < 0.01


def test_torques_are_cut_at_the_limit(g1_mjcf: Path) -> None:
    weak = HeldRobot(g1_mjcf, read_physics(FACTS), dict.fromkeys(urdf_torque_limits(URDF), 0.5))
    scores = scores_of(weak.play(standing(weak), 30.0, True))
    assert scores["saturated"] > 0.05 and scores["largest_torque"] > 1 and scores["error_max"] > 0.1


def test_a_motion_of_another_width_is_refused(held: HeldRobot) -> None:
    with pytest.raises(ShapeError, match="qpos"):
        held.play(np.zeros((5, 12)), 30.0)
