"""Bodies: shapes follow joints and links, in the ROS world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import to_ros_world
from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.retargeter import Retargeter
from llamo_ros.viewer.bodies import LEFT, RIGHT, human_body, robot_body


def test_limbs_of_the_person_end_at_the_joints(random_clip: Callable[..., MotionClip]) -> None:
    clip = random_clip(seed=3)
    body = human_body(clip)
    joints = to_ros_world(clip.joint_positions())[0]
    for start, end in (("left_shoulder", "left_elbow"), ("right_knee", "right_ankle"), ("left_hip", "left_knee")):
        link = JOINT_INDEX[start]
        part = next(part for part in body.parts if part.link == link)
        axis = body.rotations[:, link] @ part.rotation[:, 2] * 0.5 * part.size[2]
        centre = body.positions[:, link] + body.rotations[:, link] @ part.centre
        # Exact up to rounding of rotation matrices.
        np.testing.assert_allclose(centre - axis, joints[:, link], atol=1e-9)
        np.testing.assert_allclose(centre + axis, joints[:, JOINT_INDEX[end]], atol=1e-9)


def test_left_limbs_and_right_limbs_have_their_colours(random_clip: Callable[..., MotionClip]) -> None:
    body = human_body(random_clip())
    for joint, colour in (("left_elbow", LEFT), ("left_knee", LEFT), ("right_elbow", RIGHT), ("right_hip", RIGHT)):
        assert {part.colour for part in body.parts if part.link == JOINT_INDEX[joint]} == {colour}


def test_a_robot_without_simple_shapes_is_drawn_as_rods(random_clip: Callable[..., MotionClip]) -> None:
    robot = load_robot("unitree_g1")
    motion = Retargeter(robot).retarget(random_clip(frames=4))
    shaped = robot_body(motion, robot)
    meshes = robot.description.replace("<box", "<mesh").replace("<cylinder", "<mesh").replace("<sphere", "<mesh")
    rods = robot_body(motion, replace(robot, description=meshes))
    assert {part.kind for part in rods.parts} == {"capsule"}
    np.testing.assert_array_equal(rods.positions, shaped.positions)
    # Rods go from link to link, so they reach as far up as the shapes, but for head and hands.
    assert 0.6 * shaped.top < rods.top <= shaped.top + 0.1


def test_a_motion_of_another_robot_is_refused(random_clip: Callable[..., MotionClip]) -> None:
    robot = load_robot("unitree_g1")
    motion = Retargeter(robot).retarget(random_clip(frames=4))
    with pytest.raises(ParameterError, match="retargeted"):
        robot_body(replace(motion, joint_names=motion.joint_names[::-1]), robot)


def test_a_time_picks_the_nearest_frame_and_never_one_outside(random_clip: Callable[..., MotionClip]) -> None:
    body = human_body(random_clip(frames=10, frame_rate=20.0))
    assert [body.frame_at(time_s) for time_s in (-1.0, 0.0, 0.024, 0.026, 0.45, 9.0)] == [0, 0, 0, 1, 9, 9]
