"""What a training step learns from: sequences of the paper's tasks, drawn from clips and instruction templates."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from llamo_ros.core.errors import DatasetError, ParameterError
from llamo_ros.model.config import LATENT_RATE
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.sequence import MotionPart, Part, TextPart
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.pipelines import instructions
from llamo_ros.training.captions import Paraphrases
from llamo_ros.training.motion_data import (
    DESCRIBABLE_SHARES,
    SHARES,
    BalancedSampler,
    LatentClip,
    PromptDrawer,
    shares_of,
    similar,
)

MAX_TEXT = 48
# Tasks of one group share steps: a plain batch has no text behind its motion, which makes its steps cheaper.
GROUPS = {
    "plain": ("text_to_motion", "text_to_motion_duration", "text_to_motion_style", "unconditional"),
    "caption": ("motion_to_text",),
    "interleaved": (
        "prediction",
        "in_between",
        "next_turn",
        "follow_up_slower",
        "follow_up_faster",
        "follow_up_mirrored",
        "follow_up_style",
        "follow_up_repeat",
    ),
}
TASKS = tuple(task for tasks in GROUPS.values() for task in tasks)
MOST_TRIES = 10_000
LEAST_COMPLETED = 10  # latents of a motion that is completed, with what is given of it
# Share of a motion that is given.
PREDICTION_GIVEN = 0.4
IN_BETWEEN_GIVEN = 0.2


@dataclass(frozen=True)
class TaskMix:
    """Which tasks are learned.

    Attributes:
        shares: Share of each task among drawn samples; those left out have none.
        text_drop: Share of prompts of the plain tasks replaced by the empty prompt, for guidance.
        bare: Share of prompts and captions that stand as they are; the others are put into a template.
        max_latents: Longer motions are cropped at random.
    """

    shares: Mapping[str, float] = field(default_factory=lambda: {"text_to_motion": 0.8, "motion_to_text": 0.2})
    text_drop: float = 0.1
    bare: float = 0.5
    max_latents: int = 60

    def __post_init__(self) -> None:
        unknown = sorted(set(self.shares) - set(TASKS))
        if unknown or not self.shares or min(self.shares.values()) < 0 or sum(self.shares.values()) <= 0:
            raise ParameterError(
                f"task shares {dict(self.shares)} are not usable ({', '.join(unknown) or 'all zero or negative'}). "
                f"Known tasks: {', '.join(TASKS)}."
            )


@dataclass(frozen=True)
class MotionSample:
    """One sequence to learn from.

    Attributes:
        task: One of ``TASKS``.
        parts: The sequence.
        seed: Of everything random in its losses.
    """

    task: str
    parts: tuple[Part, ...]
    seed: int


class SampleDrawer:
    """Draws steps of samples of similar length, all of one group of tasks; everything follows from the generator given.

    A task is drawn by its share, then a clip among those that fit it, in the proportions of all clips. So each task has
    its share, however few clips fit. Those of a task that no clip at all fits fall to the other tasks, with a warning.

    Raises:
        DatasetError: no clip has words.
    """

    def __init__(self, model: Llamo, tokenizer: TextTokenizer, clips: Sequence[LatentClip], mix: TaskMix) -> None:
        self._model, self._tokenizer, self._mix = model, tokenizer, mix
        self._instructions = instructions.Instructions.load()
        self._prompts, self._paraphrases = PromptDrawer(), Paraphrases()
        describable = [clip for clip in clips if clip.describable]
        if not describable:
            raise DatasetError("no training clip has a caption; pack data whose index has some.")
        worded = [clip for clip in clips if self._prompts.has_words(clip)]
        self._all = BalancedSampler(clips, shares_of(clips, SHARES))
        self._worded = BalancedSampler(worded, shares_of(worded, SHARES))
        self._describable = BalancedSampler(describable, shares_of(describable, DESCRIBABLE_SHARES))
        self._partners = _Partners(clips, self._paraphrases, mix.max_latents // 2 + 8)
        self._has_short = any(len(clip.latents) <= self._partners.most for clip in worded)
        shares = {task: share for task, share in mix.shares.items() if share > 0}
        self._groups = {
            name: {task: shares[task] for task in tasks if task in shares} for name, tasks in GROUPS.items()
        }

    def draw(self, count: int, rng: np.random.Generator) -> list[MotionSample]:
        """``count`` samples of similar length.

        Raises:
            DatasetError: no clip fits any task, or nearly none that of a task.
        """
        groups = {
            name: {task: share for task, share in tasks.items() if task in self._samplers}
            for name, tasks in self._groups.items()
        }
        tasks = groups[_drawn_group(groups, rng)]
        names, chances = list(tasks), np.array(list(tasks.values()))
        chances = chances / chances.sum()

        def one() -> MotionSample:
            task = str(rng.choice(names, p=chances))
            for _ in range(MOST_TRIES):  # another clip, never another task, or rare tasks would lose their share
                parts = self._parts_of(self._samplers[task].draw(rng), task, rng)
                if parts is not None:
                    return MotionSample(task, tuple(parts), int(rng.integers(2**62)))
            raise DatasetError(
                f"{MOST_TRIES} clips were drawn for the task {task} and none would do; give it no share."
            )

        return similar(one, count, _length, rng)

    @cached_property
    def _samplers(self) -> dict[str, BalancedSampler[LatentClip]]:
        """Of each task with a share: draws of the clips that fit it.

        Raises:
            DatasetError: no clip fits any of the tasks.
        """
        shares = {task: share for tasks in self._groups.values() for task, share in tasks.items()}
        wordless = dict.fromkeys(("unconditional", "prediction", "in_between"), self._all)  # these may go without words
        all_of = wordless | {"motion_to_text": self._describable}
        fitting = {task: all_of.get(task, self._worded).only(partial(self._fits, task)) for task in shares}
        samplers = {task: sampler for task, sampler in fitting.items() if sampler is not None}
        if not samplers:
            raise DatasetError(f"no training clip fits any of the tasks {', '.join(shares)}; give others a share.")
        for task in (task for task, sampler in fitting.items() if sampler is None):
            share = shares[task] / sum(shares.values())
            warnings.warn(
                f"no training clip fits the task {task}: its share of {share:.2g} of the samples falls to the others. "
                "Pack data that have such clips, or give it no share.",
                stacklevel=3,  # the property is read in draw
            )
        return samplers

    def _fits(self, task: str, clip: LatentClip) -> bool:
        """Whether there can be a sequence of this task and clip; a draw may still fail, of a caption or a crop."""
        if task == "motion_to_text":
            return any(len(self._tokenizer.encode(caption)) <= MAX_TEXT for caption in clip.captions)
        if task == "text_to_motion_style":
            return self._paraphrases.knows_how(clip.style) and self._paraphrases.knows(clip.content)
        if task in ("prediction", "in_between"):
            return min(len(clip.latents), self._mix.max_latents) >= LEAST_COMPLETED
        if task == "next_turn":
            return self._has_short
        if task.startswith("follow_up"):
            return self._partners.may(task, clip)
        return True

    def prompted(self, clip: LatentClip, text: str) -> list[Part]:
        """A prompt and its whole motion, for validation."""
        return [self._text(text), self._motion(clip.latents[: self._mix.max_latents])]

    def captioned(self, clip: LatentClip, text: str) -> list[Part]:
        """A motion and its caption, for validation."""
        return [self._motion(clip.latents[: self._mix.max_latents], is_target=False), self._text(text, is_target=True)]

    def of_clip(self, clip: LatentClip, group: str, rng: np.random.Generator) -> MotionSample:
        """A sample of a given clip, of a task of a group if one fits it, else plain; never a follow-up.

        A clip without any words that can be drawn is learned unconditionally.
        """
        tasks = {task: share for task, share in self._groups[group].items() if not task.startswith("follow_up")}
        names, shares = list(tasks), np.array(list(tasks.values()))
        order = list(rng.choice(names, len(names), replace=False, p=shares / shares.sum())) if names else []
        if group == "caption" and not clip.describable:
            order = []
        for task in (*order, "text_to_motion") if self._prompts.has_words(clip) else ():
            parts = self._parts_of(clip, str(task), rng)
            if parts is not None:
                return MotionSample(str(task), tuple(parts), int(rng.integers(2**62)))
        parts = self._parts_of(clip, "unconditional", rng)
        return MotionSample("unconditional", tuple(parts), int(rng.integers(2**62)))

    def draw_group(self, rng: np.random.Generator) -> str:
        """One of ``GROUPS``, each as likely as its tasks together."""
        return _drawn_group(self._groups, rng)

    def _parts_of(self, clip: LatentClip, task: str, rng: np.random.Generator) -> list[Part] | None:
        """A sequence of a task and a clip, or None if they do not go together."""
        if task == "motion_to_text":
            return self._captioning(clip, rng)
        if task.startswith("follow_up"):
            return self._follow_up(task, clip, rng)
        if task in ("prediction", "in_between"):
            return self._completion(task, clip, rng)
        if task == "next_turn":
            return self._next_turn(clip, self._worded.draw(rng), rng)
        return self._plain(task, clip, rng)

    def _plain(self, task: str, clip: LatentClip, rng: np.random.Generator) -> list[Part] | None:
        latents, complete = self._cropped(clip, rng)
        if task == "text_to_motion_duration" and not complete:
            return None
        style = self._paraphrases.how(clip.style, rng) if task == "text_to_motion_style" else None
        if task == "text_to_motion_style" and (style is None or not self._paraphrases.knows(clip.content)):
            return None
        motion = self._motion(latents, ends=complete)
        if rng.random() < self._mix.text_drop:  # of clips that fit: of all, most of a rare task would be without words
            return [self._text(""), motion]
        if task == "unconditional":
            return self._filled(self._instructions.draw(task, rng), {"target": motion})
        if task == "text_to_motion_style":
            words = self._paraphrases.draw(clip.content, "", rng)
        else:
            words = self._prompts.draw(clip, rng)
        drawn = self._instructions.draw(
            task,
            rng,
            caption=words,
            seconds=len(latents) / LATENT_RATE,
            style=style,
            canonical_share=self._mix.bare,
        )
        return self._filled(drawn, {"target": motion})

    def _captioning(self, clip: LatentClip, rng: np.random.Generator) -> list[Part] | None:
        ids = self._tokenizer.encode(str(rng.choice(clip.captions)))
        if len(ids) > MAX_TEXT:  # cut, it would teach to stop in the middle of a sentence
            return None
        motion = self._motion(self._cropped(clip, rng)[0], is_target=False)
        caption = TextPart(tuple(ids), is_target=True)
        drawn = self._instructions.draw("motion_to_text", rng, canonical_share=self._mix.bare)
        return [*self._filled(drawn, {"whole": motion}), caption]

    def _completion(self, task: str, clip: LatentClip, rng: np.random.Generator) -> list[Part] | None:
        latents, complete = self._cropped(clip, rng)
        count = len(latents)
        if count < LEAST_COMPLETED:
            return None
        is_told = rng.random() < 0.5 and self._prompts.has_words(clip)
        words = self._prompts.draw(clip, rng) if is_told else None
        begin = round((PREDICTION_GIVEN if task == "prediction" else IN_BETWEEN_GIVEN) * count)
        finish = count if task == "prediction" else count - begin
        motions = {
            "start": self._motion(latents[:begin], is_target=False),
            "end": self._motion(latents[finish:], is_target=False) if finish < count else None,
            "target": self._motion(latents[begin:finish], ends=complete or task == "in_between"),
        }
        return self._filled(self._instructions.draw(task, rng, caption=words), motions)

    def _next_turn(self, first: LatentClip, second: LatentClip, rng: np.random.Generator) -> list[Part] | None:
        """Any motion, broken off now and then, and behind it any other: a prompt that changes is to be followed."""
        most = self._partners.most
        if len(second.latents) > most:
            return None
        length = min(len(first.latents), most)
        kept = int(rng.integers(1, length + 1)) if rng.random() < 0.5 else length
        motion = self._motion(first.latents[:kept], ends=kept == len(first.latents))
        words = (self._text(self._prompts.draw(clip, rng)) for clip in (first, second))
        return [next(words), motion, next(words), self._motion(second.latents)]

    def _follow_up(self, task: str, clip: LatentClip, rng: np.random.Generator) -> list[Part] | None:
        partner = self._partners.of(task, clip, rng)
        most = self._partners.most
        if partner is None or len(clip.latents) > most or len(partner[0]) > most:
            return None
        second, style = partner
        how = self._paraphrases.how(style, rng)
        if task == "follow_up_style" and how is None:
            return None
        motions = {"previous": self._motion(clip.latents), "target": self._motion(second)}
        words = self._prompts.draw(clip, rng)
        return self._filled(self._instructions.draw(task, rng, caption=words, style=how), motions)

    def _filled(self, drawn: Sequence[instructions.Part], motions: Mapping[str, MotionPart | None]) -> list[Part]:
        """The words of a drawn template and the motions where their names stand."""
        parts: list[Part] = []
        for part in drawn:
            if isinstance(part, instructions.TextPart):
                parts.append(self._text(part.text))
            elif (motion := motions[part.name]) is not None:
                parts.append(motion)
        return parts

    def _text(self, text: str, is_target: bool = False) -> TextPart:
        return TextPart(tuple(self._tokenizer.encode(text)[:MAX_TEXT]), is_target)

    def _motion(self, latents: Tensor, is_target: bool = True, ends: bool = True) -> MotionPart:
        return MotionPart(self._model.normalise_latents(latents.to(self._model.latent_mean)).cpu(), is_target, ends)

    def _cropped(self, clip: LatentClip, rng: np.random.Generator) -> tuple[Tensor, bool]:
        """The latents to learn from, and whether the motion ends with the last of them."""
        most, length = self._mix.max_latents, len(clip.latents)
        if length <= most:
            return clip.latents, True
        from_start = clip.source != "cmu_trial" and rng.random() < 0.5
        offset = 0 if from_start else int(rng.integers(0, length - most + 1))
        return clip.latents[offset : offset + most], offset + most == length


class _Partners:
    """Second motions of follow-ups; each of the two motions has at most ``most`` latents."""

    def __init__(self, clips: Sequence[LatentClip], paraphrases: Paraphrases, most: int) -> None:
        self.most, self._paraphrases = most, paraphrases
        self._mirror = {(clip.key, clip.mirrored): clip for clip in clips if clip.key}
        self._takes: dict[tuple[str, bool], list[LatentClip]] = defaultdict(list)
        self._styles: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)  # of takes that are short enough
        for clip in clips:
            if clip.content and clip.key:
                self._takes[clip.content, clip.mirrored].append(clip)
                self._styles[clip.content, clip.mirrored][clip.style] += len(clip.latents) <= most

    def may(self, task: str, clip: LatentClip) -> bool:
        """Whether this clip may have a second motion, both of them short enough."""
        if len(clip.latents) > self.most:
            return False
        if task in ("follow_up_slower", "follow_up_faster"):
            latents = clip.slower if task == "follow_up_slower" else clip.faster
            return latents is not None and len(latents) <= self.most
        if task == "follow_up_mirrored":
            other = self._mirror.get((clip.key, not clip.mirrored))
            return other is not None and len(other.latents) <= self.most and _has_a_side(clip)
        styles = self._styles.get((clip.content, clip.mirrored), Counter())
        if task == "follow_up_repeat":
            return styles[clip.style] > (1 if clip.key else 0)  # another take than itself
        return any(
            count and style != clip.style and self._paraphrases.knows_how(style) for style, count in styles.items()
        )

    def of(self, task: str, clip: LatentClip, rng: np.random.Generator) -> tuple[Tensor, str] | None:
        """Latents of the second motion and its style, or None if this clip has no such partner."""
        if task in ("follow_up_slower", "follow_up_faster"):
            latents = clip.slower if task == "follow_up_slower" else clip.faster
            return None if latents is None else (latents, clip.style)
        if task == "follow_up_mirrored":
            other = self._mirror.get((clip.key, not clip.mirrored))
            if other is None or not _has_a_side(clip):
                return None
            return other.latents, clip.style
        takes = self._takes.get((clip.content, clip.mirrored), [])
        wants_same_style = task == "follow_up_repeat"
        fitting = [take for take in takes if take is not clip and (take.style == clip.style) == wants_same_style]
        if not fitting:
            return None
        other = fitting[int(rng.integers(len(fitting)))]
        return other.latents, other.style


def _drawn_group(groups: Mapping[str, Mapping[str, float]], rng: np.random.Generator) -> str:
    """One of the groups, each as likely as its tasks together."""
    weights = np.array([sum(tasks.values()) for tasks in groups.values()])
    return str(rng.choice(list(groups), p=weights / weights.sum()))


def _has_a_side(clip: LatentClip) -> bool:
    words = " ".join((*clip.captions, clip.content.replace("-", " "))).split()
    return ("left" in words) != ("right" in words)


def _length(sample: MotionSample) -> int:
    return sum(len(part.latents) for part in sample.parts if isinstance(part, MotionPart))
