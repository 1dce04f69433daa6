from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.model.conversion import config_for, convert_base
from llamo_ros.model.llama_base import open_base
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_generation import TextMemory, TextOptions, generate_text, next_token

PROMPT = [1, 7, 9, 250, 31]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_text_is_what_transformers_generates(
    dtype: str, write_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = open_base(str(write_llama(tmp_path / "base", dtype=dtype)))
    convert_base(base, config_for(base, "custom"), tmp_path / "llamo")
    model, _ = load_checkpoint(tmp_path / "llamo")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto").eval()
    expected = theirs.generate(
        torch.tensor([PROMPT]), max_new_tokens=60, do_sample=False, eos_token_id=399, pad_token_id=399
    )[0, len(PROMPT) :].tolist()
    actual = list(generate_text(TextMemory(model), PROMPT, {399}, TextOptions(max_tokens=60)))
    assert actual == expected


def test_what_is_read_again_in_part_gives_the_logits_of_reading_it_anew(tiny: Llamo) -> None:
    memory = TextMemory(tiny)
    memory.read(list(range(40)))
    for ids in ([*range(30), 99, 98], [*range(30), 99, 98], [*range(30), 99], [5], list(range(290))):
        # Longer products round differently: a last bit here is 1e-5 of logits around 10.
        torch.testing.assert_close(memory.read(ids), TextMemory(tiny).read(ids), rtol=1e-4, atol=1e-4)
        assert len(memory) == len(ids)


def test_a_pass_that_was_interrupted_leaves_the_memory_usable(tiny: Llamo, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = TextMemory(tiny)
    memory.read(PROMPT)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Llamo, "text_logits", interrupted)
        memory.read([*PROMPT[:3], 70, 71, 72])
    longer = [*PROMPT[:3], 70, 71, 72, 73]
    torch.testing.assert_close(memory.read(longer), TextMemory(tiny).read(longer), rtol=1e-4, atol=1e-4)


def test_only_what_is_new_is_read(tiny: Llamo, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    text_logits = Llamo.text_logits

    def counted(model: Llamo, tokens: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        read.append(tokens.shape[1])
        return text_logits(model, tokens, *rest, **options)

    monkeypatch.setattr(Llamo, "text_logits", counted)
    memory = TextMemory(tiny)
    first = list(generate_text(memory, PROMPT, (), TextOptions(max_tokens=4)))
    list(generate_text(memory, [*PROMPT, *first, 3, 4], (), TextOptions(max_tokens=2)))
    assert read == [5, 1, 1, 1, 3, 1]  # the last token of the first answer is not read until it is needed


def test_no_token_that_text_lacks_is_ever_written(tiny: Llamo) -> None:
    tiny.special_tokens.fill_(100.0)
    generator = torch.Generator().manual_seed(0)
    ids = list(generate_text(TextMemory(tiny), PROMPT, (), TextOptions(50.0, 400), generator))  # nearly uniform
    assert len(ids) == 400
    assert max(ids) < tiny.begin_motion
    assert len(set(ids)) > 100


def test_writing_touches_no_motion_weight(tiny: Llamo) -> None:
    before = list(generate_text(TextMemory(tiny), PROMPT, (), TextOptions(max_tokens=8)))
    for name, tensor in tiny.state_dict().items():
        if not name.startswith("backbone.text."):
            tensor.fill_(torch.nan)
    assert list(generate_text(TextMemory(tiny), PROMPT, (), TextOptions(max_tokens=8))) == before


def test_a_stop_token_ends_the_text_and_is_its_last_token(tiny: Llamo) -> None:
    ids = list(generate_text(TextMemory(tiny), PROMPT, (), TextOptions(max_tokens=6)))
    stop = ids[3]
    stopped = list(generate_text(TextMemory(tiny), PROMPT, {stop}, TextOptions(max_tokens=6)))
    assert stopped == ids[: ids.index(stop) + 1]


def test_drawn_tokens_follow_the_seed_and_the_probabilities() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -30.0])

    def draws() -> list[int]:
        generator = torch.Generator().manual_seed(0)
        return [next_token(logits, 1.0, generator) for _ in range(4000)]

    drawn = draws()
    assert drawn == draws()
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / 4000
    # three standard deviations of a share of 4000 draws: 0.024
    torch.testing.assert_close(shares, torch.softmax(logits, 0), rtol=0, atol=0.024)
    assert {next_token(logits, 0.0) for _ in range(20)} == {0}


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 5e-324])
def test_a_temperature_near_zero_takes_the_most_likely_token(temperature: float) -> None:
    assert next_token(torch.tensor([-2.0, 3.0, -torch.inf, 2.9]), temperature) == 1
    assert next_token(torch.tensor([-9.0, -3.0, -torch.inf, -3.1]), temperature) == 1


@pytest.mark.parametrize(
    ("option", "expected", "wrong"),
    [
        ("temperature", "a number from 0 to below 100", [-1.0, 100, float("nan"), "0.5", None, True, [0.5]]),
        ("max_tokens", "a whole number from 1 on", [0, -3, 12.0, "12", None, True]),
    ],
)
def test_an_option_that_cannot_be_is_named_with_what_is_expected(option: str, expected: str, wrong: list) -> None:
    for value in wrong:
        with pytest.raises(ParameterError, match=f"^{option} is {re.escape(repr(value))}, expected {expected}"):
            TextOptions(**{option: value})


def test_text_ends_where_the_memory_does(tiny: Llamo) -> None:
    memory = TextMemory(tiny, limit=9)
    assert len(list(generate_text(memory, PROMPT, (), TextOptions(max_tokens=100)))) == 5
    with pytest.raises(ParameterError, match="10 tokens"):
        memory.read(list(range(10)))
    with pytest.raises(ParameterError, match="10 tokens"):
        list(generate_text(memory, list(range(10)), (), TextOptions()))
    with pytest.raises(ParameterError, match="0 tokens"):
        memory.read([])
