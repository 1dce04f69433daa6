"""benchmarks/quantisation.py compares what it says it compares."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from llamo_ros.model.checkpoint import load_checkpoint, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.quantisation import quantise_checkpoint
from llamo_ros.model.text_tokenizer import TextTokenizer

SECONDS = 0.6  # four or five latents


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with three of its prompts."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "quantisation.py"
    spec = importlib.util.spec_from_file_location("benchmark_quantisation", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RULES", module.RULES[:3])
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)  # so that motions are made in parts
    return module


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny model whose motion branch, flow head and decoder all matter."""
    torch.manual_seed(0)
    model = Llamo(preset("tiny")).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    save_checkpoint(model, TextTokenizer.train(["a person walks"] * 5, 300), tmp_path / "tiny", {}, torch.float32)
    return tmp_path / "tiny"


def test_figures_are_printed_and_written_for_each_precision(
    benchmark: ModuleType, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    command = ["--checkpoint", str(checkpoint), "--seeds", "1", "--duration", str(SECONDS), "--json", str(out)]
    assert benchmark.main(command) == 0
    rows = {row["run"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == ["float32", "PyTorch float32", "bfloat16", "int8", "other noise"]
    assert rows["PyTorch float32"]["forced"]["all_mm"] < rows["bfloat16"]["forced"]["all_mm"]
    assert rows["bfloat16"]["forced"]["all_mm"] < rows["int8"]["forced"]["all_mm"]
    for name in ("bfloat16", "int8"):  # there is no history yet
        assert rows[name]["forced"]["first_mm"] == pytest.approx(rows[name]["free"]["first_mm"], rel=1e-6)
        assert rows[name]["forced"]["latent_rms"] > 0
    assert sum(rows["int8"]["checks"].values()) <= 3
    assert "0.5 s" in capsys.readouterr().out


def test_forced_motions_of_the_same_precision_do_not_differ(benchmark: ModuleType, checkpoint: Path) -> None:
    model, tokenizer = load_checkpoint(checkpoint)
    runtime = MotionRuntime(model)
    free = benchmark.perform(runtime, tokenizer, range(1), SECONDS)
    forced = benchmark.perform(runtime, tokenizer, range(1), SECONDS, free.latents)
    assert torch.equal(forced.latents, free.latents)
    assert np.array_equal(forced.features, free.features)
    assert benchmark.forced_distances(free, forced).max() == 0.0
    # Behind another history, the first latents are the same and no others.
    other = benchmark.perform(runtime, tokenizer, range(1), SECONDS, free.latents + 0.5)
    assert torch.equal(other.latents[0], free.latents[0])
    assert (other.latents[1:] != free.latents[1:]).any(dim=-1).all()


def test_distances_are_in_millimetres_and_forced_ones_do_not_add_up(benchmark: ModuleType, checkpoint: Path) -> None:
    model, tokenizer = load_checkpoint(checkpoint)
    made = benchmark.perform(MotionRuntime(model), tokenizer, range(1), SECONDS)
    straight, shifted = made.features.copy(), made.features.copy()
    straight[..., 2:8] = shifted[..., 2:8] = [1, 0, 0, 0, 1, 0]  # the heading does not change
    shifted[..., 0] += 0.001  # [m] further to the side in each frame
    base, other = benchmark.Motions(made.latents, straight), benchmark.Motions(made.latents, shifted)
    forced, free = benchmark.forced_distances(base, other), benchmark.free_distances(base, other)
    np.testing.assert_allclose(forced, 2.5, rtol=1e-3)  # the mean of 1, 2, 3, 4; features are float32
    np.testing.assert_allclose(free, np.tile(2.5 + 4.0 * np.arange(len(free))[:, None], (1, 3)), rtol=1e-3)


def test_a_quantised_checkpoint_is_refused(
    benchmark: ModuleType, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantise_checkpoint(checkpoint, tmp_path / "int8")
    assert benchmark.main(["--checkpoint", str(tmp_path / "int8")]) == 1
    assert "quantised already" in capsys.readouterr().err


def test_r_precision_counts_the_prompts_that_a_captioner_prefers(benchmark: ModuleType) -> None:
    class Stub:
        """Finds its clip's number of prompts more likely than the clip's own."""

        def open(self) -> Stub:
            return self

        def add(self, clip: tuple[int, int]) -> None:
            own, self.preferred = clip
            self.others = [rule.prompt for index, rule in enumerate(benchmark.RULES) if index != own]

        def log_likelihood(self, text: str) -> float:
            return float(text in self.others[: self.preferred])

    clips = [(0, 0), (0, 2), (1, 0), (1, 0), (2, 1), (2, 0)]  # two motions of each of three prompts
    assert benchmark.r_precision(clips, Stub()) == {"top_1": pytest.approx(4 / 6), "top_3": 1.0}
