from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llamo_ros.core.errors import CheckpointError, ParameterError, PromptError
from llamo_ros.model.checkpoint import load_checkpoint, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.conversion import config_for, convert_base
from llamo_ros.model.llama_base import open_base
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_generation import TextMemory, TextOptions, generate_text
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.pipelines.chat import Chat, chat_template


@pytest.fixture(scope="module")
def templated(write_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint made of a base with a chat template."""
    folder = tmp_path_factory.mktemp("templated")
    base = open_base(str(write_llama(folder / "base")))
    convert_base(base, config_for(base, "custom"), folder / "llamo")
    return folder / "llamo"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``tiny`` checkpoint without a chat template."""
    folder = tmp_path_factory.mktemp("plain") / "llamo"
    torch.manual_seed(0)
    model = Llamo(preset("tiny")).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    save_checkpoint(model, TextTokenizer.train(["a person walks forward"] * 5, 300), folder, {}, torch.float32)
    return folder


def answers(chat: Chat, *texts: str) -> list[str]:
    return ["".join(chat.answer(text)) for text in texts]


def test_turns_are_laid_out_by_the_chat_template(templated: Path) -> None:
    options = TextOptions(max_tokens=12)
    chat = Chat.from_checkpoint(templated, options=options)
    assert chat.has_template
    first, second = answers(chat, "who are you", "and why")
    model, tokenizer = load_checkpoint(templated)
    turns = [{"role": "user", "content": "who are you"}]
    for expected, following in ((first, "and why"), (second, None)):
        ids = chat_template(templated).apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        written = generate_text(TextMemory(model), ids, tokenizer.stop_ids, options)
        assert "".join(tokenizer.pieces(written)) == expected
        turns += [{"role": "assistant", "content": expected}, {"role": "user", "content": following}]


def test_an_answer_left_half_way_is_remembered_as_far_as_it_was_given(templated: Path) -> None:
    chat = Chat.from_checkpoint(templated, options=TextOptions(max_tokens=12))
    answer = chat.answer("who are you")
    begun = next(answer)
    answer.close()
    assert chat._turns == [{"role": "user", "content": "who are you"}, {"role": "assistant", "content": begun}]
    assert answers(chat, "go on")


def test_the_oldest_turns_are_forgotten_when_the_conversation_is_too_long(templated: Path) -> None:
    model, tokenizer = load_checkpoint(templated)
    chat = Chat(model, tokenizer, chat_template(templated), TextOptions(max_tokens=10), context=150)
    texts = [f"number {n} in a row" for n in range(8)]
    assert len(answers(chat, *texts)) == 8
    assert chat._turns[-2]["content"] == texts[-1]
    assert len(chat._turns) < 16
    assert [turn["role"] for turn in chat._turns] == ["user", "assistant"] * (len(chat._turns) // 2)


def test_without_a_template_the_text_goes_on_over_the_turns(plain: Path) -> None:
    options = TextOptions(max_tokens=6)
    chat = Chat.from_checkpoint(plain, options=options)
    assert not chat.has_template
    first, second = answers(chat, "a person", "walks")
    model, tokenizer = load_checkpoint(plain)
    text = [tokenizer.bos, *tokenizer.encode("a person")]
    for expected, following in ((first, "walks"), (second, "")):
        written = list(generate_text(TextMemory(model), text, tokenizer.stop_ids, options))
        assert "".join(tokenizer.pieces(written)) == expected
        assert written[-1] not in tokenizer.stop_ids
        text += [*written, *tokenizer.encode(following)]


def test_a_text_that_the_model_ended_is_followed_by_a_new_one(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat.from_checkpoint(plain, options=TextOptions(max_tokens=6))
    (expected,) = answers(chat, "a person")
    chat = Chat.from_checkpoint(plain, options=TextOptions(max_tokens=6))
    eos = chat._tokenizer.eos
    monkeypatch.setattr("llamo_ros.pipelines.chat.generate_text", lambda *_: iter([7, eos]))
    answers(chat, "someone jumps")
    monkeypatch.undo()
    assert answers(chat, "a person") == [expected]


def test_the_same_seed_gives_the_same_answers(templated: Path) -> None:
    writing = TextOptions(temperature=1.5, max_tokens=12)
    one, same, other = (
        answers(Chat.from_checkpoint(templated, options=writing, seed=seed), "who", "why") for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize("kind", ["templated", "plain"])
def test_a_text_whose_answer_is_never_begun_was_never_said(kind: str, request: pytest.FixtureRequest) -> None:
    chats = [Chat.from_checkpoint(request.getfixturevalue(kind), options=TextOptions(max_tokens=6)) for _ in range(2)]
    chats[0].answer("what do you see")
    assert answers(chats[0], "who are you") == answers(chats[1], "who are you")


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1"])
def test_a_seed_that_is_no_seed_is_refused(seed: int, templated: Path) -> None:
    with pytest.raises(ParameterError, match="whole number from 0"):
        Chat.from_checkpoint(templated, seed=seed)


@pytest.mark.parametrize("text", ["", "  \n", "word " * 2000, "bad \udcff byte"], ids=lambda text: repr(text)[:12])
@pytest.mark.parametrize("kind", ["templated", "plain"])
def test_text_that_cannot_be_answered_is_refused_and_forgotten(
    kind: str, text: str, request: pytest.FixtureRequest
) -> None:
    chat = Chat.from_checkpoint(request.getfixturevalue(kind), options=TextOptions(max_tokens=6))
    with pytest.raises(PromptError):
        chat.answer(text)
    fresh = Chat.from_checkpoint(request.getfixturevalue(kind), options=TextOptions(max_tokens=6))
    assert answers(chat, "who are you") == answers(fresh, "who are you")


@pytest.mark.parametrize("template", ["{{ raise_exception('no turns') }}", "{% for %}", "{{ messages.first.turn }}"])
def test_a_template_that_fails_is_an_error_that_says_where_it_is(
    template: str, write_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = open_base(str(write_llama(tmp_path / "base", chat_template=template)))
    convert_base(base, config_for(base, "custom"), tmp_path / "made")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja"):
        Chat.from_checkpoint(tmp_path / "made").answer("hello")


def test_a_template_without_transformers_is_refused_with_what_to_install(
    templated: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ParameterError, match=r"llamo-ros\[hub\]"):
        Chat.from_checkpoint(templated)
    assert answers(Chat.from_checkpoint(plain, options=TextOptions(max_tokens=3)), "a person")
