"""Places where results go."""

from __future__ import annotations

import os
from pathlib import Path

from llamo_ros.core.errors import ParameterError


def writable_path(path: Path) -> Path:
    """The path, if a file can be written there; its folder is made. For a look before long work, not after it.

    Raises:
        ParameterError: the folder cannot be made or written, or a folder or a file that may not be changed is there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(f"folder {path.parent} cannot be made: {error.strerror}. Choose another place.") from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ParameterError(f"{path} cannot be written. Choose another place.")
    return path
