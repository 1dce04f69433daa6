"""Retargeter: human motion on smpl22 to configurations of a robot, chunk by chunk.

For each frame the robot's pelvis, chest, hands and feet turn like the human's, its limb segments point where the human's
do, and its hands and feet reach the human's vectors scaled to its limbs. A foot that stands keeps its place, and the
lowest sole touches the floor when the human's lowest foot does. The result is kinematic: it says nothing of balance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import to_ros_world
from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_quaternion_xyzw, slerp_matrices
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX, forward_kinematics
from llamo_ros.retarget.feet import ContactEstimator, FootContacts
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.solver import Goals, PostureSolver

FloatArray = NDArray[np.float64]

# Frames solved together. They start from the same first guess, so more would be a worse guess, and fewer slower.
_BLOCK = 4
_PELVIS = JOINT_INDEX["pelvis"]
_FREE_REACH = 0.02  # share of a leg's reach that is kept while its foot stands


@dataclass(frozen=True)
class RobotMotion:
    """Configurations of a robot over time, in the ROS world (x forward, y left, z up).

    Attributes:
        joint_names: The J joints.
        joint_positions: Shape (T, J), [rad].
        root_positions: Root link in the world, shape (T, 3), [m].
        root_quaternions: Orientation of the root link in the world, shape (T, 4), xyzw; signs are continuous.
        contacts: 1 while a foot stands, 0 while it swings, shape (T, F), feet in the profile's order.
        frame_rate: Frames per second, [Hz].
    """

    joint_names: tuple[str, ...]
    joint_positions: FloatArray
    root_positions: FloatArray
    root_quaternions: FloatArray
    contacts: FloatArray
    frame_rate: float

    def __post_init__(self) -> None:
        for array in (self.joint_positions, self.root_positions, self.root_quaternions, self.contacts):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.joint_positions)


class Retargeter:
    """Retargets a stream of human motion to one robot.

    Chunks continue one another: the last posture is the next first guess, and a standing foot stays where it is. The
    result of a stream does not depend on where it was cut, as long as chunks are multiples of 4 frames.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self._solver = PostureSolver(robot.model, robot.lower, robot.upper, robot.neutral, robot.neutral_weight)
        self._contacts = ContactEstimator()
        self._orientation_links = np.array(
            [rule.link for rule in robot.orientations] + [robot.limbs[foot.limb].links[2] for foot in robot.feet]
        )
        # Vectors: upper segment, lower segment and reach of each limb, then root to foot of each foot.
        links = np.array([limb.links for limb in robot.limbs])
        feet = [robot.limbs[foot.limb].links[2] for foot in robot.feet]
        self._starts = np.concatenate([links[:, 0], links[:, 1], links[:, 0], np.zeros(len(feet), dtype=int)])
        self._ends = np.concatenate([links[:, 1], links[:, 2], links[:, 2], np.array(feet, dtype=int)])
        places = robot.model.link_poses(robot.neutral[None]).positions[0]
        self._segments = np.linalg.norm(places[links[:, 1:]] - places[links[:, :2]], axis=-1)  # (limbs, 2), [m]
        self._human_limbs = np.array([limb.human for limb in robot.limbs])
        self._legs = np.array([foot.limb for foot in robot.feet], dtype=int)
        self.reset()

    def reset(self) -> None:
        """Forget the past, as before a motion that does not continue the last one."""
        self._contacts.reset()
        self._q = self.robot.neutral.copy()
        self._scales: FloatArray | None = None
        self._foot_offsets: FloatArray | None = None
        self._quaternion = np.array([0.0, 0.0, 0.0, 1.0])

    def retarget(self, clip: MotionClip) -> RobotMotion:
        """Retarget the next frames of the stream.

        Args:
            clip: Human motion, T frames; its first frame follows the last frame of the chunk before.

        Returns:
            T configurations, inside the joint limits minus the profile's margin.
        """
        return self.retarget_joints(*forward_kinematics(clip.rotations, clip.root_positions), clip.frame_rate)

    def retarget_joints(
        self, joint_positions: FloatArray, joint_rotations: FloatArray, frame_rate: float
    ) -> RobotMotion:
        """Retarget frames of a human of other proportions, from what was measured; see :meth:`retarget`.

        Args:
            joint_positions: smpl22 joints in the core's world (y up), shape (T, 22, 3), [m].
            joint_rotations: Rotations of the joints in that world, identity in the T-pose, shape (T, 22, 3, 3).
            frame_rate: Frames per second, [Hz].

        Raises:
            ShapeError: an array has another shape.
            MotionDataError: a value is NaN or infinite.
            ParameterError: ``frame_rate`` is not positive.
        """
        _check(joint_positions, joint_rotations, frame_rate)
        positions, rotations = to_ros_world(joint_positions, joint_rotations)
        if self._scales is None and len(positions):
            self._scales = self._segments.sum(axis=1) / _limb_lengths(positions[0], self._human_limbs)
        blocks = [
            self._retarget_block(positions[first : first + _BLOCK], rotations[first : first + _BLOCK], frame_rate)
            for first in range(0, len(positions), _BLOCK)
        ]
        widths = (self.robot.model.joint_count, 3, 4, len(self.robot.feet))
        empty = [np.empty((0, width)) for width in widths]
        q, root_positions, root_quaternions, contacts = (
            np.concatenate(parts) for parts in zip(empty, *blocks, strict=True)
        )
        return RobotMotion(self.robot.joint_names, q, root_positions, root_quaternions, contacts, float(frame_rate))

    def _retarget_block(
        self, positions: FloatArray, rotations: FloatArray, frame_rate: float
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        ankles, toes = positions[:, self._human_limbs[self._legs, 2]], positions[:, [f.toe for f in self.robot.feet]]
        scale = self._scales[self._legs].mean() if len(self._legs) else self._scales.mean()
        from_root = scale * (ankles - positions[:, [_PELVIS]])
        if len(self._legs):
            contacts = self._contacts.update(ankles, toes, frame_rate)
        else:
            contacts = FootContacts(*np.zeros((2, len(positions), 0)), np.zeros(len(positions)))
        first_guess = rotations[:, _PELVIS]
        if self._foot_offsets is None:  # where the feet go by the legs alone tells how far from the human's they stand
            free = FootContacts(0.0 * contacts.weights[:1], contacts.flatness[:1], contacts.clearances[:1])
            goals = self._goals(positions[:1], rotations[:1], from_root[:1], free)
            root, q = self._solver.solve(goals, first_guess[:1], self._q[None])
            self._q = q[0]
            self._foot_offsets = self._feet_from_root(root, q)[0] - from_root[0]
        goals = self._goals(positions, rotations, from_root + self._foot_offsets, contacts)
        root, q = self._solver.solve(goals, first_guess, np.tile(self._q, (len(positions), 1)))
        feet = self._feet_from_root(root, q)
        root_positions = scale * positions[:, _PELVIS]
        if len(self._legs):
            slip = (feet - from_root - self._foot_offsets) * contacts.weights[..., None]
            slip = slip.sum(axis=1) / np.maximum(contacts.weights.sum(axis=1), 1.0)[:, None]
            root_positions[:, :2] -= slip[:, :2]
            root_positions[:, 2] = scale * contacts.clearances - self._lowest_sole(root, q)
            held = contacts.weights[-1, :, None]
            self._foot_offsets = held * self._foot_offsets + (1.0 - held) * (feet[-1] - from_root[-1])
        self._q = q[-1]
        return q, root_positions, self._continued(matrix_to_quaternion_xyzw(root)), contacts.weights

    def _goals(
        self, positions: FloatArray, rotations: FloatArray, feet_from_root: FloatArray, contacts: FootContacts
    ) -> Goals:
        """Goals of T frames; ``feet_from_root`` (T, F, 3), [m], is where a standing foot is to be."""
        robot, count = self.robot, len(positions)
        human = positions[:, self._human_limbs]  # (T, limbs, 3 joints, 3)
        segments = np.diff(human, axis=2)
        directions = segments / np.linalg.norm(segments, axis=-1, keepdims=True)
        reach = (human[:, :, 2] - human[:, :, 0]) * self._scales[:, None]
        reach_weights = np.tile([limb.reach for limb in robot.limbs], (count, 1))
        stance_weights = reach_weights[:, self._legs] * contacts.weights
        reach_weights[:, self._legs] *= 1.0 - (1.0 - _FREE_REACH) * contacts.weights
        segment_weights = np.tile([[limb.upper for limb in robot.limbs], [limb.lower for limb in robot.limbs]], (count, 1, 1))
        lengths = self._segments.sum(axis=1)
        orientations = [rotations[:, rule.human] @ rule.rotation for rule in robot.orientations]
        orientations += [
            _levelled(rotations[:, self._human_limbs[foot.limb, 2]], contacts.flatness[:, i])
            for i, foot in enumerate(robot.feet)
        ]
        orientation_weights = [rule.weight for rule in robot.orientations] + [foot.weight for foot in robot.feet]
        return Goals(
            orientation_links=self._orientation_links,
            orientations=np.stack(orientations, axis=1),
            orientation_weights=np.tile(orientation_weights, (count, 1)),
            starts=self._starts,
            ends=self._ends,
            vectors=np.concatenate(
                [
                    directions[:, :, 0] * self._segments[:, :1],
                    directions[:, :, 1] * self._segments[:, 1:],
                    reach,
                    feet_from_root,
                ],
                axis=1,
            ),
            lengths=np.concatenate([self._segments[:, 0], self._segments[:, 1], lengths, lengths[self._legs]]),
            vector_weights=np.concatenate([segment_weights.reshape(count, -1), reach_weights, stance_weights], axis=1),
        )

    def _feet_from_root(self, root: FloatArray, q: FloatArray) -> FloatArray:
        """Foot links relative to the root link, in world axes, shape (T, F, 3), [m]."""
        feet = [self.robot.limbs[foot.limb].links[2] for foot in self.robot.feet]
        return self.robot.model.link_poses(q).positions[:, feet] @ np.swapaxes(root, -1, -2)

    def _lowest_sole(self, root: FloatArray, q: FloatArray) -> FloatArray:
        """Height of the lowest corner of a sole above the root link, shape (T,), [m]."""
        poses = self.robot.model.link_poses(q)
        heights = []
        for foot in self.robot.feet:
            link = self.robot.limbs[foot.limb].links[2]
            corners = poses.positions[:, None, link] + foot.sole @ np.swapaxes(poses.rotations[:, link], -1, -2)
            heights.append((corners @ root[:, 2, :, None])[..., 0])
        return np.concatenate(heights, axis=1).min(axis=1)

    def _continued(self, quaternions: FloatArray) -> FloatArray:
        """The same orientations with signs such that neighbours lie on the same side, across chunks too."""
        dots = (np.concatenate([self._quaternion[None], quaternions[:-1]]) * quaternions).sum(axis=1)
        quaternions = quaternions * np.cumprod(np.where(dots < 0, -1.0, 1.0))[:, None]
        self._quaternion = quaternions[-1]
        return quaternions


def _levelled(rotations: FloatArray, fraction: FloatArray) -> FloatArray:
    """Turn foot orientations (T, 3, 3) towards the level one of the same heading, by ``fraction`` (T,) of the way."""
    heading = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    level = axis_angle_to_matrix(heading[:, None] * np.array([0.0, 0.0, 1.0]))
    return slerp_matrices(rotations, level, fraction)


def _limb_lengths(positions: FloatArray, limbs: NDArray[np.int64]) -> FloatArray:
    """Lengths of human limbs, shape (limbs,), [m], of one frame of joints (22, 3)."""
    return np.maximum(np.linalg.norm(np.diff(positions[limbs], axis=1), axis=-1).sum(axis=1), 1e-3)


def _check(joint_positions: FloatArray, joint_rotations: FloatArray, frame_rate: float) -> None:
    count = len(joint_positions)
    if joint_positions.shape != (count, JOINT_COUNT, 3):
        raise ShapeError("joint_positions", joint_positions.shape, "(T, 22, 3)", "The smpl22 skeleton has 22 joints.")
    if joint_rotations.shape != (count, JOINT_COUNT, 3, 3):
        raise ShapeError("joint_rotations", joint_rotations.shape, f"({count}, 22, 3, 3)")
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise ParameterError(f"frame_rate is {frame_rate}, expected a positive number of frames per second.")
    if not (np.isfinite(joint_positions).all() and np.isfinite(joint_rotations).all()):
        raise MotionDataError("human joints hold NaN or infinite values; repair or drop those frames first.")
