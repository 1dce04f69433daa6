"""What is drawn: a person or a robot as simple shapes on moving links, in the ROS world (x forward, y left, z up)."""

# T frames, L links

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import to_ros_world
from llamo_ros.motion.rotations import quaternion_xyzw_to_matrix
from llamo_ros.motion.skeleton import JOINT_INDEX, OFFSETS, forward_kinematics
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.retarget.robot import RobotModel, rotation_from_rpy

FloatArray = NDArray[np.floating]
Colour = tuple[float, float, float]

LEFT: Colour = (0.93, 0.47, 0.20)
RIGHT: Colour = (0.16, 0.47, 0.80)
TRUNK: Colour = (0.70, 0.72, 0.76)
SKIN: Colour = (0.86, 0.80, 0.74)
DARK: Colour = (0.20, 0.22, 0.26)
ROBOT: Colour = (0.78, 0.80, 0.83)

HUMAN_HEIGHT = 1.72
ROD_RADIUS = 0.03


@dataclass(frozen=True)
class Part:
    """A shape fixed to a link.

    Attributes:
        kind: ``capsule`` (a rod with round ends), ``cylinder`` or ``box``; the long axis of the first two is z.
        link: Index of the link that carries it.
        rotation: Orientation in the link, shape (3, 3).
        centre: Middle of the shape in the link, shape (3,), [m].
        size: Capsule: radius at its -z end, radius at its +z end, distance of the two ends. Cylinder: radius, radius,
            length. Box: its three edges. [m].
        colour: Red, green, blue, 0 to 1.
    """

    kind: Literal["capsule", "cylinder", "box"]
    link: int
    rotation: FloatArray
    centre: FloatArray
    size: tuple[float, float, float]
    colour: Colour


@dataclass(frozen=True)
class Body:
    """Something that moves and can be drawn.

    Attributes:
        parts: Its shapes.
        positions: Link origins in the world, shape (T, L, 3), [m].
        rotations: Link orientations in the world, shape (T, L, 3, 3).
        frame_rate: Frames per second, [Hz].
        height: How tall it stands, [m].
        hands: Links whose way through the air is drawn, each with its colour.
    """

    parts: tuple[Part, ...]
    positions: FloatArray
    rotations: FloatArray
    frame_rate: float
    height: float
    hands: tuple[tuple[int, Colour], ...]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def top(self) -> float:
        """Height of the highest point of any shape in any frame, [m]; boxes count as a ball around them."""
        tops = []
        for part in self.parts:
            rotations = self.rotations[:, part.link]
            centres = self.positions[:, part.link, 2] + rotations[:, 2] @ part.centre
            rise = np.abs(rotations[:, 2] @ part.rotation[:, 2]) * 0.5 * part.size[2]
            tops.append(centres + rise + max(part.size[:2]) * (0.5 if part.kind == "box" else 1.0))
        return float(np.max(tops))

    @property
    def heading(self) -> float:
        """Direction the root link faces in the first frame, about z, [rad]."""
        forward = self.rotations[0, 0, :, 0]
        return float(np.arctan2(forward[1], forward[0]))

    def frame_at(self, time_s: float) -> int:
        """Index of the frame nearest to a time, [s]; the last frame from there on."""
        return int(np.clip(round(time_s * self.frame_rate), 0, len(self) - 1))


def human_body(clip: MotionClip) -> Body:
    """A mannequin that performs the clip: left limbs orange, right limbs blue.

    Raises:
        MotionDataError: the clip has no frame.
    """
    if len(clip) == 0:
        raise MotionDataError("the clip has no frame, so there is nothing to draw.")
    positions, rotations = to_ros_world(*forward_kinematics(clip.rotations, clip.root_positions))
    hands = ((JOINT_INDEX["left_wrist"], LEFT), (JOINT_INDEX["right_wrist"], RIGHT))
    return Body(_human_parts(), positions, rotations, clip.frame_rate, HUMAN_HEIGHT, hands)


def robot_body(motion: RobotMotion, robot: Robot) -> Body:
    """A robot that performs its motion, with the simple shapes of its URDF.

    Meshes are not drawn. A robot whose URDF has no simple shape is drawn as rods from link to link.

    Raises:
        MotionDataError: the motion has no frame.
        ParameterError: the motion is not of this robot.
    """
    if len(motion) == 0:
        raise MotionDataError("the robot motion has no frame, so there is nothing to draw.")
    if tuple(motion.joint_names) != robot.joint_names:
        raise ParameterError(
            f"the robot motion has joints {', '.join(motion.joint_names[:3])}, ..., but {robot.name} has "
            f"{', '.join(robot.joint_names[:3])}, ...; give the robot that it was retargeted to."
        )
    poses = robot.model.link_poses(motion.joint_positions)
    root = quaternion_xyzw_to_matrix(motion.root_quaternions)[:, None]
    positions = motion.root_positions[:, None] + (root @ poses.positions[..., None])[..., 0]
    parts = _urdf_parts(robot) or _rods(robot.model)
    legs = {foot.limb for foot in robot.feet}
    ends = [limb.links[2] for number, limb in enumerate(robot.limbs) if number not in legs]
    standing = robot.model.link_poses(robot.standing[None]).positions[0, :, 2]
    hands = tuple((link, (0.45, 0.47, 0.52)) for link in ends)
    return Body(parts, positions, root @ poses.rotations, motion.frame_rate, float(np.ptp(standing)) + 0.15, hands)


def _capsule(link: int, start: FloatArray, end: FloatArray, radii: tuple[float, float], colour: Colour) -> Part:
    axis = np.asarray(end, dtype=np.float64) - start
    length = float(np.linalg.norm(axis))
    z = axis / length
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z], axis=1)
    return Part("capsule", link, rotation, np.asarray(start) + 0.5 * axis, (*radii, length), colour)


def _human_parts() -> tuple[Part, ...]:
    """Shapes of the mannequin; points are written in the core's axes (y up, facing +z, left +x) from the joint, [m]."""
    parts = []

    def add(joint: str, start: tuple, end: tuple | str, radii: tuple[float, float], colour: Colour) -> None:
        stop = OFFSETS[JOINT_INDEX[end]] if isinstance(end, str) else np.array(end)
        ends = to_ros_world(np.stack([np.array(start, dtype=np.float64), stop]))[0]
        parts.append(_capsule(JOINT_INDEX[joint], ends[0], ends[1], radii, colour))

    add("pelvis", (0.07, -0.04, -0.01), (-0.07, -0.04, -0.01), (0.1, 0.1), DARK)
    add("neck", (0.0, -0.04, 0.0), "head", (0.055, 0.05), SKIN)
    add("head", (0.0, 0.03, 0.0), (0.0, 0.12, 0.01), (0.08, 0.095), SKIN)
    add("head", (0.04, 0.09, 0.075), (-0.04, 0.09, 0.075), (0.033, 0.033), DARK)
    for side, sign, colour in (("left", 1.0, LEFT), ("right", -1.0, RIGHT)):
        add("spine1", (0.045 * sign, -0.03, 0.01), (0.05 * sign, 0.13, 0.0), (0.09, 0.1), TRUNK)
        add("spine2", (0.05 * sign, 0.0, 0.0), (0.065 * sign, 0.08, 0.0), (0.1, 0.103), TRUNK)
        add("spine3", (0.065 * sign, 0.03, -0.02), (0.09 * sign, 0.12, -0.03), (0.103, 0.085), TRUNK)
        add(f"{side}_collar", (0.0, 0.0, 0.0), f"{side}_shoulder", (0.06, 0.062), TRUNK)
        add(f"{side}_shoulder", (0.0, 0.0, 0.0), f"{side}_elbow", (0.058, 0.045), colour)
        add(f"{side}_elbow", (0.0, 0.0, 0.0), f"{side}_wrist", (0.045, 0.033), colour)
        add(f"{side}_wrist", (0.03 * sign, 0.0, 0.0), (0.11 * sign, -0.01, 0.0), (0.042, 0.034), SKIN)
        add(f"{side}_hip", (0.0, 0.0, 0.0), f"{side}_knee", (0.092, 0.06), colour)
        add(f"{side}_knee", (0.0, 0.0, 0.0), f"{side}_ankle", (0.06, 0.042), colour)
        add(f"{side}_ankle", (0.0, -0.045, -0.04), f"{side}_foot", (0.042, 0.04), DARK)
        add(f"{side}_foot", (0.0, 0.0, 0.0), (0.0, 0.0, 0.07), (0.04, 0.03), DARK)
    return tuple(parts)


def _rods(model: RobotModel) -> tuple[Part, ...]:
    rods = []
    for link in range(1, len(model.link_names)):
        end = model.origins[link, :3, 3]
        if np.linalg.norm(end) > 1e-3:
            rods.append(_capsule(int(model.parents[link]), np.zeros(3), end, (ROD_RADIUS, ROD_RADIUS), ROBOT))
    return tuple(rods)


def _urdf_parts(robot: Robot) -> tuple[Part, ...]:
    root = ElementTree.fromstring(robot.description)  # already parsed once, so it is known to be well formed
    colours = {m.get("name", ""): c for m in root.findall("material") if (c := _colour(m)) is not None}
    parts = []
    for link in root.findall("link"):
        if link.get("name") not in robot.model.link_names:
            continue
        index = robot.model.link_index(link.get("name", ""))
        for visual in link.findall("visual"):
            shape = _shape(visual.find("geometry"))
            if shape is None:
                continue
            material = visual.find("material")
            colour = ROBOT
            if material is not None:
                colour = _colour(material) or colours.get(material.get("name", ""), ROBOT)
            origin = visual.find("origin")
            attributes = {} if origin is None else origin.attrib
            rotation = rotation_from_rpy(*_floats(attributes.get("rpy", "0 0 0")))
            parts.append(
                Part(shape[0], index, rotation, np.array(_floats(attributes.get("xyz", "0 0 0"))), shape[1], colour)
            )
    return tuple(parts)


def _shape(geometry: ElementTree.Element | None) -> tuple[str, tuple[float, float, float]] | None:
    """Kind and size of a URDF geometry; None for a mesh."""
    if geometry is None:
        return None
    if (box := geometry.find("box")) is not None:
        return "box", tuple(_floats(box.get("size", "0 0 0")))
    if (cylinder := geometry.find("cylinder")) is not None:
        radius = float(cylinder.get("radius", 0))
        return "cylinder", (radius, radius, float(cylinder.get("length", 0)))
    if (sphere := geometry.find("sphere")) is not None:
        radius = float(sphere.get("radius", 0))
        return "capsule", (radius, radius, 0.0)
    return None


def _colour(material: ElementTree.Element) -> Colour | None:
    colour = material.find("color")
    return None if colour is None else tuple(_floats(colour.get("rgba", "0.8 0.8 0.8 1"))[:3])


def _floats(text: str) -> list[float]:
    return [float(word) for word in text.split()]
