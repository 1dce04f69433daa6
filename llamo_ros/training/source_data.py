"""Read the source motion data (``shared/data``): ``index.jsonl`` and its npz shards, one sequence at a time.

The folder's README has the layout. A sequence keeps its integers as stored and becomes a
:class:`~llamo_ros.motion.clip.MotionClip` only when its ``clip`` is asked for, so reading the index costs nothing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT

INDEX_NAME = "index.jsonl"
# Axis-angle is stored as int16: the full range is half a turn, so one unit is about 1e-4 rad.
RADIANS_PER_UNIT = np.pi / 32767
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
        kind: ``h3d``, ``cmu_trial``, ``hdm05`` or ``bandai``.
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


def read_sequences(folder: str | Path, keep: Callable[[Mapping[str, Any]], bool] | None = None) -> Iterator[Sequence]:
    """Sequences of a source data folder, in the order of the index. A shard is opened when its first row is reached.

    Args:
        folder: Folder with ``index.jsonl`` and the npz shards it names.
        keep: Which index rows to read; all if None. Shards of rows that are not kept are never opened.

    Yields:
        One :class:`Sequence` for each kept row.

    Raises:
        DatasetError: the index or a shard is missing, damaged, or does not fit its row. The message names the row.
    """
    folder = Path(folder)
    shards: dict[str, tuple[NDArray[np.int16], NDArray[np.float32]]] = {}
    for number, row in _index_rows(folder / INDEX_NAME):
        if keep is not None and not keep(row):
            continue
        name = row["shard"]
        if name not in shards:
            shards[name] = _read_shard(folder / name)
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


def _index_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}. Give the folder that holds {INDEX_NAME}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path} line {number} is not JSON: {error}. Copy the file anew.") from error
        problem = _problem(row)
        if problem:
            raise DatasetError(f"{path} line {number} {problem}. The data folder's README has the layout.")
        yield number, row


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
