"""scripts/gpu_run.sh on a CPU at tiny size, and the parts in which a run comes back."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from llamo_ros.core.errors import CheckpointError
from llamo_ros.model.checkpoint import load_checkpoint, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: object) -> subprocess.CompletedProcess:
    """The script, which knows nothing of this process but its interpreter and where packages are."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    settings = {name: str(value) for name, value in environment.items()}
    variables = {**inherited, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **settings}
    command = [str(ROOT / "scripts" / "gpu_run.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


@pytest.fixture(scope="module")
def run_parts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_parts", ROOT / "scripts" / "run_parts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a training slice of two steps: its $OUT, with $WORK beside it."""
    folder = tmp_path_factory.mktemp("gpu")
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["a person walks"] * 5, 300)
    save_checkpoint(Llamo(preset("tiny")), tokenizer, folder / "tiny", {"name": "t", "licence": "none"}, None)
    done = run(
        "train",
        OUT=folder / "out",
        WORK=folder / "work",
        DATA=packed_folder,
        START=folder / "tiny",
        STEPS=2,
        DRY_RUN=1,
        TRAIN_OPTIONS="--batch-size 2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_help_needs_nothing_and_names_every_slice() -> None:
    said = run("help").stdout
    for name in ("tests", "bench", "bench-batches", "streams", "train", "DRY_RUN"):
        assert f"\n  {name} " in said


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ("all", {}, "there is no slice 'all'. Slices: tests, bench"),
        ("bench now", {}, "2 arguments were given: bench now. Settings go before the command"),
        ("bench", {"OUT": ""}, "OUT is not set"),
        ("bench", {"OUT": "{folder}/file/out"}, "file/out', where no folder can be made or written"),
        ("bench", {"WORK": "{folder}/file"}, "file', where no folder can be made or written"),
        ("bench", {}, "finds no NVIDIA GPU. DRY_RUN=1 tries the script"),
        ("bench", {"DRY_RUN": 0}, "finds no NVIDIA GPU. DRY_RUN=1 tries the script"),
        ("bench", {"DRY_RUN": "yes"}, "DRY_RUN is 'yes', expected 1 to try the script on a CPU, or 0"),
        *(
            ("bench", {"SECONDS_PER_SLICE": seconds}, f"SECONDS_PER_SLICE is '{seconds}', expected a whole number")
            for seconds in ("9m", "0540", "59", "-60", "90.5", "99999999")
        ),
        ("bench", {"PYTHON": "no-such-python"}, "PYTHON is 'no-such-python', which is no Python 3.11 or newer"),
        ("bench", {"PYTHON": "{folder}/file"}, "file', which is no Python 3.11 or newer that runs here"),
        ("bench", {"PYTHON": "{folder}/bare"}, "bare', which has no PyTorch (it lacks torch numpy"),
        ("streams", {"DRY_RUN": 1, "MODEL": "llamo"}, "MODEL is 'llamo', which is neither a checkpoint folder"),
        ("train", {"DRY_RUN": 1, "DATA": "{folder}/none"}, "there is no data in"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(
    arguments: str, settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch(mode=0o755)  # a program that does nothing
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    settings = {"OUT": tmp_path / "out", "WORK": tmp_path / "work"} | settings
    done = run(*arguments.split(), **{name: str(value).format(folder=tmp_path) for name, value in settings.items()})
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_folder_is_meant_from_where_the_script_is_called(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    done = run("streams", OUT=tmp_path, WORK=tmp_path / "work", MODEL="tiny", DRY_RUN=1)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_dry_run_of_the_benchmark_leaves_its_figures(tmp_path: Path) -> None:
    done = run("bench", OUT=tmp_path, WORK=tmp_path / "work", DRY_RUN=1)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "bench.json").read_text())
    assert {row["candidate"] for row in result["rows"] if "p50_ms" in row} == {
        "eager PyTorch, naive",
        "eager PyTorch, hoisted",
    }
    assert "torch" in (tmp_path / "machine.txt").read_text()


def test_a_dry_run_of_the_streams_leaves_its_figures(trained: Path, tmp_path: Path) -> None:
    done = run("streams", OUT=tmp_path, WORK=tmp_path / "work", MODEL=trained / "tiny", DRY_RUN=1)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "streams.json").read_text())
    assert result["latents"][0]["calls"] == 8
    assert result["streams"][0]["streams"] >= 0


def test_a_training_slice_leaves_its_run_in_parts(trained: Path, run_parts: ModuleType, tmp_path: Path) -> None:
    assert run_parts.join(trained / "out" / "run", tmp_path / "run") == "run"
    folder = trained / "work" / "run"
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert Path("state.pt") in files
    for path in files:
        assert (tmp_path / "run" / path).read_bytes() == (folder / path).read_bytes()


def test_what_does_not_fit_is_left_out_by_rank(trained: Path, run_parts: ModuleType, tmp_path: Path) -> None:
    folder = trained / "work" / "run"
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    slightly_less = sum(sizes.values()) - sizes["best.pt"] // 2
    index = run_parts.split(folder, tmp_path / "a", part_bytes=slightly_less // 8, most=8)
    assert index["holds"] == "run without best.pt"
    assert len(index["parts"]) <= 8
    assert max(path.stat().st_size for path in (tmp_path / "a").glob("part_*")) <= slightly_less // 8

    smaller = run_parts.split(folder, tmp_path / "a", part_bytes=sizes["state.pt"] // 8, most=8)
    assert smaller["holds"] == "checkpoint"
    assert len(list((tmp_path / "a").glob("part_*"))) == len(smaller["parts"])  # none of before is left
    assert run_parts.join(tmp_path / "a", tmp_path / "model") == "checkpoint"
    load_checkpoint(tmp_path / "model")

    with pytest.raises(CheckpointError, match="Allow more parts"):
        run_parts.split(folder, tmp_path / "b", part_bytes=1000, most=8)


def test_damaged_parts_are_refused(trained: Path, run_parts: ModuleType, tmp_path: Path) -> None:
    run_parts.split(trained / "work" / "run", tmp_path / "parts", part_bytes=300_000)
    part = tmp_path / "parts" / "part_0"
    content = bytearray(part.read_bytes())
    content[1000] ^= 1
    part.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        run_parts.join(tmp_path / "parts", tmp_path / "run")
    part.unlink()
    with pytest.raises(CheckpointError, match="does not hold all parts"):
        run_parts.join(tmp_path / "parts", tmp_path / "run")
    with pytest.raises(CheckpointError, match="is not a training run"):
        run_parts.split(tmp_path, tmp_path / "parts")


def test_parts_that_are_not_there_leave_the_run_that_is(packed_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "work" / "run" / "run.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    done = run(
        "train", OUT=tmp_path / "out", WORK=tmp_path / "work", DATA=packed_folder, FROM=tmp_path / "none", DRY_RUN=1
    )
    assert done.returncode == 1
    assert "does not hold all parts" in done.stdout + done.stderr
    assert kept.read_text() == "{}"
