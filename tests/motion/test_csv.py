from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.csv import csv_columns, export_csv
from llamo_ros.motion.rotations import quaternion_wxyz_to_matrix


def test_table_holds_time_pelvis_and_all_joint_positions(random_clip: Callable, tmp_path: Path) -> None:
    clip = random_clip(0, frames=7, frame_rate=60.0)
    export_csv(clip, tmp_path / "clip.csv")
    with open(tmp_path / "clip.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == csv_columns() and len(set(header)) == len(header)
    table = np.array(rows, dtype=np.float64)
    assert table.shape == (7, 6 + 66)
    np.testing.assert_allclose(table[:, 1], np.arange(7) / 60.0, atol=1e-9)
    columns = [header.index(f"left_wrist_{axis}_m") for axis in "xyz"]
    np.testing.assert_allclose(table[:, columns], clip.joint_positions()[:, 20], atol=1e-6)  # six decimals
    columns = [header.index(f"pelvis_{axis}_m") for axis in "xyz"]
    np.testing.assert_allclose(table[:, columns], clip.root_positions, atol=1e-6)
    columns = [header.index(f"pelvis_quaternion_{part}") for part in "wxyz"]
    np.testing.assert_allclose(quaternion_wxyz_to_matrix(table[:, columns]), clip.rotations[:, 0], atol=1e-8)


def test_folder_that_does_not_exist_is_named(random_clip: Callable, tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match="no such folder.*cannot be written"):
        export_csv(random_clip(0), tmp_path / "no such folder" / "clip.csv")
