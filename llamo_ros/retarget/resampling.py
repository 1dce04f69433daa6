"""Robot motion at any frame rate, with the velocities that belong to it.

Joints and root position are joined by cubics, the root's orientation by cubics of rotation vectors. Both pass through
every frame and have one velocity there, and the velocities returned are the derivatives of that very path. Slerp would
give the same orientations at the frames, but an angular velocity that jumps at each of them.

T frames, J joints, F feet. ROS world: x forward, y left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion_xyzw,
    quaternion_xyzw_to_matrix,
)
from llamo_ros.retarget.retargeter import RobotMotion

FloatArray = NDArray[np.float64]

TRACKER_RATE = 50.0  # [Hz]; what whole-body trackers run at
_SMALL_ANGLE = 1e-4  # [rad]; below it the coefficients of the turning vector are taken from their series


@dataclass(frozen=True)
class RobotTrajectory:
    """A robot's motion and how fast everything moves. Velocities are the derivatives of one smooth path.

    Attributes:
        motion: Joint positions, root poses, contacts and the frame rate.
        joint_velocities: Shape (T, J), [rad/s].
        root_linear_velocities: Of the root link's origin, in world axes, shape (T, 3), [m/s].
        root_angular_velocities: Of the root link, in world axes, shape (T, 3), [rad/s].
    """

    motion: RobotMotion
    joint_velocities: FloatArray
    root_linear_velocities: FloatArray
    root_angular_velocities: FloatArray

    def __post_init__(self) -> None:
        count = len(self.motion)
        widths = {
            "joint_velocities": len(self.motion.joint_names),
            "root_linear_velocities": 3,
            "root_angular_velocities": 3,
        }
        for name, width in widths.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (count, width):
                raise ShapeError(name, array.shape, f"({count}, {width})", "One row for each frame of the motion.")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.motion)


def resampled(
    motion: RobotMotion, frame_rate: float, limits: tuple[FloatArray, FloatArray] | None = None
) -> RobotTrajectory:
    """The same motion at another frame rate, with velocities; never extrapolates.

    Args:
        motion: At least one frame. Where its frames coincide with those of the result, they are kept.
        frame_rate: Wanted rate, [Hz]; sample k lies at time k / ``frame_rate``.
        limits: Lower and upper joint limits, each of shape (J,), [rad], that the path must keep between the frames too,
            given that the frames keep them. None: a cubic may swing past the frames by a little.

    Returns:
        The trajectory. Contacts are joined by straight lines, so that they stay between 0 and 1.

    Raises:
        ParameterError: ``frame_rate`` is not positive and finite.
        MotionDataError: the motion is empty, or holds NaN or infinite values.
    """
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise ParameterError(f"frame_rate is {frame_rate}, expected a positive number of frames per second.")
    _check(motion)
    times = _sample_times(len(motion), motion.frame_rate, frame_rate)  # in frames of the motion
    left = np.minimum(times.astype(np.int64), max(len(motion) - 2, 0))
    fraction = (times - left)[:, None]
    joints, joint_steps = _along_cubics(motion.joint_positions, left, fraction, limits)
    root, root_steps = _along_cubics(motion.root_positions, left, fraction)
    turns, turn_steps = _along_turns(quaternion_xyzw_to_matrix(motion.root_quaternions), left, fraction)
    right = np.minimum(left + 1, len(motion) - 1)
    contacts = motion.contacts[left] * (1.0 - fraction) + motion.contacts[right] * fraction
    quaternions = _on_the_side_of(matrix_to_quaternion_xyzw(turns), motion.root_quaternions[left])
    rate = motion.frame_rate
    return RobotTrajectory(
        RobotMotion(motion.joint_names, joints, root, quaternions, contacts, float(frame_rate)),
        joint_velocities=joint_steps * rate,
        root_linear_velocities=root_steps * rate,
        root_angular_velocities=turn_steps * rate,
    )


def _check(motion: RobotMotion) -> None:
    if not len(motion):
        raise MotionDataError("the robot's motion has no frames; there is nothing to resample.")
    for name in ("joint_positions", "root_positions", "root_quaternions", "contacts"):
        bad = ~np.isfinite(getattr(motion, name)).all(axis=1)
        if bad.any():
            raise MotionDataError(
                f"{name} of the robot's motion are NaN or infinite in {bad.sum()} frames, first in frame "
                f"{int(bad.argmax())}."
            )


def _sample_times(count: int, rate_in: float, rate_out: float) -> FloatArray:
    """Times of the samples, shape (T_out,), in frames of the input. Sums of 1/30 and 1/50 must not lose the last."""
    samples = int(np.floor((count - 1) * rate_out / rate_in + 1e-9)) + 1
    times = np.arange(samples) * (rate_in / rate_out)
    nearest = np.round(times)
    return np.where(np.abs(times - nearest) < 1e-9 * max(count, 1), nearest, times)


def _slopes(offsets: dict[int, FloatArray]) -> FloatArray:
    """Velocity at frames from where their neighbours lie relative to them, per frame: fourth order."""
    return (8.0 * (offsets[1] - offsets[-1]) - (offsets[2] - offsets[-2])) / 12.0


def _along_cubics(
    values: FloatArray, left: NDArray[np.int64], u: FloatArray, limits: tuple[FloatArray, FloatArray] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Values (T_out, N) at ``left + u`` of the cubics through the frames (T, N), and their derivatives per frame."""
    if len(values) < 2:
        return values[left], np.zeros_like(values[left])
    padded = _continued(values)
    slopes = _slopes({k: padded[2 + k : len(values) + 2 + k] - values for k in (-2, -1, 1, 2)})
    if limits is not None:  # a cubic lies in the hull of its ends and of the points a third of the way along its slopes
        room = 3.0 * np.maximum(np.minimum(values - limits[0], limits[1] - values), 0.0)
        slopes = np.clip(slopes, -room, room)
    return _hermite(values[left], values[left + 1], slopes[left], slopes[left + 1], u)


def _along_turns(turns: FloatArray, left: NDArray[np.int64], u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rotations (T_out, 3, 3) between frames (T, 3, 3), and angular velocities in world axes, [rad] per frame.

    Between two frames the path is R_left exp(x), with the rotation vector x a cubic in time.
    """
    if len(turns) < 2:
        return turns[left], np.zeros((len(left), 3))
    back = np.swapaxes(turns, -1, -2)
    steps = matrix_to_axis_angle(back[:-1] @ turns[1:])  # from each frame to the next, in axes of the former
    before = turns[0] @ axis_angle_to_matrix(np.array([[-2.0], [-1.0]]) * steps[0])  # two more frames at each end
    after = turns[-1] @ axis_angle_to_matrix(np.array([[1.0], [2.0]]) * steps[-1])
    path = np.concatenate([before, turns, after])
    count = len(turns)
    slopes = _slopes({k: matrix_to_axis_angle(back @ path[2 + k : count + 2 + k]) for k in (-2, -1, 1, 2)})
    ends = steps[left]
    last_slopes = np.linalg.solve(_turning(ends), slopes[left + 1][..., None])[..., 0]
    vectors, vector_steps = _hermite(np.zeros_like(ends), ends, slopes[left], last_slopes, u)
    result = turns[left] @ axis_angle_to_matrix(vectors)
    return result, (result @ _turning(vectors) @ vector_steps[..., None])[..., 0]


def _continued(values: FloatArray) -> FloatArray:
    """Two more frames (T + 4, N) at each end, on straight lines."""
    first = values[0] - (values[1] - values[0]) * np.array([[2.0], [1.0]])
    last = values[-1] + (values[-1] - values[-2]) * np.array([[1.0], [2.0]])
    return np.concatenate([first, values, last])


def _hermite(
    start: FloatArray, end: FloatArray, start_slope: FloatArray, end_slope: FloatArray, u: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Cubics (N, M) with these ends and slopes at ``u`` (N, 1) in 0..1, and their derivatives."""
    rise = end - start
    bend = 3.0 * rise - 2.0 * start_slope - end_slope
    twist = start_slope + end_slope - 2.0 * rise
    return start + u * (start_slope + u * (bend + u * twist)), start_slope + u * (2.0 * bend + 3.0 * u * twist)


def _turning(vectors: FloatArray) -> FloatArray:
    """Angular velocity in the body's axes per change of its rotation vector (N, 3), shape (N, 3, 3)."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    skew = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -z, y, -x
    skew[:, 1, 0], skew[:, 2, 0], skew[:, 2, 1] = z, -y, x
    safe = np.maximum(angle, _SMALL_ANGLE)
    first = np.where(angle < _SMALL_ANGLE, 0.5, (1.0 - np.cos(safe)) / safe**2)
    second = np.where(angle < _SMALL_ANGLE, 1.0 / 6.0, (safe - np.sin(safe)) / safe**3)
    return np.eye(3) - first * skew + second * (skew @ skew)


def _on_the_side_of(quaternions: FloatArray, neighbours: FloatArray) -> FloatArray:
    """The same orientations with the signs of their neighbours: never the long way round between two of them."""
    return quaternions * np.where((quaternions * neighbours).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
