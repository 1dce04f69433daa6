"""``llamo complete``, ``llamo between`` and ``llamo generate --then``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.cli import main
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.files import load_motion, save_motion


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["a person walks forward", "now slower"] * 5, 300)
    save_checkpoint(Llamo(preset("tiny")), tokenizer, folder, {"name": "random", "licence": "none"})
    return folder


@pytest.fixture(scope="module")
def clip(random_clip: Callable[..., MotionClip]) -> MotionClip:
    return random_clip(seed=1, frames=180)


@pytest.fixture(scope="module")
def files(clip: MotionClip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("motion")
    save_motion(clip, folder / "a.npz")
    save_motion(clip.sliced(60, 90), folder / "b.npz")
    return folder / "a.npz", folder / "b.npz"


def test_complete_writes_what_was_given_and_goes_on(
    checkpoint: Path, files: tuple[Path, Path], clip: MotionClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flag in (("whole", []), ("new", ["--new-only"])):
        out = str(tmp_path / f"{name}.npz")
        words = ["complete", str(files[0]), "-o", out, "--caption", "a person walks", "--duration", "1.2", *flag]
        assert main([*words, "--steps", "2", "--checkpoint", str(checkpoint)]) == 0
        assert "lasts 6.0 s; the model reads its last 4 s" in capsys.readouterr().err
    whole, new = load_motion(tmp_path / "whole.npz"), load_motion(tmp_path / "new.npz")
    assert (len(whole), len(new)) == (216, 36)
    np.testing.assert_allclose(whole.rotations[:180], clip.rotations, atol=1e-6)
    np.testing.assert_allclose(whole.rotations[180:], new.rotations, atol=1e-6)


@pytest.mark.parametrize("place", ["moved", "bent"])
def test_between_writes_all_three_parts_and_tells_how_they_meet(
    place: str, checkpoint: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "whole.bvh")
    words = ["between", *map(str, files), "-o", out, "--duration", "1.2", "--place", place]
    assert main([*words, "--steps", "2", "--checkpoint", str(checkpoint)]) == 0
    told = capsys.readouterr().err
    assert "START lasts 6.0 s; the model reads its last 2 s" in told and "END lasts" not in told
    assert "m beside the place where END stands" in told
    assert ("END is moved there" in told) == (place == "moved")
    assert len(load_motion(tmp_path / "whole.bvh")) == 180 + 36 + 30


def test_a_conversation_is_written_in_a_row(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "talk.npz")
    words = ["generate", "a person walks", "--then", "now slower", "--then", "again", "--duration", "0.8", "-o", out]
    assert main([*words, "--style", "angrily", "--steps", "2", "--checkpoint", str(checkpoint)]) == 0
    told = capsys.readouterr().err
    assert "0.80 s for 'a person walks angrily'" in told and "0.80 s for 'again'" in told
    talk = load_motion(tmp_path / "talk.npz")
    assert len(talk) == 72 and talk.text == "a person walks angrily, then now slower, then again"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "walk", "--then", "again", "--samples", "2"], "one conversation"),
        (["complete", "FILE", "--duration", "2", "--max-duration", "3"], "fixes the length"),
        (["complete", "SHORT"], "at least 8 are needed"),
        (["between", "FILE", "SHORT"], "at least 8 are needed"),
        (["between", "FILE", "missing.npz"], "missing.npz"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    words: list[str],
    message: str,
    checkpoint: Path,
    files: tuple[Path, Path],
    clip: MotionClip,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_motion(clip.sliced(0, 7), tmp_path / "short.npz")
    words = [{"FILE": str(files[0]), "SHORT": str(tmp_path / "short.npz")}.get(word, word) for word in words]
    assert main([*words, "-o", str(tmp_path / "out.npz"), "--checkpoint", str(checkpoint)]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out.npz").exists()
