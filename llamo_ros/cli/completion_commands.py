"""Subcommands that go on with given motion."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from pathlib import Path

    from llamo_ros.motion.clip import MotionClip
    from llamo_ros.pipelines.motion_completion import MotionCompletion
    from llamo_ros.pipelines.motion_engine import MotionChunk
    from llamo_ros.retarget.profile import Robot


def complete(options: argparse.Namespace) -> None:
    """Go on with a motion file and save it with its continuation."""
    out, picture, robot = _checked(options)
    sampling = sampling_of(options)
    from llamo_ros.motion.clip import concatenated
    from llamo_ros.motion.files import load_motion
    from llamo_ros.pipelines.given_motion import resampled_to_end

    clip = load_motion(options.file)
    completion = _completion(options)
    _tell_read("the motion", clip, completion.given(clip), "last")
    began = time.perf_counter()
    made = _collected(completion.stream_prediction(clip, options.caption, seed=options.seed, **sampling))
    took = time.perf_counter() - began
    note(f"{made.duration:.2f} s made")
    whole = made if options.new_only else concatenated([resampled_to_end(clip), made])
    _write(whole, out, picture, robot, took, options.caption)


def between(options: argparse.Namespace) -> None:
    """Fill the gap between two motion files and save the whole."""
    out, picture, robot = _checked(options)
    sampling = sampling_of(options)
    from llamo_ros.motion.files import load_motion
    from llamo_ros.pipelines.in_between import InBetween

    start, end = load_motion(options.start), load_motion(options.end)
    completion = _completion(options)
    first, last = completion.given_ends(start, end)
    _tell_read("START", start, first, "last")
    _tell_read("END", end, last, "first")
    began = time.perf_counter()
    middle = _collected(completion.stream_between(start, end, options.caption, seed=options.seed, **sampling))
    took = time.perf_counter() - began
    filled = InBetween.of(start, middle, end)
    side = "left" if filled.turn > 0 else "right"
    note(
        f"{middle.duration:.2f} s made; they lead {filled.distance:.2f} m beside the place where END stands, and END "
        f"faces {abs(math.degrees(filled.turn)):.0f} degrees to the {side} of them; "
        + ("END is moved there" if options.place == "moved" else "they are bent to arrive")
    )
    _write(filled.moved() if options.place == "moved" else filled.bent(), out, picture, robot, took, options.caption)


def _checked(options: argparse.Namespace) -> tuple[Path, Path | None, Robot | None]:
    return output_path(options.out, MOTION_SUFFIXES), picture_path(options.render), chosen_robot(options.robot)


def _completion(options: argparse.Namespace) -> MotionCompletion:
    from llamo_ros.pipelines.motion_completion import MotionCompletion
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    announce(options.checkpoint)
    return MotionCompletion(
        TextToMotion.from_checkpoint(options.checkpoint, device_of(options.device), options.threads)
    )


def _tell_read(name: str, clip: MotionClip, read: MotionClip, which: str) -> None:
    if clip.duration > read.duration + 0.2:  # groups of four frames and resampling take less
        note(f"{name} lasts {clip.duration:.1f} s; the model reads its {which} {read.duration:.0f} s")


def _collected(chunks: Iterator[MotionChunk]) -> MotionClip:
    from llamo_ros.motion.clip import concatenated

    made = []
    for chunk in chunks:
        made.append(chunk.clip)
        progress(f"{(chunk.start_index + len(chunk.clip)) / 30:5.1f} s of motion")
    progress("")
    return concatenated(made)


def _write(
    clip: MotionClip, out: Path, picture: Path | None, robot: Robot | None, took: float, caption: str | None
) -> None:
    clip = replace(clip, text=caption or "")
    save(clip, out, took, robot)
    if picture is not None:
        draw(clip, picture, clip.text, retargeted(clip, robot), robot)
