from __future__ import annotations

from collections import Counter

import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.training.splits import SplitShares, split_of, takes_in_several_splits


def test_takes_are_shared_out_as_asked() -> None:
    counts = Counter(split_of(f"take {number}", SplitShares(0.8, 0.15, 0.05)) for number in range(20_000))
    # Binomial: four standard deviations of the largest share are 1.2 %.
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.012)
    assert counts["val"] / 20_000 == pytest.approx(0.15, abs=0.012)
    assert counts["test"] / 20_000 == pytest.approx(0.05, abs=0.012)


def test_a_take_keeps_its_split_on_every_machine() -> None:
    shares = SplitShares(0.5, 0.25, 0.25)
    expected = ["test", "val", "train", "val", "train", "train"]
    assert [split_of(f"KIT/3/kick_{number}", shares) for number in range(6)] == expected


def test_a_larger_training_share_only_adds_takes_to_it() -> None:
    small, large = SplitShares(0.5, 0.25, 0.25), SplitShares(0.7, 0.15, 0.15)
    for number in range(500):
        if split_of(str(number), small) == "train":
            assert split_of(str(number), large) == "train"


def test_another_seed_shares_takes_out_differently() -> None:
    one, other = (
        [split_of(str(number), SplitShares(0.5, 0.25, 0.25, seed=seed)) for number in range(100)] for seed in (0, 1)
    )
    assert one != other


@pytest.mark.parametrize(("shares", "expected"), [((1, 0, 0), "train"), ((0, 1, 0), "val"), ((0, 0, 1), "test")])
def test_a_share_of_everything_or_nothing_is_just_that(shares: tuple[float, ...], expected: str) -> None:
    assert {split_of(str(number), SplitShares(*shares)) for number in range(200)} == {expected}


@pytest.mark.parametrize("shares", [(0.9, 0.2, 0.1), (1.1, -0.1, 0.0), (float("nan"), 0.5, 0.5), (0.5, 0.2, 0.2)])
def test_shares_that_are_no_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match="add to 1"):
        SplitShares(*shares)


def test_a_take_in_two_splits_is_named() -> None:
    rows = [
        {"trial": "walk", "split": "train"},
        {"trial": "walk", "split": "train"},
        {"trial": "run", "split": "val"},
        {"trial": "run", "split": "train"},
        {"split": "test"},
        {"split": "train"},
    ]
    assert takes_in_several_splits(rows) == {"run": ("train", "val")}
