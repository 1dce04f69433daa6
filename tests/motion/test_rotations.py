from __future__ import annotations

import numpy as np
import pytest
import torch

from llamo_ros.motion import rotations as rot

# Double precision: a few operations on numbers of size 1. Near half a turn, an axis-angle's axis comes from a square
# root of a rounding error, so angles keep about half of the digits.
EXACT = 1e-12
HALF_DIGITS = 1e-7


def vectors(count: int = 200, seed: int = 0) -> np.ndarray:
    """Axis-angles of all sizes: tiny, ordinary, and just below half a turn; and none."""
    generator = np.random.default_rng(seed)
    axes = generator.normal(size=(count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.concatenate([[0.0, 1e-10, 1e-5, np.pi - 1e-6], generator.uniform(0, np.pi, count - 4)])
    return axes * angles[:, None]


def matrices(count: int = 200, seed: int = 0) -> np.ndarray:
    return rot.axis_angle_to_matrix(vectors(count, seed))


def test_axis_angle_makes_rotations_by_that_angle() -> None:
    matrix = matrices()
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, 1, 2), np.broadcast_to(np.eye(3), matrix.shape), atol=EXACT)
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=EXACT)
    angles = np.linalg.norm(vectors(), axis=1)
    np.testing.assert_allclose(rot.geodesic_angle(matrix, np.eye(3)), angles, atol=HALF_DIGITS)
    np.testing.assert_allclose((matrix @ vectors()[..., None])[..., 0], vectors(), atol=EXACT)  # the axis stays


def test_quarter_turns_follow_the_right_hand() -> None:
    x, y, z = np.eye(3)
    for axis, start, end in ((x, y, z), (y, z, x), (z, x, y)):
        np.testing.assert_allclose(rot.axis_angle_to_matrix(axis * np.pi / 2) @ start, end, atol=EXACT)
    np.testing.assert_allclose(rot.rotation_about_y(np.array(np.pi / 2)) @ z, x, atol=EXACT)  # facing +z, turned left


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (rot.matrix_to_rows6d, rot.rows6d_to_matrix),
        (rot.matrix_to_quaternion_wxyz, rot.quaternion_wxyz_to_matrix),
        (rot.matrix_to_quaternion_xyzw, rot.quaternion_xyzw_to_matrix),
        (rot.matrix_to_axis_angle, rot.axis_angle_to_matrix),
    ],
    ids=["rows6d", "wxyz", "xyzw", "axis_angle"],
)
def test_each_form_comes_back_to_the_same_matrix(there, back) -> None:
    np.testing.assert_allclose(back(there(matrices())), matrices(), atol=1e-9)


def test_axis_angle_comes_back_to_itself() -> None:
    np.testing.assert_allclose(rot.matrix_to_axis_angle(matrices()), vectors(), atol=HALF_DIGITS)


def test_rows6d_are_rows_and_not_columns() -> None:
    matrix = matrices(8)
    np.testing.assert_array_equal(rot.matrix_to_rows6d(matrix)[:, :3], matrix[:, 0])
    np.testing.assert_array_equal(rot.matrix_to_rows6d(matrix)[:, 3:], matrix[:, 1])


def test_rows6d_that_are_not_orthonormal_become_a_rotation() -> None:
    matrix = rot.rows6d_to_matrix(np.random.default_rng(0).normal(size=(50, 6)))
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, 1, 2), np.broadcast_to(np.eye(3), matrix.shape), atol=EXACT)
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=EXACT)


def test_quaternion_orders_differ_only_in_order_and_the_real_part_is_not_negative() -> None:
    wxyz, xyzw = rot.matrix_to_quaternion_wxyz(matrices()), rot.matrix_to_quaternion_xyzw(matrices())
    np.testing.assert_array_equal(rot.wxyz_to_xyzw(wxyz), xyzw)
    np.testing.assert_array_equal(rot.xyzw_to_wxyz(xyzw), wxyz)
    assert (wxyz[:, 0] >= 0).all()
    np.testing.assert_allclose(rot.matrix_to_quaternion_wxyz(np.eye(3)), [1, 0, 0, 0], atol=EXACT)


def test_half_turns_have_a_quaternion() -> None:
    for axis in (*np.eye(3), np.ones(3) / np.sqrt(3)):
        matrix = rot.axis_angle_to_matrix(axis * np.pi)
        np.testing.assert_allclose(
            rot.quaternion_wxyz_to_matrix(rot.matrix_to_quaternion_wxyz(matrix)), matrix, atol=EXACT
        )


def test_slerp_moves_at_constant_speed_from_start_to_end() -> None:
    start, end = matrices(50, 1), matrices(50, 2)
    total = rot.geodesic_angle(start, end)
    for fraction in (0.0, 0.3, 1.0):
        between = rot.slerp_matrices(start, end, np.full(50, fraction))
        np.testing.assert_allclose(rot.geodesic_angle(start, between), fraction * total, atol=HALF_DIGITS)
        np.testing.assert_allclose(rot.geodesic_angle(between, end), (1 - fraction) * total, atol=HALF_DIGITS)


def test_small_angles_keep_their_digits() -> None:
    turned = rot.axis_angle_to_matrix(np.array([0.0, 0.0, 1e-6]))
    assert rot.geodesic_angle(turned, np.eye(3)) == pytest.approx(1e-6, rel=1e-6)


def test_torch_and_numpy_agree() -> None:
    generator = np.random.default_rng(3)
    inputs = [
        (rot.axis_angle_to_matrix, vectors()),
        (rot.matrix_to_axis_angle, matrices()),
        (rot.matrix_to_quaternion_xyzw, matrices()),
        (rot.quaternion_wxyz_to_matrix, generator.normal(size=(20, 4))),
        (rot.rows6d_to_matrix, generator.normal(size=(5, 4, 6))),
        (rot.rotation_about_y, generator.normal(size=7)),
    ]
    for function, value in inputs:
        np.testing.assert_allclose(function(torch.from_numpy(value)).numpy(), function(value), atol=1e-9)


def test_gradient_of_identity_is_finite() -> None:
    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rot.axis_angle_to_matrix(vector).sum().backward()
    assert torch.isfinite(vector.grad).all()
