"""Strips of robots and plots of joints: right size, something on them, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llamo_ros.core.errors import ParameterError
from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.viewer.tracking import Lines, render_lines, render_rows


def test_each_motion_has_a_row(tmp_path: Path) -> None:
    robot, count = load_robot("unitree_g1"), 3
    motion = RobotMotion(
        robot.joint_names, np.tile(robot.standing, (count, 1)), np.tile([0, 0, 0.78], (count, 1)),
        np.tile([0, 0, 0, 1.0], (count, 1)), np.ones((count, 2)), 30.0,
    )  # fmt: skip
    sizes = []
    for rows in (1, 2):
        path = tmp_path / "folder" / f"{rows}.png"
        render_rows({f"row {number}": motion for number in range(rows)}, robot, path, "standing")
        with Image.open(path) as image:
            sizes.append(image.size)
            assert len(image.getcolors(1 << 24)) > 100
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] > sizes[0][1] + 200


def test_lines_are_drawn_in_their_colours(tmp_path: Path) -> None:
    times = np.linspace(0, 2, 200)
    plot = Lines("knee [rad]", times, {"reference": np.sin(times), "simulated": np.zeros(200)})
    render_lines([plot] * 3, tmp_path / "plot.png", "knees")
    with Image.open(tmp_path / "plot.png") as image:
        counts = {colour: count for count, colour in image.getcolors(1 << 24)}
    assert counts[(35, 38, 44)] > 1000 and counts[(60, 120, 210)] > 1000


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no motion"):
        render_rows({}, load_robot("unitree_g1"), tmp_path / "a.png")
    with pytest.raises(ParameterError, match="nothing to plot"):
        render_lines([], tmp_path / "a.png")
    with pytest.raises(ParameterError, match="expected 1 to 4 lines"):
        Lines("a", np.arange(3.0), {})
    with pytest.raises(ParameterError, match=r"expected \.png"):
        render_lines([Lines("a", np.arange(3.0), {"x": np.arange(3.0)})], tmp_path / "a.gif")
