"""A robot in MuJoCo: joints are matched by name, meshes may be missing, shapes are mirrored."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.benchmark.mujoco_robot import (
    from_qpos,
    hinge_names,
    import_mujoco,
    read_spec,
    shapes_of,
    to_qpos,
)
from llamo_ros.core.errors import BackendError, RobotError, ShapeError
from llamo_ros.motion.rotations import quaternion_xyzw_to_matrix
from llamo_ros.retarget.profile import load_robot

ARM = """<mujoco>
  <worldbody><body name="base"><freejoint/><geom size="0.1"/>
    <body name="upper" pos="0 0 1"><joint name="shoulder"/><geom size="0.1"/>
      <body name="lower" pos="0 0 1"><joint name="elbow"/><geom size="0.1"/></body></body></body></worldbody>
</mujoco>"""


def test_joints_are_matched_by_name_and_quaternions_turned_round() -> None:
    positions, root = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0, 5.0]])
    quaternion = np.array([[0.1, 0.2, 0.3, 0.9]])  # xyzw
    qpos = to_qpos(("elbow", "shoulder"), positions, root, quaternion, ("shoulder", "elbow"))
    np.testing.assert_array_equal(qpos, [[3, 4, 5, 0.9, 0.1, 0.2, 0.3, 2, 1]])
    back = from_qpos(qpos, ("shoulder", "elbow"), ("elbow", "shoulder"))
    for actual, wanted in zip(back, (positions, root, quaternion), strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_a_joint_that_only_one_side_has_is_named() -> None:
    arrays = np.zeros((1, 2)), np.zeros((1, 3)), np.zeros((1, 4))
    with pytest.raises(RobotError, match="only one of them has knee, wrist"):
        to_qpos(("elbow", "wrist"), *arrays, ("elbow", "knee"))
    with pytest.raises(ShapeError, match="joint_positions"):
        to_qpos(("elbow",), *arrays, ("elbow",))


def test_shapes_of_the_left_are_mirrored_to_the_right() -> None:
    shapes = shapes_of({"left_arm": [{"box": [1, 2, 3, 4, 5, 6], "turned": [0.1, 0.2, 0.3]}], "torso": []})
    assert shapes["right_arm"] == [{"box": [1, -2, 3, 4, 5, 6], "turned": [-0.1, 0.2, -0.3]}]
    assert shapes_of({"left_leg": [{"capsule": [1, 2, 3, 4, 5, 6, 7]}]})["right_leg"] == [
        {"capsule": [1, -2, 3, 4, -5, 6, 7]}
    ]
    assert set(shapes) == {"left_arm", "right_arm", "torso"}


def test_without_mujoco_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(BackendError, match=r"pip install 'llamo-ros\[bench\]'"):
        import_mujoco()


def test_files_that_are_no_robot_are_refused(tmp_path: Path) -> None:
    mujoco = pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'llamo-ros[bench]'")
    with pytest.raises(RobotError, match="no MJCF at"):
        read_spec(tmp_path / "missing.xml")
    path = tmp_path / "broken.xml"
    path.write_text("<mujoco><nonsense/></mujoco>")
    with pytest.raises(RobotError, match="no MJCF that MuJoCo can read"):
        read_spec(path)
    path.write_text(ARM)
    with pytest.raises(RobotError, match="'hand', which the MJCF"):
        read_spec(path, {"hand": [{"capsule": [0, 0, 0, 0, 0, 1, 0.1]}]})
    assert hinge_names(read_spec(path)[0].compile()) == ("shoulder", "elbow")
    with pytest.raises(RobotError, match="no floating robot"):
        hinge_names(mujoco.MjModel.from_xml_string(ARM.replace("<freejoint/>", "")))


def test_the_package_and_the_mjcf_put_every_link_in_the_same_place(g1_mjcf: Path) -> None:
    """Joint order, signs and the quaternion's order at once: forward kinematics of both agree on a random posture."""
    mujoco, robot, random = import_mujoco(), load_robot("unitree_g1"), np.random.default_rng(0)
    spec, made_of = read_spec(g1_mjcf)
    model = spec.compile()
    assert made_of == "shapes" and model.nmesh == 0  # the shared folder holds no meshes
    assert set(hinge_names(model)) == set(robot.joint_names)
    joints = random.uniform(robot.lower, robot.upper)[None]
    root, quaternion = random.normal(size=(1, 3)), random.normal(size=(1, 4))
    quaternion /= np.linalg.norm(quaternion)
    data = mujoco.MjData(model)
    data.qpos[:] = to_qpos(robot.joint_names, joints, root, quaternion, hinge_names(model))[0]
    mujoco.mj_kinematics(model, data)
    places = root[0] + robot.model.link_poses(joints).positions[0] @ quaternion_xyzw_to_matrix(quaternion)[0].T
    for number in range(1, model.nbody):
        body = model.body(number).name
        expected = places[robot.model.link_index(body)]
        # 0.1 mm: the MJCF rounds its quaternions to six digits
        np.testing.assert_allclose(data.xpos[number], expected, atol=1e-4, err_msg=body)
