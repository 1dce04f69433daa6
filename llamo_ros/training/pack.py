"""Packed training data: every sequence as 272-dim features in one memory-mapped file, with an index and statistics."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.representation272 import FEATURE_COUNT, encode_clip
from llamo_ros.motion.skeleton import FRAME_RATE, MIRROR
from llamo_ros.training import source_data

PACK_VERSION = 1
MINIMUM_FRAMES = 8
# What a model may be called, by the data it learned from. Kinds whose licence we looked up are named here; data of any
# other kind (an import) is judged by the licence in its rows.
LICENCE_SETS = {
    "noncommercial": ("h3d", "cmu_trial", "bandai"),
    "open": ("h3d", "cmu_trial"),
}
# The zero-shot test set: nobody trains on it.
TEST_ONLY_KINDS = ("hdm05",)
KNOWN_KINDS = (*LICENCE_SETS["noncommercial"], *TEST_ONLY_KINDS)
INDEX = "index.json"
# What training calls the labelled parts that it cuts out of clips; no collection may have this name.
SEGMENT_KIND = "segment"
# Licences that allow a model to be used commercially and shared under any terms. Any other, known or not, counts as
# non-commercial; share-alike ones too, since how far they reach into a model is not settled.
FREE_LICENCES = (
    "0bsd",
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc0-1.0",
    "mit",
    "pddl-1.0",
    "unlicense",
)


@dataclass(frozen=True)
class PackedSequence:
    """One sequence of the pack: rows ``start`` .. ``start + length - 1`` of the features."""

    id: str
    kind: str
    split: str
    content: str
    style: str
    captions: tuple[str, ...]
    start: int
    length: int


@dataclass(frozen=True)
class Pack:
    """An opened pack.

    Attributes:
        features: All frames, shape (N, 272), float32, memory-mapped.
        sequences: The index.
        mean: Mean of the training frames and their mirror images, shape (272,).
        std: Scale for normalisation, shape (272,); floored where a feature is (nearly) constant.
        licence_set: Key of ``LICENCE_SETS``.
        licences: Clips by kind and licence, as in their rows; empty in packs written before it was kept.
        left_out: Clips of the source that are not in the pack, by reason; empty in such packs.
    """

    features: NDArray[np.float32]
    sequences: tuple[PackedSequence, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    licence_set: str
    licences: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Sequences of all splits."""
        return len(self.sequences)

    def of(self, sequence: PackedSequence) -> NDArray[np.float32]:
        """Features of one sequence, shape (T, 272)."""
        return self.features[sequence.start : sequence.start + sequence.length]

    def split(self, name: str) -> list[PackedSequence]:
        """Sequences of a split: train, val or test."""
        return [sequence for sequence in self.sequences if sequence.split == name]


def _mirror_tables() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Order and sign that turn features into those of the mirrored motion (x -> -x, left <-> right)."""
    matrix_signs = np.array([1, -1, -1, -1, 1, 1], np.float32)  # rows6d of diag(-1,1,1) R diag(-1,1,1)
    order, signs = [0, 1, *range(2, 8)], [-1.0, 1.0, *matrix_signs]
    for base in (8, 74):
        for joint in MIRROR:
            order += [base + 3 * joint + axis for axis in range(3)]
            signs += [-1.0, 1.0, 1.0]
    for joint in MIRROR:
        order += [140 + 6 * joint + k for k in range(6)]
        signs += list(matrix_signs)
    return np.array(order), np.array(signs, np.float32)


MIRROR_ORDER, MIRROR_SIGNS = _mirror_tables()


def mirror_features(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """Features (..., 272) of the mirrored motion. Position channels are exact up to the body's own asymmetry (3 mm)."""
    return features[..., MIRROR_ORDER] * MIRROR_SIGNS


def normalisation(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Mean and scale (272,) such that (nearly) constant features do not blow up.

    Nine features have no variance (pelvis x and z, parts of the yaw matrix): the scale of each group is floored at 0.3
    of the group's mean, and the heading change is scaled by its sine alone.
    """
    std = np.sqrt(np.maximum(variance, 0.0))  # rounding leaves constants a little below 0
    for group in (slice(8, 74), slice(74, 140), slice(140, 272)):
        std[group] = np.maximum(std[group], 0.3 * std[group].mean())
    std[2:8] = std[4]
    return mean.astype(np.float32), std.astype(np.float32)


def is_free_licence(licence: str) -> bool:
    """Whether a licence of an import allows commercial use without share-alike; unknown ones do not.

    Compared without regard to case, spaces for hyphens: ``CC BY 4.0`` is ``cc-by-4.0``.
    """
    return "-".join(licence.lower().split()) in FREE_LICENCES


def pack_data(
    source: Path | Sequence[Path],
    out: Path,
    licence_set: str = "noncommercial",
    without: frozenset[str] = frozenset(),
) -> Pack:
    """Read source folders (layout: :mod:`llamo_ros.training.source_data`), write a pack to ``out``, and open it.

    Clips are written as they are read; memory holds one of them and the index.

    Args:
        source: A folder with index and shards, or several.
        out: Pack folder.
        licence_set: ``noncommercial`` takes all training data, ``open`` only what is free for any use.
        without: Ids of clips to leave out, e.g. those that ``llamo data check`` dropped.

    Raises:
        DatasetError: a source is missing or malformed, two clips have one id, there is no training clip, or
            ``licence_set`` is unknown.
    """
    if licence_set not in LICENCE_SETS:
        raise DatasetError(f"licence set {licence_set!r} is unknown. Known: {', '.join(LICENCE_SETS)}.")
    folders = [source] if isinstance(source, Path) else list(source)
    index: list[PackedSequence] = []
    total, count = 0, 0
    sums, squares = np.zeros(FEATURE_COUNT), np.zeros(FEATURE_COUNT)
    licences: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    names: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "features.npy.partial"
    with open(partial, "wb") as file:
        _write_header(file, 0)
        total_clips = sum(map(source_data.sequence_count, folders))
        for sequence in tqdm(_sequences(folders), desc="packing", unit="clip", total=total_clips):
            if sequence.id in names:
                raise DatasetError(f"two clips have the id {sequence.id!r}; give each source a name of its own.")
            names.add(sequence.id)
            if reason := _why_left_out(sequence, licence_set, without):
                left_out[reason] += 1
                continue
            clip = sequence.clip
            if clip.frame_rate != FRAME_RATE:
                clip = clip.resampled(FRAME_RATE)
            features = encode_clip(clip).astype(np.float32)
            if sequence.split == "train":
                for view in (features.astype(np.float64), mirror_features(features.astype(np.float64))):
                    sums += view.sum(0)
                    squares += (view**2).sum(0)
                    count += len(view)
            labels = (sequence.id, sequence.kind, sequence.split, sequence.content, sequence.style)
            index.append(PackedSequence(*labels, tuple(sequence.captions), total, len(features)))
            licences[f"{sequence.kind}: {sequence.licence}"] += 1
            file.write(features.tobytes())
            total += len(features)
        file.seek(0)
        _write_header(file, total)
    if not count:
        partial.unlink()
        reasons = "; ".join(f"{number} {reason}" for reason, number in left_out.most_common()) or "it is empty"
        raise DatasetError(
            f"{', '.join(map(str, folders))} has no training clip for licence set {licence_set}: {reasons}."
        )
    os.replace(partial, out / "features.npy")
    mean, std = normalisation(sums / count, squares / count - (sums / count) ** 2)
    np.savez(out / "statistics.npz", mean=mean, std=std)
    header = {
        "version": PACK_VERSION,
        "licence_set": licence_set,
        "licences": dict(licences),
        "left_out": dict(left_out),
        "sequences": [asdict(row) for row in index],
    }
    (out / INDEX).write_text(json.dumps(header))
    return open_pack(out)


def _sequences(folders: Sequence[Path]) -> Iterator[source_data.Sequence]:
    for folder in folders:
        yield from source_data.read_sequences(folder)


def _why_left_out(sequence: source_data.Sequence, licence_set: str, without: frozenset[str]) -> str:
    """Why a sequence is not packed, in a few words; empty if it is."""
    if sequence.id in without:
        return "named by --without"
    if sequence.kind in TEST_ONLY_KINDS:
        return f"of {sequence.kind}, which is for tests only"
    if len(sequence) < MINIMUM_FRAMES:
        return f"shorter than {MINIMUM_FRAMES} frames"
    known = sequence.kind in KNOWN_KINDS
    is_free = sequence.kind in LICENCE_SETS["open"] if known else is_free_licence(sequence.licence)
    if licence_set == "open" and not is_free:
        return f"of {sequence.kind}, whose licence is not free ({sequence.licence[:60]})"
    return ""


def _write_header(file: BinaryIO, frames: int) -> None:
    """Header of features.npy. NumPy pads it so that it has one length, however many frames there are."""
    shape = {"descr": "<f4", "fortran_order": False, "shape": (frames, FEATURE_COUNT)}
    np.lib.format.write_array_header_1_0(file, shape)


def open_pack(folder: Path) -> Pack:
    """Open a pack written by :func:`pack_data`.

    Raises:
        DatasetError: the folder is not a pack of this version, or is incomplete.
    """
    try:
        header = json.loads((folder / INDEX).read_text())
        if header.get("version") != PACK_VERSION:
            raise DatasetError(f"{folder} is a pack of version {header.get('version')}, expected {PACK_VERSION}.")
        features = np.load(folder / "features.npy", mmap_mode="r")
        with np.load(folder / "statistics.npz") as statistics:
            mean, std = statistics["mean"], statistics["std"]
        sequences = tuple(PackedSequence(**{**row, "captions": tuple(row["captions"])}) for row in header["sequences"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder} is not a readable data pack ({error}). Write one with `llamo data pack SOURCE --out {folder}`."
        ) from error
    if sequences and sequences[-1].start + sequences[-1].length != len(features):
        raise DatasetError(f"{folder}: index and features differ in length; pack the data again.")
    licences, left_out = header.get("licences", {}), header.get("left_out", {})
    return Pack(features, sequences, mean, std, header["licence_set"], licences, left_out)
