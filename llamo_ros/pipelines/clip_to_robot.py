"""A whole clip of human motion in, what a robot is to do out; for files. Streams go through MotionToRobot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import to_ros_world
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.retarget.body_part import BodyPart, restricted, standing_place
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion, joined
from llamo_ros.retarget.root_path import RootCounts, RootPath
from llamo_ros.retarget.touching import TouchCounter
from llamo_ros.retarget.trajectory import ShaperCounts, TrajectoryShaper

FloatArray = NDArray[np.float64]

_CHUNK = 240  # frames between two reports of progress; a multiple of 4, so that the result does not depend on it
_STANDING = 0.99  # contact weight from which a foot counts as standing in :attr:`RobotClip.slip_cm_s`


@dataclass(frozen=True)
class RobotClip:
    """A clip that was retargeted, and how well.

    Attributes:
        motion: What the robot is to do, at 30 FPS.
        counts: What the joints' limits changed; all zero where they were not asked for.
        root_counts: The same of the root's.
        touches: Frames in which links are in one another.
        hand_error_cm: Mean distance of the hands from the human's vectors, scaled to the robot's arms, [cm]; NaN where
            they do not follow.
        foot_error_cm: The same of the feet and legs, [cm].
        slip_cm_s: Mean horizontal speed of the soles that stand, [cm/s].
    """

    motion: RobotMotion
    counts: ShaperCounts
    root_counts: RootCounts
    touches: TouchCounter
    hand_error_cm: float
    foot_error_cm: float
    slip_cm_s: float


def clip_to_robot(
    robot: Robot,
    clip: MotionClip,
    limited: bool = True,
    progress: Callable[[int], None] | None = None,
    part: BodyPart = BodyPart.WHOLE,
    has_fixed_base: bool = False,
) -> RobotClip:
    """Retarget a clip from its first frame to its last.

    Args:
        robot: The robot.
        clip: Human motion at any frame rate; it is resampled to 30 FPS.
        limited: Whether joints and root keep the velocity, acceleration and jerk limits of the robot's profile. A joint
            that the human asks too much of then falls behind and catches up; the root follows from the feet that stand.
            Position limits always hold.
        progress: Told how many frames are done, every 8 seconds of motion.
        part: What follows the human; the other joints hold the standing posture.
        has_fixed_base: Whether the root is bolted down: it then stays where the clip begins.

    Raises:
        MotionDataError: the clip is empty, or cannot be retargeted.
    """
    if not len(clip):
        raise MotionDataError("the motion has no frames; there is nothing to retarget.")
    clip = clip.resampled(FRAME_RATE)
    retargeter, shaper = Retargeter(robot), TrajectoryShaper(robot, FRAME_RATE, blend_s=0.0)
    root, place, motions = RootPath(robot, FRAME_RATE, has_fixed_base), None, []
    for first in range(0, len(clip), _CHUNK):
        motion = retargeter.retarget(clip.sliced(first, first + _CHUNK))
        if place is None:
            place = standing_place(robot, motion.root_positions[0], motion.root_quaternions[0])
            bolted = motion.root_positions[:1], motion.root_quaternions[:1]
        motion = restricted(robot, motion, part, place)
        if limited:
            motion = _within_limits(motion, shaper, root)
        elif has_fixed_base:
            positions, quaternions = (np.repeat(array, len(motion), axis=0) for array in bolted)
            motion = replace(motion, root_positions=positions, root_quaternions=quaternions)
        motions.append(motion)
        if progress is not None:
            progress(min(first + _CHUNK, len(clip)))
    result = _scored(robot, clip, joined(motions), shaper.counts, root.counts)
    unmoved = {BodyPart.UPPER: {"foot_error_cm": float("nan")}, BodyPart.LEGS: {"hand_error_cm": float("nan")}}
    return replace(result, **unmoved.get(part, {}))


def _within_limits(motion: RobotMotion, shaper: TrajectoryShaper, root: RootPath) -> RobotMotion:
    joints = shaper.push(motion.joint_positions)
    positions, quaternions = root.follow(motion, joints)
    return replace(motion, joint_positions=joints, root_positions=positions, root_quaternions=quaternions)


def _scored(
    robot: Robot, clip: MotionClip, motion: RobotMotion, counts: ShaperCounts, root_counts: RootCounts
) -> RobotClip:
    touches = TouchCounter(robot)
    touches.look(motion.joint_positions)
    human, _ = to_ros_world(clip.joint_positions())
    scores = score_motion(robot, motion, human, motion.contacts > _STANDING, first=0)
    legs = {foot.limb for foot in robot.feet}
    errors: dict[bool, list[float]] = {True: [], False: []}
    for limb in range(len(robot.limbs)):
        errors[limb in legs].append(scores[f"reach_{limb}_cm"])
    hand, foot = (float(np.mean(errors[is_leg])) if errors[is_leg] else float("nan") for is_leg in (False, True))
    return RobotClip(motion, counts, root_counts, touches, hand, foot, scores["slip_cm_s"])
