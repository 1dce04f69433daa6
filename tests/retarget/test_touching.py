from __future__ import annotations

from dataclasses import replace

import numpy as np

from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.touching import TouchCounter


def test_a_hand_inside_a_thigh_is_counted_and_named() -> None:
    robot = load_robot("unitree_g1")
    counter = TouchCounter(robot)
    crossed = robot.standing.copy()
    for name, angle in (("left_hip_roll_joint", -0.4), ("right_hip_roll_joint", 0.4)):
        crossed[robot.model.joint_index(name)] = angle
    frames = np.stack([robot.standing, crossed, robot.standing])
    assert counter.look(frames).tolist() == [False, True, False]
    assert counter.frames == 1 and counter.deepest > 0.01
    assert all(name.startswith(("left_", "right_")) for name in counter.pair)
    assert str(counter).startswith("1 frames, up to ") and " and " in str(counter)
    deepest = counter.deepest
    counter.look(robot.standing[None])
    assert counter.frames == 1 and counter.deepest == deepest


def test_a_robot_without_capsules_touches_nothing() -> None:
    robot = replace(load_robot("unitree_g1"), capsules=(), capsule_pairs=np.zeros((0, 2), dtype=np.int64))
    counter = TouchCounter(robot)
    assert not counter.look(np.stack([robot.standing] * 2)).any()
    assert str(counter) == "none"
    assert counter.look(np.zeros((0, robot.model.joint_count))).shape == (0,)
