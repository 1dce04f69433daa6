from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.npz import PELVIS_IN_SMPL, PELVIS_IN_SMPLX, load_npz, save_npz
from llamo_ros.motion.rotations import geodesic_angle, matrix_to_axis_angle

EXACT = 1e-7  # quaternions in double precision; the angle between two equal rotations is the asin of a rounding error


def assert_same(actual: MotionClip, expected: MotionClip) -> None:
    assert geodesic_angle(actual.rotations, expected.rotations).max() < EXACT
    np.testing.assert_allclose(actual.root_positions, expected.root_positions, atol=1e-12)
    assert actual.frame_rate == expected.frame_rate


@pytest.fixture
def own(random_clip: Callable, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file in our own layout and its arrays, to spoil."""
    save_npz(random_clip(0), tmp_path / "own.npz")
    with np.load(tmp_path / "own.npz") as file:
        return tmp_path / "own.npz", dict(file)


def amass_arrays(clip: MotionClip, joints: int = 52, pelvis: np.ndarray = PELVIS_IN_SMPL) -> dict[str, np.ndarray]:
    """The clip as AMASS has it: its world is turned so that z is up, and the pelvis' own place is not in ``trans``."""
    to_z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    rotations = clip.rotations.copy()
    rotations[:, 0] = to_z_up @ rotations[:, 0]
    poses = np.zeros((len(clip), joints, 3))
    poses[:, :22] = matrix_to_axis_angle(rotations)
    return {
        "poses": poses.reshape(len(clip), -1),
        "trans": clip.root_positions @ to_z_up.T - pelvis,
        "mocap_framerate": np.array(clip.frame_rate),
        "gender": np.array("neutral"),
        "betas": np.zeros(16),
    }


@pytest.mark.parametrize("frames", [0, 1, 40])
def test_own_layout_reads_back_the_same(random_clip: Callable, tmp_path: Path, frames: int) -> None:
    clip = replace(random_clip(0, frame_rate=50.0).sliced(0, frames), text="a person waves, ñ")
    save_npz(clip, tmp_path / "clip.anything")
    actual = load_npz(tmp_path / "clip.anything")
    assert len(actual) == frames and actual.text == clip.text
    if frames:
        assert_same(actual, clip)


def test_keys_name_unit_and_order(own) -> None:
    _, arrays = own
    assert set(arrays) == {
        "llamo_motion_version",
        "skeleton",
        "rotations_quaternion_wxyz",
        "root_positions_m",
        "frame_rate_hz",
        "text",
    }
    assert (arrays["rotations_quaternion_wxyz"][..., 0] >= 0).all()


@pytest.mark.parametrize(("joints", "pelvis"), [(24, PELVIS_IN_SMPL), (52, PELVIS_IN_SMPL), (55, PELVIS_IN_SMPLX)])
def test_amass_layout_becomes_y_up(random_clip: Callable, tmp_path: Path, joints: int, pelvis: np.ndarray) -> None:
    clip = random_clip(0, frame_rate=120.0)
    np.savez(tmp_path / "amass.npz", **amass_arrays(clip, joints, pelvis))
    assert_same(load_npz(tmp_path / "amass.npz"), clip)


@pytest.mark.parametrize(
    ("extra", "pelvis"), [({}, PELVIS_IN_SMPL), ({"pose_jaw": np.zeros((40, 3))}, PELVIS_IN_SMPLX)]
)
def test_amass_in_parts_is_read_like_the_whole(
    random_clip: Callable, tmp_path: Path, extra: dict[str, np.ndarray], pelvis: np.ndarray
) -> None:
    clip = random_clip(0, frame_rate=120.0)
    arrays = amass_arrays(clip, pelvis=pelvis)
    poses = arrays.pop("poses")
    np.savez(tmp_path / "parts.npz", root_orient=poses[:, :3], pose_body=poses[:, 3:66], **arrays, **extra)
    assert_same(load_npz(tmp_path / "parts.npz"), clip)


def test_newer_amass_key_of_the_frame_rate_is_read(random_clip: Callable, tmp_path: Path) -> None:
    arrays = amass_arrays(random_clip(0))
    arrays["mocap_frame_rate"] = arrays.pop("mocap_framerate") * 2
    np.savez(tmp_path / "amass.npz", **arrays)
    assert load_npz(tmp_path / "amass.npz").frame_rate == 60.0


@pytest.mark.parametrize(("joints", "pelvis"), [(21, PELVIS_IN_SMPLX), (23, PELVIS_IN_SMPL)])
def test_smpl_layout_is_read_y_up(random_clip: Callable, tmp_path: Path, joints: int, pelvis: np.ndarray) -> None:
    clip = random_clip(0)
    body = np.zeros((len(clip), joints, 3))
    body[:, :21] = matrix_to_axis_angle(clip.rotations[:, 1:])
    arrays = {
        "global_orient": matrix_to_axis_angle(clip.rotations[:, 0]),
        "body_pose": body.reshape(len(clip), -1),
        "transl": clip.root_positions - pelvis,
    }
    np.savez(tmp_path / "smpl.npz", **arrays)
    assert_same(load_npz(tmp_path / "smpl.npz", frame_rate=30.0), clip)
    with pytest.raises(MotionFileError, match="give it as frame_rate"):
        load_npz(tmp_path / "smpl.npz")


def test_up_axis_can_be_told(random_clip: Callable, tmp_path: Path) -> None:
    clip = random_clip(0)
    arrays = amass_arrays(clip)
    arrays["poses"][:, :3] = matrix_to_axis_angle(clip.rotations[:, 0])
    arrays["trans"] = clip.root_positions - PELVIS_IN_SMPL
    np.savez(tmp_path / "y_up.npz", **arrays)
    assert_same(load_npz(tmp_path / "y_up.npz", up="y"), clip)


@pytest.mark.parametrize(
    ("key", "spoil", "message"),
    [
        ("rotations_quaternion_wxyz", lambda a: a[:, :21], "21 joints, expected 22"),
        ("rotations_quaternion_wxyz", lambda a: a[..., :3], "the last of 4"),
        ("rotations_quaternion_wxyz", lambda a: a * 2, "not of length 1"),
        ("rotations_quaternion_wxyz", lambda a: a.astype(str), "expected numbers"),
        ("rotations_quaternion_wxyz", lambda a: np.where(np.arange(len(a))[:, None, None] == 5, np.nan, a), "frame 5"),
        ("root_positions_m", lambda a: a * np.inf, "NaN or infinite"),
        ("root_positions_m", lambda a: a[:-1], "40 frames of rotations but 39"),
        ("root_positions_m", lambda a: None, "has no root_positions_m"),
        ("text", lambda a: None, "has no text"),
        ("text", lambda a: np.array(3), "is not one text"),
        ("frame_rate_hz", lambda a: np.array(0.0), "frame_rate is 0"),
        ("frame_rate_hz", lambda a: np.array([1.0, 2.0]), "not one finite number"),
        ("skeleton", lambda a: np.array("smplx55"), "expected 'smpl22'"),
        ("llamo_motion_version", lambda a: np.array(2), "layout version 2"),
        ("root_positions_m", lambda a: a.astype(object), "Python objects are never loaded"),
    ],
)
def test_unusable_own_file_says_what_is_wrong(own, key: str, spoil: Callable, message: str) -> None:
    path, arrays = own
    value = spoil(arrays.pop(key))
    if value is not None:
        arrays[key] = value
    np.savez(path, **arrays)
    with pytest.raises(MotionFileError, match=message) as error:
        load_npz(path)
    assert "own.npz" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("poses", np.zeros((40, 21 * 3)), "n >= 22"),
        ("poses", np.zeros((40, 67)), "n >= 22"),
        ("poses", np.full((40, 66), np.nan), "first in frame 0"),
        ("trans", None, "has no trans"),
        ("trans", np.zeros((39, 3)), "40 frames of rotations but 39"),
        ("mocap_framerate", None, "give it as frame_rate"),
    ],
)
def test_unusable_amass_file_says_what_is_wrong(
    random_clip: Callable, tmp_path: Path, key: str, value: np.ndarray | None, message: str
) -> None:
    arrays = amass_arrays(random_clip(0))
    del arrays[key]
    if value is not None:
        arrays[key] = value
    np.savez(tmp_path / "amass.npz", **arrays)
    with pytest.raises(MotionFileError, match=message):
        load_npz(tmp_path / "amass.npz")


def test_file_of_no_known_layout_lists_its_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", joints=np.zeros(3), fps=30)
    with pytest.raises(MotionFileError, match="joints, fps"):
        load_npz(tmp_path / "other.npz")


def test_what_is_no_archive_is_refused(own, tmp_path: Path) -> None:
    path, _ = own
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "empty.npz").touch()
    for name in ("text.npz", "array.npy", "empty.npz"):
        with pytest.raises(MotionFileError, match="no .npz archive"):
            load_npz(tmp_path / name)
    for missing in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(MotionFileError, match="cannot be read"):
            load_npz(missing)


def test_any_cut_or_flipped_byte_gives_a_motion_file_error_or_a_sound_clip(own) -> None:
    path, _ = own
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        changed = bytearray(content)
        if generator.random() < 0.4:
            changed = changed[: generator.integers(0, len(changed))]
        else:
            for place in generator.integers(0, len(changed), 4):
                changed[place] = generator.integers(0, 256)
        path.write_bytes(changed)
        try:
            clip = load_npz(path)
        except MotionFileError:
            refused += 1  # every other error fails the test
        else:
            assert np.isfinite(clip.joint_positions()).all()
    assert refused > 75  # checksums catch nearly all of them


def test_wrong_arguments_are_refused(own, random_clip: Callable, tmp_path: Path) -> None:
    path, _ = own
    with pytest.raises(ParameterError, match="up is 'x'"):
        load_npz(path, up="x")
    with pytest.raises(ParameterError, match="frame_rate is -1"):
        load_npz(path, frame_rate=-1)
    with pytest.raises(ParameterError, match="our own layout"):
        load_npz(path, frame_rate=60)
    with pytest.raises(MotionFileError, match="cannot be written"):
        save_npz(random_clip(0), tmp_path / "no such folder" / "clip.npz")
