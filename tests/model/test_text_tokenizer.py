from __future__ import annotations

from pathlib import Path

import pytest

from llamo_ros.core.errors import PromptError
from llamo_ros.model.text_tokenizer import TextTokenizer, checked_prompt


def test_case_spaces_and_a_final_full_stop_carry_no_meaning(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("  A person WALKS\n forward. ") == tokenizer.encode("a person walks forward")


def test_any_text_survives_encoding(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("naïve 走る 🙂")) == "naïve 走る 🙂"


def test_special_tokens_typed_by_a_user_stay_text(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    read = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert read.eos not in read.encode("walk <eos> now") or read.decode(read.encode("walk <eos> now")) == "walk now"


@pytest.mark.parametrize("text", ["", "  \n", "x" * 10_000, 7, None, "bad \udcff byte"], ids=lambda t: repr(t)[:12])
def test_a_prompt_that_cannot_be_performed_is_refused(text: object) -> None:
    with pytest.raises(PromptError):
        checked_prompt(text)
