from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llamo_ros.core.errors import CheckpointError
from llamo_ros.model.checkpoint import INDEX, load_checkpoint, read_config, save_checkpoint
from llamo_ros.model.llamo import Llamo
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


def test_an_unknown_model_name_lists_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="there is no model 'no-such-model'"):
        load_checkpoint("no-such-model")
