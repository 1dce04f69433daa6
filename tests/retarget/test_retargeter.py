"""Human motion to robot configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import MotionDataError, ParameterError, ShapeError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix, quaternion_xyzw_to_matrix, rotation_about_y
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion


@pytest.fixture
def standing_clip() -> MotionClip:
    """A human who stands with the arms down: ankles 0.06 m above the floor, as in the data."""
    local = np.zeros((8, JOINT_COUNT, 3))
    local[:, JOINT_INDEX["left_shoulder"], 2], local[:, JOINT_INDEX["right_shoulder"], 2] = -1.4, 1.4
    return MotionClip(axis_angle_to_matrix(local), np.tile([0.5, 0.94, 1.0], (8, 1)))


def cut(clip: MotionClip, lengths: list[int]) -> list[MotionClip]:
    edges = np.cumsum([0, *lengths])
    return [clip.sliced(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def world_links(robot: Robot, motion: RobotMotion) -> tuple[np.ndarray, np.ndarray]:
    root = quaternion_xyzw_to_matrix(motion.root_quaternions)
    poses = robot.model.link_poses(motion.joint_positions)
    return motion.root_positions[:, None] + poses.positions @ np.swapaxes(root, -1, -2), root[:, None] @ poses.rotations


def sole_heights(robot: Robot, motion: RobotMotion) -> np.ndarray:
    places, turns = world_links(robot, motion)
    links = [robot.limbs[foot.limb].links[2] for foot in robot.feet]
    corners = [
        places[:, None, link] + foot.sole @ np.swapaxes(turns[:, link], -1, -2)
        for foot, link in zip(robot.feet, links, strict=True)
    ]
    return np.stack(corners, axis=1)[..., 2]


def test_a_standing_human_becomes_a_standing_robot(g1: Robot, standing_clip: MotionClip) -> None:
    motion = Retargeter(g1).retarget(standing_clip)
    assert np.abs(sole_heights(g1, motion)).max() < 0.003  # [m]; the human's feet differ in height by 8 mm
    np.testing.assert_allclose(motion.root_quaternions, np.tile([0, 0, 0, 1.0], (8, 1)), atol=0.02)
    assert (motion.contacts == 1).all()
    assert motion.root_positions[0, 0] > 0 and motion.root_positions[0, 1] > 0  # core z is ROS x, core x is ROS y
    places, _ = world_links(g1, motion)
    assert places[0, g1.model.link_index("left_wrist_yaw_link"), 1] > places[0, g1.model.link_index("pelvis"), 1]


def test_joints_stay_inside_their_limits_whatever_the_human_does(
    g1: Robot, random_clip: Callable[..., MotionClip]
) -> None:
    for seed in range(3):
        motion = Retargeter(g1).retarget(random_clip(seed))
        assert (motion.joint_positions >= g1.lower).all() and (motion.joint_positions <= g1.upper).all()


def test_a_stream_gives_the_same_as_the_whole_clip(g1: Robot, real_clip: MotionClip) -> None:
    clip = real_clip.sliced(0, 40)
    whole, retargeter = Retargeter(g1).retarget(clip), Retargeter(g1)
    parts = [retargeter.retarget(part) for part in cut(clip, [4, 4, 12, 20])]
    for name in ("joint_positions", "root_positions", "root_quaternions", "contacts"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_a_stream_cut_elsewhere_is_close(g1: Robot, real_clip: MotionClip) -> None:
    clip = real_clip.sliced(0, 40)
    whole, retargeter = Retargeter(g1).retarget(clip), Retargeter(g1)
    parts = [retargeter.retarget(part).joint_positions for part in cut(clip, [1, 6, 3, 30])]
    # Other first guesses, and the solver stops at steps below 1e-3 rad; free wrist twists converge slowest.
    assert np.abs(np.concatenate(parts) - whole.joint_positions).max() < 0.05


def test_reset_makes_a_retargeter_as_new(g1: Robot, real_clip: MotionClip) -> None:
    retargeter, clip = Retargeter(g1), real_clip.sliced(0, 8)
    first = retargeter.retarget(clip)
    retargeter.retarget(real_clip.sliced(40, 60))
    retargeter.reset()
    second = retargeter.retarget(clip)
    np.testing.assert_array_equal(first.joint_positions, second.joint_positions)
    np.testing.assert_array_equal(first.root_positions, second.root_positions)


def test_turning_the_human_turns_the_robot_and_leaves_its_joints(g1: Robot, real_clip: MotionClip) -> None:
    clip, turn = real_clip.sliced(0, 24), rotation_about_y(np.array(2.0))
    rotations = clip.rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    turned = Retargeter(g1).retarget(MotionClip(rotations, clip.root_positions @ turn.T))
    straight = Retargeter(g1).retarget(clip)
    np.testing.assert_allclose(turned.joint_positions, straight.joint_positions, atol=1e-6)  # rounding, amplified
    cosine, sine = np.cos(2.0), np.sin(2.0)
    to_left = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    np.testing.assert_allclose(turned.root_positions, straight.root_positions @ to_left.T, atol=1e-6)


def test_a_mirrored_human_becomes_a_mirrored_robot(g1: Robot, real_clip: MotionClip) -> None:
    clip = real_clip.sliced(0, 24)
    names = g1.joint_names
    swapped = [n.replace("left", "?").replace("right", "left").replace("?", "right") for n in names]
    signs = np.array([-1.0 if "roll" in n or "yaw" in n else 1.0 for n in names])
    motion = Retargeter(g1).retarget(clip).joint_positions
    mirrored = Retargeter(g1).retarget(clip.mirrored()).joint_positions[:, [names.index(n) for n in swapped]] * signs
    assert np.abs(mirrored - motion).mean() < 0.02  # [rad]; smpl22's own sides differ by up to 9 mm


def test_planted_feet_stay_where_they_are(g1: Robot, real_clip: MotionClip) -> None:
    motion = Retargeter(g1).retarget(real_clip)
    places, turns = world_links(g1, motion)
    for i, foot in enumerate(g1.feet):
        link = g1.limbs[foot.limb].links[2]
        level = turns[:, link, 2, 2] > np.cos(np.radians(3))
        planted = (motion.contacts[:, i] == 1) & level
        both = planted[1:] & planted[:-1]
        slip = 30 * np.linalg.norm(np.diff(places[:, link, :2], axis=0), axis=-1)[both]
        assert both.sum() >= 10
        assert np.median(slip) < 0.01  # [m/s]; the human's own feet creep at 0.05 to 0.07 here


def test_the_lowest_sole_never_leaves_the_floor_in_a_walk(g1: Robot, real_clip: MotionClip) -> None:
    heights = sole_heights(g1, Retargeter(g1).retarget(real_clip)).min(axis=(1, 2))
    assert heights.min() > -1e-9 and heights.max() < 0.02  # [m]; rolling feet of the data rise by 1 to 2 cm


def test_a_jump_lifts_the_robot(g1: Robot, standing_clip: MotionClip) -> None:
    root = standing_clip.root_positions.copy()
    root[4:, 1] += 0.2
    heights = sole_heights(g1, Retargeter(g1).retarget(MotionClip(standing_clip.rotations, root))).min(axis=(1, 2))
    assert heights[:4].max() < 1e-6 and heights[4:].min() > 0.1


def test_quaternions_are_unit_and_never_flip_sign(g1: Robot) -> None:
    turns = np.linspace(0, 4 * np.pi, 60)
    rotations = np.tile(np.eye(3), (60, JOINT_COUNT, 1, 1))
    rotations[:, 0] = rotation_about_y(turns)
    retargeter = Retargeter(g1)
    clip = MotionClip(rotations, np.tile([0, 0.94, 0.0], (60, 1)))
    quaternions = np.concatenate([retargeter.retarget(part).root_quaternions for part in cut(clip, [20, 20, 20])])
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1.0, atol=1e-12)
    assert (quaternions[1:] * quaternions[:-1]).sum(axis=1).min() > 0.9


@pytest.mark.parametrize("name", ["walk", "squat", "stress"])
def test_bench_clips_are_followed_closely(
    g1: Robot, benchmark_script: ModuleType, bench_clips: Path, name: str
) -> None:
    """The targets of a good retargeter, mean of both sides: hands to 2 cm, feet to 1 cm, upper arms to 5 degrees."""
    positions, rotations, stance, rate = benchmark_script.read_clip(bench_clips / f"{name}.npz")
    motion, _ = benchmark_script.retarget_clip(g1, positions, rotations, rate, passes=1)
    scores = benchmark_script.score_motion(g1, motion, positions[..., [2, 0, 1]], stance)
    assert scores["reach_0_cm"] + scores["reach_1_cm"] < 2 * 2.0
    assert scores["reach_2_cm"] + scores["reach_3_cm"] < 2 * 1.0
    assert scores["upper_0_deg"] + scores["upper_1_deg"] < 2 * 5.0
    assert scores["outside_rad"] == 0.0
    if stance.any():
        assert scores["slip_cm_s"] < 0.3 and scores["slipping"] < 0.01
        assert -0.3 < scores["sole_min_cm"] and scores["sole_max_cm"] < 0.3


def test_a_robot_with_fewer_joints_needs_only_a_profile(
    shared_folder: Path, tmp_path: Path, real_clip: MotionClip
) -> None:
    """Unitree H1: no wrists, no ankle roll, no waist roll or pitch."""
    h1 = load_robot(write_h1_profile(tmp_path, with_feet=True), description=h1_description(shared_folder))
    motion = Retargeter(h1).retarget(real_clip)
    assert motion.joint_positions.shape == (len(real_clip), 19)
    assert (motion.joint_positions >= h1.lower).all() and (motion.joint_positions <= h1.upper).all()
    knee = motion.joint_positions[:, h1.joint_names.index("left_knee_joint")]
    assert np.ptp(knee) > 0.5  # [rad]; it walks


def test_a_robot_without_feet_moves_as_the_human_root(
    shared_folder: Path, tmp_path: Path, real_clip: MotionClip
) -> None:
    h1 = load_robot(write_h1_profile(tmp_path, with_feet=False), description=h1_description(shared_folder))
    motion = Retargeter(h1).retarget(real_clip)
    assert motion.contacts.shape == (len(real_clip), 0)
    human = real_clip.root_positions[:, [2, 0, 1]]
    ratio = np.diff(motion.root_positions, axis=0) @ [1, 0, 0] / (np.diff(human, axis=0) @ [1, 0, 0])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def h1_description(shared_folder: Path) -> str:
    return (shared_folder / "robots" / "unitree_h1" / "h1.urdf").read_text(encoding="utf-8")


def write_h1_profile(folder: Path, with_feet: bool) -> Path:
    limbs, feet = {}, {}
    for side in ("left", "right"):
        limbs[f"{side}_arm"] = {
            "human": [f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"],
            "links": [f"{side}_shoulder_pitch_link", f"{side}_shoulder_yaw_link", f"{side}_elbow_link"],
            "weights": {"upper": 1.0, "lower": 0.5, "reach": 0.5},
        }
        limbs[f"{side}_leg"] = {
            "human": [f"{side}_hip", f"{side}_knee", f"{side}_ankle"],
            "links": [f"{side}_hip_pitch_link", f"{side}_knee_link", f"{side}_ankle_link"],
            "weights": {"upper": 0.2, "lower": 0.2, "reach": 4.0},
        }
        feet[side] = {
            "limb": f"{side}_leg",
            "toe": f"{side}_foot",
            "weight": 1.0,
            "sole": [[0.15, 0, -0.07], [-0.1, 0, -0.07]],
        }
    profile = {
        "name": "h1",
        "orientations": {
            "pelvis": {"human": "pelvis", "link": "pelvis", "weight": 1.0},
            "chest": {"human": "spine3", "link": "torso_link", "weight": 1.0},
        },
        "limbs": limbs,
        "feet": feet if with_feet else {},
        "limits": {"position_margin": 0.02, "velocity_scale": 0.5, "acceleration": 100.0},
    }
    path = folder / "h1.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def test_an_empty_chunk_gives_an_empty_motion(g1: Robot, standing_clip: MotionClip) -> None:
    retargeter = Retargeter(g1)
    assert len(retargeter.retarget(standing_clip.sliced(0, 0))) == 0
    assert len(retargeter.retarget(standing_clip)) == 8


def test_unusable_joints_are_refused(g1: Robot) -> None:
    positions, rotations = np.zeros((2, 22, 3)), np.tile(np.eye(3), (2, 22, 1, 1))
    with pytest.raises(MotionDataError, match="not in metres"):
        Retargeter(g1).retarget_joints(positions, rotations, 30.0)
    with pytest.raises(MotionDataError, match="NaN"):
        Retargeter(g1).retarget_joints(positions * np.nan, rotations, 30.0)
    with pytest.raises(MotionDataError, match="more than 10 km"):
        Retargeter(g1).retarget_joints(positions + 1e5, rotations, 30.0)
    with pytest.raises(ShapeError, match="22 joints"):
        Retargeter(g1).retarget_joints(positions[:, :17], rotations, 30.0)
    with pytest.raises(ParameterError, match="frame_rate"):
        Retargeter(g1).retarget_joints(positions, rotations, 0.0)
