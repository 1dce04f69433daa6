"""Robot profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import RobotError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.profile import load_robot, robot_names


@pytest.fixture
def profile() -> dict:
    return yaml.safe_load(config_path("robots", "unitree_g1.yaml").read_text(encoding="utf-8"))


def write(folder: Path, profile: dict) -> Path:
    (folder / "unitree_g1.urdf").write_text(config_path("robots", "unitree_g1.urdf").read_text(encoding="utf-8"))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


@pytest.mark.parametrize("name", robot_names())
def test_every_shipped_robot_loads_and_its_postures_are_inside_its_limits(name: str) -> None:
    robot = load_robot(name)
    assert robot.name == name
    for posture in (robot.neutral, robot.standing):
        assert (posture >= robot.lower).all() and (posture <= robot.upper).all()
    assert (robot.lower > robot.model.lower).all() and (robot.upper < robot.model.upper).all()
    assert (robot.velocity_limits < robot.model.velocity_limits).all()


@pytest.mark.parametrize("name", robot_names())
def test_a_robot_that_stands_has_its_soles_level_and_equally_high(name: str) -> None:
    robot = load_robot(name)
    poses = robot.model.link_poses(robot.standing[None])
    feet = [(robot.limbs[foot.limb].links[2], foot.sole) for foot in robot.feet]
    corners = [poses.positions[0, link] + sole @ poses.rotations[0, link].T for link, sole in feet]
    assert np.ptp(np.concatenate(corners)[:, 2]) < 0.002  # [m]; the posture's angles are rounded to 1e-3 rad


def test_an_unknown_robot_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RobotError, match="'terminator' is unknown. Known robots: .*unitree_g1"):
        load_robot("terminator")


def test_a_profile_loads_from_a_path(tmp_path: Path, profile: dict) -> None:
    assert load_robot(write(tmp_path, profile | {"name": "mine"})).name == "mine"


def test_the_limits_of_a_given_description_hold() -> None:
    text = load_robot("unitree_g1").description.replace('upper="2.8798" velocity="20"', 'upper="2.0" velocity="10"')
    robot = load_robot("unitree_g1", description=text)
    knee = robot.model.joint_index("left_knee_joint")
    assert robot.upper[knee] < 2.0 and robot.velocity_limits[knee] < 10.0


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["limbs", "left_arm", "links", 0], "left_shoulder", "link 'left_shoulder' is not in robot"),
        (["limbs", "left_arm", "human", 0], "left_sholder", "'left_sholder' is not in smpl22"),
        (["limbs", "left_arm", "human"], ["left_wrist"], "1 human joints"),
        (["limbs", "left_arm", "weights", "reach"], -1.0, "limbs.left_arm.weights: 'reach' is -1.0"),
        (["feet", "left", "limb"], "leg", "'leg' is not among the limbs"),
        (["feet", "left", "sole"], [[0, 0]], "any x 3 numbers"),
        (["orientations", "chest"], {"human": "spine3", "link": "torso_link"}, "orientations.chest: 'weight' is None"),
        (["orientations"], {}, "no 'orientations'"),
        (["limits", "velocity_scale"], 2, "at most 1"),
        (["limits", "acceleration"], 0, "must be positive"),
        (["limits", "accelerations", "knee"], 5, "joint 'knee' is not in robot"),
        (["neutral", "left_knee_joint"], "bent", "an angle in radians"),
        (["description"], "nothing.urdf", "cannot be read"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(
    tmp_path: Path, profile: dict, keys: list, value: object, message: str
) -> None:
    place = profile
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(RobotError, match=message):
        load_robot(write(tmp_path, profile))


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"], ids=["list", "cut short", "binary"])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(RobotError, match="robot.yaml"):
        load_robot(path)
