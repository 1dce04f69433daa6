from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "retarget_limits.py"


def test_the_benchmark_finds_no_broken_limit_on_clips_a_switch_and_frames_at_random(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bench_clips: Path
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = ["--clips", str(bench_clips), "--count", "0", "--frames", "1200"]
    monkeypatch.setattr("sys.argv", [SCRIPT.name, *arguments])
    script.main()  # exits if a limit is broken
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    frames, outside, velocity, acceleration, jerk = map(float, lines["switch"][:5])
    assert frames == 450 and outside == 0 and max(velocity, acceleration, jerk) <= 1
    assert float(lines["switch"][10]) < 18.5  # [rad/s], half of the URDF's fastest joint; GMR gives out 35.3
    assert float(lines["walk"][13]) == 0  # followed exactly
    assert int(lines["random"][-1]) > 20  # chunks with NaN or of another shape are refused
