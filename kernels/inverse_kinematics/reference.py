"""The definition of inverse kinematics in NumPy, one frame and one row after the other; see the package's docstring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_SHORT = 1e-12  # [m^2]; segments of less are points
_ROUNDS = 4  # of finding out which contacts matter


class Solver:
    """A robot and what its postures are asked for; arguments as the compiled kernel takes them, shapes checked."""

    def __init__(
        self,
        parents: IndexArray,
        link_joints: IndexArray,
        origins: FloatArray,
        axes: FloatArray,
        slides: IndexArray,
        neutral: FloatArray,
        neutral_weight: float,
        turned: IndexArray,
        starts: IndexArray,
        ends: IndexArray,
        lengths: FloatArray,
        capsule_links: IndexArray,
        capsules: FloatArray,
        pairs: IndexArray,
        clearance: float,
        clearance_weight: float,
        reach: float,
        damping: float,
        largest_step: float,
        converged: float,
        iterations: int,
    ) -> None:
        self.parents, self.link_joints, self.origins, self.axes, self.slides = (
            parents,
            link_joints,
            origins,
            axes,
            slides.astype(bool),
        )
        self.neutral, self.neutral_weight = neutral, neutral_weight
        self.turned, self.starts, self.ends, self.lengths = turned, starts, ends, lengths
        self.capsule_links, self.capsules, self.pairs = capsule_links, capsules, pairs
        self.clearance, self.clearance_weight, self.reach = clearance, clearance_weight, reach
        self.damping, self.largest_step, self.converged, self.iterations = damping, largest_step, converged, iterations
        self.moves = np.zeros((len(parents), len(neutral)), dtype=bool)  # whether a joint moves a link
        for link in range(1, len(parents)):
            self.moves[link] = self.moves[parents[link]]
            if link_joints[link] >= 0:
                self.moves[link, link_joints[link]] = True
        self.joint_slides = np.zeros(len(neutral), dtype=bool)
        self.joint_slides[link_joints[link_joints >= 0]] = self.slides[link_joints >= 0]

    def solve(
        self,
        root_rotations: FloatArray,
        q: FloatArray,
        orientations: FloatArray,
        orientation_weights: FloatArray,
        vectors: FloatArray,
        vector_weights: FloatArray,
        smoothness: FloatArray,
        lower: FloatArray,
        upper: FloatArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, IndexArray]:
        """Root rotations, joint positions, link positions, link rotations and steps of all frames."""
        links, joints, frames = len(self.parents), len(self.neutral), len(root_rotations)
        roots, postures, steps = np.empty((frames, 3, 3)), np.empty((frames, joints)), np.empty(frames, dtype=np.int64)
        positions, rotations = np.empty((frames, links, 3)), np.empty((frames, links, 3, 3))
        goals = zip(orientations, orientation_weights, vectors, vector_weights, smoothness, strict=True)
        for t, goal in enumerate(goals):
            roots[t], q, steps[t] = self._solve_frame(root_rotations[t], q, (*goal, q), (lower, upper))
            postures[t] = q
            positions[t], rotations[t], _, _ = self._link_poses(q)
        return roots, postures, positions, rotations, steps

    def _solve_frame(
        self, root: FloatArray, q: FloatArray, goal: tuple[FloatArray, ...], limits: tuple[FloatArray, FloatArray]
    ) -> tuple[FloatArray, FloatArray, int]:
        q, steps, rests = np.clip(q, *limits), 0, False
        while steps < self.iterations and not rests:
            steps += 1
            columns, errors, weights = (np.concatenate(parts) for parts in zip(*self._rows(root, q, goal), strict=True))
            contacts, missing = self._contacts(q)
            is_active = missing > 0
            for _ in range(_ROUNDS):  # which contacts matter is known once the step is
                rows = np.vstack([columns, contacts[is_active]])
                wanted = np.concatenate([errors, missing[is_active]])
                pull = np.concatenate([weights, np.full(is_active.sum(), self.clearance_weight)])
                step = self._step(q, limits, (rows, wanted, pull))
                was_active, is_active = is_active, missing - contacts @ step > 0
                if (was_active == is_active).all():
                    break
            largest = np.abs(step).max()
            step = step * min(1.0, self.largest_step / max(largest, self.largest_step))
            root = root @ Rotation.from_rotvec(step[:3]).as_matrix()
            q = np.clip(q + step[3:], *limits)
            rests = largest < self.converged
        return root, q, steps

    def _step(
        self, q: FloatArray, limits: tuple[FloatArray, FloatArray], terms: tuple[FloatArray, FloatArray, FloatArray]
    ) -> FloatArray:
        """The step to the minimum of a linearisation; joints that are pushed against their limits take no part."""
        (lower, upper), (columns, errors, weights) = limits, terms
        normal = columns.T @ (weights[:, None] * columns)
        gradient = columns.T @ (weights * errors)
        held = np.concatenate([np.zeros(3, dtype=bool), (q <= lower) & (gradient[3:] < 0)])
        held[3:] |= (q >= upper) & (gradient[3:] > 0)
        normal[held], normal[:, held], gradient[held] = 0.0, 0.0, 0.0
        normal += np.diag(np.where(held, 1.0, self.damping))
        return np.linalg.solve(normal, gradient)

    def _contacts(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pairs of capsules near each other: how their distances grow (C, 3 + J), and what they lack (C,), [m]."""
        positions, rotations, axes, points = self._link_poses(q)
        rows, lacks = [np.zeros((0, 3 + len(q)))], []
        for first, second in self.pairs:
            links = self.capsule_links[[first, second]]
            (start_a, along_a), (start_b, along_b) = (
                (positions[link] + rotations[link] @ row[:3], rotations[link] @ (row[3:6] - row[:3]))
                for link, row in zip(links, self.capsules[[first, second]], strict=True)
            )
            for s, t in places_of_contact(start_a, along_a, start_b, along_b):
                on_a, on_b = start_a + s * along_a, start_b + t * along_b
                apart = np.linalg.norm(on_b - on_a)
                missing = self.clearance + self.capsules[first, 6] + self.capsules[second, 6] - apart
                if missing > -self.reach and apart >= 1e-9:
                    motion = self._motion(links[1], on_b, axes, points) - self._motion(links[0], on_a, axes, points)
                    rows.append(np.concatenate([np.zeros(3), motion @ (on_b - on_a) / apart])[None])
                    lacks.append(missing)
        return np.concatenate(rows), np.array(lacks)

    def _rows(
        self, root: FloatArray, q: FloatArray, goal: tuple[FloatArray, ...]
    ) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """Jacobian (R, 3 + J), error (R,) and weight (R,) of each term that is minimised."""
        orientations, orientation_weights, vectors, vector_weights, smoothness, before = goal
        positions, rotations, axes, points = self._link_poses(q)
        rows = []
        for link, wanted, weight in zip(self.turned, orientations, orientation_weights, strict=True):
            turn = Rotation.from_matrix(root.T @ wanted @ rotations[link].T).as_rotvec()
            turned_by = self.moves[link] & ~self.joint_slides
            rows.append((np.hstack([np.eye(3), (axes * turned_by[:, None]).T]), turn, np.full(3, weight)))
        for n, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            now = positions[end] - positions[start]
            motion = self._motion(end, positions[end], axes, points) - self._motion(
                start, positions[start], axes, points
            )
            columns = np.hstack([np.cross(np.eye(3), now).T, motion.T])
            weight = vector_weights[n] / self.lengths[n] ** 2
            rows.append((columns, root.T @ vectors[n] - now, np.full(3, weight)))
        neutral = np.hstack([np.zeros((len(q), 3)), np.eye(len(q))])
        rows.append((neutral, self.neutral - q, np.full(len(q), self.neutral_weight)))
        rows.append((neutral, before - q, smoothness))
        return rows

    def _link_poses(self, q: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Link positions and rotations, joint axes and a point on each, in the root link's frame."""
        poses = np.tile(np.eye(4), (len(self.parents), 1, 1))
        axes, points = np.empty((len(q), 3)), np.empty((len(q), 3))
        for link in range(1, len(self.parents)):
            poses[link] = poses[self.parents[link]] @ self.origins[link]
            joint = self.link_joints[link]
            if joint < 0:
                continue
            axes[joint] = poses[link, :3, :3] @ self.axes[link]
            if self.slides[link]:
                poses[link, :3, 3] += q[joint] * axes[joint]
            else:
                poses[link, :3, :3] @= Rotation.from_rotvec(q[joint] * self.axes[link]).as_matrix()
            points[joint] = poses[link, :3, 3]
        return poses[:, :3, 3], poses[:, :3, :3], axes, points

    def _motion(self, link: int, point: FloatArray, axes: FloatArray, points: FloatArray) -> FloatArray:
        """How a point of a link moves with each joint, shape (J, 3)."""
        motion = np.where(self.joint_slides[:, None], axes, np.cross(axes, point - points))
        return motion * self.moves[link][:, None]


def places_of_contact(
    start_a: FloatArray, along_a: FloatArray, start_b: FloatArray, along_b: FloatArray
) -> list[tuple[float, float]]:
    """Where on two segments to look: the ends of each against the other, and where they cross.

    The nearest points alone jump from end to end where segments are parallel.
    """
    no_length, places = np.zeros(3), []
    for end in (0.0, 1.0):
        places.append((end, nearest_parameters(start_a + end * along_a, no_length, start_b, along_b)[1]))
        places.append((nearest_parameters(start_a, along_a, start_b + end * along_b, no_length)[0], end))
    s, t = nearest_parameters(start_a, along_a, start_b, along_b)
    return [*places, (s, t)] if 0 < s < 1 and 0 < t < 1 else places


def nearest_parameters(
    start_a: FloatArray, along_a: FloatArray, start_b: FloatArray, along_b: FloatArray
) -> tuple[float, float]:
    """Where, from 0 to 1, two segments are nearest to each other."""
    between = start_a - start_b
    aa, bb, ab = along_a @ along_a, along_b @ along_b, along_a @ along_b
    at_a, at_b = along_a @ between, along_b @ between
    determinant = aa * bb - ab * ab
    s = np.clip((ab * at_b - at_a * bb) / determinant, 0.0, 1.0) if determinant > _SHORT else 0.0
    t = (ab * s + at_b) / bb if bb > _SHORT else 0.0
    if t < 0.0 or t > 1.0 or bb <= _SHORT:
        t = np.clip(t, 0.0, 1.0)
        s = np.clip((ab * t - at_a) / aa, 0.0, 1.0) if aa > _SHORT else 0.0
    return float(s), float(t)
