"""Conversation: prompts that follow one another, each made with the turns before it in view.

Example::

    talk = Conversation(TextToMotion.from_checkpoint(), seed=1)
    talk.say("a person waves the right hand")
    talk.say("now slower")
    for chunk in talk.stream("again with the other hand"):  # as it is made
        play(chunk.clip)
    save_motion(talk.clip, "three_turns.bvh")
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.passages import Prompt
from llamo_ros.model.sequence import MotionPart, Part, TextPart
from llamo_ros.model.text_tokenizer import checked_prompt
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import StreamingDecoder
from llamo_ros.pipelines.motion_engine import MotionChunk, MotionEngine, MotionStream
from llamo_ros.pipelines.motion_request import MotionRequest, laid_out
from llamo_ros.pipelines.stream_frames import StreamFrames
from llamo_ros.pipelines.text_to_motion import TextToMotion, finite

NULLS = ("empty", "history", "first")


@dataclass(frozen=True)
class Turn:
    """A turn that was made.

    Attributes:
        text: What was said.
        clip: What was done, at 30 FPS; continues the turn before.
        latents: Normalised latents of it, shape (L, C), as later turns see them.
    """

    text: str
    clip: MotionClip
    latents: Tensor


class Conversation:
    """Turns of one conversation, in the sequence that follow-ups are learned in.

    A turn reads [BOS] text [BOM] motion [EOM] text [BOM] ... with every remembered turn, then makes its own motion.
    That is a motion of its own: it is decoded anew and cross-faded from the posture of the moment, and heading and
    place go on. A turn may begin while the one before is still being made: that one then ends with its newest chunk.

    The memory is bounded: the newest turns whose latents fit into ``history`` are read, whole ones; older ones are
    forgotten (:attr:`remembered` tells how many there are). Of a single motion that is longer, the newest part is read.
    """

    def __init__(
        self,
        pipeline: TextToMotion,
        *,
        seed: int = 0,
        history: int | None = None,
        null: str | None = None,
        start_heading: float = 0.0,
        start_xz: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Begin without turns.

        Args:
            pipeline: Has the model.
            seed: Of the first turn; each further one adds 1.
            history: Most latents of earlier turns that a turn reads, 0 for none; None takes the checkpoint's default.
            null: What guidance measures a follow-up against: "empty" [BOS] [BOM], "history" the same turns and then
                nothing said ([EOM] [BOM]), so that it is the new words that are exaggerated, or "first", the oldest
                remembered prompt alone. None likewise.
            start_heading: Heading of the first frame, [rad].
            start_xz: Where the pelvis starts, [m].

        Raises:
            ParameterError: ``history`` is negative, or there is no such null.
        """
        defaults = pipeline.model.config.generation
        history = defaults.history if history is None else history
        null = defaults.follow_up_null if null is None else null
        if history < 0 or null not in NULLS:
            raise ParameterError(
                f"history is {history} and null {null!r}; expected 0 or more latents, and one of {', '.join(NULLS)}."
            )
        self._pipeline, self._seed, self._history, self._null = pipeline, seed, history, null
        self._start = start_heading, start_xz
        self._turns: list[Turn] = []
        self._made: deque[tuple[MotionChunk, Tensor]] = deque()  # of the turn in progress
        self._text = ""
        self._running: MotionStream | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns that have frames, the one in progress as far as it was taken."""
        if not self._made:
            return tuple(self._turns)
        clip = replace(concatenated([chunk.clip for chunk, _ in self._made]), text=self._text)
        return (*self._turns, Turn(self._text, clip, torch.stack([latent for _, latent in self._made])))

    @property
    def clip(self) -> MotionClip:
        """All turns in a row.

        Raises:
            ParameterError: nothing was said yet.
        """
        return concatenated([turn.clip for turn in self.turns])

    @property
    def remembered(self) -> int:
        """Turns that the next one reads; of the oldest of them perhaps only a part."""
        return len(self._recent(self.turns))

    def say(self, text: str, **options: float | int | str | None) -> MotionClip:
        """The whole motion of the next turn; arguments and errors as for :meth:`stream`."""
        return replace(concatenated([chunk.clip for chunk in self.stream(text, **options)]), text=text)

    def stream(
        self, text: str, *, seed: int | None = None, **options: float | int | str | None
    ) -> Iterator[MotionChunk]:
        """Chunks of the next turn, each as soon as it is made; they belong to the conversation when they are taken.

        Args:
            text: What to do, or how to do it now: "now slower", "again with the other hand".
            seed: None takes that of the conversation plus the number of turns before.
            options: Fields of :class:`~llamo_ros.pipelines.motion_options.MotionOptions`.

        Returns:
            Chunks whose ``start_index`` counts the frames of the conversation. An iterator ends when another turn
            begins.

        Raises:
            PromptError: the text is empty, too long, or not text.
            ParameterError: an option is out of range, or the prompt with its history is too long for the model.
        """
        finite(options.get("max_duration"))
        engine = self._pipeline.engine()
        stream = self.open(engine, text, seed=seed, **options)
        before = sum(len(turn.clip) for turn in self._turns)
        return self._taken(engine, stream, before)

    def open(
        self, engine: MotionEngine, text: str, *, seed: int | None = None, **options: float | int | str | None
    ) -> MotionStream:
        """The next turn as a stream of an engine, beside others; give its chunks to :meth:`add`.

        Arguments and errors as for :meth:`stream`.
        """
        turns = self.turns
        seed = self._seed + len(turns) if seed is None else seed
        if turns:
            opened = engine.open_request(self._request(text, turns), seed=seed, **options)
        else:
            heading, place = self._start
            opened = engine.open(text, seed=seed, start_heading=heading, start_xz=place, **options)
        if self._running is not None:
            self._running.cancel()
        self._turns, self._made, self._text, self._running = list(turns), deque(), text, opened
        return opened

    def add(self, chunk: MotionChunk) -> None:
        """Take in the next chunk of the turn in progress."""
        model = self._pipeline.model
        latent = torch.from_numpy(chunk.latent).to(model.latent_mean.device)
        self._made.append((chunk, model.normalise_latents(latent)))

    def _taken(self, engine: MotionEngine, stream: MotionStream, before: int) -> Iterator[MotionChunk]:
        for chunk in engine.chunks():
            if self._running is not stream:
                return
            self.add(chunk)
            yield replace(chunk, start_index=before + chunk.start_index)

    def _recent(self, turns: Sequence[Turn]) -> list[Turn]:
        """The newest turns that fit into the history, in order."""
        kept: list[Turn] = []
        room = self._history
        for turn in reversed(turns):
            if kept and len(turn.latents) > room or room == 0:
                break
            latents = turn.latents[-room:]
            kept.insert(0, replace(turn, latents=latents))
            room -= len(latents)
        return kept

    def _request(self, text: str, turns: Sequence[Turn]) -> MotionRequest:
        """A prompt behind the turns that are remembered."""
        recent = self._recent(turns)
        history: list[Part] = []
        for turn in recent:
            history += [self._words(turn.text), MotionPart(turn.latents)]
        nulls = {"empty": [], "history": history, "first": history[:1]}
        last = turns[-1].clip
        frames = StreamFrames(StreamingDecoder(), before=last.sliced(len(last) - 2))
        frames.blend()
        prompt = self._prompt([*history, self._words(checked_prompt(text))])
        return MotionRequest(text, prompt, self._prompt(nulls[self._null]), frames)

    def _words(self, text: str) -> TextPart:
        return TextPart(tuple(self._pipeline.tokenizer.encode(text)))

    def _prompt(self, parts: Sequence[Part]) -> Prompt:
        return laid_out(parts, self._pipeline.model, self._pipeline.tokenizer)
