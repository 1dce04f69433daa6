"""Robot profiles: how the smpl22 skeleton corresponds to a robot, as data in ``config/robots/*.yaml``.

A profile names links, weights, what the links fill of space, and safety limits; a URDF holds the kinematics: one beside
the profile, or the user's own. No code knows a robot by name. docs/robots.md explains every entry.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError
from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.retarget.capsules import Capsule, pairs_to_check
from llamo_ros.retarget.catalogue import split_urdf
from llamo_ros.retarget.points import Point, with_points
from llamo_ros.retarget.profile_reader import ProfileReader, hint, is_number, read_profile
from llamo_ros.retarget.robot import RobotModel, robot_from_urdf, rotation_from_rpy

FloatArray = NDArray[np.float64]

_SECTIONS = (
    "name",
    "description",
    "licence",
    "points",
    "orientations",
    "limbs",
    "feet",
    "collision",
    "limits",
    "neutral",
    "neutral_weight",
    "standing",
)
# Where a profile says nothing: from nothing to the largest acceleration in 20 ms.
_JERK_PER_ACCELERATION = 50.0  # [1/s]
_ONE_TURN = 6.3  # [rad]; an angle beyond was written in degrees


@dataclass(frozen=True)
class OrientationRule:
    """A link whose orientation follows a human joint.

    Attributes:
        human: Human joint, index in smpl22.
        link: Robot link, index.
        weight: Weight of the squared angle, [1/rad^2].
        rotation: Orientation of the link in the frame of the human joint, shape (3, 3).
    """

    human: int
    link: int
    weight: float
    rotation: FloatArray


@dataclass(frozen=True)
class LimbRule:
    """A limb of two segments: human joints and robot links from its start over the middle to its end.

    Attributes:
        human: Three human joints, indices in smpl22.
        links: Three robot links, indices.
        upper: Weight of the upper segment's direction.
        lower: Weight of the lower segment's direction.
        reach: Weight of the vector from start to end, as a fraction of the limb's length.
    """

    human: tuple[int, int, int]
    links: tuple[int, int, int]
    upper: float
    lower: float
    reach: float


@dataclass(frozen=True)
class FootRule:
    """A foot: the end of a leg.

    Attributes:
        limb: Index of the leg in :attr:`Robot.limbs`; its last link is the foot.
        toe: Human toe joint, index in smpl22.
        weight: Weight of the foot's orientation, [1/rad^2].
        sole: Corners of the sole in the frame of the foot link, shape (C, 3), [m].
        rotation: Orientation of the foot link in the frame of a foot that stands flat (x to the toes, z up), (3, 3).
    """

    limb: int
    toe: int
    weight: float
    sole: FloatArray
    rotation: FloatArray


@dataclass(frozen=True)
class RootLimits:
    """How fast the root link may be asked to move; lengths of vectors in the world.

    Attributes:
        speed: [m/s].
        acceleration: [m/s^2].
        jerk: [m/s^3].
        turn_rate: Of the heading, and of the tilt, [rad/s].
        turn_acceleration: Likewise, [rad/s^2].
    """

    speed: float = 5.0
    acceleration: float = 100.0
    jerk: float = 6000.0
    turn_rate: float = 8.0
    turn_acceleration: float = 120.0


@dataclass(frozen=True)
class Robot:
    """A robot that human motion can be retargeted to: its kinematics and its profile.

    Attributes:
        name: Name of the profile.
        model: Kinematic tree, with the profile's own points as links.
        description: Text of the URDF, for ``robot_description``.
        orientations: Links that follow a human orientation.
        limbs: Arms and legs.
        feet: Feet; empty for a robot without.
        neutral: Posture for what the human leaves free, shape (J,), [rad].
        neutral_weight: How strongly.
        standing: Posture to start from and return to, shape (J,), [rad].
        lower: Position limits with the margin taken off, shape (J,), [rad].
        upper: Position limits with the margin taken off, shape (J,), [rad].
        velocity_limits: Largest commanded speeds, shape (J,), [rad/s].
        acceleration_limits: Largest commanded accelerations, shape (J,), [rad/s^2].
        jerk_limits: Largest commanded jerks, shape (J,), [rad/s^3].
        root_limits: How fast the root link may be asked to move.
        capsules: What the links fill of space; empty where the profile does not say.
        capsule_pairs: Pairs of capsules that should never touch, indices, shape (P, 2).
    """

    name: str
    model: RobotModel
    description: str
    orientations: tuple[OrientationRule, ...]
    limbs: tuple[LimbRule, ...]
    feet: tuple[FootRule, ...]
    neutral: FloatArray
    neutral_weight: float
    standing: FloatArray
    lower: FloatArray
    upper: FloatArray
    velocity_limits: FloatArray
    acceleration_limits: FloatArray
    jerk_limits: FloatArray
    root_limits: RootLimits
    capsules: tuple[Capsule, ...]
    capsule_pairs: NDArray[np.int64]

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The J movable joints, in the order of every array of joint positions."""
        return self.model.joint_names

    @cached_property
    def root_facing(self) -> FloatArray:
        """Rotation from the root link's axes to forward, left, up in the neutral posture, shape (3, 3).

        It is what the profile says of the pelvis; the identity for a root link as REP-103 has it.
        """
        rule = next((rule for rule in self.orientations if rule.human == JOINT_INDEX["pelvis"]), None)
        if rule is None:
            return np.eye(3)
        return rule.rotation @ self.model.link_poses(self.neutral[None]).rotations[0, rule.link].T


def load_robot(name_or_path: str | Path, description: str | None = None) -> Robot:
    """Load a robot profile and its URDF.

    Args:
        name_or_path: A name from :func:`robot_names`, or the path of a profile (``.yaml``). A URDF to use in place of
            the profile's own may follow after ``@``, as in ``pal_talos@talos.urdf``.
        description: Text of a URDF to use in place of the profile's own, such as the ``robot_description`` of the real
            robot: its limits then hold. It must have the links and joints that the profile names.

    Raises:
        RobotError: the robot is unknown (the message lists those there are), or its files do not fit together.
    """
    path, given_urdf = split_urdf(str(name_or_path))
    reader = read_profile(path)
    reader.only(_SECTIONS)
    if description is None:
        urdf = given_urdf or _own_urdf(path, reader)
        try:
            description = urdf.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RobotError(
                f"robot description {str(urdf)!r} of profile {path.name!r} cannot be read: {error}"
            ) from error
    return _robot(reader, with_points(robot_from_urdf(description), _points(reader)), description)


def robot_of_profile(content: dict, description: str) -> Robot:
    """A robot of a profile that is in memory, and of the text of a URDF.

    Raises:
        RobotError: an entry is wrong or missing, or the two do not fit together.
    """
    reader = ProfileReader(content, f"robot profile {content.get('name', '')!r}")
    reader.only(_SECTIONS)
    return _robot(reader, with_points(robot_from_urdf(description), _points(reader)), description)


def has_description(name_or_path: str | Path) -> bool:
    """Whether a profile names a URDF of its own; without one, :func:`load_robot` needs the user's."""
    path, given_urdf = split_urdf(str(name_or_path))
    return given_urdf is not None or "description" in read_profile(path).content


def _own_urdf(path: Path, reader: ProfileReader) -> Path:
    if "description" not in reader.content:
        raise RobotError(
            f"profile {path.name!r} comes without a robot description: give the URDF of your own robot, as in "
            f"'{path.stem}@my_robot.urdf', or copy the profile and name your URDF in it as 'description'."
        )
    return path.parent / Path(reader.take("description", str)).expanduser()


def _robot(reader: ProfileReader, model: RobotModel, description: str) -> Robot:
    orientations = tuple(_orientation(part, model) for _, part in reader.parts("orientations"))
    limb_parts = reader.parts("limbs")
    if not orientations or not limb_parts:
        raise RobotError(f"{reader.place} has no 'orientations' or no 'limbs'; both are needed to follow a human.")
    limbs = tuple(_limb(part, model) for _, part in limb_parts)
    feet = tuple(_foot(part, [name for name, _ in limb_parts]) for _, part in reader.parts("feet"))
    reader.take("limits", dict)
    limits = reader.section("limits")
    limits.only(
        ("position_margin", "velocity_scale", "velocities", "acceleration", "accelerations", "jerk", "jerks", "root")
    )
    margin, velocity_scale = limits.number("position_margin"), limits.number("velocity_scale")
    if not 0 < velocity_scale <= 1:
        raise RobotError(f"{limits.place}: 'velocity_scale' is {velocity_scale:g}, expected more than 0 and at most 1.")
    margin = np.minimum(margin, 0.25 * (model.upper - model.lower))  # a joint of tiny range keeps half of it
    lower, upper = model.lower + margin, model.upper - margin
    velocity = model.velocity_limits * velocity_scale
    velocity = np.minimum(velocity, _per_joint(limits.section("velocities"), model, np.full(len(velocity), np.inf)))
    acceleration = _per_joint(
        limits.section("accelerations"), model, np.full(model.joint_count, limits.positive("acceleration"))
    )
    jerk = acceleration * _JERK_PER_ACCELERATION
    if "jerk" in limits.content:
        jerk = np.full(model.joint_count, limits.positive("jerk"))
    capsules, capsule_pairs = _collision(reader.section("collision"), model)
    return Robot(
        name=reader.take("name", str),
        model=model,
        description=description,
        orientations=orientations,
        limbs=limbs,
        feet=feet,
        neutral=_posture(reader, "neutral", model, lower, upper),
        neutral_weight=reader.number("neutral_weight", 1e-3),
        standing=_posture(reader, "standing", model, lower, upper),
        lower=_frozen(lower),
        upper=_frozen(upper),
        velocity_limits=_frozen(velocity),
        acceleration_limits=_frozen(acceleration),
        jerk_limits=_frozen(_per_joint(limits.section("jerks"), model, jerk)),
        root_limits=_root_limits(limits.section("root")),
        capsules=capsules,
        capsule_pairs=capsule_pairs,
    )


def _points(reader: ProfileReader) -> list[Point]:
    points = []
    for name, part in reader.parts("points"):
        part.only(("link", "at"))
        points.append(Point(name, part.take("link", str), part.array("at", (3,))))
    return points


def _per_joint(section: ProfileReader, model: RobotModel, default: FloatArray) -> FloatArray:
    """The values (J,) of a section for the joints that it lists, the default's for the others."""
    values = default.copy()
    for name in section.content:
        values[model.joint_index(name)] = section.positive(name)
    return values


def _root_limits(section: ProfileReader) -> RootLimits:
    names = tuple(field.name for field in fields(RootLimits))
    section.only(names)
    return RootLimits(**{name: section.positive(name, getattr(RootLimits, name)) for name in names})


def _collision(section: ProfileReader, model: RobotModel) -> tuple[tuple[Capsule, ...], NDArray[np.int64]]:
    section.only(("capsules", "ignore"))
    capsules = []
    for name, part in section.parts("capsules"):
        part.only(("link", "from", "to", "radius"))
        link = model.link_index(part.take("link", str))
        capsules.append(Capsule(name, link, part.array("from", (3,)), part.array("to", (3,)), part.positive("radius")))
    names = [capsule.name for capsule in capsules]
    ignore = set()
    for pair in section.take("ignore", list) if section.content.get("ignore") is not None else []:
        if not isinstance(pair, list) or len(pair) != 2 or not all(name in names for name in pair):
            raise RobotError(f"{section.place}: ignore has {pair!r}, expected two of the capsules {', '.join(names)}.")
        ignore.add(frozenset(pair))
    pairs = pairs_to_check(model, tuple(capsules), ignore)
    pairs.setflags(write=False)
    return tuple(capsules), pairs


def _rotation(part: ProfileReader) -> FloatArray:
    rpy = part.array("rotation", (3,)) if "rotation" in part.content else np.zeros(3)
    if (np.abs(rpy) > _ONE_TURN).any():
        raise RobotError(f"{part.place}: 'rotation' is {rpy.tolist()}, expected radians; these look like degrees.")
    return _frozen(rotation_from_rpy(*rpy))


def _orientation(part: ProfileReader, model: RobotModel) -> OrientationRule:
    part.only(("human", "link", "weight", "rotation"))
    return OrientationRule(
        human=part.human_joint(part.take("human", str)),
        link=model.link_index(part.take("link", str)),
        weight=part.number("weight"),
        rotation=_rotation(part),
    )


def _limb(part: ProfileReader, model: RobotModel) -> LimbRule:
    part.only(("human", "links", "weights"))
    human, links = part.take("human", list), part.take("links", list)
    if len(human) != 3 or len(links) != 3:
        raise RobotError(f"{part.place} has {len(human)} human joints and {len(links)} links, expected 3 of each.")
    weights = ProfileReader(part.take("weights", dict), f"{part.place}.weights")
    weights.only(("upper", "lower", "reach"))
    return LimbRule(
        human=tuple(part.human_joint(name) for name in human),
        links=tuple(model.link_index(name) for name in links),
        upper=weights.number("upper"),
        lower=weights.number("lower"),
        reach=weights.number("reach"),
    )


def _foot(part: ProfileReader, limb_names: list[str]) -> FootRule:
    part.only(("limb", "toe", "weight", "sole", "rotation"))
    limb = part.take("limb", str)
    if limb not in limb_names:
        raise RobotError(f"{part.place}: limb {limb!r} is not among the limbs: {', '.join(limb_names)}.")
    return FootRule(
        limb=limb_names.index(limb),
        toe=part.human_joint(part.take("toe", str)),
        weight=part.number("weight"),
        sole=part.array("sole", (None, 3)),
        rotation=_rotation(part),
    )


def _posture(reader: ProfileReader, key: str, model: RobotModel, lower: FloatArray, upper: FloatArray) -> FloatArray:
    posture = np.zeros(model.joint_count)
    for name, value in reader.section(key).content.items():
        joint = model.joint_index(name)
        if not is_number(value) or abs(value) > max(_ONE_TURN, -model.lower[joint], model.upper[joint]):
            raise RobotError(f"{reader.place}: {key}.{name} is {value!r}, expected an angle in radians.{hint(value)}")
        posture[joint] = value
    return _frozen(np.clip(posture, lower, upper))


def _frozen(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array
