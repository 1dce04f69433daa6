from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.retarget.body_part import BodyPart, body_part, joints_of, restricted
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion


@pytest.fixture
def motion(g1: Robot) -> RobotMotion:
    generator = np.random.default_rng(0)
    quaternions = generator.normal(size=(6, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    joints = generator.uniform(g1.lower, g1.upper, (6, g1.model.joint_count))
    return RobotMotion(g1.joint_names, joints, generator.normal(size=(6, 3)), quaternions, np.zeros((6, 2)), 30.0)


def test_legs_are_the_joints_between_root_and_feet_and_the_upper_body_is_the_rest(g1: Robot) -> None:
    legs = [name for name, moves in zip(g1.joint_names, joints_of(g1, BodyPart.LEGS), strict=True) if moves]
    assert len(legs) == 12
    assert all(any(part in name for part in ("hip", "knee", "ankle")) for name in legs)
    np.testing.assert_array_equal(joints_of(g1, BodyPart.UPPER), ~joints_of(g1, BodyPart.LEGS))
    assert joints_of(g1, BodyPart.WHOLE).all()


@pytest.mark.parametrize("part", BodyPart)
def test_joints_outside_a_part_stand_and_those_inside_follow(g1: Robot, motion: RobotMotion, part: BodyPart) -> None:
    changed, inside = restricted(g1, motion, part), joints_of(g1, part)
    np.testing.assert_array_equal(changed.joint_positions[:, inside], motion.joint_positions[:, inside])
    assert (changed.joint_positions[:, ~inside] == g1.standing[~inside]).all()


def test_the_upper_body_alone_stands_upright_on_both_feet_where_the_motion_begins(
    g1: Robot, motion: RobotMotion
) -> None:
    changed = restricted(g1, motion, BodyPart.UPPER)
    np.testing.assert_array_equal(changed.root_positions[:, :2], np.tile(motion.root_positions[0, :2], (6, 1)))
    assert (changed.root_quaternions[:, :2] == 0).all()
    assert np.ptp(changed.root_quaternions, axis=0).max() == np.ptp(changed.root_positions, axis=0).max() == 0
    assert (changed.contacts == 1).all()


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    assert body_part("legs") is BodyPart.LEGS
    with pytest.raises(ParameterError, match="whole, upper, legs"):
        body_part("left arm")
