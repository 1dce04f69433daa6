"""Bad options and files get one clear line and exit status 2."""

from __future__ import annotations

import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.cli import main
from llamo_ros.motion.files import load_motion, save_motion

# Options


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


def test_an_unknown_robot_is_refused_with_the_known_ones(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "unitree_g1" in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--robot", "c3po")


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "walk", "-o", "x.bvh"],
        ["complete", "stand.npz", "-o", "x.bvh"],
        ["between", "stand.npz", "stand.npz", "-o", "x.bvh"],
        ["caption", "stand.npz"],
    ],
    ids=lambda words: words[0],
)
def test_more_threads_than_cores_are_refused(
    words: list[str], motion_file: Path, checkpoint: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(motion_file.parent)
    line = refused(*words, "--checkpoint", checkpoint, "--threads", 4096)
    assert "threads is 4096, expected a whole number from 1 to" in line
    assert not Path("x.bvh").exists()


def test_an_unknown_model_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no model 'none'" in refused("generate", "walk", "-o", tmp_path / "x.bvh", "--checkpoint", "none")


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "walk", "-o", "x.bvh", "--duration", "nan"],
        ["generate", "walk", "-o", "x.bvh", "--seed", "-1"],
        ["generate", "walk", "-o", "x.bvh", "--steps", "many"],
        ["generate", "walk", "-o", "x.bvh", "--threads", "0"],
        ["caption", "x.bvh", "--threads", "two"],
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


def test_a_demo_without_ros_says_what_to_do(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRos(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setitem(sys.modules, "llamo_ros.nodes.demo", NoRos("llamo_ros.nodes.demo"))
    assert "requirements/ros.txt" in refused("demo")


# Files


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
