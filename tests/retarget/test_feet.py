"""Which foot stands."""

from __future__ import annotations

import numpy as np

from llamo_ros.retarget.feet import ANKLE_ABOVE_TOE, ContactEstimator, FootContacts

RATE = 30.0


def feet(toes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level feet: ankles above and behind the toes (T, F, 3)."""
    return toes + [-0.12, 0.0, ANKLE_ABOVE_TOE], toes


def standing(frames: int, height: float = 0.0) -> np.ndarray:
    return np.tile([[0.0, 0.1, height], [0.0, -0.1, height]], (frames, 1, 1))


def estimate(toes: np.ndarray) -> FootContacts:
    return ContactEstimator().update(*feet(toes), RATE)


def test_still_feet_on_the_floor_are_planted_at_once() -> None:
    contacts = estimate(standing(5))
    assert contacts.planted.all() and (contacts.weights == 1).all() and (contacts.clearances == 0).all()


def test_a_floor_that_is_off_by_centimetres_makes_no_difference() -> None:
    for height in (-0.05, 0.04):
        assert estimate(standing(5, height)).planted.all()


def test_a_lifted_foot_swings_and_the_other_one_stands() -> None:
    toes = standing(5)
    toes[:, 0, 2] = 0.15
    contacts = estimate(toes)
    assert not contacts.planted[:, 0].any() and contacts.planted[:, 1].all()


def test_a_foot_that_moves_fast_along_the_floor_does_not_stand() -> None:
    toes = standing(6)
    toes[:, 0, 0] += np.arange(6) / RATE * 1.0  # 1 m/s
    contacts = estimate(toes)
    assert not contacts.weights[1:, 0].any() and contacts.planted[:, 1].all()


def test_a_jump_is_as_high_as_it_is() -> None:
    toes = standing(30)
    toes[10:20, :, 2] = 0.3
    clearances = estimate(toes).clearances
    assert not clearances[:10].any()
    np.testing.assert_allclose(clearances[10:20], 0.28, atol=0.02)  # less a slack of 1 cm and a floor that creeps up
    assert not clearances[20:].any()


def test_a_foot_on_its_toes_is_in_contact_but_not_planted() -> None:
    ankles, toes = feet(standing(5))
    ankles[..., 2] += 0.07
    contacts = ContactEstimator().update(ankles, toes, RATE)
    assert (contacts.weights == 1).all() and not contacts.planted.any() and not contacts.level.any()


def test_the_estimate_does_not_depend_on_where_the_stream_is_cut() -> None:
    generator = np.random.default_rng(0)
    toes = standing(40) + np.cumsum(generator.normal(0, 0.006, (40, 2, 3)), axis=0)
    whole, estimator = estimate(toes), ContactEstimator()
    parts = [estimator.update(*feet(part), RATE) for part in np.split(toes, [1, 5, 12, 30])]
    for name in ("weights", "level", "planted", "clearances"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_reset_forgets_the_past() -> None:
    estimator = ContactEstimator()
    estimator.update(*feet(standing(5, 0.03)), RATE)
    estimator.reset()
    after, fresh = estimator.update(*feet(standing(5)), RATE), estimate(standing(5))
    np.testing.assert_array_equal(after.weights, fresh.weights)
    np.testing.assert_array_equal(after.clearances, fresh.clearances)
