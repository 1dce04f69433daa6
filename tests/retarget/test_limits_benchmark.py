from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llamo_ros.benchmark.robot_limits import LimitJudge
from llamo_ros.retarget.profile import load_robot

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "retarget_limits.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_limit_is_broken_on_clips_a_switch_and_frames_at_random(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, bench_clips: Path, tmp_path: Path
) -> None:
    written = tmp_path / "limits.json"
    arguments = ["--clips", str(bench_clips), "--robots", "unitree_g1", "--generated", "0", "--frames", "1200"]
    monkeypatch.setattr("sys.argv", [SCRIPT.name, *arguments, "--json", str(written)])
    assert script.main() == 0
    result = json.loads(written.read_text())
    rows = {row["part"]: row for row in result["rows"]}
    assert list(rows) == ["walk", "squat", "stress", "switch", "human", "robot"]
    assert all(row["violations"] == 0 and max(row["shares"].values()) <= 1 + 1e-6 for row in rows.values())
    assert rows["switch"]["frames"] == 450
    assert rows["switch"]["fastest_rad_s"] < 18.5  # half of the URDF's fastest joint; GMR gives out 35.3
    assert rows["walk"]["off_percent"] == 0  # followed exactly
    assert rows["robot"]["refused_chunks"] > 20  # with NaN or of another shape
    assert rows["human"]["refused_chunks"] > 20
    assert "| unitree_g1 | switch | 450 | 0 |" in script._tables(result)


def test_the_judge_sees_each_kind_of_violation() -> None:
    robot = load_robot("unitree_g1")
    still = np.tile(robot.standing, (8, 1))
    places, turns = np.zeros((8, 3)), np.tile([0.0, 0.0, 0.0, 1.0], (8, 1))

    def violations(joints: np.ndarray = still, places: np.ndarray = places, turns: np.ndarray = turns) -> int:
        judge = LimitJudge(robot)
        judge.see(joints, places, turns)
        return judge.violations

    assert violations() == 0
    outside = still.copy()
    outside[:, 3] = robot.upper[3] + 1e-6
    assert violations(joints=outside) == 8
    jump = still.copy()
    jump[4:, 3] += 0.9
    assert violations(joints=jump) == 3  # its frame, and those whose acceleration and jerk look back to it
    assert violations(places=places + np.where(np.arange(8) < 4, 0.0, 0.5)[:, None]) == 3
    around = turns.copy()
    around[4:] = [0.0, 0.0, np.sin(0.5), np.cos(0.5)]
    assert violations(turns=around) > 0
    with pytest.raises(AssertionError):
        violations(joints=still * np.nan)
