from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.evaluation.prompt_checks import RULES, Condition, check, rule_named
from llamo_ros.evaluation.prompt_scores import (
    as_json,
    content_of,
    model_table,
    real_clip,
    real_table,
    score_model,
    score_real,
    spread,
)
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.facts import motion_facts
from llamo_ros.motion.rotations import axis_angle_to_matrix, rotation_about_y
from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.training.source_data import read_sequences

FRAMES = 120
DOWN = -80.0
RAISED = np.concatenate([np.linspace(DOWN, 70, 30), np.full(60, 70.0), np.linspace(70, DOWN, 30)])
WAVING = np.concatenate([np.linspace(DOWN, 50, 20), 50 + 20 * np.sin(np.linspace(0, 6 * np.pi, 100))])
HOP = np.interp(np.arange(FRAMES), [0, 50, 57, 64, FRAMES], [0, 0, 0.3, 0, 0])


def body(
    forward: float = 0.0, turn: float = 0.0, left=DOWN, right=DOWN, lean=0.0, lift=0.0, frames: int = FRAMES
) -> MotionClip:
    """A gliding statue for 4 s: speed [m/s], turn [deg] in all, arm elevation and forward lean [deg], lift [m]."""
    vectors = np.zeros((frames, 22, 3))
    vectors[:, JOINT_INDEX["left_shoulder"], 2] = np.radians(left)
    vectors[:, JOINT_INDEX["right_shoulder"], 2] = -np.radians(right)
    vectors[:, JOINT_INDEX["spine1"], 0] = np.radians(lean)
    yaw = np.radians(np.linspace(0, turn, frames))
    rotations = axis_angle_to_matrix(vectors)
    rotations[:, 0] = rotation_about_y(yaw)
    root = np.cumsum((rotation_about_y(yaw) @ np.array([0.0, 0.0, forward / 30])[:, None])[..., 0], axis=0)
    root[:, 1] = 0.94 + lift
    return MotionClip(rotations, root)


# What each prompt asks for, in its plainest form.
PLAIN = {
    "walk-forward": body(forward=1.2),
    "walk-backward": body(forward=-0.8),
    "turn-left": body(turn=90, forward=0.5),
    "turn-right": body(turn=-90, forward=0.5),
    "run": body(forward=3.0),
    "raise-right": body(right=RAISED),
    "raise-left": body(left=RAISED),
    "raise-both": body(left=RAISED, right=RAISED),
    "wave-right": body(right=WAVING),
    "wave-left": body(left=WAVING),
    "bow": body(lean=50 * np.sin(np.linspace(0, np.pi, FRAMES))),
    "jump": body(lift=HOP),
    "stand-still": body(),
}


def test_every_rule_has_a_plain_example_and_its_own_natural_prompt() -> None:
    assert [rule.name for rule in RULES] == list(PLAIN)
    assert len({rule.prompt for rule in RULES}) == len(RULES) == 13
    assert all(rule.prompt.startswith("a person ") for rule in RULES)


@pytest.mark.parametrize(("rule", "shown"), list(itertools.product(PLAIN, PLAIN)))
def test_a_rule_passes_its_own_motion_and_no_other(rule: str, shown: str) -> None:
    passed, facts = check(rule_named(rule), PLAIN[shown])
    assert passed == (rule == shown), rule_named(rule).failures(facts)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES if "left" in rule.name])
def test_the_mirror_image_fails_the_left_rule_and_passes_the_right_one(rule: str) -> None:
    mirrored = PLAIN[rule].mirrored()
    assert not check(rule_named(rule), mirrored)[0]
    assert check(rule_named(rule.replace("left", "right")), mirrored)[0]


@pytest.mark.parametrize("turn", [30, 400, 720, -90])
def test_turning_too_little_or_round_and_round_is_no_left_turn(turn: float) -> None:
    assert not check(rule_named("turn-left"), body(turn=turn))[0]


def test_a_wave_while_walking_off_and_a_raise_with_both_hands_do_not_count() -> None:
    assert not check(rule_named("wave-left"), body(left=WAVING, forward=1.0))[0]
    assert not check(rule_named("raise-left"), PLAIN["raise-both"])[0]
    assert not check(rule_named("raise-right"), PLAIN["raise-both"])[0]


def test_floating_up_is_no_jump() -> None:
    assert not check(rule_named("jump"), body(lift=np.linspace(0, 1.5, FRAMES)))[0]
    assert not check(rule_named("jump"), body(lift=np.interp(np.arange(FRAMES), [0, 30, 40, 119], [0, 0, 0.3, 0.3])))[0]


def test_drifting_sliding_or_trembling_is_not_standing_still() -> None:
    still = rule_named("stand-still")
    assert not check(still, body(forward=0.04))[0]  # 16 cm in 4 s
    slide = body(forward=0.3, frames=20)
    assert [c.fact for c in still.failures(motion_facts(slide))] == ["drift_m", "foot_sliding"]
    tremor = body(left=DOWN + 5 * np.sin(np.arange(FRAMES) * 2.0), right=DOWN + 5 * np.sin(np.arange(FRAMES) * 2.0))
    assert [c.fact for c in still.failures(motion_facts(tremor))] == ["joint_speed"]


def test_every_threshold_has_a_reason_and_every_real_content_is_no_rival_of_itself() -> None:
    for rule in RULES:
        assert all(condition.reason for condition in rule.conditions), rule.name
        assert not set(rule.contents) & {*rule.also, *rule.rivals}, rule.name


def test_a_fact_that_cannot_be_measured_never_meets_a_condition() -> None:
    floating = motion_facts(body(lift=1.0))
    assert math.isnan(floating.foot_sliding)
    assert not Condition("foot_sliding", high=0.08, reason="-").holds(floating)


def test_unknown_facts_rules_and_empty_ranges_are_refused() -> None:
    with pytest.raises(ParameterError, match="Known facts: duration_s"):
        Condition("yaw", low=3)
    with pytest.raises(ParameterError, match="above 5"):
        Condition("yaw_deg", 5, 5)
    with pytest.raises(ParameterError, match="Known rules: walk-forward"):
        rule_named("fly")


def test_a_model_that_obeys_scores_full_marks_and_its_unconditional_motion_is_counted_apart() -> None:
    by_prompt = {rule.prompt: PLAIN[rule.name] for rule in RULES}
    scores = score_model(lambda prompt, seed: by_prompt[prompt], lambda seed: PLAIN["run"], range(2))
    assert [(s.passed, s.count) for s in scores] == [(2, 2)] * len(RULES)
    assert [s.name for s in scores if s.unconditional > 0] == ["run"]
    assert "26/26" in model_table(scores)
    json.dumps(as_json(scores), allow_nan=False)


def test_each_prompt_is_made_once_with_each_seed() -> None:
    asked = []

    def generate(prompt: str, seed: int) -> MotionClip:
        asked.append((prompt, seed))
        return body()

    scores = score_model(generate, lambda seed: body(), [3, 5])
    assert asked == [(rule.prompt, seed) for rule in RULES for seed in (3, 5)]
    failed = scores[0].failed
    assert failed == {"1 < forward_m": 2}


def test_scoring_nothing_is_refused() -> None:
    with pytest.raises(ParameterError, match="no seed"):
        score_model(lambda prompt, seed: body(), lambda seed: body(), [])
    with pytest.raises(ParameterError, match="3 frames"):
        score_model(lambda prompt, seed: body(frames=3), lambda seed: body(), [0])


def test_only_captions_that_agree_make_a_content() -> None:
    assert content_of("bow", ["a person walks"]) == "bow"
    assert content_of("", ["a person walks", "walking slowly forward."]) == "caption:walk"
    assert content_of("", ["a person walks", "a person runs"]) == ""
    assert content_of("", ["it is cold"]) == ""


def test_spread_keeps_the_ends_and_the_order() -> None:
    assert spread(range(100), 3) == [0, 50, 99]
    assert spread("ab", 5) == ["a", "b"]


def test_the_rules_hold_on_real_clips(shared_folder: Path) -> None:
    groups = defaultdict(list)
    for sequence in read_sequences(
        shared_folder / "data", keep=lambda row: row["kind"] != "cmu_trial" and row["length"] > 20
    ):
        groups[content_of(sequence.content, sequence.captions)].append(sequence)
    wanted = {c for rule in RULES for c in (*rule.contents, *rule.rivals)}
    clips = [real_clip(c, s.clip) for c in sorted(wanted & groups.keys()) for s in spread(groups[c], 15)]
    scores = score_real(clips)
    for score in scores:
        assert score.positives == 0 or score.passed >= 0.8, real_table(scores)
        assert score.false_positives <= 0.05, real_table(scores)
        sides = [content for content in score.by_content if "left" in content or "right" in content]
        if "left" in score.name or "right" in score.name:
            assert sides and all(score.by_content[content] <= 0.1 for content in sides), real_table(scores)
    assert "-" in real_table(scores).splitlines()[-2]  # standing still has no real positives of its own
    json.dumps(as_json(scores), allow_nan=False)
