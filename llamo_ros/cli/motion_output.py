"""What the commands that make motion share: checking where results go, writing and drawing them, telling about them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.files import writable_path

if TYPE_CHECKING:
    from llamo_ros.motion.clip import MotionClip
    from llamo_ros.retarget.profile import Robot
    from llamo_ros.retarget.retargeter import RobotMotion

MOTION_SUFFIXES = (".bvh", ".npz", ".csv")
RENDER_SUFFIXES = (".png", ".gif", ".mp4")


def sampling_of(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords of :class:`~llamo_ros.pipelines.motion_options.MotionOptions` that the options of a command say.

    Raises:
        ParameterError: the length is fixed and bounded at once.
    """
    fixed = options.duration
    if fixed is not None and (options.min_duration is not None or options.max_duration is not None):
        raise ParameterError(
            "--duration fixes the length; leave out --min-duration and --max-duration, or leave it out."
        )
    wanted = {
        "min_duration": options.min_duration if fixed is None else fixed,
        "max_duration": options.max_duration if fixed is None else fixed,
        "guidance_scale": options.guidance,
        "temperature": options.temperature,
        "flow_steps": options.steps,
        "solver": options.solver,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def output_path(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The path, if a file of this kind can be written there; checked first, since the work before it takes long."""
    if path.suffix.lower() not in suffixes:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise ParameterError(f"{str(path)!r} {found}, expected {', '.join(suffixes[:-1])} or {suffixes[-1]}.")
    return writable_path(path)


def picture_path(path: Path | None) -> Path | None:
    """The same for a picture or video, if there is to be one."""
    if path is None:
        return None
    if path.suffix.lower() == ".mp4":
        from llamo_ros.viewer.video import ffmpeg_path

        ffmpeg_path()  # raises where there is none
    return output_path(path, RENDER_SUFFIXES)


def chosen_robot(name: str | None) -> Robot | None:
    """The robot of a name; None for none."""
    if name is None:
        return None
    from llamo_ros.retarget.profile import load_robot

    return load_robot(name)


def retargeted(clip: MotionClip, robot: Robot | None) -> RobotMotion | None:
    """What the robot is to do; None without a robot."""
    if robot is None:
        return None
    from llamo_ros.pipelines.clip_to_robot import clip_to_robot

    return clip_to_robot(robot, clip).motion


def draw(clip: MotionClip, path: Path, text: str, motion: RobotMotion | None, robot: Robot | None) -> None:
    """Draw a motion, and the robot beside it if there is one."""
    from llamo_ros.viewer.render import render

    if motion is not None:
        clip = clip.resampled(motion.frame_rate)
    progress(f"drawing {path}")
    render(clip, path, text, motion, robot)
    progress("")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def announce(checkpoint: str) -> None:
    """Tell the model and the licence of its weights."""
    from llamo_ros.model.checkpoint import checkpoint_folder, read_config

    config, metadata = read_config(checkpoint_folder(checkpoint))
    note(
        f"model {metadata.get('name', config.name)}, licence of its weights: {metadata.get('licence', 'not recorded')}"
    )


def note(text: str) -> None:
    """Tell something beside the results."""
    print(f"llamo: {text}", file=sys.stderr)


def progress(text: str) -> None:
    """Show ``text`` on the terminal's last line, in place of what was there; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def save(clip: MotionClip, path: Path, took: float, robot: Robot | None) -> None:
    """Write a motion and, if there is a robot, what it is to do."""
    from llamo_ros.motion.files import save_motion

    save_motion(clip, path)
    print(f"{path}: {clip.duration:.2f} s of motion ({len(clip)} frames), made in {took:.2f} s")
    motion = retargeted(clip, robot)
    if robot is not None and motion is not None:
        from llamo_ros.retarget.export import export_motion

        robot_path = path.with_name(f"{path.stem}_{robot.name}.csv")
        export_motion(robot, motion, robot_path)
        print(f"{robot_path}: {len(motion.joint_names)} joints of {robot.name}; `llamo retarget` writes other formats")
