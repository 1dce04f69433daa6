"""Fixtures for all tests: where the shared data is, and motion to test with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
