"""Whether a robot's links are in one another, as capsules: retargeting pushes them apart, and what is left is told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.retarget.capsules import capsule_distances
from llamo_ros.retarget.profile import Robot

FloatArray = NDArray[np.float64]


class TouchCounter:
    """Looks at planned frames for links that overlap, and remembers.

    Attributes:
        frames: How many frames had some.
        deepest: Deepest overlap so far, [m]; 0 for none.
        pair: The two capsules that were deepest in one another; empty for none.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.frames, self.deepest, self.pair = 0, 0.0, ("", "")

    def look(self, joint_positions: FloatArray) -> NDArray[np.bool_]:
        """Whether links overlap in each frame, shape (T,).

        Args:
            joint_positions: Shape (T, J), [rad].
        """
        robot = self._robot
        if not len(robot.capsule_pairs) or not len(joint_positions):
            return np.zeros(len(joint_positions), dtype=bool)
        distances = capsule_distances(robot.capsules, robot.capsule_pairs, robot.model.link_poses(joint_positions))
        touching = (distances < 0).any(axis=1)
        self.frames += int(touching.sum())
        deepest = -float(distances.min())
        if deepest > self.deepest:
            closest = robot.capsule_pairs[distances.min(axis=0).argmin()]
            first, second = (robot.capsules[k].name for k in closest)
            self.deepest, self.pair = deepest, (first, second)
        return touching

    def __str__(self) -> str:
        """A line for people."""
        if not self.frames:
            return "none"
        return f"{self.frames} frames, up to {1000 * self.deepest:.0f} mm ({' and '.join(self.pair)})"
