"""Checks of a robot profile: what a user should see before a robot moves by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.retarget.capsules import capsule_distances
from llamo_ros.retarget.profile import Robot

_JOINT_NAMES = {index: name for name, index in JOINT_INDEX.items()}
_LEVEL = 0.005  # [m]; soles of a standing robot are equally high within this
_UPRIGHT = 0.1  # [rad]
_MIRRORED = 0.02  # [m]
_SHORT_LIMB = 0.1  # [m]
_SAMPLES = 200


@dataclass(frozen=True)
class RobotCheck:
    """What a check found.

    Attributes:
        joints: Rows of joint, range, velocity, acceleration, and what drives it.
        limbs: Rows of limb, its links, lengths of its segments and its reach.
        feet: Rows of foot, link, length, width and height of the sole below the link.
        capsules: Rows of posture and the closest pair, with its distance.
        errors: What has to be put right before the robot may be used.
        warnings: What looks wrong but may be meant.
    """

    joints: list[list[str]]
    limbs: list[list[str]]
    feet: list[list[str]]
    capsules: list[list[str]]
    errors: list[str]
    warnings: list[str]


def check_robot(robot: Robot) -> RobotCheck:
    """Check a robot that loads: a profile with wrong names or numbers does not even get here."""
    errors: list[str] = []
    warnings: list[str] = []
    limbs = _limbs(robot, errors)
    feet = _feet(robot, errors, warnings)
    capsules = _capsules(robot, errors, warnings)
    _symmetry(robot, warnings)
    joints = _joints(robot, warnings)
    return RobotCheck(joints, limbs, feet, capsules, errors, warnings)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns of text, as wide as they need to be."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def _joints(robot: Robot, warnings: list[str]) -> list[list[str]]:
    model, rows = robot.model, []
    rules = [(rule.link, _JOINT_NAMES[rule.human]) for rule in robot.orientations]
    for limb in robot.limbs:
        rules += [(link, _JOINT_NAMES[human]) for link, human in zip(limb.links[1:], limb.human[1:], strict=True)]
    ends = {foot.limb: foot for foot in robot.feet}
    rules += [(robot.limbs[limb].links[2], _JOINT_NAMES[foot.toe]) for limb, foot in ends.items()]
    idle = []
    for joint, name in enumerate(robot.joint_names):
        # A joint that moves all but the root moves what is driven too; the nearest rule below it says most.
        driven = [(model.moved_by[link].sum(), human) for link, human in rules if model.moved_by[link, joint]]
        if not driven:
            idle.append(name)
        rows.append(
            [
                name,
                f"{robot.lower[joint]:+.2f} .. {robot.upper[joint]:+.2f}",
                f"{robot.velocity_limits[joint]:.1f}",
                f"{robot.acceleration_limits[joint]:.0f}",
                min(driven)[1] if driven else "nothing: it stays in the neutral posture",
            ]
        )
    if idle:
        warnings.append(f"no human joint drives {', '.join(idle)}; they stay in the neutral posture")
    return rows


def _limbs(robot: Robot, errors: list[str]) -> list[list[str]]:
    names, places = robot.model.link_names, robot.model.link_poses(robot.neutral[None]).positions[0]
    rows = []
    for limb in robot.limbs:
        lengths = np.linalg.norm(np.diff(places[list(limb.links)], axis=0), axis=1)
        moved = robot.model.moved_by[list(limb.links)]
        title = f"{_JOINT_NAMES[limb.human[0]]} to {_JOINT_NAMES[limb.human[2]]}"
        if lengths.min() < 0.3 * _SHORT_LIMB or lengths.sum() < _SHORT_LIMB:
            errors.append(f"{title}: segments are {lengths[0]:.3f} and {lengths[1]:.3f} m long; are the links right?")
        if not ((moved[1] >= moved[0]).all() and (moved[2] >= moved[1]).all()):
            errors.append(f"{title}: the links {', '.join(names[k] for k in limb.links)} do not follow one another")
        elif not (moved[2] > moved[0]).any():
            errors.append(f"{title}: no joint lies between {names[limb.links[0]]} and {names[limb.links[2]]}")
        rows.append([title, " - ".join(names[k] for k in limb.links), f"{lengths[0]:.3f}", f"{lengths[1]:.3f}"])
    return rows


def _feet(robot: Robot, errors: list[str], warnings: list[str]) -> list[list[str]]:
    poses = robot.model.link_poses(robot.standing[None])
    rows, heights = [], []
    for foot in robot.feet:
        link = robot.limbs[foot.limb].links[2]
        name = robot.model.link_names[link]
        flat = foot.sole @ foot.rotation.T
        size = np.ptp(flat, axis=0)
        corners = (poses.positions[0, link] + foot.sole @ poses.rotations[0, link].T) @ robot.root_facing.T
        heights.append(corners[:, 2])
        rows.append([name, f"{size[0]:.3f}", f"{size[1]:.3f}", f"{-flat[:, 2].min():.3f}"])
        if len(flat) < 3 or size[0] < 0.02 or size[1] < 0.01:
            warnings.append(f"sole of {name} is {size[0]:.3f} by {size[1]:.3f} m: it should be an area")
        up = robot.root_facing @ poses.rotations[0, link] @ foot.rotation.T @ [0.0, 0.0, 1.0]
        tilt = float(np.arccos(np.clip(up[2], -1.0, 1.0)))
        if tilt > _UPRIGHT:
            errors.append(
                f"{name} is tilted by {np.degrees(tilt):.0f} degrees while standing: is the foot's 'rotation' right, "
                "and the standing posture?"
            )
    if heights and np.ptp(np.concatenate(heights)) > _LEVEL:
        warnings.append(f"soles are not level while standing: they differ by {1000 * np.ptp(heights):.0f} mm in height")
    if not robot.feet:
        warnings.append("the robot has no feet: it will move as the human's root does, and not touch a floor")
    return rows


def _capsules(robot: Robot, errors: list[str], warnings: list[str]) -> list[list[str]]:
    if not len(robot.capsule_pairs):
        warnings.append("no collision capsules: nothing keeps the robot from touching itself")
        return []
    rows = []
    for title, posture in (("neutral", robot.neutral), ("standing", robot.standing)):
        distances = capsule_distances(robot.capsules, robot.capsule_pairs, robot.model.link_poses(posture[None]))[0]
        closest = int(distances.argmin())
        first, second = (robot.capsules[k].name for k in robot.capsule_pairs[closest])
        rows.append([title, f"{first} - {second}", f"{1000 * distances[closest]:.0f}"])
        for (a, b), distance in zip(robot.capsule_pairs, distances, strict=True):
            if distance < 0:
                errors.append(
                    f"{robot.capsules[a].name} and {robot.capsules[b].name} are {-1000 * distance:.0f} mm in one "
                    f"another in the {title} posture: make them thinner, or list the pair under 'ignore'"
                )
    q = np.random.default_rng(0).uniform(robot.lower, robot.upper, (_SAMPLES, robot.model.joint_count))
    always = (capsule_distances(robot.capsules, robot.capsule_pairs, robot.model.link_poses(q)) < 0).mean(axis=0)
    for (a, b), share in zip(robot.capsule_pairs, always, strict=True):
        if share > 0.9:
            warnings.append(
                f"{robot.capsules[a].name} and {robot.capsules[b].name} touch in {100 * share:.0f} % of all postures"
            )
    return rows


def _symmetry(robot: Robot, warnings: list[str]) -> None:
    """Left and right limbs that differ hint at a mistyped posture."""
    places = robot.model.link_poses(robot.standing[None]).positions[0] @ robot.root_facing.T
    ends = {_JOINT_NAMES[limb.human[2]]: places[limb.links[2]] - places[limb.links[0]] for limb in robot.limbs}
    for name, vector in ends.items():
        other = ends.get(name.replace("left_", "right_"))
        if name.startswith("left_") and other is not None:
            differ = np.abs(vector - other * [1.0, -1.0, 1.0]).max()
            if differ > _MIRRORED:
                warnings.append(
                    f"standing, {name} and its other side are not mirror images (by {1000 * differ:.0f} mm)"
                )
