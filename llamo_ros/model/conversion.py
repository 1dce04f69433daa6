"""A LLaMo checkpoint from a Llama: how `llamo init` begins (supplement, section 1.2).

The text branch is the base, bit for bit. The motion branch is a copy of it, [BOM] and [EOM] are the mean of its
embedding table, and the rest of the motion side is freshly initialised.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from llamo_ros import __version__
from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import checkpoint_folder, read_config, skeleton, write_checkpoint
from llamo_ros.model.config import BASE_PRESETS, LlamoConfig, preset
from llamo_ros.model.llama import mean_embedding
from llamo_ros.model.llama_base import LlamaBase, differences
from llamo_ros.model.llamo import WEIGHT_DTYPES, Llamo
from llamo_ros.model.shards import Shards

TEXT, MOTION = "backbone.text.", "backbone.motion."
VAE_STATISTICS = ("latent_mean", "latent_std")


def config_for(base: LlamaBase, preset_name: str, dtype: str | None = None) -> LlamoConfig:
    """Configuration of the model that is made of a base.

    Args:
        base: The base.
        preset_name: One of ``BASE_PRESETS``: a fixed size of the paper, or "custom", see :func:`custom_config`.
        dtype: "float32" or "bfloat16"; None is the base's own.

    Raises:
        CheckpointError: the base has other sizes than the preset.
        ParameterError: no such preset or dtype, or the base's own is neither of the two.
    """
    if preset_name not in BASE_PRESETS:
        raise ParameterError(f"preset {preset_name!r} takes no base. Presets that do: {', '.join(BASE_PRESETS)}.")
    config = custom_config(base) if preset_name == "custom" else preset(preset_name)
    differing = differences(base.config, config.backbone)
    if differing:
        raise CheckpointError(
            f"{base.name} has not the sizes of preset {preset_name} ({'; '.join(differing)}). "
            "Choose another preset, or custom, which takes the sizes of any Llama."
        )
    own = {value: name for name, value in WEIGHT_DTYPES.items()}.get(base.dtype)
    if dtype is None and own is None:
        raise ParameterError(
            f"{base.name} has weights of type {base.dtype}, LLaMo has float32 and bfloat16. Choose one with --dtype; "
            "from float16, float32 is exact."
        )
    return replace(config, dtype=dtype or own)


def custom_config(base: LlamaBase) -> LlamoConfig:
    """Configuration for a Llama of any size.

    The motion side keeps the proportions it has in LLaMo-1B, and never grows beyond it, since the paper's is the same
    from 1B to 8B: flow head 3/4 as wide as the backbone and 3/4 as deep, VAE and exit head half as wide.
    """
    width, layers = base.config.width, base.config.layers
    largest = preset("1b")

    def part(share: float, most: int) -> int:
        return min(most, max(16, 16 * round(share * width / 16)))

    half = part(1 / 2, largest.exit_width)
    return replace(
        largest,
        name="custom",
        backbone=base.config,
        vae=replace(largest.vae, width=half),
        flow_head=replace(
            largest.flow_head,
            width=part(3 / 4, largest.flow_head.width),
            blocks=min(largest.flow_head.blocks, max(1, round(3 / 4 * layers))),
        ),
        exit_width=half,
    )


def convert_base(
    base: LlamaBase,
    config: LlamoConfig,
    out: Path,
    *,
    vae: str | None = None,
    seed: int = 0,
    shard_bytes: int | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> LlamoConfig:
    """Write the checkpoint folder of the model that motion training starts from.

    Only one shard is in memory at a time, and its weights are the base's own mapped pages wherever the dtypes agree.

    Args:
        base: The base.
        config: From :func:`config_for`.
        out: Folder to write; must not hold a checkpoint.
        vae: Checkpoint (name or folder) that gives motion VAE and latent statistics; None: a fresh, untrained VAE.
        seed: Of what is freshly initialised.
        shard_bytes: Largest shard, [bytes]; None chooses by the size of the model.
        on_shard: Called with the number of shards written and their count, after each.

    Returns:
        The configuration as written, with that of the VAE.

    Raises:
        CheckpointError: `out` holds a checkpoint, the disk is too small, or the base or the VAE is damaged.
    """
    if (out / "config.json").exists():
        raise CheckpointError(f"{out} already holds a model. Choose another folder, or remove that one.")
    other = Shards(checkpoint_folder(vae)) if vae else None
    if vae:
        config = replace(config, vae=read_config(checkpoint_folder(vae))[0].vae)
    weights = skeleton(config).state_dict()
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in weights.items()}
    if other:
        _check_vae(other, weights)
    fresh = _fresh_parts(config, seed)

    def read(name: str) -> Tensor:
        dtype = weights[name].dtype
        if name.startswith((TEXT, MOTION)):
            return base.tensor(name.removeprefix(TEXT).removeprefix(MOTION)).to(dtype)
        if name == "special_tokens":
            return mean_embedding(base.tensor("embed_tokens.weight")).expand(2, -1).to(dtype).contiguous()
        if other and _is_of_vae(name):
            return other.tensor(name).to(dtype)
        return fresh[name]

    out.mkdir(parents=True, exist_ok=True)
    needed, free = sum(sizes.values()), shutil.disk_usage(out).free
    if free < needed:
        raise CheckpointError(f"{out} needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left.")
    tokenizer = base.tokenizer()
    for file in base.licence_files():
        shutil.copyfile(file, out / file.name)
    metadata = {
        "name": out.resolve().name,
        "base": base.name,
        "licence": f"that of its base, {base.name}" + (f", and of {vae}, which gave the motion VAE" if vae else ""),
        "data": "none for motion: this is where motion training starts",
        "seed": str(seed),
        "version": __version__,
    }
    write_checkpoint(out, config, tokenizer, metadata, sizes, read, shard_bytes, on_shard)
    return config


def _is_of_vae(name: str) -> bool:
    return name in VAE_STATISTICS or name.startswith("vae.")


def _check_vae(other: Shards, weights: dict[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in weights.items() if _is_of_vae(name)}
    wrong = [name for name, shape in expected.items() if other.shapes.get(name) != shape]
    if wrong:
        raise CheckpointError(
            f"{other.folder} does not fit its config.json in {len(wrong)} tensors of the motion VAE ({wrong[0]}: "
            f"{other.shapes.get(wrong[0], 'missing')} instead of {expected[wrong[0]]}); copy it again."
        )


def _fresh_parts(config: LlamoConfig, seed: int) -> dict[str, Tensor]:
    """All weights but the backbone's, initialised: those of a model with a backbone of that width and no layers."""
    without_layers = replace(config.backbone, layers=0, vocab_size=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Llamo(replace(config, backbone=without_layers)).state_dict()
