"""Shapes are where geometry says, and cover each other in order of depth."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.viewer.bodies import Body, Part
from llamo_ros.viewer.raycast import INTERSECTIONS, Camera, draw_body

RED, GREEN = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1)


def camera() -> Camera:
    return Camera(200, 200, azimuth=0.6, elevation=0.2, distance=5.0, view_height=2.0)


def body_of(*parts: Part, positions: np.ndarray) -> Body:
    rotations = np.tile(np.eye(3), (1, len(positions), 1, 1))
    return Body(parts, positions[None], rotations, 30.0, 1.0, ())


def ball(link: int, radius: float, colour: tuple[float, float, float]) -> Part:
    return Part("capsule", link, np.eye(3), np.zeros(3), (radius, radius, 0.0), colour)


def picture_of(body: Body) -> np.ndarray:
    return np.asarray(draw_body(camera(), body, 0, np.array([0.0, 0.0, 1.0]), np.zeros((1, 2)))).astype(int)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("capsule", (0.2, 0.1, 0.5)),
        ("capsule", (0.15, 0.15, 0.4)),
        ("capsule", (0.2, 0.2, 0.0)),
        ("cylinder", (0.2, 0.2, 0.5)),
        ("box", (0.3, 0.2, 0.5)),
    ],
    ids=str,
)
def test_hits_lie_on_the_surface_with_a_normal_that_faces_the_eye(kind: str, size: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    eye = np.array([0.9, -1.4, 1.1], np.float32)
    aims = rng.uniform(-0.4, 0.4, (4000, 3))
    rays = ((aims - eye) / np.linalg.norm(aims - eye, axis=1, keepdims=True)).astype(np.float32)
    distance, normals = INTERSECTIONS[kind](eye, rays, size)
    hit = np.isfinite(distance)
    assert 0.05 < hit.mean() < 0.95
    points = eye + distance[hit, None] * rays[hit]
    # Distances are about 2 m in float32 (1e-7), and quadratics lose half of the digits at grazing rays.
    assert np.abs(signed_distance(kind, size, points)).max() < 2e-3
    assert np.abs(np.linalg.norm(normals[hit], axis=1) - 1).max() < 1e-2
    assert ((normals[hit] * rays[hit]).sum(axis=1) < 1e-2).all()


def signed_distance(kind: str, size: tuple[float, float, float], points: np.ndarray) -> np.ndarray:
    """Distance of points from the surface, the independent way: by distance fields."""
    if kind == "box":
        outside = np.abs(points) - 0.5 * np.array(size)
        return np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(axis=1), 0)
    across = np.hypot(points[:, 0], points[:, 1])
    if kind == "cylinder":
        outside = np.stack([across - size[0], np.abs(points[:, 2]) - 0.5 * size[2]], axis=1)
        return np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(axis=1), 0)
    start, end, length = size
    # A capsule is the union of balls whose radius goes linearly from one end to the other.
    share = np.linspace(0, 1, 4001)
    centres, radii = (share - 0.5) * length, start + share * (end - start)
    blocks = [
        (np.hypot(a[:, None], z[:, None] - centres) - radii).min(axis=1)
        for a, z in zip(np.array_split(across, 10), np.array_split(points[:, 2], 10), strict=True)
    ]
    return np.concatenate(blocks)


def test_a_ball_appears_where_its_centre_is_projected() -> None:
    centre = np.array([0.2, -0.3, 1.2])
    picture = picture_of(body_of(ball(0, 0.1, RED), positions=centre[None]))
    rows, columns = np.nonzero(picture[..., 0] > picture[..., 1] + 60)
    expected = camera().project(centre, np.array([0.0, 0.0, 1.0]))
    # A perspective picture of a ball is an ellipse whose middle is off by less than a pixel here.
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], expected, atol=1.0)
    assert np.ptp(columns) == pytest.approx(0.2 * 100, abs=2)  # 100 px per metre at the target


def test_what_is_nearer_covers_what_is_behind() -> None:
    towards = camera().axes[2]
    places = np.array([[0.0, 0.0, 1.0], np.array([0.0, 0.0, 1.0]) + 0.5 * towards])
    for order in ((0, 1), (1, 0)):
        parts = [(ball(0, 0.2, RED), ball(1, 0.2, GREEN))[index] for index in order]
        middle = picture_of(body_of(*parts, positions=places))[100, 100]
        assert middle[1] > middle[0] + 60


def test_what_is_outside_the_picture_or_behind_the_camera_is_left_out() -> None:
    empty = picture_of(body_of(positions=np.zeros((1, 3))))
    for place in (np.array([0.0, 0.0, 9.0]), 20.0 * camera().axes[2] + np.array([0.0, 3.0, 0.0])):
        np.testing.assert_array_equal(picture_of(body_of(ball(0, 0.1, RED), positions=place[None]))[:60], empty[:60])


def test_a_jumping_body_is_apart_from_its_shadow() -> None:
    standing = picture_of(body_of(ball(0, 0.1, RED), positions=np.array([[0.0, 0.0, 0.1]])))
    jumping = picture_of(body_of(ball(0, 0.1, RED), positions=np.array([[0.0, 0.0, 0.9]])))
    empty = picture_of(body_of(positions=np.zeros((1, 3))))
    assert (np.abs(standing - empty).max(axis=-1) > 20).any()
    rows = np.nonzero((np.abs(jumping - empty).max(axis=-1) > 20).any(axis=1))[0]
    assert np.diff(rows).max() > 20  # floor to be seen between the two
