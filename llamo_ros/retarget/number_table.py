"""Tables of numbers as comma-separated text: one line for each frame, below one line that says what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionFileError

FloatArray = NDArray[np.float64]


def write_table(path: Path, first_line: str, rows: FloatArray) -> None:
    """Write ``first_line`` and then the rows (T, N), with 9 decimals.

    Raises:
        MotionFileError: the file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            np.savetxt(file, rows, fmt="%.9f", delimiter=",", header=first_line, comments="")
    except OSError as error:
        raise MotionFileError(f"{path} cannot be written: {error.strerror}.") from error


def read_table(path: Path, first_line: bool = True) -> tuple[str, FloatArray]:
    """Read the first line, and the rows (T, N) below it.

    Args:
        path: The file.
        first_line: Whether the file must begin with a line that is no numbers; False also accepts a file without one,
            and that line is then empty.

    Raises:
        MotionFileError: the file is missing, or holds anything else than rows of equally many finite numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MotionFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    head = lines[0] if lines and not _is_numbers(lines[0]) else ""
    if first_line and not head:
        raise MotionFileError(f"{path} has no first line that names its columns.")
    body = lines[1:] if head else lines
    try:
        rows = np.array([[float(word) for word in line.split(",")] for line in body if line.strip()])
    except ValueError as error:
        raise MotionFileError(f"{path} is not a table of numbers: {error}.") from error
    if rows.ndim != 2:
        raise MotionFileError(f"{path} has no rows of numbers.")
    if not np.isfinite(rows).all():
        raise MotionFileError(f"{path} holds NaN or infinite values.")
    return head, rows


def _is_numbers(line: str) -> bool:
    try:
        return bool([float(word) for word in line.split(",")])
    except ValueError:
        return False
