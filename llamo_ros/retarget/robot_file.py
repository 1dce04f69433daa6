"""Robot motion as comma-separated values: for spreadsheets, plots, and tools that play joint positions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from llamo_ros.core.errors import MotionFileError
from llamo_ros.retarget.retargeter import RobotMotion


def robot_csv_columns(motion: RobotMotion) -> list[str]:
    """Names of the columns, each with its unit: time, root pose, joint positions, foot contacts."""
    root = [f"root_{axis}_m" for axis in "xyz"] + [f"root_quaternion_{part}" for part in "xyzw"]
    contacts = [f"contact_{foot}" for foot in range(motion.contacts.shape[1])]
    return ["frame", "time_s", *root, *(f"{name}_rad" for name in motion.joint_names), *contacts]


def save_robot_motion(motion: RobotMotion, path: str | Path) -> None:
    """Write one line per frame: time, root pose in the ROS world (z up, xyzw), joint positions, foot contacts.

    The motion is kinematic and knows nothing of speed limits: the pose publisher drives robots, this file does not.

    Raises:
        MotionFileError: the file cannot be written.
    """
    times = np.arange(len(motion)) / motion.frame_rate
    rows = np.column_stack(
        [times, motion.root_positions, motion.root_quaternions, motion.joint_positions, motion.contacts]
    )
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(robot_csv_columns(motion))
            for frame, row in enumerate(rows):
                writer.writerow([frame, *(f"{value:.6f}" for value in row)])
    except OSError as error:
        raise MotionFileError(f"{path} cannot be written: {error.strerror}.") from error
