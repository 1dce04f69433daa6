"""The one place where the core's y-up world and the ROS z-up world meet.

Core (SMPL's convention): y up, the body faces +z, its left is +x. ROS (REP-103): z up, x forward, y left. Both are
right-handed, so the change of basis is a cyclic renaming of axes: it moves numbers and never rounds them. Body axes are
renamed too: a joint at rest has the identity rotation in both worlds, and local rotations convert like global ones.
"""

from __future__ import annotations

from typing import Any

from llamo_ros.core.errors import ShapeError

Array = Any  # numpy.ndarray or torch.Tensor, floating point

_CORE_AXES_IN_ROS_ORDER = [2, 0, 1]  # ROS (x, y, z) are the core's (z, x, y)
_ROS_AXES_IN_CORE_ORDER = [1, 2, 0]


def to_ros_world(positions: Array, rotations: Array | None = None) -> tuple[Array, Array | None]:
    """Express positions and rotations of the core (y up, facing +z) in the ROS world (z up, facing +x).

    Args:
        positions: Vectors, shape (..., 3): positions [m], velocities, or any other vector.
        rotations: Rotation matrices, global or local, shape (..., 3, 3), or None.

    Returns:
        Fresh arrays of the same shapes; None where ``rotations`` is None.

    Raises:
        ShapeError: ``positions`` does not end in 3, or ``rotations`` in (3, 3).
    """
    return _renamed(positions, rotations, _CORE_AXES_IN_ROS_ORDER)


def from_ros_world(positions: Array, rotations: Array | None = None) -> tuple[Array, Array | None]:
    """Undo :func:`to_ros_world` exactly: ROS (z up, facing +x) to the core (y up, facing +z). Shapes as there."""
    return _renamed(positions, rotations, _ROS_AXES_IN_CORE_ORDER)


def _renamed(positions: Array, rotations: Array | None, order: list[int]) -> tuple[Array, Array | None]:
    if not positions.shape or positions.shape[-1] != 3:
        raise ShapeError("positions", tuple(positions.shape), "(..., 3)", "The last axis holds x, y and z.")
    if rotations is None:
        return positions[..., order], None
    if tuple(rotations.shape[-2:]) != (3, 3):
        raise ShapeError("rotations", tuple(rotations.shape), "(..., 3, 3)", "Convert quaternions to matrices first.")
    return positions[..., order], rotations[..., order, :][..., order]
