"""A first profile for a humanoid that nobody wrote one for: from its URDF alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX
from llamo_ros.retarget.anatomy import Anatomy, Chain, find_anatomy
from llamo_ros.retarget.capsules import capsule_distances
from llamo_ros.retarget.draft_shapes import ShapeDraft
from llamo_ros.retarget.profile import Robot, robot_of_profile
from llamo_ros.retarget.retargeter import Retargeter
from llamo_ros.retarget.robot import RobotModel, robot_from_urdf
from llamo_ros.retarget.shapes import body_solids

FloatArray = NDArray[np.float64]

_HUMAN = {"arm": ("shoulder", "elbow", "wrist"), "leg": ("hip", "knee", "ankle")}
_WEIGHTS = {
    "arm": {"upper": 0.5, "lower": 0.3, "reach": 2.0},
    "leg": {"upper": 0.2, "lower": 0.2, "reach": 4.0},
}
_VELOCITY_SCALE = 0.5
_FULL_SPEED_IN = 0.1  # [s]; from rest, by the largest acceleration
_ACCELERATIONS = (20.0, 150.0)  # [rad/s^2]
_CLEAR = 0.003  # [m]; capsules closer than this in a posture that is meant to be harmless are ignored as a pair


@dataclass(frozen=True)
class ProfileDraft:
    """A profile that was guessed.

    Attributes:
        content: The profile.
        notes: What is uncertain, in words.
        robot: The robot that it makes.
    """

    content: dict[str, Any]
    notes: tuple[str, ...]
    robot: Robot


def draft_profile(description: str, name: str, description_file: str | None = None) -> ProfileDraft:
    """Write a profile for a robot.

    Args:
        description: Text of its URDF.
        name: Name of the profile.
        description_file: Path of the URDF relative to where the profile will be, to be named in it.

    Raises:
        RobotError: the text is no URDF, or the robot has no two legs.
    """
    model = robot_from_urdf(description)
    solids = body_solids(model, description)
    anatomy = find_anatomy(model, solids)
    shapes = ShapeDraft(model, anatomy, solids)
    notes = list(anatomy.notes)
    points, limbs = {}, {}
    for limb in anatomy.limbs:
        links = [model.link_names[link] for link in (limb.start, limb.middle, limb.end)]
        if limb.end == limb.middle:
            links[2] = f"{limb.side}_hand_point"
            points[links[2]] = {"link": links[1], "at": shapes.hand_point(limb)}
        human = [f"{limb.side}_{joint}" for joint in _HUMAN[limb.kind]]
        limbs[f"{limb.side}_{limb.kind}"] = {"human": human, "links": links, "weights": dict(_WEIGHTS[limb.kind])}
    legs = [limb for limb in anatomy.limbs if limb.kind == "leg"]
    soles = {leg.side: shapes.sole(leg) for leg in legs}
    content: dict[str, Any] = {"name": name}
    if description_file is not None:
        content["description"] = description_file
    if points:
        content["points"] = points
    content |= {
        "orientations": _orientations(model, anatomy),
        "limbs": limbs,
        "feet": {leg.side: _foot(model, anatomy, leg, soles[leg.side]) for leg in legs},
        "collision": {"capsules": shapes.capsules(soles), "ignore": []},
        "limits": _limits(model),
    }
    notes += shapes.notes
    posture = _standing_posture(robot_of_profile(content, description), anatomy)
    content |= {"neutral": posture, "neutral_weight": 0.001, "standing": dict(posture)}
    touching = _touching(robot_of_profile(content, description))
    content["collision"]["ignore"] = touching
    notes += [f"{a} and {b} overlap while standing and are not checked: correct their sizes" for a, b in touching]
    return ProfileDraft(content, tuple(notes), robot_of_profile(content, description))


def _orientations(model: RobotModel, anatomy: Anatomy) -> dict[str, dict[str, Any]]:
    """Pelvis, chest, head and hands, each as it stands at zero."""
    rules = {"pelvis": _rule(model, anatomy, "pelvis", anatomy.pelvis, 1.0)}
    if anatomy.chest != anatomy.pelvis:
        between = np.abs(model.turned_by[anatomy.chest] - model.turned_by[anatomy.pelvis]).sum()
        rules["chest"] = _rule(model, anatomy, "spine3", anatomy.chest, 1.0 if between > 2 else 0.3)
    if anatomy.head is not None:
        rules["head"] = _rule(model, anatomy, "head", anatomy.head, 0.02)
    for limb in anatomy.limbs:
        after_elbow = len(limb.bodies) - limb.bodies.index(limb.middle) - 1
        if limb.kind == "arm" and after_elbow:
            rotation = _hand_rotation(model, anatomy, limb)
            rules[f"{limb.side}_hand"] = {
                "human": f"{limb.side}_wrist",
                "link": model.link_names[limb.end],
                "weight": 0.01,
                "rotation": _rpy(rotation),
            }
    return rules


def _rule(model: RobotModel, anatomy: Anatomy, human: str, link: int, weight: float) -> dict[str, Any]:
    zero = model.link_poses(np.zeros((1, model.joint_count))).rotations[0, link]
    rule = {"human": human, "link": model.link_names[link], "weight": weight}
    rotation = anatomy.facing @ zero
    return rule if np.allclose(rotation, np.eye(3), atol=1e-6) else rule | {"rotation": _rpy(rotation)}


def _hand_rotation(model: RobotModel, anatomy: Anatomy, arm: Chain) -> FloatArray:
    """Orientation of a hand link in the frame of the human wrist: palm down in the T-pose.

    Where the robot's palm faces is not in a URDF. It is taken to face inwards where the forearm hangs or points ahead
    at zero, and down where it points sideways.
    """
    zero = model.link_poses(np.zeros((1, model.joint_count)))
    side = 1.0 if arm.side == "left" else -1.0
    to_link = zero.rotations[0, arm.end].T @ anatomy.facing.T
    forearm = zero.positions[0, arm.end] - zero.positions[0, arm.middle]
    sideways = abs(anatomy.facing[1] @ forearm) > 0.7 * np.linalg.norm(forearm)
    forearm = _snapped(zero.rotations[0, arm.end].T @ forearm)
    palm = to_link @ (np.array([0.0, 0.0, -1.0]) if sideways else np.array([0.0, -side, 0.0]))
    palm = _snapped(palm - (palm @ forearm) * forearm)
    link = np.stack([forearm, palm, np.cross(forearm, palm)], axis=1)
    human = np.stack([[0.0, side, 0.0], [0.0, 0.0, -1.0], [-side, 0.0, 0.0]], axis=1)
    return human @ link.T


def _snapped(vector: FloatArray) -> FloatArray:
    """The direction of a vector, or the axis of its frame that is within 15 degrees of it: links follow their axes."""
    direction = vector / np.linalg.norm(vector)
    largest = int(np.abs(direction).argmax())
    axis = np.zeros(3)
    axis[largest] = np.sign(direction[largest])
    return axis if direction @ axis > np.cos(np.radians(15.0)) else direction


def _foot(model: RobotModel, anatomy: Anatomy, leg: Chain, sole: list[list[float]]) -> dict[str, Any]:
    zero = model.link_poses(np.zeros((1, model.joint_count))).rotations[0, leg.end]
    rotation = anatomy.facing @ zero
    foot = {"limb": f"{leg.side}_leg", "toe": f"{leg.side}_foot", "weight": 1.0, "sole": sole}
    return foot if np.allclose(rotation, np.eye(3), atol=1e-6) else foot | {"rotation": _rpy(rotation)}


def _limits(model: RobotModel) -> dict[str, Any]:
    """Speeds from the URDF; accelerations that reach them within a tenth of a second, within what robots do."""
    wanted = np.clip(model.velocity_limits * _VELOCITY_SCALE / _FULL_SPEED_IN, *_ACCELERATIONS)
    common = float(np.median(wanted))
    others = {
        name: round(float(value), 0)
        for name, value in zip(model.joint_names, wanted, strict=True)
        if abs(value - common) > 0.2 * common
    }
    return {
        "position_margin": 0.02,
        "velocity_scale": _VELOCITY_SCALE,
        "acceleration": round(common, 0),
        **({"accelerations": others} if others else {}),
    }


def standing_clip(frames: int = 4) -> MotionClip:
    """A human that stands at ease: knees and elbows a little bent, arms a little away from the body."""
    turns = np.zeros((frames, JOINT_COUNT, 3))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        turns[:, JOINT_INDEX[f"{side}_hip"], 0] = -0.25
        turns[:, JOINT_INDEX[f"{side}_knee"], 0] = 0.5
        turns[:, JOINT_INDEX[f"{side}_ankle"], 0] = -0.25
        turns[:, JOINT_INDEX[f"{side}_shoulder"], 2] = -1.25 * sign
        turns[:, JOINT_INDEX[f"{side}_elbow"], 1] = -0.4 * sign
    return MotionClip(axis_angle_to_matrix(turns), np.tile([0.0, 0.92, 0.0], (frames, 1)), 30.0, "a person stands")


def _standing_posture(robot: Robot, anatomy: Anatomy) -> dict[str, float]:
    """The robot's joints when it stands like the human, [rad]; joints that stay at zero are left out."""
    retargeter, clip = Retargeter(robot), standing_clip()
    for _ in range(6):  # each chunk starts from the one before, which brings a robot out of a far zero
        q = retargeter.retarget(clip).joint_positions[-1]
    q = _symmetric(robot.model, anatomy, q)
    return {
        name: round(float(value), 3) for name, value in zip(robot.joint_names, q, strict=True) if abs(value) > 0.005
    }


def _symmetric(model: RobotModel, anatomy: Anatomy, q: FloatArray) -> FloatArray:
    """The posture made the same on both sides; joints of the trunk, head and hands go to zero.

    The human skeleton is not symmetric to the millimetre, and robots should stand straight.
    """
    axes, _ = model.joint_axes(model.link_poses(np.zeros((1, model.joint_count))))
    axes = axes[0] @ anatomy.facing.T
    result = np.zeros_like(q)
    for kind in ("arm", "leg"):
        bodies = [limb.bodies for limb in anatomy.limbs if limb.kind == kind]
        for left, right in zip(*bodies, strict=False) if bodies else ():
            i, j = model.link_joints[left], model.link_joints[right]
            sign = 1.0 if (axes[i] * [-1.0, 1.0, -1.0]) @ axes[j] > 0 else -1.0  # a mirror turns a rotation's sense
            result[i] = 0.5 * (q[i] + sign * q[j])
            result[j] = sign * result[i]
    return result


def _touching(robot: Robot) -> list[list[str]]:
    poses = robot.model.link_poses(np.stack([robot.neutral, robot.standing]))
    distances = capsule_distances(robot.capsules, robot.capsule_pairs, poses).min(axis=0)
    return [
        [robot.capsules[a].name, robot.capsules[b].name]
        for (a, b), distance in zip(robot.capsule_pairs, distances, strict=True)
        if distance < _CLEAR
    ]


def _rpy(rotation: FloatArray) -> list[float]:
    """Roll, pitch, yaw of a rotation matrix, [rad]."""
    pitch = np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    if abs(np.cos(pitch)) < 1e-6:  # roll and yaw turn about one axis: all of it is roll
        roll, yaw = np.arctan2(-rotation[1, 2], rotation[1, 1]), 0.0
    else:
        roll, yaw = np.arctan2(rotation[2, 1], rotation[2, 2]), np.arctan2(rotation[1, 0], rotation[0, 0])
    return [round(float(angle), 7) + 0.0 for angle in (roll, pitch, yaw)]
