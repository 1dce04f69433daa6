"""LatentEngine: latents for many independent streams, one forward pass of the backbone per tick. It knows no text.

A stream performs passages, one prompt each (:mod:`~llamo_ros.model.passages`). Guided streams have a second row with
the null prompt ([BOS] [BOM] ... without words, if it is not given, and [EOM] [BOM] where a conversation goes on), with
keys and values of its own, in the same pass. When a stream has as many latents as the window allows, it is read anew
with its prompt and the last few of them, so that endless motion costs the same per latent as short motion. Where a
short pass is cheap, that reading begins some ticks before, a few tokens in each, so that no tick takes much longer than
others.
"""

# N streams, R rows (one or two per stream), C latent channels, D width

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.llamo import MOTION
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.passages import Passage
from llamo_ros.model.reading import Reading, read
from llamo_ros.model.seeded import seeded_generator
from llamo_ros.model.slots import SlotCache

# Ticks over which a window is read anew before the old one is full.
TICKS_AHEAD = 15


@dataclass(frozen=True)
class LatentStep:
    """One latent of one stream.

    Attributes:
        stream: The stream.
        latent: Normalised latent, shape (C,), float32.
        exit_probability: Probability that the motion ends with it.
        passage: Number of the passage it belongs to, from 0.
        ends_passage: Whether it is the last one of its passage.
        is_final: Whether it is the last one of the stream.
    """

    stream: LatentStream
    latent: Tensor
    exit_probability: float
    passage: int
    ends_passage: bool
    is_final: bool


class LatentStream:
    """One stream of a :class:`LatentEngine`; made by :meth:`LatentEngine.open`, used from the engine's thread.

    Attributes:
        passage: Number of the passage in progress, from 0.
        is_done: Whether it has ended or was cancelled.
    """

    def __init__(self, engine: LatentEngine, first: Passage, seed: int) -> None:
        self.passage, self.is_done, self._made = -1, False, 0
        self._engine = engine
        self._noise = seeded_generator(seed)
        self._waiting: deque[Passage] = deque()
        self._recent: deque[Tensor] = deque(maxlen=engine.window)  # latents, the newest last
        self._reading: Reading | None = None
        self._next: Reading | None = None  # what takes its place when the window is full, if that was begun
        self._begin(first)

    @property
    def waiting(self) -> int:
        """Passages that are to follow."""
        return len(self._waiting)

    def change(self, passage: Passage) -> None:
        """Go on with another passage from the next latent on; those that wait are forgotten.

        Raises:
            ParameterError: the stream has ended, or the passage does not fit the window.
        """
        self._check(passage)
        self._waiting.clear()
        self._begin(passage)

    def append(self, passage: Passage) -> None:
        """Go on with another passage when those before have ended, instead of ending.

        Raises:
            ParameterError: the stream has ended, or the passage does not fit the window.
        """
        self._check(passage)
        self._waiting.append(passage)

    def cancel(self) -> None:
        """End now; no further latent comes. Does nothing if it has ended."""
        if not self.is_done:
            self._engine._close(self)

    def _check(self, passage: Passage) -> None:
        if self.is_done:
            raise ParameterError("the stream has ended; open a new one.")
        self._engine.check(passage)

    def _begin(self, passage: Passage) -> None:
        """Make a passage the present one; the next tick reads its tokens."""
        rows = [passage.prompt, passage.null] if passage.options.guidance_scale != 1.0 else [passage.prompt]
        # A row that has not read what came before cannot go on with it, nor what would run out of positions; and a
        # motion without latents is none.
        self._goes_on = (
            passage.link == "conversation"
            and self._made > 0
            and self._reading is not None
            and len(rows) == self._reading.rows
            and self._reading.length + max(row.length for row in rows) + self._engine.window + 2
            < self._engine.positions
        )
        self.passage += 1
        self._present, self._made = passage, 0
        self._engine._free(self._next)
        self._next = None
        if not self._goes_on:
            self._read_anew(passage.context, with_lead=True)
            return
        model = self._engine.model
        for row, prompt in enumerate(rows):
            lead = _listed(prompt.lead)
            tokens = [model.end_motion, *prompt.ids, model.begin_motion, *[MOTION] * len(lead)]
            self._reading.extend(row, tokens, [*_listed(prompt.latents), *lead])
        self._recent.extend(_listed(passage.prompt.lead))

    def _read_anew(self, context: int, with_lead: bool = False) -> None:
        """Forget all but the prompt and the newest latents."""
        self._engine._free(self._reading)
        kept = list(self._recent)[len(self._recent) - min(context, len(self._recent)) :]
        prompt, null = self._present.prompt, self._present.null
        leads = [[*kept, *(_listed(row.lead) if with_lead else ())] for row in (prompt, null)]
        self._reading = self._prompted(*leads)
        self._recent.clear()
        self._recent.extend(leads[0])

    def _prompted(self, lead: list[Tensor], null_lead: list[Tensor]) -> Reading:
        """The prompt of the present passage with latents behind it, to be read."""
        model, bos = self._engine.model, self._engine.bos
        rows = [(self._present.prompt, lead), (self._present.null, null_lead)]
        rows = rows if self._present.options.guidance_scale != 1.0 else rows[:1]
        return Reading(
            unread=[[bos, *row.ids, model.begin_motion, *[MOTION] * len(latents)] for row, latents in rows],
            context=[[*_listed(row.latents), *latents] for row, latents in rows],
        )

    def _look_ahead(self) -> None:
        """With the newest latent, what the next window has to read; takes its place when this one is full."""
        left = self._engine.window - len(self._recent)
        context = self._engine.context
        if self._goes_on:  # the prompt of a conversation's turn is not that of the motion before it
            context = min(context, len(_listed(self._present.prompt.lead)) + self._made + left)
        if self._next is not None:
            for row in range(self._next.rows):
                self._next.extend(row, [MOTION], [self._recent[-1]])
        elif 0 < left <= min(self._engine.ticks_ahead, context):
            known = list(self._recent)[len(self._recent) - (context - left) :] if context > left else []
            self._next = self._prompted(known, known)
        if left > 0:
            return
        if self._next is None:
            self._read_anew(context)
            return
        self._engine._free(self._reading)
        self._reading, self._next = self._next, None
        kept = list(self._recent)[len(self._recent) - context :]
        self._recent.clear()
        self._recent.extend(kept)

    def _due_ahead(self) -> list[tuple[Reading, int]]:
        """What to read in this tick of the next window, if it was begun, and how many tokens of each row."""
        if self._next is None:
            return []
        ticks = self._engine.window - len(self._recent)
        return [(self._next, -(-self._next.longest_unread // ticks))]

    def _add(self, latent: Tensor, exit_probability: float) -> LatentStep:
        """Take in a new latent; ends the passage or the stream where that is due."""
        options, passage = self._present.options, self.passage
        self._recent.append(latent)
        self._made += 1
        ends = self._made == options.max_latents or (
            self._made >= options.min_latents and exit_probability >= options.exit_threshold
        )
        is_final = ends and not self._waiting
        if is_final:
            self._engine._close(self)
        elif ends:
            self._begin(self._waiting.popleft())
        else:
            self._look_ahead()
        return LatentStep(self, latent, exit_probability, passage, ends, is_final)


class LatentEngine:
    """Makes the latents of all open streams together, one each per tick. For one thread.

    What comes out of a stream does not depend on the others, up to rounding, which in int8 grows: see
    :class:`~llamo_ros.pipelines.motion_engine.MotionEngine`.
    """

    def __init__(self, runtime: MotionRuntime, bos: int, window: int, context: int) -> None:
        """Begin without streams.

        Args:
            runtime: The model, ready to run.
            bos: Id of [BOS].
            window: Most latents a stream attends to; with so many it is read anew.
            context: Latents kept then, 0 <= context < window.

        Raises:
            ParameterError: ``window`` and ``context`` do not fit together or the model.
        """
        model = runtime.model
        self.positions = model.config.backbone.max_positions
        if not 0 <= context < window < self.positions:
            raise ParameterError(
                f"window is {window} latents and context {context}; expected 0 <= context < window < "
                f"{self.positions}, the positions of the model."
            )
        self.model, self.bos, self.window, self.context = model, bos, window, context
        self.ticks_ahead = TICKS_AHEAD if runtime.read.reads_cheaply else 0
        self._runtime = runtime
        self._streams: list[LatentStream] = []
        self._cache = SlotCache(model.config.backbone, model.special_tokens.dtype, model.latent_mean.device)

    @property
    def streams(self) -> tuple[LatentStream, ...]:
        """Streams that are open, the oldest first."""
        return tuple(self._streams)

    def open(self, passage: Passage, seed: int = 0) -> LatentStream:
        """A new stream; its first latent comes with the next tick.

        Raises:
            ParameterError: the prompt is too long for the model, or the seed is no seed.
        """
        self.check(passage)
        stream = LatentStream(self, passage, seed)
        self._streams.append(stream)
        return stream

    def check(self, passage: Passage) -> None:
        """Whether a passage can be performed.

        Raises:
            ParameterError: prompt and window together exceed the positions of the model, or the context the window.
        """
        most = self.positions - self.window - 3
        longest = max(passage.prompt.length, passage.null.length)
        if longest > most:
            raise ParameterError(f"the prompt has {longest} tokens, expected at most {most}; shorten it.")
        leads = [len(_listed(prompt.lead)) for prompt in (passage.prompt, passage.null)]
        if passage.context + max(leads) >= self.window:
            raise ParameterError(
                f"context is {passage.context + max(leads)} latents, expected less than the window, {self.window}."
            )

    @torch.inference_mode()
    def tick(self) -> list[LatentStep]:
        """The next latent of every open stream, in the order of :attr:`streams`; none if none is open."""
        streams = list(self._streams)
        if not streams:
            return []
        read([(stream._reading, stream._reading.longest_unread) for stream in streams], self._cache, self._runtime)
        latents_NC = self._sampled(streams)
        ahead = [due for stream in streams for due in stream._due_ahead()]
        for stream, latent in zip(streams, latents_NC, strict=True):
            for row in range(stream._reading.rows):
                stream._reading.extend(row, [MOTION], [latent])
        read([*((stream._reading, 1) for stream in streams), *ahead], self._cache, self._runtime)
        exit_logits_N = self.model.exit_head(torch.stack([stream._reading.hidden[0] for stream in streams]))
        exits = torch.sigmoid(exit_logits_N.float()).tolist()
        return [stream._add(latents_NC[n], exits[n]) for n, stream in enumerate(streams)]

    def _sampled(self, streams: Sequence[LatentStream]) -> Tensor:
        """New latents (N, C); streams with the same steps, solver and guidance go through the flow together."""
        noise_NC = torch.stack(
            [
                stream._present.options.temperature * torch.randn(len(self.model.latent_mean), generator=stream._noise)
                for stream in streams
            ]
        ).to(self.model.latent_mean.device)
        groups: dict[tuple[int, str, float], list[int]] = {}
        for n, stream in enumerate(streams):
            options = stream._present.options
            groups.setdefault((options.flow_steps, options.solver, options.guidance_scale), []).append(n)
        latents_NC = torch.empty_like(noise_NC)
        for (steps, solver, guidance), members in groups.items():
            hidden = [streams[n]._reading.hidden[k] for k in range(1 if guidance == 1.0 else 2) for n in members]
            condition_RD = self.model.projector(torch.stack(hidden))
            latents_NC[members] = self._runtime.sampler(noise_NC[members], condition_RD, guidance, steps, solver)
        return latents_NC

    def _free(self, reading: Reading | None) -> None:
        """Give the rows of a stream back."""
        for slot in reading.slots if reading else ():
            self._cache.close(slot)

    def _close(self, stream: LatentStream) -> None:
        self._free(stream._reading)
        self._free(stream._next)
        stream.is_done = True
        self._streams.remove(stream)


def _listed(latents: Tensor | None) -> list[Tensor]:
    return [] if latents is None else list(latents)
