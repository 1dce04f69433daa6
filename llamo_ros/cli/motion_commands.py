"""Subcommands that make, read and show motion, and those that list what there is."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamo_ros.cli.device import device_of
from llamo_ros.core.errors import ParameterError

if TYPE_CHECKING:
    from llamo_ros.motion.clip import MotionClip
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
    """Make a motion from a prompt and save it; optionally retarget and draw it."""
    out = _output(options.out, MOTION_SUFFIXES)
    picture = _picture(options.render)
    if options.duration is not None and (options.min_duration is not None or options.max_duration is not None):
        raise ParameterError(
            "--duration fixes the length; leave out --min-duration and --max-duration, or leave it out."
        )
    from llamo_ros.model.text_tokenizer import checked_prompt
    from llamo_ros.motion.clip import concatenated
    from llamo_ros.motion.files import save_motion
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    text = checked_prompt(options.text)
    robot = _robot(options.robot)
    _announce(options.checkpoint)
    pipeline = TextToMotion.from_checkpoint(options.checkpoint, device_of(options.device))
    fixed = options.duration
    began = time.perf_counter()
    stream = pipeline.stream(
        text,
        min_duration=options.min_duration if fixed is None else fixed,
        max_duration=options.max_duration if fixed is None else fixed,
        seed=options.seed,
        guidance_scale=options.guidance,
        flow_steps=options.steps,
    )
    clips = []
    for chunk in stream:
        clips.append(chunk.clip)
        _progress(f"{sum(map(len, clips)) / chunk.clip.frame_rate:5.1f} s of motion")
    clip = replace(concatenated(clips), text=text)
    took = time.perf_counter() - began
    _progress("")
    save_motion(clip, out)
    print(f"{out}: {clip.duration:.2f} s of motion ({len(clip)} frames), made in {took:.2f} s")
    motion = _retargeted(clip, robot)
    if robot is not None and motion is not None:
        from llamo_ros.retarget.robot_file import save_robot_motion

        path = out.with_name(f"{out.stem}_{robot.name}.csv")
        save_robot_motion(motion, path)
        print(f"{path}: {len(motion.joint_names)} joints of {robot.name}, not limited in speed")
    if picture is not None:
        _render(clip, picture, text, motion, robot)


def caption(options: argparse.Namespace) -> None:
    """Print the caption of a motion file and its confidence."""
    picture = _picture(options.render)
    from llamo_ros.motion.files import load_motion

    clip = load_motion(options.file)
    robot = _robot(options.robot)
    from llamo_ros.motion.skeleton import FRAME_RATE
    from llamo_ros.pipelines.motion_to_text import MAX_FRAMES, MotionToText

    _announce(options.checkpoint)
    described = MotionToText.from_checkpoint(options.checkpoint, device_of(options.device))(clip)
    if clip.duration > MAX_FRAMES / FRAME_RATE + 0.1:
        _note(f"the motion lasts {clip.duration:.1f} s; its first {MAX_FRAMES / FRAME_RATE:.0f} s are described")
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
