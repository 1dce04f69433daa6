"""Reading a URDF, forward kinematics and Jacobians."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from llamo_ros.core.errors import RobotError, ShapeError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.robot import RobotModel, robot_from_urdf

# A turning joint on a tilted origin, a fixed one, a sliding one and a side branch, listed children first.
TINY = """<robot name="tiny">
  <link name="tip"/> <link name="base"/> <link name="arm"/> <link name="plate"/> <link name="side"/>
  <joint name="slide" type="prismatic">
    <parent link="plate"/> <child link="tip"/> <origin xyz="0 0 0.2"/> <axis xyz="0 1 1"/>
    <limit lower="-0.1" upper="0.3" velocity="0.5" effort="1"/>
  </joint>
  <joint name="lift" type="revolute">
    <parent link="base"/> <child link="arm"/> <origin xyz="0.1 0.2 0.3" rpy="0.4 -0.5 0.6"/> <axis xyz="0 2 0"/>
    <limit lower="-1" upper="2" velocity="3" effort="1"/>
  </joint>
  <joint name="weld" type="fixed">
    <parent link="arm"/> <child link="plate"/> <origin xyz="0.5 0 0" rpy="0 0 1.5"/>
  </joint>
  <joint name="spin" type="continuous">
    <parent link="base"/> <child link="side"/> <axis xyz="1 0 0"/> <limit velocity="7" effort="1"/>
  </joint>
</robot>"""


@pytest.fixture
def tiny() -> RobotModel:
    return robot_from_urdf(TINY)


def random_configurations(model: RobotModel, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(model.lower, model.upper, (count, model.joint_count))


def test_joints_keep_the_order_of_the_urdf_and_links_follow_their_parents(tiny: RobotModel) -> None:
    assert tiny.joint_names == ("slide", "lift", "spin")
    assert tiny.link_names[0] == "base" and set(tiny.link_names) == {"base", "arm", "side", "plate", "tip"}
    assert all(parent < link for link, parent in enumerate(tiny.parents))
    np.testing.assert_array_equal(tiny.velocity_limits, [0.5, 3.0, 7.0])
    np.testing.assert_allclose(tiny.upper, [0.3, 2.0, np.pi])


def test_forward_kinematics_agrees_with_rotations_written_out_by_hand(tiny: RobotModel) -> None:
    slide, lift, spin = 0.13, 0.7, -1.1
    poses = tiny.link_poses(np.array([[slide, lift, spin]]))
    arm = Rotation.from_euler("xyz", [0.4, -0.5, 0.6]) * Rotation.from_euler("y", lift)
    plate = arm * Rotation.from_euler("z", 1.5)
    tip = np.array([0.1, 0.2, 0.3]) + arm.apply([0.5, 0, 0])
    tip = tip + plate.apply(np.array([0, 0, 0.2]) + slide * np.array([0, 1, 1]) / np.sqrt(2))
    index = tiny.link_index("tip")
    np.testing.assert_allclose(poses.positions[0, index], tip, atol=1e-14)
    np.testing.assert_allclose(poses.rotations[0, index], plate.as_matrix(), atol=1e-14)
    np.testing.assert_allclose(
        poses.rotations[0, tiny.link_index("side")], Rotation.from_euler("x", spin).as_matrix(), atol=1e-14
    )


@pytest.mark.parametrize("name", ["tiny", "unitree_g1", "booster_t1"])
def test_jacobians_agree_with_finite_differences(name: str) -> None:
    text = TINY if name == "tiny" else config_path("robots", f"{name}.urdf").read_text(encoding="utf-8")
    model = robot_from_urdf(text)
    q, links, step = random_configurations(model, 3), np.arange(len(model.link_names)), 1e-6
    poses = model.link_poses(q)
    position, rotation = model.position_jacobian(poses, links), model.rotation_jacobian(poses, links)
    for joint in range(model.joint_count):
        ahead, behind = (model.link_poses(q + sign * step * np.eye(model.joint_count)[joint]) for sign in (1, -1))
        moved = (ahead.positions - behind.positions) / (2 * step)
        turned = Rotation.from_matrix((ahead.rotations @ np.swapaxes(behind.rotations, -1, -2)).reshape(-1, 3, 3))
        turned = turned.as_rotvec().reshape(moved.shape) / (2 * step)
        # central differences are good to step^2 = 1e-12, rounding to 1e-16 / step = 1e-10
        np.testing.assert_allclose(position[..., joint], moved, atol=1e-8)
        np.testing.assert_allclose(rotation[..., joint], turned, atol=1e-8)


def test_frames_of_a_batch_do_not_depend_on_one_another(tiny: RobotModel) -> None:
    q = random_configurations(tiny, 5)
    together = tiny.link_poses(q).positions
    np.testing.assert_array_equal(together, np.concatenate([tiny.link_poses(row[None]).positions for row in q]))


def test_the_shipped_g1_agrees_with_the_manufacturers_description(shared_folder: Path) -> None:
    ours = robot_from_urdf(config_path("robots", "unitree_g1.urdf").read_text(encoding="utf-8"))
    upstream = shared_folder / "robots" / "unitree_g1" / "g1_29dof_rev_1_0.urdf"
    theirs = robot_from_urdf(upstream.read_text(encoding="utf-8"))
    assert ours.joint_names == theirs.joint_names
    np.testing.assert_allclose(ours.lower, theirs.lower, atol=1e-5)  # ours are rounded to 5 or 6 digits
    np.testing.assert_allclose(ours.upper, theirs.upper, atol=1e-5)
    np.testing.assert_array_equal(ours.velocity_limits, theirs.velocity_limits)
    q = random_configurations(ours, 50)
    links = [theirs.link_index(name) for name in ours.link_names]
    error = np.linalg.norm(ours.link_poses(q).positions - theirs.link_poses(q).positions[:, links], axis=-1).max(axis=0)
    # Upstream has offsets and angles of 1e-4 at ankles and shoulders that carry no information; the rest is the same.
    same = [
        name for name in ours.link_names if not any(part in name for part in ("ankle", "shoulder", "elbow", "wrist"))
    ]
    assert len(same) == 12
    assert max(error[ours.link_index(name)] for name in same) < 1e-6
    assert error.max() < 3e-4


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [("unitree_h1", "unitree_h1", "h1"), ("booster_t1", "booster_t1", "T1_23dof")],
    ids=["unitree_h1", "booster_t1"],
)
def test_other_shipped_descriptions_are_the_manufacturers(
    shared_folder: Path, name: str, folder: str, file: str
) -> None:
    ours_text = config_path("robots", f"{name}.urdf").read_text(encoding="utf-8")
    theirs_text = (shared_folder / "robots" / folder / f"{file}.urdf").read_text(encoding="utf-8")
    ours, theirs = robot_from_urdf(ours_text), robot_from_urdf(theirs_text)
    assert ours.joint_names == theirs.joint_names
    np.testing.assert_array_equal(ours.lower, theirs.lower)
    np.testing.assert_array_equal(ours.upper, theirs.upper)
    np.testing.assert_array_equal(ours.velocity_limits, theirs.velocity_limits)
    assert efforts(ours_text) == efforts(theirs_text)
    q = random_configurations(ours, 50)
    poses, upstream = ours.link_poses(q), theirs.link_poses(q)
    links = [theirs.link_index(link) for link in ours.link_names]
    assert len(links) >= theirs.joint_count + 1  # all but sensors and logos
    # Offsets and angles are typed with all their digits: only rounding of a few of them at the sixth is left.
    np.testing.assert_allclose(poses.positions, upstream.positions[:, links], atol=1e-5)
    np.testing.assert_allclose(poses.rotations, upstream.rotations[:, links], atol=1e-5)


def efforts(text: str) -> dict[str, float]:
    """Effort limit of each movable joint of a URDF, [N m]."""
    joints = ElementTree.fromstring(text).findall("joint")
    return {
        joint.get("name"): float(limit.get("effort")) for joint in joints if (limit := joint.find("limit")) is not None
    }


@pytest.mark.parametrize(
    ("folder", "name", "joints"),
    [("unitree_h1", "h1", 19), ("booster_t1", "T1_23dof", 23), ("pal_talos", "talos_reduced", 32)],
)
def test_other_manufacturers_descriptions_load(shared_folder: Path, folder: str, name: str, joints: int) -> None:
    model = robot_from_urdf((shared_folder / "robots" / folder / f"{name}.urdf").read_text(encoding="utf-8"))
    assert model.joint_count == joints


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("<robot", "<robot><"), "not valid XML"),
        (('<robot name="tiny">', '<!DOCTYPE x [<!ENTITY a "b">]><robot name="tiny">'), "DOCTYPE"),
        (('link="plate"/> <child', 'link="plaet"/> <child'), "'plaet'"),
        (('child link="side"', 'child link="arm"'), "two joints"),
        (('name="side"/>', 'name="side"/> <link name="lost"/>'), "2 root links"),
        (('name="spin"', 'name="lift"'), "2 joints called 'lift'"),
        (('velocity="3"', 'velocity="0"'), "'lift'"),
        (('velocity="3"', ""), "'lift'"),
        (('lower="-1"', 'lower="nan"'), "'lift'"),
        (('xyz="0.1 0.2 0.3"', 'xyz="0.1 0.2"'), "3 finite numbers"),
        (('<axis xyz="0 2 0"/>', '<axis xyz="0 0 0"/>'), "no length"),
        (('<limit velocity="7" effort="1"/>', ""), "'spin' has no <limit>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_urdf_is_refused_with_the_place_of_the_damage(change: tuple[str, str], message: str) -> None:
    assert change[0] in TINY
    with pytest.raises(RobotError, match=message):
        robot_from_urdf(TINY.replace(change[0], change[1], 1))


def test_an_unknown_link_is_answered_with_those_there_are(tiny: RobotModel) -> None:
    with pytest.raises(RobotError, match="'hand' is not in robot 'tiny'. Known links: base, "):
        tiny.link_index("hand")


def test_a_configuration_of_another_robot_is_refused(tiny: RobotModel) -> None:
    with pytest.raises(ShapeError, match=r"\(T, 3\)"):
        tiny.link_poses(np.zeros((2, 29)))


def test_the_room_does_not_load_torch() -> None:
    code = "import sys, llamo_ros.retarget.retargeter, llamo_ros.retarget.trajectory; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


LOOP = """<robot name="loop"><link name="base"/><link name="a"/><link name="b"/>
  <joint name="ab" type="revolute"><parent link="a"/><child link="b"/><limit lower="-1" upper="1" velocity="1"/></joint>
  <joint name="ba" type="revolute"><parent link="b"/><child link="a"/><limit lower="-1" upper="1" velocity="1"/></joint>
  </robot>"""


def test_links_in_a_loop_beside_the_tree_are_refused() -> None:
    with pytest.raises(RobotError, match="links a, b hang on one another in a loop"):
        robot_from_urdf(LOOP)


def test_a_turning_joint_whose_limits_are_the_largest_numbers_there_are_is_a_continuous_one() -> None:
    limits = 'lower="-1.7976931348623157e+308" upper="1.7976931348623157e+308"'
    tree = LOOP.replace('<parent link="b"/>', '<parent link="base"/>').replace('lower="-1" upper="1"', limits)
    model = robot_from_urdf(tree)
    np.testing.assert_allclose([model.lower, model.upper], [[-np.pi] * 2, [np.pi] * 2])
    with pytest.raises(RobotError, match="joint 'ab' has limits .* which no joint reaches"):
        robot_from_urdf(tree.replace("revolute", "prismatic"))
