"""Robot profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import RobotError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.capsules import capsule_distances
from llamo_ros.retarget.catalogue import robot_names
from llamo_ros.retarget.profile import Robot, RootLimits, has_description, load_robot


@pytest.fixture
def profile() -> dict:
    return yaml.safe_load(config_path("robots", "unitree_g1.yaml").read_text(encoding="utf-8"))


def write(folder: Path, profile: dict) -> Path:
    (folder / "unitree_g1.urdf").write_text(config_path("robots", "unitree_g1.urdf").read_text(encoding="utf-8"))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


@pytest.fixture(params=robot_names())
def robot(request: pytest.FixtureRequest, load_any_robot: Callable[[str], Robot]) -> Robot:
    """Each robot that comes with the package, once."""
    return load_any_robot(request.param)


def test_every_shipped_robot_loads_and_its_postures_are_inside_its_limits(robot: Robot) -> None:
    assert robot.name in robot_names()
    for posture in (robot.neutral, robot.standing):
        assert (posture >= robot.lower).all() and (posture <= robot.upper).all()
    assert (robot.lower > robot.model.lower).all() and (robot.upper < robot.model.upper).all()
    assert (robot.velocity_limits < robot.model.velocity_limits).all()
    assert (robot.jerk_limits >= 10 * robot.acceleration_limits).all()  # full acceleration within 0.1 s
    assert robot.root_limits.speed >= 1.0  # [m/s]; it walks


def test_a_robot_that_stands_has_its_soles_level_and_equally_high(robot: Robot) -> None:
    poses = robot.model.link_poses(robot.standing[None])
    feet = [(robot.limbs[foot.limb].links[2], foot) for foot in robot.feet]
    corners = [poses.positions[0, link] + foot.sole @ poses.rotations[0, link].T for link, foot in feet]
    assert np.ptp(np.concatenate(corners)[:, 2]) < 0.002  # [m]; the posture's angles are rounded to 1e-3 rad
    for link, foot in feet:
        np.testing.assert_allclose(poses.rotations[0, link] @ foot.rotation.T @ [0, 0, 1], [0, 0, 1], atol=0.01)


def test_a_robot_that_stands_touches_itself_nowhere(robot: Robot) -> None:
    parts = {"pelvis", "head"} | {f"{side}_{part}" for side in ("left", "right") for part in ("thigh", "shank", "foot")}
    parts |= {f"{side}_{part}" for side in ("left", "right") for part in ("upper_arm", "forearm")}
    assert parts <= {capsule.name for capsule in robot.capsules}
    assert len(robot.capsule_pairs) > 50
    poses = robot.model.link_poses(np.stack([robot.neutral, robot.standing]))
    assert capsule_distances(robot.capsules, robot.capsule_pairs, poses).min() > 0.005  # [m]


def test_a_robot_is_the_same_on_both_sides(robot: Robot) -> None:
    """Capsules and postures mirror one another, so that no side was forgotten or mistyped."""
    places = {}
    poses = robot.model.link_poses(robot.standing[None])
    for capsule in robot.capsules:
        turn, place = poses.rotations[0, capsule.link], poses.positions[0, capsule.link]
        places[capsule.name] = np.stack([place + turn @ capsule.start, place + turn @ capsule.end]), capsule.radius
    for name, (ends, radius) in places.items():
        if name.startswith("left_"):
            mirrored, other_radius = places[name.replace("left_", "right_")]
            assert radius == other_radius
            np.testing.assert_allclose(ends, mirrored * [1, -1, 1], atol=1e-3)  # [m]; G1's own offsets are rounded


def test_a_profile_without_a_description_asks_for_one(shared_folder: Path) -> None:
    assert not has_description("pal_talos")
    with pytest.raises(RobotError, match="give the URDF of your own robot, as in 'pal_talos@my_robot.urdf'"):
        load_robot("pal_talos")
    urdf = shared_folder / "robots" / "pal_talos" / "talos_reduced.urdf"
    assert has_description(f"pal_talos@{urdf}")
    assert load_robot(f"pal_talos@{urdf}").description == urdf.read_text(encoding="utf-8")
    with pytest.raises(RobotError, match="'nothing.urdf' of profile 'pal_talos.yaml' cannot be read"):
        load_robot("pal_talos@nothing.urdf")


def test_limits_are_read_for_each_joint(tmp_path: Path, profile: dict) -> None:
    profile["limits"] |= {"velocities": {"waist_yaw_joint": 1.5}, "jerk": 900.0, "jerks": {"left_knee_joint": 800.0}}
    profile["limits"]["root"] = {"speed": 0.7}
    robot = load_robot(write(tmp_path, profile))
    waist, knee = robot.joint_names.index("waist_yaw_joint"), robot.joint_names.index("left_knee_joint")
    assert robot.velocity_limits[waist] == 1.5 and robot.velocity_limits[knee] > 1.5
    assert robot.jerk_limits[knee] == 800.0 and robot.jerk_limits[waist] == 900.0
    assert robot.root_limits == RootLimits(speed=0.7)


def test_a_profile_may_leave_out_collision_jerk_and_root(tmp_path: Path, profile: dict) -> None:
    del profile["collision"], profile["limits"]["root"]
    robot = load_robot(write(tmp_path, profile))
    assert robot.capsules == () and robot.capsule_pairs.shape == (0, 2)
    np.testing.assert_allclose(robot.jerk_limits, 50.0 * robot.acceleration_limits)
    assert robot.root_limits == RootLimits()


def test_ignored_pairs_are_not_checked(tmp_path: Path, profile: dict) -> None:
    before = len(load_robot("unitree_g1").capsule_pairs)
    profile["collision"]["ignore"].append(["left_foot", "right_foot"])
    assert len(load_robot(write(tmp_path, profile)).capsule_pairs) == before - 1


def test_an_unknown_robot_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RobotError, match="'terminator' is unknown. Known robots: .*unitree_g1"):
        load_robot("terminator")


def test_a_profile_loads_from_a_path(tmp_path: Path, profile: dict) -> None:
    assert load_robot(write(tmp_path, profile | {"name": "mine"})).name == "mine"


def test_the_limits_of_a_given_description_hold() -> None:
    text = load_robot("unitree_g1").description.replace('upper="2.8798" velocity="20"', 'upper="2.0" velocity="10"')
    robot = load_robot("unitree_g1", description=text)
    knee = robot.model.joint_index("left_knee_joint")
    assert robot.upper[knee] < 2.0 and robot.velocity_limits[knee] < 10.0


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["limbs", "left_arm", "links", 0], "left_shoulder", "link 'left_shoulder' is not in robot"),
        (["limbs", "left_arm", "human", 0], "left_sholder", "'left_sholder' is not in smpl22"),
        (["limbs", "left_arm", "human"], ["left_wrist"], "1 human joints"),
        (["limbs", "left_arm", "weights", "reach"], -1.0, "limbs.left_arm.weights: 'reach' is -1.0"),
        (["feet", "left", "limb"], "leg", "'leg' is not among the limbs"),
        (["feet", "left", "sole"], [[0, 0]], "any x 3 numbers"),
        (["orientations", "chest"], {"human": "spine3", "link": "torso_link"}, "orientations.chest: 'weight' is None"),
        (["orientations"], {}, "no 'orientations'"),
        (["limits", "velocity_scale"], 2, "at most 1"),
        (["limits", "acceleration"], 0, "must be positive"),
        (["limits", "accelerations", "knee"], 5, "joint 'knee' is not in robot"),
        (["neutral", "left_knee_joint"], "bent", "an angle in radians"),
        (["description"], "nothing.urdf", "cannot be read"),
        (["limits", "jerk"], 0, "must be positive"),
        (["limits", "jerks"], {"left_knee_joint": -1}, "limits: jerks: 'left_knee_joint' is -1"),
        (["limits", "root", "sped"], 1.0, "limits: root has an unknown entry 'sped'. Known: speed, acceleration"),
        (["limits", "velocity"], 1.0, "unknown entry 'velocity'"),
        (["colision"], {}, "unknown entry 'colision'"),
        (["collision", "capsules", "head", "radius"], 0, "capsules.head: 'radius' is 0"),
        (["collision", "capsules", "head", "link"], "head", "link 'head' is not in robot"),
        (["collision", "capsules", "head", "to"], [0, 0], "expected 3 numbers"),
        (["collision", "ignore"], [["head", "tail"]], "expected two of the capsules .*pelvis"),
        (["points"], {"tip": {"link": "pelvis"}}, "points.tip has no 'at'"),
        (["limbs", "left_arm", "weights", "rech"], 1.0, "weights has an unknown entry 'rech'"),
        (["limbs", "left_arm", "human", 0], ["left_hip"], "is not in smpl22"),
        (["collision", "ignore"], 5, "'ignore' is 5, expected list"),
        (["neutral"], [0.1], "neutral is .0.1., expected a mapping"),
        (["standing", "left_knee_joint"], 38.0, "standing.left_knee_joint is 38.0, expected an angle in radians"),
        (["orientations", "left_hand", "rotation"], [90, 0, 0], "expected radians; these look like degrees"),
        (["limits", "acceleration"], 10**400, "expected a number"),
        (["limits", "jerk"], "7.5e3", "Without quotes, and with a point and a sign .*7.5e[+]3"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(
    tmp_path: Path, profile: dict, keys: list, value: object, message: str
) -> None:
    place = profile
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(RobotError, match=message):
        load_robot(write(tmp_path, profile))


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"], ids=["list", "cut short", "binary"])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(RobotError, match="robot.yaml"):
        load_robot(path)


def test_an_entry_that_is_there_twice_is_refused_since_one_of_the_two_would_be_lost(
    tmp_path: Path, profile: dict
) -> None:
    path = write(tmp_path, profile)
    path.write_text(path.read_text() + "limits: {}\n")
    with pytest.raises(RobotError, match="entry 'limits' in line [0-9]+ is there twice"):
        load_robot(path)
