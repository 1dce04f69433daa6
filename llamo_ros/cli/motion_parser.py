"""Options of the commands that make and read motion: generate, complete, between, caption and retarget."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llamo_ros.cli import completion_commands, motion_commands, retarget_command
from llamo_ros.cli.arguments import DEFAULT_MODEL, add_command, count, not_negative, positive, whole


def add_motion_commands(commands: Any) -> None:
    """Add generate, complete, between, caption and retarget."""
    _add_generate(commands)
    _add_completions(commands)
    _add_caption(commands)
    _add_retarget(commands)


def _add_generate(commands: Any) -> None:
    generate = add_command(
        commands,
        "generate",
        motion_commands.generate,
        "Make a motion from a prompt, or from a conversation, and save it.",
        "llamo generate 'a person bows' -o bow.bvh --robot unitree_g1 --render bow.gif",
    )
    generate.add_argument("text", help="what to do, for example 'a person walks forward'")
    generate.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="TEXT",
        help="say this after it, for example 'now slower'; may be given again. All turns are written, in a row",
    )
    generate.add_argument("--style", help="how to do it, for example 'like an old person'; said in the prompt")
    generate.add_argument(
        "--about", type=positive, metavar="SECONDS", help="length to say in the prompt; the model ends the motion"
    )
    several = generate.add_mutually_exclusive_group()
    several.add_argument(
        "--samples", type=count, metavar="N", help="make N motions, seeds from --seed on; writes <out>_0, <out>_1, ..."
    )
    several.add_argument(
        "--best-of",
        type=count,
        metavar="N",
        help="make N motions and keep the one in which the model, as a captioner, finds the prompt best",
    )
    _making_options(generate)


def _add_completions(commands: Any) -> None:
    complete = add_command(
        commands,
        "complete",
        completion_commands.complete,
        "Go on with a motion file: what is given and its continuation, without a jump.",
        "llamo complete walk.bvh -o longer.bvh --caption 'a person walks in a circle' --duration 3",
    )
    complete.add_argument("file", type=Path, help="beginning of the motion: .bvh of any common rig, or .npz")
    complete.add_argument("--new-only", action="store_true", help="write the continuation alone")
    between = add_command(
        commands,
        "between",
        completion_commands.between,
        "Fill the gap between two motion files.",
        "llamo between sit.npz wave.npz -o whole.bvh --duration 2",
    )
    between.add_argument("start", type=Path, help="motion before the gap: .bvh of any common rig, or .npz")
    between.add_argument("end", type=Path, help="motion after it")
    between.add_argument(
        "--place",
        choices=("moved", "bent"),
        default="moved",
        help="move END to where the middle leads, or bend the middle so that it arrives where END stands; files of "
        "kind .bvh all stand at the origin (default: %(default)s)",
    )
    for parser in (complete, between):
        parser.add_argument("--caption", help="what the whole motion shows (default: left to the model)")
        _making_options(parser)


def _add_caption(commands: Any) -> None:
    caption = add_command(
        commands,
        "caption",
        motion_commands.caption,
        "Say what is done in a motion file.",
        "llamo caption walk.bvh --render walk.png",
    )
    caption.add_argument("file", type=Path, help="motion: .bvh of any common rig, or .npz")
    caption.add_argument("--robot", help="draw this robot too; see `llamo robots`")
    caption.add_argument(
        "--temperature",
        type=not_negative,
        default=0.0,
        help="0 writes the likeliest word each time, above 0 words are drawn (default: %(default)s)",
    )
    caption.add_argument(
        "--top-p",
        type=positive,
        default=1.0,
        help="words are drawn from the fewest that have this probability together (default: %(default)s)",
    )
    caption.add_argument("--seed", type=whole, default=0, help="of the drawn words (default: %(default)s)")
    _model_options(caption, "CPU threads where PyTorch runs whole layers; compiled kernels take one (default: 1)")


def _add_retarget(commands: Any) -> None:
    retarget = add_command(
        commands,
        "retarget",
        retarget_command.retarget,
        "Turn a motion file into motion of a robot, in a file for plots, programs or a whole-body tracker.",
        "llamo retarget walk.bvh --robot g1 -o walk.csv\n"
        "  llamo retarget walk.bvh --robot g1 -o walk.csv --format beyondmimic\n"
        "  llamo retarget walk.bvh --robot g1 -o walk.npz --format beyondmimic-npz\n"
        "  llamo retarget amass.npz --robot g1 -o motions/walk --start 2 --end 6\n\n"
        "formats:\n"
        + "\n".join(f"  {name:16} {about}" for name, about in retarget_command.FORMATS.items())
        + "\n\nUnits, frames and orders: docs/export_formats.md",
    )
    retarget.add_argument("file", type=Path, help="human motion: .bvh of any common rig, or .npz (ours, AMASS or SMPL)")
    retarget.add_argument(
        "--robot", required=True, metavar="ROBOT", help="name or unique part of it, see `llamo robots`; or a profile"
    )
    retarget.add_argument("-o", "--out", type=Path, required=True, help="file to write; for SONIC, a folder")
    retarget.add_argument(
        "--format",
        choices=tuple(retarget_command.FORMATS),
        help="(default: csv or npz by the suffix of --out, sonic where it has none)",
    )
    retarget.add_argument(
        "--rate", type=positive, metavar="HZ", help="frames per second to write (default: the format's own)"
    )
    retarget.add_argument(
        "--start", type=not_negative, default=0.0, metavar="S", help="leave out what is before, [s] (default: 0)"
    )
    retarget.add_argument("--end", type=positive, metavar="S", help="leave out what is after, [s]")
    retarget.add_argument(
        "--limits",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the robot's limits of velocity, acceleration and jerk, and those of its root link; position limits "
        "always hold (default: on)",
    )
    retarget.add_argument(
        "--part",
        choices=retarget_command.PARTS,
        default="whole",
        help="what follows the human; upper: the robot stands. Other joints hold the standing posture (default: whole)",
    )
    retarget.add_argument("--fixed-base", action="store_true", help="the root link is bolted down: it does not move")


def _making_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help="human motion to write: .bvh, .npz or .csv")
    parser.add_argument("--robot", help="retarget too, and write <out>_<robot>.csv; see `llamo robots`")
    parser.add_argument("--seed", type=whole, default=0, help="same seed, same motion (default: %(default)s)")
    parser.add_argument(
        "--duration", type=positive, help="length, [s], in whole latents of 0.133 s; without, the model ends the motion"
    )
    parser.add_argument("--min-duration", type=positive, help="shortest length, [s]")
    parser.add_argument("--max-duration", type=positive, help="longest length, [s]")
    parser.add_argument("--guidance", type=positive, help="how strictly to follow the prompt; 1 is plain")
    parser.add_argument("--temperature", type=not_negative, help="scale of the noise; lower is calmer, less varied")
    parser.add_argument("--steps", type=count, help="solver steps of the flow head per latent")
    parser.add_argument("--solver", choices=("euler", "midpoint"), help="a midpoint step costs two Euler steps")
    _model_options(parser, "CPU threads that share the flow head; more gain only where cores are free (default: 1)")


def _model_options(parser: argparse.ArgumentParser, threads: str) -> None:
    parser.add_argument("--render", type=Path, help="picture (.png) or video (.gif, .mp4) to draw")
    parser.add_argument("--checkpoint", default=DEFAULT_MODEL, help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help=threads)
