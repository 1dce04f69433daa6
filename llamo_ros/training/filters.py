"""Which motion is not trained on: LLaMo's filter for static clips, and checks that a body could have moved like that.

The limits, with their units and reasons, are in ``config/training/filters.yaml``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.core.resources import config_path
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.quality import foot_sliding
from llamo_ros.motion.representation272 import FEATURE_COUNT, POSITIONS, ROOT_DISPLACEMENT, heading_change
from llamo_ros.motion.rotations import geodesic_angle, rotation_about_y
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT, JOINT_INDEX, JOINT_NAMES

FloatArray = NDArray[np.floating]

END_EFFECTORS = ("left_wrist", "right_wrist", "left_foot", "right_foot", "head")
STATIC = "static"
_END_EFFECTORS = [JOINT_INDEX[name] for name in END_EFFECTORS]


@dataclass(frozen=True)
class FilterSettings:
    """Limits beyond which a clip is dropped; ``config/training/filters.yaml`` has the package's, with reasons.

    Attributes:
        shortest_s: Shortest clip, [s].
        longest_s: Longest clip, [s].
        root_speed: Fastest root, frame to frame, [m/s].
        joint_speed: Fastest joint in the world, [m/s].
        joint_acceleration: Largest acceleration of a joint in the world, [m/s^2].
        turn_per_frame: Largest turn of a joint relative to its parent from one frame to the next, [deg].
        below_floor: Deepest joint below the floor, [m].
        air_height: Height of the lowest joint from which on the body is in the air, [m].
        air_time: Longest time in the air, [s].
        foot_sliding: Largest mean speed of feet in contact with the floor, [m/s].
        static_speed: A clip is static if all end effectors stay slower, [m/s].

    Raises:
        ParameterError: a limit is not a positive number.
    """

    shortest_s: float
    longest_s: float
    root_speed: float
    joint_speed: float
    joint_acceleration: float
    turn_per_frame: float
    below_floor: float
    air_height: float
    air_time: float
    foot_sliding: float
    static_speed: float

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
                raise ParameterError(f"filter limit {limit.name} is {value!r}, expected a positive number.")


@dataclass(frozen=True)
class Finding:
    """Why a clip is dropped.

    Attributes:
        reason: Name of the filter.
        value: What was measured.
        limit: What is allowed.
        unit: Unit of both.
        where: Joint and time at which it was measured, or empty.
    """

    reason: str
    value: float
    limit: float
    unit: str
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.reason}: {self.value:.3g} {self.unit}, limit {self.limit:.3g}{place}"


def load_filter_settings(path: str | Path | None = None) -> FilterSettings:
    """Filter limits from a YAML file; None reads the package's ``config/training/filters.yaml``.

    Raises:
        ParameterError: the file cannot be read, or a limit is missing, unknown or no positive number.
    """
    path = config_path("training", "filters.yaml") if path is None else Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"filter settings {path} cannot be read: {error}") from error
    known = [limit.name for limit in fields(FilterSettings)]
    if not isinstance(content, dict) or set(content) != set(known):
        given = set(content) if isinstance(content, dict) else set()
        wrong = ", ".join(f"{name} is unknown" for name in sorted(map(str, given - set(known))))
        missing = ", ".join(f"{name} is missing" for name in known if name not in given)
        raise ParameterError(
            f"filter settings {path}: {'; '.join(filter(None, (wrong, missing)))}. "
            "Copy config/training/filters.yaml and change its numbers."
        )
    return FilterSettings(**content)


def is_static(features: FloatArray, settings: FilterSettings | None = None) -> bool:
    """Whether all end effectors stay slower than ``static_speed`` from the first frame to the last.

    LLaMo leaves such clips out of head annealing (stage 3; supplement, section 3).

    Args:
        features: Features of a clip, not normalised, shape (T, 272), T >= 2.
        settings: Limits; the package's if None.

    Raises:
        ShapeError: ``features`` is not (T, 272) with T >= 2.
    """
    limit = (settings or _package_settings()).static_speed
    return bool(end_effector_speeds(features).max() < limit)


def end_effector_speeds(features: FloatArray) -> NDArray[np.float64]:
    """Speeds of ``END_EFFECTORS`` in the world, shape (T - 1, 5), [m/s], from features (T, 272) at 30 FPS.

    A position in the heading of frame t-1 is the one in the heading of t turned by the change of heading, plus the
    displacement of the root. So no heading needs to be integrated.

    Raises:
        ShapeError: ``features`` is not (T, 272) with T >= 2.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] != FEATURE_COUNT or len(features) < 2:
        raise ShapeError("features", features.shape, "(T, 272) with T >= 2", "Use encode_clip(clip).")
    positions = features[:, POSITIONS].reshape(len(features), JOINT_COUNT, 3)[:, _END_EFFECTORS]
    turn = rotation_about_y(heading_change(features[1:]))
    moved = np.einsum("tij,tej->tei", turn, positions[1:]) - positions[:-1]
    moved[..., [0, 2]] += features[1:, None, ROOT_DISPLACEMENT]
    return np.linalg.norm(moved, axis=-1) * FRAME_RATE


def find_faults(clip: MotionClip, settings: FilterSettings) -> list[Finding]:
    """Everything that speaks against training on a clip; empty if nothing does.

    A static clip is a finding too (``STATIC``), the last one: whether it is dropped is the caller's choice.

    Args:
        clip: Motion at 30 FPS, floor at y = 0.
        settings: The limits.

    Raises:
        ParameterError: the clip is not at 30 FPS.
    """
    if clip.frame_rate != FRAME_RATE:
        raise ParameterError(f"the clip has {clip.frame_rate:g} FPS, expected 30; use clip.resampled(30.0).")
    found = []
    if clip.duration < settings.shortest_s:
        found.append(Finding("too short", clip.duration, settings.shortest_s, "s"))
    if clip.duration > settings.longest_s:
        found.append(Finding("too long", clip.duration, settings.longest_s, "s"))
    if len(clip) < 2:
        return found
    positions = clip.joint_positions()
    velocities = np.diff(positions, axis=0) * FRAME_RATE
    speeds = np.linalg.norm(velocities, axis=-1)
    accelerations = np.linalg.norm(np.diff(velocities, axis=0), axis=-1) * FRAME_RATE
    turns = np.degrees(geodesic_angle(clip.rotations[1:], clip.rotations[:-1]))
    found += _over("root jumps", speeds[:, :1], settings.root_speed, "m/s")
    found += _over("joint too fast", speeds, settings.joint_speed, "m/s")
    found += _over("joint accelerates too hard", accelerations, settings.joint_acceleration, "m/s^2")
    found += _over("rotation flips", turns, settings.turn_per_frame, "deg/frame")
    found += _over("below the floor", -positions[..., 1], settings.below_floor, "m")
    air_time = _longest_run(positions[..., 1].min(axis=1) > settings.air_height) / FRAME_RATE
    if air_time > settings.air_time:
        found.append(Finding("in the air too long", air_time, settings.air_time, "s"))
    sliding = foot_sliding(positions, FRAME_RATE)
    if sliding > settings.foot_sliding:  # NaN, no foot ever in contact, is no finding
        found.append(Finding("feet slide", sliding, settings.foot_sliding, "m/s"))
    fastest = float(speeds[:, _END_EFFECTORS].max())
    if fastest < settings.static_speed:
        found.append(Finding(STATIC, fastest, settings.static_speed, "m/s"))
    return found


@lru_cache(maxsize=1)
def _package_settings() -> FilterSettings:
    return load_filter_settings()


def _over(reason: str, values: FloatArray, limit: float, unit: str) -> list[Finding]:
    """A finding if the largest of values (T, J) exceeds the limit; says at which joint and when."""
    if not values.size or values.max() <= limit:
        return []
    frame, joint = np.unravel_index(int(values.argmax()), values.shape)
    return [Finding(reason, float(values.max()), limit, unit, f"{JOINT_NAMES[joint]} at {frame / FRAME_RATE:.2f} s")]


def _longest_run(mask: NDArray[np.bool_]) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
