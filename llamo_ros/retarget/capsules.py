"""What a robot fills of space, as capsules on its links, and how far they are from one another.

A capsule is all points within a radius of a line segment. T configurations, C capsules, P pairs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.retarget.robot import LinkPoses, RobotModel

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Capsule:
    """A capsule fixed to a link; a ball where start and end are the same.

    Attributes:
        name: Name in the profile.
        link: Robot link, index.
        start: Middle of one round end in the frame of the link, shape (3,), [m].
        end: Middle of the other, shape (3,), [m].
        radius: Radius, [m].
    """

    name: str
    link: int
    start: FloatArray
    end: FloatArray
    radius: float

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)


def pairs_to_check(
    model: RobotModel, capsules: tuple[Capsule, ...], ignore: Collection[frozenset[str]] = ()
) -> NDArray[np.int64]:
    """Pairs of capsules (P, 2), indices, that should never touch.

    Left out are pairs on one link, pairs to ignore (names), and neighbours in the tree: links of which one hangs on the
    other with no link between that has a capsule. Those share a joint, or a chain of joints within one housing, and
    overlap there by construction.
    """
    carrying = {capsule.link for capsule in capsules}
    pairs = []
    for i, first in enumerate(capsules):
        for j, second in enumerate(capsules[i + 1 :], start=i + 1):
            near = first.link == second.link or carrying_above(model, first.link, carrying) == second.link
            near |= carrying_above(model, second.link, carrying) == first.link
            if not near and frozenset((first.name, second.name)) not in ignore:
                pairs.append((i, j))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def carrying_above(model: RobotModel, link: int, carrying: Collection[int]) -> int:
    """The nearest link above a link that is among ``carrying``; -1 if there is none."""
    link = int(model.parents[link])
    while link >= 0 and link not in carrying:
        link = int(model.parents[link])
    return link


def capsule_distances(capsules: tuple[Capsule, ...], pairs: NDArray[np.int64], poses: LinkPoses) -> FloatArray:
    """Distance of the surfaces of each pair, shape (T, P), [m]; negative where they are in one another."""
    links = [capsule.link for capsule in capsules]
    turns, places = poses.rotations[:, links], poses.positions[:, links]
    starts = places + (turns @ np.array([c.start for c in capsules]).reshape(-1, 3, 1))[..., 0]
    ends = places + (turns @ np.array([c.end for c in capsules]).reshape(-1, 3, 1))[..., 0]
    first, second = pairs.T
    radii = np.array([capsule.radius for capsule in capsules])
    gap = segment_distances(starts[:, first], ends[:, first], starts[:, second], ends[:, second])
    return gap - radii[first] - radii[second]


def segment_distances(start_1: FloatArray, end_1: FloatArray, start_2: FloatArray, end_2: FloatArray) -> FloatArray:
    """Smallest distance of two line segments, each array (..., 3), result (...), [m].

    The distance is convex in where along the two one measures, so its least value is found by clamping the one on the
    first line, then the other, then the first again (Ericson, Real-Time Collision Detection, 5.1.9).
    """
    u, v, w = end_1 - start_1, end_2 - start_2, start_1 - start_2
    a, b, c = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    d, e = (u * w).sum(-1), (v * w).sum(-1)
    denominator = a * c - b * b
    tiny = 1e-12
    s = np.clip(np.where(denominator > tiny, (b * e - c * d) / np.maximum(denominator, tiny), 0.0), 0.0, 1.0)
    t = np.clip(np.where(c > tiny, (b * s + e) / np.maximum(c, tiny), 0.0), 0.0, 1.0)
    s = np.clip(np.where(a > tiny, (b * t - d) / np.maximum(a, tiny), 0.0), 0.0, 1.0)
    return np.linalg.norm(w + s[..., None] * u - t[..., None] * v, axis=-1)
