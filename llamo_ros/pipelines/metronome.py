"""Metronome: absolute deadlines, one each period, that neither drift nor come in a rush after a long stall."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from llamo_ros.core.errors import ParameterError


@dataclass(frozen=True)
class Stall:
    """Time that passed without a beat.

    Attributes:
        beats: Beats that are left out, at most as many as asked for.
        shift: By how much later all further beats come, [s]; what the beats left out do not cover.
        late: How late the beat was, [s].
    """

    beats: int
    shift: float
    late: float


class Metronome:
    """Deadlines at start + k * period. Used by one thread.

    Each beat: :meth:`get_ready`, prepare what is due, :meth:`wait`, send it, :meth:`next_beat`. A beat that is late by
    up to ``longest_catch_up`` is made up for at once; after a longer stall, time goes on from now.

    Args:
        period: Time between deadlines, [s], > 0.
        lead: How long before a deadline :meth:`get_ready` returns, [s], 0 <= lead < period.
        longest_catch_up: Longest lateness that is caught up, [s].
        most_left_out: Most beats that a stall leaves out; time that it lasts longer shifts the deadlines.
        clock: Time, [s], on a clock that never goes back.
        sleep: Sleeps for a number of seconds.

    Raises:
        ParameterError: the period is not positive, or the lead is not within it.
    """

    def __init__(
        self,
        period: float,
        lead: float,
        longest_catch_up: float,
        most_left_out: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not (period > 0 and 0 <= lead < period):
            raise ParameterError(f"period is {period} s and lead {lead} s, expected 0 <= lead < period.")
        self._period, self._lead = period, lead
        self._longest_catch_up, self._most_left_out = longest_catch_up, most_left_out
        self._clock, self._sleep = clock, sleep
        self._start, self._beats = clock(), 0

    @property
    def deadline(self) -> float:
        """When the present beat is due, [s] on the clock."""
        return self._start + self._beats * self._period

    @property
    def left(self) -> float:
        """Time until the present beat is due, [s]; negative when it is late."""
        return self.deadline - self._clock()

    @property
    def has_stalled(self) -> bool:
        """Whether the present beat is too late to be made up for; what was prepared for it is out of date."""
        return -self.left > self._longest_catch_up

    def get_ready(self) -> None:
        """Sleep until shortly before the deadline."""
        self._sleep_until(self.deadline - self._lead)

    def wait(self, after: float = 0.0) -> None:
        """Sleep until the deadline, or so long after it, [s]."""
        self._sleep_until(self.deadline + after)

    def next_beat(self) -> Stall | None:
        """On to the next deadline; tells of a stall, after which the deadlines have moved."""
        self._beats += 1
        late = -self.left
        if late <= self._longest_catch_up:
            return None
        left_out = min(int(late / self._period), self._most_left_out)
        shift = late - left_out * self._period
        self._beats += left_out
        self._start += shift
        return Stall(left_out, shift, late)

    def _sleep_until(self, moment: float) -> None:
        left = moment - self._clock()
        if left > 0:
            self._sleep(left)
