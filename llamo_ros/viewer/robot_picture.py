"""A picture to check a robot profile by: a person in the T-pose, and the robot that a profile makes follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import matrix_to_quaternion_xyzw
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.viewer.bodies import DARK, LEFT, RIGHT, TRUNK, Body, Colour, Part, human_body, robot_body
from llamo_ros.viewer.raycast import BACKGROUND, Camera, draw_body

FloatArray = NDArray[np.floating]

_WIDTH, _HEIGHT, _TOP, _LINE = 330, 400, 40, 20  # [px]
_FRONT, _SIDE = np.deg2rad(35.0), np.deg2rad(88.0)  # where the camera stands, from ahead of the body
_LIMB, _BONE, _EDGE = 0.022, 0.01, 0.006  # radii of rods, [m]
_SETTLED = 6  # chunks of 4 frames after which the robot has reached the T-pose
_INK, _FAINT_INK = (35, 38, 44), (125, 130, 140)


def render_robot_check(robot: Robot, path: str | Path, notes: Sequence[str] = ()) -> None:
    """Write one PNG with four panels and, below, what is uncertain.

    The person in the T-pose; the robot's links in the same pose, limbs as the profile names them; its capsules and
    soles in that pose; the same standing, from the side. Left limbs are orange, right limbs blue.

    Args:
        robot: The robot.
        path: File to write, ending in .png.
        notes: Lines to write below.

    Raises:
        ParameterError: the suffix is not .png, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ParameterError(f"{str(path)!r} ends in {path.suffix!r}, expected .png.")
    clip = MotionClip(np.tile(np.eye(3), (4, JOINT_COUNT, 1, 1)), np.tile([0.0, 0.93, 0.0], (4, 1)), 30.0, "T-pose")
    retargeter = Retargeter(robot)
    for _ in range(_SETTLED):
        motion = retargeter.retarget(clip)
    t_pose = robot_body(motion, robot)
    standing = robot_body(_at_rest(robot), robot)
    shapes = _capsule_parts(robot) + _sole_parts(robot)
    panels = (
        ("human, T-pose", human_body(clip), _FRONT),
        (f"{robot.name}: links", replace(t_pose, parts=_link_parts(robot)), _FRONT),
        ("capsules and soles", replace(t_pose, parts=shapes or _link_parts(robot)), _FRONT),
        ("standing", replace(standing, parts=shapes or _link_parts(robot)), _SIDE),
    )
    bottom = 14 + _LINE * len(notes) if notes else 0
    paper = tuple(int(255 * value + 0.5) for value in BACKGROUND)
    sheet = Image.new("RGB", (_WIDTH * len(panels), _TOP + _HEIGHT + bottom), paper)
    draw = ImageDraw.Draw(sheet)
    for column, (title, body, azimuth) in enumerate(panels):
        sheet.paste(_panel(body, azimuth), (column * _WIDTH, _TOP))
        draw.text((column * _WIDTH + 14, 12), title, _INK, ImageFont.load_default(17))
    for row, note in enumerate(notes):
        draw.text((14, _TOP + _HEIGHT + 4 + row * _LINE), f"check: {note}", _FAINT_INK, ImageFont.load_default(14))
    try:
        sheet.save(path, optimize=True)
    except OSError as error:
        raise ParameterError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error


def _at_rest(robot: Robot) -> RobotMotion:
    """One frame of the robot standing on the floor, its soles level."""
    poses = robot.model.link_poses(robot.standing[None])
    turn, lowest = np.eye(3), float(poses.positions[0, :, 2].min())
    if robot.feet:
        foot = robot.feet[0]
        link = robot.limbs[foot.limb].links[2]
        turn = foot.rotation @ poses.rotations[0, link].T  # from the root's axes to those of a sole that stands flat
        corners = (poses.positions[0, link] + foot.sole @ poses.rotations[0, link].T) @ turn.T
        lowest = float(corners[:, 2].min())
    return RobotMotion(
        robot.joint_names,
        robot.standing[None],
        np.array([[0.0, 0.0, -lowest]]),
        matrix_to_quaternion_xyzw(turn[None]),
        np.ones((1, len(robot.feet))),
        30.0,
    )


def _panel(body: Body, azimuth: float) -> Image.Image:
    """The last frame of a body, as large as fits."""
    frame = len(body) - 1
    places = body.positions[frame]
    middle = 0.5 * (places.min(axis=0) + places.max(axis=0))
    size = max(1.25 * max(body.top, float(np.ptp(places[:, 2]))), 1.45 * float(np.ptp(places[:, 1])) * _HEIGHT / _WIDTH)
    camera = Camera(2 * _WIDTH, 2 * _HEIGHT, azimuth, np.deg2rad(8.0), 3.0 * size, size)
    target = np.array([middle[0], middle[1], 0.43 * size if size < 1.4 * body.top else 0.5 * body.top])
    return draw_body(camera, body, frame, target, body.positions[:1, 0, :2]).reduce(2)


def _colour_of(name: str) -> Colour:
    return LEFT if name.startswith("left") else RIGHT if name.startswith("right") else TRUNK


def _rod(link: int, start: FloatArray, end: FloatArray, radius: float, colour: Colour) -> Part:
    """A capsule between two points of a link; a ball where they are one."""
    axis = np.asarray(end, dtype=np.float64) - start
    length = float(np.linalg.norm(axis))
    z = axis / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    turn = np.stack([x, np.cross(z, x), z], axis=1)
    return Part("capsule", link, turn, start + 0.5 * axis, (radius, radius, length), colour)


def _link_parts(robot: Robot) -> tuple[Part, ...]:
    """Rods from link to link, thick and coloured where they belong to a limb of the profile."""
    model, parts = robot.model, []
    colours: dict[int, Colour] = {}
    for limb in robot.limbs:
        side = LEFT if _is_left(limb.human[2]) else RIGHT
        link = limb.links[2]
        while link not in (limb.links[0], 0):
            colours[link] = side
            link = int(model.parents[link])
    for link in range(1, len(model.link_names)):
        offset, parent = model.origins[link, :3, 3], int(model.parents[link])
        if np.linalg.norm(offset) > 1e-3 and (link in colours or model.link_joints[link] >= 0):
            colour = colours.get(link, DARK)
            parts.append(_rod(parent, np.zeros(3), offset, _LIMB if link in colours else _BONE, colour))
    return tuple(parts)


def _is_left(human: int) -> bool:
    return next(name for name, index in JOINT_INDEX.items() if index == human).startswith("left")


def _capsule_parts(robot: Robot) -> tuple[Part, ...]:
    return tuple(_rod(c.link, c.start, c.end, c.radius, _colour_of(c.name)) for c in robot.capsules)


def _sole_parts(robot: Robot) -> tuple[Part, ...]:
    """Rods around each sole."""
    parts = []
    for foot in robot.feet:
        link = robot.limbs[foot.limb].links[2]
        centre = foot.sole.mean(axis=0)
        flat = (foot.sole - centre) @ foot.rotation.T
        around = np.argsort(np.arctan2(flat[:, 1], flat[:, 0]))
        corners = foot.sole[around]
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            parts.append(_rod(link, start, end, _EDGE, DARK))
    return tuple(parts)
