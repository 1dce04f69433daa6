from __future__ import annotations

import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.caption_windows import CaptionWindows

SECOND = 1_000_000_000


def feed(windows: CaptionWindows, clip: MotionClip, *, start: int = 0, now: float = 0.0, **keywords: object) -> None:
    arguments = {"stream_id": "a", "body_id": "", "frame_id": "odom", "is_final": False, **keywords}
    windows.add(clip=clip, start_index=start, start_ns=round(start / 30 * SECOND), now=now, **arguments)


def test_a_finished_stream_is_captioned_once_and_as_a_whole(walker) -> None:
    windows, clip = CaptionWindows(), walker(40)
    for start in range(0, 40, 4):
        feed(windows, clip.sliced(start, start + 4), start=start, is_final=start == 36)
    (job,) = windows.due(0.1)
    assert job.is_final
    assert (job.start_index, job.end_index, job.frame_id) == (0, 39, "odom")
    assert job.end_ns - job.start_ns == pytest.approx(39 / 30 * SECOND, abs=1)
    assert (job.clip.root_positions == clip.root_positions).all()
    assert windows.due(10.0) == []


def test_a_stream_that_stays_away_has_ended(walker) -> None:
    windows = CaptionWindows(interval=0.0, silence=1.0)
    feed(windows, walker(20))
    assert windows.due(0.9) == []
    assert [job.is_final for job in windows.due(1.1)] == [True]


def test_provisional_captions_come_at_the_interval(walker) -> None:
    windows, clip = CaptionWindows(interval=2.0), walker(200)
    jobs = []
    for start in range(0, 200, 4):
        feed(windows, clip.sliced(start, start + 4), start=start, now=start / 30)
        jobs += windows.due(start / 30)
    assert [job.is_final for job in jobs] == [False] * 3
    assert [len(job.clip) for job in jobs] == [64, 124, 184]


def test_a_long_stream_is_cut_into_spans_of_ten_seconds(walker) -> None:
    windows, clip = CaptionWindows(interval=0.0), walker(700)
    for start in range(0, 700, 4):
        feed(windows, clip.sliced(start, start + 4), start=start, is_final=start == 696)
    assert [(job.start_index, job.end_index) for job in windows.due(0.0)] == [(0, 299), (300, 599), (600, 699)]


@pytest.mark.parametrize("first", [1, 299, 300, 450])
def test_frames_that_come_all_at_once_are_cut_into_the_same_spans(walker, first: int) -> None:
    windows, clip = CaptionWindows(), walker(700)
    feed(windows, clip.sliced(0, first))
    feed(windows, clip.sliced(first), start=first, is_final=True)
    jobs = windows.due(0.0)
    assert [(job.start_index, job.end_index) for job in jobs] == [(0, 299), (300, 599), (600, 699)]
    assert [job.start_ns for job in jobs] == pytest.approx([0, 10 * SECOND, 20 * SECOND], abs=5)
    assert [job.is_final for job in jobs] == [True] * 3
    assert (jobs[1].clip.root_positions == clip.root_positions[300:600]).all()


def test_people_and_streams_are_kept_apart(walker) -> None:
    windows = CaptionWindows()
    for stream_id, body_id in (("a", "1"), ("a", "2"), ("b", "1")):
        feed(windows, walker(12), stream_id=stream_id, body_id=body_id, is_final=True)
    assert {(job.stream_id, job.body_id) for job in windows.due(0.0)} == {("a", "1"), ("a", "2"), ("b", "1")}


def test_lost_frames_close_a_span_and_doubled_ones_do_not_count(walker) -> None:
    windows, clip = CaptionWindows(interval=0.0), walker(60)
    for start in (0, 10, 0, 10, 30, 40):
        feed(windows, clip.sliced(start, start + 10), start=start, is_final=start == 40)
    assert [(job.start_index, job.end_index) for job in windows.due(0.0)] == [(0, 19), (30, 49)]


def test_a_moment_is_too_short_for_a_caption(walker) -> None:
    windows = CaptionWindows()
    feed(windows, walker(7), is_final=True)
    feed(windows, walker(0), stream_id="b", is_final=True)
    assert windows.due(100.0) == []


def test_many_streams_do_not_fill_the_memory(walker) -> None:
    windows, clip = CaptionWindows(), walker(8)
    for number in range(100):
        feed(windows, clip, stream_id=str(number), now=number / 1000)
    assert len(windows._windows) <= 32
    assert len(windows.due(0.1)) == 100 - 32
