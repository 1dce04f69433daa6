"""Training data as tar shards in WebDataset's layout, for data that do not fit into memory.

A folder holds ``train-000000.tar``, ``val-000000.tar`` and so on, each with ``000000000.npy`` (features (T, 272)) and
``000000000.json`` (its words) per sample, and ``shards.json``, which says how long every sample is. Any reader of
WebDataset can stream the shards; ours reads single samples from them, so that an order can go on anywhere.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.motion.representation272 import FEATURE_COUNT
from llamo_ros.training.filters import is_static
from llamo_ros.training.motion_data import MIN_LATENTS, WordedClip, clips_of_sequence, segments_of_sequence
from llamo_ros.training.pack import Pack

INDEX = "shards.json"
SHARDS_VERSION = 1
SPLITS = ("train", "val")
OPEN_SHARDS = 256


@dataclass(frozen=True)
class Shard:
    """What the index says of one tar file.

    Attributes:
        file: Its name.
        lengths: Frames of each sample.
        static: Whether each sample is without expressive motion.
    """

    file: str
    lengths: tuple[int, ...]
    static: tuple[bool, ...]


@dataclass(frozen=True)
class ShardSet:
    """An opened folder of shards.

    Attributes:
        folder: Where it is.
        shards: Shards by split.
        mean: Mean of the features, as in the pack, shape (272,).
        std: Their scale, as in the pack, shape (272,).
        licence_set: Key of :data:`~llamo_ros.training.pack.LICENCE_SETS`.
        licences: As in the pack.
    """

    folder: Path
    shards: Mapping[str, tuple[Shard, ...]]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    licence_set: str
    licences: Mapping[str, int]

    def __len__(self) -> int:
        """Samples of all splits."""
        return sum(len(shard.lengths) for shards in self.shards.values() for shard in shards)

    def read(self, split: str, shard: int, position: int) -> tuple[NDArray[np.float32], WordedClip]:
        """Features (T, 272) and words of one sample.

        Raises:
            DatasetError: the shard is missing, damaged, or not the one of the index.
        """
        entry = self.shards[split][shard]
        path = self.folder / entry.file
        try:
            table = _members(path)
            if len(table) != len(entry.lengths):
                raise ValueError(f"it holds {len(table)} samples, and {INDEX} says {len(entry.lengths)}")
            with path.open("rb") as file:
                parts = []
                for start, size in table[position]:
                    file.seek(start)
                    parts.append(file.read(size))
            features = np.load(io.BytesIO(parts[0])).astype(np.float32)
            if features.shape != (entry.lengths[position], FEATURE_COUNT):
                raise ValueError(f"sample {position} has shape {features.shape}")
            words = json.loads(parts[1])
            return features, WordedClip(**words | {"captions": tuple(words["captions"])})
        except (OSError, ValueError, KeyError, TypeError, EOFError, tarfile.TarError) as error:
            raise DatasetError(
                f"{path} cannot be read ({error}). Write the shards again with `llamo data shards`."
            ) from error


@lru_cache(maxsize=OPEN_SHARDS)
def _members(path: Path) -> NDArray[np.int64]:
    """Where features and words of each sample lie in a tar file: start and size, shape (N, 2, 2), [bytes]."""
    places: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            places.setdefault(key, {})[kind] = (member.offset_data, member.size)
    return np.array([(place["npy"], place["json"]) for place in places.values()], dtype=np.int64).reshape(-1, 2, 2)


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder holds shards, and not a pack."""
    return (folder / INDEX).is_file()


def open_shards(folder: Path) -> ShardSet:
    """Open a folder written by :func:`write_shards`.

    Raises:
        DatasetError: it is no such folder.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["version"] != SHARDS_VERSION:
            raise DatasetError(f"{folder} holds shards of version {index['version']}, expected {SHARDS_VERSION}.")
        shards = {
            split: tuple(Shard(row["file"], tuple(row["lengths"]), tuple(row["static"])) for row in rows)
            for split, rows in index["splits"].items()
        }
        mean, std = (np.array(index[name], dtype=np.float32) for name in ("mean", "std"))
        return ShardSet(folder, shards, mean, std, index["licence_set"], index["licences"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder} is not a readable folder of shards ({error}). Write one with `llamo data shards`."
        ) from error


def write_shards(
    pack: Pack, out: Path, samples_per_shard: int = 1000, mirrored: bool = True, dtype: str = "float16", seed: int = 0
) -> ShardSet:
    """Write the clips of a pack, their mirror images and their labelled parts as shards, in random order.

    Args:
        pack: Where they come from.
        out: Folder to write.
        samples_per_shard: Samples of each tar file but the last.
        mirrored: Whether training samples get their mirror images beside them.
        dtype: Of the features: float16 (rounds by up to 1 mm) or float32.
        seed: Of the order and of the length of stands.

    Raises:
        DatasetError: the folder holds shards already, or there is no training sample.
    """
    if is_shard_folder(out):
        raise DatasetError(f"{out} holds shards already; choose another folder or delete it.")
    out.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split in SPLITS:
        samples = _samples(pack, split, mirrored and split == "train", seed)
        splits[split] = _write_split(samples, out, split, samples_per_shard, dtype)
    if not splits["train"]:
        raise DatasetError("the pack has no training clip that is long enough; pack other data.")
    index = {
        "version": SHARDS_VERSION,
        "licence_set": pack.licence_set,
        "licences": dict(pack.licences),
        "mean": pack.mean.tolist(),
        "std": pack.std.tolist(),
        "splits": splits,
    }
    partial = out / f"{INDEX}.partial"
    partial.write_text(json.dumps(index), encoding="utf-8")
    partial.replace(out / INDEX)  # last, so that a folder with an index is complete
    return open_shards(out)


def _samples(pack: Pack, split: str, mirrored: bool, seed: int) -> Iterator[tuple[NDArray, WordedClip]]:
    rows = pack.split(split)
    rng = np.random.default_rng(seed)
    for number in tqdm(rng.permutation(len(rows)), desc=f"writing {split}", unit="clip"):
        yield from clips_of_sequence(pack, rows[number], mirrored)
        if split == "train":
            yield from segments_of_sequence(pack, rows[number], rng, mirrored)


def _write_split(
    samples: Iterable[tuple[NDArray, WordedClip]], out: Path, split: str, per_shard: int, dtype: str
) -> list[dict[str, Any]]:
    """Rows of the index for the tar files written."""
    rows: list[dict[str, Any]] = []
    tar: tarfile.TarFile | None = None
    count = 0
    try:
        for features, words in samples:
            if len(features) < MIN_LATENTS * FRAMES_PER_LATENT:
                continue
            if tar is None or len(rows[-1]["lengths"]) == per_shard:
                if tar is not None:
                    tar.close()
                rows.append({"file": f"{split}-{len(rows):06d}.tar", "lengths": [], "static": []})
                tar = tarfile.open(out / rows[-1]["file"], "w", format=tarfile.USTAR_FORMAT)
            array = io.BytesIO()
            np.save(array, np.asarray(features, dtype=dtype))
            _add(tar, f"{count:09d}.npy", array.getvalue())
            _add(tar, f"{count:09d}.json", json.dumps(vars(words)).encode())
            rows[-1]["lengths"].append(len(features))
            rows[-1]["static"].append(bool(is_static(features)))
            count += 1
    finally:
        if tar is not None:
            tar.close()
    return rows


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
