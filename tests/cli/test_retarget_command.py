"""``llamo retarget``: from a motion file to a robot's, what it tells, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.cli import main, retarget_command
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.files import save_motion
from llamo_ros.retarget.beyondmimic import load_beyondmimic_csv, load_beyondmimic_npz
from llamo_ros.retarget.export import FORMATS
from llamo_ros.retarget.robot_file import load_robot_csv, load_robot_npz
from llamo_ros.retarget.sonic import load_sonic


def retarget(*words: object) -> int:
    return main(["retarget", *(str(word) for word in words)])


@pytest.fixture
def walk(random_clip: Callable[..., MotionClip], tmp_path: Path) -> Path:
    """Two seconds of motion, as .bvh."""
    save_motion(random_clip(frames=60), tmp_path / "walk.bvh")
    return tmp_path / "walk.bvh"


def test_the_help_lists_the_formats_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(retarget_command.FORMATS) == tuple(FORMATS)
    for name, about in retarget_command.FORMATS.items():
        assert f"{FORMATS[name].rate:g} Hz" in about
    with pytest.raises(SystemExit):
        retarget("--help")
    text = capsys.readouterr().out
    assert "llamo retarget walk.bvh --robot g1 -o walk.csv" in text
    assert all(name in text for name in FORMATS)


def test_a_bvh_becomes_a_csv_and_a_summary(walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retarget(walk, "--robot", "g1", "-o", tmp_path / "out" / "walk.csv") == 0
    motion = load_robot_csv(tmp_path / "out" / "walk.csv").motion
    assert len(motion) == 60
    assert motion.frame_rate == 30.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("walk.csv: 60 frames at 30 Hz, 2.00 s, 29 joints of unitree_g1, format csv")
    assert "hand error" in lines[1] and "foot error" in lines[1] and "stance slip" in lines[1]
    assert lines[2].startswith("  clamps: ") and lines[2].endswith("in 1740 joint values")
    assert lines[3].startswith("  root clamps: 0 of speed") and "in 60 frames" in lines[3]
    assert lines[4].startswith("  self-collision: ")
    assert "frames/s" in lines[5]


def test_every_format_can_be_asked_for(walk: Path, tmp_path: Path) -> None:
    common = (walk, "--robot", "unitree_g1", "-o")
    assert retarget(*common, tmp_path / "a.npz", "--rate", 60) == 0
    assert load_robot_npz(tmp_path / "a.npz").motion.frame_rate == 60.0
    assert retarget(*common, tmp_path / "b.csv", "--format", "beyondmimic") == 0
    assert len(load_beyondmimic_csv(tmp_path / "b.csv")) == 60
    assert retarget(*common, tmp_path / "c.npz", "--format", "beyondmimic-npz") == 0
    assert load_beyondmimic_npz(tmp_path / "c.npz").frame_rate == 50.0
    assert retarget(*common, tmp_path / "clips" / "walk") == 0
    assert len(load_sonic(tmp_path / "clips" / "walk")) == len(load_beyondmimic_npz(tmp_path / "c.npz")) == 99


def test_a_part_is_cut_out_and_starts_at_the_origin(walk: Path, tmp_path: Path) -> None:
    assert retarget(walk, "--robot", "g1", "-o", tmp_path / "a.csv", "--start", 0.5, "--end", 1.5) == 0
    motion = load_robot_csv(tmp_path / "a.csv").motion
    assert len(motion) == 30
    np.testing.assert_allclose(motion.root_positions[0, :2], 0.0, atol=1e-6)


def test_limits_can_be_left_out(walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retarget(walk, "--robot", "g1", "-o", tmp_path / "a.csv", "--no-limits") == 0
    assert "velocity, acceleration and jerk not limited" in capsys.readouterr().out


def test_amass_is_read_at_its_own_rate_and_put_on_its_floor(tmp_path: Path) -> None:
    path, count = tmp_path / "amass.npz", 240
    poses = np.zeros((count, 156))
    poses[:, 0] = np.pi / 2  # upright, where z is up
    np.savez(path, poses=poses, trans=np.tile([3.0, 2.0, 5.0], (count, 1)), mocap_framerate=120.0)
    assert retarget(path, "--robot", "g1", "-o", tmp_path / "a.csv") == 0
    motion = load_robot_csv(tmp_path / "a.csv").motion
    assert len(motion) == 60
    assert abs(motion.root_positions[:, 2] - 0.79).max() < 0.05  # the G1's pelvis with legs stretched
    np.testing.assert_allclose(motion.root_positions[0, :2], 0.0, atol=1e-3)  # feet that stand are put where they are


def test_what_cannot_be_done_is_refused(
    walk: Path, motion_file: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = ("-o", tmp_path / "x.csv")
    assert "unitree_g1" in refused("retarget", walk, "--robot", "c3po", *out)
    assert "no such file" in refused("retarget", tmp_path / "none.bvh", "--robot", "g1", *out).lower()
    (tmp_path / "bad.bvh").write_text("not motion", encoding="utf-8")
    assert "bad.bvh" in refused("retarget", tmp_path / "bad.bvh", "--robot", "g1", *out)
    assert ".bvh, .npz" in refused("retarget", tmp_path / "x.fbx", "--robot", "g1", *out)
    assert "expected .csv, .npz" in refused("retarget", walk, "--robot", "g1", "-o", tmp_path / "x.pkl")
    assert "always at 50 Hz" in refused("retarget", walk, "--robot", "g1", "-o", tmp_path / "x", "--rate", 30)
    assert "at most 1000" in refused("retarget", walk, "--robot", "g1", *out, "--rate", 1e9)
    assert "lasts 2.00 s" in refused("retarget", walk, "--robot", "g1", *out, "--start", 2)
    assert "between" in refused("retarget", walk, "--robot", "g1", *out, "--start", 1, "--end", 0.5)
    assert "is a folder" in refused("retarget", walk, "--robot", "g1", *out, "--format", "sonic")
    (tmp_path / "taken").write_text("", encoding="utf-8")
    assert "is a file" in refused("retarget", walk, "--robot", "g1", "-o", tmp_path / "taken")
    assert "cannot be made" in refused("retarget", walk, "--robot", "g1", "-o", tmp_path / "taken" / "x.csv")
    assert not (tmp_path / "x.csv").exists()
