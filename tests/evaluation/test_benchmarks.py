from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import CheckpointError
from llamo_ros.evaluation.prompt_checks import RULES
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STILL = MotionClip(np.tile(np.eye(3), (60, 22, 1, 1)), np.tile([0.0, 0.94, 0.0], (60, 1)))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def offer(monkeypatch: pytest.MonkeyPatch, module: str, name: str, pipeline: Callable[[str], object]) -> None:
    """Stand in for a pipeline, so that only the benchmark is tested."""
    fake = ModuleType(module)
    setattr(fake, name, SimpleNamespace(from_checkpoint=pipeline))
    monkeypatch.setitem(sys.modules, module, fake)


class Statue:
    """A model that always stands in T-pose and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def __call__(self, text, *, min_duration=0.0, max_duration=4.0, seed=0, guidance_scale=None) -> MotionClip:
        self.asked.append((text, max_duration, seed, guidance_scale))
        return STILL

    def unconditional(self, *, seed=0, max_duration=4.0) -> MotionClip:
        return STILL


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            "id": str(index),
            "kind": kind,
            "split": "test",
            "fps": 30,
            "shard": "a.npz",
            "start": 0,
            "length": 8,
            "captions": [{"text": text, "start": None, "end": None} for text in texts],
            "licence": "none",
        }
        for index, (kind, texts) in enumerate(
            [("h3d", ["a person waves", "someone says goodbye"]), ("bandai", ["a person runs", "someone is running"])]
        )
    ]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.savez(tmp_path / "a.npz", rotvec_i16=np.zeros((8, 22, 3), np.int16), trans=np.zeros((8, 3), np.float32))
    return tmp_path


def test_prompt_checks_pass_on_what_the_user_asked_for_and_write_the_scores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statue = Statue()
    offer(monkeypatch, "llamo_ros.pipelines.text_to_motion", "TextToMotion", lambda name: statue)
    out = tmp_path / "scores.json"
    command = ["--checkpoint", "mini", "--seeds", "2", "--guidance", "1.5", "--duration", "3", "--json", str(out)]
    assert script("prompt_checks").main(command) == 0
    assert len(statue.asked) == 26
    assert statue.asked[1] == ("a person walks forward", 3.0, 1, 1.5)
    scores = json.loads(out.read_text())
    assert scores["guidance"] == 1.5
    assert sum(score["passed"] for score in scores["prompts"]) == 0  # a T-pose holds its hands up: not standing still
    assert "0/26" in capsys.readouterr().out


def test_an_unknown_checkpoint_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> object:
        raise CheckpointError(f"there is no checkpoint {name}")

    offer(monkeypatch, "llamo_ros.pipelines.text_to_motion", "TextToMotion", missing)
    assert script("prompt_checks").main(["--checkpoint", "nothing"]) == 1
    assert capsys.readouterr().err == "error: there is no checkpoint nothing\n"


@pytest.mark.parametrize("name", ["prompt_checks", "caption_actions"])
def test_asking_for_nothing_is_a_usage_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        script(name).main(["--data", "x"] if name == "caption_actions" else [])
    assert "nothing to do" in capsys.readouterr().err


def test_caption_actions_score_each_source_and_keep_what_was_said(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    caption = SimpleNamespace(text="a person is waving", confidence=0.5)
    offer(monkeypatch, "llamo_ros.pipelines.motion_to_text", "MotionToText", lambda name: lambda clip: caption)
    out = tmp_path / "captions.json"
    assert script("caption_actions").main(["--data", str(data), "--checkpoint", "mini", "--json", str(out)]) == 0
    model = json.loads(out.read_text())["model"]
    assert [model["scores"][source]["correct"] for source in ("h3d", "bandai", "all")] == [1, 0, 1]
    assert model["captions"][0]["references"] == ["a person waves", "someone says goodbye"]
    assert "run said wave (1)" in capsys.readouterr().out


def test_people_agree_with_themselves_on_plain_captions(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("caption_actions").main(["--data", str(data), "--check-real"]) == 0
    assert "all          4  1.000" in capsys.readouterr().out


def test_a_split_without_clips_is_reported_and_not_divided_by(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("caption_actions").main(["--data", str(data), "--check-real", "--split", "val"]) == 1
    assert "no val clips" in capsys.readouterr().err


def test_the_sampling_grid_prints_a_line_for_each_combination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = Llamo(preset("tiny"))
    tokenizer = TextTokenizer.train(["a person walks"] * 5, model.config.backbone.vocab_size)
    save_checkpoint(model, tokenizer, tmp_path / "tiny", {})
    command = ["--checkpoint", str(tmp_path / "tiny"), "--seeds", "1", "--duration", "0.6", "--prompts"]
    assert script("sampling_choice").main([*command, "--guidance", "1", "2", "--temperature", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("guidance")] == [
        "guidance 1  temperature 0.5  exit 0.5",
        "guidance 2  temperature 0.5  exit 0.5",
    ]
    assert len(lines) == 2 * (1 + len(RULES))
    assert script("sampling_choice").main(["--checkpoint", str(tmp_path / "nothing")]) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("height", "says"), [(0.94, "standing slides 0.0 cm/s"), (9.0, "has no foot on the floor")])
def test_a_setting_without_a_foot_on_the_floor_says_so(
    height: float, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = MotionClip(STILL.rotations, STILL.root_positions + [0.0, height - 0.94, 0.0])
    pipeline = SimpleNamespace(batch=lambda texts, **_: [clip] * len(texts))
    script("sampling_choice")._score(pipeline, 1, 2.0, by_prompt=False)
    assert says in capsys.readouterr().out
