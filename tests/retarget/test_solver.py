"""Inverse kinematics."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.motion.rotations import axis_angle_to_matrix, geodesic_angle
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.solver import Goals, PostureSolver


@pytest.fixture
def solver(g1: Robot) -> PostureSolver:
    return PostureSolver(g1.model, g1.lower, g1.upper, g1.neutral, neutral_weight=1e-8)


def goals_of(g1: Robot, root: np.ndarray, q: np.ndarray) -> Goals:
    """Goals that the given configurations fulfil exactly."""
    model, count = g1.model, len(q)
    names = ["pelvis", "torso_link", "left_ankle_roll_link", "right_wrist_yaw_link"]
    links = np.array([model.link_index(name) for name in names])
    starts = np.array([limb.links[0] for limb in g1.limbs] + [limb.links[1] for limb in g1.limbs])
    ends = np.array([limb.links[1] for limb in g1.limbs] + [limb.links[2] for limb in g1.limbs])
    poses = model.link_poses(q)
    vectors = (poses.positions[:, ends] - poses.positions[:, starts]) @ np.swapaxes(root, -1, -2)
    return Goals(
        links, root[:, None] @ poses.rotations[:, links], np.ones((count, len(links))), starts, ends, vectors,
        np.full(len(starts), 0.3), np.ones((count, len(starts))),
    )  # fmt: skip


def test_goals_that_can_be_met_are_met(g1: Robot, solver: PostureSolver) -> None:
    generator = np.random.default_rng(0)
    q = np.clip(g1.neutral + generator.normal(0, 0.3, (6, 29)), g1.lower + 0.05, g1.upper - 0.05)
    root = axis_angle_to_matrix(generator.normal(0, 0.5, (6, 3)))
    goals = goals_of(g1, root, q)
    found_root, found = solver.solve(goals, np.tile(np.eye(3), (6, 1, 1)), np.tile(g1.neutral, (6, 1)))
    assert geodesic_angle(found_root, root).max() < 2e-3  # the solver stops at steps below 1e-3 rad
    reached = goals_of(g1, found_root, found)
    assert np.abs(reached.vectors - goals.vectors).max() < 1e-3  # [m]


def test_a_solution_is_where_it_stays(g1: Robot, solver: PostureSolver) -> None:
    q = np.clip(g1.neutral[None] + 0.1, g1.lower, g1.upper)
    root = np.eye(3)[None]
    found_root, found = solver.solve(goals_of(g1, root, q), root, q)
    # The twist of a limb is free here and drawn to neutral, with a weight of 1e-8 against the damping's 1e-4.
    np.testing.assert_allclose(found, q, atol=1e-3)
    np.testing.assert_allclose(found_root, root, atol=1e-3)


def test_goals_out_of_reach_leave_the_joints_inside_their_limits(g1: Robot, solver: PostureSolver) -> None:
    generator = np.random.default_rng(1)
    goals = goals_of(g1, np.tile(np.eye(3), (8, 1, 1)), np.tile(g1.neutral, (8, 1)))
    goals = Goals(**(vars(goals) | {"vectors": generator.normal(0, 1.0, goals.vectors.shape)}))
    _, found = solver.solve(
        goals, np.tile(np.eye(3), (8, 1, 1)), generator.uniform(g1.model.lower, g1.model.upper, (8, 29))
    )
    assert (found >= g1.lower).all() and (found <= g1.upper).all()


def test_first_guesses_are_not_written_to(g1: Robot, solver: PostureSolver) -> None:
    root, q = np.tile(np.eye(3), (2, 1, 1)), np.tile(g1.standing, (2, 1))
    solver.solve(goals_of(g1, root, np.clip(q + 0.1, g1.lower, g1.upper)), root, q)
    np.testing.assert_array_equal(root, np.tile(np.eye(3), (2, 1, 1)))
    np.testing.assert_array_equal(q, np.tile(g1.standing, (2, 1)))
