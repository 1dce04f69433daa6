"""Catalogues of short manoeuvres: ways to brake, and ways to catch up with a target that moves.

Each is linear in the state it starts from, so that all of them are tried at once by one matrix product. Time is counted
in frames and a velocity is a difference of positions from frame to frame, an acceleration one of velocities, a jerk one
of accelerations: what is checked are the very numbers that are sent.

R rows of a catalogue, K manoeuvres, G groups of D coordinates, N = G * D.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# How much smoothness counts against little acceleration, in units of the squared duration: from an even acceleration,
# which is the fastest where jerk is free, to the shape of least jerk.
_SMOOTHNESS = (0.0, 0.1, 1000.0)


class Brakes:
    """Ways to bring velocity and acceleration to zero in a given number of frames, the shortest first.

    Args:
        durations: Frames until rest, each at least 1, ascending.
        smoothness: Shapes of each, from an even acceleration to little jerk.
        earliness: Further shapes: how much more acceleration counts in later frames than in early ones.
    """

    def __init__(
        self,
        durations: Sequence[int],
        smoothness: Sequence[float] = _SMOOTHNESS,
        earliness: Sequence[float] = (0.0,),
    ) -> None:
        shapes = [
            _shape(frames, 2, smooth, early)
            for frames in durations
            for early in earliness
            for smooth in smoothness[: max(1, frames - 1)]
        ]
        self._peaks = _Peaks(shapes)
        self._paths = [np.cumsum(shape[0], axis=0)[:-1] for shape in shapes]  # the last row repeats the one before
        self._path_rows = np.concatenate(self._paths)
        self._path_starts = np.cumsum([0] + [len(path) for path in self._paths])[:-1]

    def excess(self, state: FloatArray, limits: FloatArray, width: int) -> FloatArray:
        """How far each manoeuvre goes at most, as a share of the limits, shape (K, G).

        Args:
            state: Velocity and acceleration at the start, shape (2, N).
            limits: Of velocity, acceleration and jerk, shape (3, G).
            width: D.
        """
        return self._peaks.largest(state, limits, width)

    def reach(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How far each manoeuvre goes below and above the position it starts from, each (K, N)."""
        rows = self._path_rows @ state
        return np.minimum.reduceat(rows, self._path_starts), np.maximum.reduceat(rows, self._path_starts)

    def paths(self, chosen: NDArray[np.int64], state: FloatArray) -> FloatArray:
        """Positions of one manoeuvre for each of N coordinates, relative to the start, shape (frames, N); ends at rest.

        Args:
            chosen: Manoeuvre of each coordinate, shape (N,).
            state: As above.
        """
        used = set(chosen.tolist())
        frames = max((len(self._paths[k]) for k in used), default=1)
        path = np.empty((frames, len(chosen)))
        for k in used:
            rows, columns = self._paths[k], chosen == k
            path[: len(rows), columns] = rows @ state[:, columns]
            path[len(rows) :, columns] = path[len(rows) - 1, columns]
        return path


class Catches:
    """Ways to reach a target that moves at constant velocity, and its velocity, in a given number of frames.

    Args:
        durations: Frames until the target is reached, each at least 1, ascending.
    """

    def __init__(self, durations: Sequence[int]) -> None:
        shapes = [_shape(frames, 3, smooth) for frames in durations for smooth in _SMOOTHNESS[: max(1, frames - 1)]]
        self._first = np.array([shape[0][0] for shape in shapes])
        self._peaks = _Peaks([shape[1:] for shape in shapes], adds_velocity=True)

    def excess(self, state: FloatArray, limits: FloatArray, width: int) -> FloatArray:
        """How far each manoeuvre goes at most, as a share of the limits, shape (K, G).

        Args:
            state: Distance from the target, velocity and acceleration relative to it, its velocity, shape (4, N).
            limits: Of velocity, acceleration and jerk, shape (3, G).
            width: D.
        """
        return self._peaks.largest(state, limits, width)

    def first(self, chosen: NDArray[np.int64], state: FloatArray) -> FloatArray:
        """Distance from the target one frame later, shape (N,), by one manoeuvre for each coordinate."""
        return (self._first[chosen] * state[:3].T).sum(axis=1)


class _Peaks:
    """Velocities, accelerations and jerks of all manoeuvres, as rows that are linear in the state."""

    def __init__(self, shapes: Sequence[Sequence[FloatArray]], adds_velocity: bool = False) -> None:
        rows, orders, starts = [], [], [0]
        for shape in shapes:
            for order, part in enumerate(shape):
                part = part[np.abs(part).max(axis=1) > 1e-12] if len(part) else part
                part = part if len(part) else np.zeros((1, part.shape[1]))
                if adds_velocity:
                    part = np.concatenate([part, np.full((len(part), 1), float(order == 0))], axis=1)
                rows.append(part)
                orders += [order] * len(part)
            starts.append(len(orders))
        self._rows, self._orders, self._starts = np.concatenate(rows), np.array(orders), starts[:-1]

    def largest(self, state: FloatArray, limits: FloatArray, width: int) -> FloatArray:
        sizes = size(self._rows @ state, width)
        sizes *= (1.0 / limits)[self._orders]
        return np.maximum.reduceat(sizes, self._starts)


def size(values: FloatArray, width: int) -> FloatArray:
    """Lengths of groups of ``width`` neighbouring coordinates, shape (..., N) to (..., N / width)."""
    if width == 1:
        return np.abs(values)
    grouped = values.reshape(*values.shape[:-1], -1, width)
    return np.sqrt((grouped * grouped).sum(axis=-1))


def durations(longest: int) -> tuple[int, ...]:
    """Durations to choose from up to about ``longest`` frames: each one at first, then in steps of a quarter."""
    chosen = [1]
    while chosen[-1] < longest:
        chosen.append(max(chosen[-1] + 1, round(1.25 * chosen[-1])))
    return tuple(chosen)


def _shape(frames: int, history: int, smooth: float, early: float = 0.0) -> list[FloatArray]:
    """A sequence that is zero from frame ``frames`` on, of little acceleration and jerk, and its differences.

    Args:
        frames: Frames until zero, at least 1.
        history: How many differences of the sequence are given at its start, the value itself being the first.
        smooth: Weight of the highest difference against the one before, in squared frames.
        early: Power of time with which the difference before the highest counts more.

    Returns:
        Sequence and differences up to order ``history``, each (frames + history - 1, history), to be multiplied by what
        is given. Rows begin one frame after the start.
    """
    free = frames - 1
    sequence = np.zeros((2 * history + free, free + history))
    for back in range(history):  # values before the start from backward differences
        sequence[history - 1 - back, free:] = [(-1) ** k * comb(back, k) for k in range(history)]
    sequence[history : history + free, :free] = np.eye(free)
    differences = [sequence]
    for _ in range(history):
        differences.append(np.diff(differences[-1], axis=0))
    differences = [rows[history - order :] for order, rows in enumerate(differences)]
    later = ((1 + np.arange(len(differences[-1]))) / frames)[:, None] ** early
    cost = np.concatenate([later * differences[-2], np.sqrt(smooth) * frames * differences[-1]])
    solution = -np.linalg.lstsq(cost[:, :free], cost[:, free:], rcond=None)[0] if free else np.zeros((0, history))
    return [rows @ np.concatenate([solution, np.eye(history)]) for rows in differences]
