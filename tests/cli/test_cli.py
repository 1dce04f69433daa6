"""The ``llamo`` command: what it does, and that bad input gets one clear line and exit status 2."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros import __version__, cli
from llamo_ros.cli import main
from llamo_ros.cli.motion_output import MOTION_SUFFIXES
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.files import load_motion, save_motion

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``tiny`` checkpoint with random weights, in several shards."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = Llamo(preset("tiny"))
    tokenizer = TextTokenizer.train(["a person walks forward", "a person waves"] * 5, 300)
    save_checkpoint(model, tokenizer, folder, {"name": "random", "licence": "none"}, shard_bytes=40_000)
    return folder


@pytest.fixture(scope="module")
def motion_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in the rest pose, as .npz."""
    path = tmp_path_factory.mktemp("motion") / "stand.npz"
    save_motion(MotionClip(np.tile(np.eye(3), (60, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (60, 1))), path)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, checks that it is refused in one line with exit status 2, and returns the line."""

    def run(*words: object) -> str:
        status = main([str(word) for word in words])
        lines = capsys.readouterr().err.strip().splitlines()
        errors = [line for line in lines if line.startswith("llamo: error: ")]
        assert status == 2
        assert len(errors) == 1
        assert lines[-1] == errors[0]
        assert "Traceback" not in "".join(lines)
        return errors[0]

    return run


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


def test_demo_hands_its_options_to_the_demo_and_returns_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fake = types.ModuleType("llamo_ros.nodes.demo")
    fake.run_demo = lambda *arguments: calls.append(arguments) or 3
    monkeypatch.setitem(sys.modules, "llamo_ros.nodes.demo", fake)
    assert main(["demo", "--text", "bow", "--seconds", "4", "--out", "x", "--checkpoint", "y"]) == 3
    assert calls == [("bow", "unitree_g1", 4.0, Path("x"), "y")]


def test_a_demo_without_ros_says_what_to_do(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRos(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setitem(sys.modules, "llamo_ros.nodes.demo", NoRos("llamo_ros.nodes.demo"))
    assert "requirements/ros.txt" in refused("demo")


# Bad input


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "empty"), ("  \n", "empty"), ("walk " * 2000, "10000 characters"), ("walk \udcff", "UTF-8")],
    ids=["empty", "blank", "long", "bytes"],
)
def test_a_prompt_that_cannot_be_performed_is_refused(
    text: str, says: str, checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert says in refused("generate", text, "-o", tmp_path / "x.bvh", "--checkpoint", checkpoint)
    assert not (tmp_path / "x.bvh").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    motion_file: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    # No checkpoint is given: the refusal comes before one is looked for.
    line = refused("generate", "walk", "-o", tmp_path / "x.fbx", "--checkpoint", "none")
    assert ".bvh, .npz or .csv" in line
    assert "no suffix" in refused("generate", "walk", "-o", tmp_path / "x", "--checkpoint", "none")
    assert "cannot be made" in refused("generate", "walk", "-o", motion_file / "x.bvh", "--checkpoint", "none")
    (tmp_path / "x.bvh").mkdir()
    assert "cannot be written" in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--checkpoint", "none")
    line = refused("caption", motion_file, "--render", tmp_path / "x.jpg", "--checkpoint", "none")
    assert ".png, .gif or .mp4" in line


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who runs many tests, may write anywhere
    assert "cannot be written" in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--checkpoint", "none")


def test_a_missing_video_encoder_is_found_before_the_work(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ("generate", "walk", "-o", tmp_path / "x.bvh", "--render", tmp_path / "x.mp4", "--checkpoint", "none")
    assert "imageio-ffmpeg" in refused(*words)


def test_an_unknown_robot_is_refused_with_the_known_ones(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "unitree_g1" in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--robot", "c3po")


def test_an_unknown_model_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no model 'none'" in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--checkpoint", "none")


def test_a_missing_shard_is_named(checkpoint: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    shard = sorted(broken.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--checkpoint", broken)


def bad_files() -> dict[str, Callable[[Path, Path], Path]]:
    """Motion files that cannot be read: how each is made from a good .npz in a folder."""

    def latin1(folder: Path, good: Path) -> Path:
        (folder / "x.bvh").write_bytes(b"HIERARCHY\nROOT H\xfcfte\n{\n")
        return folder / "x.bvh"

    def cut(folder: Path, good: Path) -> Path:
        save_motion(load_motion(good), folder / "x.bvh")
        text = (folder / "x.bvh").read_text()
        (folder / "x.bvh").write_text(text[: int(0.7 * len(text))])
        return folder / "x.bvh"

    def changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], Path]:
        def make(folder: Path, good: Path) -> Path:
            with np.load(good) as archive:
                arrays = dict(archive)
            name = max(arrays, key=lambda key: arrays[key].size)
            np.savez(folder / "x.npz", **(arrays | {name: change(arrays[name].copy())}))
            return folder / "x.npz"

        return make

    def with_nan(array: np.ndarray) -> np.ndarray:
        array[3] = np.nan
        return array

    def not_zip(folder: Path, good: Path) -> Path:
        (folder / "x.npz").write_bytes(good.read_bytes()[:200])
        return folder / "x.npz"

    def short(folder: Path, good: Path) -> Path:
        save_motion(load_motion(good).sliced(0, 5), folder / "x.npz")
        return folder / "x.npz"

    return {
        "not UTF-8": latin1,
        "BVH cut in the middle": cut,
        "NPZ with NaN": changed(with_nan),
        "wrong number of joints": changed(lambda array: array[:, :21]),
        "NPZ cut short": not_zip,
        "too few frames": short,
        "missing": lambda folder, good: folder / "nothing.bvh",
        "unknown suffix": lambda folder, good: folder / "x.fbx",
        "a folder": lambda folder, good: folder,
    }


@pytest.mark.parametrize("make", bad_files().values(), ids=bad_files().keys())
def test_a_motion_file_that_cannot_be_read_is_refused(
    make: Callable[[Path, Path], Path], motion_file: Path, checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = make(tmp_path, motion_file)
    line = refused("caption", path, "--checkpoint", checkpoint)
    assert len(line) > 40


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "walk", "-o", "x.bvh", "--duration", "nan"],
        ["generate", "walk", "-o", "x.bvh", "--seed", "-1"],
        ["generate", "walk", "-o", "x.bvh", "--steps", "many"],
        ["generate", "walk", "-o", "x.bvh", "--solver", "rk4"],
        ["generate", "walk", "-o", "x.bvh", "--samples", "2", "--best-of", "2"],
        ["generate", "walk"],
        ["train", "vae", "--minutes", "1", "--steps", "5"],
        ["dance"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_options_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_options_that_contradict_each_other_are_refused(
    checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    words = ("generate", "walk", "-o", tmp_path / "x.bvh", "--checkpoint", checkpoint)
    assert "--duration" in refused(*words, "--duration", 2, "--max-duration", 3)
    assert "exceeds" in refused(*words, "--min-duration", 4, "--max-duration", 3)
    assert "600" in refused(*words, "--duration", 601)


def test_data_and_training_without_input_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "index.jsonl" in refused("data", "pack", tmp_path, "--out", tmp_path / "packed")
    assert "not a readable data pack" in refused("data", "info", tmp_path)
    assert "llamo data pack" in refused("train", "vae", "--data", tmp_path, "--out", tmp_path / "run", "--steps", 1)
    assert "llamo train motion" in refused("train", "export", "--motion", tmp_path, "--out", tmp_path / "model")


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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    assert "==" not in capsys.readouterr().out


def test_the_beginning_of_motion_training_is_given_once(tmp_path: Path, refused: Callable[..., str]) -> None:
    both = ["train", "motion", "--stage", "2", "--base", "llamo-mini", "--start", "runs/motion1"]
    assert "give one of them" in refused(*both, "--out", tmp_path / "run")


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

    monkeypatch.setattr("llamo_ros.retarget.profile.robot_names", interrupted)
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
