"""Points that a profile adds to a robot."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.core.errors import RobotError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.points import Point, with_points
from llamo_ros.retarget.robot import robot_from_urdf


def test_a_point_moves_with_its_link_and_changes_nothing_else() -> None:
    model = robot_from_urdf(config_path("robots", "unitree_h1.urdf").read_text(encoding="utf-8"))
    place = np.array([0.3, 0.01, -0.02])
    points = [Point("tip", "left_elbow_link", place), Point("mark", "pelvis", place)]
    extended = with_points(model, points)
    q = np.random.default_rng(1).uniform(model.lower, model.upper, (6, model.joint_count))
    before, after = model.link_poses(q), extended.link_poses(q)
    kept = [extended.link_index(name) for name in model.link_names]
    np.testing.assert_array_equal(after.positions[:, kept], before.positions)
    np.testing.assert_array_equal(after.rotations[:, kept], before.rotations)
    elbow, tip = model.link_index("left_elbow_link"), extended.link_index("tip")
    np.testing.assert_allclose(
        after.positions[:, tip], before.positions[:, elbow] + before.rotations[:, elbow] @ place, atol=1e-12
    )
    assert (extended.parents[1:] < np.arange(1, len(extended.link_names))).all()
    assert extended.moved_by[tip].sum() == 5  # waist, three of the shoulder, elbow


def test_a_point_that_cannot_be_placed_is_refused() -> None:
    model = robot_from_urdf(config_path("robots", "unitree_h1.urdf").read_text(encoding="utf-8"))
    with pytest.raises(RobotError, match="name of a link"):
        with_points(model, [Point("pelvis", "pelvis", np.zeros(3))])
    with pytest.raises(RobotError, match="'hand' is not in robot"):
        with_points(model, [Point("tip", "hand", np.zeros(3))])
