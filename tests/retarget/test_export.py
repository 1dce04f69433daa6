"""Files for trackers: read back by our readers, and as the trackers themselves read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError, ParameterError, RobotError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.beyondmimic import load_beyondmimic_csv, load_beyondmimic_npz
from llamo_ros.retarget.export import FORMATS, export_format, export_motion, export_rate
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.retarget.robot_file import load_robot_csv, load_robot_npz
from llamo_ros.retarget.sonic import load_sonic
from llamo_ros.retarget.tracker_motion import TrackerMotion, tracker_motion

# Joint columns that BeyondMimic's csv_to_npz expects of a G1, sides and parts written out.
_LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
_ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
BEYONDMIMIC_JOINTS = (
    *(f"{side}_{part}_joint" for side in ("left", "right") for part in _LEG),
    *(f"waist_{part}_joint" for part in ("yaw", "roll", "pitch")),
    *(f"{side}_{part}_joint" for side in ("left", "right") for part in _ARM),
)


@pytest.fixture(scope="module")
def motion(g1: Robot, random_clip: Callable[..., MotionClip]) -> RobotMotion:
    return Retargeter(g1).retarget(random_clip(frames=16))


def assert_same(first: TrackerMotion, second: TrackerMotion, tolerance: float) -> None:
    assert first.joint_names == second.joint_names
    assert first.body_names == second.body_names
    assert first.frame_rate == second.frame_rate
    for name in ("joint_positions", "joint_velocities", "body_positions", "body_quaternions"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)
    for name in ("body_linear_velocities", "body_angular_velocities"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)


def test_beyondmimic_csv_comes_back(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    written = export_motion(g1, motion, tmp_path / "x.csv", "beyondmimic").motion
    assert written.frame_rate == 30.0
    back = load_beyondmimic_csv(tmp_path / "x.csv")
    assert back.joint_names == BEYONDMIMIC_JOINTS
    assert back.frame_rate == 30.0
    for name in ("joint_positions", "root_positions", "root_quaternions"):
        np.testing.assert_allclose(getattr(back, name), getattr(written, name), rtol=0, atol=1e-9)


def test_beyondmimic_csv_is_plain_numbers_to_numpy(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    export_motion(g1, motion, tmp_path / "x.csv", "beyondmimic")
    table = np.loadtxt(tmp_path / "x.csv", delimiter=",")  # as csv_to_npz reads it
    assert table.shape == (16, 36)
    np.testing.assert_allclose(table[:, :3], motion.root_positions, atol=1e-9)
    np.testing.assert_allclose(table[:, 3:7], motion.root_quaternions, atol=1e-9)  # x y z w
    first_line = (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith("# rate 30 Hz; world x forward, y left, z up; metres, radians; quaternion x y z w")


def test_beyondmimic_csv_without_a_comment_needs_names(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", np.ones((3, 9)), delimiter=",")
    with pytest.raises(ParameterError, match="joint_names"):
        load_beyondmimic_csv(tmp_path / "x.csv")
    with pytest.raises(MotionFileError, match="9 columns"):
        load_beyondmimic_csv(tmp_path / "x.csv", ("a",))
    assert load_beyondmimic_csv(tmp_path / "x.csv", ("a", "b")).frame_rate == 30.0
    assert load_beyondmimic_csv(tmp_path / "x.csv", ("a", "b"), 60.0).frame_rate == 60.0


def test_beyondmimic_npz_comes_back(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    written = tracker_motion(g1.model, export_motion(g1, motion, tmp_path / "x.npz", "beyondmimic-npz"))
    assert written.frame_rate == 50.0
    assert_same(load_beyondmimic_npz(tmp_path / "x.npz"), written, 1e-5)  # single precision, speeds up to 50


def test_beyondmimic_npz_is_what_its_loader_reads(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    frames = len(export_motion(g1, motion, tmp_path / "x.npz", "beyondmimic-npz"))
    with np.load(tmp_path / "x.npz") as data:
        assert data["fps"].tolist() == [50]
        assert data["joint_pos"].shape == data["joint_vel"].shape == (frames, 29)
        assert data["body_pos_w"].shape == data["body_lin_vel_w"].shape == data["body_ang_vel_w"].shape
        assert data["body_quat_w"].shape == (frames, 30, 4)
        assert data["body_quat_w"].dtype == np.float32
        np.testing.assert_allclose(data["body_quat_w"][0, 0], motion.root_quaternions[0][[3, 0, 1, 2]], atol=1e-6)
        assert data["joint_names"][:3].tolist() == [
            "left_hip_pitch_joint",
            "right_hip_pitch_joint",
            "waist_yaw_joint",
        ]
        assert "w x y z" in str(data["conventions"])


def test_a_recorded_beyondmimic_npz_without_names_is_read(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    export_motion(g1, motion, tmp_path / "x.npz", "beyondmimic-npz")
    with np.load(tmp_path / "x.npz") as data:
        content = {key: data[key] for key in data.files}
    np.savez(tmp_path / "y.npz", **{k: v for k, v in content.items() if k not in ("joint_names", "body_names")})
    assert load_beyondmimic_npz(tmp_path / "y.npz").joint_names[:2] == ("joint_0", "joint_1")
    np.savez(tmp_path / "y.npz", **{k: v for k, v in content.items() if k != "joint_vel"})
    with pytest.raises(MotionFileError, match="joint_vel"):
        load_beyondmimic_npz(tmp_path / "y.npz")


def test_sonic_comes_back(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    written = tracker_motion(g1.model, export_motion(g1, motion, tmp_path / "wave"))
    assert_same(load_sonic(tmp_path / "wave"), written, 1e-9)


def test_sonic_is_what_its_reader_expects(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    frames = len(export_motion(g1, motion, tmp_path / "wave", "sonic"))
    columns = {"joint_pos": 29, "joint_vel": 29, "body_pos": 90, "body_quat": 120, "body_lin_vel": 90}
    for name, count in (columns | {"body_ang_vel": 90}).items():
        lines = (tmp_path / "wave" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == frames + 1  # the reader skips the first line
        assert all(len(line.split(",")) == count for line in lines)
    assert lines[0].startswith("body_0_x,body_0_y,body_0_z,body_1_x")
    heads = [(tmp_path / "wave" / f"{name}.csv").read_text(encoding="utf-8")[:30] for name in list(columns)[:4]]
    assert [head[:10] for head in heads] == ["joint_0,jo", "joint_vel_", "body_0_x,b", "body_0_w,b"]
    lines = (tmp_path / "wave" / "metadata.txt").read_text(encoding="utf-8").splitlines()
    indices = lines[lines.index("Body part indexes:") + 1]
    assert [int(word) for word in re.findall(r"\d+", indices)] == list(range(30))
    assert f"Total timesteps: {frames}" in lines
    assert any(line.startswith("Joint names: left_hip_pitch_joint right_hip_pitch_joint") for line in lines)


def test_a_sonic_folder_with_a_part_of_the_bodies_and_no_names_is_read(
    g1: Robot, motion: RobotMotion, tmp_path: Path
) -> None:
    written = tracker_motion(g1.model, export_motion(g1, motion, tmp_path / "wave"))
    folder = tmp_path / "wave"
    for name, width in (("body_pos", 3), ("body_quat", 4), ("body_lin_vel", 3), ("body_ang_vel", 3)):
        lines = (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        keep = [i for body in (0, 9) for i in range(width * body, width * body + width)]
        cut = [",".join(line.split(",")[i] for i in keep) for line in lines]
        (folder / f"{name}.csv").write_text("\n".join(cut), encoding="utf-8")
    (folder / "metadata.txt").write_text("Body part indexes:\n[ 0  9]\n", encoding="utf-8")
    back = load_sonic(folder)
    assert back.body_names == ("body_0", "body_9")
    np.testing.assert_allclose(back.body_positions, written.body_positions[:, [0, 9]], atol=1e-9)


@pytest.mark.parametrize("damage", ["metadata.txt", "joint_pos.csv", "indices", "rows"])
def test_a_damaged_sonic_folder_is_refused(damage: str, g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    export_motion(g1, motion, tmp_path / "wave")
    if damage == "indices":
        (tmp_path / "wave" / "metadata.txt").write_text("Total timesteps: 3\n", encoding="utf-8")
    elif damage == "rows":
        path = tmp_path / "wave" / "body_pos.csv"
        path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    else:
        (tmp_path / "wave" / damage).unlink()
    with pytest.raises(MotionFileError):
        load_sonic(tmp_path / "wave")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_at_its_rate(name: str, g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    path = tmp_path / f"x{FORMATS[name].suffix}"
    trajectory = export_motion(g1, motion, path, name)
    assert path.exists()
    assert trajectory.motion.frame_rate == FORMATS[name].rate
    assert (trajectory.motion.joint_positions >= g1.lower - 1e-9).all()
    assert (trajectory.motion.joint_positions <= g1.upper + 1e-9).all()


def test_the_suffix_chooses_our_own_format_and_another_rate_is_kept(
    g1: Robot, motion: RobotMotion, tmp_path: Path
) -> None:
    assert [export_format(name) for name in ("a.csv", "a.NPZ", "folder")] == ["csv", "npz", "sonic"]
    export_motion(g1, motion, tmp_path / "x.csv", rate=100.0)
    assert load_robot_csv(tmp_path / "x.csv").motion.frame_rate == 100.0
    export_motion(g1, motion, tmp_path / "x.npz", rate=29.97)
    assert load_robot_npz(tmp_path / "x.npz").motion.frame_rate == 29.97


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("x.txt", None, "expected .csv, .npz"),
        ("x.csv", "gmr", "Known formats: csv, npz, beyondmimic"),
        ("x.csv", "npz", "ends in '.npz'"),
        ("x", "beyondmimic", "ends in '.csv'"),
        ("x.csv", "sonic", "is a folder"),
    ],
)
def test_formats_that_do_not_fit_the_path_are_refused(path: str, name: str | None, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        export_format(path, name)


def test_what_cannot_be_written_is_refused(g1: Robot, motion: RobotMotion, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="always at 50 Hz"):
        export_rate("sonic", 30.0)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MotionFileError, match="cannot be made"):
        export_motion(g1, motion, tmp_path / "file", "sonic")
    for name in ("beyondmimic", "beyondmimic-npz"):
        with pytest.raises(MotionFileError, match="cannot be written"):
            export_motion(g1, motion, tmp_path / "no" / f"x{FORMATS[name].suffix}", name)
    other = RobotMotion(("a",), np.zeros((2, 1)), np.zeros((2, 3)), np.eye(4)[[3, 3]], np.zeros((2, 0)), 30.0)
    with pytest.raises(RobotError, match="another robot"):
        export_motion(g1, other, tmp_path / "x.csv")
