"""What is in a data set, as numbers: how much of what, how it moves, what is said, and what is there twice."""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.quality import foot_sliding, joint_jerk
from llamo_ros.motion.representation272 import decode_features, heading
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_INDEX
from llamo_ros.training.filters import END_EFFECTORS, FilterSettings, load_filter_settings
from llamo_ros.training.pack import open_pack
from llamo_ros.training.source_data import INDEX_NAME, read_sequences, sequence_count

SIDE_WORDS = ("left", "right", "clockwise", "counterclockwise")
QUANTILES = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
_WORD = re.compile(r"[a-z0-9']+")
_END_EFFECTORS = [JOINT_INDEX[name] for name in END_EFFECTORS]


@dataclass(frozen=True)
class DescribedClip:
    """One clip of a data set as statistics see it: motion at 30 FPS, words and labels."""

    kind: str
    split: str
    content: str
    captions: tuple[str, ...]
    motion: MotionClip


@dataclass(frozen=True)
class Measure:
    """One number per clip (or per caption): its name, unit, and whether it is always whole."""

    name: str
    unit: str
    is_whole: bool = False


MEASURES = (
    Measure("duration", "s"),
    Measure("root speed", "m/s"),
    Measure("turning", "deg/s"),
    Measure("jerk", "m/s^3"),
    Measure("foot sliding", "m/s"),
    Measure("caption length", "words", is_whole=True),
)


@dataclass
class Group:
    """Counts of one kind and split."""

    clips: int = 0
    seconds: float = 0.0
    captions: int = 0
    words: int = 0
    silent: int = 0  # clips without a caption
    static: int = 0
    vocabulary: set[str] = field(default_factory=set)


@dataclass
class DataStatistics:
    """Statistics of a data set; memory grows by some bytes per clip and caption, and with the vocabulary.

    Attributes:
        groups: Counts by (kind, split).
        values: One number per clip, in the order of the data, by the name of its measure; per caption for its length.
        content: Clips by content label; those without one are not in it.
        sides: How often each of ``SIDE_WORDS`` is said, by kind.
        copies: Clips whose motion is, to the bit, that of an earlier one.
        torn_copies: Those of them whose earlier one is in another split.
        captions: How often each caption is used, by a hash of it.
    """

    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    values: dict[str, array[float]] = field(default_factory=lambda: {measure.name: array("f") for measure in MEASURES})
    content: Counter[str] = field(default_factory=Counter)
    sides: dict[str, Counter[str]] = field(default_factory=dict)
    copies: int = 0
    torn_copies: int = 0
    captions: Counter[bytes] = field(default_factory=Counter)
    _seen: dict[bytes, str] = field(default_factory=dict)

    def add(self, clip: DescribedClip, static_speed: float) -> None:
        """Count one clip; it is static if all end effectors stay below ``static_speed``, [m/s]."""
        group = self.groups.setdefault((clip.kind, clip.split), Group())
        group.clips += 1
        group.seconds += clip.motion.duration
        group.captions += len(clip.captions)
        group.silent += not clip.captions
        if clip.content:
            self.content[clip.content] += 1
        self._add_motion(clip, group, static_speed)
        for caption in clip.captions:
            words = _WORD.findall(re.sub(r"counter[ -]clockwise", "counterclockwise", caption.lower()))
            group.words += len(words)
            group.vocabulary.update(words)
            self.values["caption length"].append(len(words))
            self.captions[_digest(" ".join(words).encode())] += 1
            self.sides.setdefault(clip.kind, Counter()).update(word for word in words if word in SIDE_WORDS)

    def _add_motion(self, clip: DescribedClip, group: Group, static_speed: float) -> None:
        motion = clip.motion
        positions = motion.joint_positions()
        steps = np.diff(motion.root_positions, axis=0)
        turns = np.abs(np.diff(np.unwrap(heading(motion.rotations[:, 0]))))
        measured = {
            "duration": motion.duration,
            "root speed": _mean(np.linalg.norm(steps[:, [0, 2]], axis=-1)) * FRAME_RATE,
            "turning": math.degrees(_mean(turns)) * FRAME_RATE,
            "jerk": joint_jerk(positions, FRAME_RATE),
            "foot sliding": foot_sliding(positions, FRAME_RATE),
        }
        for name, value in measured.items():
            self.values[name].append(value)
        speeds = np.linalg.norm(np.diff(positions[:, _END_EFFECTORS], axis=0), axis=-1) * FRAME_RATE
        group.static += bool(len(speeds)) and bool(speeds.max() < static_speed)
        digest = _digest(np.ascontiguousarray(motion.rotations[:, 1:], dtype=np.float32).tobytes())
        if digest in self._seen:
            self.copies += 1
            self.torn_copies += self._seen[digest] != clip.split
        else:
            self._seen[digest] = clip.split

    def quantiles(self) -> dict[str, list[float]]:
        """``QUANTILES`` of each measure over the clips for which it is known; empty where it is for none."""
        found = {}
        for name, values in self.values.items():
            known = np.frombuffer(values, np.float32)
            known = known[~np.isnan(known)]
            found[name] = np.quantile(known, QUANTILES).tolist() if len(known) else []
        return found

    def histogram(self, measure: Measure, bins: int = 40) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges (B + 1,) and counts (B,) of a measure; the last bin also holds what lies above the 99.5 %.

        There are ``bins`` of them, or one for each whole number.
        """
        known = np.frombuffer(self.values[measure.name], np.float32).astype(np.float64)
        known = known[~np.isnan(known)]
        top = float(np.quantile(known, 0.995)) if len(known) else 1.0
        if measure.is_whole:
            top = math.ceil(top)
            counts, edges = np.histogram(np.minimum(known, top), int(top) + 1, (-0.5, top + 0.5))
        else:
            counts, edges = np.histogram(np.minimum(known, top), bins, (0.0, top or 1.0))
        return edges, counts

    def unseen_words(self) -> int:
        """Words of validation and test captions that no training caption has."""
        by_split: dict[bool, set[str]] = {True: set(), False: set()}
        for (_, split), group in self.groups.items():
            by_split[split == "train"] |= group.vocabulary
        return len(by_split[False] - by_split[True])

    def record(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        groups = [
            {
                "kind": kind,
                "split": split,
                "clips": group.clips,
                "hours": round(group.seconds / 3600, 4),
                "captions": group.captions,
                "words": group.words,
                "vocabulary": len(group.vocabulary),
                "clips_without_caption": group.silent,
                "static_clips": group.static,
            }
            for (kind, split), group in sorted(self.groups.items())
        ]
        measures = {
            measure.name: {"unit": measure.unit}
            | {f"{share:g}": round(value, 4) for share, value in zip(QUANTILES, quantiles, strict=False)}
            for measure, quantiles in zip(MEASURES, self.quantiles().values(), strict=True)
        }
        return {
            "groups": groups,
            "quantiles": measures,
            "content": dict(self.content.most_common()),
            "side_words": {kind: {word: counts[word] for word in SIDE_WORDS} for kind, counts in self.sides.items()},
            "duplicates": {
                "clips_with_the_motion_of_an_earlier_one": self.copies,
                "of_these_in_another_split": self.torn_copies,
                "captions": sum(self.captions.values()),
                "different_captions": len(self.captions),
            },
            "words_of_val_and_test_not_in_train": self.unseen_words(),
        }

    def lines(self) -> list[str]:
        """Everything as tables of text."""
        columns = ("kind", "split", "clips", "hours", "captions", "words", "vocab", "no text", "static")
        rows = [
            (
                kind,
                split,
                g.clips,
                f"{g.seconds / 3600:.2f}",
                g.captions,
                g.words,
                len(g.vocabulary),
                g.silent,
                g.static,
            )
            for (kind, split), g in sorted(self.groups.items())
        ]
        names = {measure.name: f"{measure.name} [{measure.unit}]" for measure in MEASURES}
        quantiles = [
            (names[name], *(f"{value:.3g}" for value in values)) for name, values in self.quantiles().items() if values
        ]
        sides = [(kind, *(counts[word] for word in SIDE_WORDS)) for kind, counts in sorted(self.sides.items())]
        labels = ", ".join(f"{label} {count}" for label, count in self.content.most_common(12))
        spoken = sum(self.captions.values())
        return [
            *_table(columns, rows),
            "",
            *_table(
                ("of clips (of captions for their length)", "min", "1 %", "10 %", "median", "90 %", "99 %", "max"),
                quantiles,
            ),
            "",
            *_table(("side words in captions", *SIDE_WORDS), sides),
            "",
            f"content labels: {labels or 'none'}{', ...' if len(self.content) > 12 else ''}",
            f"captions: {spoken}, of which {len(self.captions)} different",
            f"words of val and test captions that train does not have: {self.unseen_words()}",
            f"clips with the motion of an earlier clip: {self.copies}, of these in another split: {self.torn_copies}",
        ]


def data_statistics(folder: Path, settings: FilterSettings | None = None) -> DataStatistics:
    """Statistics of a source folder or a pack.

    Args:
        folder: Folder with ``index.jsonl`` (source) or ``index.json`` (pack).
        settings: Gives the speed below which a clip is static; the package's limits if None.

    Raises:
        DatasetError: the folder is neither, or is damaged.
    """
    settings = settings or load_filter_settings()
    found = DataStatistics()
    total = sequence_count(folder) if (folder / INDEX_NAME).is_file() else len(open_pack(folder).sequences)
    for clip in tqdm(described_clips(folder), desc="measuring", unit="clip", total=total):
        found.add(clip, settings.static_speed)
    if not found.groups:
        raise DatasetError(f"{folder} holds no clips.")
    return found


def described_clips(folder: Path) -> Iterator[DescribedClip]:
    """Clips of a source folder or a pack, one at a time.

    Raises:
        DatasetError: the folder is neither, or is damaged.
    """
    if (folder / INDEX_NAME).is_file():
        for sequence in read_sequences(folder):
            motion = sequence.clip.resampled(FRAME_RATE)
            yield DescribedClip(sequence.kind, sequence.split, sequence.content, sequence.captions, motion)
    else:
        pack = open_pack(folder)
        for row in pack.sequences:
            yield DescribedClip(row.kind, row.split, row.content, row.captions, decode_features(pack.of(row)))


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else math.nan


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Columns set flush: the first to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    is_text = [not any(row[column][:1].isdigit() for row in cells[1:]) for column in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in cells
    ]
