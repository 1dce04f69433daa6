from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from llamo_ros.training.captions import Paraphrases
from llamo_ros.training.motion_data import FAMILIES, SEGMENT_SHARES, SHARES, BalancedSampler, PromptDrawer, WordedClip


def clips(source: str, **counts: int) -> list[WordedClip]:
    return [
        WordedClip((f"a person does {label}",), label.replace("_", "-"), "", source, True)
        for label, count in counts.items()
        for _ in range(count)
    ]


def drawn_shares(sampler: BalancedSampler, draws: int = 20_000) -> dict[str, float]:
    rng = np.random.default_rng(0)
    counts = Counter(sampler.draw(rng).content for _ in range(draws))
    return {label: count / draws for label, count in counts.items()}


def test_every_family_of_contents_has_its_share_whatever_it_counts() -> None:
    many = {"raise_up_left_hand": 160, "raise_up_right_hand": 10, "bow": 2, "walk_back": 5, "slash": 1}
    shares = drawn_shares(BalancedSampler(clips("bandai", **many), {"bandai": 1.0}))
    # Four families, that of raises with 1.5 times the share; 20,000 draws have a standard error of 0.004.
    raises = shares["raise-up-left-hand"] + shares["raise-up-right-hand"]
    assert raises == pytest.approx(1.5 / 4.5, abs=0.015)
    for share in (shares["bow"], shares["walk-back"], shares["slash"]):
        assert share == pytest.approx(1.0 / 4.5, abs=0.015)
    # 16 times as many clips of a label in the same family: twice the share.
    assert shares["raise-up-left-hand"] / shares["raise-up-right-hand"] == pytest.approx(2.0, rel=0.15)


def test_sources_get_the_shares_asked_for_and_no_other_is_drawn() -> None:
    everything = clips("bandai", bow=3) + clips("segment", stand=4, jump=1) + clips("cmu_trial", other=50)
    shares = drawn_shares(BalancedSampler(everything, {"bandai": 0.4, "segment": 0.6}))
    assert shares["bow"] == pytest.approx(0.4, abs=0.02)
    expected = 0.6 * SEGMENT_SHARES["jump"] / (SEGMENT_SHARES["jump"] + SEGMENT_SHARES["stand"])
    assert shares["jump"] == pytest.approx(expected, abs=0.02)
    assert "other" not in shares


def test_draws_of_some_clips_keep_their_proportions() -> None:
    many = clips("bandai", raise_up_left_hand=160, raise_up_right_hand=10, bow=2, walk_back=5)
    whole = BalancedSampler(many, {"bandai": 1.0})
    part = whole.only(lambda clip: clip.content != "bow" and clip.content != "walk-back")
    assert part is not None
    assert drawn_shares(part)["raise-up-left-hand"] == pytest.approx(2 / 3, abs=0.015)
    assert whole.only(lambda clip: clip.content == "jump") is None
    assert "bow" in drawn_shares(whole), "the sampler it comes from draws as before"


def test_shares_are_whole_and_families_are_known_labels() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)
    assert sum(SEGMENT_SHARES.values()) == pytest.approx(1.0)
    paraphrases = Paraphrases()
    assert all(paraphrases.knows(label) for labels in FAMILIES for label in labels)


def test_a_part_without_captions_is_always_worded_by_its_label() -> None:
    part = WordedClip((), "turn-left", "", "segment", False)
    rng = np.random.default_rng(0)
    texts = {PromptDrawer().draw(part, rng) for _ in range(200)}
    assert len(texts) > 3
    assert all("left" in text for text in texts)
