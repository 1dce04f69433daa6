"""Retargeter: human motion on smpl22 to configurations of a robot, chunk by chunk.

For each frame the robot's pelvis, chest, hands and feet turn like the human's, its limb segments point where the
human's do, and its hands and feet reach the human's vectors scaled to its limbs. A foot that stands keeps its place,
and the lowest sole touches the floor when the human's lowest foot does. The result is kinematic: it says nothing of
balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.kernels.inverse_kinematics import CapsuleSet, GoalLinks, InverseKinematics, JointLimits
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import to_ros_world
from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_quaternion_xyzw, slerp_matrices
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX, forward_kinematics
from llamo_ros.retarget.feet import ContactEstimator, FootContacts
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.reachable import reachable_velocities

FloatArray = NDArray[np.float64]

_PER_FRAME = ("joint_positions", "root_positions", "root_quaternions", "contacts")  # of a RobotMotion
_PELVIS = JOINT_INDEX["pelvis"]
_STANCE_WEIGHT = 100.0  # of the vector from one standing foot to another, as a fraction of the leg: feet do not slide
# Of staying where the frame before is, [1/rad^2], for joints that carry a foot and for the others: takes the kink out
# of a foot that lands, and the snap out of a hand that comes around a thigh. Without it a walk has a quarter more jerk,
# and its feet follow 2 mm better.
_LEG_SMOOTHNESS, _SMOOTHNESS = 0.04, 0.13
_CLEARANCE = 0.02  # [m], between the surfaces of links that should not touch
# [1/m^2]; soft, so that a body is pushed aside before it touches rather than when it does: hard, the jerk doubles.
_CLEARANCE_WEIGHT = 2.0
_SHORTEST_LIMB = 0.1  # [m]
_FARTHEST = 1e4  # [m]; a human beyond is a unit or a number gone wrong
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
        return replace(self, **{name: getattr(self, name)[start:stop] for name in _PER_FRAME})


def joined(motions: Sequence[RobotMotion]) -> RobotMotion:
    """Chunks of one stream, at least one, as one motion."""
    arrays = {name: np.concatenate([getattr(motion, name) for motion in motions]) for name in _PER_FRAME}
    return replace(motions[0], **arrays)


@dataclass(frozen=True)
class _Goals:
    """What T frames should look like, as :meth:`InverseKinematics.solve` takes it."""

    root_rotations: FloatArray
    orientations: FloatArray
    orientation_weights: FloatArray
    vectors: FloatArray
    vector_weights: FloatArray

    def frame(self, t: int, q: FloatArray, smoothness: FloatArray) -> tuple[FloatArray, ...]:
        """Arguments for frame t alone, after the posture q (J,)."""
        one = slice(t, t + 1)
        return (
            self.root_rotations[one],
            q,
            self.orientations[one],
            self.orientation_weights[one],
            self.vectors[one],
            self.vector_weights[one],
            smoothness[None],
        )


class Retargeter:
    """Retargets a stream of human motion to one robot.

    Frames continue one another, across chunks too: each posture is the next first guess, and a standing foot stays
    where it is. The result of a stream does not depend on where it was cut.
    """

    def __init__(self, robot: Robot, backend: str = "auto") -> None:
        """Prepare for a robot.

        Args:
            robot: The robot.
            backend: Of the inverse kinematics: "auto" (the compiled kernel), "cpu" (that, or an error) or "reference".

        Raises:
            BackendError: there is no such backend, or the kernels are not built.
        """
        self.robot = robot
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
        moves_foot = robot.model.moved_by[self._foot_links].any(axis=0)
        self._smoothness = np.where(moves_foot, _LEG_SMOOTHNESS, _SMOOTHNESS)
        self._human_limbs = np.array([limb.human for limb in robot.limbs])
        lengths = self._segments.sum(axis=1)
        lengths = np.concatenate([self._segments[:, 0], self._segments[:, 1], lengths, lengths[self._legs[1:]]])
        self._solver = InverseKinematics(
            robot.model,
            JointLimits(robot.lower, robot.upper, robot.neutral, robot.neutral_weight),
            GoalLinks(self._orientation_links, self._starts, self._ends, lengths),
            _capsules(robot),
            backend=backend,
        )
        self.reset()

    @property
    def operation(self) -> InverseKinematics:
        """The inverse kinematics as kernels run it."""
        return self._solver

    def reset(self) -> None:
        """Forget the past, as before a motion that does not continue the last one."""
        self._contacts.reset()
        self._q = self.robot.neutral.copy()
        self._velocity: FloatArray | None = None  # of the last frame, [rad/s]
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
            MotionDataError: a value is NaN or infinite, or a joint is more than 10 km from the origin.
            ParameterError: ``frame_rate`` is not positive.
        """
        _check(joint_positions, joint_rotations, frame_rate)
        positions, rotations = to_ros_world(joint_positions, joint_rotations)
        if self._scales is None and len(positions):
            self._scales = self._segments.sum(axis=1) / self._human_lengths(positions[0])
        contacts = self._update_contacts(positions, frame_rate)
        return self._follow(positions, self._goals(positions, rotations, contacts), contacts, float(frame_rate))

    def _follow(self, positions: FloatArray, goals: _Goals, contacts: FootContacts, frame_rate: float) -> RobotMotion:
        """Frame after frame, since where a foot stands decides what the next frame has to keep."""
        count, scale = len(positions), self._leg_scale()
        human_root, leg_vectors = scale * positions[:, _PELVIS], self._leg_vectors(positions)
        q, root_positions = np.empty((count, self.robot.model.joint_count)), np.empty((count, 3))
        root_rotations = np.empty((count, 3, 3))
        for t in range(count):
            standing = contacts.planted[t]
            still = standing & self._standing
            self._keep_stance(goals, t, still)
            smoothness = self._smoothness * (self._root_position is not None)
            found = self._solver.solve(*goals.frame(t, self._q, smoothness), *self._reachable(frame_rate))
            root, links = found.root_rotations[0], found.link_positions[0]
            feet = links[self._foot_links] @ root.T
            if still.any():
                position = (self._anchors - feet)[still].mean(axis=0)
            elif self._root_position is None:
                position = human_root[t]
            else:
                position = self._root_position + human_root[t] - self._human_root
            landed = standing & ~still
            self._anchors[landed] = (position + feet)[landed]
            self._give_way(feet - links[self._hip_links] @ root.T - leg_vectors[t], still)
            self._velocity = None if self._root_position is None else (found.joint_positions[0] - self._q) * frame_rate
            self._q = found.joint_positions[0]
            self._root_position, self._human_root, self._standing = position.copy(), human_root[t], standing
            if len(self._legs):
                lowest = self._lowest_sole(root, links, found.link_rotations[0])
                position = np.array([*position[:2], scale * contacts.clearances[t] - lowest])
            q[t], root_positions[t], root_rotations[t] = self._q, position, root
        quaternions = self._continued(matrix_to_quaternion_xyzw(root_rotations))
        return RobotMotion(self.robot.joint_names, q, root_positions, quaternions, contacts.weights, frame_rate)

    def _reachable(self, frame_rate: float) -> tuple[FloatArray, FloatArray]:
        """Limits of the next frame: where velocity and acceleration limits let a joint be that can still brake."""
        robot = self.robot
        if self._velocity is None:
            return robot.lower, robot.upper
        low, high = reachable_velocities(
            self._q, self._velocity, robot.velocity_limits, robot.acceleration_limits, (robot.lower, robot.upper),
            frame_rate,
        )  # fmt: skip
        return self._q + low / frame_rate, self._q + high / frame_rate

    def _update_contacts(self, positions: FloatArray, frame_rate: float) -> FootContacts:
        if not self.robot.feet or not len(positions):
            nothing = np.zeros((len(positions), len(self.robot.feet)))
            return FootContacts(nothing, nothing, nothing > 0, np.zeros(len(positions)))
        toes = positions[:, [foot.toe for foot in self.robot.feet]]
        return self._contacts.update(positions[:, self._human_limbs[self._legs, 2]], toes, frame_rate)

    def _leg_scale(self) -> float:
        if self._scales is None:  # no frame has come yet
            return 1.0
        return float(self._scales[self._legs].mean() if len(self._legs) else self._scales.mean())

    def _leg_vectors(self, positions: FloatArray) -> FloatArray:
        """From hip to foot as the human's, scaled to the robot's legs, shape (T, F, 3), [m]."""
        legs = self._human_limbs[self._legs]
        if self._scales is None:
            return np.zeros((len(positions), len(legs), 3))
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

    def _goals(self, positions: FloatArray, rotations: FloatArray, contacts: FootContacts) -> _Goals:
        """Goals of T frames, with the feet free; :meth:`_keep_stance` adds those that stand."""
        robot, count = self.robot, len(positions)
        human = positions[:, self._human_limbs]  # (T, limbs, 3 joints, 3)
        segments = np.diff(human, axis=2)
        directions = segments / np.maximum(np.linalg.norm(segments, axis=-1, keepdims=True), 1e-9)
        scales = np.ones(len(robot.limbs)) if self._scales is None else self._scales
        reach = (human[:, :, 2] - human[:, :, 0]) * scales[:, None]
        level = contacts.level[:, 1:] * contacts.level[:, :-1]  # level soles on one floor are equally high
        strides = np.zeros((count, max(len(robot.feet) - 1, 0), 3))
        strides[..., 2] = (1.0 - level) * np.diff(human[:, self._legs, 2, 2] * scales[self._legs], axis=1)
        orientations = [rotations[:, rule.human] @ rule.rotation for rule in robot.orientations]
        orientations += [
            _levelled(rotations[:, self._human_limbs[foot.limb, 2]], contacts.level[:, i]) @ foot.rotation
            for i, foot in enumerate(robot.feet)
        ]
        weights = [limb.upper for limb in robot.limbs] + [limb.lower for limb in robot.limbs]
        weights += [limb.reach for limb in robot.limbs] + [0.0] * strides.shape[1]
        upper, lower = directions[:, :, 0] * self._segments[:, :1], directions[:, :, 1] * self._segments[:, 1:]
        orientation_weights = [rule.weight for rule in robot.orientations] + [foot.weight for foot in robot.feet]
        return _Goals(
            root_rotations=rotations[:, _PELVIS] @ self.robot.root_facing,
            orientations=np.stack(orientations, axis=1),
            orientation_weights=np.tile(orientation_weights, (count, 1)),
            vectors=np.concatenate([upper, lower, reach, strides], axis=1),
            vector_weights=np.tile(weights, (count, 1)),
        )

    def _keep_stance(self, goals: _Goals, t: int, still: NDArray[np.bool_]) -> None:
        """Ask frame t to keep the vector between two feet that stood before and still do."""
        first = goals.vectors.shape[1] - max(len(still) - 1, 0)
        goals.vectors[t, first:, :2] = np.diff(self._anchors[:, :2], axis=0)
        goals.vector_weights[t, first:] = _STANCE_WEIGHT * (still[1:] & still[:-1])

    def _lowest_sole(self, root: FloatArray, positions: FloatArray, rotations: FloatArray) -> float:
        """Height of the lowest corner of a sole above the root link, [m], from the poses of all links."""
        return min(
            float(((positions[link] + foot.sole @ rotations[link].T) @ root[2]).min())
            for foot, link in zip(self.robot.feet, self._foot_links, strict=True)
        )

    def _continued(self, quaternions: FloatArray) -> FloatArray:
        """The same orientations with signs such that neighbours lie on the same side, across chunks too."""
        if not len(quaternions):
            return quaternions
        dots = (np.concatenate([self._quaternion[None], quaternions[:-1]]) * quaternions).sum(axis=1)
        quaternions = quaternions * np.cumprod(np.where(dots < 0, -1.0, 1.0))[:, None]
        self._quaternion = quaternions[-1]
        return quaternions


def _capsules(robot: Robot) -> CapsuleSet:
    if not robot.capsules:
        return CapsuleSet()
    return CapsuleSet(
        links=np.array([capsule.link for capsule in robot.capsules], dtype=np.int64),
        starts=np.array([capsule.start for capsule in robot.capsules]),
        ends=np.array([capsule.end for capsule in robot.capsules]),
        radii=np.array([capsule.radius for capsule in robot.capsules]),
        pairs=robot.capsule_pairs,
        clearance=_CLEARANCE,
        weight=_CLEARANCE_WEIGHT,
    )


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
    farthest = float(np.abs(joint_positions).max(initial=0.0))
    if farthest > _FARTHEST:
        raise MotionDataError(
            f"a human joint is {farthest:.3g} m from the origin, more than {_FARTHEST / 1000:.0f} km. Check the units."
        )
