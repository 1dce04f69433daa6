"""MotionOptions: how a prompt is performed, in seconds; None takes the checkpoint's default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.numbers import real_number
from llamo_ros.model.config import LATENT_RATE, GenerationConfig
from llamo_ros.model.passages import SamplingOptions

MAX_DURATION = 600.0  # [s]


@dataclass(frozen=True)
class MotionOptions:
    """Options of one prompt. None takes the checkpoint's default. Durations are rounded to whole latents, 0.13 s each.

    Attributes:
        min_duration: The motion goes on at least this long, [s]; the exit head is not listened to before.
        max_duration: The motion ends at the latest after this, [s]; ``math.inf`` leaves it to the exit head alone.
        guidance_scale: How strictly to follow the text; 1 is plain.
        temperature: Scale of the noise that latents are made from; lower is calmer and less varied.
        flow_steps: Steps of the solver per latent; a midpoint step costs two Euler steps.
        solver: "euler" or "midpoint".
        exit_threshold: The motion ends when the exit head is this sure, 0 to 1; above 1 it never ends by itself.
    """

    min_duration: float | None = None
    max_duration: float | None = None
    guidance_scale: float | None = None
    temperature: float | None = None
    flow_steps: int | None = None
    solver: str | None = None
    exit_threshold: float | None = None

    def sampling(self, defaults: GenerationConfig) -> SamplingOptions:
        """These options with the defaults of a checkpoint where they are None, in latents.

        Raises:
            ParameterError: an option is out of range.
        """

        def given(name: str) -> float | int | str:
            value = getattr(self, name)
            return getattr(defaults, name) if value is None else value

        longest = given("max_duration")
        shortest = 0.0 if self.min_duration is None else self.min_duration
        for name, value in (("min_duration", shortest), ("max_duration", longest)):
            endless = name == "max_duration" and value == math.inf
            if not (endless or 0 <= real_number(value) <= MAX_DURATION):
                raise ParameterError(f"{name} is {value!r}, expected between 0 and {MAX_DURATION:.0f} seconds.")
        if self.min_duration is None:
            shortest = min(defaults.min_duration, longest)
        if shortest > longest or longest == 0:
            raise ParameterError(f"min_duration {shortest} s exceeds max_duration {longest} s, or that is 0.")
        return SamplingOptions(
            guidance_scale=given("guidance_scale"),
            temperature=given("temperature"),
            min_latents=max(1, round(shortest * LATENT_RATE)),
            max_latents=None if longest == math.inf else max(1, round(longest * LATENT_RATE)),
            exit_threshold=given("exit_threshold"),
            flow_steps=given("flow_steps"),
            solver=given("solver"),
        )
