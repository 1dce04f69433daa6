from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llamo_ros.model.config import LlamoConfig, preset
from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache, ModalityRoute


def huggingface_twin(model: Llamo) -> LlamaForCausalLM:
    """transformers' Llama with the weights of the text branch."""
    c = model.config.backbone
    config = LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        intermediate_size=c.ffn_width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        max_position_embeddings=c.max_positions,
        tie_word_embeddings=c.tie_embeddings,
    )
    twin = LlamaForCausalLM(config).eval()
    weights = {f"model.{name}": tensor for name, tensor in model.backbone.text.state_dict().items()}
    missing, unexpected = twin.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    twin.tie_weights()
    return twin


@pytest.mark.parametrize("name", ["tiny", "mini"])
def test_text_only_logits_are_bit_identical_to_the_base_language_model(name: str) -> None:
    torch.manual_seed(0)
    model = Llamo(preset(name)).eval()
    tokens = torch.randint(0, model.config.backbone.vocab_size, (2, 17))
    with torch.no_grad():
        expected = huggingface_twin(model)(tokens).logits
        assert torch.equal(model.text_logits(tokens), expected)


def test_text_only_logits_with_a_cache_are_bit_identical_to_the_base_with_a_cache(tiny: Llamo) -> None:
    twin = huggingface_twin(tiny)
    tokens = torch.randint(0, 300, (1, 12))
    cache = KeyValueCache(tiny.config.backbone, 1, 12, torch.float32, torch.device("cpu"))
    past = None
    with torch.no_grad():
        for part in tokens.split([7, 1, 1, 1, 1, 1], dim=1):
            out = twin(part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            assert torch.equal(tiny.text_logits(part, cache), out.logits)


def test_text_only_input_reads_no_motion_weight(tiny: Llamo) -> None:
    tokens = torch.randint(0, 300, (1, 9))
    before = tiny.text_logits(tokens)
    for name, parameter in tiny.named_parameters():
        if not name.startswith("backbone.text."):
            parameter.fill_(torch.nan)
    assert torch.equal(tiny.text_logits(tokens), before)


def test_one_modality_does_not_change_when_the_weights_of_the_other_branch_do_not_matter(tiny: Llamo) -> None:
    """Text before motion cannot see it: its hidden states are those of text alone."""
    text = torch.randint(0, 300, (1, 5))
    mixed = torch.cat([text, torch.tensor([[tiny.begin_motion, MOTION, MOTION]])], dim=1)
    alone = tiny(text, torch.zeros(0, 8))
    together = tiny(mixed, torch.randn(2, 8))
    torch.testing.assert_close(together[:, :5], alone, rtol=1e-4, atol=1e-5)  # other batching of the same products


def test_mixed_sequences_with_a_cache_equal_recomputation(tiny: Llamo) -> None:
    tokens = torch.tensor([[1, 7, 9, tiny.begin_motion, MOTION, MOTION, MOTION, tiny.end_motion, 4, 5]])
    latents = torch.randn(3, 8)
    whole = tiny(tokens, latents)
    cache = KeyValueCache(tiny.config.backbone, 1, 10, torch.float32, torch.device("cpu"))
    parts, used = [], 0
    for part in tokens.split([4, 1, 1, 1, 3], dim=1):
        count = int((part == MOTION).sum())
        parts.append(tiny(part, latents[used : used + count], cache))
        used += count
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-3)


def test_padding_on_the_left_does_not_change_the_tokens_that_count(tiny: Llamo) -> None:
    row = [1, 7, 9, tiny.begin_motion, MOTION]
    latents = torch.randn(1, 8)
    plain = tiny(torch.tensor([row]), latents)
    padded = torch.tensor([[PADDING] * 4 + row])
    # Rotary positions shift by four; attention depends on differences only, up to rounding.
    shifted = tiny(padded, latents, key_mask=padded != PADDING)
    torch.testing.assert_close(shifted[:, 4:], plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_route_sends_each_token_to_its_own_branch_and_keeps_the_order(share: float) -> None:
    torch.manual_seed(0)
    is_motion = torch.rand(3, 11) < share
    x = torch.randn(3, 11, 4)
    route = ModalityRoute.of(is_motion)
    change = {"text": lambda h: h + 1, "motion": lambda h: h * 2}
    out = route.merge({modality: change[modality](part) for modality, part in route.split(x).items()}, 3)
    assert torch.equal(out, torch.where(is_motion[..., None], x * 2, x + 1))


def test_motion_starts_as_a_copy_of_the_text_branch_and_freezing_leaves_only_the_motion_side() -> None:
    model = Llamo(preset("tiny"))
    model.initialise_motion()
    text = dict(model.backbone.text.named_parameters())
    assert all(torch.equal(p, text[name]) for name, p in model.backbone.motion.named_parameters())
    torch.testing.assert_close(model.special_tokens[0], text["embed_tokens.weight"].mean(0))
    model.freeze_text_and_vae()
    trainable = {
        name.split(".")[0] + "." + name.split(".")[1] if name.startswith("backbone") else name.split(".")[0]
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    assert trainable == {"backbone.motion", "special_tokens", "adapter", "projector", "flow_head", "exit_head"}


def test_a_configuration_survives_json() -> None:
    config = preset("mini")
    assert LlamoConfig.from_json(config.to_json()) == config
