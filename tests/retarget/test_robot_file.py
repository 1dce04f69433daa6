"""Robot motion as CSV: every number under its name, and a clear error where it cannot be written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.retargeter import Retargeter
from llamo_ros.retarget.robot_file import save_robot_motion


def test_every_column_holds_what_its_name_says(random_clip: Callable[..., MotionClip], tmp_path: Path) -> None:
    motion = Retargeter(load_robot("unitree_g1")).retarget(random_clip(frames=5))
    save_robot_motion(motion, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([frame / 30 for frame in range(5)], abs=1e-6)
    columns = {f"{name}_rad": motion.joint_positions[:, j] for j, name in enumerate(motion.joint_names)}
    columns |= {f"root_{axis}_m": motion.root_positions[:, k] for k, axis in enumerate("xyz")}
    columns |= {f"root_quaternion_{part}": motion.root_quaternions[:, k] for k, part in enumerate("xyzw")}
    for name, values in columns.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, atol=1e-6)  # written with 6 decimals


def test_a_place_that_cannot_be_written_is_named(random_clip: Callable[..., MotionClip], tmp_path: Path) -> None:
    motion = Retargeter(load_robot("unitree_g1")).retarget(random_clip(frames=4))
    with pytest.raises(MotionFileError, match="cannot be written"):
        save_robot_motion(motion, tmp_path / "no" / "x.csv")
