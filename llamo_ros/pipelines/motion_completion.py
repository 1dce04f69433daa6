"""MotionCompletion: goes on with a motion that is given, or fills the gap between two.

Example::

    completion = MotionCompletion(TextToMotion.from_checkpoint())
    rest = completion.predict(clip, "a person walks in a circle", seconds=3.0)
    whole = concatenated([completion.given(clip), rest])
    bridge = completion.between(first, second)
    print(f"{bridge.distance:.2f} m beside the second clip")
    whole = bridge.bent()  # arrives where the second clip stands
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.passages import Prompt
from llamo_ros.model.sequence import TextPart
from llamo_ros.model.stream_state import StreamState
from llamo_ros.model.text_tokenizer import checked_prompt
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import StreamingDecoder, heading
from llamo_ros.pipelines.given_motion import GivenMotion, given_motion, read_beginning_of, read_end_of
from llamo_ros.pipelines.in_between import InBetween
from llamo_ros.pipelines.instructions import Instructions
from llamo_ros.pipelines.motion_engine import MotionChunk, MotionEngine, MotionStream
from llamo_ros.pipelines.motion_request import MotionRequest, laid_out, sequence_of
from llamo_ros.pipelines.seam import Seam
from llamo_ros.pipelines.stream_frames import StreamFrames
from llamo_ros.pipelines.text_to_motion import TextToMotion, finite

# Latents of a given motion that are read: of the longest motion of training (60 latents for mini, 75 in the paper)
# 40 % are given to be continued, and 20 % on either side of a gap.
MOST_GIVEN = 30  # 4 s
MOST_BESIDE_GAP = 15  # 2 s
MIN_DURATION = 0.4  # [s] that the exit head is not listened to, unless it is said otherwise
LAYOUTS = ("repeated", "instruction", "prefix")


class MotionCompletion:
    """Continues clips with one model.

    What is made goes on from the last given frame: in its place and heading, and without a jump, since the VAE decodes
    it with the given latents behind it and :class:`~llamo_ros.pipelines.seam.Seam` fades out what the VAE loses.

    Given clips may have any frame rate, place and heading, with the floor at y = 0; what is made has 30 FPS. The model
    reads the 4 s before a continuation and 2 s on either side of a gap (:meth:`given` tells which frames); what lies
    further away does not count.

    Guidance measures the prompt against the given beginning alone, without a word: [BOS] [BOM] motion. Training teaches
    that as the beginning of a motion with an empty prompt.
    """

    def __init__(self, pipeline: TextToMotion, layout: str | None = None) -> None:
        """Use a model.

        Args:
            pipeline: Has the model.
            layout: How the beginning is given. "instruction": among the words, as in training. "repeated": so too, and
                once more behind the last [BOM], as if the model had begun with it. "prefix": behind the caption alone,
                in that way. None takes the checkpoint's default; benchmarks/motion_tasks.py tells which is best.

        Raises:
            ParameterError: there is no such layout.
        """
        layout = pipeline.model.config.generation.completion if layout is None else layout
        if layout not in LAYOUTS:
            raise ParameterError(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}.")
        self._pipeline, self._layout = pipeline, layout
        self._instructions = Instructions.load()

    def given(self, clip: MotionClip) -> MotionClip:
        """The frames of a clip, at 30 FPS, that a continuation is made from; its last frame is the clip's.

        Raises:
            MotionDataError: the clip has fewer than 8 frames at 30 FPS.
        """
        return read_end_of(clip, MOST_GIVEN)

    def given_ends(self, start: MotionClip, end: MotionClip) -> tuple[MotionClip, MotionClip]:
        """The frames of two clips that the gap between them is filled from; errors as for :meth:`given`."""
        return read_end_of(start, MOST_BESIDE_GAP), read_beginning_of(end, MOST_BESIDE_GAP)

    def predict(
        self,
        clip: MotionClip,
        caption: str | None = None,
        *,
        seconds: float | None = None,
        **options: float | int | str | None,
    ) -> MotionClip:
        """The continuation of a clip, beginning with the frame after its last one.

        Args:
            clip: What is given.
            caption: What the whole motion shows; None leaves it to the model.
            seconds: Length of the continuation, [s]; None lets the exit head decide.
            options: ``seed``, and fields of :class:`~llamo_ros.pipelines.motion_options.MotionOptions`.

        Raises:
            MotionDataError: the clip has fewer than 8 frames at 30 FPS.
            PromptError: the caption is empty, too long, or not text.
            ParameterError: an option is out of range.
        """
        made = self.stream_prediction(clip, caption, seconds=seconds, **options)
        return replace(concatenated([chunk.clip for chunk in made]), text=caption or "")

    def stream_prediction(
        self, clip: MotionClip, caption: str | None = None, **options: float | int | str | None
    ) -> Iterator[MotionChunk]:
        """The same, chunk by chunk, each as soon as it is made."""
        finite(options.get("max_duration"))
        engine = self._pipeline.engine()
        self.open_prediction(engine, clip, caption, **options)
        return engine.chunks()

    def open_prediction(
        self,
        engine: MotionEngine,
        clip: MotionClip,
        caption: str | None = None,
        *,
        seed: int = 0,
        seconds: float | None = None,
        **options: float | int | str | None,
    ) -> MotionStream:
        """The same as a stream of an engine, beside others; the prompt of such a stream may change too."""
        start = given_motion(engine.model, self.given(clip))
        if self._layout == "prefix":
            words = [] if caption is None else [TextPart(self._ids(caption))]
            prompt = laid_out(words, engine.model, self._pipeline.tokenizer)
        else:
            prompt = self._prompt("prediction", caption, {"start": start.latents})
        return self._opened(engine, prompt, start, caption, seed, seconds, options)

    def between(
        self,
        start: MotionClip,
        end: MotionClip,
        caption: str | None = None,
        *,
        seconds: float | None = None,
        **options: float | int | str | None,
    ) -> InBetween:
        """What lies between two clips.

        Args:
            start: Ends where the gap begins.
            end: Begins where the gap ends, with any heading and anywhere: the model sees how it moves, not where.
            caption: What the whole motion shows; None leaves it to the model.
            seconds: Length of the gap, [s]; None lets the exit head decide.
            options: As for :meth:`predict`.

        Raises:
            MotionDataError: a clip has fewer than 8 frames at 30 FPS.
            PromptError: the caption is empty, too long, or not text.
            ParameterError: an option is out of range.
        """
        made = self.stream_between(start, end, caption, seconds=seconds, **options)
        middle = replace(concatenated([chunk.clip for chunk in made]), text=caption or "")
        return InBetween.of(start, middle, end)

    def stream_between(
        self, start: MotionClip, end: MotionClip, caption: str | None = None, **options: float | int | str | None
    ) -> Iterator[MotionChunk]:
        """The middle alone, chunk by chunk. Where it leads is known at its end: see :meth:`InBetween.of`."""
        finite(options.get("max_duration"))
        engine = self._pipeline.engine()
        self.open_between(engine, start, end, caption, **options)
        return engine.chunks()

    def open_between(
        self,
        engine: MotionEngine,
        start: MotionClip,
        end: MotionClip,
        caption: str | None = None,
        *,
        seed: int = 0,
        seconds: float | None = None,
        **options: float | int | str | None,
    ) -> MotionStream:
        """The same as a stream of an engine, beside others.

        Raises:
            ParameterError: also if the layout is "prefix", which has no place for the second clip.
        """
        if self._layout == "prefix":
            raise ParameterError("layout 'prefix' has no place for the clip after a gap; use 'repeated'.")
        first, last = (given_motion(engine.model, clip) for clip in self.given_ends(start, end))
        prompt = self._prompt("in_between", caption, {"start": first.latents, "end": last.latents})
        return self._opened(engine, prompt, first, caption, seed, seconds, options)

    def _prompt(self, task: str, caption: str | None, motions: dict[str, torch.Tensor]) -> Prompt:
        """The canonical prompt of a task."""
        tokenizer = self._pipeline.tokenizer
        words = None if caption is None else checked_prompt(caption)
        parts = sequence_of(self._instructions.default(task, caption=words), motions, tokenizer)
        return laid_out(parts, self._pipeline.model, tokenizer)

    def _ids(self, caption: str) -> tuple[int, ...]:
        return tuple(self._pipeline.tokenizer.encode(checked_prompt(caption)))

    def _opened(
        self,
        engine: MotionEngine,
        prompt: Prompt,
        start: GivenMotion,
        caption: str | None,
        seed: int,
        seconds: float | None,
        options: Mapping[str, float | int | str | None],
    ) -> MotionStream:
        """A stream whose motion goes on from ``start``."""
        frames, state = behind(engine.model, start)
        lead = None if self._layout == "instruction" else start.latents
        request = MotionRequest(caption or "", replace(prompt, lead=lead), Prompt(lead=start.latents), frames, state)
        wanted = {"min_duration": MIN_DURATION, **options}
        if seconds is not None:
            wanted |= {"min_duration": seconds, "max_duration": seconds}
        if wanted.get("guidance_scale") is None:
            wanted["guidance_scale"] = engine.model.config.generation.completion_guidance
        return engine.open_request(request, seed=seed, **wanted)


@torch.inference_mode()
def behind(model: Llamo, start: GivenMotion) -> tuple[StreamFrames, StreamState]:
    """What frames and decoder need to go on from a given motion: its place, heading, posture and decoded past."""
    decoded, state = model.vae.decode(model.denormalise_latents(start.latents)[None])
    last = start.clip.sliced(len(start.clip) - 1)
    x, _, z = last.root_positions[0]
    frames = StreamFrames(
        StreamingDecoder(float(heading(last.rotations[:, 0])[0]), (x, z)),
        before=start.clip.sliced(len(start.clip) - 2),
        seam=Seam(last, decoded[0, -1].cpu().numpy()),
    )
    return frames, state
