"""What filters dropped and why: one JSON line for each clip, and a table over all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llamo_ros.core.errors import DatasetError, LlamoError
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.training.filters import STATIC, FilterSettings, Finding, find_faults
from llamo_ros.training.source_data import read_sequences

UNREADABLE = "unreadable"


def dropped_row(clip_id: str, source_file: str, findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    """Report line of a clip that filters dropped: id, file, length [s], and each finding with value, limit, unit."""
    return {
        "id": clip_id,
        "source_file": source_file,
        "seconds": round(seconds, 3),
        "reasons": [asdict(finding) | {"text": str(finding)} for finding in findings],
    }


def rejected_row(clip_id: str, source_file: str, reason: str, text: str) -> dict[str, Any]:
    """Report line of a clip or file whose motion could not be had."""
    return {"id": clip_id, "source_file": source_file, "seconds": 0.0, "reasons": [{"reason": reason, "text": text}]}


def check_source(
    folder: str | Path, settings: FilterSettings, keep_static: bool = False
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any] | None]]:
    """Put every clip of a source folder through the filters.

    Args:
        folder: Folder with index and shards.
        settings: Limits of the filters.
        keep_static: Whether clips that are only static are left out of the report.

    Yields:
        The index row of each clip, and its report line or None if there is nothing against it.

    Raises:
        DatasetError: the folder is missing or malformed.
    """
    for sequence in read_sequences(folder):
        source_file = str(sequence.row.get("source_file") or "")
        try:
            findings = find_faults(sequence.clip.resampled(FRAME_RATE), settings)
        except LlamoError as error:
            yield sequence.row, rejected_row(sequence.id, source_file, UNREADABLE, str(error))
            continue
        if keep_static:
            findings = [finding for finding in findings if finding.reason != STATIC]
        seconds = len(sequence) / sequence.frame_rate
        yield sequence.row, dropped_row(sequence.id, source_file, findings, seconds) if findings else None


def read_dropped(path: str | Path) -> Iterator[dict[str, Any]]:
    """Lines of a report.

    Raises:
        DatasetError: the file cannot be read or is no report.
    """
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if not {"id", "reasons", "seconds"} <= row.keys():
                    raise ValueError(f"a line has {sorted(row)}")
                yield row
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(f"{path} is no report of dropped clips ({error}). `llamo data check` writes one.") from error


@dataclass
class _Count:
    clips: int = 0
    seconds: float = 0.0
    example: str = ""


@dataclass
class DropTable:
    """Counts report lines by reason; a clip with several reasons counts once for each."""

    clips: int = 0
    seconds: float = 0.0
    _reasons: dict[str, _Count] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> DropTable:
        """The table of all report lines."""
        table = cls()
        for row in rows:
            table.add(row)
        return table

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one report line."""
        self.clips += 1
        self.seconds += row["seconds"]
        for reason in row["reasons"]:
            count = self._reasons.setdefault(reason["reason"], _Count(example=f"{row['id']}: {reason['text']}"))
            count.clips += 1
            count.seconds += row["seconds"]

    def counts(self) -> dict[str, int]:
        """Clips by reason, most first."""
        ordered = sorted(self._reasons.items(), key=lambda item: (-item[1].clips, item[0]))
        return {reason: count.clips for reason, count in ordered}

    def lines(self) -> list[str]:
        """The table as text: reason, clips, minutes, and the first example."""
        if not self.clips:
            return ["dropped: nothing"]
        head = f"dropped: {self.clips} clips, {self.seconds / 60:.1f} minutes (a clip can have several reasons)"
        rows = [(reason, self._reasons[reason]) for reason in self.counts()]
        return [head] + [
            f"  {reason:26} {count.clips:7} clips {count.seconds / 60:8.1f} min   e.g. {count.example}"
            for reason, count in rows
        ]
