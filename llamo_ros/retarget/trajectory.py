"""TrajectoryShaper: retargeted configurations to a time-parametrised trajectory that is safe to hand to a controller.

Frame k lies at time k / frame_rate. Every planned frame obeys position, velocity, acceleration and jerk limits by
finite differences, across chunks, prompts, stops and starts; and from every frame each joint can still brake inside
them: :mod:`llamo_ros.retarget.path_limiter` says why. T frames, J joints.

A controller that joins the points by cubic splines keeps the position limits between them too. Its velocity there may
exceed the limit: by the acceleration limit / (4 * frame_rate), twice that close to a position limit. A joint that
starts outside its position limits only moves inwards; its velocity between the points may exceed the limit by more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.retarget.path_limiter import PathLimiter
from llamo_ros.retarget.path_mixing import filled
from llamo_ros.retarget.profile import Robot

FloatArray = NDArray[np.float64]

_HISTORY = 3  # frames; position, velocity and acceleration of the last one follow from them
_START_TOLERANCE = 0.1  # [rad]; a measured joint this far outside its URDF limits is a wrong unit, sign or order


@dataclass
class ShaperCounts:
    """What the shaper had to change since it was made, for diagnostics. Clamps count joints times frames.

    Attributes:
        position_clamps: References outside the position limits, or from which one could not brake before them.
        velocity_clamps: References that asked for more than the velocity limit.
        acceleration_clamps: References that asked for more than the acceleration limit.
        jerk_clamps: References that asked for more than the jerk limit.
        rejected_chunks: Chunks refused as unusable.
        held_frames: Frames planned without a reference, by braking or holding.
        stops: Emergency stops.
    """

    position_clamps: int = 0
    velocity_clamps: int = 0
    acceleration_clamps: int = 0
    jerk_clamps: int = 0
    rejected_chunks: int = 0
    held_frames: int = 0
    stops: int = 0


@dataclass(frozen=True)
class TrajectoryWindow:
    """The frames still to be executed and a braking tail, as one message for a joint trajectory controller.

    The first ``committed`` points never change: a later window that holds them too holds the same numbers, unless a
    stop recalls them. What follows is where the robot goes if nothing more is planned; it ends at rest.

    Attributes:
        joint_names: The J joints.
        start_index: Frame index of the first point.
        times: Time of each point after the first, shape (N,), [s]; from 0, strictly increasing.
        positions: Shape (N, J), [rad].
        velocities: Central differences of the positions, smaller close to a position limit, shape (N, J), [rad/s]; the
            last row is 0.
        accelerations: Second differences of the positions, shape (N, J), [rad/s^2]; the last row is 0.
        committed: How many points are final.
    """

    joint_names: tuple[str, ...]
    start_index: int
    times: FloatArray
    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray
    committed: int

    def __post_init__(self) -> None:
        for array in (self.times, self.positions, self.velocities, self.accelerations):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.times)


class TrajectoryShaper:
    """Plans a robot's frames from chunks of reference configurations.

    Where the reference can be followed it is followed exactly. Where it jumps or is too fast, each joint closes in on
    it as fast as its limits allow.

    Args:
        robot: The robot; its margins, velocity, acceleration and jerk limits hold.
        frame_rate: Frames per second of the chunks and of the plan, [Hz].
        speed: Share of the velocity limits that may be used, in [0, 1]; see :attr:`speed`.
        blend_s: How long the motion is blended in after a start or a hold (minimum jerk), [s].

    Raises:
        ParameterError: a number is out of its range.
    """

    def __init__(self, robot: Robot, frame_rate: float = 30.0, speed: float = 1.0, blend_s: float = 1.0) -> None:
        if not (np.isfinite(frame_rate) and frame_rate > 0):
            raise ParameterError(f"frame_rate is {frame_rate}, expected a positive number of frames per second.")
        if not (np.isfinite(blend_s) and blend_s >= 0):
            raise ParameterError(f"blend_s is {blend_s}, expected seconds >= 0.")
        self.robot = robot
        self.frame_rate = float(frame_rate)
        self._limiter = PathLimiter(
            robot.lower,
            robot.upper,
            robot.velocity_limits,
            robot.acceleration_limits,
            robot.jerk_limits,
            self.frame_rate,
        )
        self.speed = speed
        self.counts = ShaperCounts()
        self._blend_frames = round(blend_s * frame_rate)
        self._plan: list[FloatArray] = []
        self._plan_start = 0  # frame index of _plan[0]
        self._executed = 0  # frames before this one are no longer asked for
        self._stopped = False
        self._begin_blend(0)

    @property
    def speed(self) -> float:
        """Share of the velocity limits that may be used, in [0, 1]; may change at any time.

        Joints that are faster slow down by braking. At 0 they brake and hold; from there motion is blended in again.
        """
        return self._speed

    @speed.setter
    def speed(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ParameterError(f"speed is {value}, expected at least 0 and at most 1.")
        self._speed = float(value)
        if value:
            self._limiter.speed = self._speed

    @property
    def end_index(self) -> int:
        """Index of the frame that is planned next; 0 before anything is."""
        return self._plan_start + len(self._plan)

    @property
    def is_stopped(self) -> bool:
        """Whether an emergency stop is in force."""
        return self._stopped

    @property
    def last_positions(self) -> FloatArray:
        """The configuration that is planned last, shape (J,), [rad]; frames must be planned."""
        return self._plan[-1].copy()

    def start_from(self, positions: FloatArray) -> None:
        """Begin a new plan at a measured configuration, at rest; it becomes frame 0, and chunks blend in from there.

        Args:
            positions: Measured joint positions, shape (J,), [rad]. A joint within its margin or slightly past its limit
                is accepted and only ever moves inwards.

        Raises:
            MotionDataError: the shape is wrong, a value is not finite, or a joint is far outside its limits.
            ParameterError: an emergency stop is in force.
        """
        self._refuse_if_stopped()
        q = self._checked(np.asarray(positions, dtype=np.float64)[None], "the measured configuration")[0]
        outside = np.maximum(self.robot.model.lower - q, q - self.robot.model.upper)
        if (outside > _START_TOLERANCE).any():
            joint = int(outside.argmax())
            raise MotionDataError(
                f"joint {self.robot.joint_names[joint]!r} is measured at {q[joint]:.3f} rad, outside its limits "
                f"{self.robot.model.lower[joint]:.3f}..{self.robot.model.upper[joint]:.3f}. Check units and order."
            )
        self._plan, self._plan_start, self._executed = [q.copy()], 0, 0
        self._limiter.start(q)
        self._begin_blend(self._blend_frames)

    def push(self, positions: FloatArray) -> FloatArray:
        """Plan the next T frames, from :attr:`end_index` on.

        Without :meth:`start_from` the first frame is taken as it is, at rest.

        Args:
            positions: Reference configurations, shape (T, J), [rad].

        Returns:
            Planned positions, shape (T, J), [rad].

        Raises:
            MotionDataError: the chunk has another shape or values that are not finite. Nothing is planned then, so that
                the robot brakes and holds, and the next chunk is blended in.
            ParameterError: an emergency stop is in force.
        """
        self._refuse_if_stopped()
        try:
            reference = self._checked(np.asarray(positions, dtype=np.float64), "the chunk")
        except (MotionDataError, TypeError, ValueError) as error:
            self.counts.rejected_chunks += 1
            self._begin_blend(self._blend_frames)
            if isinstance(error, MotionDataError):
                raise
            raise MotionDataError(f"the chunk is not an array of numbers: {error}") from error
        if self._speed == 0.0 and len(reference):
            if self._plan:
                return self.hold(len(reference))
            reference = np.tile(reference[:1], (len(reference), 1))  # there it stays
        self.counts.position_clamps += int(((reference < self.robot.lower) | (reference > self.robot.upper)).sum())
        limits, before = self._limiter.counts, self._limiter.counts.position
        planned = self._limiter.follow(self._blended(np.clip(reference, self.robot.lower, self.robot.upper)))
        self.counts.position_clamps += limits.position - before
        self.counts.velocity_clamps, self.counts.acceleration_clamps = limits.velocity, limits.acceleration
        self.counts.jerk_clamps = limits.jerk
        self._plan.extend(planned.copy())
        return planned

    def hold(self, frames: int = 1) -> FloatArray:
        """Plan frames without a reference: brake, then stand still. The next chunk is blended in.

        Returns:
            Planned positions, shape (frames, J), [rad].

        Raises:
            ParameterError: nothing is planned yet, so that there is nothing to hold.
        """
        if not self._plan:
            raise ParameterError("there is no posture to hold; start from a measured configuration first.")
        planned = self._limiter.brake(frames)
        self._plan.extend(planned.copy())
        self.counts.held_frames += frames
        self._begin_blend(self._blend_frames)
        return planned

    def stop(self, after_index: int) -> None:
        """Emergency stop: forget all frames after ``after_index`` and brake from there; in force until :meth:`reset`.

        Args:
            after_index: Last frame that can no longer be recalled, such as the one being executed.
        """
        least = _HISTORY if self._plan_start else 1  # with less there is nothing to brake from
        keep = max(after_index + 1 - self._plan_start, least)
        if keep < len(self._plan):
            self._cut(keep, np.concatenate([self._plan[keep:], self._limiter.way_to_rest()]))
        self._stopped = True
        self.counts.stops += 1

    def follow(self, window: TrajectoryWindow, until_index: int) -> None:
        """Plan what a controller does that has got nothing since this window: along it, then rest at its end.

        Other frames that were planned in their place are forgotten, and all behind them. The next chunk is blended in.

        Args:
            window: An earlier window of this plan.
            until_index: Last frame that is planned so.
        """
        first = max(self._plan_start, window.start_index)
        rows = np.minimum(np.arange(first, until_index + 1) - window.start_index, len(window) - 1)
        self._plan = self._plan[: first - self._plan_start] + list(window.positions[rows])
        last = max(first, until_index + 1) - window.start_index
        self._cut(len(self._plan), window.positions[min(last, len(window) - 1) :])
        self._begin_blend(self._blend_frames)

    def reset(self) -> None:
        """Release an emergency stop. The robot stays where it is until a chunk comes, which is blended in."""
        self._stopped = False
        self._begin_blend(self._blend_frames)

    def blend_in(self) -> None:
        """Blend the next chunks in from where the joints brake to, because they do not continue the last ones."""
        self._begin_blend(self._blend_frames)

    def way_to_rest(self, frames: int = 2) -> FloatArray:
        """Positions behind the last planned frame with which a window ends, shape (N, J), [rad]; at rest.

        Args:
            frames: How many there are at least, >= 2.
        """
        way = self._limiter.way_to_rest()
        return filled(way, max(len(way) + 1, frames)).copy()

    def braking_tail(self, positions: FloatArray, velocities: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Bring every joint to rest as fast as its limits allow, without passing its position limits.

        Args:
            positions: Configuration to start from, shape (J,), [rad].
            velocities: Its velocity, backward difference over one frame, shape (J,), [rad/s]; no acceleration.

        Returns:
            Positions and velocities of the N >= 1 frames after it, each (N, J); the last velocity is 0.
        """
        step = velocities / self.frame_rate
        tail = self._limiter.way_to_rest_from(np.stack([positions - 2 * step, positions - step, positions]))
        path = np.concatenate([positions[None], tail, tail[-1:]])
        return path[1:], self._velocities(np.concatenate([path, path[-1:]]))

    def window(self, start_index: int, tail_frames: int = 2) -> TrajectoryWindow:
        """All frames from ``start_index`` on, with a braking tail; frames before it are executed and may be forgotten.

        Args:
            start_index: Index of its first frame.
            tail_frames: How long the tail is at least, >= 2; the joints rest where they do not need it.

        Raises:
            ParameterError: that frame is not planned yet, or already forgotten.
        """
        if not self._executed <= start_index < self.end_index:
            raise ParameterError(
                f"frame {start_index} is not in the plan, which holds frames {self._executed} to {self.end_index - 1}."
            )
        self._executed, first = start_index, start_index - self._plan_start
        tail = self.way_to_rest(tail_frames)
        before = self._plan[max(first - 1, 0)]
        path = np.concatenate([[before], self._plan[first:], tail, tail[-1:]])
        committed = len(self._plan) - first - 1
        if first > _HISTORY:  # enough for a stop there
            self._plan, self._plan_start = self._plan[first - _HISTORY :], start_index - _HISTORY
        return TrajectoryWindow(
            joint_names=self.robot.joint_names,
            start_index=start_index,
            times=np.arange(len(path) - 2) / self.frame_rate,
            positions=path[1:-1].copy(),
            velocities=self._velocities(path),
            accelerations=np.diff(path, n=2, axis=0) * self.frame_rate**2,
            committed=committed,
        )

    def _blended(self, targets: FloatArray) -> FloatArray:
        """Mix the reference with the braking path from where the blend began, by a minimum-jerk weight."""
        count = min(len(targets), self._blend_length - self._blend_step)
        if count <= 0 or not self._plan:
            return targets
        if self._blend_origin is None:
            self._blend_origin = self._limiter.way_to_rest()
        steps = self._blend_step + np.arange(count)
        origin = self._blend_origin[np.minimum(steps, len(self._blend_origin) - 1)]
        x = ((steps + 1) / self._blend_length)[:, None]
        self._blend_step += count
        mixed = origin + x**3 * (10.0 - 15.0 * x + 6.0 * x * x) * (targets[:count] - origin)
        return np.concatenate([mixed, targets[count:]])

    def _cut(self, keep: int, way: FloatArray) -> None:
        """Forget all planned frames but the first ``keep``; what was planned behind them, to rest, is ``way``."""
        self._plan = self._plan[:keep]
        self._limiter.resume(np.array(self._plan[-_HISTORY:]), way)

    def _begin_blend(self, frames: int) -> None:
        self._blend_length, self._blend_step = frames, 0
        self._blend_origin: FloatArray | None = None
        self._limiter.forget_target()

    def _velocities(self, path: FloatArray) -> FloatArray:
        """Velocities (N - 2, J) inside a path (N, J), so that cubics between the points stay in limits.

        A cubic lies within the hull of its Bezier points: the ends, and a third of a frame's travel inwards from them.
        """
        q = path[1:-1]
        room = np.maximum(np.minimum(q - self.robot.lower, self.robot.upper - q), 0.0) * (3.0 * self.frame_rate)
        return np.clip((path[2:] - path[:-2]) * (0.5 * self.frame_rate), -room, room)

    def _checked(self, positions: FloatArray, what: str) -> FloatArray:
        count = len(self.robot.joint_names)
        if positions.ndim != 2 or positions.shape[1] != count:
            raise MotionDataError(
                f"{what} has shape {positions.shape}, expected one row for each frame and {count} columns, in the "
                f"order of the joints of robot {self.robot.name!r}."
            )
        bad = ~np.isfinite(positions)
        if bad.any():
            frame, joint = np.argwhere(bad)[0]
            raise MotionDataError(
                f"{what} has {bad.sum()} values that are NaN or infinite, first joint "
                f"{self.robot.joint_names[joint]!r} in frame {frame}."
            )
        return positions

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise ParameterError("an emergency stop is in force; reset it before anything else is planned.")
