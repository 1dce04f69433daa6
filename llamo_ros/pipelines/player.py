"""Player: streams of human motion in at their own pace; 30 times a second, what the person and the robot do now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.motion_to_robot import MotionToRobot, PreparedFrames, RobotWindow
from llamo_ros.pipelines.playback import PlaybackBuffer
from llamo_ros.pipelines.stream import StreamChunk
from llamo_ros.pipelines.time_line import PlayedFrame, PlayMode

FloatArray = NDArray[np.float64]

# Frames planned ahead, at most. At least HORIZON - _BLOCK are, 267 ms: trackers look 200 ms ahead, and the velocity of
# the last one is not final. A new prompt takes over behind them.
HORIZON = 12
_BLOCK = 4  # the retargeter solves four frames at once
_REACHED = 1  # the frame behind the one that is sent, if that is in time: the robot is on its way there
_ON_THE_WAY = 0.005  # [s] from sending a frame until the robot follows it
# Share of a frame from which on the next one counts as reached too: the way there is not free any more, since it
# depends on the velocity at its end.
_ON_ITS_PATH = 0.3
_RECALL_MARGIN = 2  # frames; what is planned anew begins that much later, so that it can be sent before it is reached
_SAME = 1e-9  # [rad], of joints; [m] and 1, of the root
_START_STEP = 0.01  # [rad]; how far a first window may have moved by when the robot gets it, which rests until then
# [s]; a frame that is later is not sent any more. After a longer pause of the whole process, time goes on from now,
# not in a rush, see :meth:`Player.sit_out`.
LONGEST_DELAY = 1.0
POSTURE_AGE = 0.5  # [s]; an older measured posture says where the robot was, not where it is


@dataclass(frozen=True)
class PlayerFrame:
    """One moment of playback.

    Attributes:
        human: The human frame.
        robot: The robot's frames from this moment on.
        is_stopped: Whether an emergency stop is in force.
        is_new: Whether motion was planned or recalled since the frame before, so that the window says something new.
        recalls: How often planned frames had been recalled by then.
    """

    human: PlayedFrame
    robot: RobotWindow
    is_stopped: bool
    is_new: bool
    recalls: int


def frames_reached(late: float) -> int:
    """How many frames behind one the robot may have reached when it gets that one, sent so late, [s].

    What is later than ``LONGEST_DELAY`` is not sent, so that no more than this needs to be planned after a long stall.
    """
    delay = min(max(0.0, late + _ON_THE_WAY), LONGEST_DELAY)
    return _REACHED + int(delay * FRAME_RATE + 1.0 - _ON_ITS_PATH)


class Player:
    """Joins a :class:`PlaybackBuffer` and a :class:`MotionToRobot`. Every method may be called from any thread.

    One thread calls :meth:`advance` 30 times a second, sends the frame and calls :meth:`sent`; one, the same or
    another, calls :meth:`plan_ahead` after it; others push motion. Retargeting holds no lock, so that neither playback
    nor an emergency stop waits for it.

    A robot goes on along the last window that it got, to rest at its end. Whatever happens here, such as a stop or a
    stall of the whole process, the next window says the same about all that the robot may have reached by then.

    Args:
        buffer: Time line of human motion.
        robot: The robot's side.
        waits_for_posture: Whether playback waits for :meth:`set_posture`; else it begins at the standing posture.
        clock: Time, [s], on a clock that never goes back.
    """

    def __init__(
        self,
        buffer: PlaybackBuffer,
        robot: MotionToRobot,
        waits_for_posture: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buffer, self.robot = buffer, robot
        self._lock = threading.Lock()
        self._posture: FloatArray | None = None
        self._posture_time = 0.0
        self._clock = clock
        self._waits_for_posture = waits_for_posture
        self._is_new = False
        self._is_stopped = False
        self._recalls = 0
        self._sent: RobotWindow | None = None
        self._reached = _REACHED  # as the last frame was taken
        self.late_frames = 0  # played while the robot had to hold, because planning was late

    @property
    def is_stopped(self) -> bool:
        """Whether an emergency stop is in force."""
        return self._is_stopped

    @property
    def is_waiting_for_posture(self) -> bool:
        """Whether motion is there and only the robot's measured posture is missing."""
        return self.buffer.started and not self.robot.has_started

    @property
    def depth(self) -> int:
        """Frames of motion that are ready to be played."""
        return self.buffer.depth

    def check_size(self, frames: int) -> None:
        """Whether so many more frames fit; see :meth:`PlaybackBuffer.check_size`."""
        with self._lock:
            self.buffer.check_size(frames)

    def push(self, chunk: StreamChunk) -> None:
        """Take the next chunk of a stream; see :meth:`PlaybackBuffer.push`.

        A stream that shows up during an emergency stop is not played, not even after the stop is released.
        """
        with self._lock:
            if self._is_stopped:
                self.buffer.ignore(chunk.stream_id)
            else:
                self.buffer.push(chunk)

    def set_posture(self, positions: FloatArray, age: float = 0.0) -> None:
        """Tell where the robot is before playback begins.

        It counts for ``POSTURE_AGE`` seconds; playback that waits for a posture waits for a fresh one.

        Args:
            positions: Measured joint positions, shape (J,), [rad].
            age: How long ago that was, [s].

        Raises:
            MotionDataError: it was too long ago, or lies in the future; what was told before is forgotten.
        """
        if not abs(age) <= POSTURE_AGE:
            self._posture = None
            raise MotionDataError(
                f"the joint state was measured {age:.1f} s ago, expected at most {POSTURE_AGE:g} s. Check that the "
                "clocks of robot and computer agree, and use_sim_time."
            )
        self._posture, self._posture_time = np.array(positions, dtype=np.float64), self._clock()

    @property
    def recalls(self) -> int:
        """How often planned frames were dropped: by emergency stops, or because the robot had gone elsewhere."""
        return self._recalls

    def advance(self, reached: int = _REACHED) -> PlayerFrame | None:
        """Play the next frame. None while nothing is planned yet.

        Args:
            reached: How many frames further the robot may be when it gets this one; see :func:`frames_reached`.
        """
        with self._lock:
            self._reached = reached
            if not self.robot.has_planned:
                return None
            human = self.buffer.pop()
            if human.index == self.robot.end_index:
                # Time goes on: the robot brakes on the tail that its controller has been given.
                self.robot.hold(human)
                self.late_frames += 1
            return self._frame(human, reached)

    def refreshed(self, frame: PlayerFrame, reached: int) -> PlayerFrame:
        """The frame that :meth:`advance` returned last as it must be sent now; the same if nothing has come between.

        Between the two there may have been an emergency stop, or a delay in which the robot has gone elsewhere.

        Args:
            frame: The frame.
            reached: As for :meth:`advance`.
        """
        with self._lock:
            if frame.recalls == self._recalls and self._is_expected(frame.robot, frame.human.index + reached):
                return frame
            self._is_new = True
            return self._frame(frame.human, reached)

    def sent(self, frame: PlayerFrame) -> None:
        """Note that the robot has been sent a frame's window, or needed none since it is not new."""
        with self._lock:
            self._sent = frame.robot

    def sit_out(self, frames: int) -> None:
        """Let time pass in which nothing was published: the robot has braked on the tail that its controller has.

        Motion is cut behind the frames that were planned already; the rest is blended in afterwards.

        Args:
            frames: Frames of the time line that have passed, >= 0.
        """
        with self._lock:
            if not self.robot.has_planned:
                return
            was_paused = self.buffer.paused
            self.buffer.pause()
            for _ in range(frames):
                human = self.buffer.pop()
                if human.index == self.robot.end_index:
                    self.robot.hold(human)
            if not was_paused:
                self.buffer.resume()
            self._is_new = True

    def set_speed(self, speed: float) -> None:
        """Use this share of the robot's velocity limits from the next planned frame on; 0 brakes and holds.

        Raises:
            ParameterError: the share is not from 0 to 1.
        """
        with self._lock:
            self.robot.shaper.speed = speed

    def repeat_window(self) -> None:
        """The next frame says its window anew: the last one did not get through."""
        with self._lock:
            self._is_new = True

    def plan_ahead(self) -> None:
        """Retarget frames that will be played soon, the next ones first; to be called after :meth:`advance`.

        Raises:
            MotionDataError: frames cannot be retargeted, or the robot's posture is not one of it.
        """
        while self._plan_block():
            pass

    def _plan_block(self) -> bool:
        """Plan one block of frames, as soon as a whole one fits below the horizon; returns whether any was planned."""
        with self._lock:
            if not self._has_begun():
                return False
            due, end = self.buffer.next_index, self.robot.end_index
            frames = self.buffer.commit(end + _BLOCK if end + _BLOCK <= due + HORIZON else end)
            recalls = self._recalls
        if not frames:
            return False
        try:
            prepared = self.robot.prepare(frames)
        except Exception:
            with self._lock:
                if recalls == self._recalls:
                    self.buffer.recommit(self.robot.end_index)  # they are still to be planned
            raise
        with self._lock:
            if recalls == self._recalls:  # else these frames have been recalled meanwhile
                self._is_new = self._is_new or any(frame.mode is not PlayMode.HOLD for frame in frames)
                try:
                    self._hold_what_is_reached(frames)
                    self.robot.accept(prepared)
                finally:
                    self.buffer.recommit(self.robot.end_index)
        return True

    def _hold_what_is_reached(self, frames: list[PlayedFrame]) -> None:
        """Planning was slow: hold in those frames that are reached before they can be sent, so that the rest can be."""
        if self._sent is not None:
            reached = self.buffer.next_index + self._reached + 1  # by the frame after next, to be sure
            for frame in frames:
                if self.robot.end_index == frame.index <= reached:
                    self.robot.hold(frame)

    def stop(self) -> None:
        """Emergency stop: brake, and play nothing until :meth:`reset`.

        The robot hears of it with the next frame, and brakes from the one behind that, which it has reached by then.
        """
        with self._lock:
            self._is_stopped = True
            self._recalls += 1
            if not self.robot.has_planned:  # nothing moves yet, and nothing of what waits may begin
                self.buffer.clear()
                self.robot.cancel_start()
                return
            self.robot.stop(self.buffer.next_index + _REACHED)
            self.buffer.stop(self.robot.end_index)
            self._is_new = True
            self.robot.accept([PreparedFrames(frames) for frames in [self.buffer.commit(0)] if frames])

    def reset(self) -> None:
        """Release an emergency stop. The motion that was stopped does not go on; the next one is blended in."""
        with self._lock:
            if not self._is_stopped:
                raise ParameterError("no emergency stop is in force; there is nothing to reset.")
            self.robot.reset()
            self._is_stopped = False

    def pause(self, is_paused: bool) -> None:
        """Brake and hold, or go on with what was left."""
        with self._lock:
            if is_paused:
                self.buffer.pause()
            else:
                self.buffer.resume()

    def _frame(self, human: PlayedFrame, reached: int) -> PlayerFrame:
        window, until = self.robot.window(human.index), human.index + reached
        if not self._is_expected(window, until):
            # The robot has passed the end of what was sent and brakes, a stop recalled what it has reached, or what it
            # gets first is late.
            self._recalls += 1
            self.robot.follow(self._sent or self.robot.resting(), until if self._is_stopped else until + _RECALL_MARGIN)
            self.buffer.recommit(self.robot.end_index)
            self._is_new = True
            window = self.robot.window(human.index)
        is_new, self._is_new = self._is_new, False
        return PlayerFrame(human, window, self._is_stopped, is_new, self._recalls)

    def _is_expected(self, window: RobotWindow, until: int) -> bool:
        """Whether a window says of the frames up to ``until`` what the robot was sent last, or rests if it was not."""
        sent, tolerance = (self.robot.resting(), _START_STEP) if self._sent is None else (self._sent, _SAME)
        indices = np.arange(window.index, until + 1)
        if np.abs(window.positions_at(indices) - sent.positions_at(indices)).max() > tolerance:
            return False
        if self._sent is None:  # a root that was never sent may begin anywhere
            return True
        return bool(np.abs(window.roots_at(indices) - sent.roots_at(indices)).max() <= _SAME)

    def _has_begun(self) -> bool:
        """Start the robot as soon as there is motion and, where it is needed, a posture to start from."""
        if self.robot.has_started:
            return True
        if self._posture is not None and self._clock() - self._posture_time > POSTURE_AGE:
            self._posture = None
        if not self.buffer.started or (self._waits_for_posture and self._posture is None):
            return False
        posture, self._posture = self._posture, None
        self.robot.start(self.buffer.next_index, posture)
        return True
