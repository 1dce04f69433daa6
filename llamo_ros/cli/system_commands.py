"""Subcommands about checkpoints and the machine: store a model in fewer bits, and see what runs here and how fast."""

from __future__ import annotations

import argparse

from llamo_ros.core.errors import BackendError, LlamoError


def quantize(options: argparse.Namespace) -> None:
    """Write a checkpoint whose motion side is int8 or bfloat16."""
    from llamo_ros.model.quantisation import quantise_checkpoint

    made = quantise_checkpoint(options.checkpoint, options.out, options.precision)
    print(f"{options.out}: {made.matrices} matrices of the motion side in {options.precision}, all else as it was")
    print(f"  on disk {made.bytes_before / 1e6:.1f} MB before, {made.bytes_after / 1e6:.1f} MB after")
    print(f"Try it: llamo generate 'a person bows' -o bow.bvh --checkpoint {options.out}")


def doctor(options: argparse.Namespace) -> None:
    """Show versions, machine, kernels and what a model runs on; fails if it cannot run here in real time."""
    from llamo_ros.cli import system_report as report
    from llamo_ros.cli.device import device_of
    from llamo_ros.model.checkpoint import checkpoint_folder

    print(report.table([*report.version_rows(), *report.machine_rows()]), end="\n\n")
    trial, error = None, None
    try:
        print(report.table(report.checkpoint_rows(checkpoint_folder(options.checkpoint))), end="\n\n")
        trial = report.try_model(options.checkpoint, device_of(options.device))
    except LlamoError as caught:
        error = caught  # told at the end, below what is known
    print(report.table(report.operation_rows(trial, error)), flush=True)
    if error is not None:
        raise error
    took, plays = 1e3 * trial.latency, 1e3 * report.LATENT_SECONDS
    print(f"\n{took:.1f} ms for a latent (four frames), which plays for {plays:.0f} ms; on {trial.device}, one thread")
    if took > plays:
        raise BackendError(
            f"{options.checkpoint} does not keep up with real time on {trial.device}: {took:.0f} ms for what plays "
            f"{plays:.0f} ms. Close other programs, take a smaller model or fewer --steps, store it in int8 with "
            "`llamo quantize`, or use a GPU."
        )
    print("It keeps up with real time.")


def bench(options: argparse.Namespace) -> None:
    """Measure a model on one core, show the figures and keep them."""
    import json
    import sys

    from llamo_ros.benchmark.quick import QuickSettings, quick_benchmark
    from llamo_ros.cli.system_report import bench_text
    from llamo_ros.core.files import writable_path
    from llamo_ros.training.runs import git_commit

    if options.json is not None:
        writable_path(options.json)  # now, not when all is measured
    settings = QuickSettings(options.operation_seconds, options.seconds, options.ticks, options.process, options.core)
    result = quick_benchmark(
        options.checkpoint,
        options.precision,
        settings,
        git_commit(),
        progress=lambda line: print(f"{line} ...", file=sys.stderr, flush=True),
    )
    print(bench_text(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nall figures: {options.json}")
