"""How long a whole latent takes on one core, how many streams that core serves, and what a process costs.

    python benchmarks/whole_latent.py --write-docs                     # everything, about 8 minutes
    python benchmarks/whole_latent.py --only latents --busy "same core" --precisions int8 --json busy.json
    python benchmarks/whole_latent.py --only length --length 600
    python benchmarks/whole_latent.py --device cuda --write-docs       # a GPU, fed by one core

The way of the generator node: prompt, backbone, flow head, VAE decoder, frames, joints. Times are those of the wall
clock, of a process that is bound to one core. Four parts:

latents  each tick of --seconds of motion, alone and with another process that never rests, on any core of the machine
         or on this very one
streams  how many robots one core serves: streams made together until what they make plays faster than it is made
length   one motion of --length seconds; the mean cost must stay flat but for attention, within a window, piece by piece
process  a fresh process: seconds from its start to the first pose, and the most memory it holds; also with the node's
         imports (ROS 2), where there are any
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from llamo_ros.benchmark.bars import bars_json, whole_latent_bars
from llamo_ros.benchmark.fresh_process import fresh_process
from llamo_ros.benchmark.machine import PRECISIONS, envelope
from llamo_ros.benchmark.results import add_result_options, check_places, keep
from llamo_ros.benchmark.tables import whole_latent_table
from llamo_ros.benchmark.timing import one_core, spread
from llamo_ros.benchmark.whole_latent import (
    BUSY,
    MOST_STREAMS,
    PERIOD,
    busy_neighbour,
    long_motion,
    streams_in_real_time,
    tick_times,
    usable_cores,
)
from llamo_ros.cli.arguments import count, positive, whole
from llamo_ros.cli.device import device_of
from llamo_ros.core.errors import LlamoError
from llamo_ros.pipelines.text_to_motion import TextToMotion
from llamo_ros.training.runs import git_commit

NAME = "whole_latent"
PARTS = ("latents", "streams", "length", "process")
NODE = "llamo_ros.nodes.motion_generator"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and keep it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        help="of compiled kernels on a CPU (default: all; on a GPU what the model has)",
    )
    parser.add_argument("--busy", nargs="+", choices=BUSY, help="the neighbour (default: each; on a GPU none)")
    parser.add_argument("--seconds", type=positive, default=75.0, help="motion of the latents (default: %(default)s)")
    parser.add_argument("--ticks", type=count, default=40, help="for each number of streams (default: %(default)s)")
    parser.add_argument("--most-streams", type=count, default=MOST_STREAMS, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--length", type=positive, default=600.0, help="of the long motion, [s] (default: %(default)s)")
    parser.add_argument("--piece", type=positive, default=60.0, help="of it, one row each, [s] (default: %(default)s)")
    parser.add_argument("--core", type=whole, help="core to stay on (default: the quietest one)")
    add_result_options(parser, NAME)
    options = parser.parse_args(arguments)
    on_cpu = options.device == "cpu"
    options.busy = options.busy or (list(BUSY) if on_cpu else ["no"])
    precisions: Sequence[str | None] = options.precisions or (PRECISIONS if on_cpu else (None,))
    try:
        check_places(options)
        result = envelope(f"whole latents on {'one core' if on_cpu else 'a GPU'}", git_commit())
        result["checkpoint"] = options.checkpoint
        result["latents"], result["streams"], result["long_motion"] = [], [], []
        for precision in precisions:
            _one_precision(options, precision, result)
        result["processes"] = _processes(options, precisions) if on_cpu and "process" in options.only else []
        result["bars"] = bars_json(whole_latent_bars(result)) if on_cpu else []
        keep(result, options, NAME if on_cpu else f"{NAME}_gpu", whole_latent_table)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _one_precision(options: argparse.Namespace, precision: str | None, result: dict[str, Any]) -> None:
    """Add what is measured in this process, with weights of one precision, to the result; None is the model's own."""
    cores = usable_cores()
    pipeline = TextToMotion.from_checkpoint(options.checkpoint, device_of(options.device), precision=precision)
    precision = precision or "as stored"
    pipeline.warm_up()
    with one_core(options.core) as core:
        print(f"{options.checkpoint}, {precision}, core {core}", flush=True)
        for busy in options.busy if "latents" in options.only else ():
            with busy_neighbour(busy, cores):
                times = tick_times(pipeline, options.seconds)
            row = {"precision": precision, "busy": busy, **spread(times), "real_time": len(times) * PERIOD / sum(times)}
            result["latents"].append(row)
            figures = ", ".join(f"{name} {row[f'{name}_ms']:.2f}" for name in ("p50", "p90", "p99", "max"))
            print(f"  latents, busy neighbour: {busy:14} {figures} ms, {row['real_time']:.1f} x real time", flush=True)
        if "streams" in options.only:
            found = streams_in_real_time(
                pipeline, options.ticks, options.most_streams, progress=lambda line: print(f"  {line}", flush=True)
            )
            result["streams"].append({"precision": precision, **found})
            print(f"  {found['streams']} streams together in real time", flush=True)
        if "length" in options.only:
            rows = long_motion(pipeline, options.length, options.piece)
            result["long_motion"].append({"precision": precision, "seconds": options.length, "rows": rows})
            means = ", ".join(f"{row['mean_ms']:.2f}" for row in rows)
            print(
                f"  {options.length:g} s of motion, mean ms per latent in each {options.piece:g} s: {means}", flush=True
            )


def _processes(options: argparse.Namespace, precisions: Sequence[str | None]) -> list[dict[str, Any]]:
    """Rows of fresh processes. They may use any core, as a node may."""
    kinds = [("the pipeline", ())]
    if importlib.util.find_spec("rclpy") is not None:
        kinds.append(("the pipeline and ROS 2", (NODE,)))
    rows = []
    for precision in precisions:
        for imports, modules in kinds:
            fresh_process(options.checkpoint, precision, 1.0, modules)  # the files are in the system's cache
            found = fresh_process(options.checkpoint, precision, import_first=modules)
            rows.append({"precision": precision, "imports": imports, **found})
            print(
                f"  fresh process, {precision}, {imports}: first pose after {found['first_pose_s']:.2f} s, "
                f"at most {found['peak_mb']:.0f} MB",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
