from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml

from llamo_ros.core.errors import LlamoError, ParameterError
from llamo_ros.core.resources import config_path
from llamo_ros.pipelines.imperative import imperative
from llamo_ros.pipelines.instructions import TASKS, InstructionError, Instructions, MotionPart, Part, TextPart

CAPTION = "a person waves the left hand"
VALUES = {"caption": CAPTION, "seconds": 3.2, "style": "like an old person"}
FOLLOW_UPS = [task for task in TASKS if task.startswith("follow_up")]


@pytest.fixture(scope="module")
def instructions() -> Instructions:
    return Instructions.load()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def texts(parts: list[Part]) -> str:
    return " | ".join(part.text for part in parts if isinstance(part, TextPart))


def motions(parts: list[Part]) -> list[str]:
    return [part.name for part in parts if isinstance(part, MotionPart)]


def test_every_task_has_at_least_thirty_templates(instructions: Instructions) -> None:
    assert set(instructions.tasks) == set(TASKS)
    assert min(instructions.counts.values()) >= 30


@pytest.mark.parametrize("task", TASKS)
def test_no_two_templates_of_a_task_are_nearly_the_same(instructions: Instructions, task: str) -> None:
    """Compared without placeholders; 0.85 lets "now slower" stand beside "slow down", not "now, slower"."""
    plain = [re.sub(r"\W+", " ", re.sub(r"{\w+}", "", t.text)).strip() for t in instructions.by_task[task].templates]
    for a, b in combinations([text for text in plain if len(text.split()) > 1], 2):
        assert SequenceMatcher(None, a, b).ratio() < 0.85, (a, b)


@pytest.mark.parametrize("task", TASKS)
def test_a_draw_has_the_parts_of_its_task_in_order_and_no_place_left_open(
    instructions: Instructions, rng: np.random.Generator, task: str
) -> None:
    given = {"motion": "whole", "motion_start": "start", "motion_end": "end"}
    expected = [given[name] for name in TASKS[task].motions]
    expected = (["previous"] if TASKS[task].follows else []) + expected
    for _ in range(300):
        parts = instructions.draw(task, rng, **VALUES)
        answer = parts[-1]
        if task == "motion_to_text":
            assert answer == TextPart(CAPTION, target=True)
            assert motions(parts) == expected
        else:
            assert answer == MotionPart("target")
            assert motions(parts) == [*expected, "target"]
        assert not re.search(r"[{}]", texts(parts))
        assert all(part.text == part.text.strip() != "" for part in parts if isinstance(part, TextPart))
        assert sum(isinstance(part, TextPart) and part.target for part in parts) == (task == "motion_to_text")


@pytest.mark.parametrize("task", TASKS)
def test_every_template_is_drawn(
    instructions: Instructions, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """2000 draws: a template of probability 0.5 / 35 is missed with a chance of 1e-12."""
    monkeypatch.setattr("llamo_ros.pipelines.instructions.spoken_duration", lambda *_: "3 s")
    turns = [instructions.draw(task, rng, **VALUES) for _ in range(2000)]
    if TASKS[task].follows:  # the turn before has wordings of its own
        turns = [parts[parts.index(MotionPart("previous")) :] for parts in turns]
    assert len({tuple(parts) for parts in turns}) == instructions.counts[task]


def test_draws_follow_the_seed(instructions: Instructions) -> None:
    first, second = (np.random.default_rng(7) for _ in range(2))
    for task in TASKS:
        assert instructions.draw(task, first, **VALUES) == instructions.draw(task, second, **VALUES)


def test_half_of_the_text_to_motion_prompts_are_the_bare_caption_and_many_are_commands(
    instructions: Instructions, rng: np.random.Generator
) -> None:
    """Shares of 4000 draws have a standard deviation of at most 0.008."""
    drawn = [texts(instructions.draw("text_to_motion", rng, caption=CAPTION)) for _ in range(4000)]
    assert np.mean([text == CAPTION for text in drawn]) == pytest.approx(0.5, abs=0.04)
    commands = np.mean(["wave the left hand" in text for text in drawn])
    assert 0.25 < commands < 0.4


def test_a_caption_that_is_no_command_is_never_drawn_as_one(
    instructions: Instructions, rng: np.random.Generator
) -> None:
    caption = "a person is pushed to the left"
    assert imperative(caption) is None
    for _ in range(500):
        assert caption in texts(instructions.draw("text_to_motion", rng, caption=caption))


def test_a_caption_that_is_no_sentence_never_continues_one(
    instructions: Instructions, rng: np.random.Generator
) -> None:
    for _ in range(500):
        text = texts(instructions.draw("text_to_motion", rng, caption="salsa dance"))
        assert re.search(r"(^|[:.?] )salsa dance", text), text


def test_a_command_as_caption_is_used_as_one(instructions: Instructions, rng: np.random.Generator) -> None:
    drawn = {texts(instructions.draw("text_to_motion", rng, caption="raise your hand")) for _ in range(1000)}
    assert "please raise your hand" in drawn
    assert "show how raise your hand" not in drawn


@pytest.mark.parametrize("task", ["prediction", "in_between"])
def test_given_motion_is_continued_with_and_without_words(
    instructions: Instructions, rng: np.random.Generator, task: str
) -> None:
    with_words = ["wave" in texts(instructions.draw(task, rng, caption=CAPTION)) for _ in range(400)]
    assert 0.2 < np.mean(with_words) < 0.6
    assert not any("wave" in texts(instructions.draw(task, rng)) for _ in range(100))


@pytest.mark.parametrize("task", FOLLOW_UPS)
def test_a_follow_up_comes_after_what_was_asked_before(instructions: Instructions, task: str) -> None:
    said, previous, follow_up, target = instructions.default(task, **VALUES)
    assert said == TextPart(CAPTION)
    assert (previous, target) == (MotionPart("previous"), MotionPart("target"))
    assert instructions.default(task, style="angrily")[0] == MotionPart("previous")
    assert isinstance(follow_up, TextPart)


def test_the_other_limb_is_named_only_where_the_caption_moves_one(
    instructions: Instructions, rng: np.random.Generator
) -> None:
    def drawn(caption: str | None) -> str:
        return " ".join(texts(instructions.draw("follow_up_mirrored", rng, caption=caption)) for _ in range(300))

    assert "other leg" in drawn("a person kicks with the left leg")
    assert not re.search(r"other (hand|leg|arm|foot)", drawn("a person turns left") + drawn(None))


def test_canonical_prompts_are_plain(instructions: Instructions) -> None:
    target = MotionPart("target")
    assert instructions.default("text_to_motion", caption=CAPTION + ".") == [TextPart(CAPTION), target]
    assert instructions.default("text_to_motion_duration", **VALUES) == [TextPart(f"{CAPTION} for 3.2 seconds"), target]
    assert instructions.default("text_to_motion_style", **VALUES) == [TextPart(f"{CAPTION} like an old person"), target]
    assert instructions.default("motion_to_text") == [MotionPart("whole")]
    assert CAPTION not in texts(instructions.default("prediction"))
    assert CAPTION in texts(instructions.default("prediction", caption=CAPTION))
    assert motions(instructions.default("in_between")) == ["start", "end", "target"]


@pytest.mark.parametrize(
    ("task", "values", "needs"),
    [
        ("text_to_motion", {}, "needs caption"),
        ("text_to_motion_duration", {"caption": CAPTION}, "needs caption and seconds"),
        ("text_to_motion_style", {"style": "angrily"}, "needs caption and style"),
        ("follow_up_style", {"caption": CAPTION}, "needs style"),
        ("dance", {}, "not known"),
        ("text_to_motion_duration", {"caption": CAPTION, "seconds": 0.0}, "at least 0.1"),
    ],
)
def test_what_a_task_needs_is_said(
    instructions: Instructions, rng: np.random.Generator, task: str, values: dict, needs: str
) -> None:
    with pytest.raises(ParameterError, match=needs):
        instructions.draw(task, rng, **values)
    with pytest.raises(ParameterError, match=needs):
        instructions.default(task, **values)


def renamed(data: dict) -> None:
    data["chat"] = data.pop("prediction")


DAMAGES: list[tuple[Callable[[dict], object], str]] = [
    (renamed, "expected exactly"),
    (lambda d: d["prediction"]["templates"].clear(), "has 0 templates, at least 30"),
    (lambda d: d["prediction"].update(templates="go on"), "not a list of texts"),
    (lambda d: d["prediction"].update(share=1), "not a mapping with 'templates'"),
    (lambda d: d["prediction"].update(canonical_share=1.5), "number from 0 to 1"),
    (lambda d: d["follow_up_repeat"]["templates"].append("Again!"), "says the same twice: 'again' and 'Again!'"),
    (lambda d: d["text_to_motion"]["templates"].append("do {verb}"), "unknown placeholder {verb}"),
    (lambda d: d["text_to_motion"]["templates"].append("do {caption"), "unbalanced braces"),
    (lambda d: d["text_to_motion"]["templates"].append("just do it"), "needs {action} or {caption}"),
    (lambda d: d["text_to_motion"]["templates"].append("{action} {style}"), "which this task does not have"),
    (lambda d: d["text_to_motion_duration"]["templates"].append("{action}"), "needs {seconds}"),
    (lambda d: d["prediction"]["templates"].append("and now?"), "wrong motion markers, expected {motion_start}"),
    (lambda d: d["in_between"]["templates"].append("{motion_end} after {motion_start}"), "wrong motion markers"),
    (lambda d: d["motion_to_text"]["templates"].append("{motion} and {motion}?"), "wrong motion markers"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_a_damaged_file_is_refused_with_the_reason(
    tmp_path: Path, damage: Callable[[dict], object], message: str
) -> None:
    data = yaml.safe_load(config_path("instructions.yaml").read_text(encoding="utf-8"))
    damage(data)
    path = tmp_path / "instructions.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(InstructionError, match=re.escape(message)) as caught:
        Instructions.load(path)
    assert isinstance(caught.value, LlamoError)
