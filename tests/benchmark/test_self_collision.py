"""Self-collision: what counts as far apart, as deep, and as the robot's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llamo_ros.benchmark.mujoco_robot import hinge_names, read_spec, shapes_of, to_qpos
from llamo_ros.benchmark.physics import read_physics
from llamo_ros.benchmark.self_collision import links_apart, self_collision
from llamo_ros.core.errors import ShapeError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.profile import load_robot

LENGTH, RADIUS = 0.3, 0.02
FLOOR = '<geom name="floor" type="plane" size="0 0 0.1"/>'


def chain(links: int = 6) -> object:
    """Rods of 0.3 m on a base, each hinged to the last about y, upwards at zero, and a floor."""
    mujoco = pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'llamo-ros[bench]'")
    rod = f'<geom type="capsule" size="{RADIUS}" fromto="0 0 0.05 0 0 {LENGTH - 0.05}"/>'
    text = ""
    for number in reversed(range(links)):
        place = 0 if number == 0 else LENGTH
        text = f'<body name="rod{number}" pos="0 0 {place}"><joint name="j{number}" axis="0 1 0"/>{rod}{text}</body>'
    base = '<freejoint/><geom size="0.01"/>'
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody>{FLOOR}<body name="base">{base}{text}</body></worldbody></mujoco>'
    )


def posture(*angles: float, height: float = 5.0) -> np.ndarray:
    return np.array([[0, 0, height, 1, 0, 0, 0, *angles]])


SQUARE = (0.0, np.pi / 2, np.pi / 2, np.pi / 2, np.pi / 2, 0.0)  # the fifth rod lies on the first


def test_links_apart_counts_the_joints_between() -> None:
    apart = links_apart(chain())
    assert apart[2, 2] == 0 and apart[2, 3] == 1 and apart[2, 6] == 4 and apart[0, 7] == 7
    np.testing.assert_array_equal(apart, apart.T)


def test_a_straight_chain_is_free_and_a_closed_one_collides() -> None:
    model = chain()
    free, closed = posture(*[0.0] * 6), posture(*SQUARE)
    found = self_collision(model, np.concatenate([free, closed, free, closed]), first=0)
    assert found.share == found.share_with_floor == 0.5
    assert found.pairs[("rod0", "rod4")] == 2
    assert found.deepest_mm == pytest.approx(2000 * RADIUS)  # their axes meet
    assert self_collision(model, np.concatenate([closed, free]), first=1).share == 0


def test_neighbours_and_a_touch_are_no_collision() -> None:
    folded = posture(0.0, np.pi - 0.05)  # the second rod lies along the first, one joint apart
    assert self_collision(chain(2), folded, first=0).share == 0
    at_zero = posture(0.0, 0.0, 0.0, 0.0)
    for deep, share in ((0.001, 0), (0.003, 1)):  # [m]; 2 mm is the limit
        assert self_collision(_two_rods(2 * RADIUS - deep), at_zero, first=0).share == share


def _two_rods(beside: float) -> object:
    """Two parallel rods whose axes are this far apart, [m], with four joints between them."""
    mujoco = pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'llamo-ros[bench]'")
    rod = f'<geom type="capsule" size="{RADIUS}" fromto="0 0 0 0 0 0.2"/>'
    inner = f'<body name="last" pos="{beside} 0 0"><joint/>{rod}</body>'
    for number in range(3):
        inner = f'<body name="b{number}"><joint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>{inner}</body>'
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><body name="first"><freejoint/>{rod}{inner}</body></worldbody></mujoco>'
    )


def test_the_floor_is_no_body_of_the_robot_but_is_told_apart() -> None:
    lying = posture(np.pi / 2, 0, 0, 0, 0, 0, height=0.0)  # the rods are half in the floor
    found = self_collision(chain(), lying, first=0)
    assert found.share == 0 and found.share_with_floor == 1 and not found.pairs


def test_a_motion_of_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match="qpos"):
        self_collision(chain(), posture(0.0), first=0)
    with pytest.raises(ShapeError, match="more than 5"):
        self_collision(chain(), posture(*[0.0] * 6))


def test_the_g1_of_shapes_stands_free_and_collides_with_crossed_legs(g1_mjcf: Path) -> None:
    robot = load_robot("unitree_g1")
    facts = read_physics(config_path("benchmark", "unitree_g1_physics.yaml"))
    model = read_spec(g1_mjcf, shapes_of(facts["shapes"]))[0].compile()
    bare = read_spec(g1_mjcf)[0].compile()
    crossed = robot.standing.copy()
    for side, inwards in (("left", -0.4), ("right", 0.4)):
        crossed[robot.model.joint_index(f"{side}_hip_roll_joint")] = inwards
    for joints, share in ((robot.standing, 0), (crossed, 1)):
        qpos = to_qpos(
            robot.joint_names, joints[None], np.array([[0, 0, 3.0]]), np.array([[0, 0, 0, 1.0]]), hinge_names(model)
        )
        found = self_collision(model, qpos, first=0)
        assert found.share == share
        assert self_collision(bare, qpos, first=0).share == 0  # without meshes hardly anything is left to collide
    assert any("left" in pair[0] + pair[1] and "right" in pair[0] + pair[1] for pair in found.pairs)


def test_recorded_motion_scores_as_measured_on_the_meshes_plus_what_shapes_add(
    g1_mjcf: Path, shared_folder: Path
) -> None:
    """GMR on the stress clip: 12.5 % of frames on the meshes, 62.7 % if the floor counts, as recorded elsewhere."""
    recording = shared_folder / "robots" / "bench_clips" / "gmr010_g1_stress.npz"
    if not recording.is_file():
        pytest.skip("GMR's recordings (../shared/robots/bench_clips) are not here")
    facts = read_physics(config_path("benchmark", "unitree_g1_physics.yaml"))
    model = read_spec(g1_mjcf, shapes_of(facts["shapes"]))[0].compile()
    with np.load(recording, allow_pickle=False) as file:
        found = self_collision(model, file["qpos"].astype(np.float64))
    assert 0.125 <= found.share < 0.20
    assert 0.627 <= found.share_with_floor < 0.68
