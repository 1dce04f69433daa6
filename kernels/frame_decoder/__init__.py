"""From motion features to frames: rotations, heading and path, and where every joint is, in one call.

Features are those of MotionStreamer (272 for 22 joints), J joints, y up; differences are from frame to frame:

========================= ====== ==========================================================================
slice                     dims   meaning
========================= ====== ==========================================================================
0:2                       2      root displacement (x, z), [m], in the heading of the frame before
2:8                       6      change of the INVERSE heading, a yaw matrix as its first two rows
8:8 + 6 J                 6 J    joint positions and velocities; only the root's height, number 9, is read
8 + 6 J:8 + 12 J          6 J    local joint rotations as their first two rows; the root's without heading
========================= ====== ==========================================================================

    decoder = FrameDecoder(parents, offsets)  # once: checks the skeleton
    frames = decoder.decode(features)
    next_frames = decoder.decode(next_features, frames.heading, frames.xz)
"""

# T frames, J joints

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.kernels.backends import choose_backend, compiled_kernels
from llamo_ros.kernels.frame_decoder import reference

__all__ = ["DecodedFrames", "FrameDecoder"]

FloatArray = NDArray[np.float64]


class DecodedFrames(NamedTuple):
    """Frames of one chunk; every array is fresh.

    Attributes:
        rotations: Joint rotations relative to the parent, shape (T, J, 3, 3); the root's in the world.
        root_positions: Root in the world, shape (T, 3), [m].
        heading: Of the last frame, about +y, [rad], not wrapped; what it was before if there is no frame.
        xz: Place of the root in the last frame, [m]; likewise.
        joint_positions: All joints in the world, shape (T, J, 3), [m]; None if not asked for.
        joint_rotations: Their rotations in the world, shape (T, J, 3, 3); None if not asked for.
    """

    rotations: FloatArray
    root_positions: FloatArray
    heading: float
    xz: tuple[float, float]
    joint_positions: FloatArray | None = None
    joint_rotations: FloatArray | None = None


class FrameDecoder:
    """Decodes features for one skeleton, in float64. Keeps no state: safe to call from several threads at once.

    Attributes:
        backend: "reference" or "cpu", what "auto" became.
        joint_count: J.
    """

    def __init__(self, parents: Sequence[int], offsets: ArrayLike, *, backend: str = "auto") -> None:
        """Check and copy the skeleton.

        Args:
            parents: Index of the parent of each joint, J >= 1; -1 for joint 0, the root. Parents come before children.
            offsets: Each joint from its parent in the rest pose, shape (J, 3), [m]. The root's has no effect.
            backend: "auto" (the compiled kernel), "reference" (NumPy) or "cpu" (compiled, one thread).

        Raises:
            ShapeError: `offsets` is not (J, 3).
            ParameterError: `parents` are not in such an order, or an offset is NaN or infinite.
            BackendError: there is no such backend, or the kernels are not built.
        """
        self._parents = np.array(parents, dtype=np.int64)
        self._offsets = np.array(offsets, dtype=np.float64, order="C")
        self.joint_count = len(self._parents)
        if list(self._parents[:1]) != [-1] or any(not 0 <= p < j for j, p in enumerate(self._parents[1:], start=1)):
            raise ParameterError(
                f"parents are {list(parents)}, expected -1 for joint 0, then for each joint one with a lower index. "
                "Sort the joints so that parents come before their children."
            )
        if self._offsets.shape != (self.joint_count, 3):
            raise ShapeError(
                "offsets", self._offsets.shape, f"({self.joint_count}, 3)", "parents name that many joints."
            )
        if not np.isfinite(self._offsets).all():
            raise ParameterError("offsets contain NaN or infinite values. Check the skeleton.")
        self.backend = choose_backend(backend, None)
        self._kernels = compiled_kernels("frame_decoder") if self.backend == "cpu" else None

    def decode(
        self,
        features: ArrayLike,
        heading: float = 0.0,
        xz: tuple[float, float] = (0.0, 0.0),
        *,
        with_joints: bool = False,
    ) -> DecodedFrames:
        """Frames of one chunk. Heading and path are sums; chunks give exactly what one call gives for all of them.

        Rows that span no plane (zeros, or parallel ones) do not make a rotation; the matrix then has rows of zeros, or
        of rounding errors.

        Args:
            features: Shape (T, 8 + 12 J), denormalised; converted to float64 and never written.
            heading: Of the frame before the first, about +y, [rad]; 0 faces +z.
            xz: Place of the root in that frame, [m].
            with_joints: Whether to compute where all joints are, see :meth:`forward_kinematics`.

        Raises:
            ShapeError: `features` is not (T, 8 + 12 J).
            MotionDataError: a value is NaN or infinite.
        """
        features = np.asarray(features, dtype=np.float64, order="C")
        width = 8 + 12 * self.joint_count
        if features.ndim != 2 or features.shape[1] != width:
            raise ShapeError(
                "features", features.shape, f"(T, {width})", f"The skeleton has {self.joint_count} joints."
            )
        x, z = xz
        if not (np.isfinite(features).all() and math.isfinite(heading) and math.isfinite(x) and math.isfinite(z)):
            raise MotionDataError("features, heading or xz contain NaN or infinite values; the chunk is rejected.")
        if self._kernels is not None:
            return DecodedFrames(
                *self._kernels.frame_decoder(features, heading, x, z, self._parents, self._offsets, with_joints)
            )
        rotations, roots, heading, xz = reference.decode_frames(features, heading, (x, z), self.joint_count)
        joints = self.forward_kinematics(rotations, roots) if with_joints else (None, None)
        return DecodedFrames(rotations, roots, heading, xz, *joints)

    def forward_kinematics(
        self, local_rotations: ArrayLike, root_positions: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """World positions and rotations of all joints, for frames that were changed since they were decoded.

        Args:
            local_rotations: Relative to the parent, shape (T, J, 3, 3); the root's in the world. NaN is passed on.
            root_positions: Root in the world, shape (T, 3), [m].

        Returns:
            Joint positions (T, J, 3), [m], and joint rotations in the world (T, J, 3, 3), fresh.

        Raises:
            ShapeError: an array has another shape.
        """
        local_rotations = np.asarray(local_rotations, dtype=np.float64, order="C")
        root_positions = np.asarray(root_positions, dtype=np.float64, order="C")
        if local_rotations.ndim != 4 or local_rotations.shape[1:] != (self.joint_count, 3, 3):
            raise ShapeError(
                "local_rotations",
                local_rotations.shape,
                f"(T, {self.joint_count}, 3, 3)",
                f"The skeleton has {self.joint_count} joints.",
            )
        if root_positions.shape != (len(local_rotations), 3):
            raise ShapeError("root_positions", root_positions.shape, f"({len(local_rotations)}, 3)", "One per frame.")
        arguments = local_rotations, root_positions, self._parents, self._offsets
        if self._kernels is not None:
            return self._kernels.frame_decoder_forward_kinematics(*arguments)
        return reference.forward_kinematics(*arguments)
