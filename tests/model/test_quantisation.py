"""Quantised checkpoints: the same motion to the bit, the same language to the bit, and damage that is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import load_checkpoint, read_config, save_checkpoint
from llamo_ros.model.config import LlamoConfig, preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.quantisation import kernel_matrices, quantise_checkpoint, quantised
from llamo_ros.model.shards import SCALE, Shards, write_shards
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.pipelines.text_to_motion import TextToMotion

TINY = preset("tiny")
CONFIGS = {
    "patch body, separable head": TINY,
    "conv body, joint head": replace(
        TINY,
        vae=replace(TINY.vae, body="conv"),
        flow_head=replace(TINY.flow_head, modulation="joint", affine_norm=True),
    ),
}
FILE = "model-00001-of-00001.safetensors"
MATRIX = "backbone.motion.layers.1.mlp.down_proj.weight"


def random_model(config: LlamoConfig) -> Llamo:
    """A model in which every weight counts."""
    torch.manual_seed(0)
    model = Llamo(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    return model


@pytest.fixture
def save(tokenizer: TextTokenizer, tmp_path: Path) -> Callable[[LlamoConfig], Path]:
    """A function that writes a random model in the dtypes it has in memory, and returns its folder."""

    def write(config: LlamoConfig) -> Path:
        save_checkpoint(random_model(config), tokenizer, tmp_path / "model", {"name": "my", "licence": "mine"}, None)
        return tmp_path / "model"

    return write


@pytest.fixture
def int8(save: Callable[[LlamoConfig], Path], tmp_path: Path) -> Path:
    """A quantised checkpoint."""
    quantise_checkpoint(save(TINY), tmp_path / "int8")
    return tmp_path / "int8"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """What the one file of a checkpoint holds, in memory: the file may be replaced."""
    return {name: tensor.clone() for name, tensor in load_file(folder / FILE).items()}


def motion(folder: Path, precision: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Latents and joint rotations of two seconds, made by the compiled kernels."""
    chunks = list(
        TextToMotion(*load_checkpoint(folder), backend="cpu", precision=precision).stream(
            "a person walks", seed=3, min_duration=2.0, max_duration=2.0, guidance_scale=2.0
        )
    )
    return np.stack([chunk.latent for chunk in chunks]), np.concatenate([chunk.clip.rotations for chunk in chunks])


# What is stored


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_motion_is_the_same_to_the_bit_as_of_the_original_in_that_precision(
    config: LlamoConfig, precision: str, save: Callable[[LlamoConfig], Path], tmp_path: Path
) -> None:
    source, out = save(config), tmp_path / "out"
    quantise_checkpoint(source, out, precision)
    latents, rotations = motion(out, None)
    expected_latents, expected_rotations = motion(source, precision)
    assert np.array_equal(latents, expected_latents)
    assert np.array_equal(rotations, expected_rotations)
    assert not np.array_equal(latents, motion(source, "float32")[0])


def test_all_else_is_copied_to_the_bit_so_language_is_kept(save: Callable[[LlamoConfig], Path], int8: Path) -> None:
    original, _ = load_checkpoint(int8.parent / "model")
    model, _ = load_checkpoint(int8)
    expected, found = original.state_dict(), model.state_dict()
    names = kernel_matrices(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected if name not in names)
    tokens = torch.tensor([[5, 9, 2, 7]])
    assert torch.equal(model.text_logits(tokens), original.text_logits(tokens))
    for name in names:
        error = (found[name] - expected[name]).abs().amax(dim=1)
        half_a_step = expected[name].abs().amax(dim=1) / 254
        assert (error <= 1.001 * half_a_step).all()  # float32 rounds the product of whole number and scale
        assert error.max() > 0


def test_stored_are_whole_numbers_with_a_scale_for_each_output(int8: Path) -> None:
    stored = tensors_of(int8)
    assert stored[MATRIX].dtype == torch.int8
    assert stored[MATRIX].abs().amax() == 127
    assert (stored[MATRIX + SCALE].dtype, stored[MATRIX + SCALE].shape) == (torch.float32, stored[MATRIX].shape[:1])
    assert {name.removesuffix(SCALE) for name in stored if name.endswith(SCALE)} == Shards(int8).quantised
    assert Shards(int8).quantised == kernel_matrices(Llamo(TINY))


def test_scales_and_whole_numbers_of_what_is_read_back_are_the_same() -> None:
    # 1 of 128 float32 numbers is not the scale of any row; from those that are, the largest weight comes back exactly.
    random = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(20_000, 24, generator=random) * 10.0 ** (16 * torch.rand(20_000, 1, generator=random) - 8)
    weight_OI[7] = 0.0
    scale_O, whole_OI = quantised(weight_OI)
    again_O, again_OI = quantised(whole_OI.float() * scale_O[:, None])
    assert torch.equal(again_O, scale_O)
    assert torch.equal(again_OI, whole_OI)
    assert (whole_OI.abs().amax(dim=1) == 127).sum() == len(whole_OI) - 1


def test_the_matrices_are_those_that_compiled_kernels_are_given() -> None:
    model = Llamo(CONFIGS["conv body, joint head"])
    given: list[Tensor] = [o.weight for o in model.vae.decoder.operations() if hasattr(o, "kernel")]
    given += [layer.weight for block in model.flow_head.blocks for layer in (block.l1, block.l2)]
    for layer in model.backbone.motion.layers:
        attention, ffn = layer.self_attn, layer.mlp
        given += [part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)]
        given += [part.weight for part in (ffn.gate_proj, ffn.up_proj, ffn.down_proj)]
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    assert kernel_matrices(model) == {name_of[id(weight)] for weight in given}


def test_a_branch_that_speaks_both_is_left_as_it_is(save: Callable[[LlamoConfig], Path], tmp_path: Path) -> None:
    config = replace(TINY, backbone=replace(TINY.backbone, separate_motion=False))
    assert quantise_checkpoint(save(config), tmp_path / "out").matrices > 0
    assert not [name for name in Shards(tmp_path / "out").quantised if name.startswith("backbone.")]


# The folder


def test_metadata_and_licences_go_along_and_the_size_is_told(save: Callable[[LlamoConfig], Path]) -> None:
    source = save(TINY)
    out = source.parent / "int8"
    (source / "LICENSE").write_text("terms")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    made = quantise_checkpoint(source, out)
    config, metadata = read_config(out)
    assert config == replace(TINY, generation=replace(TINY.generation, precision="int8"))
    assert (metadata["name"], metadata["licence"]) == ("my", "mine")
    assert metadata["quantised"].startswith(f"int8: {made.matrices} matrices")
    assert (out / "LICENSE").read_text() == "terms"
    assert made.bytes_before == sum(file.stat().st_size for file in source.glob("*.safetensors"))
    assert made.bytes_after == sum(file.stat().st_size for file in out.glob("*.safetensors")) < made.bytes_before
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    assert MotionRuntime(load_checkpoint(out)[0]).precision == "int8"
    assert MotionRuntime(load_checkpoint(out)[0], backend="reference").precision == "float32"


def test_a_matrix_and_its_scales_may_lie_in_different_shards(int8: Path) -> None:
    expected = {name: tensor.clone() for name, tensor in load_checkpoint(int8)[0].state_dict().items()}
    tensors = tensors_of(int8)
    write_shards(int8, {name: t.nbytes for name, t in tensors.items()}, tensors.__getitem__, shard_bytes=1)
    shards = Shards(int8)
    found = load_checkpoint(int8)[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert torch.equal(shards.tensor(MATRIX), expected[MATRIX])  # as `llamo init --vae` reads it
    assert shards.dtypes[MATRIX] == torch.float32


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing scale": (lambda stored: stored.pop(MATRIX + SCALE), f"{MATRIX}{SCALE}"),
    "missing matrix": (lambda stored: stored.pop(MATRIX), MATRIX),
    "wrong shape": (lambda stored: stored.update({MATRIX + SCALE: torch.ones(3)}), f"{MATRIX}{SCALE}.*(3,)"),
    "wrong type": (
        lambda stored: stored.update({MATRIX + SCALE: stored[MATRIX + SCALE].double()}),
        f"{MATRIX}{SCALE} is torch.float64",
    ),
    "NaN scale": (lambda stored: stored[MATRIX + SCALE].__setitem__(2, torch.nan), f"{MATRIX}{SCALE} holds NaN"),
    "infinite scale": (lambda stored: stored[MATRIX + SCALE].__setitem__(0, torch.inf), f"{MATRIX}{SCALE} holds NaN"),
    "negative scale": (lambda stored: stored[MATRIX + SCALE].mul_(-1), f"{MATRIX}{SCALE} holds NaN"),
    "other whole numbers": (lambda stored: stored.update({MATRIX: stored[MATRIX].short()}), f"{MATRIX} is of type I16"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_refused_with_a_sentence(
    damage: Callable[[dict[str, Tensor]], object], says: str, int8: Path
) -> None:
    stored = tensors_of(int8)
    damage(stored)
    save_file(stored, int8 / FILE)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(int8)
    assert str(int8) in str(caught.value)


# What is refused


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_a_quantised_checkpoint_is_not_quantised_again(
    precision: str, save: Callable[[LlamoConfig], Path], tmp_path: Path
) -> None:
    quantise_checkpoint(save(TINY), tmp_path / "out", precision)
    with pytest.raises(CheckpointError, match="quantised already"):
        quantise_checkpoint(tmp_path / "out", tmp_path / "again")
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    del content["metadata"]["quantised"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(content))
    if precision == "int8":  # bfloat16 leaves no other trace
        with pytest.raises(CheckpointError, match="quantised already"):
            quantise_checkpoint(tmp_path / "out", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_quantised_is_refused_with_what_can(save: Callable[[LlamoConfig], Path], tmp_path: Path) -> None:
    source = save(replace(TINY, dtype="bfloat16"))
    with pytest.raises(CheckpointError, match="backbone in bfloat16.*Only models with a backbone in float32"):
        quantise_checkpoint(source, tmp_path / "out")
    with pytest.raises(ParameterError, match="'int4', expected one of int8, bfloat16"):
        quantise_checkpoint(source, tmp_path / "out", "int4")
    with pytest.raises(CheckpointError, match="already holds a model"):
        quantise_checkpoint(source, source)
    assert not (tmp_path / "out").exists()
