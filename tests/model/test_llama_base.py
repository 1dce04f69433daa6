"""A Hugging Face Llama as base: what it becomes, that its language stays exactly, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import load_checkpoint, read_config, save_checkpoint
from llamo_ros.model.config import BackboneConfig, RopeScaling, preset
from llamo_ros.model.conversion import config_for, convert_base, custom_config
from llamo_ros.model.llama import rotary_tables
from llamo_ros.model.llama_base import LlamaBase, open_base
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache
from llamo_ros.model.shards import Shards
from llamo_ros.model.text_tokenizer import TextTokenizer

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
WriteLlama = Callable[..., Path]

# Every difference between Llamas that the text branch knows, in two dtypes.
KINDS: dict[str, dict[str, Any]] = {
    "fp32 tied grouped llama3": {},
    "fp32 untied plain": {"tie_word_embeddings": False, "num_key_value_heads": 4, "rope_parameters": PLAIN_ROPE},
    "bf16 tied grouped llama3": {"dtype": "bfloat16"},
    "bf16 untied wide heads": {"dtype": "bfloat16", "tie_word_embeddings": False, "head_dim": 24},
    "bf16 tied plain one key head": {"dtype": "bfloat16", "num_key_value_heads": 1, "rope_parameters": PLAIN_ROPE},
}


@pytest.fixture(scope="module", params=KINDS)
def converted(
    request: pytest.FixtureRequest, write_llama: WriteLlama, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folder of a base of each kind, and of the checkpoint made of it."""
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder / "base", **KINDS[request.param])
    return folder / "base", convert(folder / "base", folder / "llamo")


def convert(base: Path, out: Path, **options: Any) -> Path:
    opened = open_base(str(base))
    convert_base(opened, config_for(opened, "custom"), out, **options)
    return out


def base_model(folder: Path, dtype: str | torch.dtype = "auto") -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def mapped_file(address: int) -> str:
    """File that the memory at an address is a mapping of; empty where it is none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5) + [""] * (6 - len(line.split(maxsplit=5)))
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return name
    return ""


def memory_for(model: Llamo, tokens: int, batch: int = 1) -> KeyValueCache:
    dtype = model.backbone.text.embed_tokens.weight.dtype
    return KeyValueCache(model.config.backbone, batch, tokens, dtype, torch.device("cpu"))


# What a base becomes


def test_the_text_branch_is_the_base_bit_for_bit_and_the_motion_branch_its_copy(converted: tuple[Path, Path]) -> None:
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


def test_what_is_new_is_initialised_by_the_seed_alone(write_llama: WriteLlama, tmp_path: Path) -> None:
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
    tiny: Llamo, tokenizer: TextTokenizer, write_llama: WriteLlama, tmp_path: Path
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


def test_training_a_mapped_model_leaves_its_files_as_they_are(write_llama: WriteLlama, tmp_path: Path) -> None:
    write_llama(tmp_path / "base")
    folder = convert(tmp_path / "base", tmp_path / "out")
    load_checkpoint(folder)[0].adapter.input.weight.fill_(7.0)
    assert not (load_checkpoint(folder)[0].adapter.input.weight == 7.0).any()


def test_shards_stay_below_the_given_size_and_one_is_in_memory_at_a_time(
    write_llama: WriteLlama, tmp_path: Path
) -> None:
    write_llama(tmp_path / "base")
    seen: list[tuple[int, int]] = []
    folder = convert(tmp_path / "base", tmp_path / "out", shard_bytes=150_000, on_shard=lambda *step: seen.append(step))
    shards = list(folder.glob("*.safetensors"))
    assert seen == [(number, len(shards)) for number in range(1, len(shards) + 1)]
    assert len(shards) > 5
    for shard in shards:
        assert shard.stat().st_size < 160_000 or len(load_file(shard)) == 1  # the header adds a few kB


def test_licence_files_of_the_base_go_along(write_llama: WriteLlama, tmp_path: Path) -> None:
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


# Its language stays exactly


def test_logits_are_bit_identical_to_transformers(converted: tuple[Path, Path]) -> None:
    base, checkpoint = converted
    model, _ = load_checkpoint(checkpoint)
    tokens = torch.randint(0, 400, (2, 70), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = base_model(base)(tokens).logits
        actual = model.text_logits(tokens)
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


def test_logits_with_a_cache_are_bit_identical_to_transformers_with_a_cache(converted: tuple[Path, Path]) -> None:
    base, checkpoint = converted
    model, _ = load_checkpoint(checkpoint)
    twin = base_model(base)
    tokens = torch.randint(0, 400, (1, 80), generator=torch.Generator().manual_seed(1))
    cache, past = memory_for(model, 80), None
    with torch.no_grad():
        for part in tokens.split([40, 1, 1, 1, 30, 1, 5, 1], dim=1):
            out = twin(part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            assert torch.equal(model.text_logits(part, cache), out.logits)


def test_logits_stay_bit_identical_through_motion_training(converted: tuple[Path, Path]) -> None:
    base, checkpoint = converted
    model, _ = load_checkpoint(checkpoint)
    tokens = torch.randint(0, 400, (1, 30), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = base_model(base)(tokens).logits
    model.requires_grad_(True).freeze_text_and_vae()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.05)
    sequence = torch.tensor([[0, 9, 11, model.begin_motion, MOTION, MOTION, model.end_motion]])
    before = model.backbone.motion.layers[0].mlp.up_proj.weight.detach().clone()
    for _ in range(3):
        optimiser.zero_grad()
        hidden = model(sequence, torch.randn(2, 32))
        (model.projector(hidden).square().mean() + model.exit_head(hidden).sum()).backward()
        optimiser.step()
    assert not torch.equal(model.backbone.motion.layers[0].mlp.up_proj.weight, before)
    with torch.no_grad():
        assert torch.equal(model.text_logits(tokens), expected)


def test_no_motion_weight_is_touched_on_the_way_to_the_logits(converted: tuple[Path, Path]) -> None:
    base, checkpoint = converted
    model, _ = load_checkpoint(checkpoint)
    for name, tensor in model.state_dict().items():
        if not name.startswith("backbone.text."):
            tensor.fill_(torch.nan)
    tokens = torch.randint(0, 400, (1, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = base_model(base)(tokens).logits
        assert torch.equal(model.text_logits(tokens), expected)
        cache = memory_for(model, 20)
        parts = [model.text_logits(part, cache) for part in tokens.split([12, 8], dim=1)]
    assert all(torch.isfinite(part).all() for part in parts)


def test_there_is_no_logit_for_a_token_the_base_does_not_have(converted: tuple[Path, Path]) -> None:
    model, _ = load_checkpoint(converted[1])
    model.special_tokens.fill_(1e4)  # as rows of an LM head they would win
    logits = model.text_logits(torch.tensor([[1, 2, 3]]))
    assert logits.shape == (1, 3, model.config.backbone.vocab_size)
    assert model.begin_motion >= logits.shape[-1]
    assert torch.equal(model.text_logits(torch.tensor([[1, 2, 3]]), last_only=True).argmax(), logits[:, -1:].argmax())


@pytest.mark.parametrize("scaling", [None, RopeScaling(), RopeScaling(8.0), RopeScaling(4.0, 1.5, 3.0, 64)], ids=str)
def test_rotary_tables_are_bit_identical_to_transformers(scaling: RopeScaling | None) -> None:
    config = BackboneConfig(width=256, heads=4, head_size=128, rope_theta=500_000.0, rope_scaling=scaling)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 500_000.0}
    if scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    theirs = LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=256, num_attention_heads=4, head_dim=128, rope_parameters=rope)
    )
    positions = torch.tensor([[0, 1, 7, 100, 5000, 131_071], [2, 3, 5, 11, 13, 17]])
    for dtype in (torch.float32, torch.bfloat16):
        cosine, sine = rotary_tables(config, positions, dtype)
        expected_cosine, expected_sine = theirs(torch.zeros(1, dtype=dtype), positions)
        assert torch.equal(cosine[:, 0], expected_cosine)
        assert torch.equal(sine[:, 0], expected_sine)


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


def test_a_preset_refuses_a_base_of_other_sizes_and_names_them(write_llama: WriteLlama, tmp_path: Path) -> None:
    base = open_base(str(write_llama(tmp_path / "base")))
    with pytest.raises(
        CheckpointError, match=r"vocab_size: 400 instead of 128256; width: 64 instead of 2048"
    ) as caught:
        config_for(base, "1b")
    assert "rope_scaling" in str(caught.value)
    assert "custom" in str(caught.value)
    with pytest.raises(ParameterError, match="mini"):
        config_for(base, "mini")


def test_float32_can_be_made_bfloat16_as_transformers_would_and_float16_exactly_float32(
    write_llama: WriteLlama, tmp_path: Path
) -> None:
    tokens = torch.randint(0, 400, (1, 20), generator=torch.Generator().manual_seed(4))
    for stored, wanted in (("float32", "bfloat16"), ("float16", "float32")):
        folder = write_llama(tmp_path / stored, dtype=stored)
        base = open_base(str(folder))
        convert_base(base, config_for(base, "custom", wanted), tmp_path / f"{stored} out")
        model, _ = load_checkpoint(tmp_path / f"{stored} out")
        with torch.no_grad():
            assert torch.equal(model.text_logits(tokens), base_model(folder, getattr(torch, wanted))(tokens).logits)
    with pytest.raises(ParameterError, match="float16"):
        config_for(open_base(str(tmp_path / "float16")), "custom")


def test_a_bfloat16_checkpoint_can_be_loaded_as_float32(converted: tuple[Path, Path]) -> None:
    model, _ = load_checkpoint(converted[1], dtype="float32")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    with pytest.raises(ParameterError, match="float8"):
        load_checkpoint(converted[1], dtype="float8")


# What is refused


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
    changes: dict[str, Any], says: str, write_llama: WriteLlama, tmp_path: Path
) -> None:
    write_llama(tmp_path / "base", **changes)
    with pytest.raises(CheckpointError, match=says):
        open_base(str(tmp_path / "base"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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
    kind: str, says: str, write_llama: WriteLlama, tmp_path: Path
) -> None:
    damage(write_llama(tmp_path / "base"), kind)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_base(str(tmp_path / "base"))
    assert str(tmp_path / "base") in str(caught.value)


def test_a_base_with_nan_is_refused_and_leaves_no_checkpoint(write_llama: WriteLlama, tmp_path: Path) -> None:
    write_llama(tmp_path / "base")
    shard = sorted((tmp_path / "base").glob("model-*.safetensors"))[-1]
    save_file({name: tensor.fill_(torch.nan) for name, tensor in load_file(shard).items()}, shard)
    with pytest.raises(CheckpointError, match="NaN"):
        convert(tmp_path / "base", tmp_path / "out")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "out")


def test_a_conversion_that_was_interrupted_can_be_made_again(write_llama: WriteLlama, tmp_path: Path) -> None:
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


def test_a_base_without_tokenizer_is_refused(write_llama: WriteLlama, tmp_path: Path) -> None:
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
    kind: str, says: str, write_llama: WriteLlama, tmp_path: Path
) -> None:
    damage_tokenizer(write_llama(tmp_path / "base"), kind)
    with pytest.raises(CheckpointError, match=says) as caught:
        convert(tmp_path / "base", tmp_path / "out")
    assert str(tmp_path / "base") in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "of another shape"])
def test_a_vae_that_does_not_fit_its_own_configuration_is_refused(
    kind: str, tiny: Llamo, tokenizer: TextTokenizer, write_llama: WriteLlama, tmp_path: Path
) -> None:
    save_checkpoint(tiny, tokenizer, tmp_path / "other", {}, torch.float32)
    (shard,) = (tmp_path / "other").glob("model-*.safetensors")
    tensors = load_file(shard)
    bias = tensors.pop("vae.decoder.output.bias")
    save_file(tensors if kind == "missing" else tensors | {"vae.decoder.output.bias": bias[1:].clone()}, shard)
    write_llama(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"1 tensors of the motion VAE \(vae\.decoder\.output\.bias"):
        convert(tmp_path / "base", tmp_path / "out", vae=str(tmp_path / "other"))


def test_a_tied_base_with_an_lm_head_of_its_own_is_refused(write_llama: WriteLlama, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "base", tie_word_embeddings=False)
    edit_json(folder / "config.json", lambda config: config.update(tie_word_embeddings=True))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        open_base(str(folder))


@pytest.mark.parametrize("name", ["no/such/folder", "./nothing", "nothing"])
def test_a_base_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        open_base(name)


def test_an_id_on_the_hub_is_downloaded_without_what_is_not_needed(
    write_llama: WriteLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_download_that_fails_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline and not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="could not be had from the hub .*hf auth login"):
        open_base("meta-llama/some-llama")


def test_without_transformers_the_error_says_what_to_install(
    write_llama: WriteLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llama(tmp_path / "base")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ParameterError, match=r"llamo-ros\[hub\]"):
        open_base(str(tmp_path / "base"))


def test_a_base_is_not_taken_for_a_checkpoint(write_llama: WriteLlama, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="llamo init"):
        load_checkpoint(write_llama(tmp_path / "base"))


def test_one_file_without_index_is_a_base_too(write_llama: WriteLlama, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "base")
    whole: dict[str, torch.Tensor] = {}
    for shard in folder.glob("model-*.safetensors"):
        whole |= load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file({name: tensor.clone() for name, tensor in whole.items()}, folder / "model.safetensors")
    assert Shards(folder).shapes.keys() == whole.keys()
    load_checkpoint(convert(folder, tmp_path / "out"))
