"""The command line: subcommands, their options, and an example for each."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamo_ros import __version__
from llamo_ros.cli import motion_commands, training_commands

DEFAULT_MODEL = "llamo-mini"
DEFAULT_ROBOT = "unitree_g1"


def make_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has ``run``, the function of the subcommand."""
    parser = argparse.ArgumentParser(
        prog="llamo",
        description="Language to humanoid motion, and motion to captions.",
        epilog="example:\n  llamo generate 'a person waves the left hand' -o wave.bvh --render wave.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"llamo {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(
        commands,
        "demo",
        motion_commands.demo,
        "Run all nodes for one prompt and show what they published.",
        "llamo demo --text 'a person walks forward' --out out/demo",
    )
    demo.add_argument("--text", default="a person waves the left hand", help="prompt (default: %(default)s)")
    demo.add_argument("--robot", default=DEFAULT_ROBOT, help="robot, see `llamo robots` (default: %(default)s)")
    demo.add_argument("--seconds", type=_positive, default=6.0, help="longest motion, [s] (default: %(default)s)")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for results (default: %(default)s)")
    demo.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")

    generate = _command(
        commands,
        "generate",
        motion_commands.generate,
        "Make a motion from a prompt and save it.",
        "llamo generate 'a person bows' -o bow.bvh --robot unitree_g1 --render bow.gif",
    )
    generate.add_argument("text", help="what to do, for example 'a person walks forward'")
    generate.add_argument("-o", "--out", type=Path, required=True, help="human motion to write: .bvh, .npz or .csv")
    generate.add_argument("--robot", help="retarget too, and write <out>_<robot>.csv; see `llamo robots`")
    generate.add_argument("--seed", type=_whole, default=0, help="same seed, same motion (default: %(default)s)")
    generate.add_argument("--duration", type=_positive, help="exact length, [s]; without, the model ends the motion")
    generate.add_argument("--min-duration", type=_positive, help="shortest length, [s]")
    generate.add_argument("--max-duration", type=_positive, help="longest length, [s]")
    generate.add_argument("--guidance", type=_positive, help="how strictly to follow the prompt; 1 is plain")
    generate.add_argument("--steps", type=_count, help="Euler steps of the flow head per latent")
    _model_options(generate)

    caption = _command(
        commands,
        "caption",
        motion_commands.caption,
        "Say what is done in a motion file.",
        "llamo caption walk.bvh --render walk.png",
    )
    caption.add_argument("file", type=Path, help="motion: .bvh of any common rig, or .npz")
    caption.add_argument("--robot", help="draw this robot too; see `llamo robots`")
    _model_options(caption)

    data = _group(
        commands, "data", "Pack motion capture for training.", "llamo data pack ../shared/data --out data/packed"
    )
    pack = _command(
        data,
        "pack",
        training_commands.data_pack,
        "Turn a folder of motion capture with captions into a pack.",
        "llamo data pack ../shared/data --out data/packed --licence open",
    )
    pack.add_argument("source", type=Path, help="folder with index.jsonl and its npz shards")
    pack.add_argument("--out", type=Path, default=Path("data/packed"), help="pack folder (default: %(default)s)")
    pack.add_argument(
        "--licence",
        choices=("noncommercial", "open"),
        default="noncommercial",
        help="open leaves out all data whose licence forbids commercial use (default: %(default)s)",
    )
    info = _command(data, "info", training_commands.data_info, "Say what a pack holds.", "llamo data info data/packed")
    info.add_argument("pack", type=Path, help="pack folder")

    train = _group(
        commands, "train", "Train a model: vae and text, then motion, then export.", "llamo train vae --preset mini"
    )
    vae = _command(
        train,
        "vae",
        training_commands.train_vae,
        "Train the motion VAE.",
        "llamo train vae --minutes 30 --out runs/vae",
    )
    _stage_options(vae, "vae")
    vae.add_argument(
        "--decoder-of", metavar="CHECKPOINT", help="train only the decoder of this model further, on noisier latents"
    )
    text = _command(
        train,
        "text",
        training_commands.train_text,
        "Train tokenizer and text branch.",
        "llamo train text --source ../shared/data",
    )
    _stage_options(text, "text")
    text.add_argument(
        "--source",
        type=Path,
        default=Path("../shared/data"),
        help="unpacked data, for its texts (default: %(default)s)",
    )
    _start_option(text, "tokenizer and text branch")
    motion = _command(
        train,
        "motion",
        training_commands.train_motion,
        "Train the motion side on a frozen VAE and text branch.",
        "llamo train motion --vae runs/vae --text runs/text --minutes 60",
    )
    _stage_options(motion, "motion")
    motion.add_argument("--vae", type=Path, help="run of the VAE (default: runs/vae; with --start: its own)")
    motion.add_argument("--text", type=Path, help="run of the text (default: runs/text; with --start: its own)")
    _start_option(motion, "weights")
    export = _command(
        train,
        "export",
        training_commands.export_checkpoint,
        "Write the checkpoint folder of a motion run.",
        "llamo train export --motion runs/motion --out my-model --name my-model",
    )
    export.add_argument("--motion", type=Path, default=Path("runs/motion"), help="motion run (default: %(default)s)")
    export.add_argument("--decoder", type=Path, help="run of `llamo train vae --decoder-of` that gives the decoder")
    export.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    export.add_argument("--name", default=DEFAULT_MODEL, help="name of the model (default: %(default)s)")

    _command(commands, "models", motion_commands.models, "List the models that come with the package.", "llamo models")
    _command(commands, "robots", motion_commands.robots, "List the robots that come with the package.", "llamo robots")
    return parser


def _group(commands: Any, name: str, about: str, example: str) -> Any:
    parser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--render", type=Path, help="picture (.png) or video (.gif, .mp4) to draw")
    parser.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="(default: %(default)s)")


def _stage_options(parser: argparse.ArgumentParser, stage: str) -> None:
    parser.set_defaults(stage=stage)
    parser.add_argument("--data", type=Path, default=Path("data/packed"), help="pack folder (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs", stage), help="run folder; a run in it goes on (default: %(default)s)"
    )
    parser.add_argument("--preset", choices=("mini", "tiny"), default="mini", help="size (default: %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_positive, help="training time, [min]; the schedule follows it")
    length.add_argument("--steps", type=_count, help="optimiser steps, in place of minutes")
    parser.add_argument("--batch-size", type=_count, help="examples per step")
    parser.add_argument("--learning-rate", type=_positive, help="peak of the schedule")
    parser.add_argument(
        "--seed", type=_whole, default=0, help="of initialisation, data order, noise (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto", help="(default: %(default)s)")
    parser.add_argument("--threads", type=_count, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="bfloat16 products (default: where fast)")
    parser.add_argument(
        "--compile", action="store_true", help="compile for faster steps, minutes at the start; needs a C++ compiler"
    )


def _start_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--start", metavar="CHECKPOINT", help=f"go on from the {what} of this model or checkpoint folder"
    )


def _number(text: str, kind: Callable[[str], float]) -> float | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _positive(text: str) -> float:
    value = _number(text, float)
    if value is None or not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _whole(text: str) -> int:
    value = _number(text, int)
    if value is None or not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return value


def _count(text: str) -> int:
    value = _number(text, int)
    if value is None or not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return value
