"""Captions that stand beside a motion collection: a CSV table of any collection, or BABEL's JSON files for AMASS."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from llamo_ros.core.errors import DatasetError
from llamo_ros.training.source_data import TimedCaption

_COLUMNS = ("file", "text", "start_s", "end_s", "take", "split", "content", "style")
_SPLITS = ("", "train", "val", "test")
# BABEL labels these too, but they say nothing of what is done.
_EMPTY_LABELS = ("", "transition", "unknown")


@dataclass
class FileTexts:
    """What a table says of one file.

    Attributes:
        captions: Captions; times are seconds inside the file.
        take: The recording it belongs to; empty: the file is a take of its own.
        split: ``train``, ``val``, ``test`` or empty.
        content: Label, or empty.
        style: Label, or empty.
    """

    captions: list[TimedCaption] = field(default_factory=list)
    take: str = ""
    split: str = ""
    content: str = ""
    style: str = ""


def file_key(path: str) -> str:
    """A file's path inside its collection, as tables name it: without suffix, with forward slashes."""
    name = PurePosixPath(path.strip().replace("\\", "/"))
    return str(name.with_suffix("") if name.suffix in (".bvh", ".npz", ".npy") else name).removeprefix("./")


def read_texts(path: str | Path) -> dict[str, FileTexts]:
    """Captions by :func:`file_key`, from a .csv table or BABEL's .json. The table is held in memory, motion is not.

    CSV columns: ``file`` and ``text``; may have ``start_s`` and ``end_s`` (empty: the whole file), ``take``, ``split``,
    ``content``, ``style``. A file may have several rows.

    Raises:
        DatasetError: the table cannot be read or is malformed; the message names the line.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".json":
            return _babel(json.loads(path.read_text(encoding="utf-8")), path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _table(csv.DictReader(file), path)
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise DatasetError(f"captions {path} cannot be read: {error}. Expected a .csv or BABEL .json file.") from error


def _table(rows: csv.DictReader[str], path: Path) -> dict[str, FileTexts]:
    columns = rows.fieldnames or []
    if not {"file", "text"} <= set(columns) or (unknown := set(columns) - set(_COLUMNS)):
        wrong = f"unknown columns {', '.join(sorted(unknown))}" if {"file", "text"} <= set(columns) else "no file, text"
        raise DatasetError(f"captions {path} have {wrong}. Columns: {', '.join(_COLUMNS)}; the first two are required.")
    found: dict[str, FileTexts] = {}
    for row in rows:
        place = f"captions {path} line {rows.line_num}"
        if None in row or None in row.values():
            raise DatasetError(f"{place}: expected {len(columns)} values. Put a text with commas between quotes.")
        if not row["file"].strip():
            raise DatasetError(f"{place} names no file.")
        texts = found.setdefault(file_key(row["file"]), FileTexts())
        for name in ("take", "split", "content", "style"):
            value = (row.get(name) or "").strip()
            if value and getattr(texts, name) not in ("", value):
                raise DatasetError(f"{place}: {row['file']} has {name} {value!r}, but {getattr(texts, name)!r} above.")
            setattr(texts, name, value or getattr(texts, name))
        if texts.split not in _SPLITS:
            raise DatasetError(f"{place}: split is {texts.split!r}, expected train, val, test or nothing.")
        start, end = (_seconds(row.get(name) or "", place) for name in ("start_s", "end_s"))
        if row["text"].strip():
            texts.captions.append(_caption(row["text"], start, end, place))
    return found


def _seconds(text: str, place: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DatasetError(f"{place}: time {text!r} is not a number of seconds from 0.")
    return value


def _caption(text: str, start: float | None, end: float | None, place: str) -> TimedCaption:
    if (start is None) != (end is None) or (start is not None and end is not None and end <= start):
        raise DatasetError(f"{place}: a caption goes from {start} to {end} s; give both with start < end, or neither.")
    return TimedCaption(" ".join(text.split()), start, end)


def _babel(content: Any, path: Path) -> dict[str, FileTexts]:
    """BABEL: {id: {feat_p: "CMU/CMU/01/01_01_poses.npz", seq_ann: {labels: [...]}, frame_ann: {labels: [...]}}}."""
    if not isinstance(content, dict) or not all(isinstance(r, dict) and "feat_p" in r for r in content.values()):
        raise DatasetError(f"captions {path} are not in BABEL's layout: expected {{id: {{feat_p, seq_ann, ...}}}}.")
    found: dict[str, FileTexts] = {}
    for name, entry in content.items():
        # feat_p begins with the name of the archive, which AMASS's folders do not have: CMU/CMU/01/01_01_poses.npz.
        _, _, inside = file_key(str(entry["feat_p"])).partition("/")
        texts = found.setdefault(inside, FileTexts())
        for label, start, end in _babel_labels(entry):
            has_length = start is None or end is None or end > start  # a few labels of BABEL have none
            if label.lower() not in _EMPTY_LABELS and has_length:
                texts.captions.append(_caption(label, start, end, f"captions {path}, entry {name}"))
    return found


def _babel_labels(entry: Mapping[str, Any]) -> Iterator[tuple[str, float | None, float | None]]:
    for key in ("seq_ann", "frame_ann", "seq_anns", "frame_anns"):
        annotations = entry.get(key) or []
        for annotation in [annotations] if isinstance(annotations, dict) else annotations:
            for label in annotation.get("labels") or []:
                text = str(label.get("raw_label") or label.get("proc_label") or "").strip()
                yield text, label.get("start_t"), label.get("end_t")
