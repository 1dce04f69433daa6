r"""Score the retargeter on the bench clips, next to what GMR made of the same clips.

    python benchmarks/retarget_quality.py --clips ../shared/robots/bench_clips
    python benchmarks/retarget_quality.py --clips ../shared/robots/bench_clips \
        --robots unitree_g1 unitree_h1 booster_t1 generic_humanoid pal_talos@talos.urdf --write-docs

Each clip is an NPZ with joint_pos (T, 22, 3) and joint_quat_wxyz (T, 22, 4) in the ROS world, the rotations being those
of SMPL's body axes (x left, y up, z forward), and stance_lr (T, 2). A recording ``gmr010_g1_<clip>.npz`` holds qpos
(T, 36): root position, root quaternion wxyz, joints. All are scored by the same code, llamo_ros.retarget.quality.
"ours, published" is what a controller gets: behind the trajectory shaper and the root's limits.

Speed is that of the retargeter, in chunks of 4 frames as they come from the model, best of 3 passes; "frame p99" and
"first frame" are of frames that come one by one. Pin it to one core (taskset -c 1) on a quiet machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.benchmark.machine import envelope
from llamo_ros.benchmark.results import add_result_options, check_places, keep
from llamo_ros.benchmark.robot_limits import CHUNK, published
from llamo_ros.benchmark.tables import caption, markdown
from llamo_ros.core.errors import LlamoError, MotionFileError
from llamo_ros.motion.frames import from_ros_world
from llamo_ros.motion.rotations import quaternion_wxyz_to_matrix, wxyz_to_xyzw
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion, joined
from llamo_ros.training.runs import git_commit

FloatArray = NDArray[np.float64]
ROWS = (
    ("hand error [cm]", ("reach_0_cm", "reach_1_cm")),
    ("hand error p95 [cm]", ("reach_0_p95_cm", "reach_1_p95_cm")),
    ("foot error [cm]", ("reach_2_cm", "reach_3_cm")),
    ("foot error p95 [cm]", ("reach_2_p95_cm", "reach_3_p95_cm")),
    ("upper arm [deg]", ("upper_0_deg", "upper_1_deg")),
    ("forearm [deg]", ("lower_0_deg", "lower_1_deg")),
    ("thigh [deg]", ("upper_2_deg", "upper_3_deg")),
    ("shank [deg]", ("lower_2_deg", "lower_3_deg")),
    ("stance slip [cm/s]", ("slip_cm_s",)),
    ("stance slip p95 [cm/s]", ("slip_p95_cm_s",)),
    ("stance over 1 cm/s [share]", ("slipping",)),
    ("sole height [cm]", ("sole_cm",)),
    ("sole height min [cm]", ("sole_min_cm",)),
    ("sole height max [cm]", ("sole_max_cm",)),
    ("stance tilt [deg]", ("tilt_deg",)),
    ("outside limits [rad]", ("outside_rad",)),
    ("at a limit [share]", ("at_limit",)),
    ("joint speed max [rad/s]", ("speed_max",)),
    ("joint speed p99 [rad/s]", ("speed_p99",)),
    ("acceleration RMS [rad/s^2]", ("acceleration_rms",)),
    ("jerk RMS [rad/s^3]", ("jerk_rms",)),
    ("speed [frames/s]", ("frames_per_s",)),
    ("chunk of 4, p99 [ms]", ("chunk_p99_ms",)),
    ("frame p99 [ms]", ("frame_p99_ms",)),
    ("first frame [ms]", ("first_frame_ms",)),
)
NAME, DOCUMENT = "retarget_quality", Path("docs/robots.md")
OURS, PUBLISHED, GMR = "ours", "ours, published", "GMR"


def read_clip(path: Path) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], float]:
    """Joint positions and rotations in the core's world, (T, 22, 3) [m] and (T, 22, 3, 3), stance (T, 2) and rate [Hz].

    Raises:
        MotionFileError: the file is missing or is no bench clip.
    """
    try:
        with np.load(path, allow_pickle=False) as clip:
            positions, _ = from_ros_world(clip["joint_pos"].astype(np.float64))
            body_to_ros = quaternion_wxyz_to_matrix(clip["joint_quat_wxyz"].astype(np.float64))
            stance, rate = clip["stance_lr"], float(clip["fps"])
    except (OSError, KeyError, ValueError) as error:
        raise MotionFileError(f"bench clip {str(path)!r} cannot be read: {error}. See --clips.") from error
    return positions, body_to_ros[..., [1, 2, 0], :], stance, rate  # body axes are the core's: rename the world's only


def read_gmr(path: Path, robot: Robot, rate: float) -> RobotMotion:
    """GMR's recorded output for a clip, as a motion of the robot (joints are in URDF order there)."""
    with np.load(path, allow_pickle=False) as recording:
        qpos = recording["qpos"].astype(np.float64)
    return RobotMotion(
        robot.joint_names, qpos[:, 7:], qpos[:, :3], wxyz_to_xyzw(qpos[:, 3:7]), np.zeros((len(qpos), 2)), rate
    )


def retarget_clip(
    robot: Robot, positions: FloatArray, rotations: FloatArray, rate: float, chunk: int = CHUNK, passes: int = 3
) -> tuple[RobotMotion, list[float]]:
    """Retarget a clip as a stream: the motion, and the times of its chunks in the fastest pass, [s]."""
    best: list[float] = []
    for _ in range(passes):
        retargeter, motions, times = Retargeter(robot), [], []
        for first in range(0, len(positions), chunk):
            start = time.perf_counter()
            motions.append(
                retargeter.retarget_joints(positions[first : first + chunk], rotations[first : first + chunk], rate)
            )
            times.append(time.perf_counter() - start)
        if not best or sum(times) < sum(best):
            best = times
    return joined(motions), best


def scores_of(robot: Robot, clips: Path, name: str) -> dict[str, dict[str, float]]:
    """Scores of each method on a clip."""
    positions, rotations, stance, rate = read_clip(clips / f"{name}.npz")
    motion, times = retarget_clip(robot, positions, rotations, rate)
    _, singly = retarget_clip(robot, positions, rotations, rate, chunk=1)
    human = positions[..., [2, 0, 1]]
    columns = {OURS: score_motion(robot, motion, human, stance)}
    columns[OURS] |= {
        "frames_per_s": len(positions) / sum(times),
        "chunk_p99_ms": 1000 * float(np.percentile(times, 99)),
        "frame_p99_ms": 1000 * float(np.percentile(singly, 99)),
        "first_frame_ms": 1000 * singly[0],
    }
    columns[PUBLISHED] = score_motion(robot, published(robot, motion), human, stance)
    recording = clips / f"gmr010_g1_{name}.npz"
    if robot.name == "unitree_g1" and recording.is_file():
        columns[GMR] = score_motion(robot, read_gmr(recording, robot, rate), human, stance)
    return columns


def main() -> int:
    """Print one table for each robot and clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of the bench clips")
    parser.add_argument("--robots", nargs="+", default=["unitree_g1"], help="names or profiles (default: unitree_g1)")
    parser.add_argument("--names", nargs="+", default=["walk", "squat", "stress"], help="clips to score")
    add_result_options(parser, NAME, DOCUMENT)
    options = parser.parse_args()
    rows = []
    try:
        check_places(options, DOCUMENT)
        for robot in map(load_robot, options.robots):
            for name in options.names:
                columns = scores_of(robot, options.clips, name)
                print(f"\n{f'{robot.name}, {name}':<30}" + "".join(f"{title:>17}" for title in columns))
                for label, values in _rows(columns):
                    print(f"{label:<30}" + "".join(f"{value:>17}" for value in values))
                rows += [{"robot": robot.name, "clip": name, "method": m} | _json(s) for m, s in columns.items()]
        result = envelope("retargeted bench clips", git_commit()) | {"rows": rows}
        keep(result, options, NAME, _tables, DOCUMENT)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _rows(columns: dict[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Label and values of each line of a table."""
    table = []
    for label, keys in ROWS:
        values = [_mean([scores.get(key) for key in keys]) for scores in columns.values()]
        table.append((label, ["-" if value is None else format(round(value, 3) + 0.0, ".3f") for value in values]))
    return table


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _json(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in scores.items()}


def _tables(result: dict[str, Any]) -> str:
    """The tables of the document: all robots in short, and the one that GMR was run on in full."""
    header = (
        "robot", "clip", "hand [cm]", "foot [cm]", "upper arm [deg]", "thigh [deg]", "slip [cm/s]", "sole [cm]",
        "frames/s", "frame p99 [ms]", "first frame [ms]",
    )  # fmt: skip
    short = (
        ("reach_0_cm", "reach_1_cm"), ("reach_2_cm", "reach_3_cm"), ("upper_0_deg", "upper_1_deg"),
        ("upper_2_deg", "upper_3_deg"), ("slip_cm_s",), ("sole_cm",), ("frames_per_s",), ("frame_p99_ms",),
        ("first_frame_ms",),
    )  # fmt: skip
    rows = []
    for row in (row for row in result["rows"] if row["method"] == OURS):
        values = [_mean([row.get(key) for key in keys]) for keys in short]
        cells = [
            None if value is None else format(round(value, 2) + 0.0, ".0f" if value >= 100 else ".2f")
            for value in values
        ]
        rows.append([row["robot"], row["clip"], *cells])
    parts = [caption(result), markdown(header, rows)]
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in result["rows"]:
        groups.setdefault((row["robot"], row["clip"]), {})[row["method"]] = row
    compared = {name: columns for name, columns in groups.items() if GMR in columns}
    if compared:
        parts.append("Unitree G1, each clip by each method; `published` is behind shaper and root limits:")
        header = ("", *[f"{clip}: {method}" for (_, clip), columns in compared.items() for method in columns])
        lines = [_rows(columns) for columns in compared.values()]
        rows = [[label, *(v for table in lines for v in table[k][1])] for k, (label, _) in enumerate(ROWS)]
        parts.append(markdown(header, rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
