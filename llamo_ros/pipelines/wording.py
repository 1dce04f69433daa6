"""Words for prompts: durations as people say them, and small facts about a caption."""

from __future__ import annotations

import math
import re

import numpy as np

from llamo_ros.core.errors import ParameterError

MIN_SECONDS = 0.1
DURATION_TOLERANCE = 0.1  # largest error of a spoken duration, as a part of the true one

_SMALL = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()
_LIMB = re.compile(r"\b(?:left|right) (hand|arm|leg|foot)\b")


def plain_caption(caption: str) -> str:
    """The caption in lower case, single-spaced, without a full stop or comma at its end."""
    return " ".join(caption.lower().split()).rstrip(" .,;")


def one_sided_limb(caption: str) -> str | None:
    """What the caption moves on one side of the body, if it is one thing: "hand" of "a person waves the left hand"."""
    limbs = set(_LIMB.findall(caption.lower()))
    return limbs.pop() if len(limbs) == 1 else None


def plain_duration(seconds: float) -> str:
    """The duration to a tenth of a second: "2.5 seconds".

    Args:
        seconds: Duration, [s], at least 0.1.

    Raises:
        ParameterError: the duration is shorter or not finite.
    """
    _check_duration(seconds)
    value = round(seconds, 1)
    if not _is_close(value, seconds):
        value = round(seconds, 2)
    return f"{value:g} {'second' if value == 1 else 'seconds'}"


def spoken_duration(seconds: float, rng: np.random.Generator) -> str:
    """The duration as somebody might say it: "3 seconds", "about 4 s", "two and a half seconds".

    Args:
        seconds: Duration, [s], at least 0.1.
        rng: Source of randomness.

    Returns:
        Words that are within 10 % of the duration.

    Raises:
        ParameterError: the duration is shorter or not finite.
    """
    exact = plain_duration(seconds)
    wordings = [exact, exact.replace(" seconds", " s"), f"about {exact}"]
    whole, half = round(seconds), round(2 * seconds) / 2
    if _is_close(half, seconds):
        number = f"{half:g}"
        unit = "second" if half == 1 else "seconds"
        wordings += [f"{number} {unit}", f"{number} s", f"about {number} s", f"roughly {number} {unit}"]
        if half % 1 == 0.5 and half < len(_SMALL):
            wordings.append("half a second" if half < 1 else f"{_SMALL[int(half)]} and a half seconds")
    if _is_close(whole, seconds):
        unit = "second" if whole == 1 else "seconds"
        wordings += [f"{whole} {unit}", f"{whole} s", f"about {whole} {unit}", f"around {whole} s"]
        if whole < len(_SMALL):
            wordings += [f"{_SMALL[whole]} {unit}", f"about {_SMALL[whole]} {unit}"]
    if _is_close(30, seconds):
        wordings.append("half a minute")
    if _is_close(60, seconds):
        wordings.append("a minute")
    return wordings[int(rng.integers(len(wordings)))]


def _check_duration(seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds >= MIN_SECONDS):
        raise ParameterError(f"duration is {seconds!r} s, expected a finite number of at least {MIN_SECONDS} s.")


def _is_close(value: float, seconds: float) -> bool:
    return abs(value - seconds) <= DURATION_TOLERANCE * seconds
