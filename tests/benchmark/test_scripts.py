"""The scripts in benchmarks/ at tiny size: they end well, and write the file and the table."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from llamo_ros.benchmark.tables import begin_mark, end_mark, section
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository to write results in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    path = tmp_path / "docs" / "performance.md"
    path.parent.mkdir()
    names = ("operations", "whole_latent", "gpu_flow_sampler")
    path.write_text("\n".join(f"{begin_mark(name)}\n{end_mark(name)}" for name in names))
    return path


def test_operations_are_measured_and_written(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--preset tiny --sizes 32x1 --steps 2 --seconds 1e-9 --no-compile --all-instruction-sets --write-docs"
    assert script("operations").main([*words.split(), "--busy-machine", "--json", "copy.json"]) == 0
    result = json.loads(Path("benchmarks/results/operations.json").read_text())
    assert result == json.loads(Path("copy.json").read_text())
    assert {row["operation"] for row in result["rows"]} == {
        "flow sampler", "flow loop", "backbone step", "VAE decoder", "frames and joints",
    }  # fmt: skip
    table = section(document.read_text(), "operations")
    assert "| flow loop | 32 x 1 | torch.compile | float32 | - | not run: left out by --no-compile |" in table
    assert "**Other programs were running" in table
    assert "| figure | measured | bar | holds |" not in table  # 32 x 1 is held to none
    assert result["commit"][:12] in table
    assert "x the first" in capsys.readouterr().out


def test_whole_latents_are_measured_and_written(document: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["a person walks"] * 5, 300)
    save_checkpoint(Llamo(preset("tiny")), tokenizer, tmp_path / "tiny", {"name": "random"}, None)
    words = (
        "--checkpoint tiny --only latents length --precisions int8 float32 --busy no --seconds 1 --length 1 --piece 0.5"
    )
    assert script("whole_latent").main([*words.split(), "--write-docs"]) == 0
    result = json.loads(Path("benchmarks/results/whole_latent.json").read_text())
    assert [row["precision"] for row in result["latents"]] == ["int8", "float32"]
    table = section(document.read_text(), "whole_latent")
    assert "| int8 | no |" in table
    assert "| whole latent, int8, p50 [ms] |" in table
    assert "One motion of 1 s (weights float32)" in table


def test_a_missing_checkpoint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("whole_latent").main(["--checkpoint", "nothing"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "words", "problem"),
    [
        ("whole_latent", "--ticks 0", "--ticks: '0' is not a whole number from 1 on"),
        ("whole_latent", "--most-streams 0", "--most-streams: '0' is not a whole number from 1 on"),
        ("whole_latent", "--piece nan", "--piece: 'nan' is not a positive number"),
        ("gpu_flow_sampler", "--device cpu --batches 1 0", "--batches: '0' is not a whole number from 1 on"),
        ("gpu_flow_sampler", "--device cpu --sizes 1536", "--sizes: '1536' is not WIDTHxBLOCKS, as in 256x4"),
        ("operations", "--steps 0", "--steps: '0' is not a whole number from 1 on"),
        ("operations", "--seconds inf", "--seconds: 'inf' is not a positive number"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    name: str, words: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script(name).main(words.split())
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("name", ["operations", "whole_latent", "gpu_flow_sampler"])
@pytest.mark.parametrize(("words", "problem"), [("--write-docs", "is not here"), ("--json .", "cannot be written")])
def test_places_for_the_result_are_looked_at_before_anything_is_measured(
    name: str,
    words: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    module = script(name)
    monkeypatch.setattr(module, "envelope", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.main(words.split()) == 1
    assert problem in capsys.readouterr().err


def test_the_gpu_benchmark_tries_its_eager_parts_on_a_cpu(document: Path) -> None:
    words = "--device cpu --sizes 32x2 --batches 1 3 --steps 2 --seconds 1e-9 --write-docs --commit abc"
    assert script("gpu_flow_sampler").main(words.split()) == 0
    result = json.loads(Path("benchmarks/results/gpu_flow_sampler.json").read_text())
    rows = [row for row in result["rows"] if row["operation"] == "flow sampler" and row["batch"] == 3]
    assert [row["candidate"] for row in rows if "not_run" not in row] == [
        "eager PyTorch, naive",
        "eager PyTorch, hoisted",
    ]
    assert {row["not_run"] for row in rows if "not_run" in row} == {"needs an NVIDIA GPU"}
    assert result["limits"]["bandwidth"] > 0
    assert "| flow loop | 32 x 2 | 3 | kernel, persistent | bfloat16 | not run: needs an NVIDIA GPU |" in section(
        document.read_text(), "gpu_flow_sampler"
    )


def test_the_gpu_benchmark_wants_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        script("gpu_flow_sampler").main([])
    assert "there is no GPU that PyTorch can use" in capsys.readouterr().err
