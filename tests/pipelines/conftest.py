"""Motion for the tests of the pipelines: clips that move gently enough to be played."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix, rotation_about_y
from llamo_ros.pipelines.motion_to_robot import MotionToRobot
from llamo_ros.pipelines.playback import PlaybackBuffer
from llamo_ros.pipelines.player import Player, PlayerFrame
from llamo_ros.pipelines.stream import StreamChunk
from llamo_ros.retarget.profile import Robot, load_robot


@pytest.fixture(scope="session")
def tiny() -> Llamo:
    """A random ``tiny`` model in evaluation mode; every weight differs from zero, so nothing passes by being off."""
    torch.manual_seed(0)
    model = Llamo(preset("tiny")).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    return model


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    """A byte-level BPE tokenizer of the tiny model's vocabulary."""
    texts = ["a person walks forward", "a person waves the right hand", "someone jumps", "turn to the left"]
    return TextTokenizer.train(texts * 5, 300)


@pytest.fixture(scope="session")
def walker() -> Callable[..., MotionClip]:
    """A function ``(frames, seed=0, turn=0.0)``: joints swing, the body goes ahead at 1 m/s, turned to a side."""

    def make(frames: int, seed: int = 0, turn: float = 0.0) -> MotionClip:
        generator = np.random.default_rng(seed)
        time = np.arange(frames)[:, None, None] / 30.0
        phase = generator.uniform(0, 2 * np.pi, (1, 22, 3))
        rotations = axis_angle_to_matrix(0.3 * np.sin(3.0 * time + phase))
        rotations[:, 0] = rotation_about_y(np.full(frames, turn))
        ahead = np.array([np.sin(turn), 0.0, np.cos(turn)])
        return MotionClip(rotations, np.array([0.0, 0.93, 0.0]) + time[:, 0] * ahead)

    return make


def chunks_of(clip: MotionClip, stream_id: str, **keywords: object) -> Iterator[StreamChunk]:
    """The chunks of four frames in which a generator sends a clip."""
    for start in range(0, len(clip), 4):
        yield StreamChunk(stream_id, start, clip.sliced(start, start + 4), start + 4 >= len(clip), **keywords)


@pytest.fixture(scope="session")
def chunks() -> Callable[..., Iterator[StreamChunk]]:
    """A function ``(clip, stream_id, append=False, ...)`` that cuts a clip into chunks of four frames."""
    return chunks_of


@pytest.fixture(scope="session")
def robot() -> Robot:
    return load_robot("unitree_g1")


@pytest.fixture
def player(robot: Robot) -> Player:
    return Player(PlaybackBuffer(), MotionToRobot(robot))


def run_player(player: Player, ticks: int) -> list[PlayerFrame]:
    frames = []
    for _ in range(ticks):
        frame = player.advance()
        if frame is not None:
            player.sent(frame)
            frames.append(frame)
        player.plan_ahead()
    return frames


def first_positions(frames: list[PlayerFrame]) -> np.ndarray:
    return np.stack([frame.robot.trajectory.positions[0] for frame in frames])


def check_safe(frames: list[PlayerFrame], robot: Robot) -> None:
    q = first_positions(frames)
    velocity = np.diff(q, axis=0) * 30
    acceleration = np.diff(velocity, axis=0) * 30
    assert (q >= robot.lower - 1e-9).all() and (q <= robot.upper + 1e-9).all()
    assert (np.abs(velocity) <= robot.velocity_limits * (1 + 1e-9)).all()
    assert (np.abs(acceleration) <= robot.acceleration_limits * (1 + 1e-6)).all()  # differences of differences
    jerk = np.diff(acceleration, axis=0) * 30
    assert (np.abs(jerk) <= robot.jerk_limits * (1 + 1e-6)).all()
    root, limits = np.stack([frame.robot.root_positions[0] for frame in frames]), robot.root_limits
    for order, limit in enumerate((limits.speed, limits.acceleration, limits.jerk), start=1):
        assert np.linalg.norm(np.diff(root, n=order, axis=0), axis=1).max() * 30**order <= limit * (1 + 1e-6)


@pytest.fixture(scope="session")
def run() -> Callable[[Player, int], list[PlayerFrame]]:
    """A function ``(player, ticks)`` that plays, sends and plans; returns the frames."""
    return run_player


@pytest.fixture(scope="session")
def positions() -> Callable[[list[PlayerFrame]], np.ndarray]:
    """A function ``(frames)``: where the robot is in each, shape (T, J), [rad]."""
    return first_positions


@pytest.fixture(scope="session")
def assert_safe() -> Callable[[list[PlayerFrame], Robot], None]:
    """A function ``(frames, robot)`` that checks the limits of joints and root."""
    return check_safe
