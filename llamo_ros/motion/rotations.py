"""Rotations, with the order in every name. One implementation for NumPy arrays and PyTorch tensors.

Matrices act on column vectors (``v_world = R @ v_local``). ``rows6d`` is the first two ROWS of the matrix, flattened
(pytorch3d's convention and MotionStreamer's; other code uses columns, which silently transposes every rotation).
Quaternions are ``wxyz`` or ``xyzw`` by name; ``axis_angle`` is in radians. All functions work on any leading shape.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any  # numpy.ndarray or torch.Tensor, floating point


def _normalise(vector: Array, epsilon: float = 1e-12) -> Array:
    xp = array_namespace(vector)
    return vector / xp.sqrt(xp.clip(xp.sum(vector * vector, axis=-1, keepdims=True), epsilon * epsilon, None))


def matrix_to_rows6d(matrix: Array) -> Array:
    """First two rows of rotation matrices (..., 3, 3), flattened to (..., 6)."""
    xp = array_namespace(matrix)
    return xp.reshape(matrix[..., :2, :], (*matrix.shape[:-2], 6))


def rows6d_to_matrix(rows6d: Array) -> Array:
    """Rotation matrices (..., 3, 3) from two rows (..., 6) by Gram-Schmidt on the rows (Zhou et al. 2019)."""
    xp = array_namespace(rows6d)
    first = _normalise(rows6d[..., :3])
    second = rows6d[..., 3:]
    second = _normalise(second - xp.sum(first * second, axis=-1, keepdims=True) * first)
    return xp.stack([first, second, _cross(first, second)], axis=-2)


def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """Rotation matrices (..., 3, 3) from rotation vectors (..., 3), [rad] (Rodrigues)."""
    xp = array_namespace(axis_angle)
    angle = xp.sqrt(xp.clip(xp.sum(axis_angle * axis_angle, axis=-1, keepdims=True), 1e-16, None))
    x, y, z = _unbind(axis_angle / angle)
    zero = x * 0.0
    cross = xp.reshape(xp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1), (*x.shape, 3, 3))
    sine, cosine = xp.sin(angle)[..., None], xp.cos(angle)[..., None]
    return _eye_like(cross) + sine * cross + (1.0 - cosine) * (cross @ cross)


def matrix_to_axis_angle(matrix: Array) -> Array:
    """Rotation vectors (..., 3), [rad], angle in [0, pi], from matrices (..., 3, 3)."""
    return quaternion_wxyz_to_axis_angle(matrix_to_quaternion_wxyz(matrix))


def quaternion_wxyz_to_axis_angle(quaternion: Array) -> Array:
    """Rotation vectors (..., 3), [rad], angle in [0, pi], from unit quaternions (..., 4) in wxyz order."""
    xp = array_namespace(quaternion)
    quaternion = xp.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = xp.sqrt(xp.sum(quaternion[..., 1:] * quaternion[..., 1:], axis=-1, keepdims=True))
    angle = 2.0 * xp.atan2(sine, quaternion[..., :1])
    return quaternion[..., 1:] * xp.where(sine > 1e-8, angle / xp.clip(sine, 1e-8, None), 2.0 + 0.0 * sine)


def quaternion_wxyz_to_matrix(quaternion: Array) -> Array:
    """Rotation matrices (..., 3, 3) from quaternions (..., 4) in wxyz order; they are normalised first."""
    xp = array_namespace(quaternion)
    w, x, y, z = _unbind(_normalise(quaternion))
    flat = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - z * w),
        2 * (x * z + y * w),
        2 * (x * y + z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z - x * w),
        2 * (x * z - y * w),
        2 * (y * z + x * w),
        1 - 2 * (x * x + y * y),
    ]
    return xp.reshape(xp.stack(flat, axis=-1), (*w.shape, 3, 3))


def matrix_to_quaternion_wxyz(matrix: Array) -> Array:
    """Unit quaternions (..., 4) in wxyz order, w >= 0, from matrices (..., 3, 3).

    Of the four equivalent formulas the one with the largest pivot is taken for each matrix, so no angle loses digits.
    """
    xp = array_namespace(matrix)
    m = [[matrix[..., r, c] for c in range(3)] for r in range(3)]
    trace = m[0][0] + m[1][1] + m[2][2]
    candidates = xp.stack(
        [
            xp.stack([1 + trace, m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]], axis=-1),
            xp.stack([m[2][1] - m[1][2], 1 + 2 * m[0][0] - trace, m[0][1] + m[1][0], m[0][2] + m[2][0]], axis=-1),
            xp.stack([m[0][2] - m[2][0], m[0][1] + m[1][0], 1 + 2 * m[1][1] - trace, m[1][2] + m[2][1]], axis=-1),
            xp.stack([m[1][0] - m[0][1], m[0][2] + m[2][0], m[1][2] + m[2][1], 1 + 2 * m[2][2] - trace], axis=-1),
        ],
        axis=-2,
    )
    pivots = xp.stack([candidates[..., i, i] for i in range(4)], axis=-1)
    best = xp.argmax(pivots, axis=-1)
    chosen = sum(candidates[..., i, :] * _as_float(best == i, matrix)[..., None] for i in range(4))
    quaternion = _normalise(chosen)
    return xp.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_quaternion_xyzw(matrix: Array) -> Array:
    """Unit quaternions (..., 4) in xyzw order (ROS), w >= 0, from matrices (..., 3, 3)."""
    return wxyz_to_xyzw(matrix_to_quaternion_wxyz(matrix))


def quaternion_xyzw_to_matrix(quaternion: Array) -> Array:
    """Rotation matrices (..., 3, 3) from quaternions (..., 4) in xyzw order (ROS); they are normalised first."""
    return quaternion_wxyz_to_matrix(xyzw_to_wxyz(quaternion))


def wxyz_to_xyzw(quaternion: Array) -> Array:
    """Reorder quaternions (..., 4)."""
    xp = array_namespace(quaternion)
    return xp.concat([quaternion[..., 1:], quaternion[..., :1]], axis=-1)


def xyzw_to_wxyz(quaternion: Array) -> Array:
    """Reorder quaternions (..., 4)."""
    xp = array_namespace(quaternion)
    return xp.concat([quaternion[..., 3:], quaternion[..., :3]], axis=-1)


def rotation_about_y(angle: Array) -> Array:
    """Matrices (..., 3, 3) that turn by ``angle`` (...,), [rad], about +y (a left turn for a body facing +z)."""
    xp = array_namespace(angle)
    cosine, sine = xp.cos(angle), xp.sin(angle)
    zero, one = 0.0 * angle, 0.0 * angle + 1.0
    flat = xp.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], axis=-1)
    return xp.reshape(flat, (*angle.shape, 3, 3))


def slerp_matrices(start: Array, end: Array, fraction: Array) -> Array:
    """Rotations (..., 3, 3) at ``fraction`` (...,) of the shortest way from ``start`` to ``end`` (..., 3, 3)."""
    xp = array_namespace(start)
    step = matrix_to_axis_angle(xp.matrix_transpose(start) @ end)
    return start @ axis_angle_to_matrix(step * fraction[..., None])


def geodesic_angle(first: Array, second: Array) -> Array:
    """Angle (...,), [rad], in [0, pi], between rotations (..., 3, 3).

    Uses the chord (Frobenius) form, which keeps its digits for small angles where ``acos`` of the trace loses them.
    """
    xp = array_namespace(first)
    chord = xp.sqrt(xp.sum((first - second) ** 2, axis=(-2, -1)))
    return 2.0 * xp.asin(xp.clip(chord / 2.8284271247461903, None, 1.0))


def _unbind(vector: Array) -> list[Array]:
    return [vector[..., i] for i in range(vector.shape[-1])]


def _cross(first: Array, second: Array) -> Array:
    xp = array_namespace(first)
    (a, b, c), (d, e, f) = _unbind(first), _unbind(second)
    return xp.stack([b * f - c * e, c * d - a * f, a * e - b * d], axis=-1)


def _as_float(condition: Array, like: Array) -> Array:
    xp = array_namespace(like)
    return xp.astype(condition, like.dtype)


def _eye_like(matrix: Array) -> Array:
    xp = array_namespace(matrix)
    keywords = {"device": matrix.device} if hasattr(matrix, "requires_grad") else {}
    return xp.eye(3, dtype=matrix.dtype, **keywords)
