from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamo_ros.core.errors import CheckpointError, PromptError
from llamo_ros.model.text_tokenizer import TextTokenizer, checked_prompt


def test_case_spaces_and_a_final_full_stop_carry_no_meaning(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("  A person WALKS\n forward. ") == tokenizer.encode("a person walks forward")


def test_any_text_survives_encoding(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("naïve 走る 🙂")) == "naïve 走る 🙂"


def test_special_tokens_typed_by_a_user_stay_text(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    read = TextTokenizer.load(tmp_path / "tokenizer.json")
    ids = read.encode("walk <eos> now")
    assert read.eos not in ids
    assert read.decode(ids) == "walk <eos> now"


def test_pieces_of_a_text_are_whole_characters_that_add_up_to_it(tokenizer: TextTokenizer) -> None:
    text = "naïve 走る 🙂 walks"
    ids = tokenizer.encode(text)
    pieces = list(tokenizer.pieces(ids))
    assert len(pieces) > 5
    assert "".join(pieces).strip() == text
    assert not any("\ufffd" in piece for piece in pieces)
    cut = "".join(tokenizer.pieces(ids[:-8]))  # in the middle of a character: what is there is still shown
    assert cut.strip() == tokenizer.decode(ids[:-8])


# What a Llama base brings along


def with_companions(tokenizer: TextTokenizer, folder: Path, **files: object) -> Path:
    tokenizer.save(folder / "tokenizer.json")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "tokenizer.json"


def test_special_tokens_are_those_that_the_base_names(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    names = {"bos_token": {"content": "<eos>"}, "eos_token": "<pad>", "pad_token": None}
    path = with_companions(tokenizer, tmp_path, tokenizer_config=names)
    read = TextTokenizer.load(path)
    assert (read.bos, read.eos, read.pad) == (tokenizer.eos, tokenizer.pad, tokenizer.pad)
    assert read.stop_ids == {read.eos}
    assert not read.has_chat_template


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"tokenizer_config": {"bos_token": "<bos>"}}, "eos_token"),
        ({"tokenizer_config": {"bos_token": "<s>", "eos_token": "</s>"}}, "lacks </s>, <s>"),
        ({"tokenizer_config": [1]}, "JSON object"),
        ({"generation_config": 3}, "JSON object"),
    ],
    ids=str,
)
def test_a_base_without_usable_special_tokens_is_refused(
    files: dict[str, object], says: str, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    path = with_companions(tokenizer, tmp_path, **files)
    with pytest.raises(CheckpointError, match=says) as caught:
        TextTokenizer.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "  \n", "x" * 10_000, 7, None, "bad \udcff byte"], ids=lambda t: repr(t)[:12])
def test_a_prompt_that_cannot_be_performed_is_refused(text: object) -> None:
    with pytest.raises(PromptError):
        checked_prompt(text)
