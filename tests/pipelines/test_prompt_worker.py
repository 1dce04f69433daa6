from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from llamo_ros.core.errors import PromptError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.prompt_worker import MAX_QUEUE, Prompt, PromptWorker
from llamo_ros.pipelines.stream import StreamChunk


@dataclass(frozen=True)
class FakeChunk:
    clip: MotionClip
    start_index: int
    latency: float
    is_final: bool


class Bench:
    """A worker on a fake pipeline that makes a chunk in a few milliseconds, and what it emits."""

    def __init__(self, walker: Callable[..., MotionClip], lead_time: float) -> None:
        self.chunks: list[StreamChunk] = []
        self.times: list[float] = []
        self.failures: list[tuple[Prompt, Exception]] = []
        self._clip = walker(4)
        self.worker = PromptWorker(
            self.generate, self.emit, lambda prompt, error: self.failures.append((prompt, error)), lead_time
        )
        self.worker.start()

    def generate(self, text: str, *, count: int = 5) -> Iterator[FakeChunk]:
        if not text:
            raise PromptError("prompt is empty.")
        return self._chunks(text, count)

    def _chunks(self, text: str, count: int) -> Iterator[FakeChunk]:
        for number in range(count):
            if text == "fail" and number == 2:
                raise RuntimeError("out of luck")
            time.sleep(0.002)
            yield FakeChunk(self._clip, 4 * number, 0.002, number == count - 1)

    def emit(self, chunk: StreamChunk) -> None:
        self.chunks.append(chunk)
        self.times.append(time.monotonic())

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, self.chunks
            time.sleep(0.002)

    def texts(self) -> list[str]:
        return [chunk.text for chunk in self.chunks]


@pytest.fixture
def bench(walker) -> Iterator[Bench]:
    bench = Bench(walker, lead_time=10.0)
    yield bench
    assert bench.worker.close()


def test_a_prompt_becomes_one_stream_that_ends(bench: Bench) -> None:
    bench.worker.submit(Prompt("walk", "id", options={"count": 3}))
    bench.wait(lambda: any(chunk.is_final for chunk in bench.chunks))
    assert len({chunk.stream_id for chunk in bench.chunks}) == 1
    assert [(c.start_index, c.is_final, c.prompt_id) for c in bench.chunks] == [
        (0, False, "id"),
        (4, False, "id"),
        (8, True, "id"),
    ]
    assert bench.worker.status.frames == 12


def test_a_new_prompt_takes_over_and_the_old_stream_still_ends(bench: Bench) -> None:
    bench.worker.submit(Prompt("walk", options={"count": 1000}))
    bench.wait(lambda: len(bench.chunks) > 3)
    bench.worker.submit(Prompt("jump"))
    bench.wait(lambda: bench.texts().count("jump") == 5)
    ends = [chunk for chunk in bench.chunks if chunk.is_final]
    assert [(end.text, len(end.clip)) for end in ends] == [("walk", 0), ("jump", 4)]
    assert bench.texts() == sorted(bench.texts(), reverse=True)  # all of "walk", then all of "jump"
    assert ends[0].start_index == 4 * (bench.texts().count("walk") - 1)


def test_an_appended_prompt_waits_for_its_turn(bench: Bench) -> None:
    bench.worker.submit(Prompt("walk", options={"count": 20}))
    bench.worker.submit(Prompt("jump", append=True))
    bench.wait(lambda: bench.texts().count("jump") == 5)
    assert bench.texts() == ["walk"] * 20 + ["jump"] * 5
    assert {chunk.append for chunk in bench.chunks if chunk.text == "jump"} == {True}


def test_generation_stays_at_most_the_lead_time_ahead(walker) -> None:
    bench = Bench(walker, lead_time=0.3)
    bench.worker.submit(Prompt("walk", options={"count": 12}))
    bench.worker.submit(Prompt("jump", append=True, options={"count": 6}))
    bench.wait(lambda: bench.texts().count("jump") == 6)
    assert bench.worker.close()
    began = bench.times[0]
    for number, moment in enumerate(bench.times):
        ahead = 4 * number / 30 - (moment - began)
        assert ahead <= 0.3 + 4 / 30 + 0.01  # one chunk more than the lead time; 10 ms for the clocks
    # Nor does it fall behind: the appended motion follows the first without a pause. 0.2 s for a busy machine.
    assert bench.times[-1] - began < 4 * 17 / 30 + 0.2


def test_stop_ends_the_motion_and_tells_playback(bench: Bench) -> None:
    bench.worker.submit(Prompt("walk", options={"count": 1000}))
    bench.worker.submit(Prompt("jump", append=True))
    bench.wait(lambda: len(bench.chunks) > 3)
    bench.worker.stop()
    bench.wait(lambda: len([chunk for chunk in bench.chunks if chunk.is_final]) == 2)
    time.sleep(0.05)
    end, stop = bench.chunks[-2:]
    assert (end.text, end.is_final, len(end.clip)) == ("walk", True, 0)
    assert (stop.start_index, stop.is_final, len(stop.clip), stop.append) == (0, True, 0, False)
    assert stop.stream_id != end.stream_id
    assert "jump" not in bench.texts()


def test_stop_reaches_playback_also_when_nothing_is_being_generated(bench: Bench) -> None:
    bench.worker.stop()
    bench.wait(lambda: len(bench.chunks) == 1)
    assert bench.chunks[0].is_final


def test_a_bad_prompt_leaves_the_motion_in_progress_alone(bench: Bench) -> None:
    bench.worker.submit(Prompt("walk", options={"count": 30}))
    with pytest.raises(PromptError):
        bench.worker.submit(Prompt(""))
    bench.wait(lambda: any(chunk.is_final for chunk in bench.chunks))
    assert len(bench.chunks) == 30


def test_a_motion_that_fails_half_way_ends_and_the_next_is_performed(bench: Bench) -> None:
    bench.worker.submit(Prompt("fail"))
    bench.worker.submit(Prompt("walk", append=True))
    bench.wait(lambda: bench.texts().count("walk") == 5)
    assert [str(error) for _, error in bench.failures] == ["out of luck"]
    assert bench.texts()[:3] == ["fail"] * 3
    assert bench.chunks[2].is_final and not len(bench.chunks[2].clip)


def test_a_long_queue_is_refused(bench: Bench) -> None:
    bench.worker.submit(Prompt("walk", options={"count": 1000}))
    bench.wait(lambda: bench.worker.is_busy)
    for _ in range(MAX_QUEUE):
        bench.worker.submit(Prompt("jump", append=True))
    with pytest.raises(PromptError, match="waiting already"):
        bench.worker.submit(Prompt("jump", append=True))
