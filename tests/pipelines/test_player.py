from __future__ import annotations

import threading

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.pipelines.motion_to_robot import MotionToRobot
from llamo_ros.pipelines.playback import PlaybackBuffer
from llamo_ros.pipelines.player import HORIZON, Player, PlayerFrame
from llamo_ros.pipelines.reference_window import agree, reference_window
from llamo_ros.pipelines.time_line import PlayMode


def assert_windows_agree(frames: list[PlayerFrame]) -> None:
    """What a window calls final, the next one repeats to the last bit."""
    for before, after in zip(frames, frames[1:], strict=False):
        count = max(0, min(before.robot.trajectory.committed - 1, len(after.robot)))
        np.testing.assert_array_equal(
            before.robot.trajectory.positions[1 : 1 + count], after.robot.trajectory.positions[:count]
        )
        # the planned frame behind the window's first is where the robot really goes
        np.testing.assert_array_equal(before.robot.trajectory.positions[1], after.robot.trajectory.positions[0])


def test_playback_starts_at_the_standing_posture_and_stays_within_limits(
    player, robot, walker, chunks, run, positions, assert_safe
) -> None:
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    frames = run(player, 100)
    assert [frame.human.index for frame in frames] == list(range(99))
    assert np.abs(positions(frames)[0] - robot.standing).max() < 0.01  # a 1 s blend has hardly begun after 33 ms
    assert_safe(frames, robot)
    assert_windows_agree(frames)


def test_a_new_prompt_an_underrun_and_a_pause_keep_all_limits(player, robot, walker, chunks, run, assert_safe) -> None:
    first, second = list(chunks(walker(60), "a")), list(chunks(walker(90, seed=1, turn=2.0), "b"))
    frames = []
    for chunk in first[:6]:
        player.push(chunk)
    frames += run(player, 20)
    for chunk in second[:4]:
        player.push(chunk)
    frames += run(player, 50)  # runs out
    for chunk in second[4:]:
        player.push(chunk)
    frames += run(player, 15)
    player.pause(True)
    frames += run(player, 20)
    player.pause(False)
    frames += run(player, 90)
    assert {PlayMode.RUN, PlayMode.BLEND, PlayMode.HOLD} == {frame.human.mode for frame in frames}
    assert [frame.human.index for frame in frames] == list(range(len(frames)))
    assert_safe(frames, robot)
    assert_windows_agree(frames)


def test_every_window_looks_ahead_while_motion_is_there_and_ends_at_rest(player, walker, chunks, run) -> None:
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    frames = run(player, 80)
    assert min(len(frame.robot) for frame in frames[:50]) > HORIZON - 4
    for frame in frames:
        assert (frame.robot.trajectory.velocities[-1] == 0.0).all()
        assert len(frame.robot) == len(frame.robot.root_positions) == len(frame.robot.contacts)
    news = [frame.human.index for frame in frames if frame.is_new]
    assert 12 <= len(news) <= 25  # one for every block of four frames, none while holding
    assert max(news) < 62


def test_a_window_that_did_not_get_through_is_said_again(player, walker, chunks, run) -> None:
    for chunk in chunks(walker(12), "a"):
        player.push(chunk)
    frames = run(player, 80)
    assert not frames[-1].is_new
    player.repeat_window()
    again, after = run(player, 2)
    assert again.is_new
    assert not after.is_new


def test_an_emergency_stop_takes_effect_in_the_next_frame(
    player, robot, walker, chunks, run, positions, assert_safe
) -> None:
    for chunk in chunks(walker(90), "a"):
        player.push(chunk)
    frames = run(player, 40)
    player.stop()
    player.stop()  # twice is as good as once
    after = run(player, 30)
    assert after[0].human.index == frames[-1].human.index + 1
    assert after[0].is_stopped and after[0].is_new
    assert {frame.human.mode for frame in after[2:]} == {PlayMode.HOLD}  # two frames have been reached by then
    assert_safe(frames + after, robot)
    assert np.ptp(positions(after[14:]), axis=0).max() == 0.0
    # The trajectory that is published at the stop is the way to rest.
    tail = after[0].robot.trajectory.positions
    np.testing.assert_array_equal(positions(after)[: len(tail)], tail)


def test_motion_that_came_during_a_stop_is_never_played(player, robot, walker, chunks, run, assert_safe) -> None:
    first, second = list(chunks(walker(60), "a")), list(chunks(walker(60, seed=1), "b"))
    for chunk in first[:10]:
        player.push(chunk)
    frames = run(player, 20)
    player.stop()
    for chunk in [*first[10:], *second[:8]]:
        player.push(chunk)
    frames += run(player, 20)
    player.reset()
    for chunk in second[8:]:
        player.push(chunk)
    frames += run(player, 20)
    assert {frame.human.mode for frame in frames[22:]} == {PlayMode.HOLD}
    for chunk in chunks(walker(60), "c"):
        player.push(chunk)
    frames += run(player, 60)
    assert frames[-1].human.mode is not PlayMode.HOLD
    assert_safe(frames, robot)
    with pytest.raises(ParameterError, match="no emergency stop"):
        player.reset()


def test_time_goes_on_when_planning_is_late(player, robot, walker, chunks, run, assert_safe) -> None:
    clip = walker(90)
    for chunk in chunks(clip, "a"):
        player.push(chunk)
    frames = run(player, 30)
    late = [player.advance() for _ in range(HORIZON + 6)]
    frames += late + run(player, 40)
    assert [frame.human.index for frame in frames] == list(range(len(frames)))
    assert player.late_frames >= 2
    # the person is not delayed, the robot brakes and comes back
    np.testing.assert_array_equal(
        np.stack([frame.human.root_position for frame in frames[:80]]), clip.root_positions[:80]
    )
    assert_safe(frames, robot)


def test_frames_that_were_prepared_too_late_are_left_out(robot, player, walker, chunks, run) -> None:
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    run(player, 10)
    side = player.robot
    frames = player.buffer.commit(player.buffer.next_index + HORIZON + 12)
    prepared = side.prepare(frames)
    end = side.end_index
    for _ in range(frames[0].index + 2 - player.buffer.next_index):
        player.advance()
    assert side.end_index == end + 2
    side.accept(prepared)
    assert side.end_index == frames[-1].index + 1


def test_a_stop_while_frames_are_being_retargeted_recalls_them(player, robot, walker, chunks, run, assert_safe) -> None:
    for chunk in chunks(walker(90), "a"):
        player.push(chunk)
    frames = run(player, 20)
    original, stopped = player.robot.prepare, threading.Event()

    def prepare_slowly(given):
        if given and not stopped.is_set():
            stopped.set()
            player.stop()
        return original(given)

    player.robot.prepare = prepare_slowly
    after = run(player, 30)
    index = next(k for k, frame in enumerate(after) if frame.is_stopped)
    assert {frame.human.mode for frame in after[index + 2 :]} == {PlayMode.HOLD}
    assert_safe(frames + after, robot)


def test_playback_waits_for_the_measured_posture_and_starts_there(
    robot, walker, chunks, run, positions, assert_safe
) -> None:
    player = Player(PlaybackBuffer(), MotionToRobot(robot), waits_for_posture=True)
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    assert run(player, 5) == []
    assert player.is_waiting_for_posture
    with pytest.raises(MotionDataError, match="outside its limits"):
        player.set_posture(robot.standing + 100.0)
        player.plan_ahead()
    measured = np.clip(robot.standing + 0.3, robot.lower, robot.upper)
    player.set_posture(measured)
    frames = run(player, 70)
    assert np.abs(positions(frames)[0] - measured).max() < 0.01
    assert_safe(frames, robot)


def test_a_posture_that_was_measured_too_long_ago_is_not_started_from(robot, walker, chunks, run) -> None:
    now = 0.0
    player = Player(PlaybackBuffer(), MotionToRobot(robot), waits_for_posture=True, clock=lambda: now)
    player.set_posture(robot.standing)
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    now = 0.6
    assert run(player, 5) == []
    assert player.is_waiting_for_posture
    player.set_posture(robot.standing)
    assert len(run(player, 5)) > 0


@pytest.mark.parametrize("age", [0.6, -0.6, 1e9, float("nan")])
def test_a_posture_of_another_time_is_refused_and_forgets_the_one_before(
    robot, walker, chunks, run, age: float
) -> None:
    player = Player(PlaybackBuffer(), MotionToRobot(robot), waits_for_posture=True)
    player.set_posture(robot.standing, age=0.1)
    with pytest.raises(MotionDataError, match="measured .* ago, expected at most 0.5 s"):
        player.set_posture(robot.standing, age=age)
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    assert run(player, 5) == []


@pytest.mark.parametrize("dt", [0.02, 1 / 30, 0.005])
def test_a_reference_window_lies_on_its_own_grid_and_meets_the_plan(player, walker, chunks, run, dt: float) -> None:
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    frames = run(player, 100)
    before = None
    for frame in frames:
        window = reference_window(frame.robot, dt, 0.2)
        offset = window.start_index * dt - frame.human.index / 30
        assert -1e-9 <= offset < dt
        assert (len(window.positions) - 1) * dt >= 0.2 - 1e-9
        if abs(offset) < 1e-9:
            np.testing.assert_allclose(window.positions[0], frame.robot.trajectory.positions[0], atol=1e-12)
            np.testing.assert_allclose(window.velocities[0], frame.robot.trajectory.velocities[0], atol=1e-9)
            np.testing.assert_allclose(window.root_positions[0], frame.robot.root_positions[0], atol=1e-12)
        if before is not None and frame.human.index < 60 - HORIZON:
            assert agree(before, window)  # what was sent is not revised while motion is planned ahead
        before = window
    assert np.abs(window.velocities).max() == 0.0
    assert np.abs(window.angular_velocities).max() == 0.0


@pytest.mark.parametrize("waits_for_posture", [False, True], ids=["standing", "measured"])
def test_motion_that_waits_for_its_start_does_not_begin_after_an_emergency_stop(
    robot, walker, chunks, waits_for_posture, run, positions, assert_safe
) -> None:
    player = Player(PlaybackBuffer(), MotionToRobot(robot), waits_for_posture)
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    player.stop()
    player.set_posture(robot.standing)
    assert not run(player, 30)  # nothing moves
    player.reset()
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    assert not run(player, 30)  # nor later: the stopped motion does not go on
    for chunk in chunks(walker(60, seed=1), "b"):
        player.push(chunk)
    frames = run(player, 100)
    assert np.abs(positions(frames)[0] - robot.standing).max() < 0.01  # as in the first test
    assert_safe(frames, robot)


def test_after_time_without_any_message_the_robot_goes_on_from_where_the_last_trajectory_ends(
    player, robot, walker, chunks, run, positions, assert_safe
) -> None:
    for chunk in chunks(walker(200), "a"):
        player.push(chunk)
    before = run(player, 60)
    before.append(player.advance())  # what was planned after the frame before is sent now
    rest = before[-1].robot.trajectory.positions[-1]
    player.sit_out(60)
    after = run(player, 100)
    assert after[0].human.index == before[-1].human.index + 61
    assert after[0].is_new
    np.testing.assert_allclose(positions(after)[0], rest, atol=1e-9)
    assert max(np.abs(positions(after) - rest).max(axis=1)) > 0.05  # the rest of the motion is played
    assert_safe(after, robot)
