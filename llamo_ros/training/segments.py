"""Parts of training clips labelled by what their kinematics show: turning, standing still, jumping.

The captions of the data name whole clips, so words such as "turns right" or "stands still" hardly ever stand for a
motion of their own. These parts give them one. Labels are keys of config/training/paraphrases.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import decode_features, encode_clip, heading_change
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_INDEX
from llamo_ros.training.pack import Pack, PackedSequence

_FEET = [JOINT_INDEX[name] for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]
_JUMPS = re.compile(r"\b(jump|hop|leap)", re.IGNORECASE)
_NOT_A_TURN = re.compile(
    r"danc|cartwheel|acrobat|spin|pirouette|salsa|ballet|roll|climb|playground|flip", re.IGNORECASE
)


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` .. ``stop - 1`` of a sequence and what they show."""

    sequence: PackedSequence
    start: int
    stop: int
    label: str


def find_segments(pack: Pack, sequences: list[PackedSequence]) -> list[Segment]:
    """All labelled parts of the given sequences."""
    found = []
    for sequence in sequences:
        features = np.asarray(pack.of(sequence), dtype=np.float64)
        captions = " ".join(sequence.captions)
        parts = stands(features)
        if not _NOT_A_TURN.search(captions):
            parts += turns(features)
        if _JUMPS.search(captions):
            parts += jumps(features)
        found += [Segment(sequence, start, stop, label) for start, stop, label in parts]
    return found


def turns(features: NDArray[np.float64]) -> list[tuple[int, int, str]]:
    """Turns of 50 to 220 degrees within 4 s, upright, with half a second before and after."""
    rate = _smoothed(np.degrees(heading_change(features)) * FRAME_RATE, 15)
    upright = features[:, 8 + 3 * 0 + 1] > 0.75  # pelvis height, [m]
    parts = []
    for sign, label in ((1.0, "turn-left"), (-1.0, "turn-right")):
        for start, stop in _runs((sign * rate > 20.0) & upright):
            angle = sign * np.degrees(heading_change(features[start:stop]).sum())
            if 50.0 <= angle <= 220.0 and stop - start <= 120:
                parts.append((max(0, start - 15), min(len(features), stop + 15), label))
    return parts


def stands(features: NDArray[np.float64]) -> list[tuple[int, int, str]]:
    """At least 0.8 s in which no joint is fast, the root stays, and both hands hang below the chest."""
    positions = features[:, 8:74].reshape(-1, 22, 3)
    speed = np.linalg.norm(features[:, 74:140].reshape(-1, 22, 3), axis=-1).max(-1) * FRAME_RATE
    root_speed = np.linalg.norm(features[:, 0:2], axis=-1) * FRAME_RATE
    hands = positions[:, [JOINT_INDEX["left_wrist"], JOINT_INDEX["right_wrist"]], 1].max(-1)
    upright = positions[:, JOINT_INDEX["head"], 1] - positions[:, 0, 1] > 0.5
    low = hands < positions[:, JOINT_INDEX["spine3"], 1] - 0.1
    slow = (_smoothed(speed, 9) < 0.25) & (_smoothed(root_speed, 9) < 0.08)
    turning = np.abs(_smoothed(np.degrees(heading_change(features)) * FRAME_RATE, 9)) > 15.0
    still = slow & ~turning & low & upright & (positions[:, 0, 1] > 0.8)
    return [(start, stop, "stand") for start, stop in _runs(still) if stop - start >= 24]


def lengthened_stand(features: NDArray[np.floating], frames: int) -> NDArray[np.float64]:
    """A stand of ``frames`` frames: the part played to and fro (slow sway looks the same both ways)."""
    clip = decode_features(np.asarray(features, dtype=np.float64))
    cycle = np.concatenate([np.arange(len(clip)), np.arange(len(clip) - 2, 0, -1)])
    order = np.resize(cycle, frames)
    return encode_clip(MotionClip(clip.rotations[order], clip.root_positions[order]))


def jumps(features: NDArray[np.float64]) -> list[tuple[int, int, str]]:
    """Both feet at least 8 cm up for 4 frames, with one second before and after."""
    feet = features[:, 8:74].reshape(-1, 22, 3)[:, _FEET, 1].min(-1)
    parts = []
    for start, stop in _runs(feet - np.quantile(feet, 0.1) > 0.08):
        if 4 <= stop - start <= 45:
            parts.append((max(0, start - 30), min(len(features), stop + 30), "jump"))
    return parts


def _smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    if len(values) < width:
        return np.full(len(values), values.mean())
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _runs(condition: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], condition, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
