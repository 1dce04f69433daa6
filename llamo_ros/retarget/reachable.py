"""Where a joint can be one frame from now: within velocity and acceleration limits, and able to brake in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def reachable_velocities(
    q: FloatArray,
    velocity: FloatArray,
    velocity_limits: FloatArray,
    acceleration_limits: FloatArray,
    position_limits: tuple[FloatArray, FloatArray],
    frame_rate: float,
) -> tuple[FloatArray, FloatArray]:
    """Least and largest velocity over the next frame.

    The velocity is bounded such that the joint can still brake before its position limit. If v is allowed now, then v
    minus one frame of full braking is allowed in the next frame: the bounds never contradict one another for a joint
    that has obeyed them so far. One that has not is brought back as fast as it may be.

    Args:
        q: Positions, shape (J,), [rad] or [m].
        velocity: Backward difference over the last frame, shape (J,), [rad/s].
        velocity_limits: Shape (J,), [rad/s].
        acceleration_limits: Shape (J,), [rad/s^2].
        position_limits: Lower and upper, each (J,), [rad].
        frame_rate: Frames per second, [Hz].
    """
    lower, upper = position_limits
    change = acceleration_limits / frame_rate
    low = np.maximum(velocity - change, np.minimum(-velocity_limits, velocity + change))
    high = np.minimum(velocity + change, np.maximum(velocity_limits, velocity - change))
    most_up = change * braking_speed((upper - q) * frame_rate / change)
    most_down = -change * braking_speed((q - lower) * frame_rate / change)
    high = np.maximum(np.minimum(high, most_up), most_down)
    return np.minimum(np.maximum(low, most_down), high), high


def braking_speed(distance: FloatArray) -> FloatArray:
    """Largest speed from which a joint that slows down by 1 a frame travels no further than ``distance``.

    In units of one frame's change of velocity, and of the distance that this travels in a frame. A speed u in
    (n, n + 1] travels u + (u - 1) + ... + (u - n), which is inverted here; a distance below 0 allows no speed.
    """
    distance = np.maximum(distance, 0.0)
    n = np.floor((np.sqrt(1.0 + 8.0 * distance) - 1.0) / 2.0)
    return (distance + n * (n + 1.0) / 2.0) / (n + 1.0)
