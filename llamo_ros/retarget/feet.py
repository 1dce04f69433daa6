"""Which human foot stands on the floor, frame by frame, from joint heights and speeds. ROS world, z up.

T frames, F feet. The estimator is causal: it keeps what it needs of the past and never looks ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# With the sole flat the ankle joint lies this much above the toe joint (smpl22's rest pose: 0.048 and 0.056).
ANKLE_ABOVE_TOE = 0.055
# Lowest foot joint in contact, [m] above the running floor: surely below the first, surely not above the second.
_CONTACT_HEIGHT = (0.02, 0.06)
# Horizontal speed of the slower of toe and ankle in contact, [m/s]. Captured stance feet creep at 0.05 to 0.1.
_CONTACT_SPEED = (0.2, 0.6)
_FLAT_TILT = (0.02, 0.06)  # heel higher than toe, or lower, [m]
_BLEND_FRAMES = 3  # a sole becomes level over 0.1 s, so that the ankle does not snap
_PLANTED = (0.3, 0.7)  # a foot is planted from the second level of certainty on, until it falls below the first
# The floor is the lowest foot seen lately. It falls at once and rises slowly, so that a jump or a stair is a jump or a
# stair, while a floor estimate that is off by some centimetres is forgotten.
_FLOOR_RISE = 0.02  # [m/s]
_FLOOR_RANGE = (-0.10, 0.06)  # [m], where the first floor may be: a clip can start in mid-air
_FLOOR_SLACK = 0.01  # [m]; feet roll and captured floors are uneven


@dataclass(frozen=True)
class FootContacts:
    """How the feet stand in T frames.

    Attributes:
        weights: 1 while a foot stands, 0 while it swings, between while it changes, shape (T, F).
        level: 1 while it stands on a level sole, shape (T, F); <= weights.
        planted: Whether it stands so firmly that it must not move at all, shape (T, F).
        clearances: Height of the lowest foot above the floor, shape (T,), [m], >= 0.
    """

    weights: FloatArray
    level: FloatArray
    planted: NDArray[np.bool_]
    clearances: FloatArray


class ContactEstimator:
    """Tells standing feet from swinging ones in a stream of frames."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the past, as before a new motion."""
        self._previous: FloatArray | None = None
        self._level, self._planted = np.empty(0), np.empty(0, dtype=bool)
        self._floor = 0.0

    def update(self, ankles: FloatArray, toes: FloatArray, frame_rate: float) -> FootContacts:
        """Take the next T frames.

        Args:
            ankles: Ankle joints in the world, shape (T, F, 3), [m].
            toes: Toe joints in the world, shape (T, F, 3), [m].
            frame_rate: Frames per second, [Hz].
        """
        joints = np.stack([ankles, toes])
        before = joints[:, :1] if self._previous is None else self._previous
        speeds = np.linalg.norm(np.diff(joints[..., :2], axis=1, prepend=before[..., :2]), axis=-1).min(0) * frame_rate
        heights = np.minimum(toes[..., 2], ankles[..., 2] - ANKLE_ABOVE_TOE)
        floors = np.empty(len(heights))
        lowest = heights.min(axis=1)
        if self._previous is None:
            self._floor = float(np.clip(lowest[0], *_FLOOR_RANGE))
        for frame, height in enumerate(lowest):
            self._floor = min(float(height), self._floor + _FLOOR_RISE / frame_rate)
            floors[frame] = self._floor
        weights = _falling(heights - floors[:, None], _CONTACT_HEIGHT) * _falling(speeds, _CONTACT_SPEED)
        tilt = np.abs(ankles[..., 2] - toes[..., 2] - ANKLE_ABOVE_TOE)
        certainty = weights * _falling(tilt, _FLAT_TILT)
        level, planted = np.empty_like(certainty), np.empty(certainty.shape, dtype=bool)
        if self._previous is None:
            self._level, self._planted = certainty[0], certainty[0] > _PLANTED[1]
        for frame, sure in enumerate(certainty):
            self._level = level[frame] = np.minimum(sure, self._level + 1.0 / _BLEND_FRAMES)
            self._planted = planted[frame] = sure > np.where(self._planted, *_PLANTED)
        self._previous = joints[:, -1:]
        clearances = np.maximum(lowest - floors - _FLOOR_SLACK, 0.0)
        return FootContacts(weights, level, planted, clearances)


def _falling(values: FloatArray, band: tuple[float, float]) -> FloatArray:
    """1 below the band, 0 above it, smooth in between."""
    fraction = np.clip((band[1] - values) / (band[1] - band[0]), 0.0, 1.0)
    return fraction * fraction * (3.0 - 2.0 * fraction)
