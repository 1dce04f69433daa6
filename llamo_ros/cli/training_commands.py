"""Subcommands that pack data, train and export."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamo_ros.cli.device import device_of

if TYPE_CHECKING:
    from llamo_ros.training.runs import StageSettings


def data_pack(options: argparse.Namespace) -> None:
    """Pack a source folder and say what the pack holds."""
    from llamo_ros.training.pack import pack_data

    pack_data(options.source, options.out, options.licence)
    _print_pack(options.out)


def data_info(options: argparse.Namespace) -> None:
    """Say what a pack holds."""
    _print_pack(options.pack)


def _print_pack(folder: Path) -> None:
    from llamo_ros.motion.skeleton import FRAME_RATE
    from llamo_ros.training.pack import open_pack

    pack = open_pack(folder)
    hours = len(pack.features) / FRAME_RATE / 3600
    print(f"{folder}: {len(pack.sequences)} sequences, {hours:.2f} hours, licence set {pack.licence_set}")
    counts = Counter((row.kind, row.split) for row in pack.sequences)
    frames: Counter[tuple[str, str]] = Counter()
    for row in pack.sequences:
        frames[row.kind, row.split] += row.length
    for (kind, split), count in sorted(counts.items()):
        print(f"  {kind:10} {split:6} {count:6} sequences {frames[kind, split] / FRAME_RATE / 60:8.1f} minutes")


def train_vae(options: argparse.Namespace) -> None:
    """Train the motion VAE."""
    from llamo_ros.training import stages

    _print_figures(stages.train_vae(_stage_settings(options), options.decoder_of))


def train_text(options: argparse.Namespace) -> None:
    """Train tokenizer and text branch."""
    from llamo_ros.training import stages

    _print_figures(stages.train_text(_stage_settings(options), options.source, options.start))


def train_motion(options: argparse.Namespace) -> None:
    """Train the motion side."""
    from llamo_ros.training import stages

    vae, text = options.vae, options.text
    if options.start is None:
        vae, text = vae or Path("runs/vae"), text or Path("runs/text")
    _print_figures(stages.train_motion(_stage_settings(options), vae, text, options.start))


def export_checkpoint(options: argparse.Namespace) -> None:
    """Write the checkpoint folder of a motion run."""
    from llamo_ros.training.stages import export

    folder = export(options.motion, options.out, options.name, options.decoder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB. Try it: llamo generate 'a person walks' -o walk.bvh --checkpoint {folder}")


def _print_figures(figures: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def _stage_settings(options: argparse.Namespace) -> StageSettings:
    import torch

    from llamo_ros.training.loop import TrainingSettings
    from llamo_ros.training.runs import StageSettings
    from llamo_ros.training.stages import BATCH_SIZES, DEFAULTS

    device = device_of(options.device)
    bf16 = options.bf16
    if bf16 is None:  # without instructions for it, bfloat16 on a CPU is many times slower than float32
        bf16 = device == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    given = {"minutes": options.minutes, "steps": options.steps, "learning_rate": options.learning_rate}
    values: dict[str, Any] = DEFAULTS[options.stage] | {k: v for k, v in given.items() if v is not None}
    training = TrainingSettings(seed=options.seed, threads=options.threads, device=device, bf16=bf16, **values)
    batch_size = options.batch_size or BATCH_SIZES[options.stage]
    return StageSettings(options.data, options.out, training, options.preset, batch_size, options.compile)
