"""How many streams can one core make together? Cost of a tick for 1 to 16 streams, and of a stream that goes on and on.

    python benchmarks/generation_streams.py --checkpoint llamo-mini --json benchmarks/results/generation_streams.json

A tick makes one latent (133 ms of motion) of every stream: prompts, guidance and solver as the checkpoint has them, one
thread. Times are that thread's time on its core, so that other programs on the machine count less. "alone" is what as
many engines of one stream each would take. The second table cuts a motion of --minutes into pieces of 10 s: a stream is
read anew when its window is full, so the cost per latent must not grow.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

from llamo_ros.core.errors import LlamoError
from llamo_ros.evaluation.prompt_checks import RULES
from llamo_ros.model.config import LATENT_RATE
from llamo_ros.pipelines.motion_engine import MotionEngine
from llamo_ros.pipelines.text_to_motion import TextToMotion

STREAMS = (1, 2, 4, 8, 16)
PIECE = 75  # latents, 10 s


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS), metavar="N")
    parser.add_argument("--ticks", type=int, default=40, help="timed ticks for each number (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the long stream (default: %(default)s)")
    parser.add_argument("--solver", choices=("euler", "midpoint"), help="default: the checkpoint's")
    parser.add_argument("--steps", type=int, help="solver steps per latent (default: the checkpoint's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(arguments)
    try:
        pipeline = TextToMotion.from_checkpoint(options.checkpoint)
        choice = {"solver": options.solver, "flow_steps": options.steps}
        print(f"{options.checkpoint}, one thread, torch {torch.__version__}, {platform.machine()}")
        rows = _streams(pipeline, options.streams, options.ticks, choice)
        pieces = _long_stream(pipeline, options.minutes, choice)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        result = {"checkpoint": options.checkpoint, **choice, "streams": rows, "long_stream": pieces}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _opened(pipeline: TextToMotion, streams: int, choice: dict[str, str | int | None]) -> MotionEngine:
    engine = pipeline.engine()
    for number in range(streams):
        prompt = RULES[number % len(RULES)].prompt
        engine.open(prompt, seed=number, max_duration=math.inf, exit_threshold=2.0, **choice)
    return engine


def _streams(
    pipeline: TextToMotion, counts: list[int], ticks: int, choice: dict[str, str | int | None]
) -> list[dict[str, float]]:
    """Time per tick, [ms]. The numbers take turns, so that a busy neighbour slows all of them alike."""
    engines = {count: _opened(pipeline, count, choice) for count in counts}
    times: dict[int, list[float]] = {count: [] for count in counts}
    for tick in range(ticks + 3):
        for count, engine in engines.items():
            began = time.thread_time()
            engine.tick()
            if tick >= 3:  # the first ones read the prompts and fill the caches
                times[count].append(1e3 * (time.thread_time() - began))
    alone = statistics.median(times[counts[0]]) / counts[0]
    print(f"{'streams':>8}{'tick [ms]':>11}{'p95':>8}{'per stream':>12}{'alone':>8}{'real time':>11}")
    rows = []
    for count, values in times.items():
        median, late = statistics.median(values), sorted(values)[int(0.95 * (len(values) - 1))]
        real_time = 1e3 / LATENT_RATE / median
        row = {"streams": count, "tick_ms": median, "p95_ms": late}
        rows.append({**row, "per_stream_ms": median / count, "real_time": real_time})
        print(f"{count:8d}{median:11.1f}{late:8.1f}{median / count:12.2f}{count * alone:8.0f}{real_time:10.1f}x")
    return rows


def _long_stream(pipeline: TextToMotion, minutes: float, choice: dict[str, str | int | None]) -> list[dict[str, float]]:
    """Time per latent of one stream in each 10 s of it, [ms]."""
    engine = _opened(pipeline, 1, choice)
    pieces = []
    for piece in range(round(minutes * 60 * LATENT_RATE / PIECE)):
        times = []
        for _ in range(PIECE):
            began = time.thread_time()
            engine.tick()
            times.append(1e3 * (time.thread_time() - began))
        begins = piece * PIECE / LATENT_RATE
        pieces.append({"from_s": begins, "median_ms": statistics.median(times), "max_ms": max(times)})
    shown = ", ".join(f"{row['median_ms']:.1f}" for row in pieces)
    print(f"one stream of {minutes:g} min, median ms per latent in each 10 s: {shown}")
    print(f"longest single latent {max(row['max_ms'] for row in pieces):.1f} ms")
    return pieces


if __name__ == "__main__":
    sys.exit(main())
