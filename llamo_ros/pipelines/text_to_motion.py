"""Text in, motion out, four frames at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.kernels.backends import checked_threads
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.pipelines.motion_engine import MotionChunk, MotionEngine, MotionStream
from llamo_ros.pipelines.motion_options import MAX_DURATION

MOST_AT_ONCE = 64  # streams of a batch that are made together; further ones begin as others end


@dataclass(frozen=True)
class ScoredMotion:
    """A motion, the seed it was made with, and how good it is; higher is better."""

    clip: MotionClip
    seed: int
    score: float


class TextToMotion:
    """Performs prompts with one model; keeps it loaded.

    Every motion or batch is made by a :class:`~llamo_ros.pipelines.motion_engine.MotionEngine` of its own, so iterators
    of :meth:`stream` may be taken from different threads.
    """

    def __init__(
        self,
        model: Llamo,
        tokenizer: TextTokenizer,
        backend: str = "auto",
        precision: str | None = None,
        threads: int = 1,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._runtime = MotionRuntime(model, backend, precision, threads)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path = "llamo-mini",
        device: str = "cpu",
        threads: int = 1,
        backend: str = "auto",
        precision: str | None = None,
    ) -> TextToMotion:
        """Load a shipped model by name, or a checkpoint folder.

        Args:
            checkpoint: Name or folder.
            device: PyTorch device.
            threads: CPU threads that share the compiled flow head; one is enough for ``llamo-mini`` and leaves the rest
                free. PyTorch gets them, for all of this process, only where it runs whole layers (backend "reference",
                or a backbone in bfloat16): they wait for one another, so a busy core holds all of them up.
            backend: Of the kernels: auto, cpu, triton or reference.
            precision: In which kernels keep weights: float32, bfloat16 or int8, in Triton also float8; None takes the
                checkpoint's.

        Raises:
            ParameterError: ``threads`` is not a whole number from 1 to the cores that this process may use.
            CheckpointError: the checkpoint is unknown, incomplete or damaged.
        """
        torch.set_num_threads(checked_threads(threads))
        model, tokenizer = load_checkpoint(checkpoint, device)
        pipeline = cls(model, tokenizer, backend, precision, threads)
        if pipeline._runtime.is_compiled:
            torch.set_num_threads(1)
        return pipeline

    @property
    def model(self) -> Llamo:
        """The model, in evaluation mode."""
        return self._model

    @property
    def tokenizer(self) -> TextTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    def engine(self) -> MotionEngine:
        """A new engine for streams that are made together, and whose prompts change; see there."""
        return MotionEngine(self._model, self._tokenizer, runtime=self._runtime)

    def warm_up(self) -> None:
        """Make one latent and drop it, so that the first prompt is not the slow one."""
        next(self.stream("a person stands still", max_duration=1.0, min_duration=0.2))

    def stream(
        self,
        text: str,
        *,
        min_duration: float | None = None,
        max_duration: float | None = None,
        seed: int = 0,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        flow_steps: int | None = None,
        solver: str | None = None,
        start_heading: float = 0.0,
        start_xz: tuple[float, float] = (0.0, 0.0),
    ) -> Iterator[MotionChunk]:
        """Chunks of the motion, each as soon as it is made. None takes the checkpoint's default.

        Args:
            text: What to do.
            min_duration: The motion goes on at least this long, [s].
            max_duration: The motion ends at the latest after this, [s]; before, the exit head ends it.
            seed: Same seed, same motion.
            guidance_scale: How strictly to follow the text; 1 is plain.
            temperature: Scale of the noise that latents are made from; lower is calmer and less varied.
            flow_steps: Steps of the flow head per latent.
            solver: "euler" or "midpoint"; a midpoint step costs two Euler steps.
            start_heading: Heading of the first frame, [rad].
            start_xz: Where the pelvis starts, [m].

        Raises:
            PromptError: the text is empty, too long, or not text.
            ParameterError: an option is out of range.
        """
        engine = self.engine()
        engine.open(
            text,
            seed=seed,
            start_heading=start_heading,
            start_xz=start_xz,
            min_duration=min_duration,
            max_duration=finite(max_duration),
            guidance_scale=guidance_scale,
            temperature=temperature,
            flow_steps=flow_steps,
            solver=solver,
        )
        return engine.chunks()

    def __call__(self, text: str, **options: float | int | str | None) -> MotionClip:
        """The whole motion at once; options as for :meth:`stream`."""
        return replace(concatenated([chunk.clip for chunk in self.stream(text, **options)]), text=text)

    def unconditional(
        self, *, seed: int = 0, max_duration: float | None = None, min_duration: float = 0.0
    ) -> MotionClip:
        """A motion without a prompt, as the null branch of guidance sees it."""
        engine = self.engine()
        engine.open(None, seed=seed, max_duration=finite(max_duration), min_duration=min_duration, guidance_scale=1.0)
        return concatenated([chunk.clip for chunk in engine.chunks()])

    def batch(
        self,
        texts: Sequence[str],
        *,
        seeds: Sequence[int],
        progress: Callable[[int], None] | None = None,
        **options: float | int | str | None,
    ) -> list[MotionClip]:
        """Motions of many prompts, made together; each ends where its own exit head ends it.

        Args:
            texts: What to do; an empty text gives an unconditional motion.
            seeds: One seed for each.
            progress: Called after each tick with the number of frames made so far, all motions together.
            options: As for :meth:`stream`, the same for all.

        Returns:
            One clip for each text, the same up to rounding as alone.

        Raises:
            PromptError: a text is too long, or not text.
            ParameterError: an option is out of range, or there is not one seed for each text.
        """
        if len(texts) != len(seeds):
            raise ParameterError(f"there are {len(seeds)} seeds for {len(texts)} texts; give one for each.")
        options["max_duration"] = finite(options.get("max_duration"))
        engine, clips = self.engine(), [[] for _ in texts]
        waiting = deque(range(len(texts)))
        number_of: dict[MotionStream, int] = {}
        frames = 0
        while waiting or engine.streams:
            while waiting and len(engine.streams) < MOST_AT_ONCE:
                number = waiting.popleft()
                number_of[engine.open(texts[number] or None, seed=seeds[number], **options)] = number
            for stream, chunk in engine.tick():
                clips[number_of[stream]].append(chunk.clip)
                frames += len(chunk.clip)
            if progress is not None:
                progress(frames)
        return [replace(concatenated(parts), text=text) for parts, text in zip(clips, texts, strict=True)]

    def samples(
        self, text: str, seeds: Sequence[int], **options: float | int | str | Callable[[int], None] | None
    ) -> list[MotionClip]:
        """Several motions of one prompt, one for each seed, made together; options as for :meth:`batch`."""
        return self.batch([text] * len(seeds), seeds=seeds, **options)

    def best_of(
        self,
        text: str,
        seeds: Sequence[int],
        score: Callable[[MotionClip], float],
        **options: float | int | str | Callable[[int], None] | None,
    ) -> list[ScoredMotion]:
        """Several motions of one prompt, the best first.

        Args:
            text: What to do.
            seeds: One motion is made with each.
            score: How good a motion is, higher is better; for example
                :meth:`~llamo_ros.pipelines.motion_to_text.MotionToText.prompt_score`.
            options: As for :meth:`batch`.

        Raises:
            ParameterError: a score is not a finite number, or as for :meth:`batch`.
        """
        scored = []
        for seed, clip in zip(seeds, self.samples(text, seeds, **options), strict=True):
            value = float(score(clip))
            if not math.isfinite(value):
                raise ParameterError(f"the score of the motion of seed {seed} is {value}, expected a finite number.")
            scored.append(ScoredMotion(clip, seed, value))
        return sorted(scored, key=lambda motion: -motion.score)


def finite(max_duration: float | None) -> float | None:
    """Whole clips are asked for, so endless ones are refused."""
    if max_duration == math.inf:
        raise ParameterError(f"max_duration is {max_duration}, expected between 0 and {MAX_DURATION:.0f} seconds.")
    return max_duration
