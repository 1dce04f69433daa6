"""Robot motion in our own files: every number under its name, back as it was, and clear errors."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.resampling import RobotTrajectory, resampled
from llamo_ros.retarget.retargeter import Retargeter
from llamo_ros.retarget.robot_file import load_robot_csv, load_robot_npz, save_robot_csv, save_robot_npz

ARRAYS = ("joint_positions", "root_positions", "root_quaternions", "contacts")
VELOCITIES = ("joint_velocities", "root_linear_velocities", "root_angular_velocities")


@pytest.fixture
def trajectory(g1: Robot, random_clip: Callable[..., MotionClip]) -> RobotTrajectory:
    return resampled(Retargeter(g1).retarget(random_clip(frames=12)), 50.0)


def assert_same(first: RobotTrajectory, second: RobotTrajectory, tolerance: float) -> None:
    assert first.motion.joint_names == second.motion.joint_names
    assert first.motion.frame_rate == second.motion.frame_rate
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(first.motion, name), getattr(second.motion, name), rtol=0, atol=tolerance)
    for name in VELOCITIES:
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)


def test_every_column_holds_what_its_name_says(trajectory: RobotTrajectory, tmp_path: Path) -> None:
    save_robot_csv(trajectory, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    motion = trajectory.motion
    assert [float(row["time_s"]) for row in rows] == pytest.approx([k / 50 for k in range(len(motion))], abs=1e-9)
    columns = {f"{name}_rad": motion.joint_positions[:, j] for j, name in enumerate(motion.joint_names)}
    columns |= {f"{name}_rad_s": trajectory.joint_velocities[:, j] for j, name in enumerate(motion.joint_names)}
    for k, axis in enumerate(("x_forward", "y_left", "z_up")):
        columns[f"root_{axis}_m"] = motion.root_positions[:, k]
    for k, axis in enumerate("xyz"):
        columns[f"root_world_velocity_{axis}_m_s"] = trajectory.root_linear_velocities[:, k]
        columns[f"root_world_spin_{axis}_rad_s"] = trajectory.root_angular_velocities[:, k]
    columns |= {f"root_quaternion_{part}": motion.root_quaternions[:, k] for k, part in enumerate("xyzw")}
    columns |= {f"contact_{k}": motion.contacts[:, k] for k in range(2)}
    assert set(columns) | {"frame", "time_s"} == set(rows[0])
    for name, values in columns.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, atol=1e-9)  # written with 9 decimals


def test_csv_comes_back_to_its_decimals(trajectory: RobotTrajectory, tmp_path: Path) -> None:
    save_robot_csv(trajectory, tmp_path / "x.csv")
    assert_same(load_robot_csv(tmp_path / "x.csv"), trajectory, 1e-9)


def test_npz_comes_back_exactly_and_says_what_it_holds(trajectory: RobotTrajectory, tmp_path: Path) -> None:
    save_robot_npz(trajectory, tmp_path / "x.npz")
    assert_same(load_robot_npz(tmp_path / "x.npz"), trajectory, 0.0)
    with np.load(tmp_path / "x.npz") as archive:
        assert "quaternions x y z w" in str(archive["conventions"])
        assert tuple(archive["joint_names"]) == trajectory.motion.joint_names


@pytest.mark.parametrize("save", [save_robot_csv, save_robot_npz])
def test_a_place_that_cannot_be_written_is_named(
    save: Callable[..., None], trajectory: RobotTrajectory, tmp_path: Path
) -> None:
    with pytest.raises(MotionFileError, match="cannot be written"):
        save(trajectory, tmp_path / "no" / "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "no first line"),
        ("1,2,3\n", "no first line"),
        ("frame,time_s,a_rad\n", "no rows"),
        ("frame,time_s,a_rad\n0,0\n", "columns"),
        ("frame,time_s,a_rad\n0,0,1\n", "columns"),
        ("frame,time_s\n0,x\n", "not a table"),
        ("frame,time_s\n0,nan\n", "NaN"),
    ],
)
def test_a_table_that_is_none_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(MotionFileError, match=message):
        load_robot_csv(tmp_path / "x.csv")


def test_an_archive_that_is_none_is_refused(trajectory: RobotTrajectory, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(MotionFileError, match="not a readable"):
        load_robot_npz(path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(MotionFileError, match="not a readable"):
        load_robot_npz(path)
    np.savez(path, joint_positions_rad=np.zeros((2, 2)))
    with pytest.raises(MotionFileError, match="has no llamo_robot_motion_version"):
        load_robot_npz(path)
    save_robot_npz(trajectory, path)
    with np.load(path) as archive:
        content = {key: archive[key] for key in archive.files if key != "contacts"}
    np.savez(path, **content)
    with pytest.raises(MotionFileError, match="contacts"):
        load_robot_npz(path)
