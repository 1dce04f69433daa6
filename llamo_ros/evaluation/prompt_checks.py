"""Thirteen prompts and the kinematic rules that say whether a motion does what the prompt asks.

A rule is a list of conditions on :class:`~llamo_ros.motion.facts.MotionFacts`; each threshold has its reason beside it.
"Real" figures are percentiles of the source data (first 8 s of each clip of that content). The rules were fixed on real
clips before any model was scored with them; ``benchmarks/prompt_checks.py --check-real`` measures them again.

Displacements, turns and peaks do not change when the last pose is held, so a motion that ends early is measured as it
is: holding it to 4 s would only dilute the foot speed of "stands still".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.facts import MotionFacts, motion_facts

FACT_NAMES = tuple(field.name for field in fields(MotionFacts))


@dataclass(frozen=True)
class Condition:
    """``low < fact < high``, and why.

    Attributes:
        fact: Name of a field of MotionFacts.
        low: The fact must be above it, in the fact's unit.
        high: The fact must be below it.
        reason: Why the thresholds are what they are.

    Raises:
        ParameterError: there is no such fact, or no value lies between the thresholds.
    """

    fact: str
    low: float = -math.inf
    high: float = math.inf
    reason: str = ""

    def __post_init__(self) -> None:
        if self.fact not in FACT_NAMES:
            raise ParameterError(f"fact {self.fact!r} does not exist. Known facts: {', '.join(FACT_NAMES)}.")
        if not self.low < self.high:
            raise ParameterError(f"no {self.fact} is above {self.low} and below {self.high}.")

    def holds(self, facts: MotionFacts) -> bool:
        """Whether a motion meets the condition; a fact that could not be measured (NaN) never does."""
        return self.low < getattr(facts, self.fact) < self.high

    def __str__(self) -> str:
        low = f"{self.low:g} < " if self.low > -math.inf else ""
        high = f" < {self.high:g}" if self.high < math.inf else ""
        return f"{low}{self.fact}{high}"


@dataclass(frozen=True)
class PromptRule:
    """A prompt and what a motion must be to have done it.

    Attributes:
        name: Short name for tables.
        prompt: What is said to the model.
        conditions: All of them must hold.
        contents: Content labels (Bandai, HDM05) and ``caption:<action>`` (see below) of real clips that do this.
        also: The same for clips that may or may not do this, so that they are neither positives nor negatives.
        rivals: Contents that are easily taken for it, whose false positives are reported one by one.

    ``caption:<action>`` is a CMU clip all of whose captions have this main action (``llamo_ros.evaluation.actions``).
    """

    name: str
    prompt: str
    conditions: tuple[Condition, ...]
    contents: tuple[str, ...]
    also: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()

    def failures(self, facts: MotionFacts) -> tuple[Condition, ...]:
        """The conditions that do not hold; none if the motion does what is asked."""
        return tuple(condition for condition in self.conditions if not condition.holds(facts))

    def passes(self, facts: MotionFacts) -> bool:
        """Whether all conditions hold."""
        return not self.failures(facts)


_ON_THE_SPOT = Condition("drift_m", high=0.5, reason="a gesture is made standing; real 95 %: 0.10 m, less than a step")
_FEW_REVERSALS = "raising and lowering is one reversal in 95 % of real clips; three or more is waving"
_NOT_RAISED = "the other hand stays down: real 95 % -0.33 m; the raised hand of a mirror image is above 0"


# Begins with the hands at the head, elbows out, and takes the right one down first.
_ELBOW = ("elbowToKnee1RepsLelbowStart",)


def _turns(side: str) -> PromptRule:
    reason = "half of a right-angle turn at least (real 5 to 95 %: 77 to 106), and not round and round (model: 400)"
    low, high = (45.0, 360.0) if side == "left" else (-360.0, -45.0)
    return PromptRule(
        name=f"turn-{side}",
        prompt=f"a person turns {side}",
        conditions=(Condition("yaw_deg", low, high, reason),),
        contents=(f"walk-turn-{side}",),
        also=("jogLeftCircle4StepsRstart", "grabHighR", "lieDownFloor", "kick", "slash", "dance-short"),
        rivals=(f"walk-turn-{_other(side)}", f"walk-{side}", f"raise-up-{side}-hand", "walk"),
    )


def _raises(side: str) -> PromptRule:
    return PromptRule(
        name=f"raise-{side}",
        prompt=f"a person raises the {side} hand",
        conditions=(
            Condition(f"{side}_wrist_m", low=0.0, reason="over the shoulder; real 5, 20, 50 %: -0.01, 0.09, 0.33 m"),
            Condition(f"{_other(side)}_wrist_m", high=-0.2, reason=_NOT_RAISED),
            Condition(f"{side}_reversals", high=3, reason=_FEW_REVERSALS),
            _ON_THE_SPOT,
        ),
        contents=(f"raise-up-{side}-hand",),
        also=(f"wave-{side}-hand", "bye", "byebye", "guide", "grabHighR", "respond", "call", "dance-short", *_ELBOW),
        rivals=(f"raise-up-{_other(side)}-hand", "raise-up-both-hands", f"wave-{_other(side)}-hand"),
    )


def _waves(side: str) -> PromptRule:
    return PromptRule(
        name=f"wave-{side}",
        prompt=f"a person waves with the {side} hand",
        conditions=(
            Condition(f"{side}_reversals", low=2.5, reason="to and fro twice: real median 9 in 7 s; raising alone: 1"),
            Condition(
                f"{side}_wrist_m", low=-0.1, reason="about shoulder height: tired people wave low, real 5 %: -0.04"
            ),
            Condition(f"{_other(side)}_wrist_m", high=-0.2, reason=_NOT_RAISED),
            _ON_THE_SPOT,
        ),
        contents=(f"wave-{side}-hand",),
        also=("bye", "byebye", "guide", "respond", "call", "dance-short"),
        rivals=(f"wave-{_other(side)}-hand", "wave-both-hands", f"raise-up-{side}-hand"),
    )


def _other(side: str) -> str:
    return "right" if side == "left" else "left"


STANDING_FEET = (
    Condition("drift_m", high=0.10, reason="real people who gesture on the spot: median 0.03, 95 % 0.05 to 0.10 m"),
    Condition("foot_sliding", high=0.08, reason="8 cm/s; real 95 %: 1 to 2 cm/s, so a decoder may slide a little"),
    Condition("yaw_range_deg", high=30.0, reason="swaying, no turn: real 95 % of standing gestures 20 deg"),
    Condition("flight_m", high=0.05, reason="both feet never leave the floor together; real 95 %: 0.00 m"),
)

RULES: tuple[PromptRule, ...] = (
    PromptRule(
        name="walk-forward",
        prompt="a person walks forward",
        conditions=(
            Condition("forward_m", low=1.0, reason="two steps within 4 s; real walking does 1 m every second"),
            Condition("yaw_deg", -45.0, 45.0, "real 5 to 95 %: -13 to 14 deg; a turn is a right angle"),
            Condition("peak_speed", high=2.0, reason="people break into a run at 2 m/s; real walking 95 %: 1.6 m/s"),
            Condition("flight_m", high=0.08, reason="walking has no flight; real 95 %: 0.03 m"),
        ),
        contents=("walk", "caption:walk"),
        also=("walk-left", "walk-right", "sneak2StepsLStart", "depositFloorR", "run"),
        rivals=("walk-back", "walk-turn-left", "walk-turn-right", "dash"),
    ),
    PromptRule(
        name="walk-backward",
        prompt="a person walks backward",
        conditions=(
            Condition("advance_m", high=-0.5, reason="a step back; real 95 %: -2.7 m"),
            Condition("yaw_range_deg", high=90.0, reason="does not turn round; real 95 %: 52 deg"),
        ),
        contents=("walk-back", "caption:walk-backward"),
        rivals=("walk", "walk-turn-left", "walk-turn-right"),
    ),
    _turns("left"),
    _turns("right"),
    PromptRule(
        name="run",
        prompt="a person runs",
        conditions=(
            Condition("peak_speed", low=1.8, reason="over a second; real running 5, 20 %: 1.6, 2.5, walking 95 %: 1.6"),
        ),
        contents=("run", "dash", "caption:run"),
        also=("jogLeftCircle4StepsRstart",),
        rivals=("walk", "walk-turn-left", "caption:walk"),
    ),
    _raises("right"),
    _raises("left"),
    PromptRule(
        name="raise-both",
        prompt="a person raises both hands",
        conditions=(
            Condition("left_wrist_m", low=0.0, reason="over the shoulder; real 5, 20, 50 %: -0.03, 0.12, 0.38 m"),
            Condition("right_wrist_m", low=0.0, reason="the same"),
            Condition("left_reversals", high=3, reason=_FEW_REVERSALS),
            Condition("right_reversals", high=3, reason=_FEW_REVERSALS),
            _ON_THE_SPOT,
        ),
        contents=("raise-up-both-hands",),
        also=("wave-both-hands", "bye", "byebye", "throwBasketball", "rotateArmsBothBackward1Reps", "squat1Reps"),
        rivals=("raise-up-left-hand", "raise-up-right-hand"),
    ),
    _waves("right"),
    _waves("left"),
    PromptRule(
        name="bow",
        prompt="a person bows",
        conditions=(
            Condition("trunk_lean_deg", 25.0, 100.0, "real 5, 20, 50 %: 22, 28, 44 deg; walking 95 %: 10 deg"),
            Condition("pelvis_drop_m", high=0.15, reason="legs stay straight: real 95 % 0.06 m, squatting 0.45 m"),
            Condition("drift_m", high=0.30, reason="on the spot; the pelvis moves back in a bow, real 95 %: 0.23 m"),
        ),
        contents=("bow",),
        also=("call", "guide", "dance-short"),
        rivals=("squat1Reps", "depositFloorR", "walk", "raise-up-both-hands"),
    ),
    PromptRule(
        name="jump",
        prompt="a person jumps",
        conditions=(
            Condition(
                "flight_m", low=0.15, reason="both feet off the floor together; real hops 5 %: 0.15, running 0.12"
            ),
            Condition("pelvis_rise_m", 0.10, 0.80, "the body goes up with them, and not up a ladder: real jumps 0.6 m"),
            Condition("flight_s", high=1.0, reason="and comes down again: real jumps at most 0.8 s"),
        ),
        contents=("hopBothLegs1hops", "caption:jump"),
        also=("throwBasketball", "dance-short", "caption:acrobatics"),
        rivals=("run", "dash", "squat1Reps", "caption:climb"),
    ),
    PromptRule(
        name="stand-still",
        prompt="a person stands still",
        conditions=(
            *STANDING_FEET,
            Condition("duration_s", low=0.5, reason="a shorter motion proves nothing"),
            Condition("left_wrist_m", high=-0.15, reason="both hands down: raised ones are real 5 % -0.04 and above"),
            Condition("right_wrist_m", high=-0.15, reason="the same"),
            Condition("trunk_lean_deg", high=25.0, reason="upright: no bow, see there"),
            Condition(
                "joint_speed", high=0.10, reason="real standing 0.01 m/s, a bow 0.11; decoder jitter may add some"
            ),
        ),
        contents=(),
        also=("dance-short",),
        rivals=("bow", "guide", "raise-up-left-hand", "wave-right-hand", "walk"),
    ),
)


def rule_named(name: str) -> PromptRule:
    """The rule with this name.

    Raises:
        ParameterError: there is none; the message lists those there are.
    """
    for rule in RULES:
        if rule.name == name:
            return rule
    raise ParameterError(f"rule {name!r} does not exist. Known rules: {', '.join(rule.name for rule in RULES)}.")


def check(rule: PromptRule, clip: MotionClip) -> tuple[bool, MotionFacts]:
    """Whether a motion does what a rule's prompt asks, and its facts.

    Raises:
        ParameterError: the clip has fewer than 4 frames.
    """
    facts = motion_facts(clip)
    return rule.passes(facts), facts
