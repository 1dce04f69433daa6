from __future__ import annotations

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import ShapeError
from llamo_ros.motion.rotations import axis_angle_to_matrix, rotation_about_y
from llamo_ros.motion.skeleton import (
    JOINT_COUNT,
    JOINT_INDEX,
    JOINT_NAMES,
    LEVELS,
    MIRROR,
    OFFSETS,
    PARENTS,
    forward_kinematics,
)

EXACT = 1e-12  # double precision, sums of up to ten offsets of less than a metre


def random_pose(frames: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return axis_angle_to_matrix(generator.normal(size=(frames, JOINT_COUNT, 3))), generator.normal(size=(frames, 3))


def test_tables_have_one_entry_per_joint_and_parents_come_first() -> None:
    assert len(JOINT_NAMES) == len(PARENTS) == len(MIRROR) == len(OFFSETS) == JOINT_COUNT == len(set(JOINT_NAMES))
    assert PARENTS[0] == -1 and all(parent < joint for joint, parent in enumerate(PARENTS))


def test_levels_hold_each_joint_but_the_root_once_after_its_parent() -> None:
    seen = {0}
    for level in LEVELS:
        assert all(PARENTS[joint] in seen for joint in level)
        seen.update(level)
    assert seen == set(range(JOINT_COUNT)) and sum(map(len, LEVELS)) == JOINT_COUNT - 1


def test_mirror_swaps_left_and_right_names_and_keeps_the_tree() -> None:
    for joint, other in enumerate(MIRROR):
        swapped = JOINT_NAMES[joint].replace("left", "L").replace("right", "left").replace("L", "right")
        assert JOINT_NAMES[other] == swapped
        assert MIRROR[other] == joint
        assert joint == 0 or MIRROR[PARENTS[joint]] == PARENTS[other]


def test_rest_pose_stands_up_with_its_left_at_plus_x_and_its_toes_forward() -> None:
    rotations = np.broadcast_to(np.eye(3), (JOINT_COUNT, 3, 3))
    positions, _ = forward_kinematics(rotations, np.zeros(3))
    at = {name: positions[index] for name, index in JOINT_INDEX.items()}
    assert at["head"][1] > at["neck"][1] > at["pelvis"][1] > at["left_knee"][1] > at["left_ankle"][1]
    assert at["left_wrist"][0] > 0.5 and at["right_wrist"][0] < -0.5
    assert at["left_foot"][2] > at["left_ankle"][2] + 0.1
    assert abs(at["left_wrist"][1] - at["left_shoulder"][1]) < 0.05  # a T-pose: the arms are level


def test_bones_keep_their_length_in_any_pose() -> None:
    positions, _ = forward_kinematics(*random_pose())
    for joint in range(1, JOINT_COUNT):
        lengths = np.linalg.norm(positions[:, joint] - positions[:, PARENTS[joint]], axis=-1)
        np.testing.assert_allclose(lengths, np.linalg.norm(OFFSETS[joint]), atol=EXACT)


def test_turning_and_moving_the_root_turns_and_moves_all_joints() -> None:
    rotations, roots = random_pose()
    positions, world = forward_kinematics(rotations, roots)
    turn, shift = rotation_about_y(np.array(0.7)), np.array([1.0, 2.0, 3.0])
    rotations = rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    moved_positions, moved_world = forward_kinematics(rotations, roots @ turn.T + shift)
    np.testing.assert_allclose(moved_positions, positions @ turn.T + shift, atol=EXACT)
    np.testing.assert_allclose(moved_world, turn @ world, atol=EXACT)


def test_a_joint_moves_only_what_hangs_on_it() -> None:
    rotations, roots = random_pose(1)
    before, _ = forward_kinematics(rotations, roots)
    bent = rotations.copy()
    bent[:, JOINT_INDEX["left_knee"]] = np.eye(3)
    after, _ = forward_kinematics(bent, roots)
    moved = {JOINT_NAMES[joint] for joint in range(JOINT_COUNT) if not np.allclose(before[0, joint], after[0, joint])}
    assert moved == {"left_ankle", "left_foot"}


def test_torch_and_numpy_agree_on_any_leading_shape() -> None:
    rotations, roots = random_pose(6)
    expected, _ = forward_kinematics(rotations, roots)
    actual, _ = forward_kinematics(
        torch.from_numpy(rotations).reshape(2, 3, 22, 3, 3), torch.from_numpy(roots).reshape(2, 3, 3)
    )
    np.testing.assert_allclose(actual.reshape(6, 22, 3).numpy(), expected, atol=EXACT)


def test_wrong_shapes_are_refused() -> None:
    rotations, roots = random_pose()
    with pytest.raises(ShapeError, match="local_rotations"):
        forward_kinematics(rotations[:, :21], roots)
    with pytest.raises(ShapeError, match="root_positions"):
        forward_kinematics(rotations, roots[:-1])
