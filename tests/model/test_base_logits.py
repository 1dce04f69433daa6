"""A converted base keeps its language exactly: its logits are those of transformers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.model.config import BackboneConfig, RopeScaling
from llamo_ros.model.conversion import config_for, convert_base
from llamo_ros.model.llama import rotary_tables
from llamo_ros.model.llama_base import open_base
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache


def memory_for(model: Llamo, tokens: int, batch: int = 1) -> KeyValueCache:
    dtype = model.backbone.text.embed_tokens.weight.dtype
    return KeyValueCache(model.config.backbone, batch, tokens, dtype, torch.device("cpu"))


def test_logits_are_bit_identical_to_transformers(converted: tuple[Path, Path], base_model: Callable[..., Any]) -> None:
    base, checkpoint = converted
    model, _ = load_checkpoint(checkpoint)
    tokens = torch.randint(0, 400, (2, 70), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = base_model(base)(tokens).logits
        actual = model.text_logits(tokens)
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


def test_logits_with_a_cache_are_bit_identical_to_transformers_with_a_cache(
    converted: tuple[Path, Path], base_model: Callable[..., Any]
) -> None:
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


def test_logits_stay_bit_identical_through_motion_training(
    converted: tuple[Path, Path], base_model: Callable[..., Any]
) -> None:
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


def test_no_motion_weight_is_touched_on_the_way_to_the_logits(
    converted: tuple[Path, Path], base_model: Callable[..., Any]
) -> None:
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


def test_float32_can_be_made_bfloat16_as_transformers_would_and_float16_exactly_float32(
    write_llama: Callable[..., Path], base_model: Callable[..., Any], tmp_path: Path
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
