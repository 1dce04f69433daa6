"""The 272-number frame of MotionStreamer, both ways, whole clips and streams.

Layout (MotionStreamer, ICCV 2025, ``representation_272.py``); y up, metres, differences per frame at 30 FPS:

======== ==== ======================================================================================
slice    dims meaning
======== ==== ======================================================================================
0:2      2    root displacement (x, z) from frame t-1 to t, in the heading of frame t-1; frame 0 is 0
2:8      6    change of the INVERSE heading from t-1 to t, a yaw matrix as rows6d; frame 0 is identity
8:74     66   22 joint positions, heading removed, pelvis x and z removed (height kept)
74:140   66   frame difference of 8:74; frame 0 is 0
140:272  132  22 local joint rotations as rows6d; the root's has the heading removed
======== ==== ======================================================================================

Heading and root x, z are integrals: the decoder carries them in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import matrix_to_rows6d, rotation_about_y, rows6d_to_matrix
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT, forward_kinematics

Array = Any
FEATURE_COUNT = 272
ROOT_DISPLACEMENT = slice(0, 2)
HEADING_CHANGE = slice(2, 8)
POSITIONS = slice(8, 74)
VELOCITIES = slice(74, 140)
ROTATIONS = slice(140, 272)


def heading(root_rotations: Array) -> Array:
    """Heading angles (...,), [rad], about +y of pelvis rotations (..., 3, 3); 0 faces +z, positive turns left."""
    from array_api_compat import array_namespace

    return array_namespace(root_rotations).atan2(root_rotations[..., 0, 2], root_rotations[..., 2, 2])


def encode_clip(clip: MotionClip) -> NDArray[np.float64]:
    """Features (T, 272) of a clip at 30 FPS. Where it stands and faces in frame 0 is dropped by design.

    Raises:
        ParameterError: the clip is empty or not at 30 FPS (use ``clip.resampled(30.0)``).
    """
    if len(clip) == 0 or clip.frame_rate != FRAME_RATE:
        raise ParameterError(f"clip has {len(clip)} frames at {clip.frame_rate} FPS, expected at least 1 at 30 FPS.")
    yaw = heading(clip.rotations[:, 0])
    to_heading = rotation_about_y(-yaw)
    previous = np.concatenate([to_heading[:1], to_heading[:-1]])
    displacement = np.diff(clip.root_positions, axis=0, prepend=clip.root_positions[:1])
    local_displacement = (previous @ displacement[..., None])[..., 0]
    rotations = clip.rotations.copy()
    rotations[:, 0] = to_heading @ rotations[:, 0]
    roots = np.zeros_like(clip.root_positions)
    roots[:, 1] = clip.root_positions[:, 1]
    positions = forward_kinematics(rotations, roots)[0].reshape(len(clip), -1)
    change = rotation_about_y(-np.diff(yaw, prepend=yaw[:1]))
    return np.concatenate(
        [
            local_displacement[:, [0, 2]],
            matrix_to_rows6d(change),
            positions,
            np.diff(positions, axis=0, prepend=positions[:1]),
            matrix_to_rows6d(rotations).reshape(len(clip), -1),
        ],
        axis=-1,
    )


def local_rotations(features: Array) -> Array:
    """Local joint rotations (..., 22, 3, 3), the root's without heading, of features (..., 272)."""
    return rows6d_to_matrix(features[..., ROTATIONS].reshape(*features.shape[:-1], JOINT_COUNT, 6))


def heading_change(features: Array) -> Array:
    """Turn to the left in each frame (...,), [rad], of features (..., 272)."""
    from array_api_compat import array_namespace

    # rows6d of R_y(-a) is (cos a, 0, -sin a, 0, 1, 0)
    return array_namespace(features).atan2(-features[..., 4], features[..., 2])


class StreamingDecoder:
    """Features to frames, chunk by chunk: carries heading and root x, z exactly across chunks.

    Joint positions are not read from the features; robots consume rotations, so positions come from FK.
    """

    def __init__(self, start_heading: float = 0.0, start_xz: tuple[float, float] = (0.0, 0.0)) -> None:
        self._heading = float(start_heading)
        self._xz = np.array(start_xz, dtype=np.float64)

    def decode(self, features: NDArray[np.floating]) -> MotionClip:
        """Frames of one chunk of features (T, 272), continuing where the last chunk ended.

        Raises:
            ShapeError: ``features`` is not (T, 272).
            MotionDataError: a value is NaN or infinite; the carried state is left as it was.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != FEATURE_COUNT:
            raise ShapeError("features", features.shape, "(T, 272)", "See representation272 for the layout.")
        if not np.isfinite(features).all():
            raise MotionDataError("features contain NaN or infinite values; the chunk is rejected.")
        headings = self._heading + np.cumsum(heading_change(features))
        before = np.concatenate([[self._heading], headings[:-1]])
        local = np.zeros((len(features), 3))
        local[:, [0, 2]] = features[:, ROOT_DISPLACEMENT]
        steps = (rotation_about_y(before) @ local[..., None])[..., 0]
        roots = np.cumsum(steps, axis=0)
        roots[:, [0, 2]] += self._xz
        roots[:, 1] = features[:, POSITIONS.start + 1]
        rotations = local_rotations(features)
        rotations[:, 0] = rotation_about_y(headings) @ rotations[:, 0]
        if len(features):
            self._heading, self._xz = float(headings[-1]), roots[-1, [0, 2]].copy()
        return MotionClip(rotations, roots)


def decode_features(features: NDArray[np.floating]) -> MotionClip:
    """A whole clip from features (T, 272), starting at the origin, facing +z."""
    return StreamingDecoder().decode(features)
