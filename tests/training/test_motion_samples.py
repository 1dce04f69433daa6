from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import DatasetError, ParameterError
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.sequence import MotionPart, TextPart
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.motion_data import LatentClip
from llamo_ros.training.motion_samples import TASKS, MotionSample, SampleDrawer, TaskMix


def clip(key: str, content: str, style: str, length: int, mirrored: bool = False, other_speeds: bool = False):
    side = "left" if mirrored else "right"
    latents = torch.full((length, 8), float(len(key) + 10 * mirrored)) + torch.arange(length)[:, None] / 100
    words = (f"a person waves the {side} hand",)
    speeds = {"slower": latents.repeat(2, 1), "faster": latents[::2]} if other_speeds else {}
    return LatentClip(words, content, style, "bandai", True, key, mirrored, latents=latents, **speeds)


CLIPS = [
    clip("a", "wave-right-hand", "normal", 12, other_speeds=True),
    clip("a", "wave-left-hand", "normal", 12, mirrored=True),
    clip("bb", "wave-right-hand", "elderly", 20),
    clip("ccc", "wave-right-hand", "normal", 14),
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["a person waves the left hand", "now slower, please do it again"] * 5, 300)


def drawer(tokenizer: TextTokenizer, clips: list[LatentClip] = CLIPS, **mix) -> SampleDrawer:
    return SampleDrawer(Llamo(preset("tiny")), tokenizer, clips, TaskMix(**mix))


def drawn(tokenizer: TextTokenizer, task: str, count: int = 60) -> list[MotionSample]:
    only = drawer(tokenizer, shares={task: 1.0}, text_drop=0.0)
    rng = np.random.default_rng(0)
    return [sample for _ in range(count // 4) for sample in only.draw(4, rng)]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_sequences_with_one_thing_to_make_at_the_end(tokenizer: TextTokenizer, task: str) -> None:
    for sample in drawn(tokenizer, task):
        assert sample.task == task
        last = sample.parts[-1]
        assert last.is_target
        assert isinstance(last, TextPart) == (task == "motion_to_text")
        given = [part for part in sample.parts[:-1] if isinstance(part, MotionPart)]
        counts = {"prediction": 1, "in_between": 2, "motion_to_text": 1, "next_turn": 1}
        assert len(given) == counts.get(task, "follow_up" in task)
        assert all(part.is_target == (task.startswith("follow_up") or task == "next_turn") for part in given)


@pytest.mark.parametrize(("task", "begin"), [("prediction", 0.4), ("in_between", 0.2)])
def test_completions_give_the_ends_of_a_motion_and_ask_for_the_rest(
    tokenizer: TextTokenizer, task: str, begin: float
) -> None:
    lengths = {len(clip.latents) for clip in CLIPS}
    for sample in drawn(tokenizer, task):
        motions = [part.latents for part in sample.parts if isinstance(part, MotionPart)]
        total = sum(map(len, motions))
        assert total in lengths
        assert len(motions[0]) == round(begin * total)
        start, end, target = motions if task == "in_between" else (motions[0], motions[0][:0], motions[1])
        whole = torch.cat([start, target, end])
        assert torch.allclose(whole.diff(dim=0), torch.tensor(0.01), atol=1e-5), "the parts are one motion in order"


def test_the_other_side_is_the_mirror_image_and_slower_is_longer(tokenizer: TextTokenizer) -> None:
    for sample in drawn(tokenizer, "follow_up_mirrored"):
        first, second = (part.latents for part in sample.parts if isinstance(part, MotionPart))
        assert abs(first[0, 0] - second[0, 0]).item() == pytest.approx(10.0)
    for sample in drawn(tokenizer, "follow_up_slower"):
        first, second = (part.latents for part in sample.parts if isinstance(part, MotionPart))
        assert len(second) == 2 * len(first)


def test_a_motion_that_another_prompt_breaks_off_does_not_end(tokenizer: TextTokenizer) -> None:
    cut = whole = 0
    for sample in drawn(tokenizer, "next_turn", 120):
        first, second = (part for part in sample.parts if isinstance(part, MotionPart))
        assert second.ends
        is_whole = any(torch.equal(first.latents, clip.latents) for clip in CLIPS)
        assert first.ends == is_whole
        cut, whole = cut + (not is_whole), whole + is_whole
    assert min(cut, whole) > 20


def test_tasks_have_the_shares_asked_for(tokenizer: TextTokenizer) -> None:
    shares = {"text_to_motion": 0.5, "motion_to_text": 0.3, "prediction": 0.2}
    mixed, rng = drawer(tokenizer, shares=shares), np.random.default_rng(0)
    counts = Counter(mixed.draw(1, rng)[0].task for _ in range(2000))
    for task, share in shares.items():  # the standard error of a share of 2,000 draws is at most 0.011
        assert counts[task] / 2000 == pytest.approx(share, abs=0.05)


# Of 204 clips one has other speeds and one a style with words; the four of a hand with a side are the only pairs.
RARE = [*CLIPS, *(clip(f"plain {n}", "", "", 8 + n % 30) for n in range(200))]


@pytest.mark.parametrize("count", [1, 4])
def test_tasks_that_few_clips_fit_have_the_shares_asked_for(tokenizer: TextTokenizer, count: int) -> None:
    shares = {"text_to_motion": 0.4, "text_to_motion_style": 0.1, "motion_to_text": 0.2, "prediction": 0.1}
    shares |= {"follow_up_slower": 0.1, "follow_up_mirrored": 0.1}
    mixed, rng = drawer(tokenizer, RARE, shares=shares), np.random.default_rng(0)
    steps = 1500 // count
    counts = Counter(sample.task for _ in range(steps) for sample in mixed.draw(count, rng))
    for task, share in shares.items():  # samples of one step are alike, so at worst they count as one
        error = np.sqrt(share * (1 - share) / steps)
        assert counts[task] / (steps * count) == pytest.approx(share, abs=4 * error), task


def test_as_many_prompts_are_empty_in_a_task_that_few_clips_fit(tokenizer: TextTokenizer) -> None:
    styled = drawer(tokenizer, RARE, shares={"text_to_motion_style": 1.0}, text_drop=0.1)
    rng = np.random.default_rng(0)
    samples = [styled.draw(1, rng)[0] for _ in range(500)]  # standard error 0.013
    assert np.mean([sample.parts[0].ids == () for sample in samples]) == pytest.approx(0.1, abs=0.05)


def test_the_share_of_a_task_that_no_clip_fits_falls_to_the_others_with_one_warning(tokenizer: TextTokenizer) -> None:
    shares = {"text_to_motion": 0.6, "follow_up_mirrored": 0.3, "follow_up_slower": 0.1}
    mixed, rng = drawer(tokenizer, CLIPS[2:], shares=shares), np.random.default_rng(0)
    with pytest.warns(UserWarning) as caught:
        assert {sample.task for sample in mixed.draw(8, rng)} == {"text_to_motion"}
    texts = sorted(str(warning.message) for warning in caught)
    assert [text.split(" of the samples")[0] for text in texts] == [
        "no training clip fits the task follow_up_mirrored: its share of 0.3",
        "no training clip fits the task follow_up_slower: its share of 0.1",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            assert {sample.task for sample in mixed.draw(2, rng)} == {"text_to_motion"}


def test_a_task_that_next_to_no_draw_fits_is_named(tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamo_ros.training.motion_samples.MOST_TRIES", 2)
    long = [clip("long", "", "", 5000)]  # a crop of it says no duration unless it ends with the motion
    with pytest.raises(DatasetError, match="2 clips were drawn for the task text_to_motion_duration"):
        drawer(tokenizer, long, shares={"text_to_motion_duration": 1.0}).draw(4, np.random.default_rng(0))


@pytest.mark.parametrize("task", TASKS)
def test_clips_that_are_left_out_of_a_task_are_those_that_never_make_a_sequence(
    tokenizer: TextTokenizer, task: str
) -> None:
    odd = [clip("short", "wave-right-hand", "elderly", 5), clip("dddd", "bow", "elderly", 70, other_speeds=True)]
    odd += [clip("e", "bow", "normal", 30), clip("none", "", "", 39), clip("ff", "bow", "odd", 38, other_speeds=True)]
    mixed, rng = drawer(tokenizer, [*CLIPS, *odd]), np.random.default_rng(0)
    for one in (*CLIPS, *odd):
        made = any(mixed._parts_of(one, task, rng) is not None for _ in range(300))
        assert mixed._fits(task, one) == made, one.key


def test_some_prompts_are_empty_for_guidance(tokenizer: TextTokenizer) -> None:
    dropping, rng = drawer(tokenizer, shares={"text_to_motion": 1.0}, text_drop=0.3), np.random.default_rng(0)
    samples = [dropping.draw(1, rng)[0] for _ in range(1000)]
    assert np.mean([sample.parts[0].ids == () for sample in samples]) == pytest.approx(0.3, abs=0.06)


def test_everything_follows_from_the_generator(tokenizer: TextTokenizer) -> None:
    mixed = drawer(tokenizer, shares=dict.fromkeys(TASKS, 1.0))
    for seed in range(5):
        first, second = (mixed.draw(6, np.random.default_rng(seed)) for _ in range(2))
        assert [(s.task, s.seed) for s in first] == [(s.task, s.seed) for s in second]
        for one, other in zip(first, second, strict=True):
            for part, same in zip(one.parts, other.parts, strict=True):
                assert part == same if isinstance(part, TextPart) else torch.equal(part.latents, same.latents)


def test_a_motion_that_is_cut_short_does_not_end(tokenizer: TextTokenizer) -> None:
    short, rng = drawer(tokenizer, shares={"text_to_motion": 1.0}, max_latents=5), np.random.default_rng(0)
    for _ in range(50):
        motion = short.draw(1, rng)[0].parts[-1]
        assert len(motion.latents) == 5
        last = motion.latents[-1]
        assert motion.ends == any(torch.allclose(last, clip.latents[-1]) for clip in CLIPS)


def test_captions_that_are_too_long_are_not_learned_in_part(tokenizer: TextTokenizer) -> None:
    long = replace(CLIPS[0], captions=(" ".join(["a person waves the left hand"] * 40),))
    captioning = drawer(tokenizer, [long, CLIPS[1]], shares={"motion_to_text": 1.0})
    rng = np.random.default_rng(0)
    written = {captioning.draw(1, rng)[0].parts[-1].ids for _ in range(40)}
    assert written == {tuple(tokenizer.encode(CLIPS[1].captions[0]))}


def test_what_cannot_be_drawn_is_named(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ParameterError, match="juggle"):
        TaskMix(shares={"juggle": 1.0})
    with pytest.raises(ParameterError, match="all zero"):
        TaskMix(shares={"prediction": 0.0})
    with pytest.raises(DatasetError, match="follow_up_mirrored"):
        drawer(tokenizer, CLIPS[2:], shares={"follow_up_mirrored": 1.0}).draw(1, np.random.default_rng(0))
    unworded = [LatentClip((), "bow", "", "bandai", False, "x", latents=torch.zeros(5, 8))]
    with pytest.raises(DatasetError, match="caption"):
        drawer(tokenizer, unworded)


def test_clips_without_words_are_learned_without_words(tokenizer: TextTokenizer) -> None:
    wordless = [LatentClip((), "", "", "mine", False, f"w{n}", latents=torch.full((15, 8), -1.0)) for n in range(9)]
    shares = {task: 1.0 for task in TASKS if not task.startswith("follow_up")}
    mixed, rng = drawer(tokenizer, CLIPS + wordless, shares=shares), np.random.default_rng(0)
    without = Counter()
    for sample in (mixed.draw(1, rng)[0] for _ in range(400)):
        if any(isinstance(part, MotionPart) and (part.latents == -1.0).any() for part in sample.parts):
            without[sample.task] += 1
    assert set(without) == {"unconditional", "prediction", "in_between"}
