"""Checkpoint folders: config.json, tokenizer.json, safetensors shards with an index, model card. Never pickle."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llamo_ros.core.errors import CheckpointError
from llamo_ros.core.resources import assets_path
from llamo_ros.model.config import LlamoConfig
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer

FORMAT_VERSION = 1
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 15_000_000


def save_checkpoint(
    model: Llamo,
    tokenizer: TextTokenizer,
    folder: Path,
    metadata: dict[str, str],
    dtype: torch.dtype = torch.bfloat16,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint folder: weights as ``dtype``, statistics as float32, shards of at most ``shard_bytes``."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model-*.safetensors"):
        old.unlink()
    buffers = {name for name, _ in model.named_buffers()}
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        tensor = tensor if name in buffers else tensor.to(dtype)
        size = tensor.numel() * tensor.element_size()
        if used and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += size
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file)
        (folder / file).chmod(0o644)  # the library writes 0600, which other users of a machine could not read
        weight_map |= dict.fromkeys(shard, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")
    config = {"format_version": FORMAT_VERSION, "metadata": metadata, "model": model.config.to_json()}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save(folder / "tokenizer.json")


def checkpoint_folder(name_or_folder: str | Path) -> Path:
    """Folder of a shipped model by name, or the folder itself.

    Raises:
        CheckpointError: it is neither.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    shipped = available_models()
    if str(name_or_folder) in shipped:
        return shipped[str(name_or_folder)]
    raise CheckpointError(
        f"there is no model {str(name_or_folder)!r}. "
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
        version = data["format_version"]
        model, metadata = data["model"], data["metadata"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint configuration ({error!r}).") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version}, this package reads version {FORMAT_VERSION}.")
    return LlamoConfig.from_json(model), metadata


def load_checkpoint(name_or_folder: str | Path, device: str = "cpu") -> tuple[Llamo, TextTokenizer]:
    """Model (float32, evaluation mode) and tokenizer of a checkpoint.

    Raises:
        CheckpointError: a file is missing or damaged, or names and shapes of tensors differ from the configuration.
    """
    folder = checkpoint_folder(name_or_folder)
    config, _ = read_config(folder)
    tensors = _read_shards(folder)
    with torch.device("meta"):
        model = Llamo(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        detail = ", ".join(f"{n}: {found.get(n, 'missing')} instead of {expected.get(n, 'none')}" for n in wrong[:3])
        raise CheckpointError(f"{folder} does not fit its config.json in {len(wrong)} tensors ({detail}).")
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"{folder} is damaged: {broken[0]} and {len(broken) - 1} other tensors hold NaN or infinite values; "
            "copy the checkpoint again."
        )
    with torch.device(device):
        model = Llamo(config)
    model.load_state_dict({name: tensor.to(device, torch.float32) for name, tensor in tensors.items()})
    return model.eval().requires_grad_(False), TextTokenizer.load(folder / "tokenizer.json")


def _read_shards(folder: Path) -> dict[str, Tensor]:
    try:
        weight_map: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / INDEX} cannot be read ({error!r}); copy the checkpoint again.") from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        path = folder / Path(file).name
        if not path.is_file():
            raise CheckpointError(f"shard {path.name} of {folder} is missing; copy all {len(files)} shards again.")
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"shard {path} is damaged ({error}); copy it again.") from error
    return tensors
