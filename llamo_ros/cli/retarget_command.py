"""The subcommand that turns a motion file into motion of a robot."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamo_ros.cli.motion_output import chosen_robot, note, output_path, progress
from llamo_ros.core.errors import ParameterError

if TYPE_CHECKING:
    from llamo_ros.motion.clip import MotionClip
    from llamo_ros.pipelines.clip_to_robot import RobotClip
    from llamo_ros.retarget.resampling import RobotTrajectory

# Names and what they are, as in llamo_ros.retarget.export, which takes too long to import for a help text.
FORMATS = {
    "csv": "named columns: root pose and twist, joints and velocities, contacts; 30 Hz",
    "npz": "the same as named arrays; 30 Hz",
    "beyondmimic": "CSV for BeyondMimic's csv_to_npz: root, quaternion xyzw, joints; 30 Hz",
    "beyondmimic-npz": "archive that BeyondMimic trains on: joints and bodies in IsaacLab's order; 50 Hz",
    "sonic": "folder of tables for SONIC: joints and bodies in IsaacLab's order; 50 Hz, no other",
}
# As in llamo_ros.retarget.body_part.
PARTS = ("whole", "upper", "legs")


def retarget(options: argparse.Namespace) -> None:
    """Retarget a motion file and write the robot's motion."""
    from llamo_ros.retarget.export import FORMATS as KNOWN
    from llamo_ros.retarget.export import export_format, export_motion, export_rate

    name = export_format(options.out, options.format)
    rate = export_rate(name, options.rate)
    robot = chosen_robot(options.robot)
    assert robot is not None  # the option is required
    if KNOWN[name].suffix:
        output_path(options.out, (KNOWN[name].suffix,))
    elif options.out.exists() and not options.out.is_dir():
        raise ParameterError(f"{options.out} is a file, and format {name} is a folder. Choose another place.")
    from llamo_ros.motion.files import load_motion
    from llamo_ros.pipelines.clip_to_robot import clip_to_robot
    from llamo_ros.retarget.body_part import body_part

    clip = cut(load_motion(options.file), options.start, options.end)
    seconds = clip.duration
    began = time.perf_counter()
    result = clip_to_robot(
        robot,
        clip,
        options.limits,
        lambda frames: progress(f"{frames / 30:6.1f} of {seconds:.1f} s retargeted"),
        body_part(options.part),
        options.fixed_base,
    )
    took = time.perf_counter() - began
    progress("")
    trajectory = export_motion(robot, result.motion, options.out, name, rate)
    _tell(options.out, name, robot.name, trajectory, result, took, options.limits)


def cut(clip: MotionClip, start: float, end: float | None) -> MotionClip:
    """The part of a clip between two times, [s]: floor at 0, first frame at the origin and facing forward.

    Raises:
        ParameterError: there is no motion between these times.
    """
    from llamo_ros.motion.placement import canonicalised

    stop = clip.duration if end is None else end
    first, last = round(start * clip.frame_rate), round(stop * clip.frame_rate)
    if not first < min(last, len(clip)):
        raise ParameterError(
            f"the motion lasts {clip.duration:.2f} s, so that nothing of it is between --start {start:g} and --end "
            f"{stop:g}."
        )
    if stop > clip.duration + 0.5 / clip.frame_rate:
        note(f"the motion lasts {clip.duration:.2f} s; --end {stop:g} is behind its end")
    part = canonicalised(clip).sliced(first, last)  # the floor is that of the whole: the part may be a leap
    placed = canonicalised(part)
    roots = placed.root_positions.copy()
    roots[:, 1] = part.root_positions[:, 1]
    return replace(placed, root_positions=roots)


def _tell(
    path: Path, name: str, robot: str, trajectory: RobotTrajectory, result: RobotClip, took: float, limited: bool
) -> None:
    frames, rate, joints = len(trajectory), trajectory.motion.frame_rate, len(trajectory.motion.joint_names)
    counts, root = result.counts, result.root_counts
    print(f"{path}: {frames} frames at {rate:g} Hz, {frames / rate:.2f} s, {joints} joints of {robot}, format {name}")
    print(
        f"  hand error {_number(result.hand_error_cm)} cm, foot error {_number(result.foot_error_cm)} cm, "
        f"stance slip {_number(result.slip_cm_s)} cm/s"
    )
    if limited:
        print(
            f"  clamps: {counts.position_clamps} of position, {counts.velocity_clamps} of velocity, "
            f"{counts.acceleration_clamps} of acceleration, {counts.jerk_clamps} of jerk, in "
            f"{len(result.motion) * joints} joint values"
        )
        print(
            f"  root clamps: {root.speed_clamps} of speed, {root.acceleration_clamps} of acceleration, "
            f"{root.jerk_clamps} of jerk, {root.turn_clamps} of turns, in {len(result.motion)} frames; feet slid in "
            f"{root.slides}"
        )
    else:
        print("  clamps: velocity, acceleration and jerk not limited")
    print(f"  self-collision: {result.touches}")
    print(f"  retargeted in {took:.2f} s, {len(result.motion) / took:.0f} frames/s")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
