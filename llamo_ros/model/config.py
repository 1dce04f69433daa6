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

DTYPES = ("float32", "bfloat16")
VAE_CHOICES = {
    "body": ("patch", "conv"),
    "variance": ("std", "variance", "predicted"),
    "sigma_per": ("element", "token", "clip"),
}


@dataclass(frozen=True)
class MotionVaeConfig:
    """Causal motion VAE: 4 frames of 272 features <-> one latent.

    Attributes:
        latent_dim: Channels of a latent (paper: 32; 16 reconstructs poorly, 64 makes the flow head unstable).
        width: Channels inside the encoder and the decoder.
        dilations: Causal residual blocks of kernel 3. "patch": one block per entry, in each half, at latent rate.
            "conv": one block per entry in each ResNet, in this order (paper: 9, 3, 1).
        sigma_max: C_sigma of paper Eq. 3: z = mu + sigma eps, sigma ~ U(0, sigma_max) in training.
        body: "patch" folds 4 frames into one vector; "conv" is the paper's convolutional autoencoder.
        variance: What U(0, sigma_max) is: "std", "variance", or "predicted": no draw, the encoder predicts the variance
            as in a plain VAE (the paper's ablation).
        sigma_per: One draw of sigma per "element", "token" (latent) or "clip".
    """

    latent_dim: int = 32
    width: int = 512
    dilations: tuple[int, ...] = (1, 2, 4)
    sigma_max: float = 0.05
    body: str = "patch"
    variance: str = "std"
    sigma_per: str = "token"

    def __post_init__(self) -> None:
        for name, choices in VAE_CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParameterError(
                    f"{name} of the motion VAE is {getattr(self, name)!r}, expected one of: {', '.join(choices)}."
                )
        for name in ("latent_dim", "width"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} of the motion VAE is {getattr(self, name)}, expected at least 1.")
        if not self.dilations or min(self.dilations) < 1:
            raise ParameterError(f"dilations of the motion VAE are {self.dilations}, expected one or more, each >= 1.")
        if not 0.0 <= self.sigma_max < float("inf"):
            raise ParameterError(f"sigma_max of the motion VAE is {self.sigma_max}, expected 0 or more, and finite.")


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's scaling of the rotary frequencies, so that long contexts fit (transformers' ``llama3`` rope type)."""

    factor: float = 32.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class BackboneConfig:
    """Llama architecture of the text model; the motion branch of the Mixture-of-Transformers is its twin.

    Attributes:
        head_size: Width of one attention head; 0 is width / heads.
        rope_scaling: None for plain rotary embeddings.
        separate_motion: False sends motion through the text branch too: no Mixture-of-Transformers, the ablation that
            costs the language model its language.
    """

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
    head_size: int = 0
    rope_scaling: RopeScaling | None = None
    separate_motion: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.head_size or self.width // self.heads


@dataclass(frozen=True)
class FlowHeadConfig:
    """AdaLN MLP that predicts the velocity of a latent (MAR's, as cited by the paper).

    Attributes:
        width: Channels inside.
        blocks: Residual blocks.
        modulation: "separable" makes every shift, scale and gate A(SiLU(t)) + C(SiLU(c)), so that the time part is a
            table and the condition part one matrix-vector product per latent; "joint" is MAR's A(SiLU(t + c)).
        time_scale: Flow time is multiplied by this before the sinusoidal embedding (t itself is 0..1).
        affine_norm: Whether the blocks' LayerNorms have weights of their own, as MAR's.
    """

    width: int = 256
    blocks: int = 4
    modulation: str = "separable"
    time_scale: float = 1000.0
    affine_norm: bool = False


@dataclass(frozen=True)
class GenerationConfig:
    """Defaults of sampling; each can be overridden per prompt, but for the window.

    Attributes:
        flow_steps: Steps of the solver per latent.
        solver: "euler" (the paper's) or "midpoint", see :mod:`llamo_ros.model.latent_sampler`.
        window: Most latents that generation attends to; with so many, a stream is read anew with its prompt and the
            last ``window_context`` of them.
        window_context: See there.
        change_context: Latents kept when the prompt changes in mid-motion or another one follows.
        link: How a prompt that changes or follows begins: "blend", "context" or "conversation", see
            :class:`llamo_ros.pipelines.motion_engine.MotionStream`.
        completion: How the beginning of a motion is given that is to be completed: "repeated", "instruction" or
            "prefix", see :class:`llamo_ros.pipelines.motion_completion.MotionCompletion`.
        completion_guidance: Guidance scale of completions.
        follow_up_null: What guidance measures a follow-up against: "empty", "history" or "first", see
            :class:`llamo_ros.pipelines.conversation.Conversation`.
        history: Most latents of earlier turns that a turn of a conversation reads.
        precision: In which the compiled kernels keep weights: "float32", "bfloat16" or "int8".
    """

    flow_steps: int = 50
    solver: str = "euler"
    guidance_scale: float = 2.5
    temperature: float = 1.0
    exit_threshold: float = 0.5
    min_duration: float = 2.0
    max_duration: float = 10.0
    window: int = 75
    window_context: int = 30
    change_context: int = 4
    link: str = "blend"
    completion: str = "repeated"
    completion_guidance: float = 1.0
    follow_up_null: str = "history"
    history: int = 75
    precision: str = "float32"


@dataclass(frozen=True)
class LlamoConfig:
    """The whole model. See the parts for the meaning of each number.

    Attributes:
        name: Of the preset it was built from.
        exit_width: Channels inside the exit head.
        motion_dropout: On the motion branch, in training.
        dtype: Of the backbone's weights in memory: "float32" or "bfloat16"; the rest is always float32.
    """

    name: str = "custom"
    vae: MotionVaeConfig = field(default_factory=MotionVaeConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    flow_head: FlowHeadConfig = field(default_factory=FlowHeadConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    exit_width: int = 128
    motion_dropout: float = 0.1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ParameterError(f"dtype is {self.dtype!r}, expected one of: {', '.join(DTYPES)}.")

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
                if part_values.get("rope_scaling"):
                    part_values["rope_scaling"] = RopeScaling(**part_values["rope_scaling"])
                values[name] = part(**part_values)
            return cls(**values)
        except (KeyError, TypeError, ParameterError) as error:
            raise CheckpointError(
                f"config.json does not describe a LLaMo model of this version ({error}). "
                "It was written by another version, or edited; use the matching llamo_ros or retrain."
            ) from error


# The paper's motion side, the same at every size (supplement, section 1): convolutional VAE with 32 channels, flow head
# of 12 blocks of width 1536.
_PAPER: dict[str, Any] = {
    "vae": MotionVaeConfig(width=1024, dilations=(9, 3, 1), sigma_max=0.01, body="conv"),
    "flow_head": FlowHeadConfig(width=1536, blocks=12, modulation="joint", affine_norm=True),
    "generation": GenerationConfig(guidance_scale=1.0),
    "exit_width": 1024,
    "motion_dropout": 0.0,
    "dtype": "bfloat16",
}
_LLAMA3: dict[str, Any] = {"vocab_size": 128_256, "rope_theta": 500_000.0, "max_positions": 131_072}

PRESETS: dict[str, LlamoConfig] = {
    "tiny": LlamoConfig(
        name="tiny",
        vae=MotionVaeConfig(latent_dim=8, width=32, dilations=(1, 2)),
        backbone=BackboneConfig(vocab_size=300, width=32, layers=2, heads=2, kv_heads=1, ffn_width=64),
        flow_head=FlowHeadConfig(width=32, blocks=2),
        exit_width=16,
    ),
    # Chosen by benchmarks/sampling_choice.py: less noise at the start of the flow is less jitter at its end.
    # Its weights are stored in bfloat16, so the kernels lose nothing by keeping them so.
    "mini": LlamoConfig(
        name="mini", generation=GenerationConfig(guidance_scale=3.0, temperature=0.8, precision="bfloat16")
    ),
    "1b": LlamoConfig(
        name="1b",
        backbone=BackboneConfig(
            width=2048, layers=16, heads=32, kv_heads=8, ffn_width=8192, rope_scaling=RopeScaling(32.0), **_LLAMA3
        ),
        **_PAPER,
    ),
    "3b": LlamoConfig(
        name="3b",
        backbone=BackboneConfig(
            width=3072, layers=28, heads=24, kv_heads=8, ffn_width=8192, rope_scaling=RopeScaling(32.0), **_LLAMA3
        ),
        **_PAPER,
    ),
    "8b": LlamoConfig(
        name="8b",
        backbone=BackboneConfig(
            width=4096,
            layers=32,
            heads=32,
            kv_heads=8,
            ffn_width=14_336,
            rope_scaling=RopeScaling(8.0),
            tie_embeddings=False,
            **_LLAMA3,
        ),
        **_PAPER,
    ),
}


BASE_PRESETS = ("1b", "3b", "8b", "custom")  # made of a Llama; custom takes its sizes from it


def preset(name: str) -> LlamoConfig:
    """Named sizes: ``tiny`` (for tests), ``mini`` (the embedded default), ``1b``, ``3b`` and ``8b`` (the paper's).

    Raises:
        ParameterError: there is no such preset.
    """
    if name not in PRESETS:
        raise ParameterError(f"there is no preset {name!r}. Presets: {', '.join(PRESETS)}.")
    return PRESETS[name]
