"""A controller that follows the newest trajectory sees no step, whatever stops, stalls or is late."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.pipelines.motion_to_robot import MotionToRobot, RobotWindow
from llamo_ros.pipelines.playback import PlaybackBuffer
from llamo_ros.pipelines.player import HORIZON, LONGEST_DELAY, Player, frames_reached
from llamo_ros.retarget.profile import Robot


class Controller:
    """A joint trajectory controller that takes each trajectory as soon as it comes. Times are in frames."""

    def __init__(self) -> None:
        self._windows: list[tuple[float, RobotWindow]] = []

    def receive(self, time: float, window: RobotWindow) -> None:
        self._windows.append((time, window))

    def largest_step(self) -> float:
        """Largest difference between two trajectories at the moment when one replaces the other, [rad]."""
        return max(
            np.abs(self._at(time, after) - self._at(time, before)).max()
            for (_, before), (time, after) in zip(self._windows, self._windows[1:], strict=False)
        )

    def first_step(self, posture: np.ndarray) -> float:
        """Largest difference between where the robot rests and the first trajectory as it comes, [rad]."""
        time, window = self._windows[0]
        return float(np.abs(self._at(time, window) - posture).max())

    def largest_velocity(self, robot: Robot) -> float:
        """Largest joint velocity from frame to frame, as a share of the limits."""
        first, last = self._windows[0][0], self._windows[-1][0]
        path = []
        for time in np.arange(np.ceil(first), last, 0.25):
            window = [window for received, window in self._windows if received <= time][-1]
            path.append(self._at(time, window))
        return float((np.abs(np.diff(path, axis=0)) * 120 / robot.velocity_limits).max())

    @staticmethod
    def _at(time: float, window: RobotWindow) -> np.ndarray:
        q, v = window.trajectory.positions, window.trajectory.velocities / 30
        x = np.clip(time - window.index, 0.0, len(q) - 1)
        k = min(int(x), len(q) - 2)
        s = x - k
        position = (2 * s**3 - 3 * s**2 + 1) * q[k] + (3 * s**2 - 2 * s**3) * q[k + 1]
        return position + (s**3 - 2 * s**2 + s) * v[k] + (s**3 - s**2) * v[k + 1]


def play_late(player: Player, controller: Controller, ticks: int, lateness, plans=lambda _: True, between=None) -> None:
    """Play as the node does, each frame sent so late, [frames]; ``between`` adds to that after the frame was taken."""
    before = -1.0
    for tick in range(ticks):
        now = max(before, tick + 0.1 + lateness(tick))
        before = now
        frame = player.advance(frames_reached((now - tick) / 30))
        if frame is not None:
            if between is not None:
                now = before = now + between(tick)
            frame = player.refreshed(frame, frames_reached((now - tick) / 30))
            if frame.is_new:
                controller.receive(now + frame.human.index - tick, frame.robot)
            player.sent(frame)
        if plans(tick):
            player.plan_ahead()


def feed(player: Player, clips) -> None:
    for chunk in clips:
        player.push(chunk)


@pytest.mark.parametrize("late", [0.0, 1.5, 4.0, 12.0, 27.0])
@pytest.mark.parametrize("is_late_to_be_taken", [True, False])
@pytest.mark.parametrize("blend", [1.0, 0.0])
def test_a_first_trajectory_that_is_late_begins_where_the_robot_rests(
    robot, walker, chunks, blend: float, is_late_to_be_taken: bool, late: float
) -> None:
    player, controller, delays = Player(PlaybackBuffer(), MotionToRobot(robot, blend)), Controller(), [late]
    feed(player, chunks(walker(120), "a"))

    def delay(tick: int) -> float:
        return delays.pop() if delays and player.robot.has_planned else 0.0

    if is_late_to_be_taken:
        play_late(player, controller, 90, delay)
    else:
        play_late(player, controller, 90, lambda _: 0.0, between=delay)
    assert not delays
    assert controller.first_step(robot.standing) < 0.01
    assert controller.largest_step() < 2e-3
    assert controller.largest_velocity(robot) > 0.01  # it moves


def test_a_first_trajectory_after_a_long_stall_begins_where_the_robot_rests(
    player, robot, walker, chunks, run, positions, assert_safe
) -> None:
    feed(player, chunks(walker(300), "a"))
    assert player.advance() is None
    player.plan_ahead()
    player.advance(frames_reached(30.0))
    player.sit_out(60)
    frames = run(player, 60)
    assert frames[0].is_new
    assert np.abs(positions(frames)[0] - robot.standing).max() < 0.01
    assert np.ptp(positions(frames), axis=0).max() > 0.1
    assert_safe(frames, robot)


@pytest.mark.parametrize("tick", [40, 41, 42, 43, 47])
def test_a_controller_sees_no_step_at_an_emergency_stop(player, robot, walker, chunks, tick: int) -> None:
    feed(player, chunks(walker(120), "a"))
    controller = Controller()

    def stop_at(k: int) -> float:
        if k == tick:
            player.stop()
        return 0.0

    play_late(player, controller, 90, stop_at)
    assert controller.largest_step() < 2e-3
    assert controller.largest_velocity(robot) < 1.05
    assert player.is_stopped


@pytest.mark.parametrize("stall", [2, 6, 9, 12, 20, 27])
@pytest.mark.parametrize("tick", [40, 43])
def test_a_controller_sees_no_step_after_a_stall(player, robot, walker, chunks, tick: int, stall: int) -> None:
    feed(player, chunks(walker(200), "a"))
    controller = Controller()
    play_late(player, controller, 110, lambda k: max(0.0, tick + stall - k) if k >= tick else 0.0)
    assert controller.largest_step() < 2e-3
    assert controller.largest_velocity(robot) < 1.05


@pytest.mark.parametrize("seed", range(4))
def test_a_controller_sees_no_step_on_a_busy_machine(player, robot, walker, chunks, seed: int) -> None:
    random = np.random.default_rng(seed)
    feed(player, chunks(walker(300), "a"))
    controller = Controller()
    stops = {int(random.integers(120, 180))} if seed % 2 else set()
    late_stops = {int(random.integers(120, 180))} if seed == 2 else set()

    def lateness(tick: int) -> float:
        if tick in stops:
            player.stop()
        return float(random.exponential(1.0) * (random.random() < 0.3))

    def between(tick: int) -> float:
        if tick in late_stops:
            player.stop()
        return float(random.exponential(2.0) * (random.random() < 0.1))

    play_late(player, controller, 220, lateness, lambda tick: random.random() < 0.4, between)
    assert controller.largest_step() < 2e-3
    assert controller.largest_velocity(robot) < 1.05


@pytest.mark.parametrize(("begin", "recalls"), [(0, 1), (1, 1), (20, 0)])  # one: the first trajectory
def test_motion_goes_on_although_each_frame_is_a_little_late(player, walker, chunks, begin: int, recalls: int) -> None:
    feed(player, chunks(walker(150), "a"))
    play_late(player, Controller(), 120, lambda tick: 1.5 if tick >= begin else 0.0)
    assert player.recalls == recalls


def test_motion_after_holding_is_not_recalled(player, walker, chunks) -> None:
    feed(player, chunks(walker(40), "a"))
    controller = Controller()
    play_late(player, controller, 80, lambda tick: 0.0)
    feed(player, chunks(walker(60, seed=1), "b"))
    play_late(player, controller, 60, lambda tick: 0.0)
    assert player.recalls == 0
    assert controller.largest_step() < 2e-3


def test_what_came_too_late_is_made_anew(player, walker, chunks, run) -> None:
    feed(player, chunks(walker(120), "a"))
    run(player, 40)
    frame = next(frame for frame in (run(player, 1)[0] for _ in range(8)) if frame.is_new)
    for _ in range(4):  # until the next block is planned
        frame = player.advance()
        player.plan_ahead()
        if frame.is_new:
            break
    assert frame.is_new
    assert player.refreshed(frame, 1) is frame
    anew = player.refreshed(frame, 40)  # the robot, which knows only of older frames, has braked by then
    assert anew.is_new and anew.human is frame.human
    assert anew.robot.trajectory.committed > 40
    assert np.ptp(anew.robot.trajectory.positions[35:41], axis=0).max() == 0.0


def while_preparing(player: Player, do) -> None:
    """Let something happen each time while frames are being retargeted."""
    original = player.robot.prepare

    def prepare(frames):
        prepared = original(frames)
        do()
        return prepared

    player.robot.prepare = prepare


@pytest.mark.parametrize(
    ("ticks_a_block", "late"), [(0, 0.75), (1, 0.3), (1, 1.5), (2, 0.0), (2, 0.3), (2, 0.75), (3, 0.0)]
)
def test_motion_is_played_although_planning_is_slow(
    player, walker, chunks, positions, ticks_a_block: int, late: float
) -> None:
    feed(player, chunks(walker(300), "a"))
    controller, played = Controller(), []

    def play() -> None:
        tick = len(played)
        frame = player.advance(frames_reached(late / 30))
        played.append(frame)
        if frame is not None:
            controller.receive(tick + late, frame.robot) if frame.is_new else None
            player.sent(frame)

    while_preparing(player, lambda: [play() for _ in range(ticks_a_block)])
    while len(played) < 200:
        before = len(played)
        player._plan_block()
        if len(played) == before:
            play()
    assert player.recalls <= 3
    q = positions([frame for frame in played if frame is not None])
    assert q[100:].std(axis=0).max() > 0.1  # it moves


@pytest.mark.parametrize("ticks", [40, 41, 42, 43])
def test_motion_goes_on_at_once_after_a_stall_of_half_a_minute(
    player, robot, walker, chunks, run, positions, assert_safe, ticks: int
) -> None:
    feed(player, chunks(walker(600), "a"))
    frames = run(player, ticks)
    player.advance(frames_reached(30.0))  # what was due as the process fell asleep; too late to be sent
    player.sit_out(60)
    assert player.robot.end_index - player.buffer.next_index <= HORIZON
    frames = run(player, 90)
    q = positions(frames)
    assert np.ptp(q[10:40], axis=0).max() > 0.1  # [rad]
    assert_safe(frames, robot)
    assert player.depth > 300  # what was not played yet is not lost
    assert frames_reached(30.0) == frames_reached(LONGEST_DELAY)


def test_a_stop_while_the_first_frames_are_being_retargeted_ends_the_motion_only(
    player, robot, walker, chunks, run, positions, assert_safe
) -> None:
    feed(player, chunks(walker(60), "a"))
    original = player.robot.prepare
    player.robot.prepare = lambda frames: (player.stop(), original(frames))[1]
    assert run(player, 10) == []
    player.robot.prepare = original
    player.reset()
    assert run(player, 10) == []
    feed(player, chunks(walker(60, seed=1), "b"))
    frames = run(player, 80)
    assert_safe(frames, robot)
    assert np.ptp(positions(frames), axis=0).max() > 0.1


def test_an_unexpected_error_in_the_first_frames_is_not_the_end(player, walker, chunks, run) -> None:
    feed(player, chunks(walker(60), "a"))
    original = player.robot.prepare

    def fails_once(frames):
        player.robot.prepare = original
        raise RuntimeError("once")

    player.robot.prepare = fails_once
    with pytest.raises(RuntimeError, match="once"):
        player.plan_ahead()
    assert len(run(player, 40)) > 30
