"""Drafted profiles: limbs and feet found in descriptions of all kinds, and a retargeter that runs on the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import RobotError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.anatomy import find_anatomy, words_of
from llamo_ros.retarget.check import check_robot
from llamo_ros.retarget.draft import ProfileDraft, draft_profile
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.profile_text import profile_text
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.robot import robot_from_urdf
from llamo_ros.retarget.shapes import body_solids

# Upstream description and the profile that was written by hand for it; T1 with 29 joints has none.
UPSTREAM = {
    "unitree_g1/g1_29dof_rev_1_0": "unitree_g1",
    "unitree_g1/g1_29dof_mode_15": "unitree_g1",
    "unitree_h1/h1": "unitree_h1",
    "booster_t1/T1_23dof": "booster_t1",
    "booster_t1/T1_29dof": None,
    "pal_talos/talos_reduced": "pal_talos",
}


@pytest.fixture(params=UPSTREAM)
def upstream(request: pytest.FixtureRequest, shared_folder: Path) -> tuple[str, str]:
    """Name of an upstream description, and its text."""
    path = shared_folder / "robots" / f"{request.param}.urdf"
    return request.param, path.read_text(encoding="utf-8")


def described(name: str) -> str:
    return config_path("robots", f"{name}.urdf").read_text(encoding="utf-8")


def test_limbs_and_feet_are_those_of_the_profile_written_by_hand(upstream: tuple[str, str]) -> None:
    name, text = upstream
    draft = draft_profile(text, "drafted")
    if UPSTREAM[name] is None:
        assert draft.content["limbs"]["left_arm"]["links"] == ["AL2", "AL4", "left_hand_link"]
        assert draft.content["orientations"]["pelvis"]["link"] == "Waist"
        return
    ours = load_robot(UPSTREAM[name], description=text)
    for mine, by_hand in zip(draft.robot.limbs, ours.limbs, strict=True):
        assert mine.human == by_hand.human
        names = [draft.robot.model.link_names[link] for link in mine.links]
        assert names[:2] == [ours.model.link_names[link] for link in by_hand.links[:2]]
        # The hand of H1 and T1 is a point on the forearm, guessed from mass and shape: the same within 3 cm.
        ends = [
            robot.model.link_poses(np.zeros((1, robot.model.joint_count))).positions[0, limb.links[2]]
            for robot, limb in ((draft.robot, mine), (ours, by_hand))
        ]
        assert np.linalg.norm(ends[0] - ends[1]) < 0.031
    for mine, by_hand in zip(draft.robot.feet, ours.feet, strict=True):
        assert (mine.limb, mine.toe) == (by_hand.limb, by_hand.toe)
        assert abs(mine.sole[:, 2].min() - by_hand.sole[:, 2].min()) < 0.002  # [m]
        # Length and width of TALOS's sole are guessed, as its feet are meshes; the others have simple shapes.
        np.testing.assert_allclose(np.ptp(mine.sole, axis=0), np.ptp(by_hand.sole, axis=0), atol=0.04)
    for rule, by_hand in (("pelvis", ours.orientations[0]), ("chest", ours.orientations[1])):
        assert draft.content["orientations"][rule]["link"] == ours.model.link_names[by_hand.link]
    hands = [rule for rule in ours.orientations if ours.model.link_names[rule.link] in ("arm_left_7_link",)]
    for rule in hands:
        mine = next(r for r in draft.robot.orientations if r.human == rule.human)
        np.testing.assert_allclose(mine.rotation, rule.rotation, atol=1e-5)


def test_the_drafted_robot_follows_the_bench_clips_inside_its_limits(
    upstream: tuple[str, str],
    bench_clips: Path,
    benchmark_script: ModuleType,
    unhurried: Callable[[Robot], Robot],
) -> None:
    robot = unhurried(draft_profile(upstream[1], "drafted").robot)
    assert check_robot(robot).errors == []
    for clip in ("walk", "squat", "stress"):
        positions, rotations, stance, rate = benchmark_script.read_clip(bench_clips / f"{clip}.npz")
        motion, _ = benchmark_script.retarget_clip(robot, positions, rotations, rate, passes=1)
        assert (motion.joint_positions >= robot.lower).all() and (motion.joint_positions <= robot.upper).all()
        scores = score_motion(robot, motion, positions[..., [2, 0, 1]], stance)
        if clip != "stress":  # that one cannot be followed by every robot
            assert max(scores[f"reach_{limb}_cm"] for limb in range(4)) < 2.0
            assert scores["slip_cm_s"] < 0.5 and abs(scores["sole_cm"]) < 0.1


@pytest.mark.parametrize("name", ["unitree_g1", "unitree_h1", "booster_t1", "generic_humanoid"])
def test_names_are_not_needed(name: str) -> None:
    """With every name a number, the same limbs are found from the tree."""
    text = described(name)
    model = robot_from_urdf(text)
    found = find_anatomy(model, body_solids(model, text))
    numbers = {word: f"n{k}" for k, word in enumerate(dict.fromkeys(re.findall(r'(?:name|link)="([^"]+)"', text)))}
    nameless_text = re.sub(r'(name|link)="([^"]+)"', lambda match: f'{match[1]}="{numbers[match[2]]}"', text)
    nameless_model = robot_from_urdf(nameless_text)
    nameless = find_anatomy(nameless_model, body_solids(nameless_model, nameless_text))
    assert (nameless.pelvis, nameless.chest) == (found.pelvis, found.chest)
    assert [(c.kind, c.side, c.start, c.middle, c.end) for c in nameless.limbs] == [
        (c.kind, c.side, c.start, c.middle, c.end) for c in found.limbs
    ]
    assert any("names do not tell left from right" in note for note in nameless.notes)


def turned_g1(rpy: str) -> str:
    """G1 whose root link is a frame that is turned against the pelvis."""
    base = f'<link name="base"/><joint name="base" type="fixed"><parent link="base"/><child link="pelvis"/>\
<origin rpy="{rpy}"/></joint>'
    return described("unitree_g1").replace('<link name="pelvis">', f'{base}<link name="pelvis">', 1)


@pytest.mark.parametrize("rpy", ["0 0 1.5707963", "0 0 3.1415927", "1.5707963 0 0"], ids=["left", "back", "y up"])
def test_a_root_link_may_face_anywhere(rpy: str, bench_clips: Path, benchmark_script: ModuleType) -> None:
    draft = draft_profile(turned_g1(rpy), "turned")
    assert any("x forward, y left, z up" in note for note in draft.notes)
    assert check_robot(draft.robot).errors == []
    positions, rotations, stance, rate = benchmark_script.read_clip(bench_clips / "walk.npz")
    motion, _ = benchmark_script.retarget_clip(draft.robot, positions, rotations, rate, passes=1)
    scores = score_motion(draft.robot, motion, positions[..., [2, 0, 1]], stance)
    assert max(scores[f"reach_{limb}_cm"] for limb in range(4)) < 0.5
    assert scores["slip_cm_s"] < 0.1 and scores["tilt_deg"] < 1.0


def test_the_standing_posture_is_symmetric(load_any_robot: Callable[[str], Robot]) -> None:
    standing = draft_profile(described("booster_t1"), "t1").content["standing"]
    assert standing["Left_Shoulder_Roll"] == -standing["Right_Shoulder_Roll"] < -1.0  # arms hang, from a T-pose zero
    assert standing["Left_Knee_Pitch"] == standing["Right_Knee_Pitch"] > 0.3


def test_the_text_of_a_profile_is_the_profile(tmp_path: Path) -> None:
    (tmp_path / "robot.urdf").write_text(described("unitree_h1"), encoding="utf-8")
    draft: ProfileDraft = draft_profile(described("unitree_h1"), "no", "robot.urdf")  # `no` is false to YAML
    path = tmp_path / "profile.yaml"
    path.write_text(profile_text(draft.content, draft.notes), encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == draft.content
    robot = load_robot(path)
    assert robot.name == "no"
    np.testing.assert_array_equal(robot.standing, draft.robot.standing)
    assert "# - left hand: no link is there" in path.read_text(encoding="utf-8")
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 130


def test_what_has_no_legs_is_no_humanoid() -> None:
    arm = """<robot name="arm"><link name="a"/><link name="b"/><joint name="j" type="revolute"><parent link="a"/>
      <child link="b"/><axis xyz="0 0 1"/><limit lower="-1" upper="1" velocity="1"/></joint></robot>"""
    with pytest.raises(RobotError, match="'arm' has no two chains of 3 or more joints that could be legs"):
        draft_profile(arm, "arm")


def legs_only(knee: float, last: str) -> str:
    """Two legs whose knees lie so far below the hips, [m], and what lies below the knee, as a link or nothing."""
    parts = ['<robot name="walker"><link name="base"/>']
    for side, y in (("left", 0.1), ("right", -0.1)):
        chain = [("yaw", "0 0 1", 0.1), ("roll", "1 0 0", 0.0), ("pitch", "0 1 0", 0.0), ("knee", "0 1 0", knee)]
        above = "base"
        for name, axis, down in chain + ([(last, "0 1 0", knee)] if last else []):
            parts.append(
                f'<link name="{side}_{name}"/><joint name="{side}_{name}" type="revolute"><parent link="{above}"/>'
                f'<child link="{side}_{name}"/><origin xyz="0 {y if above == "base" else 0} {-down}"/>'
                f'<axis xyz="{axis}"/><limit lower="-1" upper="1" velocity="9"/></joint>'
            )
            above = f"{side}_{name}"
    return "".join(parts) + "</robot>"


@pytest.mark.parametrize(
    ("knee", "last", "message"),
    [
        (0.35, "", "left leg of robot 'walker' was taken to be left_yaw, .*do not lie apart as hip, knee and ankle"),
        (0.0, "ankle", "do not lie apart as hip, knee and ankle do"),
        (0.0035, "ankle", "less than a millimetre thick: are the lengths .* in metres"),
    ],
    ids=["no foot", "all in one place", "millimetres"],
)
def test_legs_that_are_none_are_named(knee: float, last: str, message: str) -> None:
    assert draft_profile(legs_only(0.35, "ankle"), "walker").robot.feet
    with pytest.raises(RobotError, match=message):
        draft_profile(legs_only(knee, last), "walker")


def test_names_are_taken_apart() -> None:
    assert words_of("Left_HipPitch2") == ["left", "hip", "pitch"]
    assert words_of("leg_left_1_joint") == ["leg", "left", "joint"]
    assert words_of("LArm_elbowYaw") == ["l", "arm", "elbow", "yaw"]
