from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import encode_clip
from llamo_ros.motion.rotations import axis_angle_to_matrix, rotation_about_y
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX
from llamo_ros.training.filters import (
    END_EFFECTORS,
    STATIC,
    FilterSettings,
    Finding,
    end_effector_speeds,
    find_faults,
    is_static,
    load_filter_settings,
)
from llamo_ros.training.pack import mirror_features

SETTINGS = load_filter_settings()


def standing(frames: int = 60, frame_rate: float = 30.0) -> MotionClip:
    """A T-pose that does not move."""
    rotations = np.broadcast_to(np.eye(3), (frames, JOINT_COUNT, 3, 3))
    return MotionClip(rotations, np.tile([0.0, 0.95, 0.0], (frames, 1)), frame_rate)


def turned(clip: MotionClip, joint: str, speed: float) -> MotionClip:
    """The clip with one joint turning at a constant rate about y, [rad/s]."""
    rotations = clip.rotations.copy()
    angles = speed * np.arange(len(clip)) / clip.frame_rate
    rotations[:, JOINT_INDEX[joint]] = rotation_about_y(angles) @ rotations[:, JOINT_INDEX[joint]]
    return MotionClip(rotations, clip.root_positions, clip.frame_rate)


def carried(clip: MotionClip, speed: float) -> MotionClip:
    """The clip with the whole body moving sideways, [m/s]."""
    drift = np.outer(np.arange(len(clip)) / clip.frame_rate, [speed, 0.0, 0.0])
    return MotionClip(clip.rotations, clip.root_positions + drift, clip.frame_rate)


@pytest.mark.parametrize("seed", range(4))
def test_speeds_from_features_are_those_of_the_joints_in_the_world(
    seed: int, random_clip: Callable[..., MotionClip]
) -> None:
    clip = carried(turned(random_clip(seed), "pelvis", 2.0), 0.7)
    joints = clip.joint_positions()[:, [JOINT_INDEX[name] for name in END_EFFECTORS]]
    expected = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * 30
    np.testing.assert_allclose(end_effector_speeds(encode_clip(clip)), expected, atol=1e-9)  # rounding of float64


def test_standing_still_is_static_and_so_is_slower_than_five_centimetres_a_second() -> None:
    assert is_static(encode_clip(standing()))
    assert is_static(encode_clip(carried(standing(), 0.049)))
    assert not is_static(encode_clip(carried(standing(), 0.051)))


@pytest.mark.parametrize("joint", ["left_elbow", "right_shoulder", "left_hip", "spine3", "pelvis"])
def test_one_moving_limb_is_enough_to_be_no_static_clip(joint: str) -> None:
    assert not is_static(encode_clip(turned(standing(), joint, 0.6)))


def test_one_short_move_is_enough_to_be_no_static_clip() -> None:
    clip = standing()
    roots = clip.root_positions.copy()
    roots[30:] += [0.0, 0.0, 0.002]  # 6 cm/s in a single frame
    assert not is_static(encode_clip(MotionClip(clip.rotations, roots)))


def test_the_mirror_image_of_a_static_clip_is_static() -> None:
    assert is_static(mirror_features(encode_clip(standing())))
    assert not is_static(mirror_features(encode_clip(carried(standing(), 0.1))))


@pytest.mark.parametrize("shape", [(1, 272), (5, 263), (272,)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="272"):
        is_static(np.zeros(shape))


def reasons(clip: MotionClip, settings: FilterSettings = SETTINGS) -> list[str]:
    return [finding.reason for finding in find_faults(clip, settings)]


def walking(frames: int = 60) -> MotionClip:
    """Legs and arms swing, the body moves forward; the feet stay between 0 and 0.2 m."""
    clip = carried(standing(frames), 0.3)
    rotations = clip.rotations.copy()
    for joint, phase in (("left_hip", 0.0), ("right_hip", np.pi), ("left_shoulder", 1.0), ("right_elbow", 2.0)):
        angles = 0.4 * np.sin(4 * np.arange(frames) / 30 + phase)
        rotations[:, JOINT_INDEX[joint]] = axis_angle_to_matrix(np.outer(angles, [1.0, 0.2, 0.0]))
    return MotionClip(rotations, clip.root_positions)


def with_root(clip: MotionClip, change: np.ndarray) -> MotionClip:
    return MotionClip(clip.rotations, clip.root_positions + change, clip.frame_rate)


def jumped(frames: int, start: int, offset: tuple[float, float, float]) -> np.ndarray:
    change = np.zeros((frames, 3))
    change[start:] = offset
    return change


def test_ordinary_motion_has_no_fault() -> None:
    assert reasons(walking()) == []


@pytest.mark.parametrize("frames", [1, 2, 14])
def test_a_clip_shorter_than_the_limit_is_too_short(frames: int) -> None:
    assert "too short" in reasons(walking(frames))


def test_a_clip_longer_than_the_limit_is_too_long() -> None:
    assert reasons(walking(90), replace(SETTINGS, longest_s=2.9)) == ["too long"]


def test_a_root_that_jumps_is_found_with_its_time() -> None:
    findings = find_faults(with_root(walking(), jumped(60, 30, (0.0, 0.0, 1.0))), SETTINGS)
    assert findings[0].reason == "root jumps"
    assert findings[0].value == pytest.approx(30.0, abs=0.5)  # 1 m in a frame; walking adds a little
    assert findings[0].where == "pelvis at 0.97 s"


def test_a_joint_that_flips_to_another_angle_for_a_frame_is_found_by_name() -> None:
    clip = walking()
    rotations = clip.rotations.copy()
    rotations[20, JOINT_INDEX["left_shoulder"]] = rotation_about_y(np.array(2.5))
    findings = {
        finding.reason: finding for finding in find_faults(MotionClip(rotations, clip.root_positions), SETTINGS)
    }
    assert set(findings) == {"rotation flips", "joint accelerates too hard", "joint too fast"}
    assert findings["rotation flips"].where.startswith("left_shoulder")
    assert findings["joint too fast"].where.startswith("left_wrist")  # the end of the arm moves most


def test_a_body_sunk_into_the_floor_is_found() -> None:
    assert reasons(with_root(walking(), np.array([0.0, -0.3, 0.0]))) == ["below the floor"]


def test_a_jump_is_no_fault_and_floating_is_one() -> None:
    jump, hover = np.zeros((120, 3)), np.zeros((120, 3))
    time = np.arange(24) / 30
    jump[40:64, 1] = 9.81 / 2 * time * (0.8 - time)  # 0.8 s in the air, the height of a very good jumper
    ramp = np.minimum(np.arange(120), 12) / 12
    hover[:, 1] = 0.6 * ramp
    assert reasons(with_root(walking(120), jump)) == []
    assert reasons(with_root(walking(120), hover)) == ["in the air too long"]


def test_a_body_that_skates_is_found() -> None:
    floor = standing().joint_positions()[..., 1].min()
    skater = with_root(carried(standing(), 4.0), np.array([0.0, -floor, 0.0]))
    assert reasons(skater) == ["feet slide"]


def test_standing_still_is_static_and_nothing_else() -> None:
    floor = standing().joint_positions()[..., 1].min()
    assert reasons(with_root(standing(), np.array([0.0, -floor, 0.0]))) == [STATIC]


@pytest.mark.parametrize("speed", [0.03, 0.3])
def test_clip_and_features_agree_on_what_is_static(speed: float) -> None:
    clip = turned(standing(), "right_elbow", speed)
    assert is_static(encode_clip(clip)) == (STATIC in reasons(clip))


def test_a_clip_at_another_frame_rate_is_refused() -> None:
    with pytest.raises(ParameterError, match="30"):
        find_faults(standing(frame_rate=60.0), SETTINGS)


def test_a_finding_is_a_sentence_with_value_unit_and_limit() -> None:
    finding = Finding("root jumps", 31.4159, 12.5, "m/s", "pelvis at 1.00 s")
    assert str(finding) == "root jumps: 31.4 m/s, limit 12.5 (pelvis at 1.00 s)"


def test_limits_come_from_the_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(asdict(SETTINGS) | {"root_speed": 3.0}))
    assert load_filter_settings(path).root_speed == 3.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root_speed": -1.0}, "root_speed is -1.0"),
        ({"root_speed": "fast"}, "root_speed is 'fast'"),
        ({"root_speed": float("nan")}, "positive"),
        ({"rootspeed": 1.0}, "rootspeed is unknown"),
    ],
)
def test_a_wrong_limit_is_refused_by_name(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(asdict(SETTINGS) | change))
    with pytest.raises(ParameterError, match=message):
        load_filter_settings(path)


def test_a_missing_limit_or_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("shortest_s: 1.0\n")
    with pytest.raises(ParameterError, match="longest_s is missing"):
        load_filter_settings(path)
    with pytest.raises(ParameterError, match="cannot be read"):
        load_filter_settings(tmp_path / "absent.yaml")
