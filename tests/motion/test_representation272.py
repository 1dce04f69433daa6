from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion import representation272 as codec
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import geodesic_angle, rotation_about_y

# Features are float64 here; heading and path are sums over the frames, which add a rounding error each.
EXACT = 1e-10


def moved(clip: MotionClip, yaw: float, shift: tuple[float, float]) -> MotionClip:
    """The clip turned by ``yaw`` about the world's y and shifted along the floor."""
    turn = rotation_about_y(np.array(yaw))
    rotations = clip.rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    return replace(clip, rotations=rotations, root_positions=clip.root_positions @ turn.T + [shift[0], 0, shift[1]])


def at_origin(clip: MotionClip) -> MotionClip:
    """The clip as the decoder places it: heading 0 and x = z = 0 in frame 0."""
    yaw = float(codec.heading(clip.rotations[0, 0]))
    turned = moved(clip, -yaw, (0.0, 0.0))
    return moved(turned, 0.0, (-turned.root_positions[0, 0], -turned.root_positions[0, 2]))


@pytest.mark.parametrize("seed", range(3))
def test_features_decode_to_the_motion_they_encode(random_clip: Callable, seed: int) -> None:
    clip = at_origin(random_clip(seed, frames=100))
    decoded = codec.decode_features(codec.encode_clip(clip))
    assert geodesic_angle(decoded.rotations, clip.rotations).max() < 1e-7  # asin of a rounding error
    np.testing.assert_allclose(decoded.root_positions, clip.root_positions, atol=EXACT)


def test_decoded_motion_encodes_to_the_same_features(random_clip: Callable) -> None:
    features = codec.encode_clip(random_clip(0, frames=100))
    again = codec.encode_clip(codec.decode_features(features))
    np.testing.assert_allclose(again, features, atol=EXACT)


def test_float32_features_of_real_motion_come_back_to_a_hundredth_of_a_millimetre(real_clip: MotionClip) -> None:
    features = codec.encode_clip(real_clip)
    decoded = codec.decode_features(features.astype(np.float32))
    np.testing.assert_allclose(decoded.joint_positions(), at_origin(real_clip).joint_positions(), atol=1e-5)
    np.testing.assert_allclose(codec.encode_clip(decoded), features, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 100])
def test_chunks_of_any_size_decode_like_the_whole(random_clip: Callable, chunk: int) -> None:
    features = codec.encode_clip(random_clip(1, frames=61))
    whole = codec.decode_features(features)
    decoder = codec.StreamingDecoder()
    parts = [decoder.decode(features[start : start + chunk]) for start in range(0, 61, chunk)]
    np.testing.assert_allclose(np.concatenate([part.rotations for part in parts]), whole.rotations, atol=EXACT)
    np.testing.assert_allclose(
        np.concatenate([part.root_positions for part in parts]), whole.root_positions, atol=EXACT
    )


def test_empty_chunk_changes_nothing(random_clip: Callable) -> None:
    features = codec.encode_clip(random_clip(1, frames=10))
    decoder = codec.StreamingDecoder()
    decoder.decode(features[:5])
    assert len(decoder.decode(features[:0])) == 0
    actual = decoder.decode(features[5:]).root_positions
    np.testing.assert_allclose(actual, codec.decode_features(features).root_positions[5:], atol=EXACT)


def test_place_and_heading_of_the_clip_are_not_in_the_features(random_clip: Callable) -> None:
    clip = random_clip(2)
    features = codec.encode_clip(moved(clip, 2.0, (3.0, -4.0)))
    np.testing.assert_allclose(features, codec.encode_clip(clip), atol=EXACT)


def test_decoder_starts_where_it_is_told(random_clip: Callable) -> None:
    clip = at_origin(random_clip(2))
    decoded = codec.StreamingDecoder(2.0, (3.0, -4.0)).decode(codec.encode_clip(clip))
    expected = moved(clip, 2.0, (3.0, -4.0))
    np.testing.assert_allclose(decoded.rotations, expected.rotations, atol=EXACT)
    np.testing.assert_allclose(decoded.root_positions, expected.root_positions, atol=EXACT)


def standing(frames: int) -> tuple[np.ndarray, np.ndarray]:
    return np.broadcast_to(np.eye(3), (frames, 22, 3, 3)).copy(), np.tile([0.0, 0.9, 0.0], (frames, 1))


def test_walking_forward_is_displacement_along_plus_z_whatever_the_heading() -> None:
    rotations, roots = standing(10)
    roots[:, 2] = 0.05 * np.arange(10)
    for yaw in (0.0, 1.0, -2.5):
        features = codec.encode_clip(moved(MotionClip(rotations, roots), yaw, (0.0, 0.0)))
        np.testing.assert_allclose(features[1:, codec.ROOT_DISPLACEMENT], np.tile([0.0, 0.05], (9, 1)), atol=EXACT)


def test_turning_left_is_positive_and_accumulates() -> None:
    rotations, roots = standing(10)
    rotations[:, 0] = rotation_about_y(0.1 * np.arange(10))
    features = codec.encode_clip(MotionClip(rotations, roots))
    np.testing.assert_allclose(codec.heading_change(features), [0.0] + [0.1] * 9, atol=EXACT)
    np.testing.assert_allclose(
        codec.heading(codec.decode_features(features).rotations[:, 0]), 0.1 * np.arange(10), atol=EXACT
    )


def test_turning_more_than_half_a_turn_keeps_counting() -> None:
    rotations, roots = standing(90)
    rotations[:, 0] = rotation_about_y(0.1 * np.arange(90))  # more than a full turn
    decoded = codec.decode_features(codec.encode_clip(MotionClip(rotations, roots)))
    np.testing.assert_allclose(decoded.rotations, rotations, atol=EXACT)


def test_first_frame_has_no_change(random_clip: Callable) -> None:
    first = codec.encode_clip(random_clip(0))[0]
    np.testing.assert_allclose(first[codec.ROOT_DISPLACEMENT], 0, atol=EXACT)
    np.testing.assert_allclose(first[codec.HEADING_CHANGE], [1, 0, 0, 0, 1, 0], atol=EXACT)
    np.testing.assert_allclose(first[codec.VELOCITIES], 0, atol=EXACT)


def test_position_channels_face_plus_z_with_left_at_plus_x(random_clip: Callable) -> None:
    """An asymmetric pose: only the left arm hangs. It must be seen at +x, low, however the person faces."""
    rotations, roots = standing(3)
    rotations[:, 16] = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to -y: the arm hangs
    for yaw in (0.0, 1.5, 3.0):
        clip = moved(MotionClip(rotations, roots), yaw, (1.0, 2.0))
        positions = codec.encode_clip(clip)[:, codec.POSITIONS].reshape(3, 22, 3)
        np.testing.assert_allclose(positions[:, 0], [[0, 0.9, 0]] * 3, atol=EXACT)
        assert (positions[:, 20, 0] > 0.1).all() and (positions[:, 21, 0] < -0.5).all()
        assert (positions[:, 20, 1] < positions[:, 21, 1] - 0.4).all()
        assert (positions[:, 10, 2] > positions[:, 7, 2] + 0.1).all()  # toes in front of the ankle


def test_position_channels_are_the_positions_of_forward_kinematics(random_clip: Callable) -> None:
    clip = at_origin(random_clip(0))
    features = codec.encode_clip(clip)
    positions = features[:, codec.POSITIONS].reshape(len(clip), 22, 3)
    expected = clip.joint_positions() - clip.root_positions[:, None] * [1.0, 0.0, 1.0]
    expected = expected @ rotation_about_y(codec.heading(clip.rotations[:, 0]))  # row vectors: the inverse turn
    np.testing.assert_allclose(positions, expected, atol=EXACT)
    np.testing.assert_allclose(
        features[1:, codec.VELOCITIES], np.diff(features[:, codec.POSITIONS], axis=0), atol=EXACT
    )


def test_mirror_negates_sideways_displacement_and_turning(random_clip: Callable) -> None:
    clip = random_clip(0)
    features, mirrored = codec.encode_clip(clip), codec.encode_clip(clip.mirrored())
    np.testing.assert_allclose(mirrored[:, 0], -features[:, 0], atol=EXACT)
    np.testing.assert_allclose(mirrored[:, 1], features[:, 1], atol=EXACT)
    np.testing.assert_allclose(codec.heading_change(mirrored), -codec.heading_change(features), atol=EXACT)


def test_unusable_input_is_refused_and_leaves_the_decoder_as_it_was(random_clip: Callable) -> None:
    clip = random_clip(0)
    with pytest.raises(ParameterError, match="60"):
        codec.encode_clip(clip.resampled(60.0))
    with pytest.raises(ParameterError, match="0 frames"):
        codec.encode_clip(clip.sliced(0, 0))
    features = codec.encode_clip(clip)
    decoder = codec.StreamingDecoder()
    decoder.decode(features[:20])
    with pytest.raises(ShapeError, match="272"):
        decoder.decode(features[20:, :271])
    spoilt = features[20:].copy()
    spoilt[3, 100] = np.nan
    with pytest.raises(MotionDataError, match="NaN"):
        decoder.decode(spoilt)
    actual = decoder.decode(features[20:]).root_positions
    np.testing.assert_allclose(actual, codec.decode_features(features).root_positions[20:], atol=EXACT)
