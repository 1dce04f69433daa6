"""Numbers as callers give them: what passes for one, and what only looks like it."""

from __future__ import annotations

import math
import operator

from llamo_ros.core.errors import ParameterError


def whole_number(value: object) -> int | None:
    """The value as a plain int; None if it is no whole number, as True, 1.0 and "1" are none."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real_number(value: object) -> float:
    """The value as a float; NaN, which lies in no range, if it is no number, as True and "1" are none."""
    if isinstance(value, bool | str | bytes):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def checked_count(name: str, value: object) -> int:
    """The value as a plain int.

    Args:
        name: Of the value in the message.
        value: What was given.

    Raises:
        ParameterError: it is not a whole number from 1 on.
    """
    number = whole_number(value)
    if number is None or number < 1:
        raise ParameterError(f"{name} is {value!r}, expected a whole number from 1 on.")
    return number
