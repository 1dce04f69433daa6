"""LLaMo: text and motion branch, motion VAE, adapter, projector, flow head, exit head. This file only joins them."""

# B batch, S sequence (text and motion), D width, C latent channels, V text vocabulary

from __future__ import annotations

import torch
from torch import Tensor, nn

from llamo_ros.model.config import LlamoConfig
from llamo_ros.model.exit_head import ExitHead
from llamo_ros.model.flow_head import FlowHead
from llamo_ros.model.llama import mean_embedding
from llamo_ros.model.mixture_of_transformers import (
    TEXT_ONLY,
    KeyValueCache,
    KeyValuePrefix,
    MixtureOfTransformers,
    ModalityRoute,
)
from llamo_ros.model.motion_adapter import MotionMlp
from llamo_ros.model.motion_vae import MotionVae

MOTION = -1  # place of a latent in a token sequence
PADDING = -2
WEIGHT_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Llamo(nn.Module):
    """One model for both directions between language and motion.

    Token sequences are integers: text ids below V, ``begin_motion`` = V and ``end_motion`` = V + 1 (rows of their own,
    so the frozen text embedding stays untouched and the text logits have V columns), ``MOTION`` where a latent stands.

    The backbone and the two rows are in the configured dtype. All else is small and stays in float32: the VAE, the
    statistics and the flow head, whose many small steps bfloat16 would round away, and what leads to and from them.
    """

    def __init__(self, config: LlamoConfig) -> None:
        super().__init__()
        self.config = config
        width, latent_dim = config.backbone.width, config.vae.latent_dim
        self.vae = MotionVae(config.vae)
        dtype = WEIGHT_DTYPES[config.dtype]
        self.backbone = MixtureOfTransformers(config.backbone, config.motion_dropout).to(dtype)
        self.special_tokens = nn.Parameter(torch.zeros(2, width, dtype=dtype))  # [BOM], [EOM]
        self.adapter = MotionMlp(latent_dim, width)
        self.projector = MotionMlp(width, width)
        self.flow_head = FlowHead(config.flow_head, latent_dim, width)
        self.exit_head = ExitHead(width, config.exit_width)
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))

    @property
    def begin_motion(self) -> int:
        """Token id of [BOM]."""
        return self.config.backbone.vocab_size

    @property
    def end_motion(self) -> int:
        """Token id of [EOM]."""
        return self.config.backbone.vocab_size + 1

    def parameter_counts(self) -> dict[str, int]:
        """Number of weights by part; the text branch counts its embedding, and a tied one once."""
        parts = {
            "text branch": self.backbone.text,
            "motion branch": self.backbone.motion,
            "adapter": self.adapter,
            "projector": self.projector,
            "flow head": self.flow_head,
            "exit head": self.exit_head,
            "motion VAE": self.vae,
        }
        counts = {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()}
        return counts | {"[BOM] and [EOM]": self.special_tokens.numel()}

    def initialise_motion(self) -> None:
        """Before motion training: motion branch from the text branch, [BOM] and [EOM] from the mean embedding."""
        self.backbone.copy_text_to_motion()
        self.initialise_special_tokens()

    def initialise_special_tokens(self) -> None:
        """[BOM] and [EOM] to the mean of the text embedding."""
        with torch.no_grad():
            self.special_tokens.copy_(mean_embedding(self.backbone.text.embed_tokens.weight).expand(2, -1))

    def freeze_text_and_vae(self) -> None:
        """Only the motion side and the two new token rows stay trainable (paper, supplement)."""
        self.vae.requires_grad_(False)
        self.backbone.text.requires_grad_(False)

    def embed(self, tokens_BS: Tensor, latents_NC: Tensor) -> Tensor:
        """Token embeddings (B, S, D); the N latents (normalised) fill the ``MOTION`` places in reading order."""
        vocab = self.config.backbone.vocab_size
        x_BSD = self.backbone.text.embed_tokens(tokens_BS.clamp(0, vocab - 1))
        special = tokens_BS >= vocab
        rows = self.special_tokens[(tokens_BS - vocab).clamp(0, 1)].to(x_BSD.dtype)
        x_BSD = torch.where(special[..., None], rows, x_BSD)
        motion = (tokens_BS == MOTION).reshape(-1).nonzero(as_tuple=True)[0]
        if len(motion) == 0:
            return x_BSD
        flat = x_BSD.reshape(-1, x_BSD.shape[-1])
        return flat.index_copy(0, motion, self.adapter(latents_NC).to(flat.dtype)).reshape(x_BSD.shape)

    def forward(
        self,
        tokens_BS: Tensor,
        latents_NC: Tensor,
        cache: KeyValueCache | KeyValuePrefix | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, S, D) of a sequence of text and motion.

        Args:
            tokens_BS: Token ids, [BOM], [EOM], ``MOTION`` and ``PADDING``, shape (B, S).
            latents_NC: Normalised latents of all ``MOTION`` places in reading order, shape (N, C).
            cache: Keys and values of earlier tokens; a KeyValueCache is extended.
            key_mask: True at tokens that may be attended to, shape (B, cached + S); None if all may.
        """
        route = ModalityRoute.of(tokens_BS == MOTION)
        return self.backbone(self.embed(tokens_BS, latents_NC), route, cache, key_mask)

    def text_logits(self, tokens_BS: Tensor, cache: KeyValueCache | None = None, last_only: bool = False) -> Tensor:
        """Logits (B, S, V) of text alone: bit-identical to the base language model, no motion weight is read.

        There is no column for [BOM] or [EOM], so text generation cannot write them. With ``last_only`` the logits are
        those of the last token, (B, 1, V): a long prompt needs no others.
        """
        hidden_BSD = self.backbone(self.backbone.text.embed_tokens(tokens_BS), TEXT_ONLY, cache)
        return self.backbone.text.logits(hidden_BSD[:, -1:] if last_only else hidden_BSD)

    def normalise_latents(self, z: Tensor) -> Tensor:
        """VAE latents (..., C) to zero mean, unit scale, as the sequence model sees them."""
        return (z - self.latent_mean) / self.latent_std

    def denormalise_latents(self, z: Tensor) -> Tensor:
        """Inverse of :meth:`normalise_latents`."""
        return z * self.latent_std + self.latent_mean
