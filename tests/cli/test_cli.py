"""The ``llamo`` command: what its commands write and print, and how it behaves as a process."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamo_ros import __version__, cli
from llamo_ros.cli import main
from llamo_ros.cli.motion_output import MOTION_SUFFIXES
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.quantisation import quantise_checkpoint
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.files import load_motion

ROOT = Path(__file__).resolve().parents[2]


def test_generate_writes_motion_robot_and_picture(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a person walks", "-o", str(tmp_path / "new" / "walk.bvh"), "--duration", "1.6"]
    words += ["--robot", "unitree_g1", "--render", str(tmp_path / "walk.png"), "--steps", "4"]
    assert main([*words, "--checkpoint", str(checkpoint)]) == 0
    assert len(load_motion(tmp_path / "new" / "walk.bvh")) == 48
    with open(tmp_path / "new" / "walk_unitree_g1.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    assert rows[0]["left_hip_pitch_joint_rad"]
    quaternion = [float(rows[0][f"root_quaternion_{part}"]) for part in "xyzw"]
    assert np.linalg.norm(quaternion) == pytest.approx(1.0, abs=1e-5)  # 6 decimals
    assert (tmp_path / "walk.png").stat().st_size > 1000
    captured = capsys.readouterr()
    assert "1.60 s of motion (48 frames)" in captured.out
    assert "licence" in captured.err


@pytest.mark.parametrize("suffix", MOTION_SUFFIXES)
def test_generate_writes_every_format_it_offers(suffix: str, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / f"x{suffix}"
    words = ["generate", "walk", "-o", str(out), "--duration", "0.5", "--steps", "2", "--checkpoint", str(checkpoint)]
    assert main(words) == 0
    assert out.stat().st_size > 0


def test_the_same_seed_writes_the_same_motion(checkpoint: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ["generate", "walk", "-o", str(tmp_path / f"{name}.csv"), "--duration", "1", "--seed", str(seed)]
        assert main([*words, "--steps", "2", "--checkpoint", str(checkpoint)]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() != (tmp_path / "c.csv").read_bytes()


def test_samples_are_numbered_and_each_is_what_its_seed_gives_alone(checkpoint: Path, tmp_path: Path) -> None:
    words = ["generate", "walk", "--duration", "0.5", "--steps", "2", "--solver", "midpoint", "--temperature", "0.5"]
    words += ["--checkpoint", str(checkpoint)]
    render = ["--render", str(tmp_path / "x.png"), "--robot", "unitree_g1"]
    assert main([*words, "-o", str(tmp_path / "x.npz"), "--samples", "2", "--seed", "4", *render]) == 0
    assert main([*words, "-o", str(tmp_path / "alone.npz"), "--seed", "5"]) == 0
    names = {path.name for path in tmp_path.iterdir()} - {"alone.npz"}
    assert names == {f"x_{n}{suffix}" for n in (0, 1) for suffix in (".npz", ".png", "_unitree_g1.csv")}
    second, alone = load_motion(tmp_path / "x_1.npz"), load_motion(tmp_path / "alone.npz")
    np.testing.assert_allclose(second.rotations, alone.rotations, atol=1e-3)  # the file keeps float32
    assert not np.allclose(load_motion(tmp_path / "x_0.npz").rotations, alone.rotations, atol=1e-2)


def test_the_best_of_several_is_written_and_all_scores_are_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "walk", "-o", str(tmp_path / "x.npz"), "--duration", "0.5", "--steps", "2", "--best-of", "3"]
    assert main([*words, "--checkpoint", str(checkpoint)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    line = next(line for line in capsys.readouterr().err.splitlines() if "log-probability" in line)
    scores = [float(part.split()[2]) for part in line.split(": ")[-1].split(", ")]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3


def test_caption_prints_one_line_with_its_confidence(
    checkpoint: Path, motion_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["caption", str(motion_file), "--checkpoint", str(checkpoint), "--render", str(tmp_path / "x.png")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "(confidence 0." in captured.out.splitlines()[0]
    assert "not the chance that the caption is right" in captured.err  # this checkpoint has no calibration
    assert main([*words, "--temperature", "1", "--top-p", "0.9", "--seed", "3"]) == 0
    assert (tmp_path / "x.png").exists()


def test_robots_and_models_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["robots"]) == 0
    assert "unitree_g1: 29 joints" in capsys.readouterr().out
    assert main(["models"]) == 0
    assert capsys.readouterr().out


def test_a_model_is_listed_with_its_size_and_licence(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamo_ros.model.checkpoint.available_models", lambda: {"random": checkpoint})
    assert main(["models"]) == 0
    assert "M parameters" in (line := capsys.readouterr().out.splitlines()[0])
    assert "licence none" in line


def test_a_quantised_model_is_listed_with_as_many_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = preset("tiny")
    # So many outputs of few inputs that their scales would be seen in the first decimal.
    wide = replace(tiny.backbone, width=8, layers=1, heads=1, kv_heads=1, ffn_width=60_000)
    model = Llamo(replace(tiny, backbone=wide))
    tokenizer = TextTokenizer.train(["a person walks"] * 5, 300)
    save_checkpoint(model, tokenizer, tmp_path / "plain", {"name": "random"}, None)
    quantise_checkpoint(tmp_path / "plain", tmp_path / "int8")
    models = {name: tmp_path / name for name in ("plain", "int8")}
    monkeypatch.setattr("llamo_ros.model.checkpoint.available_models", lambda: models)
    assert main(["models"]) == 0
    plain, int8 = (line.split()[1:3] for line in capsys.readouterr().out.splitlines() if " M parameters" in line)
    assert plain == int8


def test_demo_hands_its_options_to_the_demo_and_returns_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fake = types.ModuleType("llamo_ros.nodes.demo")
    fake.run_demo = lambda *arguments: calls.append(arguments) or 3
    monkeypatch.setitem(sys.modules, "llamo_ros.nodes.demo", fake)
    assert main(["demo", "--text", "bow", "--seconds", "4", "--out", "x", "--checkpoint", "y"]) == 3
    assert calls == [("bow", "unitree_g1", 4.0, Path("x"), "y")]


# Behaviour as a process


def command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "llamo_ros.cli", *words], capture_output=True, text=True, env=environment, **options
    )


def test_help_and_version_import_neither_torch_nor_numpy() -> None:
    # Imports are what makes a command slow to answer; a count of them does not depend on how busy the machine is.
    code = "import sys; import llamo_ros.cli as c; c.make_parser().format_help(); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout
    assert not {"torch", "numpy", "PIL", "yaml", "tokenizers"} & set(modules.split())


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"llamo {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["demo"], ["generate"], ["caption"], ["data"], ["data", "pack"], ["data", "info"], ["models"], ["robots"]]
    + [["train"], *(["train", stage] for stage in ("vae", "text", "motion", "all", "export"))],
    ids=" ".join,
)
def test_every_help_shows_an_example_that_parses(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    with pytest.raises(SystemExit) as exit_info:
        main([*words, "--help"])
    assert exit_info.value.code == 0
    example = capsys.readouterr().out.split("example:\n")[1].strip()
    program, *rest = shlex.split(example)
    assert program == "llamo"
    assert rest[: len(words)] == words
    assert callable(cli.make_parser().parse_args(rest).run)


def test_a_bad_file_leaves_no_traceback_in_the_real_process(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bvh").write_bytes(b"\xff\xfe\x00")
    result = command("caption", str(tmp_path / "x.bvh"), "--checkpoint", str(checkpoint))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("llamo: error: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    code = (
        f"{sys.executable} -m llamo_ros.cli robots 2>&1 >/dev/full | cat; {sys.executable} -m llamo_ros.cli robots | :"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(["sh", "-c", code], capture_output=True, text=True, env=environment)
    assert "Traceback" not in result.stdout + result.stderr
    assert "Exception ignored" not in result.stderr


def test_ctrl_c_ends_with_130_and_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llamo_ros.retarget.catalogue.robot_names", interrupted)
    assert main(["robots"]) == 130
    assert capsys.readouterr().err.strip() == "llamo: interrupted"


def test_a_terminal_without_utf8_gets_escapes_instead_of_an_error(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, motion_file: Path
) -> None:
    from llamo_ros.pipelines.motion_to_text import Caption, MotionToText

    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(MotionToText, "__call__", lambda self, clip, options: Caption("naïve", 0.5))
    assert main(["caption", str(motion_file), "--checkpoint", str(checkpoint)]) == 0
    assert out.buffer.getvalue() == b"na\\xefve (confidence 0.50)\n"
