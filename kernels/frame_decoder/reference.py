"""Frames from features in plain NumPy: the definition that every fast version is tested against."""

# T frames, J joints

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SHORTEST = 1e-12  # a shorter row is divided by this instead of its length: rows of zeros stay zeros


def decode_frames(
    features: FloatArray, heading: float, xz: tuple[float, float], joint_count: int
) -> tuple[FloatArray, FloatArray, float, tuple[float, float]]:
    """Local joint rotations and root positions of features, continuing from a heading and a place.

    Args:
        features: Shape (T, 8 + 12 J), as :mod:`~llamo_ros.kernels.frame_decoder` describes them.
        heading: Of the frame before the first, about +y, [rad].
        xz: Place of the root in that frame, [m].
        joint_count: J.

    Returns:
        Joint rotations relative to the parent, shape (T, J, 3, 3), the root's in the world; root positions, shape
        (T, 3), [m]; heading and place of the last frame.
    """
    # rows6d of the inverse turn by a is (cos a, 0, -sin a, 0, 1, 0)
    changes = np.arctan2(-features[:, 4], features[:, 2])
    # Sums that begin with what was carried over: they do not depend on where a stream was cut.
    headings = np.cumsum(np.concatenate([[heading], changes]))
    cosine, sine = np.cos(headings[:-1]), np.sin(headings[:-1])
    right, forward = features[:, 0], features[:, 1]
    x = np.cumsum(np.concatenate([[xz[0]], cosine * right + sine * forward]))
    z = np.cumsum(np.concatenate([[xz[1]], cosine * forward - sine * right]))
    root_positions = np.stack([x[1:], features[:, 9], z[1:]], axis=-1)
    rotations = rows6d_to_matrix(features[:, 8 + 6 * joint_count :].reshape(-1, joint_count, 6))
    rotations[:, 0] = rotation_about_y(headings[1:]) @ rotations[:, 0]
    return rotations, root_positions, float(headings[-1]), (float(x[-1]), float(z[-1]))


def forward_kinematics(
    local_rotations: FloatArray, root_positions: FloatArray, parents: NDArray[np.int64], offsets: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """World positions (T, J, 3), [m], and rotations (T, J, 3, 3) of all joints.

    ``G_root = R_root``, ``p_root = root_positions``; then ``G_j = G_parent R_j`` and ``p_j = p_parent + G_parent o_j``.
    """
    positions = np.empty(local_rotations.shape[:-1])
    rotations = np.empty(local_rotations.shape)
    positions[:, 0], rotations[:, 0] = root_positions, local_rotations[:, 0]
    for joint, parent in list(enumerate(parents))[1:]:
        positions[:, joint] = positions[:, parent] + rotations[:, parent] @ offsets[joint]
        rotations[:, joint] = rotations[:, parent] @ local_rotations[:, joint]
    return positions, rotations


def rows6d_to_matrix(rows6d: FloatArray) -> FloatArray:
    """Rotation matrices (..., 3, 3) from two rows (..., 6) by Gram-Schmidt on the rows."""
    first = normalise(rows6d[..., :3])
    second = rows6d[..., 3:]
    second = normalise(second - np.sum(first * second, axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def normalise(vectors: FloatArray) -> FloatArray:
    """Vectors (..., 3) of length 1."""
    squares = np.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors / np.sqrt(np.maximum(squares, SHORTEST * SHORTEST))


def rotation_about_y(angles: FloatArray) -> FloatArray:
    """Matrices (T, 3, 3) that turn by angles (T,), [rad], about +y."""
    matrices = np.zeros((len(angles), 3, 3))
    matrices[:, 0, 0] = matrices[:, 2, 2] = np.cos(angles)
    matrices[:, 0, 2] = np.sin(angles)
    matrices[:, 2, 0] = -matrices[:, 0, 2]
    matrices[:, 1, 1] = 1.0
    return matrices
