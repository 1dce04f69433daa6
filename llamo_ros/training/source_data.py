"""Source motion data, one sequence at a time: a folder with ``index.jsonl`` and the npz shards that its rows name.

``llamo data import`` writes this layout, ``llamo data pack`` reads it. A sequence keeps its integers as stored and
becomes a :class:`~llamo_ros.motion.clip.MotionClip` only when its ``clip`` is asked for. A shard holds ``rotvec_i16``
(N, 22, 3), local axis-angle rotations as int16, and ``trans`` (N, 3), pelvis positions in metres, float32; y up.

A row of the index has at least ``id``, ``kind``, ``split``, ``fps``, ``shard``, ``start``, ``length`` (frames),
``captions`` (``text``, ``start``, ``end``: seconds inside the sequence, null for all of it) and ``licence``.
"""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from llamo_ros.motion.skeleton import JOINT_COUNT

INDEX_NAME = "index.jsonl"
# Axis-angle is stored as int16: the full range is half a turn, so one unit is about 1e-4 rad.
RADIANS_PER_UNIT = np.pi / 32767
# Shards kept open while reading: rows of one shard need not stand together, and memory stays bounded.
_OPEN_SHARDS = 4
_REQUIRED = ("id", "kind", "split", "fps", "shard", "start", "length", "captions", "licence")


@dataclass(frozen=True)
class TimedCaption:
    """One caption of a sequence, exactly as written.

    Attributes:
        text: The caption, misspellings included.
        start: Where it begins inside the sequence, [s]; None if it describes the whole sequence.
        end: Where it ends, [s]; None if it describes the whole sequence.
    """

    text: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Sequence:
    """One row of the index with its motion.

    Attributes:
        id: Unique name, e.g. ``"002510"``, ``"bn_..."``.
        kind: Which data set it is of, e.g. ``h3d``, ``cmu_trial``, ``hdm05``, ``bandai``, or the name of an import.
        split: ``train``, ``val`` or ``test``.
        licence: Licence of motion and captions, as in the index.
        content: Label of what is done (Bandai, HDM05); empty where there is none.
        style: Label of how, or by whom, it is done (Bandai, HDM05); empty where there is none.
        timed_captions: The captions with their time spans.
        rotvec_i16: Local axis-angle rotations in units of ``RADIANS_PER_UNIT``, shape (T, 22, 3), int16.
        trans: Pelvis positions, shape (T, 3), [m].
        frame_rate: Frames per second, [Hz].
        row: The whole index row, for fields not named here (``trial``, ``source_file``, ``times_known``, ...).
    """

    id: str
    kind: str
    split: str
    licence: str
    content: str
    style: str
    timed_captions: tuple[TimedCaption, ...]
    rotvec_i16: NDArray[np.int16] = field(repr=False, compare=False)
    trans: NDArray[np.float32] = field(repr=False, compare=False)
    frame_rate: float
    row: Mapping[str, Any] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.trans)

    @property
    def captions(self) -> tuple[str, ...]:
        """Texts of all captions, those of a part of the sequence included."""
        return tuple(caption.text for caption in self.timed_captions)

    @property
    def clip(self) -> MotionClip:
        """The motion as a clip, converted anew at each call; its text is the first caption."""
        rotations = axis_angle_to_matrix(self.rotvec_i16.astype(np.float64) * RADIANS_PER_UNIT)
        text = self.captions[0] if self.timed_captions else ""
        return MotionClip(rotations, self.trans, frame_rate=self.frame_rate, text=text)


def stored_arrays(clip: MotionClip) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """A clip as a shard holds it: ``rotvec_i16`` (T, 22, 3), to 1e-4 rad, and ``trans`` (T, 3)."""
    rotvec = np.rint(matrix_to_axis_angle(clip.rotations) / RADIANS_PER_UNIT)
    return np.clip(rotvec, -32767, 32767).astype(np.int16), clip.root_positions.astype(np.float32)


def read_sequences(folder: str | Path, keep: Callable[[Mapping[str, Any]], bool] | None = None) -> Iterator[Sequence]:
    """Sequences of a source data folder, in the order of the index. A shard is read when a row of it is reached.

    Args:
        folder: Folder with ``index.jsonl`` and the npz shards it names.
        keep: Which index rows to read; all if None. Shards of rows that are not kept are never opened.

    Yields:
        One :class:`Sequence` for each kept row.

    Raises:
        DatasetError: the index or a shard is missing, damaged, or does not fit its row. The message names the row.
    """
    folder = Path(folder)
    shards: OrderedDict[str, tuple[NDArray[np.int16], NDArray[np.float32]]] = OrderedDict()
    for number, row in read_index(folder):
        if keep is not None and not keep(row):
            continue
        name = row["shard"]
        if name not in shards:
            if len(shards) == _OPEN_SHARDS:
                shards.popitem(last=False)
            shards[name] = _read_shard(folder / name)
        shards.move_to_end(name)
        rotvec, trans = shards[name]
        start, stop = row["start"], row["start"] + row["length"]
        if not 0 <= start < stop <= len(trans):
            raise DatasetError(
                f"{INDEX_NAME} line {number} ({row['id']}) names frames {start} to {stop} of {name}, "
                f"which has {len(trans)}. Index and shard are of different versions; copy both anew."
            )
        yield Sequence(
            id=row["id"],
            kind=row["kind"],
            split=row["split"],
            licence=row["licence"],
            content=row.get("content") or "",
            style=row.get("style") or "",
            timed_captions=tuple(TimedCaption(c["text"], c["start"], c["end"]) for c in row["captions"]),
            rotvec_i16=rotvec[start:stop],
            trans=trans[start:stop],
            frame_rate=float(row["fps"]),
            row=row,
        )


def sequence_count(folder: str | Path) -> int:
    """Number of rows of a folder's index, unchecked: what a progress bar counts up to.

    Raises:
        DatasetError: the index is missing.
    """
    path = Path(folder) / INDEX_NAME
    try:
        with open(path, "rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error}. Give the folder that holds {INDEX_NAME}.") from error


def read_index(folder: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and checked rows of a folder's index; no motion is read.

    Raises:
        DatasetError: the index is missing, or a row is malformed. The message names the line.
    """
    path = Path(folder) / INDEX_NAME
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _checked_row(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}. Give the folder that holds {INDEX_NAME}.") from error


def _checked_row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{place} is not JSON: {error}. Copy the file anew.") from error
    if problem := _problem(row):
        raise DatasetError(f"{place} {problem}. llamo_ros/training/source_data.py has the layout.")
    return row


def _problem(row: Any) -> str:
    """What is wrong with one index row; empty if nothing is."""
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}, expected an object"
    missing = [key for key in _REQUIRED if key not in row]
    if missing:
        return f"has no {', '.join(missing)}"
    wrong = [key for key in ("id", "kind", "split", "shard", "licence") if not isinstance(row[key], str)]
    wrong += [key for key in ("start", "length", "fps") if type(row[key]) not in (int, float)]
    wrong += [key for key in ("start", "length") if type(row[key]) is not int]
    if wrong:
        return f"has a value of the wrong type for {', '.join(dict.fromkeys(wrong))}"
    captions = row["captions"]
    if not isinstance(captions, list) or not all(
        isinstance(c, dict) and isinstance(c.get("text"), str) and {"start", "end"} <= c.keys() for c in captions
    ):
        return "has captions that are not a list of {text, start, end}"
    if Path(row["shard"]).name != row["shard"]:
        return f"names shard {row['shard']!r}, expected a file name without folders"
    return ""


def _read_shard(path: Path) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as shard:
            rotvec, trans = shard["rotvec_i16"], shard["trans"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"cannot read shard {path}: {error}. It should hold rotvec_i16 and trans.") from error
    if rotvec.dtype != np.int16 or rotvec.shape[1:] != (JOINT_COUNT, 3) or trans.shape != (len(rotvec), 3):
        raise DatasetError(
            f"shard {path} holds rotvec_i16 {rotvec.dtype} {rotvec.shape} and trans {trans.shape}, "
            "expected int16 (N, 22, 3) and (N, 3)."
        )
    rotvec.setflags(write=False)
    trans.setflags(write=False)
    return rotvec, trans
