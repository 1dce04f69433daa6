from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import MotionFileError
from llamo_ros.core.resources import config_path
from llamo_ros.motion.joint_map import detect_joint_map, joint_map_names, load_joint_map


def smpl_content() -> dict:
    return yaml.safe_load(config_path("joint_maps", "smpl.yaml").read_text())


def write(folder: Path, content: object) -> Path:
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return folder / "own.yaml"


@pytest.mark.parametrize("name", ["bandai_namco", "cmu", "daz", "smpl"])
def test_maps_of_the_package_load_and_detect_their_own_rig(name: str) -> None:
    assert name in joint_map_names()
    joint_map = load_joint_map(name)
    assert detect_joint_map(tuple(joint_map.joints.values()), "file").name == name
    for rotation in (joint_map.rotation_world, *joint_map.axes.values()):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0


def test_axes_say_where_the_axes_of_the_joint_point(tmp_path: Path) -> None:
    content = smpl_content() | {
        "axes": {"left_hip": {"x": "down", "-y": "left"}, "head": {"z": [0, 0.6, 0.8], "x": "left"}}
    }
    axes = load_joint_map(write(tmp_path, content)).axes
    np.testing.assert_allclose(axes["left_hip"] @ [1, 0, 0], [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(axes["left_hip"] @ [0, -1, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(axes["head"] @ [0, 0, 1], [0, 0.6, 0.8], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [], "at least the key 'joints'"),
        (lambda c: c | {"joint": {}}, "unknown key 'joint'"),
        (lambda c: c | {"joints": c["joints"] | {"left_hand": "x"}}, "'left_hand' is no smpl22 joint"),
        (lambda c: c | {"joints": {"pelvis": "pelvis"}}, "lacks left_hip"),
        (lambda c: c | {"up": "w"}, "'up' is 'w'"),
        (lambda c: c | {"up": "z"}, "must be perpendicular"),
        (lambda c: c | {"calibration_frames": "one"}, "whole number"),
        (lambda c: c | {"axes": {"head": {"x": "up"}}}, "expected two"),
        (lambda c: c | {"axes": {"head": {"x": "up", "y": "down"}}}, "parallel"),
        (lambda c: c | {"axes": {"head": {"x": "north", "y": "up"}}}, "is 'north'"),
        (lambda c: c | {"axes": {"head": {"x": [1, 2], "y": "up"}}}, r"is \[1, 2\]"),
        (lambda c: c | {"axes": ["head"]}, "'axes' is not a mapping"),
    ],
)
def test_malformed_map_says_what_is_wrong(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(MotionFileError, match=message) as error:
        load_joint_map(write(tmp_path, change(smpl_content())))
    assert "own.yaml" in str(error.value)


def test_unknown_map_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match="Known maps: .*cmu"):
        load_joint_map("cmuu")
    with pytest.raises(MotionFileError, match="cannot be read"):
        load_joint_map(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("joints: {pelvis: [")
    with pytest.raises(MotionFileError, match="cannot be read"):
        load_joint_map(tmp_path / "broken.yaml")
