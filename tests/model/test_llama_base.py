"""A Hugging Face Llama as base: what it becomes, in which sizes and dtypes, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.checkpoint import load_checkpoint, read_config, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.conversion import config_for, custom_config
from llamo_ros.model.llama_base import LlamaBase, open_base
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.shards import Shards
from llamo_ros.model.text_tokenizer import TextTokenizer


def mapped_file(address: int) -> str:
    """File that the memory at an address is a mapping of; empty where it is none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5) + [""] * (6 - len(line.split(maxsplit=5)))
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return name
    return ""


# What a base becomes


def test_the_text_branch_is_the_base_bit_for_bit_and_the_motion_branch_its_copy(
    converted: tuple[Path, Path], base_model: Callable[..., Any]
) -> None:
    base, checkpoint = converted
    model, _ = load_checkpoint(checkpoint)
    expected = {name.removeprefix("model."): tensor for name, tensor in base_model(base).state_dict().items()}
    text = model.backbone.text.state_dict()
    tied = {"lm_head.weight"} if model.config.backbone.tie_embeddings else set()
    assert text.keys() == expected.keys() - tied
    assert all(torch.equal(tensor, expected[name]) for name, tensor in text.items())
    assert {tensor.dtype for tensor in text.values()} == {expected["norm.weight"].dtype}
    motion = model.backbone.motion.state_dict()
    assert motion.keys() == text.keys() - {"embed_tokens.weight", "lm_head.weight"}
    assert all(torch.equal(tensor, text[name]) for name, tensor in motion.items())


def test_the_two_new_rows_are_the_mean_of_the_embedding_table(converted: tuple[Path, Path]) -> None:
    model, _ = load_checkpoint(converted[1])
    mean = model.backbone.text.embed_tokens.weight.double().mean(0)
    for row in model.special_tokens.double():
        torch.testing.assert_close(row, mean, rtol=2**-8, atol=1e-6)  # a rounding to bfloat16, half of 2^-7


def test_what_is_new_is_initialised_by_the_seed_alone(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    before = torch.get_rng_state()
    made = [convert(tmp_path / "base", tmp_path / f"{n}", seed=seed) for n, seed in enumerate((3, 3, 4))]
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (load_checkpoint(folder)[0] for folder in made)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(first.adapter.input.weight, other.adapter.input.weight)
    assert not first.flow_head.output.weight.any()  # adaLN-zero
    assert read_config(made[0])[1]["base"] == str(tmp_path / "base")


def test_motion_vae_and_latent_statistics_can_come_from_another_checkpoint(
    tiny: Llamo,
    tokenizer: TextTokenizer,
    write_llama: Callable[..., Path],
    convert: Callable[..., Path],
    tmp_path: Path,
) -> None:
    save_checkpoint(tiny, tokenizer, tmp_path / "other", {}, torch.float32)
    write_llama(tmp_path / "base", dtype="bfloat16")
    model, _ = load_checkpoint(convert(tmp_path / "base", tmp_path / "out", vae=str(tmp_path / "other")))
    assert model.config.vae == tiny.config.vae
    expected = tiny.vae.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.vae.state_dict().items())
    assert torch.equal(model.latent_mean, tiny.latent_mean)
    assert torch.equal(model.latent_std, tiny.latent_std)


def test_a_converted_model_is_read_from_mapped_files_without_a_copy(converted: tuple[Path, Path]) -> None:
    model, _ = load_checkpoint(converted[1])
    for name, tensor in model.state_dict().items():
        assert mapped_file(tensor.data_ptr()).startswith(f"{converted[1]}/model-"), name


def test_training_a_mapped_model_leaves_its_files_as_they_are(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    folder = convert(tmp_path / "base", tmp_path / "out")
    load_checkpoint(folder)[0].adapter.input.weight.fill_(7.0)
    assert not (load_checkpoint(folder)[0].adapter.input.weight == 7.0).any()


def test_shards_stay_below_the_given_size_and_one_is_in_memory_at_a_time(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    seen: list[tuple[int, int]] = []
    folder = convert(tmp_path / "base", tmp_path / "out", shard_bytes=150_000, on_shard=lambda *step: seen.append(step))
    shards = list(folder.glob("*.safetensors"))
    assert seen == [(number, len(shards)) for number in range(1, len(shards) + 1)]
    assert len(shards) > 5
    for shard in shards:
        assert shard.stat().st_size < 160_000 or len(load_file(shard)) == 1  # the header adds a few kB


def test_licence_files_of_the_base_go_along(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    (tmp_path / "base" / "LICENSE.txt").write_text("terms")
    assert (convert(tmp_path / "base", tmp_path / "out") / "LICENSE.txt").read_text() == "terms"


def test_the_tokenizer_keeps_its_special_tokens_and_chat_template(converted: tuple[Path, Path], tmp_path: Path) -> None:
    tokenizer = load_checkpoint(converted[1])[1]
    vocabulary = json.loads((converted[0] / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in vocabulary}
    assert tokenizer.bos == ids["<|begin_of_text|>"]
    assert tokenizer.eos == ids["<|eot_id|>"]
    assert tokenizer.pad == ids["<|finetune_right_pad_id|>"]
    assert tokenizer.stop_ids == {ids["<|end_of_text|>"], ids["<|eot_id|>"]}
    assert tokenizer.has_chat_template
    tokenizer.save(tmp_path / "tokenizer.json")  # as a training run does
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert (again.bos, again.eos, again.pad, again.stop_ids) == (
        tokenizer.bos,
        tokenizer.eos,
        tokenizer.pad,
        tokenizer.stop_ids,
    )
    assert again.has_chat_template


def test_a_converted_model_makes_motion_and_captions_in_its_own_dtype(converted: tuple[Path, Path]) -> None:
    from llamo_ros.pipelines.motion_to_text import MotionToText
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    model, tokenizer = load_checkpoint(converted[1])
    clip = TextToMotion(model, tokenizer)("a person walks", min_duration=0.4, max_duration=0.4, flow_steps=2)
    assert len(clip) == 12
    assert 0 < MotionToText(model, tokenizer)(clip).confidence <= 1
    assert model.special_tokens.dtype == model.backbone.text.norm.weight.dtype
    heads = (model.vae, model.flow_head, model.adapter, model.projector, model.exit_head)
    assert {parameter.dtype for head in heads for parameter in head.parameters()} == {torch.float32}


# Sizes and dtypes


def test_a_custom_motion_side_has_the_papers_sizes_for_the_papers_bases(tmp_path: Path) -> None:
    for name in ("1b", "3b", "8b"):
        expected = preset(name)
        base = LlamaBase(name, tmp_path, expected.backbone, torch.bfloat16, None)
        made = custom_config(base)
        assert (made.vae, made.flow_head, made.exit_width) == (expected.vae, expected.flow_head, expected.exit_width)
        assert config_for(base, name) == expected


def test_a_custom_motion_side_is_smaller_for_a_smaller_base(converted: tuple[Path, Path]) -> None:
    made = custom_config(open_base(str(converted[0])))
    assert (made.flow_head.width, made.flow_head.blocks, made.exit_width, made.vae.width) == (48, 2, 32, 32)


def test_a_bfloat16_checkpoint_can_be_loaded_as_float32(converted: tuple[Path, Path]) -> None:
    model, _ = load_checkpoint(converted[1], dtype="float32")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    with pytest.raises(ParameterError, match="float8"):
        load_checkpoint(converted[1], dtype="float8")


# Where a base comes from


def test_an_id_on_the_hub_is_downloaded_without_what_is_not_needed(
    write_llama: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_llama(tmp_path / "cache")
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    base = open_base("meta-llama/some-llama")
    assert (base.name, base.folder) == ("meta-llama/some-llama", folder)
    ((name, patterns),) = asked
    assert name == "meta-llama/some-llama"
    needed = [file.name for file in folder.iterdir()]
    assert all(any(fnmatch(file, pattern) for pattern in patterns) for file in needed)
    assert not any(fnmatch("original/consolidated.00.pth", pattern) for pattern in patterns)


def test_one_file_without_index_is_a_base_too(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_llama(tmp_path / "base")
    whole: dict[str, torch.Tensor] = {}
    for shard in folder.glob("model-*.safetensors"):
        whole |= load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file({name: tensor.clone() for name, tensor in whole.items()}, folder / "model.safetensors")
    assert Shards(folder).shapes.keys() == whole.keys()
    load_checkpoint(convert(folder, tmp_path / "out"))
