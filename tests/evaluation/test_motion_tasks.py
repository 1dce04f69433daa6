from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "motion_tasks.py"


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch, random_clip: Callable[..., MotionClip]) -> ModuleType:
    """The benchmark on two made-up clips and one first prompt."""
    spec = importlib.util.spec_from_file_location("benchmark_motion_tasks", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clips = [(random_clip(seed=seed, frames=80), "a person waves the left hand") for seed in (1, 2)]
    monkeypatch.setattr(module, "real_clips", lambda options: clips)
    monkeypatch.setattr(module, "RULES", module.RULES[:1])
    monkeypatch.setattr(module, "DURATIONS", (1.0, 2.0))
    return module


def test_every_part_is_measured_and_written(tasks: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["a person waves the left hand"] * 5, 300)
    model = Llamo(preset("tiny"))
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.1)
    model.exit_head.layers[-1].bias.data.fill_(9.0)  # motions end as soon as they may
    save_checkpoint(model, tokenizer, tmp_path, {"name": "random"})
    out = tmp_path / "scores.json"
    words = [
        "--checkpoint",
        str(tmp_path),
        "--seeds",
        "2",
        "--talks",
        "1",
        "--guidance",
        "2",
        "--nulls",
        "empty",
        "first",
    ]
    assert tasks.main([*words, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {part: len(found) for part, found in rows.items()} == {
        "prediction": 3 + 3 * 2,
        "in-between": 1 + 2 * 2 * 3,
        "follow-ups": 4 * 2,
        "durations": 1,
    }
    still, velocity = rows["prediction"][:2]
    assert still["how"].strip() == "still" and still["best@1"] == pytest.approx(still["mean@1"])
    for row in rows["prediction"][3:]:
        assert 0 < row["best@0.5"] <= row["mean@0.5"] and np.isfinite(row["seam"])
    assert velocity["best@0.5"] != still["best@0.5"]


def test_a_missing_model_is_told_in_one_line(tasks: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tasks.main(["--checkpoint", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
