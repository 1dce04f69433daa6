from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def vae_streaming() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_vae_streaming", BENCHMARKS / "vae_streaming.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_streaming_costs_are_printed_and_written_for_each_number_of_streams(
    vae_streaming: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert vae_streaming.main(["--preset", "tiny", "--batch", "1", "3", "--latents", "2", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["streams"] for row in rows] == [1, 3]
    assert all(row["encode_ms"] > 0 and row["decode_ms"] > 0 for row in rows)
    assert "body patch, width 32" in capsys.readouterr().out


def test_an_unknown_preset_is_reported_in_one_line(
    vae_streaming: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vae_streaming.main(["--preset", "nano"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no preset 'nano'")


def test_timing_nothing_is_a_usage_error(vae_streaming: ModuleType) -> None:
    with pytest.raises(SystemExit, match="2"):
        vae_streaming.main(["--latents", "0"])
