"""One shared transformer in place of the mixture: the ablation without a motion branch."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llamo_ros.model.config import preset
from llamo_ros.model.llamo import MOTION, Llamo


@pytest.fixture
def shared() -> Llamo:
    torch.manual_seed(0)
    config = preset("tiny")
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, separate_motion=False))
    model = Llamo(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def test_a_shared_transformer_has_no_motion_weights_and_the_names_of_the_text_branch_stay(shared: Llamo) -> None:
    mixture = Llamo(preset("tiny"))
    names = {name for name in mixture.state_dict() if not name.startswith("backbone.motion.")}
    assert set(shared.state_dict()) == names
    shared.initialise_motion()


def test_a_shared_transformer_reads_motion_as_a_mixture_of_two_equal_branches(shared: Llamo) -> None:
    mixture = Llamo(preset("tiny")).eval().requires_grad_(False)
    mixture.load_state_dict(shared.state_dict(), strict=False)
    mixture.backbone.copy_text_to_motion()
    tokens = torch.tensor([[1, 7, 9, mixture.begin_motion, MOTION, MOTION, mixture.end_motion, 4]])
    latents = torch.randn(2, 8)
    # Other batching of the same products.
    torch.testing.assert_close(shared(tokens, latents), mixture(tokens, latents), rtol=1e-4, atol=1e-5)


def test_text_alone_is_the_same_in_both(shared: Llamo) -> None:
    mixture = Llamo(preset("tiny")).eval().requires_grad_(False)
    mixture.load_state_dict(shared.state_dict(), strict=False)
    tokens = torch.randint(0, 300, (2, 11))
    assert torch.equal(shared.text_logits(tokens), mixture.text_logits(tokens))


def test_training_the_motion_changes_the_text_of_a_shared_transformer_only() -> None:
    for separate in (True, False):
        config = preset("tiny")
        config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, separate_motion=separate))
        torch.manual_seed(0)
        model = Llamo(config).eval()
        model(torch.full((1, 5), MOTION), torch.randn(5, 8)).sum().backward()
        touched = any(p.grad is not None for p in model.backbone.text.layers.parameters())
        assert touched != separate
