"""The change between the core's y-up world and the ROS z-up world."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.core.errors import ShapeError
from llamo_ros.motion.frames import from_ros_world, to_ros_world
from llamo_ros.motion.rotations import axis_angle_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX, forward_kinematics


def asymmetric_pose() -> tuple[np.ndarray, np.ndarray]:
    """Joint positions and global rotations of a body facing +z: left arm straight ahead, right arm up, on a step."""
    local = np.zeros((JOINT_COUNT, 3))
    local[JOINT_INDEX["left_shoulder"]] = [0.0, -np.pi / 2, 0.0]  # about y: the left arm swings from +x to +z
    local[JOINT_INDEX["right_shoulder"]] = [0.0, 0.0, -np.pi / 2]  # about z: the right arm swings from -x to +y
    return forward_kinematics(axis_angle_to_matrix(local), np.array([0.3, 1.0, 2.0]))


def test_forward_left_and_up_are_x_y_and_z_in_ros() -> None:
    forward, left, up = to_ros_world(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))[0]
    np.testing.assert_array_equal([forward, left, up], np.eye(3))


def test_an_asymmetric_pose_keeps_its_sides_and_directions() -> None:
    positions, _ = to_ros_world(*asymmetric_pose())
    place = {name: positions[index] for name, index in JOINT_INDEX.items()}
    np.testing.assert_array_equal(place["pelvis"], [2.0, 0.3, 1.0])
    left_arm = place["left_wrist"] - place["left_shoulder"]
    right_arm = place["right_wrist"] - place["right_shoulder"]
    assert np.argmax(np.abs(left_arm)) == 0 and left_arm[0] > 0.4  # forward
    assert np.argmax(np.abs(right_arm)) == 2 and right_arm[2] > 0.4  # up
    assert place["left_hip"][1] > place["pelvis"][1] > place["right_hip"][1]
    assert place["left_foot"][0] > place["left_ankle"][0]  # toes point forward


def test_rotations_turn_converted_vectors_as_they_turned_the_originals() -> None:
    generator = np.random.default_rng(0)
    rotations = axis_angle_to_matrix(generator.normal(size=(7, 3)))
    vectors = generator.normal(size=(7, 3))
    turned = (rotations @ vectors[..., None])[..., 0]
    ros_vectors, ros_rotations = to_ros_world(vectors, rotations)
    expected, _ = to_ros_world(turned)
    np.testing.assert_allclose((ros_rotations @ ros_vectors[..., None])[..., 0], expected, atol=1e-15)  # sums reordered


def test_the_way_back_is_exact() -> None:
    positions, rotations = asymmetric_pose()
    back_positions, back_rotations = from_ros_world(*to_ros_world(positions, rotations))
    np.testing.assert_array_equal(back_positions, positions)
    np.testing.assert_array_equal(back_rotations, rotations)


@pytest.mark.parametrize("shape", [(), (4,), (3, 2)], ids=str)
def test_vectors_of_another_length_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="positions"):
        to_ros_world(np.zeros(shape))


def test_quaternions_in_place_of_matrices_are_refused() -> None:
    with pytest.raises(ShapeError, match="quaternions"):
        to_ros_world(np.zeros((2, 3)), np.zeros((2, 4)))
