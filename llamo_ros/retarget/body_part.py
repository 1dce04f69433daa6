"""Partial bodies: which joints follow the human, and what the rest does meanwhile."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import ParameterError
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion

FloatArray = NDArray[np.float64]


class BodyPart(StrEnum):
    """What follows the human; the other joints hold the standing posture."""

    WHOLE = "whole"
    UPPER = "upper"  # all that does not move a foot; the robot stands on both feet
    LEGS = "legs"  # all that moves a foot


def body_part(name: str) -> BodyPart:
    """The part of that name.

    Raises:
        ParameterError: there is none; the message lists those there are.
    """
    try:
        return BodyPart(name)
    except ValueError as error:
        raise ParameterError(f"body part {name!r} is unknown. Known: {', '.join(BodyPart)}.") from error


def joints_of(robot: Robot, part: BodyPart) -> NDArray[np.bool_]:
    """Which joints belong to a part, shape (J,)."""
    links = [robot.limbs[foot.limb].links[2] for foot in robot.feet]
    moves_a_foot = robot.model.moved_by[links].any(axis=0)
    everything = np.ones(robot.model.joint_count, dtype=bool)
    return {BodyPart.WHOLE: everything, BodyPart.UPPER: ~moves_a_foot, BodyPart.LEGS: moves_a_foot}[BodyPart(part)]


def standing_place(robot: Robot, position: FloatArray, quaternion: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Root pose (3,), (4,) xyzw at the same place and heading, upright on the soles of the standing posture."""
    heading = 2.0 * np.arctan2(quaternion[2], quaternion[3])
    place = np.array(position, dtype=np.float64)
    if robot.feet:
        poses = robot.model.link_poses(robot.standing[None])
        soles = []
        for foot in robot.feet:
            link = robot.limbs[foot.limb].links[2]
            soles.append((poses.positions[0, link] + foot.sole @ poses.rotations[0, link].T)[:, 2].min())
        place[2] = -min(soles)
    return place, np.array([0.0, 0.0, np.sin(heading / 2), np.cos(heading / 2)])


def restricted(
    robot: Robot, motion: RobotMotion, part: BodyPart, place: tuple[FloatArray, FloatArray] | None = None
) -> RobotMotion:
    """A motion in which only a part follows the human.

    Args:
        robot: The robot.
        motion: Motion of the whole body.
        part: What follows.
        place: Root pose of a robot whose legs stand, from :func:`standing_place`; that of the first frame by default.
    """
    part = BodyPart(part)
    if part is BodyPart.WHOLE or not len(motion):
        return motion
    joints = np.where(joints_of(robot, part), motion.joint_positions, robot.standing)
    if part is BodyPart.LEGS:
        return replace(motion, joint_positions=joints)
    position, quaternion = place or standing_place(robot, motion.root_positions[0], motion.root_quaternions[0])
    return replace(
        motion,
        joint_positions=joints,
        root_positions=np.repeat(position[None], len(motion), axis=0),
        root_quaternions=np.repeat(quaternion[None], len(motion), axis=0),
        contacts=np.ones_like(motion.contacts),
    )
