"""How people ask for each task: templates with places for captions, durations, styles and motion.

The templates are in config/instructions.yaml, which also explains their placeholders. A prompt drawn from one is a
sequence of text and motion parts, in the order in which the model reads and writes them (paper, section 3.3:
[BOS]{text}[BOM]{motion}[EOM]{text}...).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

import numpy as np
import yaml

from llamo_ros.core.errors import LlamoError, ParameterError
from llamo_ros.core.resources import config_path
from llamo_ros.pipelines.imperative import as_command, is_sentence
from llamo_ros.pipelines.wording import one_sided_limb, plain_caption, plain_duration, spoken_duration

MotionName = Literal["whole", "start", "end", "target", "previous"]
MIN_TEMPLATES = 30
_MOTION_NAMES: Mapping[str, MotionName] = {"motion": "whole", "motion_start": "start", "motion_end": "end"}
_TEXT_PLACEHOLDERS = ("caption", "action", "seconds", "style", "limb")
_STANDS_ALONE = re.compile(r"(?:^|[:.?] ){caption}")  # nothing before it that wants a whole sentence to go on


class InstructionError(LlamoError, ValueError):
    """The file of templates is not usable."""


@dataclass(frozen=True)
class TextPart:
    """Text of a prompt, or (``target``) the text the model shall answer with."""

    text: str
    target: bool = False


@dataclass(frozen=True)
class MotionPart:
    """Where a motion stands: the ``whole`` clip, its ``start`` or ``end``, the ``previous`` one, or the ``target``."""

    name: MotionName


Part = TextPart | MotionPart


@dataclass(frozen=True)
class TaskShape:
    """What the templates of a task hold.

    Attributes:
        motions: Placeholders of given motion, each exactly once, in this order.
        needs: Of each group, at least one placeholder must be there.
        may: Placeholders that may be there besides.
        follows: Whether a turn with a motion comes before.
        answer: What the model generates.
    """

    motions: tuple[str, ...] = ()
    needs: tuple[frozenset[str], ...] = ()
    may: frozenset[str] = frozenset()
    follows: bool = False
    answer: Literal["motion", "caption"] = "motion"

    @property
    def allowed(self) -> frozenset[str]:
        """Every placeholder that may stand in a template."""
        return self.may.union(self.motions, *self.needs)


_WORDS = frozenset({"caption", "action"})
_SECONDS, _STYLE = frozenset({"seconds"}), frozenset({"style"})
TASKS: Mapping[str, TaskShape] = {
    "text_to_motion": TaskShape(needs=(_WORDS,)),
    "text_to_motion_duration": TaskShape(needs=(_WORDS, _SECONDS)),
    "text_to_motion_style": TaskShape(needs=(_WORDS, _STYLE)),
    "motion_to_text": TaskShape(motions=("motion",), answer="caption"),
    "prediction": TaskShape(motions=("motion_start",), may=_WORDS),
    "in_between": TaskShape(motions=("motion_start", "motion_end"), may=_WORDS),
    "unconditional": TaskShape(),
    "follow_up_slower": TaskShape(follows=True),
    "follow_up_faster": TaskShape(follows=True),
    "follow_up_mirrored": TaskShape(may=frozenset({"limb"}), follows=True),
    "follow_up_style": TaskShape(needs=(_STYLE,), follows=True),
    "follow_up_repeat": TaskShape(follows=True),
}


@dataclass(frozen=True)
class Template:
    """One way to ask: literal text and placeholders in turn."""

    text: str
    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Take a template apart.

        Raises:
            ValueError: a brace is not closed.
        """
        return cls(text, tuple((literal, field) for literal, field, _, _ in Formatter().parse(text)))

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Names in braces, in order."""
        return tuple(field for _, field in self.pieces if field is not None)

    @property
    def wants_sentence(self) -> bool:
        """Whether the caption is part of a longer sentence, so that it must be a sentence itself."""
        return "caption" in self.placeholders and not _STANDS_ALONE.search(self.text)

    def filled(self, values: Mapping[str, str]) -> list[Part]:
        """Text and motion parts, with ``values`` in the places of the text placeholders."""
        parts: list[Part] = []
        text = ""
        for literal, field in self.pieces:
            text += literal
            if field in _MOTION_NAMES:
                parts += _text_parts(text)
                parts.append(MotionPart(_MOTION_NAMES[field]))
                text = ""
            elif field is not None:
                text += values[field]
        return parts + _text_parts(text)


@dataclass(frozen=True)
class TaskTemplates:
    """The templates of one task; the first is the canonical one, drawn with ``canonical_share`` if that is given."""

    templates: tuple[Template, ...]
    canonical_share: float | None = None


@dataclass(frozen=True)
class Instructions:
    """The templates of every task of :data:`TASKS`."""

    by_task: Mapping[str, TaskTemplates]

    @classmethod
    def load(cls, path: Path | None = None) -> Instructions:
        """Read and check a file of templates.

        Args:
            path: The file. None: the one that comes with the package, config/instructions.yaml.

        Raises:
            InstructionError: a task is missing or unknown, has fewer than 30 templates, or a template is a duplicate,
                has an unknown placeholder, or lacks one that its task needs.
        """
        path = path or config_path("instructions.yaml")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or set(data) != set(TASKS):
            got = ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__
            raise InstructionError(f"{path} has the tasks {got}; expected exactly {', '.join(TASKS)}.")
        return cls({task: _checked_task(task, data[task], path) for task in TASKS})

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.by_task)

    @property
    def counts(self) -> dict[str, int]:
        """Number of templates of each task."""
        return {task: len(entry.templates) for task, entry in self.by_task.items()}

    def draw(
        self,
        task: str,
        rng: np.random.Generator,
        *,
        caption: str | None = None,
        seconds: float | None = None,
        style: str | None = None,
        canonical_share: float | None = None,
    ) -> list[Part]:
        """One prompt of a task, at random, with what the model shall answer as its last part.

        Args:
            task: A key of :data:`TASKS`.
            rng: Source of randomness.
            caption: What the motion shows. Needed by the text-to-motion tasks; said in some of the prompts of
                prediction and in-between; the answer of motion_to_text (None: the prompt alone); of a follow-up, what
                was asked for in the turn before (None: the parts begin with the previous motion).
            seconds: Length of the motion, [s], at least 0.1. Said within 10 %.
            style: Words of how, e.g. "like an old person".
            canonical_share: How often the canonical template is drawn, where the file has a share for the task; None
                takes that.

        Returns:
            Text and motion parts in order. Values that a task has no place for are not used.

        Raises:
            ParameterError: the task is unknown, or a value it needs is missing or out of range.
        """
        entry = self._entry(task)
        values = _values(caption, None if seconds is None else spoken_duration(seconds, rng), style)
        usable = _usable(task, entry, values)
        share = entry.canonical_share if entry.canonical_share is None or canonical_share is None else canonical_share
        is_canonical = usable[0] is entry.templates[0] and share is not None
        if is_canonical and rng.random() < share:
            template = usable[0]
        else:
            others = usable[1:] if is_canonical and len(usable) > 1 else usable
            template = others[int(rng.integers(len(others)))]
        opening = self.draw("text_to_motion", rng, caption=caption) if TASKS[task].follows and caption else None
        return _conversation(task, template.filled(values), caption, opening)

    def default(
        self, task: str, *, caption: str | None = None, seconds: float | None = None, style: str | None = None
    ) -> list[Part]:
        """The canonical prompt of a task, for inference; arguments, parts and errors as of :meth:`draw`.

        It is the first template that says all the given values it can: with a caption, prediction and in-between use
        their first template with one.
        """
        entry = self._entry(task)
        values = _values(caption, None if seconds is None else plain_duration(seconds), style)
        usable = _usable(task, entry, values)
        shape = TASKS[task]
        if "caption" in values and "caption" in shape.allowed:
            usable = [template for template in usable if "caption" in template.placeholders]
        opening = self.default("text_to_motion", caption=caption) if shape.follows and caption else None
        return _conversation(task, usable[0].filled(values), caption, opening)

    def _entry(self, task: str) -> TaskTemplates:
        if task not in self.by_task:
            raise ParameterError(f"task {task!r} is not known. Tasks: {', '.join(self.by_task)}.")
        return self.by_task[task]


def _checked_task(task: str, data: object, path: Path) -> TaskTemplates:
    where = f"task {task} in {path}"
    if not isinstance(data, dict) or not set(data) <= {"templates", "canonical_share"}:
        raise InstructionError(f"{where} is not a mapping with 'templates' and, if wanted, 'canonical_share'.")
    texts, share = data.get("templates"), data.get("canonical_share")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InstructionError(f"{where}: 'templates' is not a list of texts.")
    if share is not None and not (isinstance(share, int | float) and 0.0 <= share <= 1.0):
        raise InstructionError(f"{where}: canonical_share is {share!r}, expected a number from 0 to 1.")
    if len(texts) < MIN_TEMPLATES:
        raise InstructionError(f"{where} has {len(texts)} templates, at least {MIN_TEMPLATES} are needed.")
    seen: dict[str, str] = {}
    for text in texts:
        key = re.sub(r"[^a-z{}_]+", " ", text.lower()).strip()
        if key in seen:
            raise InstructionError(f"{where} says the same twice: {seen[key]!r} and {text!r}. Remove one.")
        seen[key] = text
    return TaskTemplates(tuple(_checked_template(text, TASKS[task], where) for text in texts), share)


def _checked_template(text: str, shape: TaskShape, where: str) -> Template:
    try:
        template = Template.parse(text)
    except ValueError as error:
        raise InstructionError(f"{where}: template {text!r} has unbalanced braces ({error}).") from error
    names = template.placeholders
    for name in names:
        if name not in (*_TEXT_PLACEHOLDERS, *_MOTION_NAMES):
            known = ", ".join((*_TEXT_PLACEHOLDERS, *_MOTION_NAMES))
            raise InstructionError(
                f"{where}: template {text!r} has the unknown placeholder {{{name}}}. Known: {known}."
            )
        if name not in shape.allowed:
            raise InstructionError(
                f"{where}: template {text!r} has {{{name}}}, which this task does not have. "
                f"Allowed: {', '.join(sorted(shape.allowed)) or 'none'}."
            )
    if tuple(name for name in names if name in _MOTION_NAMES) != shape.motions:
        expected = ", ".join(f"{{{name}}}" for name in shape.motions) or "none"
        raise InstructionError(
            f"{where}: template {text!r} has wrong motion markers, expected {expected}, in this order."
        )
    for group in shape.needs:
        if not group & set(names):
            raise InstructionError(f"{where}: template {text!r} needs {{{'} or {'.join(sorted(group))}}}.")
    return template


def _values(caption: str | None, seconds: str | None, style: str | None) -> dict[str, str]:
    """What can be put in the places of the text placeholders."""
    values: dict[str, str | None] = {"seconds": seconds, "style": style}
    if caption is not None:
        plain = plain_caption(caption)
        values |= {"caption": plain, "action": as_command(caption), "limb": one_sided_limb(plain)}
    return {name: value for name, value in values.items() if value}


def _usable(task: str, entry: TaskTemplates, values: Mapping[str, str]) -> list[Template]:
    """The templates whose places can all be filled, in order; never empty."""
    whole = "caption" in values and is_sentence(values["caption"])
    given = {*values, *_MOTION_NAMES}
    usable = [t for t in entry.templates if given.issuperset(t.placeholders) and (whole or not t.wants_sentence)]
    if not usable:
        needs = " and ".join("caption" if "caption" in group else min(group) for group in TASKS[task].needs)
        raise ParameterError(f"task {task} needs {needs}; got {', '.join(values) or 'none of them'}.")
    return usable


def _conversation(task: str, parts: list[Part], caption: str | None, opening: list[Part] | None) -> list[Part]:
    """The turn with its answer, after the turn before it where there is one."""
    shape = TASKS[task]
    if shape.answer == "caption":
        return parts if caption is None else [*parts, TextPart(plain_caption(caption), target=True)]
    before = [] if opening is None else opening[:-1]
    return [*before, *([MotionPart("previous")] if shape.follows else []), *parts, MotionPart("target")]


def _text_parts(text: str) -> list[Part]:
    return [TextPart(text.strip())] if text.strip() else []
