"""Parts of the body, fixed bases, speed and standing feet, from a time line to a robot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.motion_to_robot import MotionToRobot
from llamo_ros.pipelines.playback import PlaybackBuffer
from llamo_ros.pipelines.player import Player
from llamo_ros.pipelines.reference_window import reference_window
from llamo_ros.retarget.body_part import BodyPart, joints_of
from llamo_ros.retarget.profile import RootLimits


def roots(frames) -> np.ndarray:
    return np.stack(
        [np.concatenate([frame.robot.root_positions[0], frame.robot.root_quaternions[0]]) for frame in frames]
    )


@pytest.mark.parametrize("part", [BodyPart.UPPER, BodyPart.LEGS])
def test_joints_outside_a_part_hold_the_standing_posture(
    robot, walker, chunks, run, positions, assert_safe, part: BodyPart
) -> None:
    player = Player(PlaybackBuffer(), MotionToRobot(robot, part=part))
    for chunk in chunks(walker(90), "a"):
        player.push(chunk)
    frames = run(player, 80)
    inside = joints_of(robot, part)
    assert np.abs(positions(frames)[:, ~inside] - robot.standing[~inside]).max() < 1e-12
    assert np.ptp(positions(frames)[:, inside], axis=0).max() > 0.1
    assert_safe(frames, robot)
    if part is BodyPart.UPPER:
        assert np.ptp(roots(frames), axis=0).max() < 1e-9


def test_another_part_takes_over_smoothly(robot, player, walker, chunks, run, positions, assert_safe) -> None:
    for chunk in chunks(walker(200), "a"):
        player.push(chunk)
    frames = run(player, 60)
    player.robot.part = BodyPart.UPPER
    frames += run(player, 70)
    legs = joints_of(robot, BodyPart.LEGS)
    np.testing.assert_allclose(positions(frames)[-20:, legs], robot.standing[legs] + np.zeros((20, 1)), atol=1e-9)
    assert np.ptp(roots(frames)[-20:], axis=0).max() < 1e-6
    player.robot.part = BodyPart.WHOLE
    frames += run(player, 60)
    assert np.ptp(positions(frames)[-20:, legs], axis=0).max() > 0.1
    assert_safe(frames, robot)


def test_the_root_of_a_fixed_base_does_not_move(robot, walker, chunks, run, assert_safe) -> None:
    player = Player(PlaybackBuffer(), MotionToRobot(robot, has_fixed_base=True))
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    frames = run(player, 50)
    player.stop()
    frames += run(player, 20)
    assert np.ptp(roots(frames), axis=0).max() == 0.0
    assert_safe(frames, robot)


def test_a_speed_of_zero_brakes_and_holds_and_any_other_goes_on(
    robot, player, walker, chunks, run, positions, assert_safe
) -> None:
    for chunk in chunks(walker(240), "a"):
        player.push(chunk)
    frames = run(player, 60)
    player.set_speed(0.0)
    frames += run(player, 50)
    assert np.ptp(positions(frames)[-15:], axis=0).max() == 0.0
    assert np.ptp(roots(frames)[-15:], axis=0).max() < 1e-9
    player.set_speed(1.0)
    frames += run(player, 80)
    assert np.ptp(positions(frames)[-15:], axis=0).max() > 0.05
    assert_safe(frames, robot)
    with pytest.raises(ParameterError, match="speed is 1.5"):
        player.set_speed(1.5)


def test_the_root_comes_to_rest_with_the_joints_at_an_emergency_stop(
    robot, player, walker, chunks, run, assert_safe
) -> None:
    for chunk in chunks(walker(120), "a"):
        player.push(chunk)
    frames = run(player, 50)
    before = np.linalg.norm(np.diff(roots(frames)[-3:, :3], axis=0), axis=1).max() * 30
    assert before > 0.1
    player.stop()
    frames += run(player, 40)
    assert np.ptp(roots(frames)[-10:], axis=0).max() < 1e-9
    assert_safe(frames, robot)  # the root too, which stood still at once before


def test_a_window_carries_accelerations_on_a_trackers_clock(robot, player, walker, chunks, run) -> None:
    for chunk in chunks(walker(60), "a"):
        player.push(chunk)
    for frame in run(player, 50):
        window = reference_window(frame.robot, 0.02, 0.2)
        assert window.accelerations.shape == window.positions.shape
        assert (np.abs(window.accelerations) <= robot.acceleration_limits * (1 + 1e-9)).all()


@pytest.mark.parametrize("stall", [3, 9, 30])
def test_the_root_goes_on_from_where_its_last_window_ended_after_a_stall(
    robot, walker, chunks, run, assert_safe, stall: int
) -> None:
    """Joints that stand still do not tell where the root is: held back by its limits, it still moves."""
    slow = replace(robot, root_limits=RootLimits(0.6, 3.0, 60.0, 1.0, 5.0))
    clip = walker(60)
    rotations, ahead = np.repeat(clip.rotations[:1], 60, axis=0), clip.root_positions.copy()
    ahead[:, 2] *= 2.0
    player = Player(PlaybackBuffer(), MotionToRobot(slow, blend_s=0.0))
    for chunk in chunks(MotionClip(rotations, ahead), "a"):
        player.push(chunk)
    frames = run(player, 40)
    window = frames[-1].robot
    ends = window.root_positions, window.root_quaternions
    assert all(np.abs(np.diff(end[-2:], axis=0)).max() < 1e-9 for end in ends), "the window ends at rest"
    player.sit_out(stall)
    rows = [min(k, len(window) - 1) for k in range(1, stall + 1)]
    along = np.concatenate([ends[0][rows], ends[1][rows]], axis=1)
    path = np.concatenate([roots(frames), along, roots(run(player, 40))])
    limits = slow.root_limits
    for order, limit in enumerate((limits.speed, limits.acceleration, limits.jerk), start=1):
        fastest = np.linalg.norm(np.diff(path[:, :3], n=order, axis=0), axis=1).max() * 30**order
        assert fastest <= limit * (1 + 1e-6)
