"""Inverse kinematics: the compiled kernel against the reference, its Jacobians against finite differences, postures
against Pinocchio, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.spatial.transform import Rotation

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.kernels.inverse_kinematics import (
    CapsuleSet,
    GoalLinks,
    InverseKinematics,
    JointLimits,
    Settings,
    reference,
)
from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.robot import RobotModel

BACKENDS = ("cpu", "reference")
TOLERANCE = 1e-8  # float64 rounds at 1e-16; a dozen steps of Gauss-Newton amplify that


class Case:
    """A robot, something to ask it for, and capsules on some links; all of it random."""

    def __init__(self, model: RobotModel, frames: int, turned: int, vectors: int, capsules: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        links, joints = len(model.link_names), model.joint_count
        self.model, self.generator = model, generator
        self.limits = JointLimits(model.lower, model.upper, 0.5 * (model.lower + model.upper), 1e-2)
        starts = generator.integers(0, links, vectors)
        ends = (starts + generator.integers(1, links, vectors)) % links
        self.goals = GoalLinks(generator.integers(0, links, turned), starts, ends, generator.uniform(0.2, 1, vectors))
        pairs = np.array([(a, b) for a in range(capsules) for b in range(a)], dtype=np.int64).reshape(-1, 2)
        self.capsules = CapsuleSet(
            generator.integers(0, links, capsules),
            generator.normal(0, 0.1, (capsules, 3)),
            generator.normal(0, 0.1, (capsules, 3)),
            generator.uniform(0.02, 0.08, capsules),
            pairs,
            0.02,
            10.0,
        )
        self.arguments = {
            "root_rotations": random_rotations(frames, seed),
            "q": generator.uniform(model.lower, model.upper),
            "orientations": random_rotations(frames * turned, seed + 1).reshape(frames, turned, 3, 3),
            "orientation_weights": generator.uniform(0, 2, (frames, turned)).round(),
            "vectors": generator.normal(0, 0.3, (frames, vectors, 3)),
            "vector_weights": generator.uniform(0, 4, (frames, vectors)).round(),
            "smoothness": generator.uniform(0, 0.1, (frames, joints)),
        }
        assert joints > 0

    def solver(self, backend: str = "auto", **settings: Any) -> InverseKinematics:
        made = Settings(**({"iterations": 6} | settings))
        return InverseKinematics(self.model, self.limits, self.goals, self.capsules, made, backend=backend)


def random_rotations(count: int, seed: int) -> np.ndarray:
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix().reshape(count, 3, 3)


def random_tree(links: int, seed: int) -> RobotModel:
    """Turning, sliding and fixed joints in a tree of any shape."""
    generator = np.random.default_rng(seed)
    kinds = generator.choice(["turns", "slides", "fixed"], links, p=[0.7, 0.15, 0.15])
    kinds[0], kinds[-1] = "root", "turns"
    is_movable = (kinds == "turns") | (kinds == "slides")
    joints = int(is_movable.sum())
    carried = np.full(links, -1)
    carried[is_movable] = generator.permutation(joints)
    origins = np.tile(np.eye(4), (links, 1, 1))
    origins[:, :3, :3], origins[:, :3, 3] = random_rotations(links, seed), generator.normal(0, 0.2, (links, 3))
    axes = generator.normal(size=(links, 3))
    lower = -generator.uniform(0.1, 2, joints)
    return RobotModel(
        name="random",
        joint_names=tuple(f"joint{i}" for i in range(joints)),
        link_names=tuple(f"link{i}" for i in range(links)),
        parents=np.array([-1, *sorted(int(generator.integers(0, i)) for i in range(1, links))]),  # level by level
        link_joints=carried,
        origins=origins,
        axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
        is_prismatic=kinds == "slides",
        lower=lower,
        upper=-lower[::-1].copy(),
        velocity_limits=np.ones(joints),
    )


CASES = {
    "g1": lambda: Case(load_robot("unitree_g1").model, frames=5, turned=6, vectors=13, capsules=6, seed=0),
    "one joint": lambda: Case(random_tree(2, 1), frames=3, turned=1, vectors=1, capsules=2, seed=1),
    "no goals": lambda: Case(random_tree(9, 2), frames=2, turned=0, vectors=0, capsules=4, seed=2),
    "no capsules": lambda: Case(random_tree(9, 3), frames=2, turned=2, vectors=3, capsules=0, seed=3),
    "no frames": lambda: Case(random_tree(5, 4), frames=0, turned=2, vectors=3, capsules=2, seed=4),
    **{f"tree {s}": lambda s=s: Case(random_tree(4 + s, s), 4, 3, 4, 5, seed=s) for s in range(5, 21)},
}

# ---------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", CASES)
def test_compiled_kernel_matches_the_reference(name: str) -> None:
    case = CASES[name]()
    ours, expected = (case.solver(backend).solve(**case.arguments) for backend in BACKENDS)
    for field, value in ours._asdict().items():
        np.testing.assert_allclose(value, getattr(expected, field), rtol=0, atol=TOLERANCE, err_msg=field, strict=True)


def test_frames_at_once_and_one_by_one_are_the_same() -> None:
    case = CASES["g1"]()
    solver, arguments = case.solver(), dict(case.arguments)
    together = solver.solve(**arguments)
    for t in range(5):
        one = {key: value if key == "q" else value[t : t + 1] for key, value in arguments.items()}
        alone = solver.solve(**one)
        for field, value in alone._asdict().items():
            np.testing.assert_array_equal(value[0], getattr(together, field)[t], err_msg=field)
        arguments["q"] = alone.joint_positions[0]


@pytest.mark.parametrize("name", ["g1", "tree 8", "tree 12", "tree 20"])
def test_jacobians_are_those_of_finite_differences(name: str) -> None:
    case = CASES[name]()
    solver: reference.Solver = case.solver("reference")._solver
    goal = tuple(case.arguments[key][0] for key in ("orientations", "orientation_weights", "vectors", "vector_weights"))
    root, q = case.arguments["root_rotations"][0], 0.5 * case.arguments["q"]
    goal = (*goal, case.arguments["smoothness"][0], q)
    rows = solver._rows(root, q, goal)
    turned = len(solver.turned)

    def errors(x: np.ndarray) -> np.ndarray:
        """Of everything but orientations, whose error is no vector far from zero."""
        moved = solver._rows(root @ Rotation.from_rotvec(x[:3]).as_matrix(), q + x[3:], goal)
        assert len(moved) == len(rows)  # no capsule came near or went away in so small a step
        return np.concatenate([row[1] for row in moved[turned:]])

    expected = -approx_fprime(np.zeros(3 + len(q)), errors, 1e-6)
    actual = np.concatenate([row[0] for row in rows[turned:]])
    # Errors of vectors are in the frame of the root, which the step turns: to first order by error x step.
    for n in range(len(solver.starts)):
        error = rows[turned + n][1]
        actual[3 * n : 3 * n + 3, :3] += np.cross(np.eye(3), error).T
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("link", [5, 12, 20, -1])
def test_turns_of_links_are_those_of_finite_differences(link: int) -> None:
    case = CASES["g1"]()
    solver: reference.Solver = case.solver("reference")._solver
    q = 0.5 * case.arguments["q"]
    _, rotations, axes, _ = solver._link_poses(q)
    for joint in range(len(q)):
        step = np.zeros(len(q))
        step[joint] = 1e-6
        turned = solver._link_poses(q + step)[1][link] @ rotations[link].T
        expected = axes[joint] * solver.moves[link, joint]
        np.testing.assert_allclose(Rotation.from_matrix(turned).as_rotvec() / 1e-6, expected, atol=1e-5)


def test_goals_that_can_be_met_are_met() -> None:
    robot = load_robot("unitree_g1")
    model, generator = robot.model, np.random.default_rng(0)
    q = np.clip(robot.neutral + generator.normal(0, 0.3, (6, 29)), robot.lower + 0.05, robot.upper - 0.05)
    root = Rotation.from_rotvec(generator.normal(0, 0.5, (6, 3))).as_matrix()
    turned = np.array([model.link_index(name) for name in ("pelvis", "torso_link", "left_ankle_roll_link")])
    starts = np.array([limb.links[0] for limb in robot.limbs] + [limb.links[1] for limb in robot.limbs])
    ends = np.array([limb.links[1] for limb in robot.limbs] + [limb.links[2] for limb in robot.limbs])
    goals = GoalLinks(turned, starts, ends, np.full(8, 0.3))
    poses = model.link_poses(q)
    vectors = (poses.positions[:, ends] - poses.positions[:, starts]) @ np.swapaxes(root, -1, -2)
    for backend in BACKENDS:
        solver = InverseKinematics(
            model, JointLimits(robot.lower, robot.upper, robot.neutral, 1e-8), goals, backend=backend
        )
        wanted = root[:, None] @ poses.rotations[:, turned]
        found = solver.solve(np.tile(np.eye(3), (6, 1, 1)), robot.neutral, wanted, np.ones((6, 3)), vectors,
                             np.ones((6, 8)), np.zeros((6, 29)))  # fmt: skip
        reached = model.link_poses(found.joint_positions).positions
        made = (reached[:, ends] - reached[:, starts]) @ np.swapaxes(found.root_rotations, -1, -2)
        assert np.abs(made - vectors).max() < 1e-3  # [m]; it stops at steps below 1e-3 rad
        np.testing.assert_allclose(found.link_positions, reached, atol=1e-12)
        np.testing.assert_allclose(found.link_rotations, model.link_poses(found.joint_positions).rotations, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_joints_stay_inside_their_limits_whatever_is_asked(backend: str, seed: int) -> None:
    case = Case(load_robot("unitree_g1").model, frames=6, turned=4, vectors=6, capsules=4, seed=seed)
    case.arguments["vectors"] *= 30
    case.arguments["q"] = 10 * case.arguments["q"]
    found = case.solver(backend, iterations=24).solve(**case.arguments).joint_positions
    assert (found >= case.model.lower).all() and (found <= case.model.upper).all()
    assert np.isfinite(found).all()


def test_half_turns_are_no_special_case() -> None:
    model = random_tree(3, 0)
    case = Case(model, frames=1, turned=1, vectors=0, capsules=0, seed=0)
    case.goals = replace(case.goals, turned=np.zeros(1, dtype=np.int64))
    for axis in np.vstack([np.eye(3), random_rotations(4, 5)[:, 0]]):
        for angle in (np.pi, np.pi - 1e-9, -np.pi + 1e-7):
            wanted = Rotation.from_rotvec(angle * axis).as_matrix()
            arguments = case.arguments | {
                "root_rotations": np.eye(3)[None], "orientations": wanted[None, None], "orientation_weights": [[1.0]],
            }  # fmt: skip
            for backend in BACKENDS:
                found = case.solver(backend, iterations=30).solve(**arguments)
                off = Rotation.from_matrix(found.root_rotations[0].T @ wanted).magnitude()
                assert off < 2e-3, (backend, axis, angle)


@pytest.mark.parametrize("backend", BACKENDS)
def test_capsules_are_pushed_apart(backend: str) -> None:
    robot = load_robot("unitree_g1")
    hands = np.array([robot.model.link_index(f"{side}_wrist_yaw_link") for side in ("left", "right")])
    torso = robot.model.link_index("torso_link")
    goals = GoalLinks(np.array([torso]), np.array([torso, torso]), hands, np.full(2, 0.5))
    capsules = CapsuleSet(hands, np.zeros((2, 3)), np.tile([0.05, 0, 0], (2, 1)), np.full(2, 0.05), np.array([[0, 1]]),
                          0.01, 1000.0)  # fmt: skip
    limits = JointLimits(robot.lower, robot.upper, robot.neutral, 1e-3)
    both = np.tile([0.35, 0.0, 0.1], (1, 2, 1))  # both hands in the same place
    arguments = (
        np.eye(3)[None],
        robot.neutral,
        np.eye(3)[None, None],
        np.ones((1, 1)),
        both,
        np.ones((1, 2)),
        np.zeros((1, 29)),
    )
    apart = {}
    for name, bodies in (("free", replace(capsules, pairs=np.zeros((0, 2), dtype=np.int64))), ("pair", capsules)):
        found = InverseKinematics(robot.model, limits, goals, bodies, backend=backend).solve(*arguments)
        places, turns = found.link_positions[0, hands], found.link_rotations[0, hands]
        along = turns @ [0.05, 0.0, 0.0]
        s, t = reference.nearest_parameters(places[0], along[0], places[1], along[1])
        apart[name] = np.linalg.norm(places[0] + s * along[0] - places[1] - t * along[1])
    assert apart["free"] < 0.02
    assert apart["pair"] > 0.095  # of 0.11 that are asked for: the goals pull too


@pytest.mark.parametrize("seed", range(20))
def test_nearest_points_are_nearest(seed: int) -> None:
    generator = np.random.default_rng(seed)
    start_a, along_a, start_b, along_b = generator.normal(size=(4, 3)) * np.array([[1.0], [seed % 3], [1.0], [1.0]])
    if seed % 5 == 0:
        along_b = 2.0 * along_a  # parallel, or two points
    s, t = reference.nearest_parameters(start_a, along_a, start_b, along_b)
    assert 0 <= s <= 1 and 0 <= t <= 1
    grid = np.linspace(0, 1, 201)
    points_a, points_b = start_a + grid[:, None] * along_a, start_b + grid[:, None] * along_b
    least = np.linalg.norm(points_a[:, None] - points_b[None], axis=-1).min()
    assert np.linalg.norm(start_a + s * along_a - start_b - t * along_b) <= least + 1e-9


def test_link_poses_are_those_of_pinocchio() -> None:
    pinocchio = pytest.importorskip("pinocchio", reason="Pinocchio (pip install pin) is the oracle here")
    robot = load_robot("unitree_g1")
    oracle = pinocchio.buildModelFromXML(robot.description)
    data = oracle.createData()
    case = Case(robot.model, frames=8, turned=2, vectors=4, capsules=0, seed=3)
    found = case.solver().solve(**case.arguments)
    columns = [robot.joint_names.index(name) for name in list(oracle.names)[1:]]
    for q, places, turns in zip(found.joint_positions, found.link_positions, found.link_rotations, strict=True):
        pinocchio.framesForwardKinematics(oracle, data, q[columns])
        for n, name in enumerate(robot.model.link_names):
            pose = data.oMf[oracle.getFrameId(name, pinocchio.FrameType.BODY)]
            np.testing.assert_allclose(places[n], pose.translation, atol=1e-9)
            np.testing.assert_allclose(turns[n], pose.rotation, atol=1e-9)


def test_a_minimum_is_also_one_for_scipy() -> None:
    """No direction leads further down from where the solver rests."""
    case = Case(random_tree(8, 11), frames=1, turned=2, vectors=3, capsules=0, seed=11)
    near = Rotation.from_rotvec(np.random.default_rng(5).normal(0, 0.3, (2, 3))).as_matrix()
    case.arguments["orientations"] = (case.arguments["root_rotations"] @ near)[None]
    found = case.solver(iterations=200, converged=1e-10).solve(**case.arguments)
    root, q = found.root_rotations[0], found.joint_positions[0]
    poses = case.model.link_poses

    def cost(x: np.ndarray) -> float:
        turned_root = root @ Rotation.from_rotvec(x[:3]).as_matrix()
        places = poses((q + x[3:])[None])
        world = turned_root @ places.rotations[0]
        value = case.limits.neutral_weight * ((q + x[3:] - case.limits.neutral) ** 2).sum()
        value += (case.arguments["smoothness"][0] * (q + x[3:] - case.arguments["q"]) ** 2).sum()
        for link, wanted, weight in zip(case.goals.turned, case.arguments["orientations"][0],
                                        case.arguments["orientation_weights"][0], strict=True):  # fmt: skip
            value += weight * Rotation.from_matrix(wanted @ world[link].T).magnitude() ** 2
        vectors = (places.positions[0, case.goals.ends] - places.positions[0, case.goals.starts]) @ turned_root.T
        off = ((vectors - case.arguments["vectors"][0]) ** 2).sum(-1) / case.goals.lengths**2
        return float(value + (case.arguments["vector_weights"][0] * off).sum())

    slope = approx_fprime(np.zeros(3 + len(q)), cost, 1e-7)
    free = np.concatenate([np.ones(3, bool), (q > case.model.lower) & (q < case.model.upper)])
    assert np.abs(slope[free]).max() < 0.05 * max(cost(np.zeros(3 + len(q))), 1.0)


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": np.zeros(3)}, ShapeError, "q"),
        ({"vectors": np.zeros((4, 1, 3))}, ShapeError, "vectors"),
        ({"vectors": np.full((4, 4, 3), np.nan)}, MotionDataError, "vectors holds NaN"),
        ({"vector_weights": np.full((4, 4), -1.0)}, MotionDataError, "vector_weights"),
        ({"smoothness": np.full((4, 9), -1.0)}, MotionDataError, "smoothness"),
        ({"root_rotations": np.full((4, 3, 3), np.inf)}, MotionDataError, "root_rotations"),
    ],
)
def test_frames_that_cannot_be_are_refused(change: dict, error: type[Exception], message: str) -> None:
    case = CASES["tree 9"]()
    with pytest.raises(error, match=message):
        case.solver().solve(**(case.arguments | change))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model", {"parents": np.array([-1, 2, 1, *range(2, 12)])}, "come before"),
        ("model", {"link_joints": np.full(13, -1)}, "each joint once"),
        ("limits", {"lower": np.full(9, 5.0)}, "above its upper"),
        ("limits", {"neutral_weight": -1.0}, "neutral_weight"),
        ("limits", {"upper": np.full(9, np.nan)}, "NaN"),
        ("goals", {"turned": np.array([0, 99, 1])}, "turned"),
        ("goals", {"lengths": np.zeros(4)}, "positive"),
        ("goals", {"starts": np.array([0.5, 1, 1, 1])}, "whole numbers"),
        ("capsules", {"radii": np.full(5, -0.1)}, "radii"),
        ("capsules", {"pairs": np.array([[0, 7]])}, "pairs"),
        ("capsules", {"clearance": np.nan}, "clearance"),
    ],
)
def test_robots_that_cannot_be_are_refused(part: str, change: dict, message: str) -> None:
    case = CASES["tree 9"]()
    joints = case.model.joint_count
    change = {k: v[:joints] if k in ("lower", "upper") else v for k, v in change.items()}
    setattr(case, part, replace(getattr(case, part), **change))
    with pytest.raises(ParameterError, match=message):
        case.solver()


def test_settings_that_cannot_be_are_refused() -> None:
    case = CASES["tree 9"]()
    for settings in ({"damping": 0.0}, {"largest_step": -1.0}, {"converged": np.nan}):
        with pytest.raises(ParameterError):
            case.solver(**settings)
