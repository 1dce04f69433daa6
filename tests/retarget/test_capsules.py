"""Capsules: the distance between them, and which pairs are checked."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.retarget.capsules import Capsule, capsule_distances, pairs_to_check, segment_distances
from llamo_ros.retarget.robot import robot_from_urdf

# base - hip - thigh - shank, and base - other: a chain of links without shape between base and thigh
LEGS = """
<robot name="legs">
  <link name="base"/> <link name="hip"/> <link name="thigh"/> <link name="shank"/> <link name="other"/>
  <joint name="roll" type="revolute"> <parent link="base"/> <child link="hip"/> <origin xyz="0 0.1 0"/>
    <axis xyz="1 0 0"/> <limit lower="-1" upper="1" velocity="3"/> </joint>
  <joint name="pitch" type="revolute"> <parent link="hip"/> <child link="thigh"/>
    <axis xyz="0 1 0"/> <limit lower="-1" upper="1" velocity="3"/> </joint>
  <joint name="knee" type="revolute"> <parent link="thigh"/> <child link="shank"/> <origin xyz="0 0 -0.4"/>
    <axis xyz="0 1 0"/> <limit lower="0" upper="2" velocity="3"/> </joint>
  <joint name="slide" type="prismatic"> <parent link="base"/> <child link="other"/> <origin xyz="0 -0.1 0"/>
    <axis xyz="0 1 0"/> <limit lower="-1" upper="1" velocity="3"/> </joint>
</robot>
"""


def capsule(name: str, link: int, start: tuple, end: tuple, radius: float) -> Capsule:
    return Capsule(name, link, np.array(start), np.array(end), radius)


def test_the_distance_of_segments_is_the_smallest_over_all_their_points() -> None:
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(4, 200, 3))
    ends[1, :20] = ends[0, :20]  # a point and a segment
    ends[3, 10:30] = ends[2, 10:30]  # two points, a segment and a point
    ends[3, 30:40] = ends[2, 30:40] + ends[1, 30:40] - ends[0, 30:40]  # parallel
    along = np.linspace(0, 1, 201)[:, None]
    first = ends[0][:, None] * (1 - along) + ends[1][:, None] * along
    second = ends[2][:, None] * (1 - along) + ends[3][:, None] * along
    expected = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1).min(axis=(1, 2))
    actual = segment_distances(*ends)
    assert (actual <= expected + 1e-12).all()
    np.testing.assert_allclose(actual, expected, atol=0.03)  # the sampled points are up to 1/200 of a segment apart


def test_capsules_move_with_their_links() -> None:
    model = robot_from_urdf(LEGS)
    capsules = (
        capsule("thigh", model.link_index("thigh"), (0, 0, 0), (0, 0, -0.4), 0.05),
        capsule("ball", model.link_index("other"), (0, 0, -0.2), (0, 0, -0.2), 0.03),
    )
    q = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.15]])  # the ball slides 0.15 m towards the thigh
    distances = capsule_distances(capsules, pairs_to_check(model, capsules), model.link_poses(q))
    np.testing.assert_allclose(distances, [[0.2 - 0.08], [0.05 - 0.08]], atol=1e-12)


def test_neighbours_and_ignored_pairs_are_not_checked() -> None:
    model = robot_from_urdf(LEGS)
    names = ("base", "thigh", "shank", "other")
    capsules = tuple(capsule(name, model.link_index(name), (0, 0, 0), (0, 0, 0.1), 0.05) for name in names)
    capsules += (capsule("calf", model.link_index("shank"), (0, 0, 0), (0, 0, 0.1), 0.05),)
    pairs = {frozenset((capsules[a].name, capsules[b].name)) for a, b in pairs_to_check(model, capsules)}
    expected = {("base", "shank"), ("base", "calf"), ("thigh", "other"), ("shank", "other"), ("calf", "other")}
    assert pairs == {frozenset(pair) for pair in expected}
    fewer = pairs_to_check(model, capsules, {frozenset(("other", "shank"))})
    assert len(fewer) == 4
    assert pairs_to_check(model, ()).shape == (0, 2)


def test_the_points_of_a_capsule_cannot_be_changed() -> None:
    start = np.zeros(3)
    ball = Capsule("ball", 0, start, start, 0.1)
    start[0] = 1.0
    assert ball.start[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        ball.end[0] = 1.0
