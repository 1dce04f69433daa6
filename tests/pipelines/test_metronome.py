from __future__ import annotations

import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.pipelines.metronome import Metronome


class Clock:
    """Time that passes only by sleeping, or by order."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def metronome(clock: Clock, most_left_out: int = 60) -> Metronome:
    return Metronome(0.1, 0.02, 1.0, most_left_out, clock, clock.sleep)


def test_beats_come_at_their_deadlines_whatever_the_work_between_takes(clock: Clock) -> None:
    beats, times = metronome(clock), []
    for work in (0.0, 0.03, 0.08, 0.05, 0.0):
        beats.get_ready()
        assert beats.left == pytest.approx(0.02) or not times
        beats.wait()
        times.append(clock.now)
        clock.now += work
        assert beats.next_beat() is None
    assert times == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])


def test_what_follows_a_beat_is_waited_for_and_does_not_shift_the_next(clock: Clock) -> None:
    beats = metronome(clock)
    beats.wait(0.03)
    assert clock.now == pytest.approx(100.03)
    beats.next_beat()
    beats.wait()
    assert clock.now == pytest.approx(100.1)


def test_a_short_delay_is_caught_up_and_does_not_shift_the_beats(clock: Clock) -> None:
    beats, times = metronome(clock), []
    for work in (0.35, 0.0, 0.0, 0.0, 0.0):
        beats.get_ready()
        beats.wait()
        assert not beats.has_stalled
        times.append(clock.now)
        clock.now += work
        assert beats.next_beat() is None
    assert times == pytest.approx([100.0, 100.35, 100.35, 100.35, 100.4])


def test_after_a_stall_time_goes_on_from_now_without_a_rush(clock: Clock) -> None:
    beats = metronome(clock)
    beats.wait()
    clock.now += 2.53
    stall = beats.next_beat()
    assert stall is not None
    assert stall.late == pytest.approx(2.43)
    assert stall.beats == 24
    assert stall.shift == pytest.approx(0.03)
    times = []
    for _ in range(3):
        beats.wait()
        times.append(clock.now)
        assert beats.next_beat() is None
    assert times == pytest.approx([102.53, 102.63, 102.73])


def test_a_long_stall_leaves_out_a_limited_number_of_beats(clock: Clock) -> None:
    beats = metronome(clock, most_left_out=5)
    clock.now += 10.1
    stall = beats.next_beat()
    assert stall is not None
    assert stall.beats == 5
    assert stall.shift == pytest.approx(9.5)
    assert beats.left == pytest.approx(0.0)


def test_a_stall_while_a_beat_was_waited_for_is_known_before_it_is_sent(clock: Clock) -> None:
    beats = metronome(clock)
    beats.wait()
    beats.next_beat()
    beats.get_ready()
    clock.now += 1.5
    beats.wait()
    assert beats.has_stalled


@pytest.mark.parametrize(("period", "lead"), [(0.0, 0.0), (0.1, 0.1), (0.1, -0.01), (float("nan"), 0.0)])
def test_impossible_times_are_refused(period: float, lead: float) -> None:
    with pytest.raises(ParameterError, match="0 <= lead < period"):
        Metronome(period, lead, 1.0, 60)
