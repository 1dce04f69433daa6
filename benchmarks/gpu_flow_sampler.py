"""How long the flow head takes on a GPU, from 1 latent to 64 at once, against PyTorch and the GPU's own limit.

    python benchmarks/gpu_flow_sampler.py --write-docs                        # the paper's head, 1536 x 12
    python benchmarks/gpu_flow_sampler.py --sizes 256x4 --batches 1 64 --json small.json
    python benchmarks/gpu_flow_sampler.py --device cpu --sizes 32x2 --batches 1 --seconds 1   # tries the code

Times are of the wall clock until the GPU is done. "flow sampler" begins with noise and condition; "naive" computes the
modulations anew in each of the 50 steps. "flow loop" has the modulations given, and is what the limit is about: reading
the blocks' weights in each step, or multiplying with them, at rates measured in this run. A way that fails or computes
something else has a row that says so; the others go on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence

import torch

from llamo_ros.benchmark import gpu_flow
from llamo_ros.benchmark.candidates import Candidate, measure
from llamo_ros.benchmark.machine import envelope
from llamo_ros.benchmark.results import add_result_options, check_places, head_size, keep, limits_json
from llamo_ros.benchmark.tables import gpu_table
from llamo_ros.cli.arguments import count, positive
from llamo_ros.core.errors import LlamoError
from llamo_ros.model.config import FlowHeadConfig
from llamo_ros.training.runs import git_commit

NAME = "gpu_flow_sampler"
PAPER_WIDTH = 1536  # from here on as the paper has it: modulations do not come apart, LayerNorms are affine


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu only tries the code (default: %(default)s)")
    parser.add_argument(
        "--sizes", nargs="+", type=head_size, default=[(1536, 12)], metavar="WxN", help="(default: the paper's)"
    )
    parser.add_argument("--batches", nargs="+", type=count, default=[1, 2, 4, 8, 16, 32, 64], metavar="B")
    parser.add_argument("--steps", type=count, default=50, help="Euler steps (default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=4.0, help="for each row of sizes and batches, [s]")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--commit", help="written into the result (default: that of the checkout)")
    add_result_options(parser, NAME)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU that PyTorch can use. To try the code without one: --device cpu")
    try:
        check_places(options)
        result = envelope("flow head on a GPU", options.commit or git_commit())
        is_gpu = options.device.startswith("cuda")
        limits = gpu_flow.GpuLimits(
            seconds=0.5 if is_gpu else 1e-3, device=options.device, matrix=8192 if is_gpu else 64
        )
        rows: list[dict[str, object]] = []
        result |= {"device": options.device, "steps": options.steps, "rows": rows}
        for operation, details, candidates in _operations(options):
            print(f"{operation}, {details['size']}, {details['batch']} latents ...", flush=True)
            made = measure(operation, candidates, limits, options.seconds, details, is_strict=False)
            for row in made:
                _print(row)
            rows += made
            largest = max(limits.bandwidths, default=1 << 20)
            summary = {"bandwidth": limits.bandwidth(largest), "rate": limits.rate("bfloat16")}
            result["limits"] = limits_json(limits) | summary
            if options.json is not None:  # a slice of time may end before all is measured
                options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        keep(result, options, NAME, gpu_table)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _operations(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, object], list[Candidate]]]:
    """Name, size and candidates of each operation, made only when it is its turn: large ones take much memory."""
    for (width, blocks), batch in itertools.product(options.sizes, options.batches):
        details = {"size": f"{width} x {blocks}", "batch": batch}
        is_paper = width >= PAPER_WIDTH
        modulation = "joint" if is_paper else "separable"
        config = FlowHeadConfig(width=width, blocks=blocks, modulation=modulation, affine_norm=is_paper)
        yield "flow sampler", details, gpu_flow.sampler_candidates(config, batch, options.device, options.steps)
        compiled = not options.no_compile
        loop = gpu_flow.loop_candidates(width, blocks, batch, options.device, options.steps, compiled)
        yield "flow loop", details, loop


def _print(row: dict[str, object]) -> None:
    name = f"  {row['candidate']:28}{row['precision']:10}"
    if "not_run" in row:
        print(f"{name}not run: {row['not_run']}", flush=True)
        return
    ratio = f"  {row['to_limit']:6.2f} x the limit by {row['bound']}" if "to_limit" in row else ""
    print(f"{name}p50 {row['p50_ms']:9.3f} ms  p99 {row['p99_ms']:9.3f} ms  {row['speedup']:7.1f} x{ratio}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
