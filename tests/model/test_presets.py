"""Sizes of the presets, counted without memory for their weights."""

from __future__ import annotations

import pytest

from llamo_ros.model.checkpoint import skeleton
from llamo_ros.model.config import LlamoConfig, preset

# What follows from the architecture. Text branch: as published for Llama-3.2-1B, Llama-3.2-3B and Llama-3.1-8B. Adapter
# and projector: two linear layers and a norm. Exit head: five linear layers, 1024 inside.
EXPECTED = {
    "1b": {
        "text branch": 1_235_814_400,
        "motion branch": 973_146_112,
        "flow head": 152_411_168,
        "adapter": 32 * 2048 + 2048**2 + 3 * 2048,
        "projector": 2 * 2048**2 + 3 * 2048,
        "exit head": 2048 * 1024 + 3 * 1024**2 + 5 * 1024 + 1,
        "[BOM] and [EOM]": 2 * 2048,
    },
    "3b": {
        "text branch": 3_212_749_824,
        "motion branch": 2_818_747_392,
        "flow head": 153_984_032,
        "adapter": 32 * 3072 + 3072**2 + 3 * 3072,
        "projector": 2 * 3072**2 + 3 * 3072,
        "exit head": 3072 * 1024 + 3 * 1024**2 + 5 * 1024 + 1,
        "[BOM] and [EOM]": 2 * 3072,
    },
    "8b": {
        "text branch": 8_030_261_248,
        "motion branch": 6_979_588_096,
        "flow head": 155_556_896,
        "adapter": 32 * 4096 + 4096**2 + 3 * 4096,
        "projector": 2 * 4096**2 + 3 * 4096,
        "exit head": 4096 * 1024 + 3 * 1024**2 + 5 * 1024 + 1,
        "[BOM] and [EOM]": 2 * 4096,
    },
}
# The paper's own figures, in units of their last digit: (billions, billions, millions).
PUBLISHED = {"1b": (1.236, 0.973, 152.4), "3b": (3.213, 2.818, 154.0), "8b": (8.030, 6.979, 155.6)}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_preset_of_the_paper_has_the_expected_number_of_weights(name: str) -> None:
    model = skeleton(preset(name))
    counts = model.parameter_counts()
    assert {part: count for part, count in counts.items() if part != "motion VAE"} == EXPECTED[name]
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    text, motion, flow = PUBLISHED[name]
    assert counts["text branch"] / 1e9 == pytest.approx(text, abs=0.0005)
    assert counts["motion branch"] / 1e9 == pytest.approx(motion, abs=0.001)
    assert counts["flow head"] / 1e6 == pytest.approx(flow, abs=0.05)


def test_the_motion_side_of_the_paper_is_the_same_at_every_size() -> None:
    one, *others = (preset(name) for name in EXPECTED)
    for other in others:
        assert (one.vae, one.flow_head, one.exit_width) == (other.vae, other.flow_head, other.exit_width)


@pytest.mark.parametrize("name", ["tiny", "mini", *EXPECTED])
def test_a_skeleton_has_no_memory_and_nothing_that_a_checkpoint_would_not_store(name: str) -> None:
    model = skeleton(preset(name))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(tensor.is_meta for tensor in tensors.values())
    assert tensors.keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["tiny", "mini", *EXPECTED])
def test_every_preset_survives_json(name: str) -> None:
    assert LlamoConfig.from_json(preset(name).to_json()) == preset(name)
