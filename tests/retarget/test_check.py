"""Checks of a profile: quiet on those that are shipped, plain words on what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from llamo_ros.core.resources import config_path
from llamo_ros.retarget.catalogue import robot_names
from llamo_ros.retarget.check import RobotCheck, check_robot, table
from llamo_ros.retarget.profile import Robot, robot_of_profile


def check_changed(change: Callable[[dict[str, Any]], object]) -> RobotCheck:
    content = yaml.safe_load(config_path("robots", "unitree_g1.yaml").read_text(encoding="utf-8"))
    change(content)
    return check_robot(robot_of_profile(content, config_path("robots", "unitree_g1.urdf").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", robot_names())
def test_shipped_profiles_have_no_errors(name: str, load_any_robot: Callable[[str], Robot]) -> None:
    found = check_robot(load_any_robot(name))
    assert found.errors == []
    assert all("gripper" in warning for warning in found.warnings)  # TALOS has two that nothing drives
    assert len(found.limbs) == 4 and len(found.feet) == 2 and len(found.capsules) == 2


def test_a_joint_is_shown_with_what_drives_it() -> None:
    joints = {row[0]: row[-1] for row in check_changed(lambda content: None).joints}
    assert joints["left_knee_joint"] == "left_knee"
    assert joints["left_ankle_roll_joint"] == "left_ankle"
    assert joints["waist_pitch_joint"] == "spine3"
    assert joints["right_wrist_yaw_joint"] == "right_wrist"


def swap_links(content: dict[str, Any]) -> None:
    content["limbs"]["left_leg"]["links"].reverse()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_links, "left_hip to left_ankle: the links left_ankle_roll_link, .* do not follow one another"),
        (lambda c: c["standing"].update(left_ankle_pitch_joint=0.3), "left_ankle_roll_link is tilted by 3. degrees"),
        (lambda c: c["collision"]["capsules"]["head"].update(radius=0.6), "head and left_.* mm in one another in the"),
    ],
    ids=["order", "tilt", "collision"],
)
def test_an_error_says_what_and_where(change: Callable[[dict[str, Any]], object], message: str) -> None:
    errors = check_changed(change).errors
    assert any(re.search(message, error) for error in errors), errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("collision"), "no collision capsules"),
        (lambda c: c.update(feet={}), "no feet"),
        (lambda c: c["standing"].update(left_elbow_joint=1.5), "left_wrist and its other side are not mirror images"),
    ],
    ids=["capsules", "feet", "mirror"],
)
def test_what_is_unusual_is_a_warning(change: Callable[[dict[str, Any]], object], message: str) -> None:
    found = check_changed(change)
    assert found.errors == [] and any(message in warning for warning in found.warnings)


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(["a", "bb"], [["ccc", "d"]]) == "a    bb\nccc  d"
