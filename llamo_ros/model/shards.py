"""Folders of safetensors files with an index, as Hugging Face lays them out.

They are read one tensor at a time and written shard by shard, so that a model larger than the memory can be copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llamo_ros.core.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Shards:
    """The tensors of a folder. Nothing but names, shapes and dtypes is read until a tensor is asked for.

    Tensors live in mapped memory: pages are read from the file when they are touched, and the system may drop them
    again. Writing to such a tensor leaves the file as it is.

    Attributes:
        folder: Where the files are.
        shapes: Shape of each tensor by name.
        dtypes: Dtype of each; a type that no weight of this package has (int8, float8) stands as its safetensors name.
    """

    def __init__(self, folder: Path) -> None:
        """Read the index, or the one file where there is none, and the header of each file.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype | str] = {}
        self._names_in: dict[str, list[str]] = {}
        for file in self._files():
            with self._opened(file) as shard:
                self._names_in[file] = list(shard.keys())
                for name in self._names_in[file]:
                    header = shard.get_slice(name)
                    self.shapes[name] = tuple(header.get_shape())
                    self.dtypes[name] = _DTYPES.get(header.get_dtype(), header.get_dtype())
        self._file_of = {name: file for file, names in self._names_in.items() for name in names}

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped on its own: its pages are free again when it is.

        Raises:
            CheckpointError: it holds NaN or infinite values, or its file is damaged.
        """
        with self._opened(self._file_of[name]) as shard:
            tensor = shard.get_tensor(name)
        if not is_finite(tensor):
            raise CheckpointError(f"{self.folder} is damaged: {name} holds NaN or infinite values; copy it again.")
        return tensor

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with their names, one mapping per file, unchecked.

        Raises:
            CheckpointError: a file is damaged.
        """
        for file, names in self._names_in.items():
            with self._opened(file) as shard:
                yield from ((name, shard.get_tensor(name)) for name in names)

    def _files(self) -> list[str]:
        index = self.folder / INDEX
        if not index.is_file() and (self.folder / SINGLE).is_file():
            return [SINGLE]
        try:
            weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return sorted({Path(file).name for file in weight_map.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} cannot be read ({error!r}); copy the checkpoint again.") from error

    @contextmanager
    def _opened(self, file: str) -> Iterator[safe_open]:
        path = self.folder / file
        if not path.is_file():
            raise CheckpointError(f"shard {file} of {self.folder} is missing; copy all shards again.")
        try:
            with safe_open(path, framework="pt") as shard:
                yield shard
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"shard {path} is damaged ({error}); copy it again.") from error


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; makes no copy of the tensor, as ``torch.isfinite`` would."""
    return tensor.numel() == 0 or all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


def write_shards(
    folder: Path,
    sizes: Mapping[str, int],
    read: Callable[[str], Tensor],
    shard_bytes: int,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write tensors as shards of at most ``shard_bytes`` with an index; only one shard is in memory at a time.

    Args:
        folder: Exists. Shards of an earlier checkpoint in it are removed.
        sizes: Size of each tensor by name, [bytes], in the order they are written.
        read: Gives the tensor of a name, contiguous, in main memory, of that size.
        shard_bytes: A larger tensor gets a shard of its own.
        on_shard: Called with the number of shards written and their count, after each.
    """
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if used and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    for old in (folder / INDEX, folder / SINGLE, *folder.glob("model-*.safetensors")):
        old.unlink(missing_ok=True)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: read(name) for name in names}, folder / file)
        (folder / file).chmod(0o644)  # the library writes 0600, which other users of a machine could not read
        weight_map |= dict.fromkeys(names, file)
        if on_shard:
            on_shard(number, len(shards))
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
