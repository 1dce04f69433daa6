"""How long each operation of generation takes on one core, against PyTorch, ONNX Runtime and the machine's own limit.

    python benchmarks/operations.py --write-docs                 # everything, about 8 minutes
    python benchmarks/operations.py --only backbone --all-instruction-sets --json backbone.json

One thread, bound to one core. The ways to do an operation take turns, so that a busy moment of the machine hits all of
them, and must agree before anything is timed. "naive" computes the modulations of the flow head anew in each of the 50
steps; "hoisted" and the kernels compute them once per latent, which is exact. The limit of a row is the time in which
this core reads the weights as often as the operation has to, or multiplies as often, whichever is longer, at rates that
are measured in this run: reading again and again as many bytes, by the cache level that holds them. `flow loop` is what
that limits; `flow sampler` also has the condition's modulations in it, which its limit leaves out.

torch.compile needs a C++ compiler, ONNX Runtime `pip install 'llamo-ros[bench]'`; where they are missing, their rows
say so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from llamo_ros.benchmark.backbone_operation import step_candidates
from llamo_ros.benchmark.bars import bars_json, operation_bars
from llamo_ros.benchmark.candidates import Candidate, measure
from llamo_ros.benchmark.decoder_operation import frame_decoder_candidates, vae_decoder_candidates
from llamo_ros.benchmark.flow_operation import loop_candidates, sampler_candidates
from llamo_ros.benchmark.machine import PRECISIONS, Limits, envelope, why_no_compiler
from llamo_ros.benchmark.results import add_result_options, check_places, head_size, keep, limits_json
from llamo_ros.benchmark.tables import operations_table
from llamo_ros.benchmark.timing import one_core
from llamo_ros.cli.arguments import count, positive, whole
from llamo_ros.core.errors import LlamoError
from llamo_ros.kernels.backends import instruction_sets
from llamo_ros.model.config import FlowHeadConfig, preset
from llamo_ros.training.runs import git_commit

NAME = "operations"
SUBJECTS = ("flow", "backbone", "decoder")
# Width and blocks of the flow head; the last is the paper's, whose modulations do not come apart.
SIZES = ((256, 4), (384, 6), (512, 6), (768, 8), (1024, 8), (1536, 12))
ROWS = (1, 2, 16)  # tokens of the backbone at once: plain, with guidance, and eight guided streams
COMPILED_WIDTH = 512  # beyond, compiling one more size says nothing new


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="(default: all)")
    parser.add_argument("--preset", default="mini", help="sizes of backbone and VAE (default: %(default)s)")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=head_size,
        default=list(SIZES),
        metavar="WxN",
        help="width and blocks of the flow head (default: 256x4 to 1536x12)",
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--all-instruction-sets", action="store_true", help="not only the fastest of this machine")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--steps", type=count, default=50, help="Euler steps of the flow (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=positive, default=8.0, help="for each operation and size, [s] (default: %(default)s)"
    )
    parser.add_argument("--core", type=whole, help="core to stay on (default: the quietest one)")
    add_result_options(parser, NAME)
    options = parser.parse_args(arguments)
    try:
        check_places(options)
        result = envelope("operations of generation on one core", git_commit())
        limits, rows = Limits(), []
        with one_core(options.core):
            for operation, size, candidates in _operations(options):
                print(f"{operation}, {size} ...", flush=True)
                made = measure(operation, candidates, limits, options.seconds, {"size": size})
                _print(made)
                rows += made
        result |= {"steps": options.steps, "rows": rows, "limits": limits_json(limits)}
        result["bars"] = bars_json(operation_bars(rows))
        keep(result, options, NAME, operations_table)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _operations(options: argparse.Namespace) -> Iterator[tuple[str, str, list[Candidate]]]:
    """Name, size and candidates of each operation, made only when it is its turn: large ones take much memory."""
    sets = instruction_sets() if options.all_instruction_sets else instruction_sets()[:1]
    why_not = "left out by --no-compile" if options.no_compile else why_no_compiler()
    precisions, config = options.precisions, preset(options.preset)
    if "flow" in options.only:
        for width, blocks in options.sizes:
            size = f"{width} x {blocks}"
            is_paper = (width, blocks) == (1536, 12)
            modulation = "joint" if is_paper else "separable"
            head = FlowHeadConfig(width=width, blocks=blocks, modulation=modulation, affine_norm=is_paper)
            yield "flow sampler", size, sampler_candidates(head, precisions, steps=options.steps)
            if width == 256:
                guided = sampler_candidates(head, precisions, guided=True, steps=options.steps)
                yield "flow sampler", f"{size}, guided", guided
            compiled = {"compiled": width <= COMPILED_WIDTH, "why_not_compiled": why_not}
            yield "flow loop", size, loop_candidates(width, blocks, precisions, sets, steps=options.steps, **compiled)
    if "backbone" in options.only:
        for rows in ROWS:
            compiled = {"compiled": True, "why_not_compiled": why_not}
            candidates = step_candidates(config.backbone, precisions, sets, rows=rows, **compiled)
            yield "backbone step", f"{options.preset}, {rows} row{'s' if rows > 1 else ''}", candidates
    if "decoder" in options.only:
        yield "VAE decoder", f"{options.preset}, 1 latent", vae_decoder_candidates(config.vae, precisions, sets)
        yield "frames and joints", "4 frames", frame_decoder_candidates()


def _print(rows: Sequence[dict[str, object]]) -> None:
    for row in rows:
        name = f"  {row['candidate']:24}{row['precision']:10}{row['instruction_set']:13}"
        if "not_run" in row:
            print(f"{name}not run: {row['not_run']}")
            continue
        figures = f"p50 {row['p50_ms']:9.3f} ms  p99 {row['p99_ms']:9.3f} ms  {row['speedup']:7.1f} x the first"
        ratio = f"  {row['to_limit']:6.2f} x the limit by {row['bound']}" if "to_limit" in row else ""
        print(name + figures + ratio, flush=True)


if __name__ == "__main__":
    sys.exit(main())
