"""Reference motions of SONIC (GR00T whole-body control): one folder of tables for each motion, at 50 Hz.

Its C++ reader takes a folder of such folders. It skips the first line of each table and looks for the line of body
indices in ``metadata.txt``, so that everything else we say about the numbers stands in that file.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionFileError, ParameterError
from llamo_ros.retarget.number_table import read_table, write_table
from llamo_ros.retarget.resampling import TRACKER_RATE
from llamo_ros.retarget.tracker_motion import CONVENTIONS, TrackerMotion

FloatArray = NDArray[np.float64]

METADATA = "metadata.txt"
# File, attribute of TrackerMotion, how its columns are called, and the parts of each.
_TABLES = (
    ("joint_pos.csv", "joint_positions", "joint_{}", ""),
    ("joint_vel.csv", "joint_velocities", "joint_vel_{}", ""),
    ("body_pos.csv", "body_positions", "body_{}", "xyz"),
    ("body_quat.csv", "body_quaternions", "body_{}", "wxyz"),
    ("body_lin_vel.csv", "body_linear_velocities", "body_{}", "xyz"),
    ("body_ang_vel.csv", "body_angular_velocities", "body_{}", "xyz"),
)
_INDICES = re.compile(r"Body part indexes:\s*\[([0-9\s]*)\]")


def save_sonic(motion: TrackerMotion, folder: str | Path) -> None:
    """Write a motion as a folder; files of the same names in it are replaced.

    Raises:
        ParameterError: the motion is not at 50 Hz, which this format does not say and always is.
        MotionFileError: the folder cannot be made, or a file not written.
    """
    if motion.frame_rate != TRACKER_RATE:
        raise ParameterError(f"SONIC's motions are at {TRACKER_RATE:g} Hz, not {motion.frame_rate:g}; resample.")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MotionFileError(f"folder {folder} cannot be made: {error.strerror}.") from error
    for file_name, attribute, name, parts in _TABLES:
        values = getattr(motion, attribute)
        columns = [name.format(i) + f"_{part}" * bool(part) for i in range(values.shape[1]) for part in parts or [""]]
        write_table(folder / file_name, ",".join(columns), values.reshape(len(motion), -1))
    try:
        (folder / METADATA).write_text(_metadata(motion, folder.name), encoding="utf-8")
    except OSError as error:
        raise MotionFileError(f"{folder / METADATA} cannot be written: {error.strerror}.") from error


def load_sonic(folder: str | Path) -> TrackerMotion:
    """Read such a folder; where its metadata do not name joints and bodies, their numbers are their names.

    Raises:
        MotionFileError: a file is missing, is no such table, or does not fit the others.
    """
    folder = Path(folder)
    try:
        text = (folder / METADATA).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MotionFileError(f"{folder / METADATA} cannot be read. Give the folder of one motion.") from error
    found = _INDICES.search(text)
    if found is None:
        raise MotionFileError(f"{folder / METADATA} has no line of body part indexes.")
    arrays = {attribute: _read(folder / name, len(parts)) for name, attribute, _, parts in _TABLES}
    joints = _names(text, "Joint names:") or tuple(f"joint_{i}" for i in range(arrays["joint_positions"].shape[1]))
    bodies = _names(text, "Body names:") or tuple(f"body_{i}" for i in found[1].split())
    try:
        return TrackerMotion(joints, bodies, **arrays, frame_rate=TRACKER_RATE)
    except ValueError as error:
        raise MotionFileError(f"the files in {folder} do not fit together: {error}") from error


def _read(path: Path, parts: int) -> FloatArray:
    _, rows = read_table(path)
    if parts and rows.shape[1] % parts:
        raise MotionFileError(f"{path} has {rows.shape[1]} columns, expected {parts} for each body.")
    return rows.reshape(len(rows), -1, parts) if parts else rows


def _metadata(motion: TrackerMotion, name: str) -> str:
    indices = " ".join(str(i) for i in range(len(motion.body_names)))
    return (
        f"Metadata for: {name}\n{'=' * 30}\n\nBody part indexes:\n[{indices}]\n\nTotal timesteps: {len(motion)}\n\n"
        f"Rate: {motion.frame_rate:g} Hz\nConventions: {CONVENTIONS}\n"
        f"Joint names: {' '.join(motion.joint_names)}\nBody names: {' '.join(motion.body_names)}\n"
    )


def _names(text: str, label: str) -> tuple[str, ...]:
    lines = [line for line in text.splitlines() if line.startswith(label)]
    return tuple(lines[0][len(label) :].split()) if lines else ()
