from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import rotation_about_y
from llamo_ros.pipelines.in_between import InBetween
from llamo_ros.pipelines.splicing import fade_weights


@pytest.fixture(scope="module")
def ahead(walker: Callable[..., MotionClip]) -> MotionClip:
    """Goes straight on at 1 m/s."""
    return walker(90)


def placed(clip: MotionClip, turn: float, step: tuple[float, float]) -> MotionClip:
    """The clip turned to the left about its first frame and put elsewhere."""
    rotation = rotation_about_y(np.array(turn))
    rotations = clip.rotations.copy()
    rotations[:, 0] = rotation @ rotations[:, 0]
    origin = clip.root_positions[0]
    roots = (clip.root_positions - origin) @ rotation.T + origin + [step[0], 0.0, step[1]]
    return replace(clip, rotations=rotations, root_positions=roots)


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.5])
def test_it_measures_how_far_beside_the_second_clip_the_middle_leads(ahead: MotionClip, turn: float) -> None:
    end = placed(ahead.sliced(60), turn, (0.3, -0.4))
    filled = InBetween.of(ahead.sliced(0, 30), ahead.sliced(30, 60), end)
    assert filled.distance == pytest.approx(0.5, abs=1e-6)
    assert filled.turn == pytest.approx(turn, abs=1e-6)
    assert filled.joint_turn < 0.02  # what the joints' acceleration adds in a frame


def test_the_second_clip_moved_is_where_it_would_be_without_the_gap(ahead: MotionClip) -> None:
    end = placed(ahead.sliced(60), 0.7, (3.0, -2.0))
    whole = InBetween.of(ahead.sliced(0, 30), ahead.sliced(30, 60), end).moved()
    np.testing.assert_allclose(whole.root_positions, ahead.root_positions, atol=1e-6)
    np.testing.assert_allclose(whole.rotations[60:], ahead.rotations[60:], atol=1e-6)
    np.testing.assert_allclose(whole.rotations, ahead.rotations, atol=0.02)


def test_the_middle_bent_arrives_little_by_little_and_leaves_both_clips_alone(ahead: MotionClip) -> None:
    end = placed(ahead.sliced(60), 0.4, (0.3, -0.4))
    whole = InBetween.of(ahead.sliced(0, 30), ahead.sliced(30, 60), end).bent()
    np.testing.assert_array_equal(whole.root_positions[:30], ahead.root_positions[:30])
    np.testing.assert_array_equal(whole.root_positions[60:], end.root_positions)
    moved = whole.root_positions[30:60] - ahead.root_positions[30:60]
    np.testing.assert_allclose(moved[:, 0], 0.3 * fade_weights(30), atol=1e-6)
    np.testing.assert_allclose(moved[:, 2], -0.4 * fade_weights(30), atol=1e-6)
    steps = np.linalg.norm(np.diff(whole.root_positions, axis=0), axis=-1)
    assert steps.max() < 1 / 30 + 1.875 * 0.5 / 30, "no step is larger than the fade adds"


def test_clips_at_another_rate_meet_the_middle_at_30_frames_per_second(walker: Callable[..., MotionClip]) -> None:
    clip = walker(90)
    fast = replace(clip.resampled(120.0), frame_rate=120.0)
    filled = InBetween.of(fast.sliced(0, 117), clip.sliced(30, 60), fast.sliced(240))  # frames 0..29 and 60..89
    assert (len(filled.start), len(filled.end)) == (30, 30)
    assert filled.distance < 1e-6
    np.testing.assert_allclose(filled.moved().root_positions, clip.root_positions, atol=1e-6)
