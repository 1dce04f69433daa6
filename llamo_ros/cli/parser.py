"""The command line: subcommands, their options, and an example for each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llamo_ros import __version__
from llamo_ros.cli import base_commands, motion_commands, training_commands
from llamo_ros.cli.arguments import DEFAULT_MODEL, add_command, add_group, count, not_negative, positive, whole
from llamo_ros.cli.data_parser import add_data_commands
from llamo_ros.cli.motion_parser import add_motion_commands
from llamo_ros.cli.robot_parser import add_robot_commands
from llamo_ros.cli.system_parser import add_system_commands
from llamo_ros.model.config import BASE_PRESETS, DTYPES, PRESETS, VAE_CHOICES

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

    demo = add_command(
        commands,
        "demo",
        motion_commands.demo,
        "Run all nodes for one prompt and show what they published.",
        "llamo demo --text 'a person walks forward' --out out/demo",
    )
    demo.add_argument("--text", default="a person waves the left hand", help="prompt (default: %(default)s)")
    demo.add_argument("--robot", default=DEFAULT_ROBOT, help="robot, see `llamo robots` (default: %(default)s)")
    demo.add_argument("--seconds", type=positive, default=6.0, help="longest motion, [s] (default: %(default)s)")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for results (default: %(default)s)")
    demo.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")

    add_motion_commands(commands)
    add_data_commands(commands)

    train = add_group(
        commands, "train", "Train a model: vae and text, then motion, then export.", "llamo train vae --preset mini"
    )
    vae = add_command(
        train,
        "vae",
        training_commands.train_vae,
        "Train the motion VAE.",
        "llamo train vae --minutes 30 --out runs/vae",
    )
    _stage_options(vae, presets=tuple(PRESETS))
    vae.set_defaults(out=Path("runs/vae"))
    _vae_options(vae)
    vae.add_argument(
        "--decoder-of", metavar="CHECKPOINT", help="train only the decoder of this model further, on noisier latents"
    )
    text = add_command(
        train,
        "text",
        training_commands.train_text,
        "Train tokenizer and text branch.",
        "llamo train text --source ../shared/data",
    )
    _stage_options(text)
    text.set_defaults(out=Path("runs/text"))
    text.add_argument(
        "--source",
        type=Path,
        default=Path("../shared/data"),
        help="unpacked data, for its texts (default: %(default)s)",
    )
    _start_option(text, "tokenizer and text branch")
    motion = add_command(
        train,
        "motion",
        training_commands.train_motion,
        "Train the motion side in three stages, on a frozen VAE and text branch.",
        "llamo train motion --stage 2 --start runs/motion1",
    )
    _stage_options(motion)
    motion.set_defaults(out=None)
    motion.add_argument(
        "--stage",
        dest="motion_stage",
        type=int,
        choices=(1, 2, 3),
        required=True,
        help="1 aligns features, 2 trains all that speaks motion, 3 anneals the heads; see config/training/stageN.yaml",
    )
    motion.add_argument("--config", type=Path, help="stage file in place of the package's own")
    motion.add_argument("--base", metavar="CHECKPOINT", help="stage 1: text branch and VAE of this model, motion anew")
    motion.add_argument(
        "--start", metavar="RUN", help="go on from the weights of this run or checkpoint (default: the stage before)"
    )
    motion.add_argument("--vae", type=Path, help="run of the VAE, in place of the one of --base or --start")
    motion.add_argument("--text", type=Path, help="run of the text, in place of the one of --base or --start")
    motion.add_argument(
        "--without-mixture",
        action="store_true",
        help="one transformer for both modalities, trained whole: loses its language, for comparison only",
    )
    motion.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        help="compute activations again on the way back: less memory, a longer step (default: the stage's)",
    )
    motion.add_argument(
        "--workers",
        type=whole,
        default=1,
        help="processes that read shards ahead, where --data is a folder of shards (default: %(default)s)",
    )
    _sample_option(motion)
    everything = add_command(
        train,
        "all",
        training_commands.train_all,
        "Train everything in order: VAE and text unless --base gives them, stages 1 to 3, checkpoint.",
        "llamo train all --base llamo-mini --out runs/mine --name mine",
    )
    _stage_options(everything, with_length=False)
    everything.set_defaults(out=Path("runs"))
    everything.add_argument("--base", metavar="CHECKPOINT", help="text branch and VAE of this model, motion anew")
    everything.add_argument(
        "--source",
        type=Path,
        default=Path("../shared/data"),
        help="unpacked data, for its texts (default: %(default)s)",
    )
    everything.add_argument("--name", default=DEFAULT_MODEL, help="name of the model (default: %(default)s)")
    everything.add_argument(
        "--share",
        type=positive,
        default=1.0,
        help="of the steps that the stages' files say, for a shorter or longer training (default: %(default)s)",
    )
    _sample_option(everything)
    export = add_command(
        train,
        "export",
        training_commands.export_checkpoint,
        "Write the checkpoint folder of a motion run.",
        "llamo train export --motion runs/motion --out my-model --name my-model",
    )
    export.add_argument("--motion", type=Path, default=Path("runs/motion3"), help="motion run (default: %(default)s)")
    export.add_argument("--decoder", type=Path, help="run of `llamo train vae --decoder-of` that gives the decoder")
    export.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    export.add_argument("--name", default=DEFAULT_MODEL, help="name of the model (default: %(default)s)")

    _base_commands(commands)
    add_system_commands(commands)
    add_command(
        commands, "models", motion_commands.models, "List the models that come with the package.", "llamo models"
    )
    add_robot_commands(commands)
    return parser


def _base_commands(commands: Any) -> None:
    init = add_command(
        commands,
        "init",
        base_commands.init,
        "Make a checkpoint of a Hugging Face Llama, for motion training to start from.",
        "llamo init --base meta-llama/Llama-3.2-1B-Instruct --preset 1b --out llamo-1b",
    )
    init.add_argument("--base", required=True, help="folder of a Hugging Face Llama, or its id on the hub")
    init.add_argument(
        "--preset", choices=BASE_PRESETS, default="custom", help="custom fits any Llama (default: %(default)s)"
    )
    init.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    init.add_argument("--vae", metavar="CHECKPOINT", help="take the motion VAE of this model or checkpoint folder")
    init.add_argument("--seed", type=whole, default=0, help="of what is new in the model (default: %(default)s)")
    init.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the base's own)")
    chat = add_command(
        commands,
        "chat",
        base_commands.chat,
        "Converse with the language side of a model; also one --prompt, or text piped in.",
        "llamo chat --checkpoint llamo-1b --prompt 'What is a cartwheel?'",
    )
    chat.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")
    chat.add_argument("--prompt", metavar="TEXT", help="answer this and end")
    chat.add_argument(
        "--temperature", type=not_negative, default=0.6, help="0 writes the likeliest answer (default: %(default)s)"
    )
    chat.add_argument("--max-tokens", type=count, default=256, help="longest answer (default: %(default)s)")
    chat.add_argument("--seed", type=whole, default=0, help="same seed, same answers (default: %(default)s)")
    chat.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="(default: %(default)s)")


def _vae_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--loss", choices=("paper", "ours"), help="losses and their recipe (default: the paper's for the body conv)"
    )
    parser.add_argument("--body", choices=VAE_CHOICES["body"], help="conv is the paper's (default: the preset's)")
    parser.add_argument("--width", type=count, help="channels inside (default: the preset's)")
    parser.add_argument("--latent-dim", type=count, help="channels of a latent (default: the preset's)")
    parser.add_argument(
        "--variance", choices=VAE_CHOICES["variance"], help="what sigma of the noise is (default: the preset's)"
    )
    parser.add_argument("--sigma-per", choices=VAE_CHOICES["sigma_per"], help="one draw each (default: the preset's)")
    parser.add_argument("--sigma-max", type=not_negative, help="largest sigma (default: the preset's)")


def _stage_options(
    parser: argparse.ArgumentParser, with_length: bool = True, presets: tuple[str, ...] = ("mini", "tiny")
) -> None:
    parser.add_argument("--data", type=Path, default=Path("data/packed"), help="pack folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="run folder; a run in it goes on (default: runs/ and the stage)")
    parser.add_argument("--preset", choices=presets, default="mini", help="size (default: %(default)s)")
    if with_length:
        length = parser.add_mutually_exclusive_group()
        length.add_argument("--minutes", type=positive, help="training time, [min]; the schedule follows it")
        length.add_argument("--steps", type=count, help="optimiser steps, in place of minutes")
        parser.add_argument("--learning-rate", type=positive, help="peak of the schedule")
        parser.add_argument("--batch-size", type=count, help="examples per step")
        parser.add_argument("--accumulate", type=count, help="draws whose gradients are averaged before each step")
    else:
        parser.set_defaults(batch_size=None)
    parser.add_argument(
        "--seed", type=whole, default=0, help="of initialisation, data order, noise (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto", help="(default: %(default)s)")
    parser.add_argument("--threads", type=count, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="bfloat16 products (default: where fast)")
    parser.add_argument(
        "--compile", action="store_true", help="compile for faster steps, minutes at the start; needs a C++ compiler"
    )


def _sample_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw a few motions after each validation, in <out>/samples (default: on)",
    )


def _start_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--start", metavar="CHECKPOINT", help=f"go on from the {what} of this model or checkpoint folder"
    )
