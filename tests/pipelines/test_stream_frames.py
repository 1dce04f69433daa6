from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import StreamingDecoder, encode_clip
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.pipelines.splicing import BRAKE_FRAMES
from llamo_ros.pipelines.stream_frames import BLEND_SPEED, StreamFrames

Walker = Callable[..., MotionClip]


def fed(frames: StreamFrames, clip: MotionClip) -> list[MotionClip]:
    features = encode_clip(clip)
    return [frames.decode(features[start : start + 4]) for start in range(0, len(clip), 4)]


def largest_steps(clip: MotionClip) -> tuple[float, float]:
    """Of a joint, [rad], and of the root, [m], from one frame to the next."""
    turn = geodesic_angle(clip.rotations[:-1], clip.rotations[1:]).max()
    return turn, np.linalg.norm(np.diff(clip.root_positions, axis=0), axis=-1).max()


def test_without_a_blend_frames_are_those_of_the_decoder(walker: Walker) -> None:
    clip = walker(24)
    frames = StreamFrames(StreamingDecoder())
    frames.blend()  # before any frame there is nothing to blend with
    made = concatenated(fed(frames, clip))
    expected = StreamingDecoder().decode(encode_clip(clip))
    np.testing.assert_array_equal(made.rotations, expected.rotations)


@pytest.mark.parametrize("turn", [0.0, 2.0])
def test_a_motion_that_begins_in_another_posture_is_joined_without_a_jump(walker: Walker, turn: float) -> None:
    first, second = walker(40, seed=0), walker(80, seed=3, turn=turn)
    plain = StreamFrames(StreamingDecoder())
    jump, _ = largest_steps(concatenated(fed(plain, first) + fed(plain, second)))
    frames = StreamFrames(StreamingDecoder())
    made = fed(frames, first)
    frames.blend()
    made += fed(frames, second)
    step, travel = largest_steps(concatenated(made))
    # The steps of the motions themselves, and what a fade may add to a joint.
    own = max(largest_steps(clip)[0] for clip in (first, second))
    assert jump > 2 * (own + BLEND_SPEED / 30)
    assert step < own + BLEND_SPEED / 30
    assert travel < 1.1 / 30  # both walk at 1 m/s


def test_after_the_fade_the_new_motion_is_played_as_it_is_where_the_body_stands(walker: Walker) -> None:
    first, second = walker(40, seed=0), walker(120, seed=3)
    frames = StreamFrames(StreamingDecoder())
    fed(frames, first)
    frames.blend()
    made = concatenated(fed(frames, second))
    expected = StreamingDecoder().decode(encode_clip(second))
    faded = 60  # longer than the longest fade, 45 frames
    np.testing.assert_allclose(made.rotations[faded:, 1:], expected.rotations[faded:, 1:], atol=1e-9)
    np.testing.assert_allclose(
        np.diff(made.root_positions[faded:], axis=0), np.diff(expected.root_positions[faded:], axis=0), atol=1e-9
    )


def test_blends_may_follow_each_other_quickly(walker: Walker) -> None:
    frames = StreamFrames(StreamingDecoder())
    made = fed(frames, walker(8, seed=0))
    for seed in range(1, 6):
        frames.blend()
        made += fed(frames, walker(2 * BRAKE_FRAMES, seed=seed))
    assert largest_steps(concatenated(made))[0] < 0.5  # the postures themselves are 0.6 rad apart and more
