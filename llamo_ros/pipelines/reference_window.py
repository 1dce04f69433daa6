"""The robot's upcoming frames on a tracker's own clock, such as 50 Hz, from a plan at 30 Hz."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.rotations import (
    matrix_to_axis_angle,
    matrix_to_quaternion_xyzw,
    quaternion_xyzw_to_matrix,
    slerp_matrices,
)
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.motion_to_robot import RobotWindow

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceWindow:
    """T frames of a robot at a steady rate. Frame k lies at (start_index + k) dt on the time line. ROS world, z up.

    Attributes:
        start_index: Index of the first frame, in frames of ``dt``.
        positions: Joint positions, shape (T, J), [rad].
        velocities: Joint velocities, shape (T, J), [rad/s].
        accelerations: Joint accelerations, shape (T, J), [rad/s^2]: second differences of the plan, linear between its
            frames. Those of the cubics jump at each frame and are larger than the limits.
        root_positions: Root link in the world, shape (T, 3), [m].
        root_quaternions: Its orientation, shape (T, 4), xyzw.
        linear_velocities: Velocity of the root link in the world, shape (T, 3), [m/s].
        angular_velocities: Its angular velocity in the world, shape (T, 3), [rad/s].
        contacts: 1 where a foot stands, else 0, shape (T, F).
    """

    start_index: int
    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray
    root_positions: FloatArray
    root_quaternions: FloatArray
    linear_velocities: FloatArray
    angular_velocities: FloatArray
    contacts: NDArray[np.uint8]


def reference_window(window: RobotWindow, dt: float, look_ahead: float) -> ReferenceWindow:
    """Resample a window of a plan.

    Joints follow the cubic that positions and velocities define, as a trajectory controller does; the root is
    interpolated linearly. Behind its end the window is at rest.

    Args:
        window: From :meth:`MotionToRobot.window`.
        dt: Time between frames, [s].
        look_ahead: The last frame lies at least this long after the first one, [s].
    """
    begins = window.index / FRAME_RATE
    start_index = int(np.ceil(begins / dt - 1e-6))
    times = (start_index + np.arange(int(np.ceil(look_ahead / dt - 1e-6)) + 1)) * dt - begins
    last = len(window) - 1
    place = np.clip(times * FRAME_RATE, 0.0, last)
    left = np.minimum(place.astype(int), max(last - 1, 0))
    right = np.minimum(left + 1, last)
    s = (place - left)[:, None]
    q, v = window.trajectory.positions, window.trajectory.velocities
    span = 1.0 / FRAME_RATE
    positions = (
        (2 * s**3 - 3 * s**2 + 1) * q[left]
        + (s**3 - 2 * s**2 + s) * span * v[left]
        + (3 * s**2 - 2 * s**3) * q[right]
        + (s**3 - s**2) * span * v[right]
    )
    velocities = (
        (6 * s**2 - 6 * s) * (q[left] - q[right]) / span
        + (3 * s**2 - 4 * s + 1) * v[left]
        + (3 * s**2 - 2 * s) * v[right]
    )
    velocities[times * FRAME_RATE >= last] = 0.0
    a = window.trajectory.accelerations
    roots, turns = window.root_positions, quaternion_xyzw_to_matrix(window.root_quaternions)
    linear, angular = _rates(roots, turns)
    s1 = s[:, 0]
    at = slerp_matrices(turns[left], turns[right], s1)
    return ReferenceWindow(
        start_index=start_index,
        positions=positions,
        velocities=velocities,
        accelerations=a[left] + s * (a[right] - a[left]),
        root_positions=roots[left] + s * (roots[right] - roots[left]),
        root_quaternions=matrix_to_quaternion_xyzw(at),
        linear_velocities=linear[left] + s * (linear[right] - linear[left]),
        angular_velocities=angular[left] + s * (angular[right] - angular[left]),
        contacts=(window.contacts[np.where(s1 < 0.5, left, right)] >= 0.5).astype(np.uint8),
    )


def agree(before: ReferenceWindow, after: ReferenceWindow) -> bool:
    """Whether the frames that two windows share are the same joint positions (to float32, in which they are sent)."""
    shift = after.start_index - before.start_index
    count = min(len(before.positions) - shift, len(after.positions))
    if shift < 0 or count <= 0:
        return True
    return bool(np.abs(before.positions[shift : shift + count] - after.positions[:count]).max() < 1e-6)


def _rates(positions: FloatArray, rotations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Velocity (N, 3), [m/s], and angular velocity (N, 3), [rad/s], in the world; at rest in the last frame."""
    linear, angular = np.zeros_like(positions), np.zeros_like(positions)
    linear[:-1] = np.diff(positions, axis=0) * FRAME_RATE
    angular[:-1] = matrix_to_axis_angle(rotations[1:] @ np.swapaxes(rotations[:-1], -1, -2)) * FRAME_RATE
    return linear, angular
