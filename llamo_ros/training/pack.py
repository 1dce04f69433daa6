"""Packed training data: every sequence as 272-dim features in one memory-mapped file, with an index and statistics."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.representation272 import FEATURE_COUNT, encode_clip
from llamo_ros.motion.skeleton import FRAME_RATE, MIRROR
from llamo_ros.training.source_data import read_sequences

PACK_VERSION = 1
# Every data set that may be packed, by licence: what a model trained on it may be called.
LICENCE_SETS = {
    "noncommercial": ("h3d", "cmu_trial", "bandai"),
    "open": ("h3d", "cmu_trial"),
}


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
    """

    features: NDArray[np.float32]
    sequences: tuple[PackedSequence, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    licence_set: str

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


def pack_data(source: Path, out: Path, licence_set: str = "noncommercial") -> Pack:
    """Read ``source`` (layout of its README), write a pack to ``out``, and open it.

    Raises:
        DatasetError: the source is missing or malformed, or ``licence_set`` is unknown.
    """
    if licence_set not in LICENCE_SETS:
        raise DatasetError(f"licence set {licence_set!r} is unknown. Known: {', '.join(LICENCE_SETS)}.")
    kinds = LICENCE_SETS[licence_set]
    chunks: list[NDArray[np.float32]] = []
    index: list[PackedSequence] = []
    total, count = 0, 0
    sums, squares = np.zeros(FEATURE_COUNT), np.zeros(FEATURE_COUNT)
    for sequence in tqdm(read_sequences(source), desc="packing", unit="clip"):
        if sequence.kind not in kinds or len(sequence) < 8:
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
        index.append(
            PackedSequence(
                sequence.id,
                sequence.kind,
                sequence.split,
                sequence.content,
                sequence.style,
                tuple(sequence.captions),
                total,
                len(features),
            )
        )
        chunks.append(features)
        total += len(features)
    if not count:
        raise DatasetError(f"{source} has no training sequence of the kinds {', '.join(kinds)}.")
    mean, std = normalisation(sums / count, squares / count - (sums / count) ** 2)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "features.npy", np.concatenate(chunks))
    np.savez(out / "statistics.npz", mean=mean, std=std)
    header = {"version": PACK_VERSION, "licence_set": licence_set, "sequences": [asdict(row) for row in index]}
    (out / "index.json").write_text(json.dumps(header))
    return open_pack(out)


def open_pack(folder: Path) -> Pack:
    """Open a pack written by :func:`pack_data`.

    Raises:
        DatasetError: the folder is not a pack of this version, or is incomplete.
    """
    try:
        header = json.loads((folder / "index.json").read_text())
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
    return Pack(features, sequences, mean, std, header["licence_set"])
