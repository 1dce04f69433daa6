"""Every robot that comes with the package follows the bench clips, and captured motion, inside its limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.catalogue import robot_names
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.retargeter import Retargeter


@pytest.fixture(params=robot_names())
def robot(request: pytest.FixtureRequest, load_any_robot: Callable[[str], Robot]) -> Robot:
    return load_any_robot(request.param)


@pytest.mark.parametrize("clip", ["walk", "squat"])
def test_hands_and_feet_are_where_the_humans_are(
    robot: Robot, clip: str, bench_clips: Path, benchmark_script: ModuleType, unhurried: Callable[[Robot], Robot]
) -> None:
    robot = unhurried(robot)
    positions, rotations, stance, rate = benchmark_script.read_clip(bench_clips / f"{clip}.npz")
    motion, _ = benchmark_script.retarget_clip(robot, positions, rotations, rate, passes=1)
    scores = score_motion(robot, motion, positions[..., [2, 0, 1]], stance)
    # H1 has neither waist pitch nor ankle roll, so its feet are up to 1.6 cm off in the squat; the others have 1 cm.
    assert max(scores[f"reach_{limb}_cm"] for limb in range(4)) < 2.0
    assert scores["slip_cm_s"] < 0.3 and scores["slipping"] < 0.02
    assert abs(scores["sole_min_cm"]) < 0.1 and abs(scores["sole_max_cm"]) < 0.1
    assert scores["outside_rad"] == 0.0


def test_captured_motion_stays_inside_the_limits(robot: Robot, clip_of_id: Callable[[str], MotionClip]) -> None:
    for sequence in ("cmu_02_01", "cmu_13_11", "cmu_49_02"):  # walk, jump, jump
        motion = Retargeter(robot).retarget(clip_of_id(sequence))
        assert np.isfinite(motion.joint_positions).all() and np.isfinite(motion.root_positions).all()
        assert (motion.joint_positions >= robot.lower).all() and (motion.joint_positions <= robot.upper).all()
