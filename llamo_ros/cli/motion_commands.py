"""Subcommands that make, read and show motion, and those that list what there is."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llamo_ros.cli.device import device_of
from llamo_ros.core.errors import ParameterError

if TYPE_CHECKING:
    from llamo_ros.motion.clip import MotionClip
    from llamo_ros.pipelines.text_to_motion import TextToMotion
    from llamo_ros.retarget.profile import Robot
    from llamo_ros.retarget.retargeter import RobotMotion

MOTION_SUFFIXES = (".bvh", ".npz", ".csv")
RENDER_SUFFIXES = (".png", ".gif", ".mp4")


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
    out = _output(options.out, MOTION_SUFFIXES)
    picture = _picture(options.render)
    if options.duration is not None and (options.min_duration is not None or options.max_duration is not None):
        raise ParameterError(
            "--duration fixes the length; leave out --min-duration and --max-duration, or leave it out."
        )
    from llamo_ros.model.text_tokenizer import checked_prompt
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    text = checked_prompt(options.text)
    robot = _robot(options.robot)
    _announce(options.checkpoint)
    pipeline = TextToMotion.from_checkpoint(options.checkpoint, device_of(options.device))
    began = time.perf_counter()
    clips = _made(pipeline, text, options)
    took = time.perf_counter() - began
    _progress("")
    for number, clip in enumerate(clips):
        _save(clip, out if options.samples is None else _numbered(out, number), took, robot)
        if picture is not None:
            path = picture if options.samples is None else _numbered(picture, number)
            _render(clip, path, text, _retargeted(clip, robot), robot)


def _made(pipeline: TextToMotion, text: str, options: argparse.Namespace) -> list[MotionClip]:
    """The motions that are asked for: one, N samples, or the best of N."""
    from llamo_ros.pipelines.motion_to_text import MotionToText

    fixed = options.duration
    sampling = {
        "min_duration": options.min_duration if fixed is None else fixed,
        "max_duration": options.max_duration if fixed is None else fixed,
        "guidance_scale": options.guidance,
        "temperature": options.temperature,
        "flow_steps": options.steps,
        "solver": options.solver,
        "progress": lambda frames: _progress(f"{frames / 30:5.1f} s of motion"),
    }
    seeds = range(options.seed, options.seed + (options.samples or options.best_of or 1))
    if options.best_of is None:
        return pipeline.samples(text, seeds, **sampling)
    captioner = MotionToText(pipeline.model, pipeline.tokenizer)
    ranked = pipeline.best_of(text, seeds, captioner.prompt_score, **sampling)
    scores = ", ".join(f"seed {motion.seed} {motion.score:.2f}" for motion in ranked)
    _note(f"mean log-probability of the prompt, given the motion: {scores}")
    return [ranked[0].clip]


def _save(clip: MotionClip, path: Path, took: float, robot: Robot | None) -> None:
    """Write a motion and, if there is a robot, what it is to do."""
    from llamo_ros.motion.files import save_motion

    save_motion(clip, path)
    print(f"{path}: {clip.duration:.2f} s of motion ({len(clip)} frames), made in {took:.2f} s")
    motion = _retargeted(clip, robot)
    if robot is not None and motion is not None:
        from llamo_ros.retarget.robot_file import save_robot_motion

        robot_path = path.with_name(f"{path.stem}_{robot.name}.csv")
        save_robot_motion(motion, robot_path)
        print(f"{robot_path}: {len(motion.joint_names)} joints of {robot.name}, not limited in speed")


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def caption(options: argparse.Namespace) -> None:
    """Print the caption of a motion file and its confidence."""
    picture = _picture(options.render)
    from llamo_ros.model.caption_generation import CaptionOptions
    from llamo_ros.motion.files import load_motion

    wanted = CaptionOptions(options.temperature, options.top_p, options.seed)
    clip = load_motion(options.file)
    robot = _robot(options.robot)
    from llamo_ros.motion.skeleton import FRAME_RATE
    from llamo_ros.pipelines.motion_to_text import MAX_FRAMES, MotionToText

    _announce(options.checkpoint)
    described = MotionToText.from_checkpoint(options.checkpoint, device_of(options.device))(clip, wanted)
    if clip.duration > MAX_FRAMES / FRAME_RATE + 0.1:
        _note(f"the motion lasts {clip.duration:.1f} s; its first {MAX_FRAMES / FRAME_RATE:.0f} s are described")
    if not described.is_calibrated:
        _note("this confidence is the mean probability of the words, not the chance that the caption is right")
    print(f"{described.text} (confidence {described.confidence:.2f})")
    if picture is not None:
        _render(clip, picture, described.text, _retargeted(clip, robot), robot)


def models(options: argparse.Namespace) -> None:
    """List the models that come with the package."""
    from safetensors import safe_open

    from llamo_ros.model.checkpoint import available_models, read_config

    shipped = available_models()
    if not shipped:
        print("no model comes with this installation; give --checkpoint FOLDER to the commands that need one")
    for name, folder in shipped.items():
        _, metadata = read_config(folder)
        shards = sorted(folder.glob("*.safetensors"))
        parameters = 0
        for shard in shards:
            with safe_open(shard, framework="np") as tensors:
                parameters += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())
        megabytes = sum(shard.stat().st_size for shard in shards) / 1e6
        print(
            f"{name}: {parameters / 1e6:.1f} M parameters, {megabytes:.1f} MB, licence {metadata.get('licence', '?')}"
        )
        print(f"  data: {metadata.get('data', 'not recorded')}")
        print(f"  {folder}")


def robots(options: argparse.Namespace) -> None:
    """List the robots that come with the package."""
    from llamo_ros.retarget.profile import load_robot, robot_names

    for name in robot_names():
        robot = load_robot(name)
        print(f"{name}: {robot.model.joint_count} joints, {len(robot.feet)} feet")


def _output(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The path, if a file of this kind can be written there; checked first, since the work before it takes long."""
    if path.suffix.lower() not in suffixes:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise ParameterError(f"{str(path)!r} {found}, expected {', '.join(suffixes[:-1])} or {suffixes[-1]}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(f"folder {path.parent} cannot be made: {error.strerror}. Choose another place.") from error
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ParameterError(f"{path} cannot be written. Choose another place.")
    return path


def _picture(path: Path | None) -> Path | None:
    if path is None:
        return None
    if path.suffix.lower() == ".mp4":
        from llamo_ros.viewer.video import ffmpeg_path

        ffmpeg_path()  # raises where there is none
    return _output(path, RENDER_SUFFIXES)


def _robot(name: str | None) -> Robot | None:
    if name is None:
        return None
    from llamo_ros.retarget.profile import load_robot

    return load_robot(name)


def _retargeted(clip: MotionClip, robot: Robot | None) -> RobotMotion | None:
    if robot is None:
        return None
    from llamo_ros.retarget.retargeter import Retargeter

    return Retargeter(robot).retarget(clip)


def _render(clip: MotionClip, path: Path, text: str, motion: RobotMotion | None, robot: Robot | None) -> None:
    from llamo_ros.viewer.render import render

    _progress(f"drawing {path}")
    render(clip, path, text, motion, robot)
    _progress("")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _announce(checkpoint: str) -> None:
    from llamo_ros.model.checkpoint import checkpoint_folder, read_config

    config, metadata = read_config(checkpoint_folder(checkpoint))
    _note(
        f"model {metadata.get('name', config.name)}, licence of its weights: {metadata.get('licence', 'not recorded')}"
    )


def _note(text: str) -> None:
    print(f"llamo: {text}", file=sys.stderr)


def _progress(text: str) -> None:
    """Show ``text`` on the terminal's last line, in place of what was there; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
