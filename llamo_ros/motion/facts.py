"""Plain kinematic facts of a motion: where it went, how it turned, what hands, trunk and feet did.

They are what prompts are checked against (``llamo_ros.evaluation.prompt_checks``): numbers anybody can verify, no
learned judge. "Forward" and "left" are seen from the body in the first frame; turning left is positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.quality import foot_sliding, joint_jerk, joint_speed, root_drift
from llamo_ros.motion.representation272 import heading
from llamo_ros.motion.rotations import rotation_about_y
from llamo_ros.motion.skeleton import JOINT_INDEX

FloatArray = NDArray[np.floating]

MINIMUM_FRAMES = 4
# A height counts as reached when it is kept this long, so that one wild frame is not a raised hand.
HOLD_SECONDS = 0.2
# Speeds are averaged this long before they are compared: about one stride.
SPEED_SECONDS = 1.0
# A turning point of the hand counts after it has come back this far; tremor and noise of the wrist stay below it.
REVERSAL_AMPLITUDE = 0.05
# A hand waves only while it is not below this height over its shoulder: about the elbow's height when waving low.
WAVING_HEIGHT = -0.15
# Feet are off the floor from this height on: clear of the heel's rise in walking (95 %: 3 cm).
FLIGHT_HEIGHT = 0.08

_ARMS = {"left": ("left_shoulder", "left_wrist"), "right": ("right_shoulder", "right_wrist")}
_FEET = [JOINT_INDEX[name] for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]


@dataclass(frozen=True)
class MotionFacts:
    """Facts of one motion. Directions are those of the first frame's heading unless it says otherwise.

    Attributes:
        duration_s: Length, [s].
        forward_m: Displacement of the root forward, last frame minus first, [m].
        left_m: Displacement of the root to the left, last frame minus first, [m].
        advance_m: Travel along the heading of each moment, [m]; negative when walking backwards, wherever that leads.
        drift_m: Largest horizontal distance of the root from its start, [m].
        yaw_deg: Turn to the left, last frame minus first, unwrapped, [deg]; 360 is a full turn.
        yaw_range_deg: Largest minus smallest heading, unwrapped, [deg].
        mean_speed: Mean horizontal speed of the root, [m/s].
        peak_speed: Its largest mean over one second (or the whole motion, if shorter), [m/s].
        left_wrist_m: Highest the left wrist is kept over the left shoulder for 0.2 s, [m]; negative: never above it.
        right_wrist_m: The same on the right.
        left_reversals: Changes of direction of the left hand while it is raised, each of 5 cm or more.
        right_reversals: The same on the right.
        trunk_lean_deg: Largest forward inclination of pelvis-to-neck kept for 0.2 s, [deg]; 0 is upright.
        head_height_m: Smallest height of the head over the pelvis, [m].
        pelvis_drop_m: Largest drop of the pelvis below its height in the first frame, [m].
        pelvis_rise_m: Largest rise of the pelvis above its height in the first frame, [m].
        flight_m: Highest that ALL foot and ankle joints are over where they stand (10th percentile over time), [m].
        flight_s: Longest time that all of them are at least 8 cm over it, [s]; a jump lasts 0.2 to 0.8 s.
        foot_sliding: Mean horizontal speed of the feet in contact, [m/s]; NaN if there is no contact.
        joint_speed: Mean speed of the joints relative to the pelvis, [m/s].
        jerk: Mean jerk of the joints, [m/s^3].
    """

    duration_s: float
    forward_m: float
    left_m: float
    advance_m: float
    drift_m: float
    yaw_deg: float
    yaw_range_deg: float
    mean_speed: float
    peak_speed: float
    left_wrist_m: float
    right_wrist_m: float
    left_reversals: int
    right_reversals: int
    trunk_lean_deg: float
    head_height_m: float
    pelvis_drop_m: float
    pelvis_rise_m: float
    flight_m: float
    flight_s: float
    foot_sliding: float
    joint_speed: float
    jerk: float


def motion_facts(clip: MotionClip) -> MotionFacts:
    """Measure a motion.

    Args:
        clip: At least 4 frames, any frame rate, floor at y = 0.

    Returns:
        Its facts.

    Raises:
        ParameterError: the clip has fewer than 4 frames.
    """
    if len(clip) < MINIMUM_FRAMES:
        raise ParameterError(f"clip has {len(clip)} frames, expected at least {MINIMUM_FRAMES} to measure a motion.")
    positions, rate = clip.joint_positions(), clip.frame_rate
    root = clip.root_positions
    yaw = np.unwrap(heading(clip.rotations[:, 0]))
    to_heading = rotation_about_y(-yaw)
    steps = np.diff(root, axis=0)
    moved = to_heading[0] @ (root[-1] - root[0])
    speed = np.linalg.norm(steps[:, [0, 2]], axis=-1) * rate
    hold = max(1, round(HOLD_SECONDS * rate))
    trunk = (to_heading @ (positions[:, JOINT_INDEX["neck"]] - positions[:, JOINT_INDEX["pelvis"]])[..., None])[..., 0]
    lowest_foot = positions[:, _FEET, 1].min(axis=1)
    flight = lowest_foot - np.quantile(lowest_foot, 0.1)
    arms = {side: _arm(positions, to_heading, shoulder, wrist) for side, (shoulder, wrist) in _ARMS.items()}
    return MotionFacts(
        duration_s=clip.duration,
        forward_m=float(moved[2]),
        left_m=float(moved[0]),
        advance_m=float((to_heading[:-1] @ steps[..., None])[:, 2, 0].sum()),
        drift_m=root_drift(root),
        yaw_deg=float(np.degrees(yaw[-1] - yaw[0])),
        yaw_range_deg=float(np.degrees(np.ptp(yaw))),
        mean_speed=float(speed.mean()),
        peak_speed=float(_means(speed, max(1, round(SPEED_SECONDS * rate))).max()),
        left_wrist_m=kept_level(arms["left"][:, 1], hold),
        right_wrist_m=kept_level(arms["right"][:, 1], hold),
        left_reversals=_raised_reversals(arms["left"]),
        right_reversals=_raised_reversals(arms["right"]),
        trunk_lean_deg=kept_level(np.degrees(np.arctan2(trunk[:, 2], trunk[:, 1])), hold),
        head_height_m=float((positions[:, JOINT_INDEX["head"], 1] - positions[:, 0, 1]).min()),
        pelvis_drop_m=float(root[0, 1] - root[:, 1].min()),
        pelvis_rise_m=float(root[:, 1].max() - root[0, 1]),
        flight_m=float(flight.max()),
        flight_s=_longest_run(flight > FLIGHT_HEIGHT) / rate,
        foot_sliding=foot_sliding(positions, rate),
        joint_speed=joint_speed(positions, rate),
        jerk=joint_jerk(positions, rate),
    )


def kept_level(values: FloatArray, count: int) -> float:
    """The highest level that ``count`` successive values of (T,) are never under; all of them, if there are fewer."""
    count = min(count, len(values))
    return float(np.lib.stride_tricks.sliding_window_view(values, count).min(axis=1).max())


def reversals(values: FloatArray, amplitude: float) -> int:
    """How often a signal (T,) changes direction, counting only swings of at least ``amplitude`` (hysteresis).

    A cosine of three periods has 5: the two ends do not count.
    """
    count, direction, extreme_low, extreme_high = 0, 0, values[0], values[0]
    for value in values[1:]:
        extreme_low, extreme_high = min(extreme_low, value), max(extreme_high, value)
        if direction >= 0 and value <= extreme_high - amplitude:
            count += direction > 0
            direction, extreme_low = -1, value
            extreme_high = value
        elif direction <= 0 and value >= extreme_low + amplitude:
            count += direction < 0
            direction, extreme_high = 1, value
            extreme_low = value
    return int(count)


def _arm(positions: FloatArray, to_heading: FloatArray, shoulder: str, wrist: str) -> FloatArray:
    """Wrist seen from the shoulder, heading removed, shape (T, 3), [m]."""
    reach = positions[:, JOINT_INDEX[wrist]] - positions[:, JOINT_INDEX[shoulder]]
    return (to_heading @ reach[..., None])[..., 0]


def _raised_reversals(reach: FloatArray) -> int:
    """Reversals of the hand along the direction it moves most, over the frames in which it is raised."""
    raised = reach[reach[:, 1] > WAVING_HEIGHT]
    if len(raised) < 2:
        return 0
    centred = raised - raised.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    return reversals(centred @ direction, REVERSAL_AMPLITUDE)


def _means(values: FloatArray, count: int) -> FloatArray:
    count = min(count, len(values))
    return np.convolve(values, np.full(count, 1.0 / count), mode="valid")


def _longest_run(flags: NDArray[np.bool_]) -> int:
    """Length of the longest run of True in (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
