"""RobotModel: the kinematic tree of a robot, read from its URDF, with vectorised forward kinematics and Jacobians.

T configurations, J movable joints, L links. Everything is expressed in the root link's frame.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError, ShapeError

FloatArray = NDArray[np.float64]

_MOVABLE = ("revolute", "continuous", "prismatic")
_UNLIMITED_ANGLE = np.pi  # a continuous joint is kept within one turn, so that it can never wind up
_NO_LIMIT = 1e3  # [rad] or [m]; a limit beyond is none


@dataclass(frozen=True)
class LinkPoses:
    """Where every link is for T configurations.

    Attributes:
        positions: Link origins, shape (T, L, 3), [m].
        rotations: Link orientations, shape (T, L, 3, 3).
    """

    positions: FloatArray
    rotations: FloatArray


@dataclass(frozen=True)
class RobotModel:
    """A robot as a tree of links; links are stored so that parents come before children.

    Attributes:
        name: Name in the URDF.
        joint_names: The J movable joints in the order in which the URDF lists them.
        link_names: The L links; the first one is the root.
        parents: Parent link of each link, shape (L,); -1 for the root.
        link_joints: Movable joint that carries each link, shape (L,); -1 where it is fixed or the root.
        origins: Pose of each link in its parent at zero, shape (L, 4, 4), [m].
        axes: Joint axis of each link in its own frame, shape (L, 3), unit length.
        is_prismatic: Whether the joint of each link slides, shape (L,).
        lower: Position limits, shape (J,), [rad] or [m].
        upper: Position limits, shape (J,), [rad] or [m].
        velocity_limits: Largest joint speeds, shape (J,), [rad/s] or [m/s].
    """

    name: str
    joint_names: tuple[str, ...]
    link_names: tuple[str, ...]
    parents: NDArray[np.int64]
    link_joints: NDArray[np.int64]
    origins: FloatArray
    axes: FloatArray
    is_prismatic: NDArray[np.bool_]
    lower: FloatArray
    upper: FloatArray
    velocity_limits: FloatArray

    def __post_init__(self) -> None:
        for array in (self.parents, self.link_joints, self.origins, self.axes, self.is_prismatic):
            array.setflags(write=False)
        for array in (self.lower, self.upper, self.velocity_limits):
            array.setflags(write=False)

    @property
    def joint_count(self) -> int:
        """Number of movable joints J."""
        return len(self.joint_names)

    def link_index(self, name: str) -> int:
        """Index of a link.

        Raises:
            RobotError: the robot has no such link; the message lists what it has.
        """
        return _index(self.link_names, name, "link", self.name)

    def joint_index(self, name: str) -> int:
        """Index of a movable joint.

        Raises:
            RobotError: the robot has no such joint; the message lists what it has.
        """
        return _index(self.joint_names, name, "joint", self.name)

    def link_poses(self, configurations: FloatArray) -> LinkPoses:
        """Forward kinematics in the root link's frame.

        Args:
            configurations: Joint positions, shape (T, J), [rad] or [m].

        Returns:
            Poses of all links.

        Raises:
            ShapeError: ``configurations`` is not (T, J).
        """
        if configurations.ndim != 2 or configurations.shape[1] != self.joint_count:
            raise ShapeError(
                "configurations", configurations.shape, f"(T, {self.joint_count})", "One column for each joint_names."
            )
        to_parent = self._link_to_parent(configurations)
        to_root = np.empty_like(to_parent)
        to_root[:, 0] = np.eye(4)
        for first, last, parents in self._levels:
            to_root[:, first:last] = to_root[:, parents] @ to_parent[:, first:last]
        return LinkPoses(positions=to_root[..., :3, 3], rotations=to_root[..., :3, :3])

    def joint_axes(self, poses: LinkPoses) -> tuple[FloatArray, FloatArray]:
        """Joint axes (T, J, 3), unit length, and a point on each (T, J, 3), [m], in the root link's frame."""
        links = self._joint_links
        axes = (poses.rotations[:, links] @ self.axes[links][..., None])[..., 0]
        return axes, poses.positions[:, links]

    def position_jacobian(self, poses: LinkPoses, links: NDArray[np.int64]) -> FloatArray:
        """How the origins of K links move with each joint, shape (T, K, 3, J), [m/rad] or [m/m]."""
        return np.swapaxes(self.origin_motion(poses, links, *self.joint_axes(poses)), -1, -2)

    def origin_motion(
        self, poses: LinkPoses, links: NDArray[np.int64], axes: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Transposed :meth:`position_jacobian` (T, K, J, 3), for a caller that has :meth:`joint_axes` already."""
        motion = cross(points, axes)[:, None] - cross(poses.positions[:, links][:, :, None], axes[:, None])
        sliding = self.is_prismatic[self._joint_links]
        if sliding.any():  # a turning joint moves the point p by a x (p - o) = o x a - p x a, a sliding one by a
            motion = np.where(sliding[:, None], axes[:, None], motion)
        return motion * self.moved_by[links][..., None]

    def rotation_jacobian(self, poses: LinkPoses, links: NDArray[np.int64]) -> FloatArray:
        """Angular velocity of K links per joint velocity, shape (T, K, 3, J), [rad/rad], in the root link's frame."""
        axes, _ = self.joint_axes(poses)
        return np.swapaxes(axes[:, None] * self.turned_by[links][..., None], -1, -2)

    @cached_property
    def moved_by(self) -> FloatArray:
        """1 where a joint moves a link, else 0, shape (L, J)."""
        moved = np.zeros((len(self.link_names), self.joint_count))
        for link in range(1, len(self.link_names)):
            moved[link] = moved[self.parents[link]]
            if self.link_joints[link] >= 0:
                moved[link, self.link_joints[link]] = 1.0
        return moved

    @cached_property
    def turned_by(self) -> FloatArray:
        """1 where a joint turns a link, else 0, shape (L, J): :attr:`moved_by` without sliding joints."""
        return self.moved_by * ~self.is_prismatic[self._joint_links]

    @cached_property
    def _joint_links(self) -> NDArray[np.int64]:
        return np.argsort(np.where(self.link_joints < 0, len(self.link_names), self.link_joints))[: self.joint_count]

    @cached_property
    def _levels(self) -> list[tuple[int, int, NDArray[np.int64]]]:
        depth = np.zeros(len(self.parents), dtype=np.int64)
        for link in range(1, len(depth)):
            depth[link] = depth[self.parents[link]] + 1
        edges = [int(np.searchsorted(depth, level)) for level in range(1, depth.max() + 2)]
        return [(a, b, self.parents[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    @cached_property
    def _turns(self) -> FloatArray:
        """Per link the three matrices of Rodrigues' formula, so that a turn is I + sin K + (1 - cos) K K."""
        turns = np.zeros((3, len(self.axes), 4, 4))
        x, y, z = self.axes.T
        skew = turns[1, :, :3, :3]
        skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -z, y, -x
        skew[:, 1, 0], skew[:, 2, 0], skew[:, 2, 1] = z, -y, x
        turns[0] = np.eye(4)
        turns[2, :, :3, :3] = skew @ skew
        return self.origins @ turns

    def _link_to_parent(self, configurations: FloatArray) -> FloatArray:
        movable = self.link_joints >= 0
        values = np.where(movable, configurations[:, self.link_joints], 0.0)
        angles = np.where(self.is_prismatic, 0.0, values)[..., None, None]
        fixed, sine, cosine = self._turns
        to_parent = fixed + np.sin(angles) * sine + (1.0 - np.cos(angles)) * cosine
        if self.is_prismatic.any():
            shift = np.where(self.is_prismatic, values, 0.0)[..., None] * self.axes
            to_parent[..., :3, 3] += (self.origins[:, :3, :3] @ shift[..., None])[..., 0]
        return to_parent


def robot_from_urdf(text: str) -> RobotModel:
    """Read a robot from the text of a URDF; masses, meshes and transmissions are ignored.

    Mimic joints are held at zero: they follow another joint and are no freedom of their own. A floating joint only
    says that the robot is not bolted down, which is assumed anyway.

    Args:
        text: The XML itself (what ``robot_description`` holds), not a path.

    Raises:
        RobotError: the text is not a URDF, is not a single tree, or lacks a limit; the message says where.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can expand without bound, and no URDF needs them
        raise RobotError("the robot description has a DOCTYPE or ENTITY declaration; remove it.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RobotError(f"the robot description is not valid XML: {error}. Give the text of a URDF.") from error
    if root.tag != "robot":
        raise RobotError(f"the robot description starts with <{root.tag}>, expected <robot>. Expand xacro files first.")
    links = [_attribute(link, "name", "a <link>") for link in root.findall("link")]
    _refuse_duplicates(links, "link")
    joints = [joint for joint in root.findall("joint") if joint.get("type") != "floating"]
    names = [_attribute(joint, "name", "a <joint>") for joint in joints]
    _refuse_duplicates(names, "joint")
    movable = [joint for joint in joints if joint.get("type") in _MOVABLE and joint.find("mimic") is None]
    if not movable:
        raise RobotError("the robot description has no movable joint (revolute, continuous or prismatic).")
    order, carriers = _sorted_by_depth(links, joints)
    index = {name: i for i, name in enumerate(order)}
    joint_index = {joint.get("name"): i for i, joint in enumerate(movable)}
    origins, axes = np.tile(np.eye(4), (len(order), 1, 1)), np.tile([1.0, 0.0, 0.0], (len(order), 1))
    parents, link_joints = np.full(len(order), -1), np.full(len(order), -1)
    is_prismatic = np.zeros(len(order), dtype=bool)
    for link, joint in carriers.items():
        i = index[link]
        parents[i] = index[joint.find("parent").get("link")]
        link_joints[i] = joint_index.get(joint.get("name"), -1)
        origins[i] = _origin(joint)
        if joint.get("type") in _MOVABLE:
            axes[i] = _axis(joint)
        is_prismatic[i] = joint.get("type") == "prismatic"
    limits = np.array([_limits(joint) for joint in movable])
    return RobotModel(
        name=root.get("name", "robot"),
        joint_names=tuple(joint_index),
        link_names=tuple(order),
        parents=parents,
        link_joints=link_joints,
        origins=origins,
        axes=axes,
        is_prismatic=is_prismatic,
        lower=limits[:, 0].copy(),
        upper=limits[:, 1].copy(),
        velocity_limits=limits[:, 2].copy(),
    )


def cross(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cross product over the last axis with broadcasting; several times faster than ``numpy.cross`` on small arrays."""
    a, b, c = first[..., 0], first[..., 1], first[..., 2]
    d, e, f = second[..., 0], second[..., 1], second[..., 2]
    return np.stack([b * f - c * e, c * d - a * f, a * e - b * d], axis=-1)


def rotation_from_rpy(roll: float, pitch: float, yaw: float) -> FloatArray:
    """Rotation matrix (3, 3) of URDF's angles, [rad]: about fixed axes, x (roll), then y (pitch), then z (yaw)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _index(names: tuple[str, ...], name: str, kind: str, robot: str) -> int:
    if name not in names:
        raise RobotError(f"{kind} {name!r} is not in robot {robot!r}. Known {kind}s: {', '.join(names)}.")
    return names.index(name)


def _refuse_duplicates(names: list[str], kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RobotError(
                f"the robot description has {names.count(name)} {kind}s called {name!r}; names are unique."
            )


def _sorted_by_depth(
    links: list[str], joints: list[ElementTree.Element]
) -> tuple[list[str], dict[str, ElementTree.Element]]:
    """Links level by level from the root, and the joint that carries each of them."""
    carriers: dict[str, ElementTree.Element] = {}
    children: dict[str, list[str]] = {link: [] for link in links}
    for joint in joints:
        name = joint.get("name")
        ends = []
        for end in ("parent", "child"):
            element = joint.find(end)
            link = None if element is None else element.get("link")
            if link not in children:
                raise RobotError(
                    f"joint {name!r} has {end} link {link!r}, which the robot description does not define."
                )
            ends.append(link)
        if ends[1] in carriers:
            raise RobotError(f"link {ends[1]!r} hangs on two joints; a robot description is a tree.")
        carriers[ends[1]] = joint
        children[ends[0]].append(ends[1])
    roots = [link for link in links if link not in carriers]
    if len(roots) != 1:
        raise RobotError(f"the robot description has {len(roots)} root links {roots[:5]}, expected one connected tree.")
    order, level = [], roots
    while level:
        order += level
        level = [child for link in level for child in children[link]]
    if len(order) < len(links):
        loop = [link for link in links if link not in order]
        raise RobotError(f"links {', '.join(loop[:5])} hang on one another in a loop; a robot description is a tree.")
    return order, carriers


def _attribute(element: ElementTree.Element, name: str, where: str) -> str:
    value = element.get(name)
    if not value:
        raise RobotError(f"{where} in the robot description has no {name!r} attribute.")
    return value


def _numbers(text: str | None, default: tuple[float, ...], where: str) -> FloatArray:
    try:
        values = np.array(default if text is None else [float(word) for word in text.split()], dtype=np.float64)
    except ValueError as error:
        raise RobotError(f"{where} is {text!r}, expected {len(default)} numbers.") from error
    if values.shape != (len(default),) or not np.isfinite(values).all():
        raise RobotError(f"{where} is {text!r}, expected {len(default)} finite numbers.")
    return values


def _origin(joint: ElementTree.Element) -> FloatArray:
    element = joint.find("origin")
    attributes = {} if element is None else element.attrib
    where = f"origin of joint {joint.get('name')!r}"
    roll, pitch, yaw = _numbers(attributes.get("rpy"), (0.0, 0.0, 0.0), f"rpy in the {where}")
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_rpy(roll, pitch, yaw)
    pose[:3, 3] = _numbers(attributes.get("xyz"), (0.0, 0.0, 0.0), f"xyz in the {where}")
    return pose


def _axis(joint: ElementTree.Element) -> FloatArray:
    element = joint.find("axis")
    name = joint.get("name")
    axis = _numbers(None if element is None else element.get("xyz"), (1.0, 0.0, 0.0), f"axis of joint {name!r}")
    if np.linalg.norm(axis) < 1e-6:
        raise RobotError(f"axis of joint {name!r} has no length.")
    return axis / np.linalg.norm(axis)


def _limits(joint: ElementTree.Element) -> tuple[float, float, float]:
    name, element = joint.get("name"), joint.find("limit")
    if element is None:
        raise RobotError(f"joint {name!r} has no <limit>; its velocity limit is needed to move it safely.")
    default = (-_UNLIMITED_ANGLE, _UNLIMITED_ANGLE)
    bounded = joint.get("type") != "continuous"
    text = f"{element.get('lower', 0)} {element.get('upper', 0)}" if bounded else None
    lower, upper = _numbers(text, default, f"limit of joint {name!r}")
    (velocity,) = _numbers(element.get("velocity"), (0.0,), f"velocity limit of joint {name!r}")
    if joint.get("type") != "prismatic" and -lower > _NO_LIMIT < upper:  # as converters write a continuous joint
        lower, upper = default
    if not max(-lower, upper) <= _NO_LIMIT:
        raise RobotError(f"joint {name!r} has limits {lower:g}..{upper:g}, which no joint reaches; give its real ones.")
    if lower > upper or velocity <= 0:
        raise RobotError(
            f"joint {name!r} has limits {lower:g}..{upper:g} and velocity {velocity:g}; expected lower <= upper and a "
            "positive velocity."
        )
    return float(lower), float(upper), float(velocity)
