"""Files below a folder, in an order that is the same on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llamo_ros.core.errors import DatasetError


def files_below(folder: str | Path, suffix: str) -> Iterator[str]:
    """Paths of files with a suffix, relative to ``folder``, with forward slashes; one folder is listed at a time.

    Links to folders are followed, but never back into a folder that is being listed.

    Raises:
        DatasetError: ``folder`` or one below it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; give the one that holds the {suffix} files.")
    yield from _walk(folder, "", suffix, {os.path.realpath(folder)})


def _walk(folder: Path, prefix: str, suffix: str, above: set[str]) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}. Check its permissions.") from error
    for entry in entries:
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real not in above:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", suffix, above | {real})
        elif entry.name.lower().endswith(suffix) and not entry.name.startswith("."):
            yield prefix + entry.name
