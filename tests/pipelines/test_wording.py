from __future__ import annotations

import re

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.pipelines.wording import one_sided_limb, plain_caption, plain_duration, spoken_duration

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()


def understood(text: str) -> float:
    """Seconds that a listener takes from a spoken duration."""
    text = re.sub(r"^(about|roughly|around) ", "", text)
    fixed = {"half a second": 0.5, "half a minute": 30.0, "a minute": 60.0}
    if text in fixed:
        return fixed[text]
    number, unit = re.fullmatch(r"(.+?) (seconds?|s)", text).groups()
    whole, has_half = re.fullmatch(r"(\S+)( and a half)?", number).groups()
    value = (NUMBERS.index(whole) if whole in NUMBERS else float(whole)) + (0.5 if has_half else 0.0)
    assert (unit == "second") == (value == 1 and unit != "s"), text
    return value


def test_spoken_durations_are_within_a_tenth_of_the_truth() -> None:
    rng = np.random.default_rng(0)
    for seconds in [0.1, 0.14, 0.15, 0.5, 1.0, 1.1, 1.25, 2.75, 20.0, 27.3, 33.0, 60.0, *rng.uniform(0.1, 70.0, 3000)]:
        text = spoken_duration(seconds, rng)
        # 1e-9 relative: 0.1 * seconds is not exact in binary.
        assert abs(understood(text) - seconds) <= 0.1 * seconds * (1 + 1e-9), (seconds, text)
        assert understood(plain_duration(seconds)) == pytest.approx(seconds, rel=0.1)


def test_a_duration_is_said_in_many_ways() -> None:
    rng = np.random.default_rng(1)
    said = {spoken_duration(2.5, rng) for _ in range(300)}
    assert {"2.5 seconds", "2.5 s", "about 2.5 s", "two and a half seconds"} <= said
    said = {spoken_duration(3.1, rng) for _ in range(300)}
    assert {"3.1 seconds", "3 seconds", "about 3 seconds", "three seconds"} <= said


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.09, float("nan"), float("inf")])
def test_durations_nobody_can_mean_are_refused(seconds: float) -> None:
    with pytest.raises(ParameterError, match="at least 0.1"):
        spoken_duration(seconds, np.random.default_rng(0))
    with pytest.raises(ParameterError, match="at least 0.1"):
        plain_duration(seconds)


def test_captions_lose_capitals_spaces_and_the_full_stop() -> None:
    assert plain_caption("  A person  walks. ") == "a person walks"


@pytest.mark.parametrize(
    ("caption", "limb"),
    [
        ("a person waves the left hand", "hand"),
        ("a person lifts the right foot, then the left foot", "foot"),
        ("a person moves the left hand and the right leg", None),
        ("a person turns left", None),
    ],
)
def test_a_limb_is_named_where_there_is_one(caption: str, limb: str | None) -> None:
    assert one_sided_limb(caption) == limb
