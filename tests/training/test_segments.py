from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import decode_features, encode_clip, heading_change
from llamo_ros.motion.rotations import rotation_about_y
from llamo_ros.training.segments import jumps, lengthened_stand, stands, turns

PELVIS_HEIGHT = 0.93


def body(frames: int, yaw: np.ndarray | float = 0.0, height: np.ndarray | float = PELVIS_HEIGHT) -> np.ndarray:
    """Features of an upright body, arms hanging, that turns and rises as told."""
    rotations = np.tile(np.eye(3), (frames, 22, 1, 1))
    down = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rotations[:, 16], rotations[:, 17] = down, down.T
    rotations[:, 0] = rotation_about_y(np.broadcast_to(yaw, frames).astype(float))
    roots = np.zeros((frames, 3))
    roots[:, 1] = height
    return encode_clip(MotionClip(rotations, roots))


@pytest.mark.parametrize(("sign", "label"), [(1, "turn-left"), (-1, "turn-right")])
def test_a_quarter_turn_is_found_with_its_side_and_half_a_second_around(sign: int, label: str) -> None:
    yaw = sign * np.interp(np.arange(120), [40, 80], [0.0, np.pi / 2])
    (found,) = turns(body(120, yaw))
    start, stop, name = found
    assert name == label
    assert 15 <= start <= 30
    assert 90 <= stop <= 105


@pytest.mark.parametrize("degrees", [20, 400])
def test_glances_and_whirls_are_no_turns(degrees: float) -> None:
    assert turns(body(120, np.radians(np.interp(np.arange(120), [10, 110], [0, degrees])))) == []


def test_a_still_body_stands_and_a_turning_one_does_not() -> None:
    assert stands(body(60)) == [(0, 60, "stand")]
    assert stands(body(60, np.linspace(0, 3, 60))) == []


def test_a_body_in_the_air_jumps() -> None:
    time = np.arange(120)
    height = PELVIS_HEIGHT + np.where((time > 50) & (time < 65), 0.25, 0.0)
    ((start, stop, label),) = jumps(body(120, height=height))
    assert label == "jump"
    assert start == 21
    assert stop == 95


def test_a_lengthened_stand_has_the_length_asked_for_and_no_jump_in_it(random_clip: Callable[..., MotionClip]) -> None:
    part = encode_clip(random_clip(1, 30))
    long = lengthened_stand(part, 100)
    assert long.shape == (100, 272)
    steps = np.abs(np.diff(decode_features(long).root_positions, axis=0)).max()
    assert steps <= np.abs(np.diff(decode_features(part).root_positions, axis=0)).max() + 1e-9
    assert abs(heading_change(long).sum()) < np.pi
