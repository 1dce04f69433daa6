"""Robot profiles: how the smpl22 skeleton corresponds to a robot, as data in ``config/robots/*.yaml``.

A profile names links, weights and safety limits; the URDF beside it holds the kinematics. No code knows a robot by
name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError
from llamo_ros.core.resources import config_path
from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.retarget.robot import RobotModel, robot_from_urdf, rotation_from_rpy

FloatArray = NDArray[np.float64]

_ACCELERATION_RISE = 0.02  # [s]; from nothing to the acceleration limit, where a profile states no jerk


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
    """

    limb: int
    toe: int
    weight: float
    sole: FloatArray


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
        model: Kinematic tree.
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

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The J movable joints, in the order of every array of joint positions."""
        return self.model.joint_names


def robot_names() -> tuple[str, ...]:
    """Names of the robots that come with the package, sorted."""
    return tuple(sorted(path.stem for path in config_path("robots").glob("*.yaml")))


def load_robot(name_or_path: str | Path, description: str | None = None) -> Robot:
    """Load a robot profile and its URDF.

    Args:
        name_or_path: A name from :func:`robot_names`, or the path of a profile (``.yaml``).
        description: Text of a URDF to use in place of the profile's own, such as the ``robot_description`` of the real
            robot: its limits then hold. It must have the links and joints that the profile names.

    Raises:
        RobotError: the robot is unknown (the message lists those there are), or its files do not fit together.
    """
    path = _profile_path(name_or_path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RobotError(f"robot profile {str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RobotError(f"robot profile {str(path)!r} holds {type(content).__name__}, expected a mapping.")
    reader = _Reader(content, f"robot profile {path.name!r}")
    if description is None:
        urdf = path.parent / reader.take("description", str)
        try:
            description = urdf.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RobotError(
                f"robot description {str(urdf)!r} of profile {path.name!r} cannot be read: {error}"
            ) from error
    return _robot(reader, robot_from_urdf(description), description)


def _profile_path(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text in robot_names():
        return config_path("robots", f"{text}.yaml")
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return path
    raise RobotError(
        f"robot {text!r} is unknown. Known robots: {', '.join(robot_names())}; or give the path of a robot profile "
        "(.yaml)."
    )


class _Reader:
    """A mapping from a profile that knows its place, so that each error can say where it is."""

    def __init__(self, content: Any, place: str) -> None:
        if not isinstance(content, dict):
            raise RobotError(f"{place} is {content!r}, expected a mapping.")
        self.content, self.place = content, place

    def take(self, key: str, kind: type) -> Any:
        if key not in self.content:
            raise RobotError(f"{self.place} has no {key!r}. It has: {', '.join(map(str, self.content))}.")
        value = self.content[key]
        if not isinstance(value, kind):
            raise RobotError(f"{self.place}: {key!r} is {value!r}, expected {kind.__name__}.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value) or value < 0:
            raise RobotError(f"{self.place}: {key!r} is {value!r}, expected a number that is not negative.")
        return float(value)

    def array(self, key: str, shape: tuple[int | None, ...]) -> FloatArray:
        try:
            array = np.array(self.take(key, list), dtype=np.float64)
            fits = array.ndim == len(shape) and all(
                want in (None, got) for want, got in zip(shape, array.shape, strict=True)
            )
        except (TypeError, ValueError):
            fits = False
        if not fits or not np.isfinite(array).all():
            sizes = " x ".join("any" if size is None else str(size) for size in shape)
            raise RobotError(f"{self.place}: {key!r} is {self.content[key]!r}, expected {sizes} numbers.")
        return array

    def parts(self, key: str) -> list[tuple[str, _Reader]]:
        entries = self.content.get(key, {})
        reader = _Reader(entries, f"{self.place}: {key!r}")
        return [(name, _Reader(entry, f"{self.place}: {key}.{name}")) for name, entry in reader.content.items()]

    def human_joint(self, name: Any) -> int:
        if name not in JOINT_INDEX:
            raise RobotError(f"{self.place}: human joint {name!r} is not in smpl22. Known: {', '.join(JOINT_INDEX)}.")
        return JOINT_INDEX[name]


def _robot(reader: _Reader, model: RobotModel, description: str) -> Robot:
    orientations = tuple(_orientation(part, model) for _, part in reader.parts("orientations"))
    limb_parts = reader.parts("limbs")
    if not orientations or not limb_parts:
        raise RobotError(f"{reader.place} has no 'orientations' or no 'limbs'; both are needed to follow a human.")
    limbs = tuple(_limb(part, model) for _, part in limb_parts)
    feet = tuple(_foot(part, [name for name, _ in limb_parts]) for _, part in reader.parts("feet"))
    limits = _Reader(reader.take("limits", dict), f"{reader.place}: limits")
    margin, velocity_scale = limits.number("position_margin"), limits.number("velocity_scale")
    if not 0 < velocity_scale <= 1:
        raise RobotError(f"{limits.place}: 'velocity_scale' is {velocity_scale:g}, expected more than 0 and at most 1.")
    margin = np.minimum(margin, 0.25 * (model.upper - model.lower))  # a joint of tiny range keeps half of it
    lower, upper = model.lower + margin, model.upper - margin
    acceleration = np.full(model.joint_count, limits.number("acceleration"))
    for name in limits.content.get("accelerations", {}):
        acceleration[model.joint_index(name)] = _Reader(limits.content["accelerations"], limits.place).number(name)
    if (acceleration <= 0).any():
        raise RobotError(f"{limits.place}: accelerations must be positive.")
    jerk = acceleration / _ACCELERATION_RISE
    if "jerk" in limits.content:
        jerk = np.full(model.joint_count, limits.number("jerk"))
    for name in limits.content.get("jerks", {}):
        jerk[model.joint_index(name)] = _Reader(limits.content["jerks"], limits.place).number(name)
    if (jerk <= 0).any():
        raise RobotError(f"{limits.place}: jerks must be positive.")
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
        velocity_limits=_frozen(model.velocity_limits * velocity_scale),
        acceleration_limits=_frozen(acceleration),
        jerk_limits=_frozen(jerk),
        root_limits=_root_limits(_Reader(limits.content.get("root", {}), f"{limits.place}: root")),
    )


def _root_limits(reader: _Reader) -> RootLimits:
    numbers = {field.name: reader.number(field.name, field.default) for field in fields(RootLimits)}
    for name in reader.content:
        if name not in numbers:
            raise RobotError(f"{reader.place}: {name!r} is unknown. Known: {', '.join(numbers)}.")
    if min(numbers.values()) <= 0:
        raise RobotError(f"{reader.place}: limits must be positive.")
    return RootLimits(**numbers)


def _orientation(part: _Reader, model: RobotModel) -> OrientationRule:
    rpy = part.array("rotation", (3,)) if "rotation" in part.content else np.zeros(3)
    return OrientationRule(
        human=part.human_joint(part.take("human", str)),
        link=model.link_index(part.take("link", str)),
        weight=part.number("weight"),
        rotation=_frozen(rotation_from_rpy(*rpy)),
    )


def _limb(part: _Reader, model: RobotModel) -> LimbRule:
    human, links = part.take("human", list), part.take("links", list)
    if len(human) != 3 or len(links) != 3:
        raise RobotError(f"{part.place} has {len(human)} human joints and {len(links)} links, expected 3 of each.")
    weights = _Reader(part.take("weights", dict), f"{part.place}.weights")
    return LimbRule(
        human=tuple(part.human_joint(name) for name in human),
        links=tuple(model.link_index(name) for name in links),
        upper=weights.number("upper"),
        lower=weights.number("lower"),
        reach=weights.number("reach"),
    )


def _foot(part: _Reader, limb_names: list[str]) -> FootRule:
    limb = part.take("limb", str)
    if limb not in limb_names:
        raise RobotError(f"{part.place}: limb {limb!r} is not among the limbs: {', '.join(limb_names)}.")
    return FootRule(
        limb=limb_names.index(limb),
        toe=part.human_joint(part.take("toe", str)),
        weight=part.number("weight"),
        sole=_frozen(part.array("sole", (None, 3))),
    )


def _posture(reader: _Reader, key: str, model: RobotModel, lower: FloatArray, upper: FloatArray) -> FloatArray:
    posture = np.zeros(model.joint_count)
    for name, value in (reader.content.get(key) or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise RobotError(f"{reader.place}: {key}.{name} is {value!r}, expected an angle in radians.")
        posture[model.joint_index(name)] = value
    return _frozen(np.clip(posture, lower, upper))


def _frozen(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array
