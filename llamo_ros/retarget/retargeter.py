"""Retargeter: human motion on smpl22 to configurations of a robot, chunk by chunk.

For each frame the robot's pelvis, chest, hands and feet turn like the human's, its limb segments point where the
human's do, and its hands and feet reach the human's vectors scaled to its limbs. A foot that stands keeps its place,
and the lowest sole touches the floor when the human's lowest foot does. The result is kinematic: it says nothing of
balance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
_STANCE_WEIGHT = 100.0  # of the vector from one standing foot to another, as a fraction of the leg: feet do not slide
_SHORTEST_LIMB = 0.1  # [m]
_LEASH = 0.03  # [m]; how far standing feet may be apart from where the legs alone would have them, before they give way


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
        for name in ("joint_positions", "root_positions", "root_quaternions", "contacts"):
            array = np.array(getattr(self, name), dtype=np.float64)  # copies: never shares its caller's memory
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.joint_positions)

    def sliced(self, start: int, stop: int | None = None) -> RobotMotion:
        """Frames ``start`` to ``stop`` (not included) as a new motion."""
        names = ("joint_positions", "root_positions", "root_quaternions", "contacts")
        return replace(self, **{name: getattr(self, name)[start:stop] for name in names})


class Retargeter:
    """Retargets a stream of human motion to one robot.

    Chunks continue one another: the last posture is the next first guess, and a standing foot stays where it is. The
    result of a stream does not depend on where it was cut, as long as chunks are multiples of 4 frames.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self._solver = PostureSolver(robot.model, robot.lower, robot.upper, robot.neutral, robot.neutral_weight)
        self._contacts = ContactEstimator()
        # Vectors: upper segment, lower segment and reach of each limb, then from each foot to the next.
        links = np.array([limb.links for limb in robot.limbs])
        self._legs = np.array([foot.limb for foot in robot.feet], dtype=int)
        self._hip_links, self._foot_links = links[self._legs, 0], links[self._legs, 2]
        self._orientation_links = np.array([rule.link for rule in robot.orientations] + list(self._foot_links))
        self._starts = np.concatenate([links[:, 0], links[:, 1], links[:, 0], self._foot_links[:-1]])
        self._ends = np.concatenate([links[:, 1], links[:, 2], links[:, 2], self._foot_links[1:]])
        places = robot.model.link_poses(robot.neutral[None]).positions[0]
        self._segments = np.linalg.norm(places[links[:, 1:]] - places[links[:, :2]], axis=-1)  # (limbs, 2), [m]
        self._human_limbs = np.array([limb.human for limb in robot.limbs])
        self.reset()

    def reset(self) -> None:
        """Forget the past, as before a motion that does not continue the last one."""
        self._contacts.reset()
        self._q = self.robot.neutral.copy()
        self._scales: FloatArray | None = None
        self._anchors = np.zeros((len(self.robot.feet), 3))  # where the standing feet are in the world
        self._standing = np.zeros(len(self.robot.feet), dtype=bool)
        self._root_position: FloatArray | None = None
        self._human_root = np.zeros(3)
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
            self._scales = self._segments.sum(axis=1) / self._human_lengths(positions[0])
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
        scale = self._scales[self._legs].mean() if len(self._legs) else self._scales.mean()
        contacts = self._update_contacts(positions, frame_rate)
        human_root = scale * positions[:, _PELVIS]
        first_guess = rotations[:, _PELVIS], np.tile(self._q, (len(positions), 1))
        if self._root_position is None:
            self._root_position, self._human_root = human_root[0].copy(), human_root[0].copy()
        standing = contacts.planted
        landed = standing & ~np.concatenate([self._standing[None], standing[:-1]])
        if landed.any():  # a foot is anchored where it lands, and that has to be found first
            still = standing & ~landed.any(axis=0)
            root, q = self._solver.solve(self._goals(positions, rotations, contacts, still), *first_guess)
            first_guess = root, q
            feet = self._from_root(self._foot_links, root, q)
            places = self._root_path(human_root, feet, still)[:, None] + feet
            self._anchors = np.where(
                landed.any(axis=0)[:, None], places[landed.argmax(axis=0), range(len(self._legs))], self._anchors
            )
        root, q = self._solver.solve(self._goals(positions, rotations, contacts, standing), *first_guess)
        feet = self._from_root(self._foot_links, root, q)
        root_positions = self._root_path(human_root, feet, standing)
        hips = self._from_root(self._hip_links, root[-1:], q[-1:])[0]
        self._give_way(feet[-1] - hips - self._leg_vectors(positions[-1:])[0], standing[-1])
        self._q, self._root_position, self._human_root = q[-1], root_positions[-1].copy(), human_root[-1]
        self._standing = standing[-1]
        if len(self._legs):
            root_positions[:, 2] = scale * contacts.clearances - self._lowest_sole(root, q)
        return q, root_positions, self._continued(matrix_to_quaternion_xyzw(root)), contacts.weights

    def _update_contacts(self, positions: FloatArray, frame_rate: float) -> FootContacts:
        if not self.robot.feet:
            nothing = np.zeros((len(positions), 0))
            return FootContacts(nothing, nothing, nothing > 0, np.zeros(len(positions)))
        toes = positions[:, [foot.toe for foot in self.robot.feet]]
        return self._contacts.update(positions[:, self._human_limbs[self._legs, 2]], toes, frame_rate)

    def _root_path(self, human_root: FloatArray, feet: FloatArray, planted: NDArray[np.bool_]) -> FloatArray:
        """Root positions (T, 3) that keep planted feet on their anchors; without one, the root moves as the human's."""
        path = np.empty_like(human_root)
        steps = np.diff(human_root, axis=0, prepend=self._human_root[None])
        position = self._root_position
        for k, (step, standing) in enumerate(zip(steps, planted, strict=True)):
            position = (self._anchors - feet[k])[standing].mean(axis=0) if standing.any() else position + step
            path[k] = position
        return path

    def _leg_vectors(self, positions: FloatArray) -> FloatArray:
        """From hip to foot as the human's, scaled to the robot's legs, shape (T, F, 3), [m]."""
        legs = self._human_limbs[self._legs]
        return (positions[:, legs[:, 2]] - positions[:, legs[:, 0]]) * self._scales[self._legs][:, None]

    def _give_way(self, errors: FloatArray, planted: NDArray[np.bool_]) -> None:
        """Let standing feet follow where the legs pull them too far apart, as when a human turns on the spot.

        ``errors`` (F, 3), [m]: how far each foot is from where its leg alone would have it.
        """
        if planted.sum() > 1:
            apart = errors[planted] - errors[planted].mean(axis=0)
            distance = np.linalg.norm(apart[:, :2], axis=1, keepdims=True)
            self._anchors[planted, :2] -= apart[:, :2] * (1.0 - _LEASH / np.maximum(distance, _LEASH))

    def _human_lengths(self, positions: FloatArray) -> FloatArray:
        """Lengths of the human's limbs, shape (limbs,), [m], from one frame of joints (22, 3)."""
        lengths = np.linalg.norm(np.diff(positions[self._human_limbs], axis=1), axis=-1).sum(axis=1)
        if (lengths < _SHORTEST_LIMB).any():
            raise MotionDataError(
                f"the human's limbs are {lengths.round(3)} m long; joints are missing or not in metres."
            )
        return lengths

    def _goals(
        self, positions: FloatArray, rotations: FloatArray, contacts: FootContacts, planted: NDArray[np.bool_]
    ) -> Goals:
        """Goals of T frames; the feet that are ``planted`` (T, F) are held on their anchors."""
        robot, count = self.robot, len(positions)
        human = positions[:, self._human_limbs]  # (T, limbs, 3 joints, 3)
        segments = np.diff(human, axis=2)
        directions = segments / np.maximum(np.linalg.norm(segments, axis=-1, keepdims=True), 1e-9)
        reach = (human[:, :, 2] - human[:, :, 0]) * self._scales[:, None]
        reach_weights = np.tile([limb.reach for limb in robot.limbs], (count, 1))
        stride = np.tile(np.diff(self._anchors, axis=0), (count, 1, 1))
        level = contacts.level[:, 1:] * contacts.level[:, :-1]  # level soles on one floor are equally high
        stride[..., 2] = (1.0 - level) * np.diff(human[:, self._legs, 2, 2] * self._scales[self._legs], axis=1)
        segment_weights = np.tile(
            [limb.upper for limb in robot.limbs] + [limb.lower for limb in robot.limbs], (count, 1)
        )
        lengths = self._segments.sum(axis=1)
        orientations = [rotations[:, rule.human] @ rule.rotation for rule in robot.orientations]
        orientations += [
            _levelled(rotations[:, self._human_limbs[foot.limb, 2]], contacts.level[:, i])
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
                    stride,
                ],
                axis=1,
            ),
            lengths=np.concatenate([self._segments[:, 0], self._segments[:, 1], lengths, lengths[self._legs[1:]]]),
            vector_weights=np.concatenate(
                [segment_weights, reach_weights, _STANCE_WEIGHT * (planted[:, 1:] & planted[:, :-1])], axis=1
            ),
        )

    def _from_root(self, links: NDArray[np.int64], root: FloatArray, q: FloatArray) -> FloatArray:
        """Origins of K links relative to the root link, in world axes, shape (T, K, 3), [m]."""
        return self.robot.model.link_poses(q).positions[:, links] @ np.swapaxes(root, -1, -2)

    def _lowest_sole(self, root: FloatArray, q: FloatArray) -> FloatArray:
        """Height of the lowest corner of a sole above the root link, shape (T,), [m]."""
        poses = self.robot.model.link_poses(q)
        heights = []
        for foot, link in zip(self.robot.feet, self._foot_links, strict=True):
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
