"""Sizes and choices of the model, frozen; named presets build them. Nothing in the model reads a global.

Where the LLaMo paper (arXiv 2602.12370) is silent the choice is one field here and one line in docs/decisions.md.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from llamo_ros.core.errors import CheckpointError, ParameterError

FRAMES_PER_LATENT = 4
LATENT_RATE = 7.5  # [Hz] latents per second of motion: 30 FPS / 4


@dataclass(frozen=True)
class MotionVaeConfig:
    """Causal motion VAE: 4 frames of 272 features <-> one latent.

    Attributes:
        latent_dim: Channels of a latent (paper: 32; 16 reconstructs poorly, 64 makes the flow head unstable).
        width: Channels inside the encoder and the decoder.
        dilations: One residual block per entry, in each half, at latent rate; kernel 3 causal.
        sigma_max: Training noise on latents: z = mu + sigma eps, sigma ~ U(0, sigma_max) as a standard deviation, one
            draw per latent (paper Eq. 3; scale is our choice, see docs/decisions.md).
    """

    latent_dim: int = 32
    width: int = 512
    dilations: tuple[int, ...] = (1, 2, 4)
    sigma_max: float = 0.05


@dataclass(frozen=True)
class BackboneConfig:
    """Llama architecture of the text model; the motion branch of the Mixture-of-Transformers is its twin."""

    vocab_size: int = 2048
    width: int = 320
    layers: int = 7
    heads: int = 5
    kv_heads: int = 5
    ffn_width: int = 832
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    max_positions: int = 4096
    tie_embeddings: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True)
class FlowHeadConfig:
    """AdaLN MLP that predicts the velocity of a latent (MAR's, as cited by the paper).

    Attributes:
        width: Channels inside.
        blocks: Residual blocks.
        modulation: "separable" makes every shift, scale and gate A(SiLU(t)) + C(SiLU(c)), so that the time part is a
            table and the condition part one matrix-vector product per latent; "joint" is MAR's A(SiLU(t + c)).
        time_scale: Flow time is multiplied by this before the sinusoidal embedding (t itself is 0..1).
    """

    width: int = 256
    blocks: int = 4
    modulation: str = "separable"
    time_scale: float = 1000.0


@dataclass(frozen=True)
class GenerationConfig:
    """Defaults of sampling; each can be overridden per prompt."""

    flow_steps: int = 50
    guidance_scale: float = 2.5
    temperature: float = 1.0
    exit_threshold: float = 0.5
    min_duration: float = 2.0
    max_duration: float = 10.0


@dataclass(frozen=True)
class LlamoConfig:
    """The whole model. See the parts for the meaning of each number."""

    name: str = "custom"
    vae: MotionVaeConfig = field(default_factory=MotionVaeConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    flow_head: FlowHeadConfig = field(default_factory=FlowHeadConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    exit_width: int = 128
    motion_dropout: float = 0.1

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, the content of config.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LlamoConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: a field is unknown or missing its part.
        """
        parts = {
            "vae": MotionVaeConfig,
            "backbone": BackboneConfig,
            "flow_head": FlowHeadConfig,
            "generation": GenerationConfig,
        }
        try:
            values = dict(data)
            for name, part in parts.items():
                part_values = dict(values[name])
                if "dilations" in part_values:
                    part_values["dilations"] = tuple(part_values["dilations"])
                values[name] = part(**part_values)
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"config.json does not describe a LLaMo model of this version ({error}). "
                "It was written by another version, or edited; use the matching llamo_ros or retrain."
            ) from error


def preset(name: str) -> LlamoConfig:
    """Named sizes: ``tiny`` (random weights, for tests) and ``mini`` (the embedded default).

    Raises:
        ParameterError: there is no such preset.
    """
    presets = {
        "tiny": LlamoConfig(
            name="tiny",
            vae=MotionVaeConfig(latent_dim=8, width=32, dilations=(1, 2)),
            backbone=BackboneConfig(vocab_size=300, width=32, layers=2, heads=2, kv_heads=1, ffn_width=64),
            flow_head=FlowHeadConfig(width=32, blocks=2),
            exit_width=16,
        ),
        # Chosen by benchmarks/sampling_choice.py: less noise at the start of the flow is less jitter at its end.
        "mini": LlamoConfig(name="mini", generation=GenerationConfig(guidance_scale=3.0, temperature=0.8)),
    }
    if name not in presets:
        raise ParameterError(f"there is no preset {name!r}. Presets: {', '.join(presets)}.")
    return presets[name]
