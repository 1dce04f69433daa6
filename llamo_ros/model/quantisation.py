"""Quantised checkpoints: matrices of the motion side are stored as the compiled kernels keep them, the rest as it was.

The kernels keep three parts in another precision than float32: the motion branch of the backbone, the blocks of the
flow head and the decoder of the VAE. "int8" stores each of their matrices as whole numbers from -127 to 127 with one
scale per output, its largest weight / 127. That is what a kernel makes of the float32 matrix, and when it packs the
matrix that is read back it comes to the very same numbers: the latents and frames that a prompt gives in int8 are the
same, to the bit, from either checkpoint. What PyTorch runs of these parts, motion that is to be captioned, sees the
matrices as they were rounded.

The text branch is copied as it is, so the language model stays what it was, to the bit.
"""

# O outputs, I inputs

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import checkpoint_folder, fitting_shards, read_config, skeleton, write_checkpoint
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.shards import INDEX, SCALE
from llamo_ros.model.text_tokenizer import TextTokenizer

STORED_PRECISIONS = ("int8", "bfloat16")
LARGEST = 127.0  # whole number


@dataclass(frozen=True)
class QuantisedCheckpoint:
    """What was written.

    Attributes:
        matrices: Number of matrices that are stored in the precision.
        bytes_before: Size of all weights in files, [bytes].
        bytes_after: The same of the new checkpoint, [bytes].
    """

    matrices: int
    bytes_before: int
    bytes_after: int


def quantise_checkpoint(checkpoint: str | Path, out: Path, precision: str = "int8") -> QuantisedCheckpoint:
    """Write a checkpoint whose motion side is stored in a lower precision, and whose motion is made in it.

    Licences, model card, tokenizer and metadata go along; the metadata gets a note ``quantised``. Only one shard is in
    memory at a time.

    Args:
        checkpoint: Name of a shipped model, or a checkpoint folder; it is only read.
        out: Folder to write; must not hold a checkpoint.
        precision: "int8", or "bfloat16": the same matrices rounded to that.

    Raises:
        CheckpointError: the checkpoint is damaged, quantised already, or has a backbone in bfloat16, or `out` holds a
            checkpoint.
        ParameterError: there is no such precision.
    """
    if precision not in STORED_PRECISIONS:
        raise ParameterError(f"precision is {precision!r}, expected one of {', '.join(STORED_PRECISIONS)}.")
    source = checkpoint_folder(checkpoint)
    config, metadata = read_config(source)
    if (out / "config.json").exists():
        raise CheckpointError(f"{out} already holds a model. Choose another folder, or remove that one.")
    if config.dtype != "float32":
        raise CheckpointError(
            f"{source} has a backbone in {config.dtype}, which PyTorch runs and not the kernels that know int8. Only "
            "models with a backbone in float32 can be quantised; `llamo init --dtype float32` makes such."
        )
    model = skeleton(config)
    shards = fitting_shards(source, model.state_dict())
    if shards.quantised or "quantised" in metadata:
        note = metadata.get("quantised", "int8 matrices")
        raise CheckpointError(f"{source} is quantised already ({note}). Quantise the checkpoint that it was made of.")

    matrices = kernel_matrices(model)
    sizes: dict[str, int] = {}
    for name, shape in shards.shapes.items():
        count = torch.Size(shape).numel()
        if name not in matrices:
            sizes[name] = count * shards.dtypes[name].itemsize
        elif precision == "int8":
            sizes |= {name: count, name + SCALE: shape[0] * torch.float32.itemsize}
        else:
            sizes[name] = count * torch.bfloat16.itemsize

    def read(name: str) -> Tensor:
        matrix = name.removesuffix(SCALE)
        if matrix not in matrices:
            return shards.tensor(name)
        weight_OI = shards.tensor(matrix)
        if precision == "bfloat16":
            return weight_OI.bfloat16()
        scale_O, whole_OI = quantised(weight_OI)
        return whole_OI if name == matrix else scale_O

    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():  # licences and model card; the rest is written below
        if file.is_file() and file.suffix != ".safetensors" and file.name not in (INDEX, "config.json"):
            shutil.copyfile(file, out / file.name)
    config = replace(config, generation=replace(config.generation, precision=precision))
    of = metadata.get("name", source.name)
    note = f"{precision}: {len(matrices)} matrices of the motion side of {of}; all else as it was"
    tokenizer = TextTokenizer.load(source / "tokenizer.json")
    write_checkpoint(out, config, tokenizer, metadata | {"quantised": note}, sizes, read)
    return QuantisedCheckpoint(len(matrices), weight_bytes(source), weight_bytes(out))


def kernel_matrices(model: Llamo) -> frozenset[str]:
    """Names of the weights that compiled kernels keep in the precision of generation.

    A motion branch that is the text branch too is not among them: its language would suffer.
    """
    parts = {
        "backbone.motion": model.backbone.motion,
        "flow_head.blocks": model.flow_head.blocks,
        "vae.decoder": model.vae.decoder,
    }
    return frozenset(
        f"{part}.{name}.weight"
        for part, module in parts.items()
        if module is not None
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    )


def quantised(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Scales (O,), float32, and whole numbers (O, I), int8, of a matrix; as kernels/common/linear.cpp makes them."""
    weight_OI = weight_OI.float()
    largest_O = weight_OI.abs().amax(dim=1)
    scale_O = largest_O / torch.full_like(largest_O, LARGEST)  # a division by a number may become a multiplication
    step_O1 = scale_O[:, None]
    whole_OI = torch.where(step_O1 > 0, weight_OI / step_O1, 0.0).round().to(torch.int8)
    return scale_O, whole_OI


def weight_bytes(folder: Path) -> int:
    """Size of the weights of a checkpoint folder, [bytes]."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
