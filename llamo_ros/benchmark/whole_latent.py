"""The whole way from prompt to joints, latent by latent, as the generator node goes it; by the public pipeline only.

A tick is one latent: backbone, flow head, VAE decoder, frames, and where every joint is. It makes 133 ms of motion.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from llamo_ros.benchmark.timing import spread
from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import LATENT_RATE
from llamo_ros.pipelines.text_to_motion import TextToMotion

PERIOD = 1 / LATENT_RATE  # [s] of motion in a latent
PROMPTS = (
    "a person walks forward",
    "a person waves with the right hand",
    "a person turns to the left",
    "a person walks in a circle",
    "a person jumps",
    "a person stands still",
)
EACH = 25.0  # [s] of motion of a prompt: long enough that its window is read anew on the way
MOST_STREAMS = 1024
BUSY = ("no", "same machine", "same core")
WARM_UP = 3  # ticks that read the prompts and fill the caches

Progress = Callable[[str], None]


def quiet(_: str) -> None:
    """Progress that nobody wants to see."""


def tick_times(pipeline: TextToMotion, seconds: float, each: float = EACH) -> list[float]:
    """Time of every tick, [s], of motions of ``each`` seconds that follow one another until ``seconds`` are made.

    The first tick of a motion reads its prompt. At least one latent is made.

    Raises:
        ParameterError: ``seconds`` is not above 0.
    """
    if not seconds > 0:
        raise ParameterError(f"seconds is {seconds}, expected more than 0.")
    times: list[float] = []
    number = 0
    while len(times) < max(1, round(seconds * LATENT_RATE)):
        length = min(each, seconds - len(times) / LATENT_RATE)
        chunks = pipeline.stream(
            PROMPTS[number % len(PROMPTS)], seed=number, min_duration=length, max_duration=max(length, PERIOD)
        )
        times += list(_timed(chunks))
        number += 1
    return times


def long_motion(pipeline: TextToMotion, seconds: float, piece: float = 60.0) -> list[dict[str, float]]:
    """Cost of one motion of so many seconds (at most 600) in each ``piece`` of it, [s]: a row for each.

    A row says when it begins, [s], the spread of its ticks, and the processor's share of real time in it.
    """
    chunks = pipeline.stream(PROMPTS[0], seed=0, min_duration=seconds, max_duration=seconds)
    times = list(_timed(chunks))
    size = max(1, round(piece * LATENT_RATE))
    rows = []
    for start in range(0, len(times), size):
        part = times[start : start + size]
        share = sum(part) / (len(part) * PERIOD)
        rows.append(
            {"from_s": start / LATENT_RATE, **spread(part), "mean_ms": 1e3 * sum(part) / len(part), "load": share}
        )
    return rows


def streams_in_real_time(
    pipeline: TextToMotion,
    ticks: int = 40,
    most: int = MOST_STREAMS,
    progress: Progress = quiet,
) -> dict[str, object]:
    """How many streams one core makes together without falling behind.

    A number of streams keeps up if its ticks take no longer than what they make plays, on the mean. It is doubled from
    1 on until it does not; then the largest that does is searched for between the last two, to an eighth.

    Args:
        pipeline: What makes them.
        ticks: Timed ticks for each number.
        most: Streams at most.
        progress: Told what was found.

    Returns:
        "rows": spread of the ticks of each number that was tried; "streams": the largest that keeps up, 0 if none.

    Raises:
        ParameterError: ``ticks`` or ``most`` is below 1.
    """
    if ticks < 1 or most < 1:
        raise ParameterError(f"ticks is {ticks} and most {most}, expected both to be at least 1.")
    rows: dict[int, dict[str, object]] = {}

    def keeps_up(count: int) -> bool:
        times = _ticks_of_many(pipeline, count, ticks)
        mean = sum(times) / len(times)
        rows[count] = {"streams": count, **spread(times), "mean_ms": 1e3 * mean, "keeps_up": mean <= PERIOD}
        progress(f"{count} streams: {1e3 * mean:.1f} ms a tick, {PERIOD / mean:.1f} x real time")
        return mean <= PERIOD

    good, bad = 0, None
    while bad is None and good < most:
        count = min(most, max(1, 2 * good))
        good, bad = (count, None) if keeps_up(count) else (good, count)
    while bad is not None and good and bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if keeps_up(middle) else (good, middle)
    return {"streams": good, "rows": [rows[count] for count in sorted(rows)]}


@contextmanager
def busy_neighbour(where: str, cores: set[int] | None = None) -> Iterator[None]:
    """Another process that never rests.

    Args:
        where: One of ``BUSY``: "no" for none, "same machine" for one on any of `cores`, "same core" for one on the
            cores that this process may use now.
        cores: Of "same machine"; None for whatever the system chooses.
    """
    if where == "no":
        yield
        return
    chosen = usable_cores() if where == "same core" else cores
    process = multiprocessing.get_context("spawn").Process(target=_never_rest, args=(chosen,), daemon=True)
    process.start()
    try:
        time.sleep(1.0)  # it has started when it matters
        yield
    finally:
        process.kill()
        process.join()


def usable_cores() -> set[int] | None:
    """Cores that this process may use now; None where the system does not say (not Linux)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _timed(chunks: Iterator[object]) -> Iterator[float]:
    """Times, [s], to make each chunk and to place all joints of it."""
    while True:
        began = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            return
        chunk.clip.joint_positions()
        yield time.perf_counter() - began


def _ticks_of_many(pipeline: TextToMotion, count: int, ticks: int) -> list[float]:
    engine = pipeline.engine()
    for number in range(count):
        engine.open(PROMPTS[number % len(PROMPTS)], seed=number, max_duration=math.inf, exit_threshold=2.0)
    times = []
    for tick in range(ticks + WARM_UP):
        began = time.perf_counter()
        for _, chunk in engine.tick():
            chunk.clip.joint_positions()
        if tick >= WARM_UP:
            times.append(time.perf_counter() - began)
    return times


def _never_rest(cores: set[int] | None) -> None:
    """Multiply matrices for ever: it takes processor time, caches and memory bandwidth."""
    if cores is not None:
        os.sched_setaffinity(0, cores)
    parent = os.getppid()
    x = np.ones((512, 512), np.float32)
    while os.getppid() == parent:  # the benchmark was killed: so is its neighbour
        x = np.clip(x @ x, -1.0, 1.0)
