"""Subcommands about robots: draft a profile for a URDF, check one, list those that come with the package."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llamo_ros.core.errors import LlamoError, RobotError

if TYPE_CHECKING:
    from llamo_ros.retarget.check import RobotCheck


def list_robots(options: argparse.Namespace) -> None:
    """List the robots that come with the package."""
    from llamo_ros.retarget.catalogue import robot_names
    from llamo_ros.retarget.profile import has_description, load_robot

    for name in robot_names():
        if has_description(name):
            robot = load_robot(name)
            print(f"{name}: {robot.model.joint_count} joints, {len(robot.feet)} feet")
        else:
            print(f"{name}: needs the URDF of your own robot, as in --robot {name}@my_robot.urdf")


def init_robot(options: argparse.Namespace) -> int:
    """Draft a profile, draw it, and say what is uncertain."""
    from llamo_ros.retarget.check import check_robot
    from llamo_ros.retarget.draft import draft_profile
    from llamo_ros.retarget.profile_text import profile_text
    from llamo_ros.viewer.robot_picture import render_robot_check

    urdf: Path = options.urdf
    out = options.out or urdf.with_suffix(".yaml")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise RobotError(f"{str(out)!r} is not the name of a profile; it ends in .yaml.")
    if out.exists() and not options.force:
        raise RobotError(f"{out} exists already and may have been corrected by hand; give --force to write it anew.")
    try:
        description = urdf.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RobotError(f"robot description {str(urdf)!r} cannot be read: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    named = os.path.relpath(urdf.resolve(), out.parent.resolve())
    draft = draft_profile(description, options.name or out.stem, named)
    out.write_text(profile_text(draft.content, draft.notes), encoding="utf-8")
    picture = options.picture or out.with_suffix(".png")
    render_robot_check(draft.robot, picture, draft.notes)
    found = check_robot(draft.robot)
    _print_limbs(found)
    _print_remarks("check", [*draft.notes, *found.warnings])
    _print_remarks("error", found.errors)
    print(f"\n{out}: the profile; correct what is wrong in it")
    print(f"{picture}: what it makes of the robot")
    print(f"Then: llamo robot check {out}")
    return 1 if found.errors else 0


def check(options: argparse.Namespace) -> int:
    """Print what a profile makes of a robot, and what is wrong with it; status 1 on errors."""
    from llamo_ros.retarget.check import check_robot, table
    from llamo_ros.retarget.profile import load_robot

    description = None
    if options.urdf is not None:
        try:
            description = options.urdf.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RobotError(f"robot description {str(options.urdf)!r} cannot be read: {error}") from error
    try:
        robot = load_robot(options.profile, description)
    except LlamoError as error:
        print(f"error: {' '.join(str(error).split())}")
        return 1
    found = check_robot(robot)
    print(f"{robot.name}: {len(robot.joint_names)} joints, {len(robot.limbs)} limbs, {len(robot.feet)} feet\n")
    print(table(["joint", "range [rad]", "[rad/s]", "[rad/s^2]", "driven by"], found.joints), end="\n\n")
    _print_limbs(found)
    if options.picture is not None:
        from llamo_ros.viewer.robot_picture import render_robot_check

        render_robot_check(robot, options.picture, [*found.errors, *found.warnings])
        print(f"\n{options.picture}: what it makes of the robot")
    _print_remarks("warning", found.warnings)
    _print_remarks("error", found.errors)
    print("\nnot usable as it is" if found.errors else "\nno errors")
    return 1 if found.errors else 0


def _print_limbs(found: RobotCheck) -> None:
    from llamo_ros.retarget.check import table

    print(table(["limb", "links", "upper [m]", "lower [m]"], found.limbs))
    if found.feet:
        print("\n" + table(["foot", "sole length [m]", "width [m]", "below the link [m]"], found.feet))
    if found.capsules:
        print("\n" + table(["posture", "closest capsules", "apart [mm]"], found.capsules))


def _print_remarks(title: str, remarks: list[str]) -> None:
    if remarks:
        print()
    for remark in remarks:
        print(f"{title}: {remark}")
