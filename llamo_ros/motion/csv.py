"""Motion as comma-separated values, for spreadsheets and plots. Export only: positions do not hold all of a motion."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import matrix_to_quaternion_wxyz
from llamo_ros.motion.skeleton import JOINT_NAMES


def csv_columns() -> list[str]:
    """Names of the columns, each with its unit: frame, time, pelvis orientation, then all joint positions."""
    orientation = [f"pelvis_quaternion_{part}" for part in "wxyz"]
    return ["frame", "time_s", *orientation, *(f"{joint}_{axis}_m" for joint in JOINT_NAMES for axis in "xyz")]


def export_csv(clip: MotionClip, path: str | Path) -> None:
    """Write one line per frame: time, orientation of the pelvis, and world positions of all 22 joints.

    y is up and lengths are metres. The first line names the columns; the root's position is that of the pelvis.
    Positions have 6 decimals (a micrometre), times and quaternions 9.

    Raises:
        MotionFileError: the file cannot be written.
    """
    positions = clip.joint_positions().reshape(len(clip), -1)
    orientations = matrix_to_quaternion_wxyz(clip.rotations[:, 0])
    times = np.arange(len(clip)) / clip.frame_rate
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(csv_columns())
            for frame in range(len(clip)):
                exact = [f"{value:.9f}" for value in (times[frame], *orientations[frame])]
                writer.writerow([frame, *exact, *(f"{value:.6f}" for value in positions[frame])])
    except OSError as error:
        raise MotionFileError(f"{path} cannot be written: {error.strerror}.") from error
