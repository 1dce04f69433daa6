"""Writes the source layout shard by shard, so that an import can be broken off at any time and goes on where it was.

A shard and its index rows count once the state file names them, and that is replaced in one step. What was written
after the last state is cut off when the import goes on, so nothing is lost and nothing doubled. Memory holds one shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.training.source_data import INDEX_NAME, stored_arrays

STATE_NAME = "import.json"
DROPPED_NAME = "dropped.jsonl"
STATE_VERSION = 1


@dataclass
class _Part:
    """What one part of a collection became: rows still without their place in a shard."""

    key: str
    rows: list[tuple[dict[str, Any], NDArray[np.int16], NDArray[np.float32]]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)


class ShardWriter:
    """A source folder that is being written.

    Args:
        folder: The folder; made if absent.
        name: Name of the data set; shards are ``<name>-00000.npz`` and so on.
        settings: What the import was asked for. A folder can only be gone on with under the same settings.
        frames_per_shard: A shard is written when it has this many frames; a part is never divided.

    Attributes:
        done: Parts that are written for good.
        last_key: The last of them; None at the start.
        finished: Whether the import has come to its end.

    Raises:
        DatasetError: the folder holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], frames_per_shard: int) -> None:
        self._folder, self._name, self._frames_per_shard = folder, name, frames_per_shard
        self._settings = dict(settings)
        self._parts: list[_Part] = []
        self._frames = 0
        self._writing = False
        self._shards = 0
        self._bytes = {INDEX_NAME: 0, DROPPED_NAME: 0}
        self.done = 0
        self.last_key: str | None = None
        self.finished = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise DatasetError(f"{folder} cannot be written: {error}. Choose another --out.") from error

    def add(self, key: str, clips: Iterable[tuple[dict[str, Any], MotionClip]], dropped: list[dict[str, Any]]) -> None:
        """Take the clips of one part, with their index rows (without place in a shard), and what was dropped of it."""
        part = _Part(key, [(row, *stored_arrays(clip)) for row, clip in clips], dropped)
        self._parts.append(part)  # one step: an interrupt comes before the part or after it
        self._frames += sum(len(trans) for _, _, trans in part.rows)
        if self._frames >= self._frames_per_shard:
            self.commit()

    def commit(self, finished: bool = False) -> None:
        """Write what was taken since the last time, for good.

        Raises:
            DatasetError: the folder cannot be written.
        """
        parts = list(self._parts)
        self._writing = True
        try:
            rows = self._write_shard(parts)
            index, dropped = _lines(rows), _lines(line for part in parts for line in part.dropped)
            sizes = {INDEX_NAME: len(index), DROPPED_NAME: len(dropped)}
            for name, data in ((INDEX_NAME, index), (DROPPED_NAME, dropped)):
                with open(self._folder / name, "r+b") as file:
                    file.seek(self._bytes[name])
                    file.truncate()
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            self._write_state(
                shards=self._shards + bool(rows),
                done=self.done + len(parts),
                last=parts[-1].key if parts else self.last_key,
                sizes={name: self._bytes[name] + sizes[name] for name in sizes},
                finished=finished,
            )
        except OSError as error:
            raise DatasetError(
                f"{self._folder} cannot be written: {error}. Make room and run the same command again; it goes on."
            ) from error
        self._read_state()
        self._parts, self._frames, self._writing = [], 0, False

    def close_early(self) -> None:
        """Write what was taken after an interrupt; one that came while writing left that to the next start."""
        if not self._writing:
            self.commit()

    def _open(self) -> None:
        if not (self._folder / STATE_NAME).exists():
            if (self._folder / INDEX_NAME).exists():
                raise DatasetError(
                    f"{self._folder} already holds an {INDEX_NAME} that no import wrote. Choose another --out."
                )
            (self._folder / INDEX_NAME).touch()
            (self._folder / DROPPED_NAME).touch()
            self._write_state(0, 0, None, self._bytes, False)
        self._read_state()
        for name, size in self._bytes.items():
            if (self._folder / name).stat().st_size < size:
                raise DatasetError(f"{self._folder / name} is shorter than {STATE_NAME} says; delete {self._folder}.")
            os.truncate(self._folder / name, size)
        shards = self._folder.glob(f"{self._name}-{'[0-9]' * 5}.npz")
        for path in (*shards, *self._folder.glob("*.partial")):
            if path.suffix == ".partial" or int(path.stem.rpartition("-")[2]) >= self._shards:
                path.unlink()

    def _write_shard(self, parts: list[_Part]) -> list[dict[str, Any]]:
        """Write the motion of parts as one shard, and return their rows with place."""
        entries = [entry for part in parts for entry in part.rows]
        if not entries:
            return []
        shard = f"{self._name}-{self._shards:05d}.npz"
        rows, start = [], 0
        for row, _, trans in entries:
            rows.append({**row, "shard": shard, "start": start, "length": len(trans)})
            start += len(trans)
        partial = self._folder / f"{shard}.partial"
        with open(partial, "wb") as file:
            np.savez(
                file,
                rotvec_i16=np.concatenate([rotvec for _, rotvec, _ in entries]),
                trans=np.concatenate([trans for _, _, trans in entries]),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._folder / shard)
        return rows

    def _write_state(self, shards: int, done: int, last: str | None, sizes: Mapping[str, int], finished: bool) -> None:
        state = {"version": STATE_VERSION, "settings": self._settings, "shards": shards, "parts": done, "last": last}
        partial = self._folder / f"{STATE_NAME}.partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(state | {"bytes": dict(sizes), "finished": finished}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._folder / STATE_NAME)

    def _read_state(self) -> None:
        path = self._folder / STATE_NAME
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            version, settings = state["version"], state["settings"]
            self._shards, self.done, self.last_key = state["shards"], state["parts"], state["last"]
            self._bytes, self.finished = dict(state["bytes"]), state["finished"]
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} is damaged ({error!r}). Delete {self._folder} and import again.") from error
        wanted = json.loads(json.dumps(self._settings))
        if version != STATE_VERSION or settings != wanted:
            changed = [key for key in wanted if settings.get(key) != wanted[key]] or ["version"]
            raise DatasetError(
                f"{self._folder} was begun with another {', '.join(changed)} (then {settings.get(changed[0])!r}, now "
                f"{wanted.get(changed[0])!r}). Give the same as then to go on, or choose another --out."
            )


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
