"""How well a robot follows a human, as numbers that any retargeting method can be scored by.

Everything is computed from joint positions and the root pose by the robot's forward kinematics. ROS world, z up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import ShapeError
from llamo_ros.motion.rotations import quaternion_xyzw_to_matrix
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion

FloatArray = NDArray[np.float64]

_SLIP = 0.01  # [m/s]; faster than this a standing foot counts as slipping
_AT_LIMIT = 0.01  # [rad]


def score_motion(
    robot: Robot, motion: RobotMotion, human_positions: FloatArray, stance: NDArray[np.bool_], first: int = 5
) -> dict[str, float]:
    """Score a retargeted motion against the human motion it came from.

    Args:
        robot: The robot.
        motion: Its motion, T frames.
        human_positions: smpl22 joints in the ROS world, shape (T, 22, 3), [m].
        stance: Whether each human foot is exactly still, shape (T, F).
        first: Frames before this one are not counted: methods need some to settle.

    Returns:
        For each limb i ``upper_i_deg`` and ``lower_i_deg``, the mean angle between human and robot segment, and
        ``reach_i_cm`` and ``reach_i_p95_cm``, the error of its end against the human's scaled vector. For the feet
        ``slip_cm_s`` (mean), ``slip_p95_cm_s``, ``slipping`` (share of stance frames over 1 cm/s), ``sole_cm``,
        ``sole_min_cm``, ``sole_max_cm`` (lowest point of the soles) and ``tilt_deg`` in stance. For the joints
        ``at_limit`` (share of frames with a joint within 0.01 rad of a URDF limit), ``outside_rad`` (worst violation),
        ``speed_max``, ``speed_p99`` [rad/s], ``acceleration_rms`` [rad/s^2], ``jerk_rms`` [rad/s^3]. What cannot be
        measured is NaN.

    Raises:
        ShapeError: the arrays do not have as many frames as the motion.
    """
    count = len(motion)
    if len(human_positions) != count or stance.shape != (count, len(robot.feet)):
        raise ShapeError("stance", stance.shape, f"({count}, {len(robot.feet)})", "One row for each frame of motion.")
    root = quaternion_xyzw_to_matrix(motion.root_quaternions)
    poses = robot.model.link_poses(motion.joint_positions)
    places = motion.root_positions[:, None] + poses.positions @ np.swapaxes(root, -1, -2)
    turns = root[:, None] @ poses.rotations
    scores: dict[str, float] = {}
    for i, limb in enumerate(robot.limbs):
        human, links = human_positions[first:, list(limb.human)], places[first:, list(limb.links)]
        human_segments, segments = np.diff(human, axis=1), np.diff(links, axis=1)
        for name, part in (("upper", 0), ("lower", 1)):
            scores[f"{name}_{i}_deg"] = _mean(_angles(human_segments[:, part], segments[:, part]))
        scale = np.linalg.norm(segments, axis=-1).sum(1).mean() / np.linalg.norm(human_segments, axis=-1).sum(1).mean()
        error = 100 * np.linalg.norm(links[:, 2] - links[:, 0] - scale * (human[:, 2] - human[:, 0]), axis=-1)
        scores[f"reach_{i}_cm"], scores[f"reach_{i}_p95_cm"] = _mean(error), _percentile(error, 95)
    scores |= _foot_scores(robot, places, turns, stance, motion.frame_rate, first)
    return scores | _joint_scores(robot, motion, first)


def _foot_scores(
    robot: Robot, places: FloatArray, turns: FloatArray, stance: NDArray[np.bool_], frame_rate: float, first: int
) -> dict[str, float]:
    slips, tilts, heights = [np.empty(0)], [np.empty(0)], []
    for i, foot in enumerate(robot.feet):
        link = robot.limbs[foot.limb].links[2]
        corners = places[:, None, link] + foot.sole @ np.swapaxes(turns[:, link], -1, -2)
        speed = 100 * frame_rate * np.linalg.norm(np.diff(corners.mean(axis=1)[:, :2], axis=0), axis=-1)
        still = stance[1:, i] & stance[:-1, i]
        slips.append(speed[first:][still[first:]])
        up = turns[first:, link, 2] @ foot.rotation[2]  # height of the end of the sole's normal
        tilts.append(np.degrees(np.arccos(np.clip(up, -1, 1)))[stance[first:, i]])
        heights.append(corners[first:, :, 2].min(axis=1))
    slip, soles = np.concatenate(slips), 100 * np.array(heights).min(axis=0, initial=np.inf)
    if not robot.feet:
        soles = np.empty(0)
    return {
        "slip_cm_s": _mean(slip),
        "slip_p95_cm_s": _percentile(slip, 95),
        "slipping": _mean(slip > 100 * _SLIP),
        "sole_cm": _mean(soles),
        "sole_min_cm": _percentile(soles, 0),
        "sole_max_cm": _percentile(soles, 100),
        "tilt_deg": _mean(np.concatenate(tilts)),
    }


def _joint_scores(robot: Robot, motion: RobotMotion, first: int) -> dict[str, float]:
    q, rate = motion.joint_positions[first:], motion.frame_rate
    speed = np.abs(np.diff(q, axis=0)) * rate
    room = np.minimum(q - robot.model.lower, robot.model.upper - q)
    return {
        "at_limit": _mean((room < _AT_LIMIT).any(axis=1)),
        "outside_rad": float(np.maximum(-room, 0.0).max(initial=0.0)),
        "speed_max": _percentile(speed.ravel(), 100),
        "speed_p99": _percentile(speed.ravel(), 99),
        "acceleration_rms": _mean(np.diff(q, n=2, axis=0) ** 2) ** 0.5 * rate**2,
        "jerk_rms": _mean(np.diff(q, n=3, axis=0) ** 2) ** 0.5 * rate**3,
    }


def _angles(first: FloatArray, second: FloatArray) -> FloatArray:
    cosine = (first * second).sum(-1) / (np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _mean(values: NDArray) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _percentile(values: FloatArray, percent: float) -> float:
    return float(np.percentile(values, percent)) if values.size else float("nan")
