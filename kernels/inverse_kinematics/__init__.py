"""Inverse kinematics of a tree of links: damped Gauss-Newton within box limits, frame by frame.

For each frame it minimises, over the root orientation R and the joint positions q inside [lower, upper],

    sum_o w_o |log(R_o_target R_o(q)^T)|^2  +  sum_p w_p |v_p_target - v_p(q)|^2 / l_p^2  +  w_n |q - q_neutral|^2
    +  w_c sum_c max(0, clearance - d_c(q))^2  +  sum_j w_j (q_j - q_j before)^2

where v_p is the vector between two link origins and d_c the distance between two capsules, at an end of one of them or
where they cross. Everything is independent of where the root stands, so its position is no unknown here. Each frame
starts from the one before.

    solver = InverseKinematics(tree, limits, goals, capsules)  # once: checks and copies the robot
    postures = solver.solve(root_rotations, q, orientations, orientation_weights, vectors, vector_weights)
"""

# T frames, L links, J joints, O orientations, P vectors, C capsules, K pairs of them

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.kernels.backends import choose_backend, compiled_kernels
from llamo_ros.kernels.inverse_kinematics import reference

__all__ = ["CapsuleSet", "GoalLinks", "InverseKinematics", "JointLimits", "KinematicTree", "Postures", "Settings"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_WEIGHTS = ("orientation_weights", "vector_weights", "smoothness")


class KinematicTree(Protocol):
    """A robot; parents come before children. :class:`llamo_ros.retarget.robot.RobotModel` is one."""

    parents: IndexArray  # (L,), -1 for the root, link 0
    link_joints: IndexArray  # (L,), the joint that carries each link, -1 where it is fixed
    origins: FloatArray  # (L, 4, 4), pose of each link in its parent at zero, [m]
    axes: FloatArray  # (L, 3), unit length, in the link's frame
    is_prismatic: NDArray[np.bool_]  # (L,)


@dataclass(frozen=True)
class JointLimits:
    """Where joints may be, and where they are drawn to.

    Attributes:
        lower: Shape (J,), [rad] or [m].
        upper: Shape (J,), [rad] or [m].
        neutral: Posture for what the goals leave free, shape (J,).
        neutral_weight: Its weight, [1/rad^2].
    """

    lower: FloatArray
    upper: FloatArray
    neutral: FloatArray
    neutral_weight: float


@dataclass(frozen=True)
class GoalLinks:
    """Which links the goals are about.

    Attributes:
        turned: Links with a wanted orientation, shape (O,).
        starts: Link where each vector starts, shape (P,).
        ends: Link where each vector ends, shape (P,).
        lengths: What a vector's error is measured by, shape (P,), [m].
    """

    turned: IndexArray
    starts: IndexArray
    ends: IndexArray
    lengths: FloatArray


def _no_indices(*shape: int) -> Any:
    return field(default_factory=lambda: np.zeros(shape, dtype=np.int64))


@dataclass(frozen=True)
class CapsuleSet:
    """Bodies that must keep a distance; the default is none.

    Attributes:
        links: Link that carries each capsule, shape (C,).
        starts: One end of its axis in the link's frame, shape (C, 3), [m].
        ends: The other end, shape (C, 3), [m].
        radii: Shape (C,), [m].
        pairs: Indices of capsules that are kept apart, shape (K, 2).
        clearance: Distance between surfaces below which a pair is pushed apart, [m].
        weight: Of a missing metre of it, squared, [1/m^2].
        reach: Distance beyond the clearance from which on a step cannot bring two of them together, [m].
    """

    links: IndexArray = _no_indices(0)
    starts: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    ends: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    radii: FloatArray = field(default_factory=lambda: np.zeros(0))
    pairs: IndexArray = _no_indices(0, 2)
    clearance: float = 0.01
    weight: float = 0.0
    reach: float = 0.1


@dataclass(frozen=True)
class Settings:
    """How the minimum is looked for.

    Attributes:
        iterations: Steps at most.
        converged: A largest step from which on a frame is done, [rad]: 1e-3 is 0.06 degrees.
        largest_step: Beyond it the linearisation means little, [rad].
        damping: Keeps the normal matrix regular where a limb is straight and its twist free.
    """

    iterations: int = 24
    converged: float = 1e-3
    largest_step: float = 0.4
    damping: float = 1e-4


class Postures(NamedTuple):
    """What was found for T frames; every array is fresh.

    Attributes:
        root_rotations: Of the root link in the world, shape (T, 3, 3).
        joint_positions: Inside the limits, shape (T, J), [rad] or [m].
        link_positions: Link origins in the root link's frame, shape (T, L, 3), [m].
        link_rotations: Shape (T, L, 3, 3).
        steps: Steps that each frame took, shape (T,).
    """

    root_rotations: FloatArray
    joint_positions: FloatArray
    link_positions: FloatArray
    link_rotations: FloatArray
    steps: IndexArray


class InverseKinematics:
    """Solves for one robot and one choice of goals. Keeps no state: safe to call from several threads at once.

    Attributes:
        backend: "reference" or "cpu", what "auto" became.
        joint_count: J.
    """

    def __init__(
        self,
        tree: KinematicTree,
        limits: JointLimits,
        goals: GoalLinks,
        capsules: CapsuleSet = CapsuleSet(),
        settings: Settings = Settings(),
        *,
        backend: str = "auto",
    ) -> None:
        """Check and copy the robot.

        Args:
            tree: Its links.
            limits: Of its joints.
            goals: What it is asked for.
            capsules: What must not touch.
            settings: How the minimum is looked for.
            backend: "auto" (the compiled kernel), "reference" (NumPy) or "cpu" (compiled, one thread).

        Raises:
            ShapeError: arrays do not fit together.
            ParameterError: a value is not finite, a link or capsule does not exist, or limits contradict one another.
            BackendError: there is no such backend, or the kernels are not built.
        """
        self.joint_count = len(limits.lower)
        self._links = len(tree.parents)
        self._goals = goals
        tree_arrays = [
            _ints("parents", tree.parents, (self._links,), -1, self._links),
            _ints("link_joints", tree.link_joints, (self._links,), -1, self.joint_count),
            _floats("origins", tree.origins, (self._links, 4, 4)),
            _floats("axes", tree.axes, (self._links, 3)),
            _ints("is_prismatic", tree.is_prismatic, (self._links,), 0, 2),
        ]
        joints = [_floats(name, getattr(limits, name), (self.joint_count,)) for name in ("lower", "upper", "neutral")]
        vectors, capsule_count = len(goals.starts), len(capsules.links)
        goal_arrays = [
            _ints("turned", goals.turned, (len(goals.turned),), 0, self._links),
            _ints("starts", goals.starts, (vectors,), 0, self._links),
            _ints("ends", goals.ends, (vectors,), 0, self._links),
            _floats("lengths", goals.lengths, (vectors,)),
        ]
        bodies = np.concatenate(
            [
                _floats("capsule starts", capsules.starts, (capsule_count, 3)),
                _floats("capsule ends", capsules.ends, (capsule_count, 3)),
                _floats("radii", capsules.radii, (capsule_count,))[:, None],
            ],
            axis=1,
        )
        capsule_arrays = [
            _ints("capsule links", capsules.links, (capsule_count,), 0, self._links),
            bodies,
            _ints("pairs", capsules.pairs, (len(capsules.pairs), 2), 0, capsule_count),
        ]
        self._check_values(tree_arrays, joints, limits, goal_arrays, capsules, settings)
        self.backend = choose_backend(backend, None)
        numbers = [settings.damping, settings.largest_step, settings.converged, settings.iterations]
        self._lower, self._upper, neutral = joints
        arguments = [*tree_arrays, neutral, limits.neutral_weight, *goal_arrays, *capsule_arrays]
        arguments += [capsules.clearance, capsules.weight, capsules.reach, *numbers]
        if self.backend == "cpu":
            self._kernels = compiled_kernels("inverse_kinematics")
            self._solver = self._kernels.InverseKinematicsSolver(*arguments)
        else:
            self._kernels, self._solver = None, reference.Solver(*arguments)

    def solve(
        self,
        root_rotations: ArrayLike,
        q: ArrayLike,
        orientations: ArrayLike,
        orientation_weights: ArrayLike,
        vectors: ArrayLike,
        vector_weights: ArrayLike,
        smoothness: ArrayLike,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
    ) -> Postures:
        """Improve a first guess until each frame rests.

        Args:
            root_rotations: First guess of the root orientation in the world, shape (T, 3, 3).
            q: Joint positions of the frame before the first, also its first guess, shape (J,), [rad] or [m].
            orientations: Wanted orientations in the world, shape (T, O, 3, 3).
            orientation_weights: Shape (T, O), [1/rad^2]; 0 leaves one out.
            vectors: Wanted vectors in the world, shape (T, P, 3), [m].
            vector_weights: Shape (T, P); 0 leaves one out.
            smoothness: Weight w_j of each joint's staying where it was the frame before, shape (T, J), [1/rad^2].
            lower: Limits of these frames, shape (J,), where they are narrower than the robot's.
            upper: Likewise; not below `lower`.

        Raises:
            ShapeError: an array has another shape.
            MotionDataError: a value is NaN or infinite, or a weight negative.
        """
        frames, turned, count = len(np.asarray(root_rotations)), len(self._goals.turned), len(self._goals.starts)
        shapes = {
            "root_rotations": (root_rotations, (frames, 3, 3)),
            "q": (q, (self.joint_count,)),
            "orientations": (orientations, (frames, turned, 3, 3)),
            "orientation_weights": (orientation_weights, (frames, turned)),
            "vectors": (vectors, (frames, count, 3)),
            "vector_weights": (vector_weights, (frames, count)),
            "smoothness": (smoothness, (frames, self.joint_count)),
        }
        arrays = []
        for name, (value, shape) in shapes.items():
            array = np.asarray(value, dtype=np.float64, order="C")
            if array.shape != shape:
                raise ShapeError(name, array.shape, str(shape))
            if not np.isfinite(array).all() or (name in _WEIGHTS and (array < 0).any()):
                raise MotionDataError(f"{name} holds NaN, infinite or negative weights; the frames are rejected.")
            arrays.append(array)
        arrays += self._narrower(lower, upper)
        if self._kernels is not None:
            return Postures(*self._kernels.inverse_kinematics(self._solver, *arrays))
        return Postures(*self._solver.solve(*arrays))

    def _narrower(self, lower: ArrayLike | None, upper: ArrayLike | None) -> list[FloatArray]:
        """The robot's limits, narrowed."""
        limits = [self._lower, self._upper]
        for n, (name, value) in enumerate({"lower": lower, "upper": upper}.items()):
            if value is None:
                continue
            array = np.asarray(value, dtype=np.float64)
            if array.shape != (self.joint_count,):
                raise ShapeError(name, array.shape, f"({self.joint_count},)")
            limits[n] = np.clip(array, self._lower, self._upper)  # NaN stays
        if not (limits[0] <= limits[1]).all():
            raise MotionDataError("lower is above upper, or one of them NaN; the frames are rejected.")
        return limits

    @staticmethod
    def _check_values(
        tree: list[Any],
        joints: list[FloatArray],
        limits: JointLimits,
        goals: list[Any],
        capsules: CapsuleSet,
        settings: Settings,
    ) -> None:
        parents, carried = tree[0], tree[1]
        if list(parents[:1]) != [-1] or any(not 0 <= parent < i for i, parent in enumerate(parents[1:], start=1)):
            raise ParameterError("parents must be -1 for link 0 and come before their children.")
        if sorted(carried[carried >= 0]) != list(range(len(joints[0]))):
            raise ParameterError("link_joints must name each joint once.")
        if (joints[0] > joints[1]).any():
            raise ParameterError("a joint's lower limit is above its upper one.")
        if (goals[3] <= 0).any():
            raise ParameterError("lengths must be positive.")
        if (capsules.radii < 0).any():
            raise ParameterError("radii must not be negative.")
        numbers = {"neutral_weight": limits.neutral_weight, "clearance": capsules.clearance, "weight": capsules.weight}
        numbers["reach"] = capsules.reach
        numbers |= {item.name: getattr(settings, item.name) for item in fields(settings)}
        for name, value in numbers.items():
            if not np.isfinite(value) or value < 0:
                raise ParameterError(f"{name} is {value}, expected a number that is not negative.")
        if settings.damping <= 0 or settings.largest_step <= 0:
            raise ParameterError("damping and largest_step must be positive.")


def _floats(name: str, values: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = np.array(values, dtype=np.float64, order="C")
    if array.shape != shape:
        raise ShapeError(name, array.shape, str(shape))
    if not np.isfinite(array).all():
        raise ParameterError(f"{name} holds NaN or infinite values.")
    return array


def _ints(name: str, values: ArrayLike, shape: tuple[int, ...], low: int, end: int) -> IndexArray:
    array = np.array(values)
    if array.shape != shape:
        raise ShapeError(name, array.shape, str(shape))
    if array.size and (array.dtype.kind not in "iub" or array.min() < low or array.max() >= end):
        raise ParameterError(f"{name} holds {array.min()} to {array.max()}, expected whole numbers {low} to {end - 1}.")
    return np.ascontiguousarray(array, dtype=np.int64)
