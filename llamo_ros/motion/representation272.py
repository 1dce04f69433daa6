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

from llamo_ros.core.errors import ParameterError
from llamo_ros.kernels.frame_decoder import FrameDecoder
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import matrix_to_rows6d, rotation_about_y, rows6d_to_matrix
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT, OFFSETS, PARENTS, forward_kinematics

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

    def __init__(
        self, start_heading: float = 0.0, start_xz: tuple[float, float] = (0.0, 0.0), *, backend: str = "auto"
    ) -> None:
        """Begin.

        Args:
            start_heading: Before the first frame, [rad].
            start_xz: Place of the root before the first frame, [m].
            backend: Of :class:`~llamo_ros.kernels.frame_decoder.FrameDecoder`.

        Raises:
            BackendError: the backend cannot run here, or the kernels are not built.
        """
        self._decoder = FrameDecoder(PARENTS, OFFSETS, backend=backend)
        self._heading = float(start_heading)
        self._xz = float(start_xz[0]), float(start_xz[1])

    @property
    def operation(self) -> FrameDecoder:
        """What makes the frames."""
        return self._decoder

    def decode(self, features: NDArray[np.floating]) -> MotionClip:
        """Frames of one chunk of features (T, 272), continuing where the last chunk ended.

        Raises:
            ShapeError: ``features`` is not (T, 272).
            MotionDataError: a value is NaN or infinite, or rows do not make a rotation; the carried state is left as
                it was.
        """
        frames = self._decoder.decode(features, self._heading, self._xz)
        clip = MotionClip(frames.rotations, frames.root_positions)
        self._heading, self._xz = frames.heading, frames.xz
        return clip


def decode_features(features: NDArray[np.floating]) -> MotionClip:
    """A whole clip from features (T, 272), starting at the origin, facing +z."""
    return StreamingDecoder().decode(features)
