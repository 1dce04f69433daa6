"""A tiny model with random weights and a tokenizer, shared by the tests of the model room."""

from __future__ import annotations

import pytest
import torch

from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer


@pytest.fixture
def tiny() -> Llamo:
    """A random ``tiny`` model in evaluation mode; every weight differs from zero, so nothing passes by being off."""
    torch.manual_seed(0)
    model = Llamo(preset("tiny")).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    model.vae.feature_mean.normal_()
    model.latent_mean.normal_()
    model.latent_std.uniform_(0.5, 2.0)
    return model


@pytest.fixture
def tokenizer() -> TextTokenizer:
    """A byte-level BPE tokenizer of the tiny model's vocabulary."""
    texts = ["a person walks forward", "a person waves the right hand", "someone jumps", "turn to the left"]
    return TextTokenizer.train(texts * 5, 300)
