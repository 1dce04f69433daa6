"""Options of the commands about robots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamo_ros.cli import robot_commands
from llamo_ros.cli.arguments import add_command, add_group


def add_robot_commands(commands: Any) -> None:
    """Add robots, and robot with init, check and list."""
    about = "List the robots that come with the package."
    add_command(commands, "robots", robot_commands.list_robots, about, "llamo robots")
    robot = add_group(
        commands, "robot", "Bring your own robot: draft a profile, check it.", "llamo robot init my_robot.urdf"
    )
    init = add_command(
        robot,
        "init",
        robot_commands.init_robot,
        "Draft the profile of a humanoid from its URDF, draw it, and say what is uncertain.",
        "llamo robot init my_robot.urdf -o my_robot.yaml",
    )
    init.add_argument("urdf", type=Path, help="its URDF; expand xacro files first")
    init.add_argument("-o", "--out", type=Path, metavar="FILE", help="profile to write (default: beside the URDF)")
    init.add_argument("--name", help="name of the robot (default: the profile's file name)")
    init.add_argument("--picture", type=Path, metavar="PNG", help="picture to write (default: beside the profile)")
    init.add_argument("--force", action="store_true", help="write over a profile that is there")
    check = add_command(
        robot,
        "check",
        robot_commands.check,
        "Check a profile: joints and what drives them, limbs, feet, collisions; exit status 1 on errors.",
        "llamo robot check my_robot.yaml --picture my_robot.png",
    )
    check.add_argument("profile", help="name from `llamo robots`, or a profile (.yaml)")
    check.add_argument("--urdf", type=Path, metavar="FILE", help="URDF in place of the profile's own")
    check.add_argument("--picture", type=Path, metavar="PNG", help="draw the robot too")
    add_command(robot, "list", robot_commands.list_robots, about, "llamo robot list")
