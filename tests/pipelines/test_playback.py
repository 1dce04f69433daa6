from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import heading
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.pipelines.playback import MAX_BUFFERED, PlaybackBuffer
from llamo_ros.pipelines.stream import StreamChunk
from llamo_ros.pipelines.time_line import PlayedFrame, PlayMode


def played(buffer: PlaybackBuffer, count: int) -> list[PlayedFrame]:
    return [buffer.pop() for _ in range(count)]


def roots(frames: list[PlayedFrame]) -> np.ndarray:
    return np.stack([frame.root_position for frame in frames])


def largest_step(frames: list[PlayedFrame]) -> float:
    rotations = np.stack([frame.rotations for frame in frames])
    return float(geodesic_angle(rotations[:-1], rotations[1:]).max())


def modes(frames: list[PlayedFrame]) -> list[PlayMode]:
    return [frame.mode for frame in frames]


def test_nothing_is_played_before_the_target_depth(walker, chunks) -> None:
    buffer = PlaybackBuffer(target_depth=8)
    first, second, *_ = chunks(walker(16), "a")
    assert buffer.pop() is None
    buffer.push(first)
    assert buffer.pop() is None
    buffer.push(second)
    assert buffer.pop().index == 0


def test_a_short_motion_is_played_although_it_never_reaches_the_depth(walker) -> None:
    buffer = PlaybackBuffer(target_depth=8)
    buffer.push(StreamChunk("a", 0, walker(3), is_final=True))
    assert buffer.pop() is not None


def test_the_first_motion_is_played_as_it_is(walker, chunks) -> None:
    buffer, clip = PlaybackBuffer(), walker(40)
    for chunk in chunks(clip, "a", text="walk"):
        buffer.push(chunk)
    frames = played(buffer, 40)
    np.testing.assert_array_equal(roots(frames), clip.root_positions)
    np.testing.assert_array_equal(np.stack([f.rotations for f in frames]), clip.rotations)
    assert {(frame.mode, frame.text) for frame in frames} == {(PlayMode.RUN, "walk")}
    assert [frame.index for frame in frames] == list(range(40))


def test_after_the_end_the_pose_brakes_and_is_held_without_a_gap_in_the_index(walker, chunks) -> None:
    buffer, clip = PlaybackBuffer(), walker(20)
    for chunk in chunks(clip, "a", text="walk"):
        buffer.push(chunk)
    frames = played(buffer, 60)
    assert [frame.index for frame in frames] == list(range(60))
    assert modes(frames[20:]) == [PlayMode.HOLD] * 40
    assert {frame.text for frame in frames[20:]} == {""}
    speed = np.linalg.norm(np.diff(roots(frames), axis=0), axis=1) * 30
    assert (np.diff(speed[19:27]) <= 1e-9).all()  # slows down, never speeds up
    assert speed[30:].max() == 0.0
    assert buffer.counters.underruns == 0


def test_doubled_frames_are_played_once(walker, chunks) -> None:
    buffer, clip = PlaybackBuffer(), walker(24)
    for chunk in chunks(clip, "a"):
        buffer.push(chunk)
        buffer.push(chunk)
    buffer.push(StreamChunk("a", 2, clip.sliced(2, 6)))
    np.testing.assert_array_equal(roots(played(buffer, 24)), clip.root_positions)
    assert buffer.counters.doubled == 28
    assert buffer.counters.received == 52


def test_overlapping_chunks_add_only_what_is_new(walker) -> None:
    buffer, clip = PlaybackBuffer(), walker(20)
    for start in (0, 6, 12):
        buffer.push(StreamChunk("a", start, clip.sliced(start, start + 8), start == 12))
    np.testing.assert_array_equal(roots(played(buffer, 20)), clip.root_positions)


def test_an_underrun_holds_and_resumes_with_a_cross_fade_at_the_target_depth(walker, chunks) -> None:
    buffer, clip = PlaybackBuffer(target_depth=8), walker(60)
    parts = list(chunks(clip, "a"))
    for chunk in parts[:4]:
        buffer.push(chunk)
    frames = played(buffer, 30)
    assert buffer.counters.underruns == 1
    buffer.push(parts[4])
    frames += played(buffer, 3)
    assert frames[-1].mode is PlayMode.HOLD  # four frames are not enough to go on
    for chunk in parts[5:]:
        buffer.push(chunk)
    frames += played(buffer, 60)
    assert PlayMode.BLEND in modes(frames[33:])
    assert modes(frames[16:36]).count(PlayMode.HOLD) == 19  # all of them until the fade, two frames after the chunk
    assert largest_step(frames) <= largest_step(played_alone(clip)) + 4.0 / 30  # blend_speed
    assert np.linalg.norm(np.diff(roots(frames), axis=0), axis=1).max() <= 1.01 / 30  # never faster than the walk


def played_alone(clip: MotionClip) -> list[PlayedFrame]:
    buffer = PlaybackBuffer()
    buffer.push(StreamChunk("alone", 0, clip, is_final=True))
    return played(buffer, len(clip))


@pytest.mark.parametrize("turn", [0.0, 1.0, -2.5, 3.1])
def test_a_new_stream_goes_on_where_the_person_stands_and_faces(walker, chunks, turn: float) -> None:
    buffer = PlaybackBuffer()
    for chunk in chunks(walker(40), "a"):
        buffer.push(chunk)
    frames = played(buffer, 20)
    for chunk in chunks(walker(80, seed=1, turn=turn), "b"):
        buffer.push(chunk)
    frames += played(buffer, 80)
    yaw = heading(np.stack([frame.rotations[0] for frame in frames]))
    np.testing.assert_allclose(yaw, 0.0, atol=1e-9)  # the new motion's own direction does not matter
    steps = np.diff(roots(frames), axis=0)
    np.testing.assert_allclose(steps[:, 0], 0.0, atol=1e-9)
    assert (steps[:95, 2] > 0.9 / 30).all() and (steps[:, 2] < 1.01 / 30).all()  # walks on at 1 m/s
    speed = 30 * largest_step(frames)
    assert speed <= 30 * max(largest_step(frames[:20]), largest_step(frames[70:])) + 4.0  # blend_speed
    assert modes(frames[20:22]) == [PlayMode.RUN] * 2  # the margin
    assert frames[22].mode is PlayMode.BLEND


def test_a_walk_that_turns_into_standing_slows_down_and_is_never_pulled_back(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    for chunk in chunks(walker(60), "a"):
        buffer.push(chunk)
    played(buffer, 20)
    standing = MotionClip(walker(60).rotations, np.tile([5.0, 0.93, -7.0], (60, 1)))
    for chunk in chunks(standing, "b"):
        buffer.push(chunk)
    steps = np.diff(roots(played(buffer, 60)), axis=0)
    assert (steps[:, 2] > -1e-9).all()
    assert (np.diff(steps[3:, 2]) < 1e-9).all()
    np.testing.assert_allclose(steps[50:], 0.0, atol=1e-12)


def test_what_was_committed_is_played_whatever_comes(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    for chunk in chunks(walker(40), "a"):
        buffer.push(chunk)
    played(buffer, 5)
    committed = buffer.commit(5 + 12)
    assert [frame.index for frame in committed] == list(range(5, 17))
    for chunk in chunks(walker(40, seed=2), "b"):
        buffer.push(chunk)
    frames = played(buffer, 14)
    for promised, frame in zip(committed, frames[:12], strict=True):
        np.testing.assert_array_equal(promised.rotations, frame.rotations)
        np.testing.assert_array_equal(promised.root_position, frame.root_position)
    assert frames[12].mode is PlayMode.BLEND
    assert buffer.commit(17)[0].index == 19  # played frames are not handed out late


def test_an_appended_stream_waits_for_the_end_of_the_one_before(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    first, second = list(chunks(walker(40), "a", text="a")), chunks(walker(40, seed=1), "b", append=True, text="b")
    for chunk in first[:5]:
        buffer.push(chunk)
    for chunk in second:
        buffer.push(chunk)
    for chunk in first[5:]:
        buffer.push(chunk)
    frames = played(buffer, 90)
    assert [frame.text for frame in frames] == ["a"] * 40 + ["b"] * 40 + [""] * 10


def test_an_appended_stream_need_not_wait_for_one_that_stays_away(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    for chunk in list(chunks(walker(40), "a", text="a"))[:4]:
        buffer.push(chunk)
    for chunk in chunks(walker(20), "b", append=True, text="b"):
        buffer.push(chunk)
    texts = [frame.text for frame in played(buffer, 60)]
    assert texts.count("a") == 16
    assert texts.count("b") == 20


def test_late_chunks_of_a_replaced_stream_are_dropped(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    old = list(chunks(walker(60), "a", text="a"))
    for chunk in [*old[:8], *chunks(walker(40), "b", text="b"), *old[8:]]:
        buffer.push(chunk)
    assert [frame.text for frame in played(buffer, 45)] == ["a"] * 2 + ["b"] * 40 + [""] * 3
    assert buffer.counters.doubled == 60 - 32


def test_an_empty_stream_stops_playback(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    for chunk in chunks(walker(60), "a"):
        buffer.push(chunk)
    played(buffer, 10)
    buffer.push(StreamChunk("stop", 0, walker(0), is_final=True))
    frames = played(buffer, 20)
    assert modes(frames) == [PlayMode.RUN] * 2 + [PlayMode.HOLD] * 18
    buffer.push(StreamChunk("a", 60, walker(4)))
    assert played(buffer, 5)[-1].mode is PlayMode.HOLD  # the stopped stream stays stopped


def test_lost_frames_are_counted_and_faded_over(walker, chunks) -> None:
    buffer, clip = PlaybackBuffer(), walker(80)
    parts = list(chunks(clip, "a"))
    for chunk in [*parts[:5], *parts[8:]]:
        buffer.push(chunk)
    frames = played(buffer, 68)
    assert buffer.counters.lost == 12
    assert modes(frames)[:20] == [PlayMode.RUN] * 20
    assert frames[20].mode is PlayMode.BLEND
    assert largest_step(frames) <= largest_step(played_alone(clip)) + 4.0 / 30  # blend_speed


@pytest.mark.parametrize("what", ["joint jump", "root jump", "other rate"])
def test_a_chunk_that_cannot_be_played_is_refused_and_leaves_the_rest_alone(walker, chunks, what: str) -> None:
    buffer, clip = PlaybackBuffer(), walker(40)
    parts = list(chunks(clip, "a"))
    for chunk in parts[:4]:
        buffer.push(chunk)
    rotations, positions = clip.rotations[16:20].copy(), clip.root_positions[16:20].copy()
    if what == "joint jump":
        rotations[2, 5] = rotations[2, 5] @ np.diag([1.0, -1.0, -1.0])
    elif what == "root jump":
        positions[2:] += 1.0
    bad = MotionClip(rotations, positions, 60.0 if what == "other rate" else 30.0)
    with pytest.raises(MotionDataError, match="chunk 16 of stream 'a'"):
        buffer.push(replace(parts[4], clip=bad))
    assert buffer.counters.rejected_chunks == 1
    for chunk in parts[5:]:
        buffer.push(chunk)
    frames = played(buffer, 36)
    assert [f.mode for f in frames].count(PlayMode.HOLD) == 0
    assert largest_step(frames) <= largest_step(played_alone(clip)) + 4.0 / 30  # blend_speed


def test_a_refused_chunk_of_a_new_stream_does_not_touch_streams_that_wait(walker, chunks) -> None:
    buffer = PlaybackBuffer(target_depth=12)
    first, second, third, *_ = chunks(walker(40), "a")
    buffer.push(first)
    buffer.push(second)
    jump = MotionClip(first.clip.rotations, first.clip.root_positions * np.array([[1.0], [1.0], [9.0], [9.0]]))
    with pytest.raises(MotionDataError):
        buffer.push(StreamChunk("garbage", 0, jump))
    buffer.push(third)
    assert buffer.pop() is not None


def test_a_source_without_pacing_is_refused_before_memory_fills(walker) -> None:
    buffer, clip = PlaybackBuffer(), walker(600)
    with pytest.raises(MotionDataError, match="may wait to be played"):
        for number in range(4):
            buffer.push(StreamChunk(f"stream {number}", 0, clip, append=True))
    assert buffer.depth + buffer.waiting <= MAX_BUFFERED


def test_a_pause_brakes_and_resuming_plays_the_rest(walker, chunks) -> None:
    buffer, clip = PlaybackBuffer(), walker(60)
    parts = list(chunks(clip, "a"))
    for chunk in parts[:10]:
        buffer.push(chunk)
    played(buffer, 10)
    buffer.pause()
    frames = played(buffer, 30)
    assert modes(frames[-20:]) == [PlayMode.HOLD] * 20
    for chunk in parts[10:]:
        buffer.push(chunk)
    assert played(buffer, 5)[-1].mode is PlayMode.HOLD
    buffer.resume()
    frames = played(buffer, 60)
    assert len([f for f in frames if f.mode is not PlayMode.HOLD]) == 60 - 12  # 10 played, 2 of margin
    np.testing.assert_array_equal(frames[2 + 47].rotations[1:], clip.rotations[-1, 1:])


@pytest.mark.parametrize("height", [2.0, -0.8])
def test_a_motion_at_another_height_is_reached_slowly(walker, chunks, height: float) -> None:
    buffer, clip = PlaybackBuffer(), walker(60)
    for chunk in chunks(clip, "a"):
        buffer.push(chunk)
    frames = played(buffer, 40)
    above = MotionClip(walker(300).rotations, walker(300).root_positions + [0.0, height, 0.0])
    for chunk in chunks(above, "b"):
        buffer.push(chunk)
    frames += played(buffer, 200)
    steps = np.abs(np.diff(roots(frames)[:, 1]))
    assert steps.max() < 1.5 / 30  # [m]; 1 m/s beside the motion's own
    assert roots(frames)[-1, 1] == pytest.approx(above.root_positions[0, 1], abs=0.2)


def test_an_hour_of_holding_costs_nothing(walker, chunks) -> None:
    buffer = PlaybackBuffer()
    for chunk in chunks(walker(20), "a"):
        buffer.push(chunk)
    played(buffer, 30)
    buffer._line._next += 108_000  # what popping for an hour does
    for chunk in chunks(walker(20), "b"):
        buffer.push(chunk)
    assert len(buffer._line._frames) < 40
    assert played(buffer, 5)[-1].mode is PlayMode.BLEND


@pytest.mark.parametrize("arguments", [{"target_depth": 0}, {"blend_speed": 0.0}, {"blend_speed": float("nan")}])
def test_a_wrong_setting_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(arguments))):
        PlaybackBuffer(**arguments)
