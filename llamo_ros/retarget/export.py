"""Robot motion into files, by format: the one place that knows which formats there are, and at which rate they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.retarget.beyondmimic import CSV_RATE, save_beyondmimic_csv, save_beyondmimic_npz
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.resampling import TRACKER_RATE, RobotTrajectory, resampled
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.retarget.robot_file import save_robot_csv, save_robot_npz
from llamo_ros.retarget.sonic import save_sonic
from llamo_ros.retarget.tracker_motion import check_joints, tracker_motion

_HIGHEST_RATE = 1000.0  # [Hz]; no robot is commanded faster


@dataclass(frozen=True)
class ExportFormat:
    """A format of robot motion.

    Attributes:
        suffix: Suffix of its files; empty for a format that is a folder.
        rate: Frames per second unless another rate is asked for, [Hz].
        has_fixed_rate: Whether the format allows no other.
        write: Writes a trajectory of a robot.
    """

    suffix: str
    rate: float
    has_fixed_rate: bool
    write: Callable[[Robot, RobotTrajectory, Path], None]


FORMATS: Mapping[str, ExportFormat] = {
    "csv": ExportFormat(
        ".csv",
        FRAME_RATE,
        False,
        lambda robot, trajectory, path: save_robot_csv(trajectory, path),
    ),
    "npz": ExportFormat(
        ".npz",
        FRAME_RATE,
        False,
        lambda robot, trajectory, path: save_robot_npz(trajectory, path),
    ),
    "beyondmimic": ExportFormat(
        ".csv",
        CSV_RATE,
        False,
        lambda robot, trajectory, path: save_beyondmimic_csv(trajectory, path),
    ),
    "beyondmimic-npz": ExportFormat(
        ".npz",
        TRACKER_RATE,
        False,
        lambda robot, trajectory, path: save_beyondmimic_npz(tracker_motion(robot.model, trajectory), path),
    ),
    "sonic": ExportFormat(
        "",
        TRACKER_RATE,
        True,
        lambda robot, trajectory, path: save_sonic(tracker_motion(robot.model, trajectory), path),
    ),
}


def export_format(path: str | Path, name: str | None = None) -> str:
    """Name of the format to write a file in: the one asked for, or our own of the file's suffix; no suffix is SONIC's.

    Raises:
        ParameterError: no format has that name or suffix, or the suffix is that of another format.
    """
    suffix = Path(path).suffix.lower()
    if name is None:
        name = next((key for key, value in FORMATS.items() if value.suffix == suffix), None)
        if name is None:
            raise ParameterError(
                f"{str(path)!r} ends in {suffix!r}, expected .csv, .npz, or no suffix for a folder; or give a format: "
                f"{', '.join(FORMATS)}."
            )
    if name not in FORMATS:
        raise ParameterError(f"format {name!r} is unknown. Known formats: {', '.join(FORMATS)}.")
    wanted = FORMATS[name].suffix
    if wanted and suffix != wanted:
        raise ParameterError(f"format {name} is a file that ends in {wanted!r}, but {str(path)!r} does not.")
    if not wanted and suffix in {value.suffix for value in FORMATS.values() if value.suffix}:
        raise ParameterError(f"format {name} is a folder, but {str(path)!r} ends in {suffix!r}.")
    return name


def export_rate(name: str, rate: float | None = None) -> float:
    """Frames per second to write in this format, [Hz]: those asked for, or its own.

    Raises:
        ParameterError: the format has one rate only, which is another; or the rate would only fill the disk.
    """
    chosen = FORMATS[name]
    if rate is not None and rate > _HIGHEST_RATE:
        raise ParameterError(f"rate is {rate:g} Hz, expected at most {_HIGHEST_RATE:g}; the motion itself has 30.")
    if chosen.has_fixed_rate and rate not in (None, chosen.rate):
        raise ParameterError(f"format {name} is always at {chosen.rate:g} Hz, not {rate:g}; leave out the rate.")
    return chosen.rate if rate is None else float(rate)


def export_motion(
    robot: Robot, motion: RobotMotion, path: str | Path, name: str | None = None, rate: float | None = None
) -> RobotTrajectory:
    """Resample a robot's motion and write it.

    Args:
        robot: The robot; its position limits hold between the frames of the motion too.
        motion: What it is to do.
        path: File, or folder for SONIC.
        name: A name from :data:`FORMATS`; None chooses by the suffix.
        rate: Frames per second, [Hz]; None takes the format's own.

    Returns:
        What was written.

    Raises:
        ParameterError: the format, the suffix and the rate do not fit together.
        RobotError: the motion is of another robot.
        MotionDataError: the motion is empty or broken.
        MotionFileError: the file cannot be written.
    """
    name = export_format(path, name)
    check_joints(robot.model, motion.joint_names)
    trajectory = resampled(motion, export_rate(name, rate), (robot.lower, robot.upper))
    FORMATS[name].write(robot, trajectory, Path(path))
    return trajectory
