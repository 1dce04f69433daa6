"""Interleaved sequences (paper section 3.2): [BOS]{text}[BOM]{motion}[EOM]{text}[BOM]{motion}... to any depth.

A sequence is a list of parts. A batch of them is split in two: the words before the first [BOM], which a frozen text
branch reads without gradient, and the rest.
"""

# B batch, P tokens of the longest prefix, S tokens of the longest rest, C latent channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.passages import Prompt


@dataclass(frozen=True)
class TextPart:
    """Words.

    Attributes:
        ids: Token ids.
        is_target: Whether the model is to write them, [EOS] behind them included.
    """

    ids: tuple[int, ...]
    is_target: bool = False


@dataclass(frozen=True)
class MotionPart:
    """Motion.

    Attributes:
        latents: Normalised latents, shape (L, C), L >= 1.
        is_target: Whether the model is to make them.
        ends: Whether the motion truly ends with the last latent, so that the exit head is to fire there.
    """

    latents: Tensor
    is_target: bool = False
    ends: bool = True


Part = TextPart | MotionPart


@dataclass(frozen=True)
class Markers:
    """Ids of the tokens that hold a sequence together."""

    bos: int
    eos: int
    begin_motion: int
    end_motion: int

    @classmethod
    def of(cls, model: Llamo, bos: int, eos: int) -> Markers:
        """[BOS] and [EOS] of a tokenizer, [BOM] and [EOM] of a model."""
        return cls(bos, eos, model.begin_motion, model.end_motion)


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences of B rows.

    Attributes:
        prefix: [BOS] and the words before the first [BOM], padded on the left with ``PADDING``, shape (B, P).
        tokens: From the first [BOM] on, padded on the right with ``MOTION``: padding goes through the motion branch,
            and nothing real attends to it. Shape (B, S).
        latents: Normalised latents at ``MOTION`` places, zeros elsewhere, shape (B, S, C).
        flow_target: True where the latent is to be made from the token before it, shape (B, S).
        exit_label: True at the last latent of a motion to be made that truly ends there, shape (B, S).
        text_target: True where the token is to be written from the one before it, shape (B, S).
    """

    prefix: Tensor
    tokens: Tensor
    latents: Tensor
    flow_target: Tensor
    exit_label: Tensor
    text_target: Tensor

    def to(self, device: torch.device) -> SequenceBatch:
        """The same on another device."""
        return SequenceBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def prompt_of(parts: Sequence[Part], markers: Markers) -> Prompt:
    """What stands before a motion that is to be made, laid out as :func:`collated` lays out a sequence.

    Args:
        parts: Words and given motions, in order, without the motion that is to follow.
        markers: Ids of [BOM] and [EOM].

    Raises:
        ParameterError: a motion has no latents.
    """
    ids: list[int] = []
    latents: list[Tensor] = []
    for part in parts:
        if isinstance(part, MotionPart):
            if not len(part.latents):
                raise ParameterError("a prompt holds a motion of no latents; leave such parts out.")
            ids += [markers.begin_motion, *[MOTION] * len(part.latents), markers.end_motion]
            latents.append(part.latents)
        else:
            ids += part.ids
    return Prompt(tuple(ids), torch.cat(latents) if latents else None)


@dataclass
class _Row:
    prefix: list[int]
    tokens: list[int]
    motions: list[tuple[int, MotionPart]]
    written: list[int]


def collated(rows: Sequence[Sequence[Part]], markers: Markers) -> SequenceBatch:
    """Batch of sequences; each has at least one motion.

    Raises:
        ParameterError: a sequence has no motion, or an empty one, or is to write text before its first motion.
    """
    laid_out = [_laid_out(parts, markers) for parts in rows]
    most_prefix = max(len(row.prefix) for row in laid_out)
    most = max(len(row.tokens) for row in laid_out)
    channels = laid_out[0].motions[0][1].latents.shape[1]
    prefix = torch.tensor([[PADDING] * (most_prefix - len(row.prefix)) + row.prefix for row in laid_out])
    tokens = torch.tensor([row.tokens + [MOTION] * (most - len(row.tokens)) for row in laid_out])
    latents = torch.zeros(len(rows), most, channels)
    flow_target, exit_label, text_target = (torch.zeros(len(rows), most, dtype=torch.bool) for _ in range(3))
    for index, row in enumerate(laid_out):
        for start, motion in row.motions:
            stop = start + len(motion.latents)
            latents[index, start:stop] = motion.latents
            flow_target[index, start:stop] = motion.is_target
            exit_label[index, stop - 1] = motion.is_target and motion.ends
        text_target[index, row.written] = True
    return SequenceBatch(prefix, tokens, latents, flow_target, exit_label, text_target)


def _laid_out(parts: Sequence[Part], markers: Markers) -> _Row:
    row = _Row([markers.bos], [], [], [])
    for index, part in enumerate(parts):
        if isinstance(part, MotionPart):
            if not len(part.latents):
                raise ParameterError("a sequence holds a motion of no latents; leave such parts out.")
            row.tokens.append(markers.begin_motion)
            row.motions.append((len(row.tokens), part))
            row.tokens += [MOTION] * len(part.latents)
            if index + 1 < len(parts):
                row.tokens.append(markers.end_motion)
        elif row.tokens:
            ids = [*part.ids, markers.eos] if part.is_target else list(part.ids)
            if part.is_target:
                row.written += range(len(row.tokens), len(row.tokens) + len(ids))
            row.tokens += ids
        elif part.is_target:
            raise ParameterError("a sequence is to write text before its first motion; only captions are learned.")
        else:
            row.prefix += part.ids
    if not row.motions:
        raise ParameterError("a sequence has no motion; text alone trains nothing, the text side is frozen.")
    return row
