"""Safe trajectories: limits hold in time, whatever comes in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.trajectory import TrajectoryShaper, TrajectoryWindow

RATE = 30.0
ROUNDING = 1e-9  # of a limit; second differences times 900 of positions near 1 are exact to 1e-12


def assert_within_limits(robot: Robot, path: np.ndarray, speed: float = 1.0) -> None:
    velocity = np.diff(path, axis=0) * RATE
    acceleration = np.diff(velocity, axis=0) * RATE
    assert (path >= robot.lower - ROUNDING).all() and (path <= robot.upper + ROUNDING).all()
    assert (np.abs(velocity) <= robot.velocity_limits * (speed + ROUNDING)).all()
    assert (np.abs(acceleration) <= robot.acceleration_limits * (1 + 1e-6)).all()
    jerk = np.diff(acceleration, axis=0) * RATE
    assert (np.abs(jerk) <= robot.jerk_limits * (1 + 1e-6)).all()


def smooth(robot: Robot, frames: int, amplitude: float = 0.3) -> np.ndarray:
    """A motion well inside all limits that starts at the standing posture at rest."""
    time = np.arange(frames)[:, None] / RATE
    wave = amplitude * np.sin(2.0 * time + np.arange(robot.model.joint_count)) * (1 - np.exp(-4 * time**2))
    middle = np.clip(robot.standing, robot.lower + amplitude, robot.upper - amplitude)
    return np.clip(middle + wave, robot.lower, robot.upper)


def adversarial(robot: Robot, generator: np.random.Generator, last: np.ndarray) -> np.ndarray:
    """A chunk of 1 to 6 frames: noise over the limits, a jump, a far standstill, a fast walk, or NaN."""
    frames, joints = generator.integers(1, 7), robot.model.joint_count
    kind = generator.integers(5)
    if kind == 0:
        return generator.uniform(robot.model.lower - 1, robot.model.upper + 1, (frames, joints))
    if kind == 1:
        return np.tile(generator.uniform(robot.lower, robot.upper), (frames, 1))
    if kind == 2:
        return np.where(generator.random(joints) < 0.5, robot.lower, robot.upper) + np.zeros((frames, 1))
    if kind == 3:
        return last + np.cumsum(generator.normal(0, 0.2, (frames, joints)), axis=0)
    return np.where(generator.random((frames, joints)) < 0.1, np.nan, last)


@pytest.mark.parametrize("seed", range(4))
def test_limits_hold_for_any_stream_of_chunks_holds_and_bad_data(g1: Robot, seed: int) -> None:
    generator = np.random.default_rng(seed)
    shaper = TrajectoryShaper(g1, blend_s=0.2)
    shaper.start_from(g1.standing)
    path = [g1.standing]
    for _ in range(150):
        if generator.random() < 0.1:
            path.extend(shaper.hold(int(generator.integers(0, 5))))
        chunk = adversarial(g1, generator, path[-1])
        if np.isnan(chunk).any():
            with pytest.raises(MotionDataError):
                shaper.push(chunk)
        else:
            path.extend(shaper.push(chunk))
        assert shaper.end_index == len(path)
    assert_within_limits(g1, np.array(path))
    assert shaper.counts.rejected_chunks > 5 and shaper.counts.position_clamps > 0


@pytest.mark.parametrize("seed", range(3))
def test_every_window_of_any_stream_brakes_to_rest_within_the_limits(g1: Robot, seed: int) -> None:
    generator = np.random.default_rng(100 + seed)
    shaper = TrajectoryShaper(g1, blend_s=0.0)
    shaper.start_from(g1.standing)
    executed = [g1.standing]
    for _ in range(60):
        chunk = np.nan_to_num(adversarial(g1, generator, executed[-1]))
        executed.extend(shaper.push(chunk))
        window = shaper.window(shaper.end_index - 1)
        assert_within_limits(g1, np.concatenate([executed[-2:], window.positions[1:]]))
        assert (window.velocities[-1] == 0).all() and (np.diff(window.times) > 0).all()
        np.testing.assert_array_equal(window.positions[0], executed[-1])


def test_what_can_be_followed_is_followed_exactly(g1: Robot) -> None:
    reference, shaper = smooth(g1, 80), TrajectoryShaper(g1)
    planned = np.concatenate([shaper.push(chunk) for chunk in np.split(reference, 20)])
    np.testing.assert_allclose(planned, reference, atol=1e-12)  # positions are summed up frame by frame
    assert shaper.counts.velocity_clamps == shaper.counts.acceleration_clamps == shaper.counts.position_clamps == 0


def test_a_jump_is_caught_up_with_and_then_followed_exactly(g1: Robot) -> None:
    reference = smooth(g1, 90)
    reference[30:, 15:22] += 0.8 * np.sign(0.5 * (g1.lower + g1.upper) - reference[30])[15:22]
    shaper = TrajectoryShaper(g1)
    planned = shaper.push(reference)
    assert_within_limits(g1, planned)
    assert shaper.counts.acceleration_clamps > 0
    np.testing.assert_allclose(planned[60:], reference[60:], atol=1e-9)


def test_a_standstill_is_reached_without_passing_it(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1, blend_s=0.0)
    shaper.start_from(g1.standing)
    goal = 0.5 * (g1.lower + g1.upper)
    planned = shaper.push(np.tile(goal, (90, 1)))
    np.testing.assert_allclose(planned[-1], goal, atol=1e-9)
    side = np.sign(goal - g1.standing)
    assert ((goal - planned) * side >= -1e-9).all()


def test_a_start_blends_from_the_measured_posture_and_ends_on_the_motion(g1: Robot) -> None:
    reference, shaper = smooth(g1, 90), TrajectoryShaper(g1, blend_s=1.0)
    measured = np.clip(g1.standing + 0.3, g1.model.lower, g1.model.upper)
    shaper.start_from(measured)
    planned = shaper.push(reference)
    path = np.concatenate([measured[None], planned])
    assert np.abs(np.diff(path, axis=0)[0]).max() * RATE < 0.1  # [rad/s]: minimum jerk leaves gently
    np.testing.assert_allclose(planned[45:], reference[45:], atol=1e-9)
    outside = (measured < g1.lower) | (measured > g1.upper)
    assert outside.any()  # a joint that rests past its margin is taken back in and never further out
    beyond = np.maximum(np.maximum(g1.lower - path, path - g1.upper), 0)
    assert (np.diff(beyond, axis=0) <= ROUNDING).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [(np.nan, "NaN"), (50.0, "Check units"), (None, "29 columns")],
    ids=["not finite", "in degrees", "too few joints"],
)
def test_a_start_from_nonsense_is_refused(g1: Robot, change: float | None, message: str) -> None:
    measured = g1.standing.copy()
    if change is not None:
        measured[3] = change
    with pytest.raises(MotionDataError, match=message):
        TrajectoryShaper(g1).start_from(measured if change is not None else measured[:10])


@pytest.mark.parametrize(
    "chunk",
    [np.zeros((4, 28)), np.zeros(29), np.full((4, 29), np.inf), "a chunk", np.zeros((2, 4, 29))],
    ids=["joints", "one frame", "infinite", "text", "axes"],
)
def test_a_bad_chunk_is_refused_counted_and_leaves_the_plan_alone(g1: Robot, chunk: object) -> None:
    shaper = TrajectoryShaper(g1)
    shaper.push(smooth(g1, 8))
    before = shaper.window(4)
    with pytest.raises(MotionDataError):
        shaper.push(chunk)
    after = shaper.window(4)
    assert shaper.counts.rejected_chunks == 1
    np.testing.assert_array_equal(before.positions, after.positions)
    np.testing.assert_array_equal(before.velocities, after.velocities)


def test_holding_brakes_and_then_stands_still(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1)
    moving = shaper.push(smooth(g1, 40))
    held = shaper.hold(40)
    assert_within_limits(g1, np.concatenate([moving, held]))
    np.testing.assert_array_equal(held[-1], held[-10])
    assert shaper.counts.held_frames == 40


def test_motion_resumes_smoothly_after_a_hold(g1: Robot) -> None:
    reference, shaper = smooth(g1, 120), TrajectoryShaper(g1, blend_s=0.5)
    path = np.concatenate([shaper.push(reference[:40]), shaper.hold(20), shaper.push(reference[40:])])
    assert_within_limits(g1, path)
    np.testing.assert_allclose(path[-20:], reference[-20:], atol=1e-9)


def test_a_window_holds_the_same_numbers_as_the_ones_before(g1: Robot) -> None:
    reference, shaper, windows = smooth(g1, 60), TrajectoryShaper(g1), []
    for k, chunk in enumerate(np.split(reference, 15)):
        shaper.push(chunk)
        windows.append(shaper.window(max(4 * k - 6, 0)))
    committed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    compared = 0
    for window in windows:
        for i in range(len(window)):
            frame = window.start_index + i
            if frame in committed:
                np.testing.assert_array_equal(window.positions[i], committed[frame][0])
                np.testing.assert_array_equal(window.velocities[i], committed[frame][1])
                compared += 1
        for i in range(window.committed):
            committed[window.start_index + i] = window.positions[i], window.velocities[i]
    assert compared > 30


def test_velocities_are_the_slopes_of_the_positions(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1)
    shaper.push(smooth(g1, 40))
    window: TrajectoryWindow = shaper.window(10)
    slopes = (window.positions[2:] - window.positions[:-2]) * RATE / 2
    np.testing.assert_allclose(window.velocities[1:-1], slopes, atol=1e-12)
    np.testing.assert_allclose(np.diff(window.times), 1 / RATE, atol=1e-12)
    assert window.times[0] == 0 and len(window) > window.committed == 29


def test_accelerations_are_the_second_differences_of_the_positions_and_keep_their_limit(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1)
    shaper.push(smooth(g1, 40))
    window: TrajectoryWindow = shaper.window(10)
    seconds = np.diff(window.positions, n=2, axis=0) * RATE**2
    np.testing.assert_allclose(window.accelerations[1:-1], seconds, atol=1e-9)
    assert (window.accelerations[-1] == 0).all()
    assert (np.abs(window.accelerations) <= g1.acceleration_limits * (1 + 1e-9)).all()
    with pytest.raises(ValueError, match="read-only"):
        window.accelerations[0] = 0.0


def test_at_a_speed_of_zero_joints_brake_and_hold_and_motion_is_blended_in_again(g1: Robot) -> None:
    reference, shaper = smooth(g1, 160), TrajectoryShaper(g1, blend_s=0.5)
    path = [shaper.push(reference[:40])]
    shaper.speed = 0.0
    path.append(shaper.push(reference[40:80]))
    np.testing.assert_array_equal(path[-1][-1], path[-1][15])
    assert shaper.counts.held_frames == 40
    shaper.speed = 1.0
    path.append(shaper.push(reference[80:]))
    assert_within_limits(g1, np.concatenate(path))
    np.testing.assert_allclose(path[-1][-20:], reference[-20:], atol=1e-9)


def test_clamps_of_every_kind_are_counted(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1, blend_s=0.0)
    shaper.push(smooth(g1, 8))
    before = shaper.window(4).positions.copy()
    shaper.push(np.where(np.arange(12)[:, None] % 6 < 3, g1.model.lower - 1, g1.model.upper + 1))
    counts = shaper.counts
    assert len(before) and min(counts.position_clamps, counts.velocity_clamps) > 0
    assert min(counts.acceleration_clamps, counts.jerk_clamps) > 0


def test_a_braking_tail_ends_at_rest_inside_the_limits(g1: Robot) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        velocity = g1.velocity_limits * generator.uniform(-0.3, 0.3, g1.model.joint_count)
        middle = 0.5 * (g1.lower + g1.upper)
        positions, velocities = TrajectoryShaper(g1).braking_tail(middle, velocity)
        path = np.concatenate([(middle - velocity / RATE)[None], middle[None], positions])
        assert (velocities[-1] == 0).all()
        assert (positions >= g1.lower).all() and (positions <= g1.upper).all()
        speed = np.abs(np.diff(path, axis=0))
        assert (np.diff(speed, axis=0) <= ROUNDING).all()  # never faster again


def test_an_emergency_stop_recalls_frames_and_brakes_at_once(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1)
    planned = shaper.push(smooth(g1, 60))
    shaper.window(28)
    shaper.stop(after_index=30)
    window = shaper.window(30)
    assert shaper.is_stopped and window.committed == 0 and len(window) < 12
    path = np.concatenate([planned[:30], window.positions])
    assert_within_limits(g1, path)
    assert (window.velocities[-1] == 0).all()


def test_a_stop_stays_in_force_until_it_is_reset(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1, blend_s=0.3)
    path = [*shaper.push(smooth(g1, 30))]
    shaper.stop(after_index=29)
    for refused in (lambda: shaper.push(smooth(g1, 4)), lambda: shaper.start_from(g1.standing)):
        with pytest.raises(ParameterError, match="emergency stop"):
            refused()
    path.extend(shaper.hold(10))
    shaper.reset()
    path.extend(shaper.push(smooth(g1, 60)))
    assert_within_limits(g1, np.array(path))
    np.testing.assert_allclose(path[-10:], smooth(g1, 60)[-10:], atol=1e-9)


def test_a_stop_before_anything_is_planned_is_harmless(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1)
    shaper.stop(after_index=0)
    shaper.reset()
    assert len(shaper.push(smooth(g1, 4))) == 4


def test_speed_scales_the_velocity_limits_and_may_change_on_the_way(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1, speed=0.2, blend_s=0.0)
    far = np.where(g1.standing > 0.5 * (g1.lower + g1.upper), g1.lower, g1.upper)
    shaper.start_from(g1.standing)
    assert_within_limits(g1, np.concatenate([g1.standing[None], slow := shaper.push(np.tile(far, (10, 1)))]), speed=0.2)
    shaper.speed = 1.0
    fast = shaper.push(np.tile(far, (4, 1)))
    shaper.speed = 0.1
    late = shaper.push(np.tile(far, (20, 1)))
    assert_within_limits(g1, np.concatenate([slow, fast, late]))
    assert (np.abs(np.diff(late[10:], axis=0)) * RATE <= g1.velocity_limits * (0.1 + ROUNDING)).all()


@pytest.mark.parametrize("keywords", [{"frame_rate": 0}, {"speed": -0.1}, {"speed": 1.5}, {"blend_s": -1}], ids=str)
def test_parameters_outside_their_range_are_refused(g1: Robot, keywords: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(keywords))):
        TrajectoryShaper(g1, **keywords)


def test_frames_that_are_not_planned_or_long_executed_are_refused(g1: Robot) -> None:
    shaper = TrajectoryShaper(g1)
    with pytest.raises(ParameterError, match="frame 0 is not in the plan"):
        shaper.window(0)
    with pytest.raises(ParameterError, match="no posture"):
        shaper.hold()
    shaper.push(smooth(g1, 20))
    shaper.window(10)
    for index in (9, 20):
        with pytest.raises(ParameterError, match="holds frames 10 to 19"):
            shaper.window(index)


def test_inputs_are_not_written_to_and_outputs_are_the_callers_own(g1: Robot) -> None:
    shaper, chunk, measured = TrajectoryShaper(g1), smooth(g1, 8), g1.standing.copy()
    shaper.start_from(measured)
    before = chunk.copy()
    planned = shaper.push(chunk)
    np.testing.assert_array_equal(chunk, before)
    planned += 1.0
    measured += 1.0
    np.testing.assert_array_equal(shaper.window(0).positions[0], g1.standing)
    assert np.abs(shaper.window(0).positions[1] - planned[0]).min() > 0.9


def test_cubics_between_the_points_stay_inside_the_limits(g1: Robot) -> None:
    """What a joint trajectory controller makes of a window: positions and velocities joined by cubic splines."""
    generator = np.random.default_rng(0)
    shaper, s = TrajectoryShaper(g1, blend_s=0.0), np.linspace(0.0, 1.0, 21)[:, None, None]
    weights = 2 * s**3 - 3 * s**2 + 1, s**3 - 2 * s**2 + s, 3 * s**2 - 2 * s**3, s**3 - s**2
    rates = 6 * s**2 - 6 * s, 3 * s**2 - 4 * s + 1, 6 * s - 6 * s**2, 3 * s**2 - 2 * s
    nearest, largest = np.inf, -np.inf
    for target in generator.uniform(g1.lower, g1.upper, (40, 1, g1.model.joint_count)):
        side = generator.choice([-1.0, 0.0, 1.0], g1.model.joint_count)  # at a limit, or anywhere
        end = np.where(side == 0, target, np.where(side > 0, g1.upper, g1.lower))
        shaper.push(np.repeat(end, int(generator.integers(2, 12)), axis=0))
        window = shaper.window(max(shaper.end_index - 14, 0))
        ends = window.positions[:-1], window.velocities[:-1] / RATE, window.positions[1:], window.velocities[1:] / RATE
        q = sum(weight * end for weight, end in zip(weights, ends, strict=True))
        v = sum(rate * end for rate, end in zip(rates, ends, strict=True)) * RATE
        nearest = min(nearest, (q - g1.lower).min(), (g1.upper - q).min())
        excess = (np.abs(v) - g1.velocity_limits) / (g1.acceleration_limits / RATE)
        largest = max(largest, excess.max())
    assert nearest >= -1e-9
    assert largest <= 0.25 + 1e-9


def test_at_a_speed_of_zero_the_first_chunk_moves_nothing_either(g1: Robot) -> None:
    reference = g1.standing + np.linspace(0.0, 0.3, 40)[:, None]
    planned = TrajectoryShaper(g1, speed=0.0).push(reference)
    assert np.ptp(planned, axis=0).max() == 0.0


def test_the_largest_number_there_is_may_be_a_limit(g1: Robot) -> None:
    """Descriptions that were converted have it where there was no limit; its square is infinite."""
    largest = np.full(g1.model.joint_count, np.finfo(np.float64).max)
    robot = replace(g1, velocity_limits=largest)
    shaper, generator = TrajectoryShaper(robot, blend_s=0.0), np.random.default_rng(0)
    shaper.start_from(robot.standing)
    q = np.concatenate([shaper.push(generator.uniform(robot.lower, robot.upper, (4, len(largest)))) for _ in range(10)])
    assert np.isfinite(q).all() and (q >= robot.lower).all() and (q <= robot.upper).all()
    assert (np.abs(np.diff(q, n=2, axis=0)) * 900 <= robot.acceleration_limits * (1 + 1e-6)).all()
