"""Import of a collection: read part by part, filter, share out into splits, write, report."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llamo_ros.core.errors import DatasetError, LlamoError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.training.filter_report import UNREADABLE, DropTable, dropped_row, read_dropped, rejected_row
from llamo_ros.training.filters import STATIC, FilterSettings, find_faults
from llamo_ros.training.importing.takes import Collection, ImportedClip, Rejected
from llamo_ros.training.importing.writer import DROPPED_NAME, ShardWriter
from llamo_ros.training.pack import KNOWN_KINDS, SEGMENT_KIND
from llamo_ros.training.source_data import read_index
from llamo_ros.training.splits import SplitShares, split_of, takes_in_several_splits

REPORT_NAME = "report.txt"


@dataclass(frozen=True)
class ImportSettings:
    """What an import is asked for besides the collection.

    Attributes:
        name: Name of the data set, ``kind`` of its rows: letters, digits, ``_`` and ``-``.
        licence: Licence of motion and captions, best as an SPDX name; written into every row. What is not known to be
            free counts as non-commercial when data is packed.
        filters: Limits beyond which a clip is dropped.
        keep_static: Whether static clips are kept, marked ``static`` in the index (stage 3 leaves them out by itself).
        shares: How takes are shared out where the collection has no splits.
        frames_per_shard: Frames of a shard, about 144 bytes each in memory.

    Raises:
        ParameterError: the name or the licence is not usable, or a shard would be empty.
    """

    name: str
    licence: str
    filters: FilterSettings
    keep_static: bool = True
    shares: SplitShares = field(default_factory=SplitShares)
    frames_per_shard: int = 500_000

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ParameterError(f"name {self.name!r} has characters besides letters, digits, _ and -.")
        if self.name in KNOWN_KINDS:
            raise ParameterError(f"name {self.name!r} is that of a data set whose licence is known; choose another.")
        if self.name == SEGMENT_KIND:
            raise ParameterError(
                f"name {self.name!r} is reserved for parts of clips that training finds by itself; choose another."
            )
        if not self.licence.strip():
            raise ParameterError("licence is empty; say under which licence motion and captions may be used.")
        if self.frames_per_shard < 1:
            raise ParameterError(f"frames_per_shard is {self.frames_per_shard}, expected at least 1.")


@dataclass(frozen=True)
class ImportSummary:
    """What an import brought.

    Attributes:
        clips: Clips by split.
        seconds: Their length by split, [s].
        captions: Number of captions.
        static: Clips marked static.
        dropped: What was dropped and why.
        torn_takes: Takes in more than one split, with those.
    """

    clips: dict[str, int]
    seconds: dict[str, float]
    captions: int
    static: int
    dropped: DropTable
    torn_takes: dict[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """The summary as text."""
        hours = sum(self.seconds.values()) / 3600
        lines = [f"kept: {sum(self.clips.values())} clips, {hours:.2f} hours, {self.captions} captions"]
        lines += [f"  {s:6} {self.clips[s]:7} clips {self.seconds[s] / 60:8.1f} min" for s in sorted(self.clips)]
        if self.static:
            lines.append(f"  {self.static} of them static: in the data, but left out of stage 3")
        lines += self.dropped.lines()
        if self.torn_takes:
            examples = "; ".join(
                f"{take} in {', '.join(splits)}" for take, splits in islice(self.torn_takes.items(), 5)
            )
            lines.append(
                f"warning: {len(self.torn_takes)} takes are in more than one split, as their collection has them "
                f"(for example {examples}). --splits by-take keeps a take in one split."
            )
        return lines


def import_collection(collection: Collection, out: Path, settings: ImportSettings, origin: dict[str, Any]) -> None:
    """Write a collection to ``out`` in the source layout, or go on with an import that was broken off.

    Args:
        collection: The collection.
        out: Folder for index, shards and report.
        settings: Names, filters and shares.
        origin: Where the collection is and how it is read; going on asks for the same.

    Raises:
        DatasetError: ``out`` holds another import, the collection changed since it was begun, or nothing was imported.
        KeyboardInterrupt: passed on; what was read until then is written first.
    """
    total = sum(1 for _ in collection.keys())  # before anything is written: the collection may not be there
    asked = {"origin": origin, **asdict(settings)}
    writer = ShardWriter(out, settings.name, asked, settings.frames_per_shard)
    if writer.finished:
        return
    with tqdm(total=total, initial=writer.done, desc=f"importing {settings.name}", unit="file") as progress:
        try:
            for key in _remaining(collection, writer, out):
                writer.add(key, *_sorted_out(collection, key, settings))
                progress.update()
        except KeyboardInterrupt:
            writer.close_early()
            raise
    writer.commit(finished=True)
    summary = summarise(out)
    if not summary.clips:
        raise DatasetError(f"nothing was imported into {out}. {' '.join(' '.join(summary.dropped.lines()).split())}")
    notes = [f"note: {note}" for note in collection.notes]
    (out / REPORT_NAME).write_text("\n".join([*summary.lines(), *notes]) + "\n", encoding="utf-8")


def summarise(out: Path) -> ImportSummary:
    """Counts of an import folder, from its index and its report of dropped clips.

    Raises:
        DatasetError: one of them cannot be read.
    """
    clips: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for _, row in read_index(out):
        clips[row["split"]] += 1
        seconds[row["split"]] += row["length"] / row["fps"]
        counts["captions"] += len(row["captions"])
        counts["static"] += bool(row.get("static"))
    torn = takes_in_several_splits(row for _, row in read_index(out))
    dropped = DropTable.of(read_dropped(out / DROPPED_NAME))
    return ImportSummary(dict(clips), dict(seconds), counts["captions"], counts["static"], dropped, torn)


def _remaining(collection: Collection, writer: ShardWriter, out: Path) -> Iterator[str]:
    keys = collection.keys()
    skipped = list(islice(islice(keys, writer.done), max(0, writer.done - 1), None))
    if writer.done and skipped != [writer.last_key]:
        raise DatasetError(
            f"the collection changed since the import into {out} was begun: part {writer.done} was "
            f"{writer.last_key!r}. Import into a new folder."
        )
    return keys


def _sorted_out(
    collection: Collection, key: str, settings: ImportSettings
) -> tuple[list[tuple[dict[str, Any], MotionClip]], list[dict[str, Any]]]:
    """Kept clips of a part with their index rows, and report lines of those that are dropped."""
    kept, dropped = [], []
    try:
        found = collection.read(key)
    except LlamoError as error:
        found = [Rejected(key, key, UNREADABLE, str(error))]
    for clip in found:
        if isinstance(clip, Rejected):
            dropped.append(rejected_row(_clip_id(settings.name, clip.id), clip.source_file, clip.reason, clip.text))
            continue
        findings = find_faults(clip.motion, settings.filters)
        static = any(finding.reason == STATIC for finding in findings)
        if settings.keep_static:
            findings = [finding for finding in findings if finding.reason != STATIC]
        if findings:
            clip_id = _clip_id(settings.name, clip.id)
            dropped.append(dropped_row(clip_id, clip.source_file, findings, clip.motion.duration))
        else:
            kept.append((_index_row(clip, collection.origin, static, settings), clip.motion))
    return kept, dropped


def _index_row(clip: ImportedClip, origin: str, static: bool, settings: ImportSettings) -> dict[str, Any]:
    return {
        "id": _clip_id(settings.name, clip.id),
        "kind": settings.name,
        "split": clip.split or split_of(clip.take, settings.shares),
        "fps": int(FRAME_RATE),
        "captions": [{"text": c.text, "start": c.start, "end": c.end} for c in clip.captions],
        "origin": origin,
        "licence": settings.licence,
        "trial": clip.take,
        "trial_start_s": round(clip.start_s, 3),
        "source_file": clip.source_file,
        "content": clip.content,
        "style": clip.style,
        "static": static,
    }


def _clip_id(name: str, inner: str) -> str:
    """An id that is a plain word; where letters had to be replaced, a hash keeps different names apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", inner)
    if plain != inner:
        plain += "_" + hashlib.blake2b(inner.encode(), digest_size=4).hexdigest()
    return f"{name}_{plain}"
