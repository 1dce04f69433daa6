"""Score the retargeter on the bench clips, next to what GMR made of the same clips.

    python benchmarks/retarget_quality.py --clips ../shared/robots/bench_clips

Each clip is an NPZ with joint_pos (T, 22, 3) and joint_quat_wxyz (T, 22, 4) in the ROS world, the rotations being those
of SMPL's body axes (x left, y up, z forward), and stance_lr (T, 2). A recording ``gmr010_g1_<clip>.npz`` holds qpos
(T, 36): root position, root quaternion wxyz, joints. Both are scored by the same code, llamo_ros.retarget.quality.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamo_ros.benchmark.robot_limits import CHUNK
from llamo_ros.core.errors import LlamoError, MotionFileError
from llamo_ros.motion.frames import from_ros_world
from llamo_ros.motion.rotations import quaternion_wxyz_to_matrix, wxyz_to_xyzw
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion

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
    ("chunk time p99 [ms]", ("chunk_p99_ms",)),
)


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
    robot: Robot, positions: FloatArray, rotations: FloatArray, rate: float, passes: int = 3
) -> tuple[RobotMotion, float, float]:
    """Retarget a clip as a stream: the motion, frames per second of the best pass, and its p99 time of a chunk [ms]."""
    best, motions, slowest = np.inf, [], 0.0
    for _ in range(passes):
        retargeter, motions, times = Retargeter(robot), [], []
        for first in range(0, len(positions), CHUNK):
            start = time.perf_counter()
            motions.append(
                retargeter.retarget_joints(positions[first : first + CHUNK], rotations[first : first + CHUNK], rate)
            )
            times.append(time.perf_counter() - start)
        if sum(times) < best:
            best, slowest = sum(times), 1000 * float(np.percentile(times, 99))
    return joined(motions), len(positions) / best, slowest


def joined(motions: list[RobotMotion]) -> RobotMotion:
    """Chunks of one stream as one motion."""
    names = ("joint_positions", "root_positions", "root_quaternions", "contacts")
    arrays = [np.concatenate([getattr(motion, name) for motion in motions]) for name in names]
    return RobotMotion(motions[0].joint_names, *arrays, motions[0].frame_rate)


def main() -> None:
    """Print one table for each clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of the bench clips")
    parser.add_argument("--robot", default="unitree_g1", help="robot name or profile")
    parser.add_argument("--names", nargs="+", default=["walk", "squat", "stress"], help="clips to score")
    arguments = parser.parse_args()
    try:
        robot = load_robot(arguments.robot)
        for name in arguments.names:
            positions, rotations, stance, rate = read_clip(arguments.clips / f"{name}.npz")
            motion, frames_per_s, chunk_ms = retarget_clip(robot, positions, rotations, rate)
            human = positions[..., [2, 0, 1]]
            columns = {"ours": score_motion(robot, motion, human, stance)}
            columns["ours"] |= {"frames_per_s": frames_per_s, "chunk_p99_ms": chunk_ms}
            recording = arguments.clips / f"gmr010_g1_{name}.npz"
            if arguments.robot == "unitree_g1" and recording.is_file():
                columns["GMR"] = score_motion(robot, read_gmr(recording, robot, rate), human, stance)
            print(f"\n{name:<30}" + "".join(f"{title:>10}" for title in columns))
            for label, keys in ROWS:
                values = [np.mean([scores.get(key, np.nan) for key in keys]) for scores in columns.values()]
                print(f"{label:<30}" + "".join(f"{'-' if np.isnan(v) else format(v, '.3f'):>10}" for v in values))
    except LlamoError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
