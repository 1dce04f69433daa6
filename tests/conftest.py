"""Fixtures for all tests: where the shared data is, and motion to test with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT

SHARED_FOLDER = Path(__file__).absolute().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of shared data beside the repository; the test is skipped where it is absent."""
    if not (SHARED_FOLDER / "data").is_dir():
        pytest.skip("the shared data folder (../shared beside the repository) is not here")
    return SHARED_FOLDER


@pytest.fixture(scope="session")
def random_clip() -> Callable[..., MotionClip]:
    """A function ``(seed=0, frames=40, frame_rate=30.0)`` that makes smooth motion of all joints and the root."""
    return make_random_clip


@pytest.fixture(scope="session")
def real_clip(shared_folder: Path) -> MotionClip:
    """Walking, 86 frames at 30 FPS, of the CMU data."""
    return shared_clip(shared_folder, "cmu_02_01")


@pytest.fixture(scope="session")
def clip_of_id(shared_folder: Path) -> Callable[[str], MotionClip]:
    """A function ``(id)`` that reads one sequence of the shared data."""
    return lambda sequence_id: shared_clip(shared_folder, sequence_id)


@pytest.fixture(scope="session")
def write_llama() -> Callable[..., Path]:
    """A function ``(folder, **changes)`` that writes a random Llama as transformers does; see :func:`save_llama`."""
    return save_llama


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def save_llama(folder: Path, dtype: str = "float32", chat_template: str | None = CHAT_TEMPLATE, **changes: Any) -> Path:
    """A random Llama of three layers in several shards, with a byte-level tokenizer that has Llama 3's special tokens.

    Args:
        folder: Where to.
        dtype: Of the weights.
        chat_template: Of the tokenizer, or None.
        changes: Fields of its LlamaConfig. Without: grouped queries, Llama 3's rotary scaling, tied embeddings.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    sizes: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3_ROPE,
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(sizes | changes))).to(getattr(torch, dtype))
    with torch.no_grad():  # weights so large that no token wins by a hair, and norms that are not all one
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    model.generation_config.eos_token_id = [1, 2]
    model.save_pretrained(folder, max_shard_size="60KB")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    special += ["<|finetune_right_pad_id|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a person walks forward", "a person waves the right hand"] * 5, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=chat_template
    )
    fast.save_pretrained(folder)
    return folder


def make_random_clip(seed: int = 0, frames: int = 40, frame_rate: float = 30.0) -> MotionClip:
    generator = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None] / frame_rate
    speed = generator.uniform(1.0, 4.0, (1, JOINT_COUNT, 3))  # rad/s: slow enough that neighbouring frames are alike
    phase = generator.uniform(0, 2 * np.pi, (1, JOINT_COUNT, 3))
    rotations = axis_angle_to_matrix(0.5 * np.sin(speed * time + phase))
    root = np.array([0.0, 0.9, 0.0]) + 0.3 * np.sin(speed[:, 0] * time[:, 0] + phase[:, 1])
    return MotionClip(rotations, root, frame_rate, f"random motion {seed}")


def shared_clip(shared_folder: Path, sequence_id: str) -> MotionClip:
    with open(shared_folder / "data" / "index.jsonl", encoding="utf-8") as index:
        row = next(row for line in index if (row := json.loads(line))["id"] == sequence_id)
    frames = slice(row["start"], row["start"] + row["length"])
    with np.load(shared_folder / "data" / row["shard"]) as shard:
        rotations = axis_angle_to_matrix(shard["rotvec_i16"][frames] * (np.pi / 32767))
        return MotionClip(rotations, shard["trans"][frames], row["fps"], row["captions"][0]["text"])
