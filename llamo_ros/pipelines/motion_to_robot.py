"""Human frames in, a safe robot trajectory out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT
from llamo_ros.pipelines.splicing import BRAKE_FRAMES
from llamo_ros.pipelines.time_line import PlayedFrame, PlayMode
from llamo_ros.retarget.body_part import BodyPart, restricted, standing_place
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.retarget.root_path import RootCounts, RootPath
from llamo_ros.retarget.touching import TouchCounter
from llamo_ros.retarget.trajectory import TrajectoryShaper, TrajectoryWindow

FloatArray = NDArray[np.float64]

_KEPT_FRAMES = 8  # planned frames that are kept after they were played, for velocities


@dataclass(frozen=True)
class RobotWindow:
    """What the robot is going to do: frames that are final, then a braking tail that ends at rest. ROS world, z up.

    Attributes:
        index: Index of the first frame on the time line.
        trajectory: Joint names, times, positions and velocities of the N points.
        root_positions: Root link in the world, shape (N, 3), [m].
        root_quaternions: Its orientation, shape (N, 4), xyzw.
        contacts: 1 while a foot stands, shape (N, F), feet in the profile's order.
        mode: What playback does in the first frame.
        text: Prompt of the motion in the first frame, or empty.
    """

    index: int
    trajectory: TrajectoryWindow
    root_positions: FloatArray
    root_quaternions: FloatArray
    contacts: FloatArray
    mode: PlayMode
    text: str

    def __len__(self) -> int:
        return len(self.trajectory)

    def positions_at(self, indices: NDArray[np.int64]) -> FloatArray:
        """Joint positions, shape (N, J), [rad], at indices of the time line; before and behind it those of its ends."""
        return self.trajectory.positions[self._rows(indices)]

    def roots_at(self, indices: NDArray[np.int64]) -> FloatArray:
        """Root positions, [m], and quaternions, xyzw, shape (N, 7), as :meth:`positions_at`."""
        rows = self._rows(indices)
        return np.concatenate([self.root_positions[rows], self.root_quaternions[rows]], axis=1)

    def _rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.clip(indices - self.index, 0, len(self) - 1)


@dataclass(frozen=True)
class PreparedFrames:
    """Frames of the time line that are alike, retargeted but not planned yet.

    Attributes:
        frames: All motion, or all braking and holding.
        motion: Their retargeted motion; None, or fewer frames, where the robot stays where it is.
        error: Why they could not be retargeted.
    """

    frames: Sequence[PlayedFrame]
    motion: RobotMotion | None = None
    error: MotionDataError | None = None


class MotionToRobot:
    """Retargets the frames of a time line to a robot and keeps its joints and its root within limits.

    Frames come in order; what was planned is never changed, except by :meth:`stop` and :meth:`follow`. Joints brake by
    themselves where motion runs out; the root follows from the standing feet and the joints that were planned.

    Args:
        robot: The robot.
        blend_s: How long motion is blended in from the start posture and after a hold, [s].
        speed: Share of the robot's velocity limits that may be used, in [0, 1].
        part: What follows the human; see :attr:`part`.
        has_fixed_base: Whether the root is bolted down; it stays where the motion begins.

    Raises:
        ParameterError: a number is out of its range.
    """

    def __init__(
        self,
        robot: Robot,
        blend_s: float = 1.0,
        speed: float = 1.0,
        part: BodyPart = BodyPart.WHOLE,
        has_fixed_base: bool = False,
    ) -> None:
        self.robot = robot
        self._retargeter = Retargeter(robot)
        self._shaper = TrajectoryShaper(robot, FRAME_RATE, speed, blend_s)
        self._root = RootPath(robot, FRAME_RATE, has_fixed_base)
        self._touches = TouchCounter(robot)
        self._part, self._place = BodyPart(part), None
        self._has_gap = False  # whether frames of the human were left out since the last one that was followed
        self._tail: tuple[FloatArray, FloatArray] | None = None  # of the root, behind what is planned
        self._first: int | None = None  # index on the time line of the shaper's frame 0, the start posture
        self._start = robot.standing
        self._roots: list[tuple[FloatArray, FloatArray, FloatArray, PlayMode, str]] = []
        self._roots_first = 0
        self._held = 0

    @property
    def shaper(self) -> TrajectoryShaper:
        """The shaper: its counts, its speed, whether it is stopped."""
        return self._shaper

    @property
    def root_counts(self) -> RootCounts:
        """What was changed about the root's path since the start."""
        return self._root.counts

    @property
    def touches(self) -> TouchCounter:
        """Planned frames in which the robot's links are in one another."""
        return self._touches

    @property
    def part(self) -> BodyPart:
        """What follows the human; may change at any time, blended. The other joints hold the standing posture."""
        return self._part

    @part.setter
    def part(self, value: BodyPart) -> None:
        if BodyPart(value) is not self._part:
            self._part, self._place, self._has_gap = BodyPart(value), None, True
            self._shaper.blend_in()

    @property
    def has_started(self) -> bool:
        """Whether :meth:`start` was called."""
        return self._first is not None

    @property
    def has_planned(self) -> bool:
        """Whether any frame has been planned."""
        return bool(self._roots)

    @property
    def end_index(self) -> int:
        """Index of the frame that is planned next; 0 before the start."""
        return 0 if self._first is None else self._first + self._shaper.end_index

    def start(self, index: int, positions: FloatArray | None = None) -> None:
        """Begin at rest, one frame before ``index``.

        Args:
            index: Index on the time line of the first frame that will be planned.
            positions: Measured joint positions, shape (J,), [rad]; None takes the robot's standing posture.

        Raises:
            MotionDataError: the posture is not one of this robot.
        """
        posture = self.robot.standing if positions is None else positions
        self._shaper.start_from(posture)
        self._start = np.array(posture, dtype=np.float64)
        self._retargeter.reset()
        self._first, self._roots, self._held = index - 1, [], 0
        self._root.start()
        self._place, self._has_gap, self._tail = None, False, None

    def cancel_start(self) -> None:
        """As if :meth:`start` had not been called; for as long as nothing has been planned."""
        self._first = None

    def warm_up(self) -> None:
        """Retarget some frames and forget them, so that the first motion is not the slow one; before :meth:`start`."""
        count = 8
        standing = MotionClip(np.tile(np.eye(3), (count, JOINT_COUNT, 1, 1)), np.tile([0.0, 0.93, 0.0], (count, 1)))
        self._retargeter.retarget(standing)
        self._retargeter.reset()

    def plan(self, frames: Sequence[PlayedFrame]) -> None:
        """Plan the next frames of the time line: :meth:`prepare` and :meth:`accept` in one.

        Raises:
            ParameterError: :meth:`start` was not called, or the first frame is not the next one.
            MotionDataError: the frames cannot be retargeted; the robot then brakes and holds.
        """
        self.accept(self.prepare(frames))

    def prepare(self, frames: Sequence[PlayedFrame]) -> list[PreparedFrames]:
        """Retarget the next frames of the time line. This is the slow part; it changes nothing that is planned."""
        prepared, begin = [], 0
        for end in range(1, len(frames) + 1):
            if end == len(frames) or (frames[end].mode is PlayMode.HOLD) != (frames[begin].mode is PlayMode.HOLD):
                prepared.append(self._prepared(frames[begin:end]))
                begin = end
        return prepared

    def accept(self, prepared: Sequence[PreparedFrames]) -> None:
        """Plan frames that were prepared, without those that were held meanwhile because they came too late.

        Frames that could not be retargeted are held; errors as for :meth:`plan`.
        """
        errors = []
        for part in prepared:
            first = part.frames[0]
            if self._first is None or first.index > self.end_index:
                raise ParameterError(f"frame {first.index} is not the next one to plan, which is {self.end_index}.")
            late = self.end_index - first.index
            if late >= len(part.frames):
                continue
            self._has_gap = self._has_gap or late > 0
            motion = None if part.motion is None else self._restricted(part.motion.sliced(late))
            planned = []
            try:
                if part.error is not None:
                    raise part.error
                if motion is not None:
                    self._root.check(motion)
                if first.mode is not PlayMode.HOLD and motion is not None:
                    planned.append(self._shaper.push(motion.joint_positions))
            except MotionDataError as error:
                errors.append(error)
                motion, self._has_gap = None, True
            missing = part.frames[-1].index + 1 - self.end_index
            if missing:  # the time line goes on: what cannot be followed is held
                planned.append(self._shaper.hold(missing))
            joints = np.concatenate(planned)
            self._add_roots(part.frames[late:], motion, joints)
            self._touches.look(joints)
        if errors:
            raise errors[0]

    def hold(self, frame: PlayedFrame) -> None:
        """Brake and hold in the next frame, because it is due and its plan is not ready."""
        self.accept([PreparedFrames([replace(frame, mode=PlayMode.HOLD)])])
        self._has_gap = True

    def stop(self, index: int) -> None:
        """Emergency stop: brake behind frame ``index``, the last one to be kept, and hold until :meth:`reset`."""
        if self._first is None:
            return
        tail = self._root_tail() if self._roots else None
        self._shaper.stop(index - self._first)
        keep = max(self.end_index - self._roots_first, 1)
        if tail is not None and keep < len(self._roots):
            later = [np.concatenate(row[:2]) for row in self._roots[keep:]]
            self._roots = self._roots[:keep]
            self._resume_root(np.array(later + [np.concatenate(pose) for pose in zip(*tail, strict=True)]))

    def follow(self, window: RobotWindow, index: int) -> None:
        """Plan what a robot does up to frame ``index`` that has got nothing since an earlier window."""
        self._shaper.follow(window.trajectory, index - (self._first or 0))
        first = max(self._roots_first, window.index)
        planned = self._roots[first - self._roots_first :]
        self._roots = self._roots[: first - self._roots_first]
        for k in range(index + 1 - first):
            row = min(first + k - window.index, len(window) - 1)
            mode, text = planned[k][3:] if k < len(planned) else (PlayMode.HOLD, "")
            place = window.root_positions[row], window.root_quaternions[row], window.contacts[row]
            self._roots.append((*place, mode, text))
        rest = np.arange(max(first, index + 1) - window.index, len(window)) if len(window) else np.arange(0)
        rest = rest if len(rest) else np.array([len(window) - 1])
        self._resume_root(np.concatenate([window.root_positions[rest], window.root_quaternions[rest]], axis=1))

    def reset(self) -> None:
        """Release an emergency stop; the next motion is blended in."""
        self._shaper.reset()

    def window(self, index: int) -> RobotWindow:
        """All planned frames from ``index`` on and a braking tail; earlier frames may be forgotten.

        Raises:
            ParameterError: that frame is not planned yet, or already forgotten.
        """
        positions, quaternions = self._root_tail()
        trajectory = self._shaper.window(index - (self._first or 0), len(positions))
        old = index - _KEPT_FRAMES - self._roots_first
        if old > 0:
            self._roots, self._roots_first = self._roots[old:], self._roots_first + old
        last = len(self._roots) - 1
        rows = [self._roots[min(index + k - self._roots_first, last)] for k in range(len(trajectory))]
        begin = min(max(last + 1 + self._roots_first - index, 0), len(rows))
        missing = len(rows) - begin
        return RobotWindow(
            index,
            trajectory,
            np.array([row[0] for row in rows[:begin]] + list(positions[:missing])),
            np.array([row[1] for row in rows[:begin]] + list(quaternions[:missing])),
            np.array([row[2] for row in rows]),
            rows[0][3],
            rows[0][4],
        )

    def resting(self) -> RobotWindow:
        """What a robot does that has not got any window: it rests where it was at the start. Frames must be planned."""
        positions = np.tile(self._start, (2, 1))
        still = np.zeros_like(positions)
        trajectory = TrajectoryWindow(
            self.robot.joint_names, 0, np.arange(2) / FRAME_RATE, positions, still, still.copy(), committed=2
        )
        root, quaternion, contacts, mode, text = self._roots[0]
        twice = [np.tile(row, (2, 1)) for row in (root, quaternion, contacts)]
        return RobotWindow(self._first or 0, trajectory, *twice, mode, text)

    def _prepared(self, frames: Sequence[PlayedFrame]) -> PreparedFrames:
        """Retarget frames that are all motion, or all braking and holding; of the latter only what still moves."""
        is_hold = frames[0].mode is PlayMode.HOLD
        moving = frames if not is_hold else frames[: max(0, BRAKE_FRAMES - self._held)]
        self._held = self._held + len(frames) if is_hold else 0
        if not moving:
            return PreparedFrames(frames)
        clip = MotionClip(np.stack([f.rotations for f in moving]), np.stack([f.root_position for f in moving]))
        try:
            return PreparedFrames(frames, self._retargeter.retarget(clip))
        except MotionDataError as error:
            return PreparedFrames(frames, error=error)

    def _restricted(self, motion: RobotMotion) -> RobotMotion:
        if self._part is BodyPart.UPPER and self._place is None and len(motion):
            self._place = standing_place(self.robot, motion.root_positions[0], motion.root_quaternions[0])
        return restricted(self.robot, motion, self._part, self._place)

    def _add_roots(self, frames: Sequence[PlayedFrame], motion: RobotMotion | None, planned: FloatArray) -> None:
        """Plan the root for frames whose joints (T, J) are planned; ``motion`` is what they followed, if anything."""
        if not self._roots:
            self._roots_first = frames[0].index
        if self._shaper.speed == 0.0 and motion is not None:  # joints hold whatever the human does
            motion, self._has_gap = None, True
        moving = 0 if motion is None else len(motion)
        poses, contacts = [], self._roots[-1][2] if self._roots else np.zeros(len(self.robot.feet))
        if moving:
            poses.append(self._root.follow(motion, planned[:moving], continues=not self._has_gap))
            self._has_gap = False
        if moving < len(frames):
            poses.append(self._root.hold(planned[moving:]))
        rows = [] if motion is None else list(motion.contacts)
        rows += [rows[-1] if rows else contacts] * (len(frames) - moving)
        positions, quaternions = (np.concatenate(parts) for parts in zip(*poses, strict=True))
        for row in zip(positions, quaternions, rows, frames, strict=True):
            self._roots.append((*row[:3], row[3].mode, row[3].text))
        self._tail = None

    def _root_tail(self) -> tuple[FloatArray, FloatArray]:
        """Root poses on the joints' way to rest behind what is planned."""
        if self._tail is None:
            self._tail = self._root.tail(self._shaper.way_to_rest())
        return self._tail

    def _resume_root(self, way: FloatArray) -> None:
        """Go on with the root from the last planned frame; what was planned behind it, to rest, is ``way`` (M, 7)."""
        last = self._roots[-3:]
        self._root.resume(
            np.array([row[0] for row in last]),
            np.array([row[1] for row in last]),
            way,
            self._shaper.last_positions,
            last[-1][2],
        )
        self._has_gap, self._tail = True, None
