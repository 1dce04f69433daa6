"""Bases, tokenizers and motion VAEs that cannot be used are refused with a sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import load_checkpoint, save_checkpoint
from llamo_ros.model.conversion import config_for
from llamo_ros.model.llama_base import open_base
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}}, "rope_type = 'linear'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_llama_with_parts_the_text_branch_lacks_is_refused(
    changes: dict[str, Any], says: str, write_llama: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base", **changes)
    with pytest.raises(CheckpointError, match=says):
        open_base(str(tmp_path / "base"))


def damage(folder: Path, kind: str) -> None:
    index = folder / "model.safetensors.index.json"
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    match kind:
        case "another kind of model":
            edit_json(folder / "config.json", lambda config: config.update(model_type="mistral"))
        case "no config":
            (folder / "config.json").unlink()
        case "no weights":
            index.unlink()
        case "a missing shard":
            shard.unlink()
        case "a cut shard":
            shard.write_bytes(shard.read_bytes()[:300])
        case "a missing tensor":
            tensors = load_file(shard)
            tensors.popitem()
            save_file(tensors, shard)
        case "other sizes":
            edit_json(folder / "config.json", lambda config: config.update(intermediate_size=128))
        case "mixed types":
            save_file({name: tensor.half() for name, tensor in load_file(shard).items()}, shard)
        case "a size that is no number":
            edit_json(folder / "config.json", lambda config: config.update(hidden_size="64"))
        case "no heads":
            edit_json(folder / "config.json", lambda config: config.update(num_attention_heads=0))
        case "a short context":
            edit_json(folder / "config.json", lambda config: config.update(max_position_embeddings=128))
        case "tied embeddings without a table":
            for file in folder.glob("model-*.safetensors"):
                head = {"model.embed_tokens.weight": "lm_head.weight"}
                save_file({head.get(name, name): tensor for name, tensor in load_file(file).items()}, file)
        case "integers":
            for file in folder.glob("model-*.safetensors"):
                save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file)
        case "quantised weights":
            quantised = {"quant_method": "bitsandbytes", "load_in_8bit": True}
            edit_json(folder / "config.json", lambda config: config.update(quantization_config=quantised))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("another kind of model", "'mistral'"),
        ("no config", "no Hugging Face checkpoint"),
        ("no weights", "safetensors"),
        ("a missing shard", "missing"),
        ("a cut shard", "damaged"),
        ("a missing tensor", "missing instead of"),
        ("other sizes", "instead of"),
        ("mixed types", "torch.float16, torch.float32"),
        ("a size that is no number", "no Hugging Face checkpoint"),
        ("no heads", "no Hugging Face checkpoint"),
        ("a short context", "at least 256"),
        ("tied embeddings without a table", "missing instead of"),
        ("integers", "of type I8;"),
        ("quantised weights", "quantization_config"),
    ],
)
def test_a_base_that_cannot_be_used_is_refused_with_a_sentence(
    kind: str, says: str, write_llama: Callable[..., Path], tmp_path: Path
) -> None:
    damage(write_llama(tmp_path / "base"), kind)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_base(str(tmp_path / "base"))
    assert str(tmp_path / "base") in str(caught.value)


def test_a_tied_base_with_an_lm_head_of_its_own_is_refused(write_llama: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "base", tie_word_embeddings=False)
    edit_json(folder / "config.json", lambda config: config.update(tie_word_embeddings=True))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        open_base(str(folder))


def test_a_base_with_nan_is_refused_and_leaves_no_checkpoint(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    shard = sorted((tmp_path / "base").glob("model-*.safetensors"))[-1]
    save_file({name: tensor.fill_(torch.nan) for name, tensor in load_file(shard).items()}, shard)
    with pytest.raises(CheckpointError, match="NaN"):
        convert(tmp_path / "base", tmp_path / "out")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "out")


def test_a_conversion_that_was_interrupted_can_be_made_again(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")

    def stop(number: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "base", tmp_path / "out", shard_bytes=100_000, on_shard=stop)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "out")
    load_checkpoint(convert(tmp_path / "base", tmp_path / "out"))
    with pytest.raises(CheckpointError, match="already holds a model"):
        convert(tmp_path / "base", tmp_path / "out")


def test_a_preset_refuses_a_base_of_other_sizes_and_names_them(
    write_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = open_base(str(write_llama(tmp_path / "base")))
    with pytest.raises(
        CheckpointError, match=r"vocab_size: 400 instead of 128256; width: 64 instead of 2048"
    ) as caught:
        config_for(base, "1b")
    assert "rope_scaling" in str(caught.value)
    assert "custom" in str(caught.value)
    with pytest.raises(ParameterError, match="mini"):
        config_for(base, "mini")


def test_a_base_without_tokenizer_is_refused(
    write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    for file in (tmp_path / "base").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        convert(tmp_path / "base", tmp_path / "out")


def damage_tokenizer(folder: Path, kind: str) -> None:
    match kind:
        case "an id beyond the embeddings":

            def move(content: dict[str, Any]) -> None:
                vocabulary = content["model"]["vocab"]
                vocabulary[max(vocabulary, key=vocabulary.get)] = 400

            edit_json(folder / "tokenizer.json", move)
        case "no names of special tokens":
            (folder / "tokenizer_config.json").unlink()
        case "a list for its configuration":
            (folder / "tokenizer_config.json").write_text("[]")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("an id beyond the embeddings", "ids up to 400"),
        ("no names of special tokens", "bos_token"),
        ("a list for its configuration", "no readable tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_refused_and_its_folder_named(
    kind: str, says: str, write_llama: Callable[..., Path], convert: Callable[..., Path], tmp_path: Path
) -> None:
    damage_tokenizer(write_llama(tmp_path / "base"), kind)
    with pytest.raises(CheckpointError, match=says) as caught:
        convert(tmp_path / "base", tmp_path / "out")
    assert str(tmp_path / "base") in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "of another shape"])
def test_a_vae_that_does_not_fit_its_own_configuration_is_refused(
    kind: str,
    tiny: Llamo,
    tokenizer: TextTokenizer,
    write_llama: Callable[..., Path],
    convert: Callable[..., Path],
    tmp_path: Path,
) -> None:
    save_checkpoint(tiny, tokenizer, tmp_path / "other", {}, torch.float32)
    (shard,) = (tmp_path / "other").glob("model-*.safetensors")
    tensors = load_file(shard)
    bias = tensors.pop("vae.decoder.output.bias")
    save_file(tensors if kind == "missing" else tensors | {"vae.decoder.output.bias": bias[1:].clone()}, shard)
    write_llama(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"1 tensors of the motion VAE \(vae\.decoder\.output\.bias"):
        convert(tmp_path / "base", tmp_path / "out", vae=str(tmp_path / "other"))


@pytest.mark.parametrize("name", ["no/such/folder", "./nothing", "nothing"])
def test_a_base_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        open_base(name)


def test_a_download_that_fails_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline and not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="could not be had from the hub .*hf auth login"):
        open_base("meta-llama/some-llama")


def test_without_transformers_the_error_says_what_to_install(
    write_llama: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llama(tmp_path / "base")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ParameterError, match=r"llamo-ros\[hub\]"):
        open_base(str(tmp_path / "base"))


def test_a_base_is_not_taken_for_a_checkpoint(write_llama: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="llamo init"):
        load_checkpoint(write_llama(tmp_path / "base"))
