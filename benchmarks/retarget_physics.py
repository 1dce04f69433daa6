"""Play retargeted motion on a simulated Unitree G1, ours beside GMR's of the same clips, and count self-collisions.

    pip install 'llamo-ros[bench]'                        # MuJoCo
    python benchmarks/retarget_physics.py --mjcf G1.xml --clips ../shared/robots/bench_clips --write-docs
    python benchmarks/retarget_physics.py --mjcf G1.xml --prompts "a person walks forward" --pictures out

G1.xml is the upstream MJCF, ../shared/robots/unitree_g1/g1_29dof_rev_1_0.xml for example; its meshes need not be there.

The pelvis is held on the motion's root by a stiff weld, as by a gantry, and the floor is taken away: a reference alone
does not balance, so a robot that stands by itself would measure a balance controller, which this package is not. Legs
carry no body then, so their torques are a lower bound. Joints follow by PD control of position and velocity at 1 kHz,
torques cut at the URDF's limits, without and with feedforward (computed torque). Gains, motors and their source are in
config/benchmark/unitree_g1_physics.yaml. "needed" is what the reference asks for by inverse dynamics, whatever the
gains.

Three references in the same run: ours, ours as it is published (behind the trajectory shaper), and GMR's recording.
Self-collisions are counted on simple shapes in place of the collision meshes (the same config file), and on the
upstream meshes themselves where they lie beside the MJCF. --pictures draws what the simulation did with the package's
own viewer, from the simulated joints: no OpenGL is needed, and none is used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from retarget_quality import read_clip, read_gmr

from llamo_ros.benchmark.machine import envelope
from llamo_ros.benchmark.mujoco_robot import (
    MESHES,
    ROOT_WIDTH,
    SHAPES,
    from_qpos,
    hinge_names,
    read_spec,
    shapes_of,
    to_qpos,
)
from llamo_ros.benchmark.physics import (
    SETTLING,
    STEP,
    HeldRobot,
    Played,
    read_physics,
    scores_of,
    urdf_torque_limits,
)
from llamo_ros.benchmark.results import add_result_options, check_places, keep
from llamo_ros.benchmark.robot_limits import published, streamed
from llamo_ros.benchmark.self_collision import self_collision
from llamo_ros.benchmark.tables import caption, markdown
from llamo_ros.core.errors import LlamoError
from llamo_ros.core.resources import config_path
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.training.runs import git_commit
from llamo_ros.viewer.tracking import Lines, render_lines, render_rows

NAME = "retarget_physics"
DOCUMENT = Path("docs/retargeting.md")
ROBOT = "unitree_g1"
CONTROLS = {"PD": False, "PD + feedforward": True}
PLOTTED = (
    "hip_pitch",
    "knee",
    "waist_pitch",
    "shoulder_pitch",
    "shoulder_roll",
    "elbow",
)  # on the left, where there is one

OURS, PUBLISHED, GMR = "ours", "ours, published", "GMR"

Motions = dict[str, RobotMotion]
Outcomes = dict[tuple[str, str], Played]  # by method and control


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print, and keep the result; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mjcf", type=Path, required=True, help="upstream MJCF of the G1 with 29 joints")
    parser.add_argument("--urdf", type=Path, help="URDF with its torque limits (default: beside the MJCF, same name)")
    parser.add_argument("--clips", type=Path, help="folder of the bench clips and GMR's recordings")
    parser.add_argument("--names", nargs="+", default=["walk", "squat", "stress"], help="clips (default: all three)")
    parser.add_argument("--prompts", nargs="+", default=[], metavar="TEXT", help="also motion made for these prompts")
    parser.add_argument("--checkpoint", default="llamo-mini", help="that makes it (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of that motion")
    parser.add_argument("--seconds", type=float, default=6.0, help="longest motion for a prompt, [s]")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw what the robot did, and plot its joints")
    add_result_options(parser, NAME, DOCUMENT)
    options = parser.parse_args(arguments)
    if options.clips is None and not options.prompts:
        parser.error("give --clips or --prompts: there is nothing to play")
    try:
        check_places(options, DOCUMENT)
        robot, facts = load_robot(ROBOT), read_physics(config_path("benchmark", f"{ROBOT}_physics.yaml"))
        limits = urdf_torque_limits(options.urdf or options.mjcf.with_suffix(".urdf"))
        held = HeldRobot(options.mjcf, facts, limits)
        bodies = _bodies(options.mjcf, shapes_of(facts["shapes"]))
        played, collisions = [], []
        for name, motions in _all_motions(options, robot):
            outcomes: Outcomes = {}
            for method, motion in motions.items():
                for made_of, model in bodies.items():
                    found = self_collision(model, _qpos(motion, hinge_names(model)))
                    collisions.append({"motion": name, "method": method, "bodies": made_of} | _collision_json(found))
                for control, feedforward in CONTROLS.items():
                    outcome = held.play(_qpos(motion, held.motors.joint_names), motion.frame_rate, feedforward)
                    played.append({"motion": name, "method": method, "control": control} | scores_of(outcome))
                    outcomes[method, control] = outcome
            if options.pictures:
                _draw(name, motions, outcomes, robot, options.pictures)
        result = envelope("retargeted motion on a simulated Unitree G1 whose pelvis is held", git_commit())
        result |= {"played": played, "self_collisions": collisions, "gains": _gains_json(held)}
        print(tables(result))
        keep(result, options, NAME, tables, DOCUMENT)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _bodies(mjcf: Path, shapes: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Models to count collisions on: the robot of simple shapes, and of meshes where they are."""
    spec, made_of = read_spec(mjcf)
    with_meshes = {made_of: spec.compile()} if made_of == MESHES else {}
    return with_meshes | {SHAPES: read_spec(mjcf, shapes)[0].compile()}


def _all_motions(options: argparse.Namespace, robot: Robot) -> Iterator[tuple[str, Motions]]:
    """Name and motions by method of each clip and prompt."""
    for name in options.names if options.clips else ():
        positions, rotations, _, rate = read_clip(options.clips / f"{name}.npz")
        motion = streamed(robot, positions, rotations, rate)
        motions = {OURS: motion, PUBLISHED: published(robot, motion)}
        recording = options.clips / f"gmr010_g1_{name}.npz"
        if recording.is_file():
            motions[GMR] = read_gmr(recording, robot, rate)
        yield name, motions
    if options.prompts:
        from llamo_ros.pipelines.text_to_motion import TextToMotion  # loads a model: only if one is asked for

        pipeline = TextToMotion.from_checkpoint(options.checkpoint)
        for prompt in options.prompts:
            clip = pipeline(prompt, seed=options.seed, max_duration=options.seconds)
            motion = Retargeter(robot).retarget(clip)
            yield prompt, {OURS: motion, PUBLISHED: published(robot, motion)}


def _qpos(motion: RobotMotion, joints: Sequence[str]) -> np.ndarray:
    return to_qpos(motion.joint_names, motion.joint_positions, motion.root_positions, motion.root_quaternions, joints)


def _collision_json(found: Any) -> dict[str, Any]:
    pairs = [{"bodies": list(pair), "frames": frames} for pair, frames in found.pairs.items()]
    return {
        "share": found.share,
        "share_with_floor": found.share_with_floor,
        "deepest_mm": found.deepest_mm,
        "pairs": pairs,
    }


def _gains_json(held: HeldRobot) -> dict[str, dict[str, float]]:
    motors = held.motors
    columns = zip(motors.armatures, motors.stiffness, motors.damping, motors.torque_limits, strict=True)
    names = ("armature", "stiffness", "damping", "torque_limit")
    rows = zip(motors.joint_names, columns, strict=True)
    return {joint: dict(zip(names, map(float, values), strict=True)) for joint, values in rows}


def tables(result: dict[str, Any]) -> str:
    """The tables of the document."""
    header = (
        "motion", "reference", "control", "error RMS [rad]", "p95", "max", "worst joint", "saturated [%]",
        "largest torque [%]", "needed p99 [%]", "needed max [%]", "at joint", "root [m/s]", "root [rad/s]",
    )  # fmt: skip
    rows = [
        [
            row["motion"], row["method"], row["control"], f"{row['error_rms']:.3f}", f"{row['error_p95']:.3f}",
            f"{row['error_max']:.3f}", _short(row["worst_joint"]), f"{100 * row['saturated']:.2f}",
            f"{100 * row['largest_torque']:.0f}", f"{100 * row['needed_p99']:.0f}", f"{100 * row['needed_max']:.0f}",
            _short(row["needed_joint"]), f"{row['root_speed_max']:.2f}", f"{row['root_turn_max']:.2f}",
        ]
        for row in result["played"] if row["method"] != OURS
    ]  # fmt: skip
    parts = [caption(result), markdown(header, rows)]
    parts.append("Self-collision; bodies are the hulls of the upstream meshes, or simple shapes in their place:")
    header = ("motion", "reference", "bodies", "frames [%]", "with the floor [%]", "deepest [mm]", "most often")
    rows = [
        [
            row["motion"], row["method"], row["bodies"], f"{100 * row['share']:.1f}",
            f"{100 * row['share_with_floor']:.1f}", f"{row['deepest_mm']:.0f}",
            " / ".join(name.removesuffix("_link") for name in row["pairs"][0]["bodies"]) if row["pairs"] else None,
        ]
        for row in result["self_collisions"] if row["method"] != OURS
    ]  # fmt: skip
    parts.append(markdown(header, rows))
    parts.append("Tracking error of each joint under PD alone, RMS / p95 / max [rad]:")
    under_pd = [row for row in result["played"] if row["control"] == "PD" and row["method"] != OURS]
    header = ("joint", *[f"{row['motion']}: {row['method']}" for row in under_pd])
    rows = []
    for joint in result["gains"]:
        errors = [row["joints"][joint] for row in under_pd]
        rows.append([_short(joint), *[f"{e['rms']:.3f} / {e['p95']:.3f} / {e['max']:.3f}" for e in errors]])
    parts.append(markdown(header, rows))
    parts.append("Motors; right joints as left ones:")
    header = ("joint", "armature [kg m^2]", "stiffness [N m/rad]", "damping [N m s/rad]", "torque limit [N m]")
    names = ("armature", "stiffness", "damping", "torque_limit")
    left = {joint: gains for joint, gains in result["gains"].items() if not joint.startswith("right_")}
    parts.append(markdown(header, [[_short(joint), *[gains[name] for name in names]] for joint, gains in left.items()]))
    return "\n\n".join(parts)


def _short(joint: str) -> str:
    return joint.removesuffix("_joint").replace("_", " ")


def _draw(name: str, motions: Motions, outcomes: Outcomes, robot: Robot, folder: Path) -> None:
    """A strip of reference and simulated robots, and a plot of joints, for one motion."""
    file = "_".join(name.split())[:60]
    rows = {f"reference: {PUBLISHED}": motions[PUBLISHED]}
    for method, control in [(PUBLISHED, "PD"), (PUBLISHED, "PD + feedforward"), (GMR, "PD"), (GMR, "PD + feedforward")]:
        if method in motions:
            rows[f"simulated: {method}, {control}"] = _simulated(outcomes[method, control], robot)
    render_rows(rows, robot, folder / f"{file}_robot.png", f"{name}: the robot's pelvis is held")
    lines, played = [], {control: outcomes[PUBLISHED, control] for control in CONTROLS}
    reference = played["PD"].reference
    for joint in PLOTTED:
        full = next(
            joint_name for joint_name in robot.joint_names if joint_name in (f"left_{joint}_joint", f"{joint}_joint")
        )
        column = ROOT_WIDTH + played["PD"].joint_names.index(full)
        values = {"reference, as published": reference[:, column]}
        values |= {f"simulated, {control}": outcome.reached[:, column] for control, outcome in played.items()}
        lines.append(Lines(f"{_short(full)} [rad]", np.arange(len(reference)) * STEP, values))
    title = f"{name}: what was asked and what the robot did, over time [s] (scores count from {SETTLING:g} s on)"
    render_lines(lines, folder / f"{file}_joints.png", title)


def _simulated(played: Played, robot: Robot) -> RobotMotion:
    """What the simulated robot did, at some 30 frames a second."""
    stride = round(1 / (30 * STEP))
    joints, places, turns = from_qpos(played.reached[::stride], played.joint_names, robot.joint_names)
    contacts = np.zeros((len(joints), len(robot.feet)))
    return RobotMotion(robot.joint_names, joints, places, turns, contacts, 1 / (stride * STEP))


if __name__ == "__main__":
    sys.exit(main())
