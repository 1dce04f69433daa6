"""PromptWorker: performs prompts one after another in its own thread, at most some seconds ahead of playback."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from llamo_ros.core.errors import PromptError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT
from llamo_ros.pipelines.stream import StreamChunk

MAX_QUEUE = 16


class GeneratedChunk(Protocol):
    """What a stream of frames consists of; see :class:`llamo_ros.pipelines.text_to_motion.MotionChunk`."""

    clip: MotionClip
    start_index: int
    latency: float
    is_final: bool


@dataclass(frozen=True)
class Prompt:
    """What to do.

    Attributes:
        text: The prompt.
        prompt_id: The caller's name for it.
        append: Wait for the motion in progress to end, instead of taking its place.
        options: Keyword arguments of ``TextToMotion.stream``; those left out take the checkpoint's defaults.
    """

    text: str
    prompt_id: str = ""
    append: bool = False
    options: dict[str, float | int] = field(default_factory=dict)


@dataclass
class WorkerStatus:
    """What the worker did so far.

    Attributes:
        motions: Motions begun.
        frames: Frames made.
        failures: Motions that failed half-way.
        latency: Time to make the newest latent, four frames, [s].
        first_frame_latency: Time from the newest prompt to its first frames, [s].
    """

    motions: int = 0
    frames: int = 0
    failures: int = 0
    latency: float = 0.0
    first_frame_latency: float = 0.0


class PromptWorker:
    """Makes streams of motion from prompts.

    Every motion is a stream of its own, which always ends with a final chunk, also when it is replaced or fails.

    Args:
        generate: Checks a prompt and returns its chunks, which are made as they are taken: ``TextToMotion.stream``.
        emit: Called with each chunk, from the worker's thread.
        fail: Called with a prompt that failed half-way and the reason, from the worker's thread.
        lead_time: How far generation runs ahead of playback, [s]; at most one chunk further.
    """

    def __init__(
        self,
        generate: Callable[..., Iterator[GeneratedChunk]],
        emit: Callable[[StreamChunk], None],
        fail: Callable[[Prompt, Exception], None],
        lead_time: float = 2.0,
    ) -> None:
        self.status = WorkerStatus()
        self._generate, self._emit, self._fail, self._lead_time = generate, emit, fail, lead_time
        self._changed = threading.Condition()
        self._queue: deque[tuple[Prompt, Iterator[GeneratedChunk], float]] = deque()
        self._interrupted = False  # the motion in progress is to end now
        self._stop_playback = False
        self._closed = False
        self._busy = False
        self._played_until = 0.0  # [s] on the monotonic clock: when what was emitted will have been played
        self._thread = threading.Thread(target=self._run, name="prompt worker", daemon=True)

    @property
    def is_busy(self) -> bool:
        """Whether a motion is being made."""
        return self._busy

    @property
    def queued(self) -> int:
        """Prompts that wait."""
        return len(self._queue)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, prompt: Prompt) -> None:
        """Perform a prompt now, or with ``append`` after those before it.

        A prompt that cannot be performed leaves the motion in progress as it is.

        Raises:
            LlamoError: ``generate`` refuses the prompt, or too many prompts are waiting.
        """
        chunks = self._generate(prompt.text, **prompt.options)
        with self._changed:
            if not prompt.append:
                self._queue.clear()
                self._interrupted = self._busy
            elif len(self._queue) >= MAX_QUEUE:
                raise PromptError(f"{MAX_QUEUE} prompts are waiting already; send the next one later.")
            self._queue.append((prompt, chunks, time.monotonic()))
            self._changed.notify_all()

    def stop(self) -> None:
        """End the motion in progress, forget waiting prompts, and let playback brake and hold."""
        with self._changed:
            self._queue.clear()
            self._interrupted = self._busy
            self._stop_playback = True
            self._changed.notify_all()

    def close(self, timeout: float = 1.0) -> bool:
        """End the thread; returns whether it has ended in time, [s]."""
        with self._changed:
            self._closed = self._interrupted = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stop_playback or self._closed)
                if self._closed:
                    return
                stops, self._stop_playback = self._stop_playback, False
                job = self._queue.popleft() if self._queue else None
                self._busy, self._interrupted = job is not None, False
            if stops:
                self._played_until = 0.0
                self._emit(StreamChunk(uuid.uuid4().hex, 0, _NO_FRAMES, is_final=True))
            if job is not None:
                self._perform(*job)
                with self._changed:
                    self._busy = False

    def _perform(self, prompt: Prompt, chunks: Iterator[GeneratedChunk], asked: float) -> None:
        stream_id, emitted, is_final = uuid.uuid4().hex, 0, False
        begins = 0.0
        try:
            for chunk in chunks:
                now = time.monotonic()
                if self._interrupted:
                    break
                if not emitted:
                    begins = max(now, self._played_until) if prompt.append else now
                    self.status.motions += 1
                    self.status.first_frame_latency = now - asked
                self._emit_frames(stream_id, prompt, chunk)
                emitted, is_final = chunk.start_index + len(chunk.clip), chunk.is_final
                self._played_until = begins + emitted / FRAME_RATE
                if not is_final:
                    self._keep_pace()
                if self._interrupted:
                    break
        except Exception as error:  # whatever fails in one motion, the next prompt is to be performed
            self.status.failures += 1
            self._fail(prompt, error)
        if emitted and not is_final:
            self._emit(StreamChunk(stream_id, emitted, _NO_FRAMES, True, prompt.append, prompt.text, prompt.prompt_id))

    def _emit_frames(self, stream_id: str, prompt: Prompt, chunk: GeneratedChunk) -> None:
        self.status.frames += len(chunk.clip)
        self.status.latency = chunk.latency
        self._emit(
            StreamChunk(
                stream_id, chunk.start_index, chunk.clip, chunk.is_final, prompt.append, prompt.text, prompt.prompt_id
            )
        )

    def _keep_pace(self) -> None:
        """Wait until playback has come close enough, or something else is wanted."""
        with self._changed:
            ahead = self._played_until - time.monotonic() - self._lead_time
            if ahead > 0:
                self._changed.wait_for(lambda: self._interrupted, ahead)


_NO_FRAMES = MotionClip(np.empty((0, JOINT_COUNT, 3, 3)), np.empty((0, 3)))
