"""Score motions with the prompt rules: real clips first (do the rules hold?), then a model's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from llamo_ros.core.errors import ParameterError
from llamo_ros.evaluation.actions import main_action
from llamo_ros.evaluation.prompt_checks import FACT_NAMES, RULES, STANDING_FEET, PromptRule
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.facts import MINIMUM_FRAMES, MotionFacts, motion_facts

Item = TypeVar("Item")

# Turns come late in real "walks and turns" clips (median 5 s), so real clips are measured over 8 s, and beside
# that over 4 s.
REAL_SECONDS = 8.0
SHORT_SECONDS = 4.0
POSITIVES = 60
NEGATIVES_PER_CONTENT = 20
# Content label of clips that stand while they gesture: they test the feet part of "stands still".
STANDING_GESTURES = ("raise-up-left-hand", "raise-up-right-hand", "wave-left-hand", "wave-right-hand", "bye", "guide")


@dataclass(frozen=True)
class RealClip:
    """A real clip as the rules see it.

    Attributes:
        content: Its label, or ``caption:<action>`` where all captions have that main action, or "" (not used).
        facts: Facts of its first 8 s.
        short_facts: Facts of its first 4 s.
    """

    content: str
    facts: MotionFacts
    short_facts: MotionFacts


@dataclass(frozen=True)
class RealScore:
    """How one rule does on real clips.

    Attributes:
        name: Name of the rule.
        positives: Clips that do what the prompt says.
        passed: Share of them that pass, over 8 s; NaN if there are none.
        passed_short: The same over 4 s.
        negatives: Clips of other contents.
        false_positives: Share of them that pass.
        by_content: Share that passes of each rival, and of each other content where it is not 0.
    """

    name: str
    positives: int
    passed: float
    passed_short: float
    negatives: int
    false_positives: float
    by_content: Mapping[str, float]


@dataclass(frozen=True)
class PromptScore:
    """How a model does on one prompt.

    Attributes:
        name: Name of the rule.
        prompt: What was said.
        passed: Motions that pass.
        count: Motions made.
        unconditional: Share of the motions made without text that pass the same rule; NaN if none were made.
        means: Mean of each fact over the motions, NaN left out.
        failed: How often each condition failed.
    """

    name: str
    prompt: str
    passed: int
    count: int
    unconditional: float
    means: Mapping[str, float]
    failed: Mapping[str, int]


def content_of(content: str, captions: Sequence[str]) -> str:
    """Content for the rules: the label, or ``caption:<action>`` if all captions have that main action, or ""."""
    if content:
        return content
    actions = {main_action(caption) for caption in captions}
    return f"caption:{actions.pop()}" if len(actions) == 1 and "" not in actions else ""


def real_clip(content: str, clip: MotionClip) -> RealClip:
    """Measure a real clip.

    Raises:
        ParameterError: the clip has fewer than 4 frames.
    """
    windows = (clip.sliced(0, round(seconds * clip.frame_rate)) for seconds in (REAL_SECONDS, SHORT_SECONDS))
    return RealClip(content, *(motion_facts(window) for window in windows))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` items, evenly spread over the sequence, first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def score_real(clips: Iterable[RealClip]) -> list[RealScore]:
    """Pass rate of every rule on real clips of its content, and false positive rate on other contents.

    At most ``POSITIVES`` clips and ``NEGATIVES_PER_CONTENT`` of each other content are used, evenly spread over those
    given. CMU clips are negatives only where a rule names them as rivals: their captions leave things unsaid.
    """
    groups: dict[str, list[RealClip]] = defaultdict(list)
    for clip in clips:
        groups[clip.content].append(clip)
    scores = [_score_real(rule, groups) for rule in RULES]
    gestures = spread([clip for content in STANDING_GESTURES for clip in groups.get(content, [])], POSITIVES)
    feet = PromptRule("stand-still (feet)", "", STANDING_FEET, ())
    moving = {c: spread(groups[c], NEGATIVES_PER_CONTENT) for c in ("walk", "run", "walk-turn-left") if c in groups}
    return [*scores, _real_score(feet, gestures, moving)]


def score_model(
    generate: Callable[[str, int], MotionClip], unconditional: Callable[[int], MotionClip], seeds: Sequence[int]
) -> list[PromptScore]:
    """Make every prompt's motion with every seed, the same number without text, and apply the rules.

    Args:
        generate: Prompt and seed to a motion of about 4 s.
        unconditional: Seed to a motion of the same length made without text.
        seeds: Seeds, at least one.

    Returns:
        One score for each rule, in the order of ``RULES``.

    Raises:
        ParameterError: there is no seed.
    """
    if not seeds:
        raise ParameterError("there is no seed; give at least one.")
    free = [_facts(unconditional(seed)) for seed in seeds]
    scores = []
    for rule in RULES:
        made = [_facts(generate(rule.prompt, seed)) for seed in seeds]
        failed = [condition for facts in made for condition in rule.failures(facts)]
        scores.append(
            PromptScore(
                rule.name,
                rule.prompt,
                sum(rule.passes(facts) for facts in made),
                len(made),
                float(np.mean([rule.passes(facts) for facts in free])),
                _means(made),
                {str(condition): failed.count(condition) for condition in rule.conditions if condition in failed},
            )
        )
    return scores


def real_table(scores: Sequence[RealScore]) -> str:
    """Scores on real clips as a text table."""
    lines = [f"{'rule':20} {'real':>5} {'pass':>5} {'in 4 s':>6} {'others':>6} {'wrong':>5}   passes of other contents"]
    for s in scores:
        others = ", ".join(f"{content} {share:.2f}" for content, share in s.by_content.items())
        lines.append(
            f"{s.name:20} {s.positives:5d} {_number(s.passed):>5} {_number(s.passed_short):>6} {s.negatives:6d} "
            f"{_number(s.false_positives):>5}   {others}"
        )
    return "\n".join(lines)


def model_table(scores: Sequence[PromptScore]) -> str:
    """A model's scores as a text table, with the total."""
    lines = [f"{'rule':14} {'pass':>7} {'no text':>7} {'jerk':>5} {'slide':>5}   mean facts of the rule (failed)"]
    for s in scores:
        facts = []
        for condition in next(rule for rule in RULES if rule.name == s.name).conditions:
            failed = s.failed.get(str(condition), 0)
            facts.append(f"{condition.fact} {_number(s.means[condition.fact])}" + (f" ({failed})" if failed else ""))
        lines.append(
            f"{s.name:14} {s.passed:3d}/{s.count:<3d} {s.unconditional:7.2f} {s.means['jerk']:5.0f} "
            f"{_number(s.means['foot_sliding']):>5}   {', '.join(facts)}"
        )
    passed, count = sum(s.passed for s in scores), sum(s.count for s in scores)
    free = np.mean([s.unconditional for s in scores])
    lines.append(f"{'all':14} {passed:3d}/{count:<3d} {free:7.2f}   jerk in m/s^3, slide in m/s")
    return "\n".join(lines)


def as_json(scores: Sequence[RealScore] | Sequence[PromptScore]) -> list[dict[str, object]]:
    """Scores as plain values for ``json.dump``; what could not be measured is None, since JSON has no NaN."""

    def plain(value: object) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value

    return [{key: plain(value) for key, value in asdict(score).items()} for score in scores]


def _score_real(rule: PromptRule, groups: Mapping[str, Sequence[RealClip]]) -> RealScore:
    positives = spread([clip for content in rule.contents for clip in groups.get(content, [])], POSITIVES)
    ignored = {*rule.contents, *rule.also, ""}
    negatives = {
        content: spread(clips, NEGATIVES_PER_CONTENT)
        for content, clips in sorted(groups.items())
        if content in rule.rivals or (content not in ignored and not content.startswith("caption:"))
    }
    return _real_score(rule, positives, negatives)


def _real_score(
    rule: PromptRule, positives: Sequence[RealClip], negatives: Mapping[str, Sequence[RealClip]]
) -> RealScore:
    shares = {content: _share([rule.passes(c.facts) for c in clips]) for content, clips in negatives.items()}
    wrong = [rule.passes(clip.facts) for clips in negatives.values() for clip in clips]
    return RealScore(
        name=rule.name,
        positives=len(positives),
        passed=_share([rule.passes(clip.facts) for clip in positives]),
        passed_short=_share([rule.passes(clip.short_facts) for clip in positives]),
        negatives=len(wrong),
        false_positives=_share(wrong),
        by_content={content: share for content, share in shares.items() if share > 0 or content in rule.rivals},
    )


def _facts(clip: MotionClip) -> MotionFacts:
    if len(clip) < MINIMUM_FRAMES:
        raise ParameterError(f"a generated motion has {len(clip)} frames, expected at least {MINIMUM_FRAMES}.")
    return motion_facts(clip)


def _means(facts: Sequence[MotionFacts]) -> dict[str, float]:
    values = np.array([[getattr(f, name) for name in FACT_NAMES] for f in facts], dtype=np.float64)
    known = ~np.isnan(values)
    totals = np.where(known, values, 0.0).sum(axis=0)
    return {
        name: float(total / count) if count else float("nan")
        for name, total, count in zip(FACT_NAMES, totals, known.sum(axis=0), strict=True)
    }


def _share(passed: Sequence[bool]) -> float:
    return float(np.mean(passed)) if passed else float("nan")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
