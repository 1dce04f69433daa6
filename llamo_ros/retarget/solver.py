"""Inverse kinematics for several frames at once: damped Gauss-Newton within box limits.

For each frame it minimises, over the root orientation R and the joint positions q inside [lower, upper],

    sum_o w_o |log(R_o_target R_o(q)^T)|^2  +  sum_p w_p |v_p_target - v_p(q)|^2 / l_p^2  +  w_n |q - q_neutral|^2

where v_p is the vector between two link origins. Everything is independent of where the root stands, so its position is
no unknown here. T frames, O orientations, P vectors, J joints; frames share no unknowns and are batched for speed only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from llamo_ros.retarget.robot import RobotModel, cross

FloatArray = NDArray[np.float64]

_MAX_ITERATIONS = 24
_CONVERGED = 1e-3  # largest step, [rad]: 0.06 degrees
_LARGEST_STEP = 0.4  # [rad]; beyond it the linearisation means little
_DAMPING = 1e-4  # keeps the normal matrix regular where a limb is straight and its twist free


@dataclass(frozen=True)
class Goals:
    """What T frames of a robot should look like.

    Attributes:
        orientation_links: Links, shape (O,).
        orientations: Wanted orientations in the world, shape (T, O, 3, 3).
        orientation_weights: Shape (T, O), [1/rad^2].
        starts: Link where each vector starts, shape (P,).
        ends: Link where each vector ends, shape (P,).
        vectors: Wanted vectors in the world, shape (T, P, 3), [m].
        lengths: What a vector's error is measured by, shape (P,), [m].
        vector_weights: Shape (T, P).
    """

    orientation_links: NDArray[np.int64]
    orientations: FloatArray
    orientation_weights: FloatArray
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    vectors: FloatArray
    lengths: FloatArray
    vector_weights: FloatArray


@dataclass(frozen=True)
class PostureSolver:
    """Solves :class:`Goals` for a robot.

    Attributes:
        model: Kinematic tree.
        lower: Position limits, shape (J,), [rad].
        upper: Position limits, shape (J,), [rad].
        neutral: Posture for what the goals leave free, shape (J,), [rad].
        neutral_weight: Its weight, [1/rad^2].
    """

    model: RobotModel
    lower: FloatArray
    upper: FloatArray
    neutral: FloatArray
    neutral_weight: float

    def solve(self, goals: Goals, root_rotations: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Improve a first guess until no frame moves any more.

        Args:
            goals: What is wanted.
            root_rotations: First guess of the root orientation in the world, shape (T, 3, 3).
            q: First guess of the joint positions, shape (T, J), [rad].

        Returns:
            Root orientations (T, 3, 3) and joint positions (T, J), inside the limits.
        """
        root_rotations, q = root_rotations.copy(), np.clip(q, self.lower, self.upper)
        for _ in range(_MAX_ITERATIONS):
            normal, gradient = self._normal_equations(goals, root_rotations, q)
            pushed_out = ((q <= self.lower) & (gradient[:, 3:] < 0)) | ((q >= self.upper) & (gradient[:, 3:] > 0))
            free = np.concatenate([np.ones((len(q), 3)), ~pushed_out], axis=1)
            normal = normal * (free[:, :, None] * free[:, None, :])
            diagonal = np.einsum("tii->ti", normal)
            diagonal += np.where(free > 0, _DAMPING, 1.0)
            step = np.linalg.solve(normal, (gradient * free)[..., None])[..., 0]
            largest = np.abs(step).max(axis=1, keepdims=True)
            step *= np.minimum(1.0, _LARGEST_STEP / np.maximum(largest, _LARGEST_STEP))
            root_rotations = root_rotations @ axis_angle_to_matrix(step[:, :3])
            q = np.clip(q + step[:, 3:], self.lower, self.upper)
            if largest.max(initial=0.0) < _CONVERGED:
                break
        return root_rotations, q

    def _normal_equations(
        self, goals: Goals, root_rotations: FloatArray, q: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """``A^T W A`` (T, 3 + J, 3 + J) and ``A^T W residual`` (T, 3 + J); unknowns: root turn in its frame, joints."""
        model, count = self.model, len(q)
        poses = model.link_poses(q)
        axes, points = model.joint_axes(poses)
        to_root = np.swapaxes(root_rotations, -1, -2)[:, None]

        links = goals.orientation_links
        error = to_root @ goals.orientations @ np.swapaxes(poses.rotations[:, links], -1, -2)
        turn_error = matrix_to_axis_angle(error)
        turn_columns = np.empty((count, len(links), 3 + model.joint_count, 3))
        turn_columns[:, :, :3] = np.eye(3)
        turn_columns[:, :, 3:] = axes[:, None] * model.turned_by[links][..., None]

        used, (start, end) = _endpoints(goals)
        place = poses.positions[:, used]
        motion = model.origin_motion(poses, used, axes, points)
        vectors = place[:, end] - place[:, start]
        vector_error = (to_root @ goals.vectors[..., None])[..., 0] - vectors
        vector_columns = np.empty((count, len(start), 3 + model.joint_count, 3))
        vector_columns[:, :, :3] = cross(np.eye(3), vectors[:, :, None])
        vector_columns[:, :, 3:] = motion[:, end] - motion[:, start]

        turn_scale = np.sqrt(goals.orientation_weights)[..., None]
        vector_scale = (np.sqrt(goals.vector_weights) / goals.lengths)[..., None]
        residual = np.concatenate([turn_error * turn_scale, vector_error * vector_scale], axis=1).reshape(count, -1)
        columns = np.concatenate(
            [turn_columns * turn_scale[..., None], vector_columns * vector_scale[..., None]], axis=1
        )
        columns = np.swapaxes(columns, 1, 2).reshape(count, 3 + model.joint_count, -1)
        normal = columns @ np.swapaxes(columns, -1, -2)
        gradient = (columns @ residual[..., None])[..., 0]
        joints = np.arange(3, 3 + model.joint_count)
        normal[:, joints, joints] += self.neutral_weight
        gradient[:, 3:] += self.neutral_weight * (self.neutral - q)
        return normal, gradient


def _endpoints(goals: Goals) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The links used as ends of vectors, each once, and where in them the starts and the ends are."""
    used, slots = np.unique(np.concatenate([goals.starts, goals.ends]), return_inverse=True)
    return used, (slots[: len(goals.starts)], slots[len(goals.starts) :])
