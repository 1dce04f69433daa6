"""Our own files of robot motion: CSV for spreadsheets and plots, NPZ for programs. Both hold all of a trajectory.

ROS world: x forward, y left, z up; metres, radians, seconds; quaternions xyzw. Velocities are in world axes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionFileError
from llamo_ros.retarget.number_table import read_table, write_table
from llamo_ros.retarget.resampling import RobotTrajectory
from llamo_ros.retarget.retargeter import RobotMotion

FloatArray = NDArray[np.float64]

FORMAT_VERSION = 1
_VERSION_KEY = "llamo_robot_motion_version"
_CONVENTIONS = (
    "world: x forward, y left, z up; metres, radians, seconds; quaternions x y z w; velocities in world axes; "
    "columns of the joints as joint_names"
)
# After frame and time: the root, then the joints, then the feet.
_ROOT_POSITION = ("root_x_forward_m", "root_y_left_m", "root_z_up_m")
_ROOT_QUATERNION = tuple(f"root_quaternion_{part}" for part in "xyzw")
_ROOT_VELOCITY = tuple(f"root_world_velocity_{axis}_m_s" for axis in "xyz")
_ROOT_SPIN = tuple(f"root_world_spin_{axis}_rad_s" for axis in "xyz")
_ROOT = (*_ROOT_POSITION, *_ROOT_QUATERNION, *_ROOT_VELOCITY, *_ROOT_SPIN)
_POSITION_SUFFIX, _VELOCITY_SUFFIX, _CONTACT = "_rad", "_rad_s", "contact_"


def robot_csv_columns(motion: RobotMotion) -> list[str]:
    """Names of the columns, each with its unit and axis: time, root, joint positions and velocities, foot contacts."""
    joints = [name + suffix for suffix in (_POSITION_SUFFIX, _VELOCITY_SUFFIX) for name in motion.joint_names]
    contacts = [f"{_CONTACT}{foot}" for foot in range(motion.contacts.shape[1])]
    return ["frame", "time_s", *_ROOT, *joints, *contacts]


def save_robot_csv(trajectory: RobotTrajectory, path: str | Path) -> None:
    """Write one line per frame; the first line names the columns.

    Raises:
        MotionFileError: the file cannot be written.
    """
    motion, frames = trajectory.motion, np.arange(len(trajectory))
    rows = np.column_stack(
        [
            frames,
            frames / motion.frame_rate,
            motion.root_positions,
            motion.root_quaternions,
            trajectory.root_linear_velocities,
            trajectory.root_angular_velocities,
            motion.joint_positions,
            trajectory.joint_velocities,
            motion.contacts,
        ]
    )
    write_table(Path(path), ",".join(robot_csv_columns(motion)), rows)


def load_robot_csv(path: str | Path) -> RobotTrajectory:
    """Read what :func:`save_robot_csv` wrote.

    Raises:
        MotionFileError: the file is missing or has other columns.
    """
    head, rows = read_table(Path(path))
    names = head.split(",")
    joints = tuple(name.removesuffix(_VELOCITY_SUFFIX) for name in names[2 + len(_ROOT) :] if _is_velocity(name))
    contacts = [name for name in names if name.startswith(_CONTACT)]
    nothing = np.zeros((0, 0))
    expected = RobotMotion(joints, nothing, nothing, nothing, np.zeros((0, len(contacts))), 1.0)
    if names != robot_csv_columns(expected) or rows.shape[1] != len(names):
        raise MotionFileError(f"{path} does not have the columns of a robot's motion: frame, time_s, {_ROOT[0]}, ...")
    widths = (1, 1, 3, 4, 3, 3, len(joints), len(joints), len(contacts))
    parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    times = parts[1][:, 0]
    if len(times) < 2 or times[-1] <= times[0]:
        raise MotionFileError(f"{path} has {len(times)} frames; at least two at increasing times tell the frame rate.")
    rate = round((len(times) - 1) / (times[-1] - times[0]), 6)  # times have 9 decimals
    motion = RobotMotion(joints, parts[6], parts[2], parts[3], parts[8], rate)
    return RobotTrajectory(motion, parts[7], parts[4], parts[5])


def save_robot_npz(trajectory: RobotTrajectory, path: str | Path) -> None:
    """Write an archive in double precision; ``conventions`` in it says what the numbers mean.

    Keys: ``llamo_robot_motion_version`` (1), ``conventions``, ``joint_names`` (J,), ``frame_rate_hz``,
    ``joint_positions_rad`` and ``joint_velocities_rad_s`` (T, J), ``root_positions_m`` (T, 3),
    ``root_quaternions_xyzw`` (T, 4), ``root_linear_velocities_m_s`` and ``root_angular_velocities_rad_s`` (T, 3),
    ``contacts`` (T, F).

    Raises:
        MotionFileError: the file cannot be written.
    """
    motion = trajectory.motion
    write_archive(
        path,
        {
            _VERSION_KEY: np.array(FORMAT_VERSION),
            "conventions": np.array(_CONVENTIONS),
            "joint_names": np.array(motion.joint_names),
            "frame_rate_hz": np.array(motion.frame_rate),
            "joint_positions_rad": motion.joint_positions,
            "joint_velocities_rad_s": trajectory.joint_velocities,
            "root_positions_m": motion.root_positions,
            "root_quaternions_xyzw": motion.root_quaternions,
            "root_linear_velocities_m_s": trajectory.root_linear_velocities,
            "root_angular_velocities_rad_s": trajectory.root_angular_velocities,
            "contacts": motion.contacts,
        },
    )


def load_robot_npz(path: str | Path) -> RobotTrajectory:
    """Read what :func:`save_robot_npz` wrote.

    Raises:
        MotionFileError: the file is missing, is no such archive, or is of a newer version.
    """
    content = read_archive(path)
    version = content.get(_VERSION_KEY)
    if version is None or version != FORMAT_VERSION:
        found = "no" if version is None else str(version)
        raise MotionFileError(f"{path} has {found} {_VERSION_KEY}, expected {FORMAT_VERSION}.")
    try:
        motion = RobotMotion(
            tuple(str(name) for name in content["joint_names"]),
            content["joint_positions_rad"],
            content["root_positions_m"],
            content["root_quaternions_xyzw"],
            content["contacts"],
            float(content["frame_rate_hz"]),
        )
        velocities = ("joint_velocities_rad_s", "root_linear_velocities_m_s", "root_angular_velocities_rad_s")
        return RobotTrajectory(motion, *(content[key] for key in velocities))
    except (KeyError, ValueError, TypeError) as error:
        raise MotionFileError(f"{path} is not a complete robot motion: {error}.") from error


def write_archive(path: str | Path, content: dict[str, Any]) -> None:
    """Write a compressed archive under exactly this name.

    Raises:
        MotionFileError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:  # an open file, so that NumPy does not append a suffix to the name
            np.savez_compressed(file, **content)
    except OSError as error:
        raise MotionFileError(f"{path} cannot be written: {error.strerror}.") from error


def read_archive(path: str | Path) -> dict[str, Any]:
    """All arrays of an archive; objects (pickles) in it are never loaded.

    Raises:
        MotionFileError: the file is missing or is no archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array")
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MotionFileError(f"{path} is not a readable .npz archive: {error}.") from error


def _is_velocity(name: str) -> bool:
    return name.endswith(_VELOCITY_SUFFIX) and name not in _ROOT_SPIN
