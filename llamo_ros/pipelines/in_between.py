"""InBetween: a gap between two clips, filled, and how it meets the second one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import heading
from llamo_ros.motion.rotations import matrix_to_axis_angle, rotation_about_y
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.given_motion import resampled_to_end
from llamo_ros.pipelines.seam import FADE_FRAMES, faded_in
from llamo_ros.pipelines.splicing import fade_weights, split_heading


@dataclass(frozen=True)
class InBetween:
    """The middle that was made, at 30 FPS, beside the clips it lies between.

    The model knows how the second clip moves but not where it stands, so the middle leads to a place and a heading of
    its own. Either the second clip is moved there (:meth:`moved`) or the middle is bent to arrive (:meth:`bent`).

    Attributes:
        start: First clip, at 30 FPS.
        middle: What was made; continues ``start``.
        end: Second clip, at 30 FPS, where its caller placed it.
        distance: From where the middle would stand in its next frame to where ``end`` begins, horizontally, [m].
        turn: From the heading it would have to that of ``end``, to the left, -pi to pi, [rad].
        joint_turn: Largest angle of a joint between its next posture and that of ``end``, [rad].
    """

    start: MotionClip
    middle: MotionClip
    end: MotionClip
    distance: float
    turn: float
    joint_turn: float

    @classmethod
    def of(cls, start: MotionClip, middle: MotionClip, end: MotionClip) -> InBetween:
        """Measure how a middle at 30 FPS, made from the end of ``start`` on, meets the second clip."""
        start, end = resampled_to_end(start), end.resampled(FRAME_RATE)
        arrival = _next_frame(concatenated([start, middle]))
        step, turn = _apart(arrival, end)
        joint_turn = float(np.linalg.norm(_joint_turns(arrival, end), axis=-1).max())
        return cls(start, middle, end, float(np.hypot(*step)), turn, joint_turn)

    def moved(self) -> MotionClip:
        """All three, the second clip moved to where the middle leads."""
        arrival = _next_frame(concatenated([self.start, self.middle]))
        step, turn = _apart(arrival, self.end)
        rotation = rotation_about_y(np.array(-turn))
        pivot = self.end.root_positions[0] * [1.0, 0.0, 1.0]
        rotations = self.end.rotations.copy()
        rotations[:, 0] = rotation @ rotations[:, 0]
        roots = (self.end.root_positions - pivot) @ rotation.T + pivot - [step[0], 0.0, step[1]]
        end = replace(self.end, rotations=rotations, root_positions=roots)
        return self._joined(self.middle, end)

    def bent(self) -> MotionClip:
        """All three, the middle bent little by little so that it arrives where the second clip stands.

        Its feet slide by as much as it is bent: look at :attr:`distance` and :attr:`turn` first.
        """
        step, turn = _apart(_next_frame(concatenated([self.start, self.middle])), self.end)
        weights = fade_weights(len(self.middle))
        turns = rotation_about_y(weights * turn)
        rotations = self.middle.rotations.copy()
        rotations[:, 0] = turns @ rotations[:, 0]
        roots = self.middle.root_positions + weights[:, None] * [step[0], 0.0, step[1]]
        return self._joined(replace(self.middle, rotations=rotations, root_positions=roots), self.end)

    def _joined(self, middle: MotionClip, end: MotionClip) -> MotionClip:
        """All frames; the last ones of the middle take on the posture that the second clip begins with."""
        arrival = _next_frame(concatenated([self.start, middle]))
        count = min(FADE_FRAMES, len(middle))
        weights = np.concatenate([np.zeros(len(middle) - count), fade_weights(count)])
        rise = float(end.root_positions[0, 1] - arrival.root_positions[0, 1])
        middle = faded_in(middle, _joint_turns(arrival, end), rise, weights)
        return replace(concatenated([self.start, middle, end]), text=self.middle.text)


def _next_frame(clip: MotionClip) -> MotionClip:
    """The frame after the last one at the velocity of the moment."""
    last, before = clip.sliced(len(clip) - 1), clip.sliced(len(clip) - 2, len(clip) - 1)
    rotations = last.rotations @ np.swapaxes(before.rotations, -1, -2) @ last.rotations
    return replace(last, rotations=rotations, root_positions=2.0 * last.root_positions - before.root_positions)


def _apart(arrival: MotionClip, end: MotionClip) -> tuple[np.ndarray, float]:
    """From a frame to the first of a clip: step (x, z), [m], and turn to the left, [rad]."""
    step = end.root_positions[0, [0, 2]] - arrival.root_positions[0, [0, 2]]
    turn = float(heading(end.rotations[:1, 0])[0] - heading(arrival.rotations[:1, 0])[0])
    return step, (turn + np.pi) % (2.0 * np.pi) - np.pi


def _joint_turns(arrival: MotionClip, end: MotionClip) -> np.ndarray:
    """Rotation vectors (22, 3) behind each joint's rotation that lead to the first posture of a clip, [rad].

    The pelvis without its heading.
    """
    (_, before), (_, after) = split_heading(arrival), split_heading(end.sliced(0, 1))
    return matrix_to_axis_angle(np.swapaxes(before[0], -1, -2) @ after[0])
