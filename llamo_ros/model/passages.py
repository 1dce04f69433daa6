"""Passage: one prompt of a stream of latents, how its latents are sampled and how it begins.

A passage begins by one of two links to what came before:

"context"       [BOS] prompt [BOM] and the last few latents; earlier ones are forgotten.
"conversation"  what is there goes on: ... motion [EOM] prompt [BOM] (the paper's interleaved sequence, section 3.2).

A prompt may hold motions among its words (:func:`~llamo_ros.model.sequence.prompt_of`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.numbers import real_number, whole_number
from llamo_ros.model.latent_sampler import check_solver

LINKS = ("context", "conversation")


@dataclass(frozen=True)
class SamplingOptions:
    """How latents are sampled.

    Attributes:
        guidance_scale: 1 follows the text plainly; above 1 exaggerates it against the empty prompt (classifier-free
            guidance, Ho and Salimans 2022); it costs a second row, not a second pass.
        temperature: Scale of the initial noise.
        min_latents: The exit head is not listened to before.
        max_latents: The passage ends here at the latest; None for never.
        exit_threshold: The passage ends when the exit probability reaches it; above 1 never.
        flow_steps: Steps of the solver per latent; a midpoint step costs two Euler steps.
        solver: "euler" or "midpoint".

    Raises:
        ParameterError: an option is out of range.
    """

    guidance_scale: float = 2.0
    temperature: float = 1.0
    min_latents: int = 1
    max_latents: int | None = 75
    exit_threshold: float = 0.5
    flow_steps: int = 50
    solver: str = "euler"

    def __post_init__(self) -> None:
        least = whole_number(self.min_latents) or 0
        most = least if self.max_latents is None else whole_number(self.max_latents) or 0
        if not 1 <= least <= most:
            raise ParameterError(
                f"min_latents is {self.min_latents!r} and max_latents {self.max_latents!r}; expected whole numbers, "
                "1 <= min <= max."
            )
        if not (0 <= real_number(self.guidance_scale) < 100 and 0 <= real_number(self.temperature) < 100):
            raise ParameterError(
                f"guidance_scale is {self.guidance_scale!r} and temperature {self.temperature!r}, expected numbers "
                "from 0 to 100."
            )
        if not real_number(self.exit_threshold) >= 0:
            raise ParameterError(
                f"exit_threshold is {self.exit_threshold!r}, expected a number from 0 on; above 1 is never."
            )
        check_solver(self.flow_steps, self.solver)


@dataclass(frozen=True)
class Prompt:
    """What stands before a motion that is to be made: [BOS] ids [BOM] lead.

    Attributes:
        ids: Token ids; those of motions that are given among the words too: [BOM], ``MOTION`` for each latent, [EOM].
        latents: Normalised latents of the ``MOTION`` places, shape (M, C); None for none.
        lead: Normalised latents that the motion begins with, as if they had been made, shape (K, C); None for none.
            They count as latents of the window, and are forgotten as those are; with either link they come last, behind
            what the stream made before.
    """

    ids: tuple[int, ...] = ()
    latents: Tensor | None = field(default=None, compare=False)
    lead: Tensor | None = field(default=None, compare=False)

    @property
    def length(self) -> int:
        """Tokens, without [BOS] and [BOM]."""
        return len(self.ids) + (0 if self.lead is None else len(self.lead))


@dataclass(frozen=True)
class Passage:
    """One prompt of a stream.

    Attributes:
        prompt: What is to be done; an empty one for an unconditional passage.
        options: How its latents are sampled.
        link: How it begins, one of ``LINKS``; without meaning for the first one of a stream.
        context: Latents kept as context by the link "context".
        null: Of the second row that guidance measures the prompt against. It goes on with what that row has read, as
            the prompt does with its own: with the link "conversation" the empty one is [EOM] [BOM].

    Raises:
        ParameterError: there is no such link, or ``context`` is negative.
    """

    prompt: Prompt
    options: SamplingOptions
    link: str = "context"
    context: int = 0
    null: Prompt = Prompt()

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise ParameterError(f"link is {self.link!r}, expected one of {', '.join(LINKS)}.")
        if self.context < 0:
            raise ParameterError(f"context is {self.context} latents, expected 0 or more.")
