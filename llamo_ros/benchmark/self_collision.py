"""How often a robot's links are inside one another, by MuJoCo's contacts.

A frame collides if two bodies that are more than 3 joints apart in the robot's tree overlap by more than 2 mm.
Neighbours closer than that overlap by construction. The floor is no body of the robot; what the rule gives if the floor
counts as one, the root of the tree, is reported apart, because recorded figures were measured so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.benchmark.mujoco_robot import import_mujoco
from llamo_ros.core.errors import ShapeError

FloatArray = NDArray[np.float64]

DEPTH = 0.002  # [m]; deeper than this is a collision
APART = 3  # joints between two bodies; more than this is far enough that they should not touch


@dataclass(frozen=True)
class SelfCollision:
    """What was found in a motion.

    Attributes:
        share: Share of frames in which links of the robot collide.
        share_with_floor: The same if the floor is a body too.
        deepest_mm: Deepest overlap of links of the robot, [mm]; 0 without one over 2 mm.
        pairs: Number of frames for each pair of bodies, most frequent first.
    """

    share: float
    share_with_floor: float
    deepest_mm: float
    pairs: dict[tuple[str, str], int]


def links_apart(model: Any) -> NDArray[np.int64]:
    """Number of joints on the way from each body to each other, shape (bodies, bodies); welded bodies count too."""
    count = model.nbody
    roots = [[body] for body in range(count)]
    for body in range(1, count):  # parents come before children
        roots[body] += roots[model.body_parentid[body]]
    depth = np.array([len(way) for way in roots])
    apart = np.zeros((count, count), dtype=np.int64)
    for a in range(count):
        above = set(roots[a])
        for b in range(count):
            meeting = next(body for body in roots[b] if body in above)
            apart[a, b] = depth[a] + depth[b] - 2 * depth[meeting]
    return apart


def self_collision(model: Any, qpos: FloatArray, first: int = 5) -> SelfCollision:
    """Score a motion of a compiled model.

    Args:
        model: ``MjModel`` of a floating robot.
        qpos: Shape (T, nq): root position [m], root quaternion wxyz, joints [rad].
        first: Frames before this one are not counted: methods need some to settle.

    Raises:
        ShapeError: ``qpos`` has another width, or not more than ``first`` frames.
    """
    mujoco = import_mujoco()
    if qpos.ndim != 2 or qpos.shape[1] != model.nq or len(qpos) <= first:
        raise ShapeError(
            "qpos",
            qpos.shape,
            f"(more than {first}, {model.nq})",
            "The root's pose, then one for each joint.",
        )
    apart, data = links_apart(model), mujoco.MjData(model)
    pairs: Counter[tuple[str, str]] = Counter()
    own, any_body, deepest = 0, 0, 0.0
    for configuration in qpos[first:]:
        data.qpos[:] = configuration
        mujoco.mj_fwdPosition(model, data)
        bodies = model.geom_bodyid[data.contact.geom].reshape(-1, 2)
        bodies.sort(axis=1)
        far = (data.contact.dist < -DEPTH) & (apart[bodies[:, 0], bodies[:, 1]] > APART)
        of_robot = far & (bodies[:, 0] > 0)
        any_body, own = any_body + bool(far.any()), own + bool(of_robot.any())
        deepest = min(deepest, float(data.contact.dist[of_robot].min(initial=0.0)))
        pairs.update({tuple(model.body(number).name for number in pair) for pair in bodies[of_robot]})
    count = len(qpos) - first
    return SelfCollision(own / count, any_body / count, 1000 * abs(deepest), dict(pairs.most_common()))
