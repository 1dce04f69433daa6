"""Any reference, at any limits: what comes out keeps them, and what keeps them comes out unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.retarget.path_limiter import PathLimiter

RATE = 30.0
GROUPS = 120  # each with limits of its own


def limits_of(generator: np.random.Generator, groups: int = GROUPS) -> tuple[np.ndarray, ...]:
    """Ranges from narrow to wide, and jerks from hardly any to unlimited."""
    lower = -generator.uniform(0.1, 3.0, groups)
    upper = generator.uniform(0.1, 3.0, groups)
    velocity, acceleration = generator.uniform(2.0, 16.0, groups), generator.uniform(30.0, 250.0, groups)
    jerk = acceleration * RATE * 10.0 ** generator.uniform(-1.3, 0.5, groups)
    return lower, upper, velocity, acceleration, jerk


def adversarial(generator: np.random.Generator, kind: int, frames: int, last: np.ndarray, limits: tuple) -> np.ndarray:
    lower, upper, velocity = limits[:3]
    if kind == 0:  # noise far over the limits
        return generator.uniform(lower - 1, upper + 1, (frames, len(last)))
    if kind == 1:  # a square wave between the limits
        return np.where((np.arange(frames)[:, None] + generator.integers(0, 9, len(last))) % 9 < 4, lower, upper)
    if kind == 2:  # a jump, then standstill
        return np.tile(generator.uniform(lower, upper), (frames, 1))
    if kind == 3:  # straight on, faster than is allowed
        side = generator.choice([-1.3, -0.6, 0.6, 1.3], len(last)) * velocity / RATE
        return last + side * np.arange(1, frames + 1)[:, None]
    return last + np.cumsum(generator.normal(0.0, 0.1, (frames, len(last))), axis=0)  # a random walk


def excesses(path: np.ndarray, limits: tuple, width: int = 1) -> list[float]:
    """Largest velocity, acceleration and jerk as a share of the limits."""
    shares, differences = [], path
    for limit in limits[2:]:
        differences = np.diff(differences, axis=0) * RATE
        lengths = np.linalg.norm(differences.reshape(len(differences), -1, width), axis=-1)
        shares.append(float((lengths / limit).max()))
    return shares


@pytest.mark.parametrize("seed", range(4))
def test_no_reference_breaks_any_limit(seed: int) -> None:
    """4 x 120 joints of random limits, over 120,000 frames of joints together, with stops and brakes at any frame."""
    generator = np.random.default_rng(seed)
    limits = limits_of(generator)
    limiter = PathLimiter(*limits, RATE)
    limiter.start(np.zeros(GROUPS))
    path = [np.zeros((3, GROUPS))]
    while sum(map(len, path)) < 260:
        frames = int(generator.integers(1, 9))
        path.append(limiter.follow(adversarial(generator, int(generator.integers(5)), frames, path[-1][-1], limits)))
        if generator.random() < 0.15:
            path.append(limiter.brake(int(generator.integers(1, 12))))
        if generator.random() < 0.15:  # a stop: frames are recalled, and braked from there
            whole = np.concatenate(path)
            cut = len(whole) - int(generator.integers(1, 4))
            limiter.resume(whole[:cut], np.concatenate([whole[cut:], limiter.way_to_rest()]))
            path = [whole[:cut], limiter.brake(2)]
    whole = np.concatenate(path)
    assert (whole >= limits[0]).all() and (whole <= limits[1]).all()
    assert max(excesses(whole, limits)) <= 1 + 1e-6  # third differences of rounded numbers
    counts = limiter.counts
    assert min(counts.position, counts.velocity, counts.acceleration, counts.jerk) > 100


@pytest.mark.parametrize("seed", range(2))
def test_from_every_frame_there_is_a_way_to_rest_inside_all_limits(seed: int) -> None:
    generator = np.random.default_rng(50 + seed)
    limits = limits_of(generator)
    limiter = PathLimiter(*limits, RATE)
    limiter.start(np.zeros(GROUPS))
    path = np.zeros((3, GROUPS))
    for _ in range(80):
        chunk = adversarial(generator, int(generator.integers(5)), int(generator.integers(1, 6)), path[-1], limits)
        path = np.concatenate([path, limiter.follow(chunk)])
        way = limiter.way_to_rest()
        rest = np.concatenate([path[-3:], way, np.tile(way[-1], (3, 1))])
        assert (rest >= limits[0]).all() and (rest <= limits[1]).all()
        assert max(excesses(rest, limits)) <= 1 + 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_limits_of_a_vector_hold_for_its_length(seed: int) -> None:
    generator = np.random.default_rng(seed)
    free, limits = np.full(60, np.inf), tuple(limit[:20] for limit in limits_of(generator)[2:])
    limiter = PathLimiter(-free, free, *limits, RATE, width=3)
    limiter.start(np.zeros(60))
    path = [np.zeros((3, 60))]
    for _ in range(60):
        wish = path[-1][-1] + np.cumsum(generator.normal(0.0, generator.choice([0.02, 0.5]), (4, 60)), axis=0)
        path.append(limiter.follow(wish))
        if generator.random() < 0.1:
            path.append(limiter.brake(5))
    assert max(excesses(np.concatenate(path), (None, None, *limits), width=3)) <= 1 + 1e-6


@pytest.mark.parametrize("chunk", [1, 3, 4, 64])
def test_a_reference_inside_the_limits_is_followed_to_the_bit(chunk: int) -> None:
    """Sines that use 85 % of one limit each and come to 1 % of the range from the position limits."""
    generator = np.random.default_rng(0)
    lower, upper, velocity, acceleration, jerk = limits_of(generator)
    velocity, acceleration, jerk = velocity * 2, acceleration * 2, np.maximum(jerk, acceleration * RATE)
    middle, amplitude = 0.5 * (lower + upper), 0.49 * (upper - lower)
    rates = np.stack([velocity / amplitude, np.sqrt(acceleration / amplitude), np.cbrt(jerk / amplitude)])
    rate = np.minimum(0.85 * rates.min(axis=0), 8.0)
    time = np.arange(360)[:, None] / RATE
    x = np.minimum(time / 8.0, 1.0)
    start = x**3 * (10 - 15 * x + 6 * x * x)  # from rest
    reference = middle + amplitude * start * np.sin(rate * time)
    assert max(excesses(np.concatenate([np.tile(middle, (3, 1)), reference]), (0, 0, velocity, acceleration, jerk))) < 1
    limiter = PathLimiter(lower, upper, velocity, acceleration, jerk, RATE)
    limiter.start(middle)
    limiter.follow(reference[:1])
    path = [limiter.follow(reference[k : k + chunk]) for k in range(1, len(reference), chunk)]
    np.testing.assert_array_equal(np.concatenate(path), reference[1:])


def test_a_step_is_caught_up_with_and_never_overshot() -> None:
    generator = np.random.default_rng(0)
    limits = limits_of(generator)
    limiter, goal = PathLimiter(*limits, RATE), generator.uniform(*limits[:2])
    limiter.start(np.zeros(GROUPS))
    path = limiter.follow(np.tile(goal, (400, 1)))
    np.testing.assert_allclose(path[-1], goal, atol=1e-12)
    assert ((path - goal) * np.sign(goal)).max() <= 1e-12
    assert (np.diff(path * np.sign(goal), axis=0) >= -1e-12).all()


def test_the_speed_may_change_at_any_frame() -> None:
    generator = np.random.default_rng(3)
    limits = limits_of(generator)
    limiter = PathLimiter(*limits, RATE)
    limiter.start(np.zeros(GROUPS))
    path, allowed = [np.zeros((3, GROUPS))], [np.ones(3)]
    for _ in range(100):
        if generator.random() < 0.3:
            limiter.speed = float(generator.choice([0.02, 0.2, 0.6, 1.0]))
        chunk = adversarial(generator, int(generator.integers(5)), 4, path[-1][-1], limits)
        path.append(limiter.follow(chunk))
        allowed.append(np.full(4, limiter.speed))
    whole, speed = np.concatenate(path), np.concatenate(allowed)
    assert (whole >= limits[0]).all() and (whole <= limits[1]).all()
    assert max(excesses(whole, limits)) <= 1 + 1e-6
    velocity = np.abs(np.diff(whole, axis=0)) * RATE / limits[2]
    over = velocity > speed[1:, None] * (1 + 1e-9)
    faster = np.diff(velocity, axis=0) > 1e-9
    settled = np.array([speed[max(0, k - 90) : k + 1].max() for k in range(len(speed))])  # the slowest brakes for 3 s
    assert (velocity <= settled[1:, None] * (1 + 1e-9)).all()
    assert (over[1:] & faster).mean() < 0.01  # while too fast, speeds fall
