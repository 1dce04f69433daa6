"""``llamo quantize``, ``llamo doctor`` and ``llamo bench``."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import llamo_ros
from llamo_ros.cli import main, make_parser, system_report
from llamo_ros.core.errors import ParameterError
from llamo_ros.kernels.backends import compiled_kernels, instruction_sets
from llamo_ros.model.checkpoint import read_config, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.files import load_motion


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a latent is made in time."""
    monkeypatch.setattr(system_report, "LATENT_SECONDS", 60.0)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a tiny checkpoint of a dtype and returns its folder."""

    def write(dtype: str) -> Path:
        torch.manual_seed(0)
        tokenizer = TextTokenizer.train(["a person walks"] * 5, 300)
        save_checkpoint(Llamo(replace(preset("tiny"), dtype=dtype)), tokenizer, tmp_path / dtype, {"name": "t"}, None)
        return tmp_path / dtype

    return write


def rows_of(text: str) -> dict[str, list[str]]:
    """The table of operations: the cells of a row, by name of the operation."""
    lines = text[text.index("\noperation ") :].strip().split("\n\n")[0].splitlines()
    starts = [lines[0].index(word) for word in ("operation", "backend", "instructions", "precision", "why")]
    assert all(line[start - 2 : start] == "  " for line in lines for start in starts[1:])  # aligned
    ends = [*starts[1:], None]
    cells = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines[1:]]
    return {name: rest for name, *rest in cells}


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_kernels("flow_sampler")  # imported, so that there is an attribute to take away
    monkeypatch.delattr(llamo_ros, "_kernels")
    monkeypatch.setitem(sys.modules, "llamo_ros._kernels", None)


# quantize


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_a_quantised_checkpoint_is_smaller_and_generates(
    precision: str, save: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = save("float32"), tmp_path / "out"
    assert main(["quantize", "--checkpoint", str(source), "--out", str(out), "--precision", precision]) == 0
    before, after = (sum(f.stat().st_size for f in folder.glob("*.safetensors")) / 1e6 for folder in (source, out))
    assert after < before
    said = capsys.readouterr().out
    assert f"on disk {before:.1f} MB before, {after:.1f} MB after" in said
    assert f"matrices of the motion side in {precision}" in said
    assert read_config(out)[0].generation.precision == precision
    command = shlex.split(said.splitlines()[-1].split(": llamo ")[1])
    command[command.index("-o") + 1] = str(tmp_path / "bow.bvh")
    assert main([*command, "--duration", "0.6", "--steps", "2"]) == 0
    assert len(load_motion(tmp_path / "bow.bvh")) > 0


def test_quantize_refuses_in_one_line(save: Callable[[str], Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    out = tmp_path / "out"
    half = save("bfloat16")
    assert "Only models with a backbone in float32" in refused("quantize", "--checkpoint", half, "--out", out)
    assert main(["quantize", "--checkpoint", str(save("float32")), "--out", str(out)]) == 0
    assert "quantised already" in refused("quantize", "--checkpoint", out, "--out", tmp_path / "again")
    assert "already holds a model" in refused("quantize", "--checkpoint", half, "--out", out)
    assert "no model 'none'" in refused("quantize", "--checkpoint", "none", "--out", tmp_path / "again")


# doctor


def test_doctor_shows_machine_versions_and_what_each_operation_runs_on(
    save: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = save("float32"), tmp_path / "out"
    assert main(["quantize", "--checkpoint", str(source), "--out", str(out)]) == 0
    capsys.readouterr()
    for folder, precision in ((source, "float32"), (out, "int8")):
        assert main(["doctor", "--checkpoint", str(folder)]) == 0
        said = capsys.readouterr().out
        assert f"torch             {importlib.metadata.version('torch')}" in said
        assert f"{instruction_sets()[0]}, which is used" in said
        assert "built: " in said
        rows = rows_of(said)
        assert list(rows) == system_report.operations()
        for name in ("backbone_step", "causal_stack", "flow_sampler"):
            assert rows[name][:3] == ["cpu", instruction_sets()[0], precision]
            assert rows[name][3] == f"its data are in main memory; {precision} by the checkpoint"
        assert rows["frame_decoder"] == ["cpu", "-", "-", "its data are in main memory"]
        assert rows["inverse_kinematics"] == ["cpu", "-", "-", "its data are in main memory"]
        assert "keeps up with real time" in said


def test_operations_are_the_folders_with_a_reference() -> None:
    folder = Path(system_report.llamo_ros.kernels.__file__).parent
    assert set(system_report.operations()) == {path.parent.name for path in folder.glob("*/reference.py")}
    assert "common" not in system_report.operations()


def test_a_backbone_in_bfloat16_is_shown_to_run_in_pytorch(
    save: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--checkpoint", str(save("bfloat16"))]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["flow_sampler"][0] == rows["causal_stack"][0] == "cpu"  # these parts are float32 in every model
    assert rows["backbone_step"] == ["reference", "-", "bfloat16", "PyTorch runs this part of models in bfloat16"]


def test_doctor_says_why_a_gpu_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = MotionRuntime(Llamo(preset("tiny")).eval(), backend="reference")
    trial = system_report.Trial("cuda:0", preset("tiny"), runtime.operations)
    monkeypatch.setattr(system_report, "why_not_triton", lambda device: f"Triton is not installed for {device}.")
    cells = {row[0]: row[1:] for row in system_report.operation_rows(trial, None)}["flow_sampler"]
    assert cells[0] == "reference"
    assert "its data are in memory of cuda:0; Triton is not installed for cuda:0." in cells[3]
    monkeypatch.setattr(system_report, "why_not_triton", lambda device: "")  # then the reference was asked for
    assert "cuda:0;" not in system_report.operation_rows(trial, None)[3][4].replace("; float32", "")


def test_without_the_kernels_doctor_says_how_to_build_them(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_kernels(monkeypatch)
    assert main(["doctor", "--checkpoint", str(checkpoint)]) == 2
    said = capsys.readouterr()
    assert "not known without the compiled kernels" in said.out
    for backend, *_, why in rows_of(said.out).values():
        assert backend == "none"
        assert "cannot be imported" in why
    assert "pip install ." in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_what_is_optional_may_be_missing(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("transformers", "triton", "rclpy"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name in ("transformers", "triton", "rclpy"):
        monkeypatch.setitem(sys.modules, name, None)  # an import raises
    assert main(["doctor", "--checkpoint", str(checkpoint)]) == 0
    said = capsys.readouterr().out
    assert "transformers      not installed; only `llamo init` and chat templates need it" in said
    assert "rclpy             not installed" in said
    assert "RMW               none without ROS 2" in said


def test_the_middleware_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_zenoh_cpp")
    assert ("RMW", "rmw_zenoh_cpp") in system_report.version_rows()
    monkeypatch.delenv("RMW_IMPLEMENTATION")
    assert "own choice" in dict(system_report.version_rows())["RMW"]


def test_a_model_that_is_too_slow_for_real_time_fails_with_advice(
    checkpoint: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_report, "LATENT_SECONDS", 0.0)
    line = refused("doctor", "--checkpoint", checkpoint)
    assert "does not keep up with real time on cpu" in line
    assert "llamo quantize" in line


def test_a_slow_machine_is_not_kept_busy(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_report, "TRIAL_LIMIT", 0.0)
    trial = system_report.try_model(str(checkpoint), "cpu")
    assert len(trial.latencies) == 1
    assert trial.latency > 0


def test_the_machine_is_shown_even_where_no_model_can_be_tried(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu(name: str) -> str:
        raise ParameterError("there is no CUDA GPU")

    assert main(["doctor", "--checkpoint", "none"]) == 2
    said = capsys.readouterr()
    assert "no model 'none'" in said.err
    assert "CPU" in said.out
    assert rows_of(said.out)["flow_sampler"][0] == "none"
    monkeypatch.setattr("llamo_ros.cli.device.device_of", no_gpu)
    assert main(["doctor", "--checkpoint", str(checkpoint), "--device", "cuda"]) == 2
    said = capsys.readouterr()
    assert "no CUDA GPU" in said.err
    assert rows_of(said.out)["flow_sampler"] == ["none", "-", "-", "there is no CUDA GPU"]


@pytest.mark.parametrize("name", ["quantize", "doctor", "bench"])
def test_help_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    example = shlex.split(capsys.readouterr().out.split("example:\n")[1].strip())
    assert example[:2] == ["llamo", name]
    assert callable(make_parser().parse_args(example[1:]).run)


# bench


def test_bench_shows_figures_of_the_model_and_keeps_them(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamo_ros.benchmark.whole_latent.PERIOD", 0.0)  # no number of streams keeps up: one is tried
    out = tmp_path / "bench.json"
    command = ["bench", "--checkpoint", str(checkpoint), "--precision", "int8", "--json", str(out), "--no-process"]
    assert main([*command, "--seconds", "0.4", "--operation-seconds", "1e-9", "--ticks", "1"]) == 0
    said = capsys.readouterr()
    assert instruction_sets()[0] in said.out
    assert "whole latent (four frames, joints included): p50 " in said.out
    assert "0 streams together in real time" in said.out
    assert "flow sampler ..." in said.err
    result = json.loads(out.read_text())
    assert result["precision"] == "int8"
    assert result["latent"]["calls"] == 3
    rows = {(row["operation"], row["candidate"]): row for row in result["operations"]}
    assert rows["flow sampler", "kernel"]["to_limit"] > 0
    assert {operation for operation, _ in rows} == {"backbone step", "flow sampler", "VAE decoder", "frames and joints"}


def test_bench_refuses_in_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "no model 'none'" in refused("bench", "--checkpoint", "none")
    (tmp_path / "file").touch()  # a place that cannot be written is found before a model is looked for
    assert "cannot be made" in refused("bench", "--checkpoint", "none", "--json", tmp_path / "file" / "bench.json")
    assert "cannot be written" in refused("bench", "--checkpoint", "none", "--json", tmp_path)
