"""Checkpoint folders: config.json, tokenizer files, safetensors shards with an index, model card. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from llamo_ros.core.errors import CheckpointError, LlamoError, ParameterError
from llamo_ros.core.resources import assets_path
from llamo_ros.model.config import LlamoConfig
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.shards import SCALE, Shards, is_finite, write_shards
from llamo_ros.model.text_tokenizer import TextTokenizer

FORMAT_VERSION = 1
SMALL_MODEL_BYTES = 500_000_000
SMALL_SHARD_BYTES = 15_000_000  # of a model that travels in a repository or a package
LARGE_SHARD_BYTES = 2_000_000_000


def save_checkpoint(
    model: Llamo,
    tokenizer: TextTokenizer,
    folder: Path,
    metadata: dict[str, str],
    dtype: torch.dtype | None = torch.bfloat16,
    shard_bytes: int | None = None,
) -> None:
    """Write a checkpoint folder.

    Args:
        model: Whose weights and configuration are written.
        tokenizer: Its tokenizer.
        folder: Made if it is missing; a checkpoint in it is replaced.
        metadata: Licence, data and the like, for config.json.
        dtype: Of the weights in the files; None keeps each as it is in memory. Statistics are always kept.
        shard_bytes: Largest shard, [bytes]; None is 15 MB, or 2 GB for models above 500 MB.
    """
    buffers = {name for name, _ in model.named_buffers()}
    tensors = model.state_dict()
    stored = {name: t.dtype if dtype is None or name in buffers else dtype for name, t in tensors.items()}
    sizes = {name: tensor.numel() * stored[name].itemsize for name, tensor in tensors.items()}

    def read(name: str) -> Tensor:
        return tensors[name].detach().to("cpu", stored[name]).contiguous()

    write_checkpoint(folder, model.config, tokenizer, metadata, sizes, read, shard_bytes)


def write_checkpoint(
    folder: Path,
    config: LlamoConfig,
    tokenizer: TextTokenizer,
    metadata: dict[str, str],
    sizes: Mapping[str, int],
    read: Callable[[str], Tensor],
    shard_bytes: int | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write a checkpoint folder from tensors that are read one shard at a time; see :func:`write_shards`.

    config.json comes last: without it a folder is no checkpoint, so one whose writing was interrupted is not taken for
    a whole one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    write_shards(folder, sizes, read, shard_bytes or shard_bytes_for(sum(sizes.values())), on_shard)
    tokenizer.save(folder / "tokenizer.json")
    content = {"format_version": FORMAT_VERSION, "metadata": metadata, "model": config.to_json()}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def shard_bytes_for(total: int) -> int:
    """Largest shard of a model of ``total`` bytes, [bytes]."""
    return SMALL_SHARD_BYTES if total <= SMALL_MODEL_BYTES else LARGE_SHARD_BYTES


def checkpoint_folder(name_or_folder: str | Path) -> Path:
    """Folder of a shipped model by name, or the folder itself.

    Raises:
        CheckpointError: it is neither.
    """
    name = str(name_or_folder) if isinstance(name_or_folder, str | Path) else None
    if name and Path(name).is_dir():  # an empty name is not the folder that we are in
        return Path(name)
    shipped = available_models()
    if name in shipped:
        return shipped[name]
    raise CheckpointError(
        f"there is no model {(name_or_folder if name is None else name)!r}. "
        f"Give a checkpoint folder or one of: {', '.join(shipped) or '(none)'}."
    )


def available_models() -> dict[str, Path]:
    """Models shipped in the package, name -> folder."""
    return {path.parent.name: path.parent for path in sorted(assets_path().glob("*/config.json"))}


def read_config(folder: Path) -> tuple[LlamoConfig, dict[str, str]]:
    """Configuration and metadata (licence, data, ...) of a checkpoint folder.

    Raises:
        CheckpointError: config.json is missing, damaged or of another version.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json. Copy the whole folder.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if "format_version" not in data and "model_type" in data:
            raise CheckpointError(
                f"{folder} is a language model, not a LLaMo checkpoint. Make one of it: `llamo init --base {folder}`."
            )
        version = data["format_version"]
        model, metadata = data["model"], data["metadata"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint configuration ({error!r}).") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version}, this package reads version {FORMAT_VERSION}.")
    return LlamoConfig.from_json(model), metadata


def load_checkpoint(
    name_or_folder: str | Path, device: str = "cpu", dtype: str | None = None
) -> tuple[Llamo, TextTokenizer]:
    """Model (evaluation mode, frozen) and tokenizer of a checkpoint.

    Weights that are stored in the dtype they have in memory stay in mapped files and are not copied; the others,
    those of a quantised checkpoint among them, are converted one tensor at a time.

    Args:
        name_or_folder: Name of a shipped model, or a checkpoint folder.
        device: PyTorch device.
        dtype: "float32" or "bfloat16" in place of the configured dtype of the backbone.

    Raises:
        CheckpointError: a file is missing or damaged, or names and shapes of tensors differ from the configuration.
        ParameterError: there is no such dtype, or PyTorch has no such device here.
    """
    folder = checkpoint_folder(name_or_folder)
    _check_device(device)
    config, _ = read_config(folder)
    config = config if dtype is None else replace(config, dtype=dtype)
    try:
        model = skeleton(config)
    except LlamoError:
        raise
    except Exception as error:  # sizes are whatever the file says, and PyTorch has many errors for them
        raise CheckpointError(
            f"{folder / 'config.json'} has sizes that make no model ({type(error).__name__}: {error}). It was damaged "
            "or edited; copy it again."
        ) from error
    expected = model.state_dict()
    shards = fitting_shards(folder, expected)
    weights, broken = {}, []
    for name, tensor in shards.items():
        if not is_finite(tensor):
            broken.append(name)
        weights[name] = tensor.to(device, expected[name].dtype)
    if broken:
        raise CheckpointError(
            f"{folder} is damaged: {broken[0]} and {len(broken) - 1} other tensors hold NaN or infinite values; "
            "copy the checkpoint again."
        )
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False), TextTokenizer.load(folder / "tokenizer.json")


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except Exception as error:  # each kind of device fails in a way of its own
        reason = str(error).splitlines()[0].rstrip(".")
        raise ParameterError(
            f"device is {device!r}, which PyTorch cannot use here ({reason}). Use 'cpu', or install PyTorch for it."
        ) from error


def fitting_shards(folder: Path, expected: Mapping[str, Tensor]) -> Shards:
    """The tensors of a checkpoint folder, which have the names and shapes of those expected.

    Raises:
        CheckpointError: a file is missing or damaged, or names, shapes or types differ.
    """
    shards = Shards(folder)
    found, shapes = shards.shapes, {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name, dtype in shards.dtypes.items():
        if not isinstance(dtype, torch.dtype):
            raise CheckpointError(
                f"{folder} is damaged: {name} is of type {dtype}, expected a floating type, or I8 with {name}{SCALE} "
                "beside it; copy the checkpoint again."
            )
    if shapes != found:
        wrong = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
        detail = ", ".join(f"{n}: {found.get(n, 'missing')} instead of {shapes.get(n, 'none')}" for n in wrong[:3])
        raise CheckpointError(f"{folder} does not fit its config.json in {len(wrong)} tensors ({detail}).")
    return shards


def skeleton(config: LlamoConfig) -> Llamo:
    """The model with weights that have shape and dtype but no memory; each of them is stored in a checkpoint."""
    with torch.device("meta"):
        return Llamo(config)
