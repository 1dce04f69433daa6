"""MotionEngine: prompts in, latents and frames out, for many independent streams in one forward pass per tick.

Example::

    engine = MotionEngine(model, tokenizer)
    stream = engine.open("a person walks forward", seed=1, max_duration=math.inf)
    while not stream.is_done:
        for owner, chunk in engine.tick():  # four frames of every open stream
            play(owner, chunk.clip)
        if stream.frames == 60:
            stream.change("a person waves with the right hand", max_duration=4.0)  # goes on without a jump
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.generation import LatentEngine, LatentStep, LatentStream
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.passages import Passage, Prompt
from llamo_ros.model.stream_state import StreamState, join_states, take_rows
from llamo_ros.model.text_tokenizer import TextTokenizer, checked_prompt
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import StreamingDecoder
from llamo_ros.pipelines.motion_options import MotionOptions
from llamo_ros.pipelines.motion_request import MotionRequest
from llamo_ros.pipelines.stream_frames import StreamFrames

LINKS = ("blend", "context", "conversation")


@dataclass(frozen=True)
class MotionChunk:
    """The frames of one latent.

    Attributes:
        clip: Four frames at 30 FPS, continuing the chunk before.
        start_index: Index of the first of them in the stream.
        latency: Time it took to make them, [s]; with other streams, that of the whole tick.
        is_final: Whether the stream ends with this chunk.
        latent: The VAE's latent behind the frames, shape (C,), float32.
        text: The prompt that was performed; empty for none.
        ends_prompt: Whether the next chunk, if any, belongs to the next prompt.
        exit_probability: How sure the exit head is that the motion ends here.
    """

    clip: MotionClip
    start_index: int
    latency: float
    is_final: bool
    latent: NDArray[np.float32]
    text: str
    ends_prompt: bool
    exit_probability: float


class MotionStream:
    """One stream of a :class:`MotionEngine`; made by :meth:`MotionEngine.open`, used from the engine's thread.

    A prompt that changes or follows begins by one of three links:

    "blend": the new prompt is read on its own. "conversation": it is read behind the motion so far, [EOM] prompt [BOM]
    (the paper's interleaved sequence). In both a motion of its own begins, is decoded anew and cross-faded from the
    posture of the moment; heading and place go on. "context": the new prompt is read, then the last few latents, and
    latents and decoder go on from there.

    A conversation that switches guidance on or off, or runs out of the model's positions, goes on as "context".

    The last two need a model that has learned to leave a motion that it sees: benchmarks/prompt_changes.py tells which
    link a checkpoint follows best.
    """

    def __init__(
        self, engine: MotionEngine, latents: LatentStream, text: str, options: MotionOptions, frames: StreamFrames
    ) -> None:
        self._engine, self._latents = engine, latents
        self._frames_of = frames
        self._options = options
        self._prompts = deque([(text, "")])  # text and link of the passage in progress, then of those that wait
        self._frames = 0

    @property
    def is_done(self) -> bool:
        """Whether it has ended or was cancelled."""
        return self._latents.is_done

    @property
    def text(self) -> str:
        """The prompt in progress."""
        return self._prompts[0][0]

    @property
    def waiting(self) -> int:
        """Prompts that are to follow."""
        return self._latents.waiting

    @property
    def frames(self) -> int:
        """Frames made so far."""
        return self._frames

    def change(self, text: str, *, link: str | None = None, context: int | None = None, **options: float | str) -> None:
        """Perform another prompt from the next chunk on; those that wait are forgotten. The motion goes on unbroken.

        Args:
            text: What to do.
            link: "blend", "context" or "conversation", see the class; None takes the checkpoint's default.
            context: Latents kept by "context"; None takes the checkpoint's default.
            options: As for :meth:`MotionEngine.open`; those left out stay as they are. Durations count from now.

        Raises:
            PromptError: the text is empty, too long, or not text.
            ParameterError: an option is out of range, or the stream has ended.
        """
        passage, link = self._engine._passage(text, options := replace(self._options, **options), link, context)
        self._latents.change(passage)
        self._options = options
        self._prompts = deque([(text, link)])
        self._begin()

    def append(self, text: str, *, link: str | None = None, context: int | None = None, **options: float | str) -> None:
        """Perform another prompt when the motion in progress ends (and those that wait), without a jump.

        Arguments and errors as for :meth:`change`; durations count from its beginning.
        """
        passage, link = self._engine._passage(text, options := replace(self._options, **options), link, context)
        self._latents.append(passage)
        self._options = options
        self._prompts.append((text, link))

    def cancel(self) -> None:
        """End now; no further chunk comes."""
        self._latents.cancel()

    def _chunk(self, step: LatentStep, latent: NDArray, features: NDArray, latency: float) -> MotionChunk:
        start, self._frames = self._frames, self._frames + len(features)
        clip, text = self._frames_of.decode(features), self.text
        if self._latents.passage > step.passage:
            self._prompts.popleft()
            self._begin()
        return MotionChunk(clip, start, latency, step.is_final, latent, text, step.ends_passage, step.exit_probability)

    def _begin(self) -> None:
        if self._prompts[0][1] != "context":
            self._frames_of.blend()
            self._engine._decoding_anew.add(self._latents)


class MotionEngine:
    """Performs prompts as streams of motion, all of them together. Model and runtime are only read.

    An engine and its streams belong to one thread at a time; several engines may share a model and a runtime.
    What comes out of a stream does not depend on the others, up to rounding: 1e-4 of a latent in float32, a few
    hundredths in bfloat16, whose products are rounded differently in a batch of another size. With kernels in int8 a
    last bit moves whole numbers, and after some latents the same seed may make another motion of the same prompt.

    Attributes:
        model: The model, in evaluation mode.
    """

    def __init__(
        self, model: Llamo, tokenizer: TextTokenizer, *, runtime: MotionRuntime | None = None, backend: str = "auto"
    ) -> None:
        """Begin without streams.

        Args:
            model: The model, in evaluation mode.
            tokenizer: Its tokenizer.
            runtime: The model, ready to run; None makes it so.
            backend: Of that: auto, cpu, triton or reference.
        """
        self.model = model
        self._tokenizer = tokenizer
        self._runtime = runtime or MotionRuntime(model, backend)
        defaults = model.config.generation
        self._latents = LatentEngine(self._runtime, tokenizer.bos, defaults.window, defaults.window_context)
        self._streams: dict[LatentStream, MotionStream] = {}
        self._decoded: list[LatentStream] = []  # rows of the decoder's state
        self._state: StreamState | None = None
        self._decoding_anew: set[LatentStream] = set()  # those whose motion begins anew, without a past

    @property
    def streams(self) -> tuple[MotionStream, ...]:
        """Streams that are open, the oldest first."""
        return tuple(self._streams[stream] for stream in self._latents.streams)

    @property
    def operations(self) -> dict[str, object]:
        """What kernels run here, by the name of the operation's folder: the runtime's, and that of open streams."""
        decoders = [("frame_decoder", stream._frames_of.decoder.operation) for stream in self._streams.values()]
        return self._runtime.operations | dict(decoders)

    def open(
        self,
        text: str | None,
        *,
        seed: int = 0,
        start_heading: float = 0.0,
        start_xz: tuple[float, float] = (0.0, 0.0),
        **options: float | int | str | None,
    ) -> MotionStream:
        """A new stream; its first frames come with the next tick.

        Args:
            text: What to do; None for any motion, as the null branch of guidance sees it.
            seed: Same seed, same motion.
            start_heading: Heading of the first frame, [rad].
            start_xz: Where the pelvis starts, [m].
            options: Fields of :class:`~llamo_ros.pipelines.motion_options.MotionOptions`.

        Raises:
            PromptError: the text is empty, too long, or not text.
            ParameterError: an option is out of range.
        """
        wanted = MotionOptions(**options)
        latents = self._latents.open(self._passage(text, wanted, None, None)[0], seed)
        frames = StreamFrames(StreamingDecoder(start_heading, start_xz))
        self._streams[latents] = stream = MotionStream(self, latents, text or "", wanted, frames)
        return stream

    @torch.inference_mode()
    def open_request(
        self, request: MotionRequest, *, seed: int = 0, **options: float | int | str | None
    ) -> MotionStream:
        """A new stream of a prompt that holds motion; its first frames come with the next tick.

        Args:
            request: The prompt, and what comes before the first frame.
            seed: Same seed, same motion.
            options: As for :meth:`open`.

        Raises:
            ParameterError: an option is out of range, or the prompt is too long for the model.
        """
        wanted = MotionOptions(**options)
        sampling = wanted.sampling(self.model.config.generation)
        latents = self._latents.open(Passage(request.prompt, sampling, null=request.null), seed)
        if request.state is not None:
            self._state = request.state if self._state is None else join_states([self._state, request.state])
            self._decoded = [*self._decoded, latents]
        self._streams[latents] = stream = MotionStream(self, latents, request.text, wanted, request.frames)
        return stream

    @torch.inference_mode()
    def tick(self) -> list[tuple[MotionStream, MotionChunk]]:
        """The next four frames of every open stream, oldest stream first; none if none is open.

        Raises:
            ParameterError: latents are not finite: the weights are damaged, or a guidance scale or a temperature is far
                too high. The engine is of no use then.
        """
        began = time.perf_counter()
        steps = self._latents.tick()
        if not steps:
            self._streams.clear()
            self._decoded, self._state = [], None
            return []
        latents_NC = self.model.denormalise_latents(torch.stack([step.latent for step in steps]))
        features = self._decode([step.stream for step in steps], latents_NC).cpu().numpy()
        latents = latents_NC.float().cpu().numpy()
        latency = time.perf_counter() - began
        chunks = []
        for row, step in enumerate(steps):
            stream = self._streams[step.stream]
            chunks.append((stream, stream._chunk(step, latents[row], features[row], latency)))
        self._streams = {latents: self._streams[latents] for latents in self._latents.streams}
        return chunks

    def chunks(self) -> Iterator[MotionChunk]:
        """The chunks of all ticks until no stream is open, for an engine with one stream."""
        while made := self.tick():
            for _, chunk in made:
                yield chunk

    def _decode(self, streams: list[LatentStream], latents_NC: torch.Tensor) -> torch.Tensor:
        """Features (N, 4, 272); motions that begin have no state yet and go through the decoder on their own."""
        row_of = {stream: row for row, stream in enumerate(self._decoded) if stream not in self._decoding_anew}
        self._decoding_anew.clear()
        old = [n for n, stream in enumerate(streams) if stream in row_of]
        new = [n for n, stream in enumerate(streams) if stream not in row_of]
        rows = [row_of[streams[n]] for n in old]
        features = latents_NC.new_empty(len(streams), FRAMES_PER_LATENT, len(self.model.vae.feature_mean))
        states = []
        for members in (old, new):
            if members:
                state = None
                if members is old:
                    state = self._state if rows == list(range(len(self._decoded))) else take_rows(self._state, rows)
                features[members], state = self._runtime.decode(latents_NC[members][:, None], state)
                states.append(state)
        self._state = states[0] if len(states) == 1 else join_states(states)
        self._decoded = [streams[n] for n in old + new]
        return features

    def _passage(
        self, text: str | None, options: MotionOptions, link: str | None, context: int | None
    ) -> tuple[Passage, str]:
        """A checked passage and its link."""
        defaults = self.model.config.generation
        link = defaults.link if link is None else link
        if link not in LINKS:
            raise ParameterError(f"link is {link!r}, expected one of {', '.join(LINKS)}.")
        ids = () if text is None else tuple(self._tokenizer.encode(checked_prompt(text)))
        if link == "blend":
            return Passage(Prompt(ids), options.sampling(defaults), "context", context=0), link
        context = defaults.change_context if context is None else context
        return Passage(Prompt(ids), options.sampling(defaults), link, context), link
