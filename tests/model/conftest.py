"""A tiny model with random weights, a tokenizer, and converted bases, shared by the tests of the model room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llamo_ros.model.config import preset
from llamo_ros.model.conversion import config_for, convert_base
from llamo_ros.model.llama_base import open_base
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}

# Every difference between Llamas that the text branch knows, in two dtypes.
KINDS: dict[str, dict[str, Any]] = {
    "fp32 tied grouped llama3": {},
    "fp32 untied plain": {"tie_word_embeddings": False, "num_key_value_heads": 4, "rope_parameters": PLAIN_ROPE},
    "bf16 tied grouped llama3": {"dtype": "bfloat16"},
    "bf16 untied wide heads": {"dtype": "bfloat16", "tie_word_embeddings": False, "head_dim": 24},
    "bf16 tied plain one key head": {"dtype": "bfloat16", "num_key_value_heads": 1, "rope_parameters": PLAIN_ROPE},
}


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


@pytest.fixture(scope="module", params=KINDS)
def converted(
    request: pytest.FixtureRequest, write_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folder of a base of each kind, and of the checkpoint made of it."""
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder / "base", **KINDS[request.param])
    return folder / "base", convert_folder(folder / "base", folder / "llamo")


@pytest.fixture(scope="session")
def convert() -> Callable[..., Path]:
    """A function ``(base, out, **options)`` that converts a base with a custom motion side and returns ``out``."""
    return convert_folder


@pytest.fixture(scope="session")
def base_model() -> Callable[..., Any]:
    """A function ``(folder, dtype="auto")`` that loads a base as transformers does."""
    return load_base


def convert_folder(base: Path, out: Path, **options: Any) -> Path:
    opened = open_base(str(base))
    convert_base(opened, config_for(opened, "custom"), out, **options)
    return out


def load_base(folder: Path, dtype: str | torch.dtype = "auto") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
