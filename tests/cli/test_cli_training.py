"""``llamo data pack`` and ``llamo train``: from motion files to a model that generates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.cli import main
from llamo_ros.motion.files import load_motion


def write_source(folder: Path) -> None:
    """Four clips of 3 s in the layout that training reads."""
    folder.mkdir()
    rows = []
    for number, (kind, split) in enumerate((k, s) for k in ("h3d", "bandai") for s in ("train", "val")):
        caption = {"text": "a person stands in one place", "start": None, "end": None}
        row = {"id": str(number), "kind": kind, "split": split, "fps": 30, "shard": "clips.npz", "start": 90 * number}
        rows.append(row | {"length": 90, "captions": [caption], "licence": "made up"})
    angles = np.random.default_rng(0).integers(-4000, 4000, (360, 22, 3)).astype(np.int16)
    walk = 0.05 * np.random.default_rng(1).standard_normal((360, 3)).cumsum(axis=0)
    np.savez(folder / "clips.npz", rotvec_i16=angles, trans=walk.astype(np.float32))
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [{"split": split, "captions": [{"text": "a person stands"}]} for split in ("train", "val")]
    (folder / "texts_humanml3d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))


def test_data_is_packed_trained_and_exported_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "source")
    sizes = ["--preset", "tiny", "--steps", "2", "--batch-size", "2", "--no-bf16", "--device", "cpu"]
    assert main(["data", "pack", "source"]) == 0
    assert main(["data", "info", "data/packed"]) == 0
    assert "4 sequences" in capsys.readouterr().out
    assert main(["train", "vae", *sizes]) == 0
    assert main(["train", "text", *sizes, "--source", "source"]) == 0
    for stage in ("1", "2", "3"):
        samples = ["--samples" if stage == "1" else "--no-samples"]
        assert main(["train", "motion", "--stage", stage, *sizes, *samples]) == 0
    assert len(list(Path("runs/motion1/samples").glob("000002_*.png"))) == 3
    assert main(["train", "export", "--out", "model", "--name", "mine"]) == 0
    assert main(["generate", "walk", "-o", "walk.npz", "--duration", "0.5", "--checkpoint", "model"]) == 0
    assert json.loads(Path("runs/vae/run.json").read_text())["steps"] == 2
    assert len(load_motion("walk.npz")) == 16  # whole latents of 4 frames


def test_everything_is_trained_by_one_command_and_what_is_finished_is_not_trained_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "source")
    assert main(["data", "pack", "source"]) == 0
    everything = ["train", "all", "--preset", "tiny", "--share", "1e-5", "--source", "source", "--no-samples"]
    everything += ["--no-bf16", "--device", "cpu"]
    assert main(everything) == 0
    assert "stage 3" in capsys.readouterr().out
    assert main(["models"]) == 0
    assert main(["generate", "walk", "-o", "walk.npz", "--duration", "0.5", "--checkpoint", "runs/checkpoint"]) == 0
    capsys.readouterr()
    assert main(everything) == 0
    again = capsys.readouterr().out
    assert "==" not in again
    assert again.count("already finished") == 5

    assert main(["data", "pack", "source", "--out", "open", "--licence", "open"]) == 0
    capsys.readouterr()
    for change, says in (
        (["--seed", "1"], "runs/vae was trained with seed 0, not 1"),
        (["--preset", "mini"], "preset tiny, not mini"),
        (["--data", "open"], "data data/packed, not open"),
        (["--share", "2e-5"], "runs/vae was trained with minutes"),
        (["--base", "runs/checkpoint"], "runs/motion1 was trained with base none, not runs/checkpoint"),
    ):
        line = refused(*everything, *change)
        assert says in line
        assert "--out" in line
        assert "delete runs/" in line


def test_data_and_training_without_input_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "index.jsonl" in refused("data", "pack", tmp_path, "--out", tmp_path / "packed")
    assert "not a readable data pack" in refused("data", "info", tmp_path)
    assert "llamo data pack" in refused("train", "vae", "--data", tmp_path, "--out", tmp_path / "run", "--steps", 1)
    assert "llamo train motion" in refused("train", "export", "--motion", tmp_path, "--out", tmp_path / "model")


def test_the_beginning_of_motion_training_is_given_once(tmp_path: Path, refused: Callable[..., str]) -> None:
    both = ["train", "motion", "--stage", "2", "--base", "llamo-mini", "--start", "runs/motion1"]
    assert "give one of them" in refused(*both, "--out", tmp_path / "run")


def test_a_stage_of_motion_training_begins_from_one_before_it(tmp_path: Path, refused: Callable[..., str]) -> None:
    def stage(number: int, *options: object) -> str:
        return refused("train", "motion", "--stage", number, "--data", tmp_path, "--out", tmp_path / "out", *options)

    for number in (2, 3):
        assert f"Run `llamo train motion --stage {number - 1} --out {tmp_path}" in stage(number)
        assert "--base is for stage 1" in stage(number, "--base", "llamo-mini")
        run = tmp_path / f"motion{number - 1}"
        run.mkdir()
        record = {"stage": "motion", "preset": "tiny", "licence_set": "open", "motion_stage": str(number - 1)}
        (run / "run.json").write_text(json.dumps(record))
        assert "llamo data pack" in stage(number), "the stage before is there, and the next thing is missing"
    assert f"{tmp_path / 'motion1'} is a run of stage 1" in stage(3, "--start", tmp_path / "motion1")
    assert "llamo data pack" in stage(2, "--start", tmp_path / "motion1")
