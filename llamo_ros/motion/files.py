"""Load and save motion by the suffix of the file name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.bvh import export_bvh, import_bvh
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.csv import export_csv
from llamo_ros.motion.npz import load_npz, save_npz

_LOADERS: Mapping[str, Callable[[str | Path], MotionClip]] = {".bvh": import_bvh, ".npz": load_npz}
_SAVERS: Mapping[str, Callable[[MotionClip, str | Path], None]] = {
    ".bvh": export_bvh,
    ".npz": save_npz,
    ".csv": export_csv,
}


def load_motion(path: str | Path) -> MotionClip:
    """Load a clip from a .bvh file (any rig a joint map fits; 30 FPS, placed at the origin) or an .npz archive.

    An archive is returned as it is: its own frame rate and place. For options call ``import_bvh`` or ``load_npz``.

    Raises:
        MotionFileError: the suffix is not known, or the file cannot be read.
    """
    return _by_suffix(_LOADERS, path, "read")(path)


def save_motion(clip: MotionClip, path: str | Path) -> None:
    """Save a clip as .npz (exact), .bvh (for animation tools) or .csv (joint positions, for plots; cannot be loaded).

    Raises:
        MotionFileError: the suffix is not known, or the file cannot be written.
        ParameterError: the clip is empty and the format cannot hold that.
    """
    _by_suffix(_SAVERS, path, "written")(clip, path)


def _by_suffix(table: Mapping[str, Any], path: str | Path, verb: str) -> Callable[..., Any]:
    suffix = Path(path).suffix.lower()
    if suffix not in table:
        found = f"suffix '{suffix}'" if suffix else "no suffix"
        raise MotionFileError(f"{path} has {found}; motion can be {verb} as {', '.join(table)}.")
    return table[suffix]
