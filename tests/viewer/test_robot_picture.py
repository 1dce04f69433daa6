"""The picture to check a robot profile by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llamo_ros.core.errors import ParameterError
from llamo_ros.retarget.profile import load_robot
from llamo_ros.viewer.robot_picture import render_robot_check


def test_capsules_are_drawn_in_the_colours_of_their_sides(tmp_path: Path) -> None:
    robot = load_robot("unitree_h1")
    render_robot_check(robot, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    panel = pixels[40:440, 660:990]  # the third: capsules in the T-pose, seen from the front
    orange = (panel[..., 0] - panel[..., 2] > 60).nonzero()[1]
    blue = (panel[..., 2] - panel[..., 0] > 60).nonzero()[1]
    assert len(orange) > 2000 and len(blue) > 2000
    assert orange.mean() > blue.mean() + 30  # the left side is to the right for who stands in front


def test_notes_are_written_below_and_a_robot_without_capsules_is_drawn(tmp_path: Path) -> None:
    robot = replace(load_robot("booster_t1"), capsules=(), feet=())
    render_robot_check(robot, tmp_path / "x.png", ["one", "two"])
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (1320, 494)


def test_only_a_png_is_written(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="expected .png"):
        render_robot_check(load_robot("booster_t1"), tmp_path / "x.jpg")
    with pytest.raises(ParameterError, match="cannot be written"):
        render_robot_check(load_robot("booster_t1"), tmp_path / "no" / "x.png")
