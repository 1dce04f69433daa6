"""Mixing a wish into a path that is known to be inside all limits, as far as the limits allow. In closed form.

N coordinates in G groups of D, as in :mod:`llamo_ros.retarget.path_limiter`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def mixed(
    history: FloatArray,
    way: FloatArray,
    wish: FloatArray,
    limits: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    width: int,
    inside: NDArray[np.bool_],
) -> FloatArray:
    """``way + share * (wish - way)`` with the largest share of each group that is inside all limits.

    Where ``inside`` (G,) says so, the wish is taken as it is.
    """
    length = max(len(way), len(wish)) + 3  # frames at rest, in which the last acceleration and jerk end
    way, wish = filled(way, length), filled(wish, length)
    change = wish - way
    share = np.ones(len(inside))
    one, other = np.concatenate([history, way]), np.concatenate([np.zeros_like(history), change])
    for order in range(3):
        one, other = one[1:] - one[:-1], other[1:] - other[:-1]
        base, step = one[2 - order :], other[2 - order :]
        if width == 1:
            along, across, square = base * step, step * step, base * base
        else:
            shape = (length, -1, width)
            base, step = base.reshape(shape), step.reshape(shape)
            along, across = (base * step).sum(axis=-1), (step * step).sum(axis=-1)
            square = (base * base).sum(axis=-1)
        left = np.maximum(limits[order] ** 2 - square, 0.0)
        root = np.sqrt(along * along + across * left)
        # the larger root of across s^2 + 2 along s = left, in the form without cancellation
        forward, backward = left / np.maximum(root + along, 1e-200), (root - along) / np.maximum(across, 1e-200)
        larger = np.where(along > 0, forward, backward)
        share = np.minimum(share, np.where(across > 1e-24, larger, 1.0).min(axis=0))
    if width == 1:
        up, down = np.maximum(upper - way, 0.0), np.maximum(way - lower, 0.0)
        reach = np.where(change > 0, up, down) / np.maximum(np.abs(change), 1e-200)
        share = np.minimum(share, np.where(np.abs(change) > 1e-12, reach, 1.0).min(axis=0))
    share = np.repeat(np.where(inside, 1.0, share * (1 - 1e-12)), width)
    mix = np.where(share == 1.0, wish, way + share * change)
    if width == 1:
        mix = np.clip(mix, np.minimum(lower, way), np.maximum(upper, way))
    return mix


def filled(path: FloatArray, frames: int) -> FloatArray:
    """A path (M, N) with its last row repeated up to ``frames``."""
    if len(path) >= frames:
        return path
    return np.concatenate([path, np.broadcast_to(path[-1], (frames - len(path), path.shape[1]))])
