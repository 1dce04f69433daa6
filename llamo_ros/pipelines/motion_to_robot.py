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
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
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
        return self.trajectory.positions[np.clip(indices - self.index, 0, len(self) - 1)]


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
    """Retargets the frames of a time line to a robot and keeps the joints within its limits.

    Frames come in order; what was planned is never changed, except by :meth:`stop` and :meth:`follow`. Joints brake by
    themselves where motion runs out; the root follows the human's braking.

    Args:
        robot: The robot.
        blend_s: How long motion is blended in from the start posture and after a hold, [s].
        speed: Share of the robot's velocity limits that may be used, in (0, 1].

    Raises:
        ParameterError: a number is out of its range.
    """

    def __init__(self, robot: Robot, blend_s: float = 1.0, speed: float = 1.0) -> None:
        self.robot = robot
        self._retargeter = Retargeter(robot)
        self._shaper = TrajectoryShaper(robot, FRAME_RATE, speed, blend_s)
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
            try:
                if part.error is not None:
                    raise part.error
                if first.mode is not PlayMode.HOLD and part.motion is not None:
                    self._shaper.push(part.motion.joint_positions[late:])
            except MotionDataError as error:
                errors.append(error)
            missing = part.frames[-1].index + 1 - self.end_index
            if missing:  # the time line goes on: what cannot be followed is held
                self._shaper.hold(missing)
            self._add_roots(part, late)
        if errors:
            raise errors[0]

    def hold(self, frame: PlayedFrame) -> None:
        """Brake and hold in the next frame, because it is due and its plan is not ready."""
        self.accept([PreparedFrames([replace(frame, mode=PlayMode.HOLD)])])

    def stop(self, index: int) -> None:
        """Emergency stop: brake behind frame ``index``, the last one to be kept, and hold until :meth:`reset`."""
        if self._first is None:
            return
        self._shaper.stop(index - self._first)
        self._roots = self._roots[: max(self.end_index - self._roots_first, 1)]

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

    def reset(self) -> None:
        """Release an emergency stop; the next motion is blended in."""
        self._shaper.reset()

    def window(self, index: int) -> RobotWindow:
        """All planned frames from ``index`` on and a braking tail; earlier frames may be forgotten.

        Raises:
            ParameterError: that frame is not planned yet, or already forgotten.
        """
        trajectory = self._shaper.window(index - (self._first or 0))
        old = index - _KEPT_FRAMES - self._roots_first
        if old > 0:
            self._roots, self._roots_first = self._roots[old:], self._roots_first + old
        last = len(self._roots) - 1
        rows = [self._roots[min(index + k - self._roots_first, last)] for k in range(len(trajectory))]
        return RobotWindow(
            index,
            trajectory,
            np.array([row[0] for row in rows]),
            np.array([row[1] for row in rows]),
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

    def _add_roots(self, part: PreparedFrames, late: int) -> None:
        places: list[tuple[FloatArray, FloatArray, FloatArray]] = []
        if part.motion is not None:
            motion = part.motion
            places = list(zip(motion.root_positions, motion.root_quaternions, motion.contacts, strict=True))
        if not self._roots:
            self._roots_first = part.frames[0].index
        origin = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(len(self.robot.feet))
        last = places[-1] if places else self._roots[-1][:3] if self._roots else origin
        places += [last] * (len(part.frames) - len(places))
        rows = [(*place, frame.mode, frame.text) for place, frame in zip(places, part.frames, strict=True)]
        self._roots += rows[late:]
