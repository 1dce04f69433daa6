"""benchmarks/retarget_physics.py: it plays a clip, writes file, table and pictures, and says what is missing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from llamo_ros.benchmark.tables import begin_mark, end_mark, section

ROOT = Path(__file__).resolve().parents[2]
NAME = "retarget_physics"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; like a script, it sees its neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "benchmarks" / f"{NAME}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_clip_is_played_written_and_drawn(
    script: ModuleType, g1_mjcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = g1_mjcf.parents[1] / "bench_clips"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "retargeting.md").write_text(f"{begin_mark(NAME)}\n{end_mark(NAME)}\n")
    words = ["--mjcf", str(g1_mjcf), "--clips", str(clips), "--names", "squat", "--pictures", "out", "--write-docs"]
    assert script.main(words) == 0
    result = json.loads(Path(f"benchmarks/results/{NAME}.json").read_text())
    rows = {(row["method"], row["control"]): row for row in result["played"]}
    assert len(rows) == 6 and {method for method, _ in rows} == {"ours", "ours, published", "GMR"}
    for method in ("ours", "GMR"):
        assert rows[method, "PD + feedforward"]["error_rms"] < 0.01 < rows[method, "PD"]["error_rms"]
        assert len(rows[method, "PD"]["joints"]) == 29
    assert [row["share"] for row in result["self_collisions"]] == [0, 0, 0]
    shown = section(Path("docs/retargeting.md").read_text(), NAME)
    assert "| squat | GMR | PD |" in shown and "| left knee |" in shown and "| squat | ours | PD" not in shown
    assert {path.name for path in Path("out").iterdir()} == {"squat_robot.png", "squat_joints.png"}
    assert str(tmp_path) not in json.dumps(result)  # no path of a machine is kept


def test_what_is_missing_is_said(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--mjcf", "g1.xml"])
    assert "give --clips or --prompts" in capsys.readouterr().err
    assert script.main(["--mjcf", str(tmp_path / "g1.xml"), "--clips", str(tmp_path)]) == 1
    assert "See --urdf" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mujoco", None)
    (tmp_path / "g1.urdf").write_text("<robot/>")
    assert script.main(["--mjcf", str(tmp_path / "g1.xml"), "--clips", str(tmp_path)]) == 1
    assert "pip install 'llamo-ros[bench]'" in capsys.readouterr().err


def test_the_document_shows_the_result(script: ModuleType) -> None:
    shown = section((ROOT / "docs" / "retargeting.md").read_text(encoding="utf-8"), NAME)
    result = ROOT / "benchmarks" / "results" / f"{NAME}.json"
    assert shown == script.tables(json.loads(result.read_text(encoding="utf-8")))
