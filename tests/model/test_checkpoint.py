from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import (
    checkpoint_folder,
    load_checkpoint,
    read_config,
    save_checkpoint,
    shard_bytes_for,
)
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.shards import INDEX, Shards, is_finite
from llamo_ros.model.text_tokenizer import TextTokenizer


@pytest.fixture
def folder(tiny: Llamo, tokenizer: TextTokenizer, tmp_path: Path) -> Path:
    save_checkpoint(tiny, tokenizer, tmp_path / "model", {"licence": "test"}, torch.float32, shard_bytes=200_000)
    return tmp_path / "model"


def test_a_saved_model_comes_back_as_it_was(tiny: Llamo, tokenizer: TextTokenizer, folder: Path) -> None:
    model, read_tokenizer = load_checkpoint(folder)
    expected = tiny.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert read_tokenizer.encode("a person jumps") == tokenizer.encode("a person jumps")
    assert read_config(folder)[1]["licence"] == "test"


def test_shards_stay_below_the_given_size(folder: Path) -> None:
    shards = list(folder.glob("*.safetensors"))
    assert len(shards) > 1
    # one tensor may be larger than a shard; none of these is. The header adds a few kB.
    assert all(shard.stat().st_size < 300_000 for shard in shards)


def test_bfloat16_halves_the_weights_but_keeps_statistics_exact(
    tiny: Llamo, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    save_checkpoint(tiny, tokenizer, tmp_path / "half", {})
    model, _ = load_checkpoint(tmp_path / "half")
    assert torch.equal(model.latent_mean, tiny.latent_mean)
    torch.testing.assert_close(model.special_tokens, tiny.special_tokens, rtol=1e-2, atol=1e-3)  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    "damage",
    [
        "missing shard",
        "cut shard",
        "missing index",
        "missing config",
        "bad config",
        "other version",
        "other size",
        "missing tokenizer",
        "bad tokenizer",
        "overwritten shard",
    ],
)
def test_a_damaged_checkpoint_is_refused_with_a_sentence(folder: Path, damage: str) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    config = json.loads((folder / "config.json").read_text())
    match damage:
        case "missing shard":
            shard.unlink()
        case "cut shard":
            shard.write_bytes(shard.read_bytes()[:1000])
        case "missing index":
            (folder / INDEX).unlink()
        case "missing config":
            (folder / "config.json").unlink()
        case "bad config":
            (folder / "config.json").write_text("{")
        case "other version":
            (folder / "config.json").write_text(json.dumps(config | {"format_version": 99}))
        case "other size":
            config["model"]["backbone"]["layers"] = 3
            (folder / "config.json").write_text(json.dumps(config))
        case "missing tokenizer":
            (folder / "tokenizer.json").unlink()
        case "bad tokenizer":
            (folder / "tokenizer.json").write_text("{}")
        case "overwritten shard":
            content = shard.read_bytes()
            shard.write_bytes(content[:-64] + b"\xff" * 64)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_the_shipped_model_is_stored_in_bfloat16_and_loaded_in_float32() -> None:
    model, tokenizer = load_checkpoint("llamo-mini")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert Shards(checkpoint_folder("llamo-mini")).dtypes["special_tokens"] == torch.bfloat16
    assert not tokenizer.has_chat_template
    assert tokenizer.stop_ids == {tokenizer.eos}


def test_a_bfloat16_model_keeps_the_dtype_of_each_part(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    model = Llamo(replace(preset("tiny"), dtype="bfloat16"))
    model.initialise_motion()
    save_checkpoint(model, tokenizer, tmp_path / "model", {}, dtype=None)
    again = load_checkpoint(tmp_path / "model")[0].state_dict()
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())
    assert {name.split(".")[0]: tensor.dtype for name, tensor in again.items()} == {
        **dict.fromkeys(("backbone", "special_tokens"), torch.bfloat16),
        **dict.fromkeys(("vae", "adapter", "projector", "flow_head", "exit_head"), torch.float32),
        **dict.fromkeys(("latent_mean", "latent_std"), torch.float32),
    }


def test_a_model_can_replace_the_files_it_is_mapped_from(folder: Path) -> None:
    model, tokenizer = load_checkpoint(folder)
    model.special_tokens.fill_(3.0)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_checkpoint(model, tokenizer, folder, {}, dtype=None)
    again = load_checkpoint(folder)[0].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_big_models_have_few_shards_and_small_ones_travel_well() -> None:
    assert shard_bytes_for(75_000_000) == 15_000_000
    assert 20 < 2 * 8.03e9 / shard_bytes_for(int(2 * 8.03e9)) * 2.5 < 40


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_that_is_not_finite_is_found(value: float, dtype: torch.dtype) -> None:
    tensor = torch.randn(333, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert is_finite(tensor)
    for place in (0, 1000, tensor.numel() - 1):
        broken = tensor.clone()
        broken.view(-1)[place] = value
        assert not is_finite(broken)


def test_a_configuration_of_an_unknown_dtype_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["dtype"] = "float8"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="float8"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("flow_head", "width", -64),
        ("flow_head", "width", 10**9),
        ("flow_head", "blocks", "4"),
        ("backbone", "heads", 0),
        ("backbone", "width", None),
    ],
)
def test_a_size_that_makes_no_model_is_refused(folder: Path, part: str, name: str, value: object) -> None:
    data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    data["model"][part][name] = value
    (folder / "config.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config.json has sizes that make no model .*copy it again"):
        load_checkpoint(folder)


@pytest.mark.parametrize("device", ["nonsense", "", 5.5, "cpu:x", "cuda:7000"])
def test_a_device_that_is_not_here_is_refused_by_name(folder: Path, device: object) -> None:
    with pytest.raises(ParameterError, match=f"device is {device!r}, which PyTorch cannot use here"):
        load_checkpoint(folder, device)


@pytest.mark.parametrize("name", ["", None, 5, b"llamo-mini"])
def test_what_is_no_name_is_no_model(name: object) -> None:
    with pytest.raises(CheckpointError, match=f"there is no model {name!r}. Give"):
        load_checkpoint(name)


def test_an_unknown_model_name_lists_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="there is no model 'no-such-model'"):
        load_checkpoint("no-such-model")
