from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import MIRROR

EXACT = 1e-12  # double precision on metres and unit vectors


def test_a_clip_shares_no_memory_and_cannot_be_written(random_clip: Callable) -> None:
    source = random_clip(0)
    rotations, roots = source.rotations.copy(), source.root_positions.copy()
    clip = MotionClip(rotations, roots)
    rotations[:] = 0
    roots[:] = 99
    np.testing.assert_array_equal(clip.rotations, source.rotations)
    np.testing.assert_array_equal(clip.root_positions, source.root_positions)
    with pytest.raises(ValueError, match="read-only"):
        clip.root_positions[0] = 1


@pytest.mark.parametrize("name", ["rotations", "root_positions"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_the_frame(random_clip: Callable, name: str, value: float) -> None:
    clip = random_clip(0)
    arrays = {"rotations": clip.rotations.copy(), "root_positions": clip.root_positions.copy()}
    arrays[name][7] = value
    with pytest.raises(MotionDataError, match="first in frame 7"):
        MotionClip(**arrays)


def test_matrices_that_are_no_rotations_are_refused(random_clip: Callable) -> None:
    clip = random_clip(0)
    for spoil in (2.0, -1.0):  # too long; a reflection
        with pytest.raises(MotionDataError, match="not rotation matrices"):
            MotionClip(clip.rotations * spoil, clip.root_positions)


def test_wrong_shapes_and_rates_are_refused(random_clip: Callable) -> None:
    clip = random_clip(0)
    with pytest.raises(ShapeError, match="rotations"):
        MotionClip(clip.rotations[:, :21], clip.root_positions)
    with pytest.raises(ShapeError, match="root_positions"):
        MotionClip(clip.rotations, clip.root_positions[1:])
    for rate in (0, -30.0, float("nan")):
        with pytest.raises(ParameterError, match="frame_rate"):
            MotionClip(clip.rotations, clip.root_positions, rate)


def test_an_empty_clip_has_no_duration() -> None:
    clip = MotionClip(np.zeros((0, 22, 3, 3)), np.zeros((0, 3)))
    assert len(clip) == 0 and clip.duration == 0 and clip.joint_positions().shape == (0, 22, 3)


def test_mirror_puts_every_joint_where_its_twin_is_in_the_mirror(random_clip: Callable) -> None:
    clip = random_clip(0)
    mirrored = clip.mirrored().joint_positions()[:, list(MIRROR)] * [-1.0, 1.0, 1.0]
    # smpl22's left and right bones differ by up to 8 mm each, and five of them make an arm or a leg with the trunk.
    assert np.abs(mirrored - clip.joint_positions()).max() < 0.03


def test_mirror_twice_is_the_same_motion(random_clip: Callable) -> None:
    clip = random_clip(0)
    again = clip.mirrored().mirrored()
    np.testing.assert_array_equal(again.rotations, clip.rotations)
    np.testing.assert_array_equal(again.root_positions, clip.root_positions)


def test_mirror_of_a_left_turn_is_a_right_turn(random_clip: Callable) -> None:
    clip = random_clip(0)
    np.testing.assert_allclose(clip.mirrored().rotations[:, 0, 0, 2], -clip.rotations[:, 0, 0, 2], atol=EXACT)


def test_resampling_up_keeps_the_given_frames(random_clip: Callable) -> None:
    clip = random_clip(0, frames=21)
    faster = clip.resampled(60.0)
    assert len(faster) == 41 and faster.frame_rate == 60.0 and faster.text == clip.text
    assert geodesic_angle(faster.rotations[::2], clip.rotations).max() < 1e-7  # log and exp of a rotation
    np.testing.assert_allclose(faster.root_positions[::2], clip.root_positions, atol=EXACT)


def test_resampling_puts_frames_at_their_time(random_clip: Callable) -> None:
    """The same smooth motion sampled at 120 FPS and resampled is close to its samples at 30 FPS."""
    slow, fast = random_clip(0, frames=31), random_clip(0, frames=122, frame_rate=120.0)
    resampled = fast.resampled(30.0)
    assert len(resampled) == 31
    assert np.abs(resampled.joint_positions() - slow.joint_positions()).max() < 1e-6  # same instants, no interpolation


@pytest.mark.parametrize("rate", [7.0, 24.0, 29.97, 59.94, 1000.0])
def test_resampling_never_goes_past_the_last_frame(random_clip: Callable, rate: float) -> None:
    clip = random_clip(0, frames=31)
    resampled = clip.resampled(rate)
    last_instant = (len(clip) - 1) / clip.frame_rate
    assert (len(resampled) - 1) / rate <= last_instant + 1e-9 < len(resampled) / rate + 1e-6
    low, high = clip.root_positions.min(0), clip.root_positions.max(0)
    assert (resampled.root_positions >= low - EXACT).all() and (resampled.root_positions <= high + EXACT).all()


def test_single_frame_resamples_to_itself(random_clip: Callable) -> None:
    clip = random_clip(0, frames=1).resampled(50.0)
    assert len(clip) == 1 and clip.frame_rate == 50.0


def test_slices_join_to_the_whole(random_clip: Callable) -> None:
    clip = random_clip(0)
    joined = concatenated([clip.sliced(0, 13), clip.sliced(13)])
    np.testing.assert_array_equal(joined.rotations, clip.rotations)
    np.testing.assert_array_equal(joined.root_positions, clip.root_positions)
    with pytest.raises(ParameterError, match="no clip"):
        concatenated([])
    with pytest.raises(ParameterError, match="different frame rates"):
        concatenated([clip, clip.resampled(60.0)])
