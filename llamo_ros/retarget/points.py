"""Points of a robot that its URDF has no link for, such as the hand of an arm that ends in its forearm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError
from llamo_ros.retarget.robot import RobotModel


@dataclass(frozen=True)
class Point:
    """A named place on a link.

    Attributes:
        name: Name that the profile uses as if it were a link.
        link: Name of the link that carries it.
        position: Place in the frame of the link, shape (3,), [m].
    """

    name: str
    link: str
    position: NDArray[np.float64]


def with_points(model: RobotModel, points: list[Point]) -> RobotModel:
    """The same robot with a fixed link at each point, turned as the link that carries it; joints stay as they are.

    Raises:
        RobotError: the name of a point is taken, or its link is unknown.
    """
    names, parents = list(model.link_names), list(model.parents)
    origins = list(model.origins)
    for point in points:
        if point.name in names:
            raise RobotError(f"point {point.name!r} has the name of a link of robot {model.name!r}; choose another.")
        names.append(point.name)
        parents.append(model.link_index(point.link))
        origins.append(np.eye(4))
        origins[-1][:3, 3] = point.position
    depth = np.zeros(len(names), dtype=np.int64)
    for link in range(1, len(names)):  # the points come last, so that their links are known already
        depth[link] = depth[parents[link]] + 1
    order = np.argsort(depth, kind="stable")  # parents before children, level by level
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    count = len(points)
    return replace(
        model,
        link_names=tuple(names[link] for link in order),
        parents=np.array([-1 if parents[link] < 0 else place[parents[link]] for link in order]),
        link_joints=np.append(model.link_joints, np.full(count, -1))[order],
        origins=np.array(origins)[order],
        axes=np.concatenate([model.axes, np.tile([1.0, 0.0, 0.0], (count, 1))])[order],
        is_prismatic=np.append(model.is_prismatic, np.zeros(count, dtype=bool))[order],
    )
