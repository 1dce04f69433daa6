"""Motion files of BeyondMimic (whole_body_tracking): the CSV that its converter reads, and the NPZ that it trains on.

The converter plays the CSV in Isaac Sim to get the NPZ. Writing the NPZ here needs no simulator, but it holds
velocities of the link frames' origins where a recording of IsaacLab holds those of the centres of mass.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from llamo_ros.core.errors import MotionFileError, ParameterError
from llamo_ros.retarget.number_table import read_table, write_table
from llamo_ros.retarget.resampling import RobotTrajectory
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.retarget.robot_file import read_archive, write_archive
from llamo_ros.retarget.tracker_motion import CONVENTIONS, TrackerMotion

CSV_RATE = 30.0  # [Hz]; what the converter assumes unless it is told otherwise
_ROOT = ("root_x", "root_y", "root_z", "root_qx", "root_qy", "root_qz", "root_qw")
_RATE = re.compile(r"rate ([0-9.]+) Hz")
_COLUMNS = "columns: "
_ARRAYS = {
    "joint_pos": "joint_positions",
    "joint_vel": "joint_velocities",
    "body_pos_w": "body_positions",
    "body_quat_w": "body_quaternions",
    "body_lin_vel_w": "body_linear_velocities",
    "body_ang_vel_w": "body_angular_velocities",
}


def save_beyondmimic_csv(trajectory: RobotTrajectory, path: str | Path) -> None:
    """Write root position, root quaternion xyzw and joints, in the order of the robot's description (URDF).

    The first line is a comment, which NumPy skips and the converter with it: rate, frame, units, names of the columns.

    Raises:
        MotionFileError: the file cannot be written.
    """
    motion = trajectory.motion
    comment = (
        f"# rate {motion.frame_rate:g} Hz; world x forward, y left, z up; metres, radians; quaternion x y z w; "
        f"{_COLUMNS}{','.join((*_ROOT, *motion.joint_names))}"
    )
    rows = np.concatenate([motion.root_positions, motion.root_quaternions, motion.joint_positions], axis=1)
    write_table(Path(path), comment, rows)


def load_beyondmimic_csv(
    path: str | Path, joint_names: tuple[str, ...] | None = None, frame_rate: float | None = None
) -> RobotMotion:
    """Read such a file, ours or one without a comment (as Unitree's retargeted LAFAN1); it holds no contacts.

    Args:
        path: The file.
        joint_names: Names of its joint columns, where the file does not say them.
        frame_rate: Its frame rate, [Hz], where the file does not say it; None then takes 30.

    Raises:
        MotionFileError: the file is missing or is no such table.
        ParameterError: the file does not name its joints and ``joint_names`` is None.
    """
    comment, rows = read_table(Path(path), first_line=False)
    rate, names = _RATE.search(comment), comment.partition(_COLUMNS)[2]
    if names:
        joint_names = tuple(names.split(",")[len(_ROOT) :])
    if joint_names is None:
        raise ParameterError(f"{path} does not name its joints; give joint_names, in the order of its columns.")
    if rows.shape[1] != len(_ROOT) + len(joint_names):
        raise MotionFileError(
            f"{path} has {rows.shape[1]} columns, expected 7 of the root and {len(joint_names)} joints."
        )
    frame_rate = float(rate[1]) if rate else CSV_RATE if frame_rate is None else frame_rate
    return RobotMotion(joint_names, rows[:, 7:], rows[:, :3], rows[:, 3:7], np.zeros((len(rows), 0)), frame_rate)


def save_beyondmimic_npz(motion: TrackerMotion, path: str | Path) -> None:
    """Write the archive that BeyondMimic trains on, in single precision as it has it.

    Keys: ``fps`` (1,), ``joint_pos`` and ``joint_vel`` (T, J), ``body_pos_w`` (T, B, 3), ``body_quat_w`` (T, B, 4),
    ``body_lin_vel_w`` and ``body_ang_vel_w`` (T, B, 3); ``joint_names``, ``body_names``, ``conventions``.

    Raises:
        MotionFileError: the file cannot be written.
    """
    arrays = {key: getattr(motion, name).astype(np.float32) for key, name in _ARRAYS.items()}
    names = {"joint_names": np.array(motion.joint_names), "body_names": np.array(motion.body_names)}
    fps = np.array([int(motion.frame_rate) if motion.frame_rate.is_integer() else motion.frame_rate])
    write_archive(path, {"fps": fps, **arrays, **names, "conventions": np.array(CONVENTIONS)})


def load_beyondmimic_npz(path: str | Path) -> TrackerMotion:
    """Read such an archive; one that does not name joints and bodies gets their numbers for names.

    Raises:
        MotionFileError: the file is missing, or an array is missing or has another shape.
    """
    content = read_archive(path)
    try:
        arrays = {name: content[key] for key, name in _ARRAYS.items()}
        names = {
            "joint_names": content.get("joint_names", [f"joint_{i}" for i in range(content["joint_pos"].shape[1])]),
            "body_names": content.get("body_names", [f"body_{i}" for i in range(content["body_pos_w"].shape[1])]),
        }
        return TrackerMotion(
            **{key: tuple(str(name) for name in value) for key, value in names.items()},
            **arrays,
            frame_rate=float(np.ravel(content["fps"])[0]),
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise MotionFileError(f"{path} is not a BeyondMimic motion: {error}.") from error
