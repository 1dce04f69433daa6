"""Options of the commands about checkpoints and the machine: quantize and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamo_ros.cli import system_commands
from llamo_ros.cli.arguments import DEFAULT_MODEL, add_command


def add_system_commands(commands: Any) -> None:
    """Add quantize and doctor."""
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
