from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from llamo_ros.core.errors import ShapeError
from llamo_ros.evaluation.actions import (
    LABELS,
    SIDES,
    Action,
    action_accuracy,
    action_labels,
    main_action,
    named_actions,
)

ROOT = Path(__file__).resolve().parents[2]


def mirrored(text: str) -> str:
    swap = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
    return re.sub(r"[a-z]+", lambda match: swap.get(match[0], match[0]), text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("a person walks forward.", "walk"),
        ("A person WALLKED   forward", "walk"),
        ("the sim walkng downhill", "walk"),
        ("a person takes a few steps forward.", "walk"),
        ("a person walks backwards.", "walk-backward"),
        ("someone steps backward in an angry way.", "walk-backward"),
        ("the person walks back gracefully", "walk-backward"),
        ("the person walks back to the start", "walk"),
        ("a person jogs briskly across the floor", "run"),
        ("someone sprints ahead", "run"),
        ("a person dashes forward", "run"),
        ("someone walks forward then turns left", "turn"),
        ("a person raises the right hand", "raise-hand"),
        ("someone lifts both arms up tiredly.", "raise-hand"),
        ("someone waves with both arms raised", "wave"),
        ("someone says goodbye with a wave", "wave"),
        ("a person bows energetically.", "bow"),
        ("someone bends forward in a bow", "bow"),
        ("a person hops once on both legs.", "jump"),
        ("someone leaps over a hurdle", "jump"),
        ("a person does jumping jacks", "exercise"),
        ("salsa dance", "dance"),
        ("a person kicks a ball", "kick"),
        ("the person is shadow boxing", "punch"),
        ("a person climbs a ladder and sits down", "climb"),
        ("sit on high stool, stand up", "sit"),
        ("a person lies down on the floor", "lie"),
        ("someone squats down once and stands back up.", "squat"),
        ("a person gestures to show the way", "gesture"),
        ("the person is standing in place.", "stand"),
    ],
)
def test_a_caption_has_its_main_action(text: str, label: str) -> None:
    assert main_action(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("a person walks along a wavy line", "wave"),
        ("he returns to the place he was before", "turn"),
        ("a person bends the elbow and hits with the elbows", "bow"),
        ("someone walking down a run way", "run"),
        ("a man runs his right hand up his left leg", "run"),
        ("a person walks forward with his hands raised", "raise-hand"),
        ("a person raises the right leg and swings the arms", "raise-hand"),
        ("the man stands with arms outstretched", "exercise"),
        ("a person rotates the left foot", "turn"),
        ("a person walks forward, then turns back", "walk-backward"),
        ("", "walk"),
    ],
)
def test_a_word_inside_another_word_or_about_another_limb_does_not_count(text: str, label: str) -> None:
    assert label not in action_labels(text)


def test_a_caption_names_all_its_actions_and_the_most_specific_one_first() -> None:
    assert [a.label for a in named_actions("a person walks, jumps, turns around and sits")] == [
        "sit",
        "jump",
        "turn",
        "walk",
    ]


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("a person waves with the left hand", Action("wave", "left")),
        ("a person is waving around both arms.", Action("wave", "both")),
        ("he waves his hands", Action("wave", "both")),
        ("a person waves", Action("wave")),
        ("someone lifts their right arm up", Action("raise-hand", "right")),
        ("a person raises both hands", Action("raise-hand", "both")),
        ("a person walks and turns to the left", Action("turn", "left")),
        ("walk, 90-degree right turn", Action("turn", "right")),
        ("a person spins counter clockwise", Action("turn", "left")),
        ("a person spins clockwise", Action("turn", "right")),
        ("a person turns around", Action("turn")),
        ("with the right leg lifted a person turns around", Action("turn")),
        ("walks to the left, then turns right", Action("turn", "right")),
        ("someone does one front kick with their left foot.", Action("kick", "left")),
    ],
)
def test_an_action_has_the_side_its_own_clause_names(text: str, action: Action) -> None:
    assert named_actions(text)[0] == action


def test_each_side_belongs_to_its_own_clause() -> None:
    actions = named_actions("a person waves the left hand, then raises the right hand, then turns left")
    assert actions == (Action("wave", "left"), Action("raise-hand", "right"), Action("turn", "left"))


@pytest.mark.parametrize(
    "text",
    ["a person waves with the left hand", "someone walks forward then turns right", "a person spins clockwise"],
)
def test_mirroring_a_caption_mirrors_its_sides_and_keeps_its_actions(text: str) -> None:
    other = {"left": "right", "right": "left", "": ""}
    expected = tuple(Action(a.label, other[a.side]) for a in named_actions(text))
    assert named_actions(mirrored(text)) == expected


def test_accuracy_counts_named_strict_and_sided_apart() -> None:
    score = action_accuracy(
        [
            "a person walks",  # named by the reference, but not its main action
            "a person raises the left hand",  # right action, wrong side
            "a person raises the right hand",  # right
            "a person dances",  # wrong
            "who knows",  # names nothing: wrong
            "a person walks",  # its references name nothing: not counted
        ],
        [
            ["a person walks and turns left"],
            ["a person raises the right hand"],
            ["someone lifts their right arm up", "he moves"],
            ["a person kicks"],
            ["a person jumps"],
            ["lovely weather", ""],
        ],
    )
    assert (score.count, score.correct, score.strict, score.skipped, score.unmapped) == (5, 3, 2, 1, 1)
    assert (score.sided_count, score.sided_correct) == (2, 1)
    assert dict(score.confusions) == {("kick", "dance"): 1, ("jump", ""): 1}
    assert (score.accuracy, score.strict_accuracy, score.side_accuracy) == (0.6, 0.4, 0.5)


def test_accuracy_of_nothing_is_not_a_number() -> None:
    assert math.isnan(action_accuracy([], []).accuracy)
    assert math.isnan(action_accuracy(["a"], [[]]).side_accuracy)


def test_captions_and_references_must_be_equally_many() -> None:
    with pytest.raises(ShapeError, match="one list for each caption"):
        action_accuracy(["a person walks"], [])


def test_the_benchmark_explains_every_label() -> None:
    text = (ROOT / "benchmarks" / "caption_actions.py").read_text(encoding="utf-8")
    table = re.findall(r"^    ([a-z-]+) +\S", text.split('"""')[1], flags=re.MULTILINE)
    assert table[-len(LABELS) :] == list(LABELS)


def test_real_captions_agree_with_the_labels_of_their_clips(shared_folder: Path) -> None:
    labels = {
        "raise-up-left-hand": Action("raise-hand", "left"),
        "wave-both-hands": Action("wave", "both"),
        "walk-turn-right": Action("turn", "right"),
        "walk": Action("walk"),
        "walk-back": Action("walk-backward"),
        "run": Action("run"),
        "bow": Action("bow"),
        "guide": Action("gesture"),
        "squat1Reps": Action("squat"),
    }
    captions = unnamed = 0
    for line in (shared_folder / "data" / "index.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == "test":
            continue
        for caption in row["captions"]:
            actions = named_actions(caption["text"])
            captions, unnamed = captions + 1, unnamed + (not actions)
            assert all(action.side in ("", *SIDES) for action in actions)
            if row.get("content") in labels:
                assert actions[0] == labels[row["content"]], caption["text"]
    assert unnamed / captions < 0.01  # 11 of 9,000: captions that name no action, "moving all around"
