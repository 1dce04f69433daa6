"""MotionClip: a piece of human motion on the smpl22 skeleton, the noun every room speaks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.rotations import slerp_matrices
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT, MIRROR, forward_kinematics

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class MotionClip:
    """Frames of human motion: y up, metres; rotations relative to the parent joint.

    Attributes:
        rotations: Local joint rotation matrices, shape (T, 22, 3, 3); joint 0 is the pelvis in the world.
        root_positions: Pelvis position in the world, shape (T, 3), [m].
        frame_rate: Frames per second, [Hz].
        text: What is done, or empty.

    Raises:
        ShapeError: the arrays do not have these shapes, or T differs.
        MotionDataError: a value is NaN or infinite, or a matrix is not a rotation (to 1e-2).
    """

    rotations: FloatArray
    root_positions: FloatArray
    frame_rate: float = FRAME_RATE
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        rotations = np.array(self.rotations, dtype=np.float64)  # copies: a clip never shares its caller's memory
        root_positions = np.array(self.root_positions, dtype=np.float64)
        if rotations.ndim != 4 or rotations.shape[1:] != (JOINT_COUNT, 3, 3):
            raise ShapeError("rotations", rotations.shape, "(T, 22, 3, 3)", "The smpl22 skeleton has 22 joints.")
        if root_positions.shape != (len(rotations), 3):
            raise ShapeError("root_positions", root_positions.shape, f"({len(rotations)}, 3)")
        if not (np.isfinite(self.frame_rate) and self.frame_rate > 0):
            raise ParameterError(f"frame_rate is {self.frame_rate}, expected a positive number of frames per second.")
        bad = ~(np.isfinite(rotations).all((1, 2, 3)) & np.isfinite(root_positions).all(1))
        if bad.any():
            raise MotionDataError(
                f"motion has NaN or infinite values in {bad.sum()} of {len(bad)} frames, first in frame "
                f"{int(bad.argmax())}. Repair or cut those frames first."
            )
        if len(rotations):
            error = np.abs(rotations @ np.swapaxes(rotations, -1, -2) - np.eye(3)).max()
            if error > 1e-2 or np.linalg.det(rotations).min() < 0:
                raise MotionDataError("rotations are not rotation matrices (R R^T differs from I by more than 0.01).")
        rotations.setflags(write=False)
        root_positions.setflags(write=False)
        object.__setattr__(self, "rotations", rotations)
        object.__setattr__(self, "root_positions", root_positions)

    def __len__(self) -> int:
        return len(self.root_positions)

    @property
    def duration(self) -> float:
        """Length in time, [s]."""
        return len(self) / self.frame_rate

    def joint_positions(self) -> FloatArray:
        """World positions of all joints by forward kinematics, shape (T, 22, 3), [m]."""
        return forward_kinematics(self.rotations, self.root_positions)[0]

    def sliced(self, start: int, stop: int | None = None) -> MotionClip:
        """Frames ``start`` to ``stop`` (not included) as a new clip."""
        return replace(self, rotations=self.rotations[start:stop], root_positions=self.root_positions[start:stop])

    def mirrored(self) -> MotionClip:
        """The motion as seen in a mirror: left and right swapped, x negated (text is kept as it is)."""
        reflection = np.array([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])  # diag(-1,1,1) R diag(-1,1,1)
        return replace(
            self,
            rotations=self.rotations[:, list(MIRROR)] * reflection,
            root_positions=self.root_positions * np.array([-1.0, 1.0, 1.0]),
        )

    def resampled(self, frame_rate: float) -> MotionClip:
        """The same motion at another frame rate: slerp for rotations, linear for the root; never extrapolates."""
        if not (np.isfinite(frame_rate) and frame_rate > 0):
            raise ParameterError(f"frame_rate is {frame_rate}, expected a positive number of frames per second.")
        if len(self) < 2 or frame_rate == self.frame_rate:
            return replace(self, frame_rate=float(frame_rate))
        count = int(np.floor((len(self) - 1) * frame_rate / self.frame_rate + 1e-9)) + 1
        position = np.minimum(np.arange(count) * self.frame_rate / frame_rate, len(self) - 1)
        left = np.minimum(position.astype(int), len(self) - 2)
        fraction = position - left
        joint_fraction = np.broadcast_to(fraction[:, None], (count, JOINT_COUNT))
        root = (1 - fraction[:, None]) * self.root_positions[left] + fraction[:, None] * self.root_positions[left + 1]
        rotations = slerp_matrices(self.rotations[left], self.rotations[left + 1], joint_fraction)
        return replace(self, rotations=rotations, root_positions=root, frame_rate=float(frame_rate))


def concatenated(clips: list[MotionClip]) -> MotionClip:
    """Join clips of one frame rate end to end, as they are (no blending).

    Raises:
        ParameterError: there is no clip, or the frame rates differ.
    """
    if not clips:
        raise ParameterError("there is no clip to join; give at least one.")
    if len({clip.frame_rate for clip in clips}) > 1:
        raise ParameterError("clips have different frame rates; resample them to one rate first.")
    return replace(
        clips[0],
        rotations=np.concatenate([clip.rotations for clip in clips]),
        root_positions=np.concatenate([clip.root_positions for clip in clips]),
    )
