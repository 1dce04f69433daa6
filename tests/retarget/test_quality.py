"""Scores of a retargeted motion."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llamo_ros.benchmark.tables import begin_mark, end_mark
from llamo_ros.core.errors import ShapeError
from llamo_ros.motion.skeleton import JOINT_COUNT
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.retargeter import RobotMotion


def robot_as_human(robot: Robot, frames: int = 12) -> tuple[RobotMotion, np.ndarray]:
    """A robot that stands still, and a human whose limbs lie exactly where the robot's links are."""
    q = np.tile(robot.standing, (frames, 1))
    poses = robot.model.link_poses(q)
    places, links = poses.positions, [robot.limbs[foot.limb].links[2] for foot in robot.feet]
    corners = [places[0, i] + foot.sole @ poses.rotations[0, i].T for foot, i in zip(robot.feet, links, strict=True)]
    root = np.tile([0.0, 0.0, -np.array(corners)[..., 2].min()], (frames, 1))
    human = np.zeros((frames, JOINT_COUNT, 3))
    for limb in robot.limbs:
        human[:, list(limb.human)] = places[:, list(limb.links)] + root[:, None]
    motion = RobotMotion(robot.joint_names, q, root, np.tile([0, 0, 0, 1.0], (frames, 1)), np.ones((frames, 2)), 30.0)
    return motion, human


def test_a_robot_that_is_the_human_has_no_error(g1: Robot) -> None:
    motion, human = robot_as_human(g1)
    scores = score_motion(g1, motion, human, np.ones((12, 2), dtype=bool))
    for name in ("upper_0_deg", "lower_3_deg", "reach_1_cm", "slip_cm_s", "sole_min_cm", "outside_rad", "jerk_rms"):
        assert abs(scores[name]) < 1e-5, name  # acos loses half the digits near 1
    assert scores["slipping"] == 0


def test_a_root_that_drifts_is_a_slip_of_that_speed(g1: Robot) -> None:
    motion, human = robot_as_human(g1)
    drifted = motion.root_positions + np.arange(12)[:, None] / 30 * [0.02, 0, 0]  # 2 cm/s
    motion = RobotMotion(
        g1.joint_names, motion.joint_positions, drifted, motion.root_quaternions, motion.contacts, 30.0
    )
    scores = score_motion(g1, motion, human, np.ones((12, 2), dtype=bool))
    assert scores["slip_cm_s"] == pytest.approx(2.0) and scores["slipping"] == 1


def test_what_cannot_be_measured_is_nan(g1: Robot) -> None:
    motion, human = robot_as_human(g1)
    assert np.isnan(score_motion(g1, motion, human, np.zeros((12, 2), dtype=bool))["slip_cm_s"])


def test_another_number_of_frames_is_refused(g1: Robot) -> None:
    motion, human = robot_as_human(g1)
    with pytest.raises(ShapeError, match="stance"):
        score_motion(g1, motion, human, np.ones((11, 2), dtype=bool))


def test_the_scores_of_a_recorded_method_are_those_measured_elsewhere(
    g1: Robot, benchmark_script: ModuleType, bench_clips: Path
) -> None:
    """GMR on the walk, as scored independently: upper arm 11.1 degrees, hand 2.69 cm, slip 0.70 cm/s, jerk 411."""
    positions, _, stance, rate = benchmark_script.read_clip(bench_clips / "walk.npz")
    motion = benchmark_script.read_gmr(bench_clips / "gmr010_g1_walk.npz", g1, rate)
    scores = score_motion(g1, motion, positions[..., [2, 0, 1]], stance)
    assert np.mean([scores["upper_0_deg"], scores["upper_1_deg"]]) == pytest.approx(11.1, abs=0.1)
    assert np.mean([scores["reach_0_cm"], scores["reach_1_cm"]]) == pytest.approx(2.69, abs=0.02)
    assert scores["slip_cm_s"] == pytest.approx(0.70, abs=0.02)
    assert scores["jerk_rms"] == pytest.approx(411, abs=1)


def test_the_benchmark_prints_its_table(
    benchmark_script: ModuleType, bench_clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["retarget_quality.py", "--clips", str(bench_clips), "--names", "squat"])
    assert benchmark_script.main() == 0
    table = capsys.readouterr().out
    assert "GMR" in table and "hand error" in table and "nan" not in table


def test_the_benchmark_writes_a_table_of_all_robots_and_one_beside_gmr(
    benchmark_script: ModuleType, bench_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    document = tmp_path / "docs" / "robots.md"
    document.write_text(f"{begin_mark('retarget_quality')}\n\n{end_mark('retarget_quality')}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    arguments = ["--clips", str(bench_clips), "--names", "stress", "--robots", "booster_t1", "g1", "--write-docs"]
    monkeypatch.setattr("sys.argv", ["retarget_quality.py", *arguments])
    assert benchmark_script.main() == 0
    lines = document.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("| booster_t1 | stress |") for line in lines)
    assert any(line.startswith("| unitree_g1 | stress |") for line in lines)
    assert "|  | stress: ours | stress: ours, published | stress: GMR |" in lines
    jerk = next(line for line in lines if line.startswith("| jerk RMS"))
    ours, published, gmr = map(float, jerk.strip("|").split("|")[1:])
    assert published <= ours + 1 and ours < gmr


def test_the_benchmark_says_which_clip_is_missing(
    benchmark_script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["retarget_quality.py", "--clips", str(tmp_path), "--names", "walk"])
    assert benchmark_script.main() == 1
    assert "walk.npz" in capsys.readouterr().err
