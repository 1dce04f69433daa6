"""A checkpoint and a motion file to call ``llamo`` with, and a check that a call is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.cli import main
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.files import save_motion


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``tiny`` checkpoint with random weights, in several shards."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = Llamo(preset("tiny"))
    tokenizer = TextTokenizer.train(["a person walks forward", "a person waves"] * 5, 300)
    save_checkpoint(model, tokenizer, folder, {"name": "random", "licence": "none"}, shard_bytes=40_000)
    return folder


@pytest.fixture(scope="session")
def motion_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in the rest pose, as .npz."""
    path = tmp_path_factory.mktemp("motion") / "stand.npz"
    save_motion(MotionClip(np.tile(np.eye(3), (60, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (60, 1))), path)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, checks that it is refused in one line with exit status 2, and returns the line."""

    def run(*words: object) -> str:
        status = main([str(word) for word in words])
        lines = capsys.readouterr().err.strip().splitlines()
        errors = [line for line in lines if line.startswith("llamo: error: ")]
        assert status == 2
        assert len(errors) == 1
        assert lines[-1] == errors[0]
        assert "Traceback" not in "".join(lines)
        return errors[0]

    return run
