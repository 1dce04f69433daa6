"""HumanML3D: captions, splits and an index into AMASS. The motion itself is read from AMASS's rotations.

HumanML3D distributes joint positions (``new_joint_vecs``), which do not tell how bones twist, so they are not used.
Which frames of an AMASS file a row means follows its ``raw_pose_processing.ipynb``: every ``int(rate / 20)``-th frame
is taken and called 20 FPS, some data sets lose their first seconds, and the row's frame range counts from there.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from llamo_ros.core.errors import DatasetError, MotionFileError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.npz import load_npz
from llamo_ros.motion.placement import canonicalised
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.training.importing.amass import NOTES, take_name
from llamo_ros.training.importing.takes import ImportedClip, Rejected, piece
from llamo_ros.training.source_data import TimedCaption
from llamo_ros.training.splits import SPLITS

INDEX_RATE = 20.0
# Frames at 20 FPS that HumanML3D cuts off at the beginning: calibration poses.
_SKIPPED = {
    "Eyes_Japan_Dataset": 60,
    "MPI_HDM05": 60,
    "TotalCapture": 20,
    "MPI_Limits": 20,
    "Transitions_mocap": 10,
}
# Folder names in HumanML3D's index, and in later releases of AMASS.
_OTHER_NAMES = {
    "BioMotionLab_NTroje": "BMLrub",
    "DFaust_67": "DFaust",
    "MPI_HDM05": "HDM05",
    "MPI_Limits": "PosePrior",
    "MPI_mosh": "MoSh",
    "SSM_synced": "SSM",
    "TCD_handMocap": "TCDHands",
    "Transitions_mocap": "Transitions",
}
_POSITIONS_ONLY = "humanact12/"


@dataclass(frozen=True)
class _Row:
    name: str
    source: str  # AMASS path without suffix, as in the index
    start: int
    end: int


class HumanML3D:
    """HumanML3D's folder and the AMASS folder that its index points into.

    Args:
        folder: Its repository (``index.csv`` and ``HumanML3D/``) or a folder with ``index.csv``, ``texts/`` and
            ``train.txt``, ``val.txt``, ``test.txt``. ``new_joint_vecs`` is not needed.
        amass: Folder with AMASS's data sets (SMPL-H or SMPL-X).
        mirrored: Whether the mirrored clips (``M000000``) are imported too. Training mirrors every clip itself.
        official_splits: Whether the official split of each clip is kept; else it is chosen by take.

    Raises:
        DatasetError: a part is missing or malformed; the message says which, and where to get it.
    """

    origin = "HumanML3D (AMASS)"

    def __init__(
        self, folder: str | Path, amass: str | Path, mirrored: bool = False, official_splits: bool = True
    ) -> None:
        self._amass, self._mirrored = Path(amass), mirrored
        if not self._amass.is_dir():
            raise DatasetError(
                f"{amass} is not a folder. HumanML3D has no motion of its own: give the folder of AMASS's SMPL-H files."
            )
        self._texts, index, lists = _parts_of(Path(folder))
        self._splits = _read_splits(lists) if official_splits else {}
        self._rows = {row.name: row for row in _read_rows(index)}
        self._take = lru_cache(maxsize=1)(self._read_take)  # rows are sorted by take, so each is read once
        self.notes = NOTES + (
            ("Clips of HumanAct12 are joint positions without rotations and cannot be imported.",)
            + (() if mirrored else ("Mirrored clips (M...) are left out: training mirrors every clip itself.",))
        )

    def keys(self) -> Iterator[str]:
        """Names of the rows, those of one take together."""
        yield from sorted(self._rows, key=lambda name: (self._rows[name].source, self._rows[name].start, name))

    def read(self, key: str) -> list[ImportedClip | Rejected]:
        """The clip of a row, and its mirror image if asked for.

        Raises:
            MotionFileError: its AMASS file is damaged.
            DatasetError: its texts are missing or malformed.
        """
        row = self._rows[key]
        if row.source.startswith(_POSITIONS_ONLY):
            text = "HumanAct12 comes as joint positions; rotations cannot be told from them"
            return [Rejected(key, row.source, "no rotations", text)]
        path = self._find(row.source)
        if path is None:
            return [Rejected(key, row.source, "missing file", f"not in {self._amass}; download its AMASS data set")]
        take = self._take(path)
        frames = _frames_of(row, len(take), take.frame_rate)
        if not len(frames):
            text = f"frames {row.start} to {row.end} (20 FPS) of a file with {len(take)} at {take.frame_rate:g} FPS"
            return [Rejected(key, row.source, "no such frames", text)]
        motion = piece(take, frames.start, frames.stop).resampled(FRAME_RATE)
        # Captions count 20 FPS as 1 / 20 s, whatever the true rate is after taking every n-th frame.
        stretch = frames.step * INDEX_RATE / take.frame_rate
        clip = ImportedClip(
            id=key,
            motion=motion,
            captions=_read_captions(self._texts / f"{key}.txt", stretch, motion.duration),
            take=take_name(row.source),
            source_file=str(path.relative_to(self._amass)),
            start_s=frames.start / take.frame_rate,
            split=self._splits.get(key, ""),
        )
        if not self._mirrored:
            return [clip]
        captions = _read_captions(self._texts / f"M{key}.txt", stretch, motion.duration)
        split = self._splits.get(f"M{key}", clip.split)
        return [clip, replace(clip, id=f"M{key}", motion=motion.mirrored(), captions=captions, split=split)]

    def _read_take(self, path: Path) -> MotionClip:
        clip = load_npz(path)
        if clip.frame_rate < INDEX_RATE:
            raise MotionFileError(f"{path} has {clip.frame_rate:g} FPS; HumanML3D counts frames at 20 FPS or more.")
        return canonicalised(clip)

    def _find(self, source: str) -> Path | None:
        data_set, _, rest = source.partition("/")
        names = [rest, rest.replace(" ", "_"), f"{rest.removesuffix('_poses')}_stageii".replace(" ", "_")]
        folders = [data_set, f"{data_set}/{data_set}"]
        folders += [_OTHER_NAMES[data_set]] if data_set in _OTHER_NAMES else []
        candidates = (self._amass / folder / f"{name}.npz" for folder in folders for name in names)
        return next((path for path in candidates if path.is_file()), None)


def _parts_of(folder: Path) -> tuple[Path, Path, Path]:
    """Folder of texts, the index, and folder of the split lists."""
    inner = folder / "HumanML3D" if (folder / "HumanML3D").is_dir() else folder
    index = next((path for path in (folder / "index.csv", inner / "index.csv") if path.is_file()), None)
    texts = next((path for path in (inner / "texts", folder / "texts") if path.is_dir()), None)
    missing = []
    if index is None:
        missing.append("index.csv (in HumanML3D's repository; it says which frames of AMASS a clip is)")
    if texts is None:
        packed = " (unpack texts.zip)" if (inner / "texts.zip").is_file() else " (texts.zip in HumanML3D's repository)"
        missing.append(f"texts/{packed}")
    missing += [f"{split}.txt" for split in SPLITS if not (inner / f"{split}.txt").is_file()]
    if index is None or texts is None or missing:
        raise DatasetError(f"{folder} is no complete HumanML3D folder; it lacks {', '.join(missing)}.")
    return texts, index, inner


def _read_splits(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for split in SPLITS:
        for name in _read(folder / f"{split}.txt").split():
            if found.setdefault(name, split) != split:
                raise DatasetError(f"{folder} has {name} in {found[name]}.txt and in {split}.txt; take it out of one.")
    return found


def _read_rows(path: Path) -> Iterator[_Row]:
    rows = csv.DictReader(_read(path).splitlines())
    columns = ("source_path", "start_frame", "end_frame", "new_name")
    if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; expected {', '.join(columns)}.")
    for row in rows:
        try:
            source = str(row["source_path"]).replace("\\", "/").removeprefix("./").removeprefix("pose_data/")
            start, end = int(row["start_frame"]), int(row["end_frame"])
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path} line {rows.line_num}: frame numbers are not whole ({error}).") from error
        yield _Row(Path(row["new_name"]).stem, source.removesuffix(".npy"), start, end)


def _frames_of(row: _Row, count: int, rate: float) -> range:
    """Frames of the file, at its own rate; the step is HumanML3D's. Negative ends count from the end, as in NumPy."""
    sampled = range(0, count, int(rate / INDEX_RATE))
    skipped = _SKIPPED.get(row.source.partition("/")[0], 0)
    return sampled[skipped:][row.start : row.end]


def _read_captions(path: Path, stretch: float, duration: float) -> tuple[TimedCaption, ...]:
    """Lines ``caption#tokens#from#to``; 0 to 0 and NaN mean the whole clip."""
    found = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split("#")
        try:
            text, start, end = " ".join(parts[0].split()), float(parts[2]), float(parts[3])
        except (IndexError, ValueError):
            raise DatasetError(f"{path} line {number} is {line[:60]!r}, expected caption#tokens#from#to.") from None
        start, end = start * stretch, min(end * stretch, duration)
        whole = math.isnan(start) or math.isnan(end) or end <= start
        found.append(TimedCaption(text) if whole else TimedCaption(text, round(start, 3), round(end, 3)))
    if not found:
        raise DatasetError(f"{path} has no caption.")
    return tuple(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}. Copy HumanML3D anew.") from error
