"""Text in, motion out, four frames at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.model.config import FRAMES_PER_LATENT, LATENT_RATE
from llamo_ros.model.flow_head import LatentSampler
from llamo_ros.model.generation import SamplingOptions, generate_latents
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer, checked_prompt
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import StreamingDecoder

MAX_DURATION = 600.0  # [s]


@dataclass(frozen=True)
class MotionChunk:
    """The frames of one latent.

    Attributes:
        clip: Four frames at 30 FPS, continuing the chunk before.
        start_index: Index of the first of them in the motion.
        latency: Time it took to make them, [s].
        is_final: Whether the motion ends with this chunk.
    """

    clip: MotionClip
    start_index: int
    latency: float
    is_final: bool


class TextToMotion:
    """Performs prompts with one model; keeps it loaded. One motion at a time."""

    def __init__(self, model: Llamo, tokenizer: TextTokenizer, backend: str = "auto") -> None:
        self._model, self._tokenizer, self._backend = model, tokenizer, backend
        self._samplers: dict[int, LatentSampler] = {}

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path = "llamo-mini", device: str = "cpu", threads: int = 1, backend: str = "auto"
    ) -> TextToMotion:
        """Load a shipped model by name, or a checkpoint folder.

        Args:
            checkpoint: Name or folder.
            device: PyTorch device.
            threads: CPU threads of PyTorch in this process; one is enough for ``llamo-mini`` and leaves the rest free.
            backend: Of the flow sampler: auto, cpu or reference.

        Raises:
            CheckpointError: the checkpoint is unknown, incomplete or damaged.
        """
        torch.set_num_threads(threads)
        model, tokenizer = load_checkpoint(checkpoint, device)
        return cls(model, tokenizer, backend)

    @property
    def model(self) -> Llamo:
        """The model, in evaluation mode."""
        return self._model

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
        flow_steps: int | None = None,
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
            flow_steps: Euler steps of the flow head per latent.
            start_heading: Heading of the first frame, [rad].
            start_xz: Where the pelvis starts, [m].

        Raises:
            PromptError: the text is empty, too long, or not text.
            ParameterError: an option is out of range.
        """
        ids = self._tokenizer.encode(checked_prompt(text))
        options = self._options(min_duration, max_duration, guidance_scale)
        sampler = self._sampler(flow_steps)
        return self._chunks(ids, options, sampler, seed, StreamingDecoder(start_heading, start_xz))

    def __call__(self, text: str, **options: float | int | None) -> MotionClip:
        """The whole motion at once; options as for :meth:`stream`."""
        return replace(concatenated([chunk.clip for chunk in self.stream(text, **options)]), text=text)

    def unconditional(
        self, *, seed: int = 0, max_duration: float | None = None, min_duration: float = 0.0
    ) -> MotionClip:
        """A motion without a prompt, as the null branch of guidance sees it."""
        options = replace(self._options(min_duration, max_duration, 1.0))
        chunks = self._chunks([], options, self._sampler(None), seed, StreamingDecoder())
        return concatenated([chunk.clip for chunk in chunks])

    def batch(
        self, texts: Sequence[str], *, seeds: Sequence[int], max_duration: float, guidance_scale: float | None = None
    ) -> list[MotionClip]:
        """Motions of many prompts together (for evaluation), each cut where its own exit head ends it.

        An empty text gives an unconditional motion.
        """
        ids = [self._tokenizer.encode(checked_prompt(text)) if text else [] for text in texts]
        options = self._options(None, max_duration, guidance_scale)
        steps = list(generate_latents(self._model, ids, self._tokenizer.bos, self._sampler(None), options, seeds))
        latents = torch.stack([step.latents for step in steps], dim=1)
        features = self._model.vae.decode(self._model.denormalise_latents(latents))[0]
        exits = torch.stack([step.exit_probability for step in steps], dim=1) >= options.exit_threshold
        clips = []
        for row, text in enumerate(texts):
            stops = exits[row].nonzero()[:, 0] + 1
            stops = stops[stops >= options.min_latents]
            count = int(stops[0]) if len(stops) else len(steps)
            values = features[row, : count * FRAMES_PER_LATENT].cpu().numpy()
            clips.append(replace(StreamingDecoder().decode(values), text=text))
        return clips

    def _options(
        self, min_duration: float | None, max_duration: float | None, guidance_scale: float | None
    ) -> SamplingOptions:
        defaults = self._model.config.generation
        longest = defaults.max_duration if max_duration is None else max_duration
        shortest = min(defaults.min_duration, longest) if min_duration is None else min_duration
        for name, value in (("min_duration", shortest), ("max_duration", longest)):
            if not (np.isfinite(value) and 0 <= value <= MAX_DURATION):
                raise ParameterError(f"{name} is {value}, expected between 0 and {MAX_DURATION:.0f} seconds.")
        if shortest > longest or longest == 0:
            raise ParameterError(f"min_duration {shortest} s exceeds max_duration {longest} s, or that is 0.")
        return SamplingOptions(
            guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
            temperature=defaults.temperature,
            min_latents=max(1, round(shortest * LATENT_RATE)),
            max_latents=max(1, round(longest * LATENT_RATE)),
            exit_threshold=defaults.exit_threshold,
        )

    def _sampler(self, flow_steps: int | None) -> LatentSampler:
        steps = self._model.config.generation.flow_steps if flow_steps is None else flow_steps
        if not 1 <= steps <= 1000:
            raise ParameterError(f"flow_steps is {steps}, expected 1 to 1000.")
        if steps not in self._samplers:
            self._samplers[steps] = self._model.flow_head.sampler(steps, self._backend)
        return self._samplers[steps]

    @torch.inference_mode()
    def _decoded(
        self, latents: torch.Tensor, state: list[torch.Tensor] | None
    ) -> tuple[np.ndarray, list[torch.Tensor]]:
        features, state = self._model.vae.decode(self._model.denormalise_latents(latents)[:, None], state)
        return features[0].cpu().numpy(), state

    def _chunks(
        self, ids: list[int], options: SamplingOptions, sampler: LatentSampler, seed: int, decoder: StreamingDecoder
    ) -> Iterator[MotionChunk]:
        state = None
        began = time.perf_counter()
        steps = generate_latents(self._model, [ids], self._tokenizer.bos, sampler, options, [seed])
        for index, step in enumerate(steps):
            features, state = self._decoded(step.latents, state)
            clip = decoder.decode(features)
            now = time.perf_counter()
            yield MotionChunk(clip, index * FRAMES_PER_LATENT, now - began, step.is_final)
            began = time.perf_counter()
