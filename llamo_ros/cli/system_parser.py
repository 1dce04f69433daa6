"""Options of the commands about checkpoints and the machine: quantize, doctor and bench."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llamo_ros.cli import system_commands
from llamo_ros.cli.arguments import DEFAULT_MODEL, add_command, count, positive, whole


def add_system_commands(commands: Any) -> None:
    """Add quantize, doctor and bench."""
    quantize = add_command(
        commands,
        "quantize",
        system_commands.quantize,
        "Write a smaller, faster checkpoint: the motion side in int8, the language model as it is.",
        "llamo quantize --checkpoint llamo-mini --out llamo-mini-int8",
    )
    quantize.add_argument("--checkpoint", default=DEFAULT_MODEL, help="what to make it of (default: %(default)s)")
    quantize.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    quantize.add_argument("--precision", choices=("int8", "bfloat16"), default="int8", help="(default: %(default)s)")
    doctor = add_command(
        commands,
        "doctor",
        system_commands.doctor,
        "Show what this machine has, which kernels a model runs on and why, and whether it keeps up with real time.",
        "llamo doctor --checkpoint llamo-mini",
    )
    doctor.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")
    doctor.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="(default: %(default)s)")
    bench = add_command(
        commands,
        "bench",
        system_commands.bench,
        "Measure a model on one core of this machine, in about half a minute: each operation against PyTorch and "
        "against what the core can do at most, whole latents, and how many streams keep up with real time.",
        "llamo bench --checkpoint llamo-mini --precision int8 --json bench.json",
    )
    bench.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")
    bench.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        help="in which compiled kernels keep weights (default: the checkpoint's)",
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    bench.add_argument(
        "--seconds", type=positive, default=75.0, help="motion to make for whole latents, [s] (default: %(default)s)"
    )
    bench.add_argument(
        "--operation-seconds", type=positive, default=1.5, help="for each operation, [s] (default: %(default)s)"
    )
    bench.add_argument("--ticks", type=count, default=8, help="timed for each number of streams (default: %(default)s)")
    bench.add_argument(
        "--process",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start a fresh process to see how soon it moves and what memory it takes (default: on)",
    )
    bench.add_argument("--core", type=whole, help="core to stay on (default: the quietest one)")
