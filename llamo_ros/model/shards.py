"""Folders of safetensors files with an index, as Hugging Face lays them out.

They are read one tensor at a time and written shard by shard, so that a model larger than the memory can be copied.

An int8 tensor with a float32 tensor ``<name>.scale`` beside it, one scale per output (row), is a quantised matrix: it
is given as the float32 matrix that it stands for.
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
SCALE = ".scale"  # behind the name of a quantised matrix

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Shards:
    """The tensors of a folder. Nothing but names, shapes and dtypes is read until a tensor is asked for.

    Tensors live in mapped memory: pages are read from the file when they are touched, and the system may drop them
    again. Writing to such a tensor leaves the file as it is.

    Attributes:
        folder: Where the files are.
        shapes: Shape of each tensor by name.
        dtypes: Dtype of each; a type that no weight of this package has (int8 without scales, float8) stands as its
            safetensors name.
        quantised: Names of the quantised matrices.
    """

    def __init__(self, folder: Path) -> None:
        """Read the index, or the one file where there is none, and the header of each file.

        Raises:
            CheckpointError: a file is missing or damaged, or scales do not fit their matrix.
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
        pairs = [name for name, dtype in self.dtypes.items() if dtype == "I8" and name + SCALE in self.shapes]
        self.quantised = frozenset(pairs)
        for name in pairs:
            self._join(name)

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped on its own: its pages are free again when it is.

        Raises:
            CheckpointError: it holds NaN or infinite values, or its file is damaged.
        """
        tensor = self._read(name)
        tensor = self._dequantised(name, tensor) if name in self.quantised else tensor
        if not is_finite(tensor):
            raise CheckpointError(f"{self.folder} is damaged: {name} holds NaN or infinite values; copy it again.")
        return tensor

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with their names, one mapping per file; of their values only scales are checked.

        Raises:
            CheckpointError: a file is damaged, or a scale is NaN, infinite or negative.
        """
        for file, names in self._names_in.items():
            with self._opened(file) as shard:
                for name in names:
                    if name in self.quantised:
                        yield name, self._dequantised(name, shard.get_tensor(name))
                    elif name in self.shapes:  # not the scales of a quantised matrix
                        yield name, shard.get_tensor(name)

    def _join(self, name: str) -> None:
        """Make one float32 tensor of a quantised matrix and its scales, in what the outside sees."""
        shape, scale_shape = self.shapes[name], self.shapes.pop(name + SCALE)
        scale_dtype = self.dtypes.pop(name + SCALE)
        if len(shape) != 2 or scale_shape != shape[:1] or scale_dtype != torch.float32:
            raise CheckpointError(
                f"{self.folder} is damaged: {name}{SCALE} is {scale_dtype} of shape {scale_shape}, expected float32 "
                f"and one scale for each row of {name}, which has shape {shape}; copy the checkpoint again."
            )
        self.dtypes[name] = torch.float32

    def _read(self, name: str) -> Tensor:
        with self._opened(self._file_of[name]) as shard:
            return shard.get_tensor(name)

    def _dequantised(self, name: str, whole_OI: Tensor) -> Tensor:
        scale_O = self._read(name + SCALE)
        if not bool((scale_O.isfinite() & (scale_O >= 0)).all()):
            raise CheckpointError(
                f"{self.folder} is damaged: {name}{SCALE} holds NaN, infinite or negative values, which are no scales; "
                "copy the checkpoint again."
            )
        return whole_OI.float() * scale_O[:, None]

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
