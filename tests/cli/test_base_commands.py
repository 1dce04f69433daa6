"""``llamo init`` and ``llamo chat``: from a Llama to a model that talks and moves."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from llamo_ros.cli import main, make_parser
from llamo_ros.model.checkpoint import read_config, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.files import load_motion
from llamo_ros.pipelines.chat import Chat


@pytest.fixture(scope="module")
def base(write_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in bfloat16 with a chat template."""
    return write_llama(tmp_path_factory.mktemp("bases") / "base", dtype="bfloat16")


@pytest.fixture(scope="module")
def made(base: Path) -> Path:
    """The checkpoint that ``llamo init`` makes of it."""
    assert main(["init", "--base", str(base), "--preset", "custom", "--out", str(base.parent / "made")]) == 0
    return base.parent / "made"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``tiny`` checkpoint without a chat template."""
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["a person walks"] * 5, 300)
    folder = tmp_path_factory.mktemp("plain")
    save_checkpoint(Llamo(preset("tiny")), tokenizer, folder, {"name": "random", "licence": "none"})
    return folder


def test_init_makes_a_checkpoint_that_generates_and_says_what_is_in_it(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    assert main(["init", "--base", str(base), "--out", str(out), "--seed", "3", "--dtype", "float32"]) == 0
    said = capsys.readouterr().out
    assert "preset custom, float32" in said
    assert "motion branch" in said
    assert f"llamo chat --checkpoint {out}" in said
    config, metadata = read_config(out)
    assert config.dtype == "float32"
    assert (metadata["seed"], metadata["base"], metadata["name"]) == ("3", str(base), "mine")
    words = ["generate", "a person walks", "-o", str(tmp_path / "walk.npz"), "--duration", "0.6", "--steps", "2"]
    assert main([*words, "--checkpoint", str(out)]) == 0
    assert len(load_motion(tmp_path / "walk.npz")) > 0


def test_init_takes_the_vae_of_another_model(base: Path, plain: Path, tmp_path: Path) -> None:
    assert main(["init", "--base", str(base), "--out", str(tmp_path / "out"), "--vae", str(plain)]) == 0
    assert read_config(tmp_path / "out")[0].vae == preset("tiny").vae


def test_what_init_cannot_do_is_refused_in_one_line(
    base: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, says in (
        (["--base", "nothing", "--out", str(tmp_path / "x")], "no folder 'nothing'"),
        (["--base", str(base), "--preset", "1b", "--out", str(tmp_path / "x")], "width: 64 instead of 2048"),
        (["--base", str(base), "--out", str(made)], "already holds a model"),
        (["--base", str(base), "--out", str(tmp_path / "x"), "--vae", "none"], "no model 'none'"),
    ):
        capsys.readouterr()
        assert main(["init", *words]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("llamo: error: ")
        assert says in error
    assert not (tmp_path / "x").exists()


def test_chat_answers_one_prompt_the_same_each_time_at_temperature_0(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chat", "--checkpoint", str(made), "--prompt", "who are you", "--temperature", "0", "--max-tokens", "8"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out == first.out
    assert first.out.strip()
    assert "chat template" in first.err
    assert "licence" in first.err


def test_chat_reads_what_is_piped_in(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chat", "--checkpoint", str(plain), "--max-tokens", "5", "--temperature", "0"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a person\n"))
    assert main(words) == 0
    piped = capsys.readouterr()
    assert "goes on with your text" in piped.err
    assert main([*words, "--prompt", "a person"]) == 0
    assert capsys.readouterr().out == piped.out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(words) == 2
    assert "empty" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat", "--checkpoint", str(plain)]) == 2
    assert "--prompt" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert main(words) == 2
    assert "UTF-8" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_a_conversation_goes_on_until_ctrl_d_or_ctrl_c(
    end: type[BaseException], plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []

    def answer(self: Chat, text: str) -> Iterator[str]:
        heard.append(text)
        yield "yes "
        if text == "stop that":
            raise KeyboardInterrupt
        yield "indeed"

    typed = iter(["hello", "", "stop that", "again"])

    def typing(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise end from None

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", typing)
    monkeypatch.setattr(Chat, "answer", answer)
    assert main(["chat", "--checkpoint", str(plain)]) == 0
    assert heard == ["hello", "stop that", "again"]
    assert capsys.readouterr().out == "yes indeed\nyes \nyes indeed\n\n"


def test_text_that_is_too_long_does_not_end_a_conversation(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["word " * 5000, "a person", EOFError])

    def typing(prompt: str) -> str:
        text = next(typed)
        if text is EOFError:
            raise EOFError
        return text

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", typing)
    assert main(["chat", "--checkpoint", str(plain), "--max-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert "Shorten it" in captured.err
    assert captured.out.strip()


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "--temperature", "-1"],
        ["chat", "--max-tokens", "0"],
        ["init", "--base", "x"],
        ["init", "--base", "x", "--out", "y", "--preset", "mini"],
        ["init", "--base", "x", "--out", "y", "--dtype", "float16"],
    ],
    ids=" ".join,
)
def test_wrong_options_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2


@pytest.mark.parametrize("name", ["init", "chat"])
def test_help_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    example = shlex.split(capsys.readouterr().out.split("example:\n")[1].strip())
    assert example[:2] == ["llamo", name]
    assert callable(make_parser().parse_args(example[1:]).run)
