"""The Llama architecture, one branch: embedding, layers, norm. Text branch and motion branch are both made of it.

Operation order follows transformers' ``LlamaForCausalLM`` exactly, so that a text-only pass gives bit-identical logits.
Parameter names match that checkpoint format.
"""

# B batch, S sequence, D width, H heads, K key/value heads, E head width

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.model.config import BackboneConfig


class LlamaNorm(nn.Module):
    """RMSNorm, computed in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """X (..., D) scaled to unit root mean square, times the weight, in the dtype of x."""
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * x.to(dtype)


class SelfAttention(nn.Module):
    """Projections of one branch; the attention itself is shared by the branches, see ``mixture_of_transformers``."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.q_proj = nn.Linear(config.width, config.heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.width, bias=False)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down_proj = nn.Linear(config.ffn_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., D) to (..., D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    """Weights of one layer of one branch."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.input_layernorm = LlamaNorm(config.width, config.norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = LlamaNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config)


class LlamaBranch(nn.Module):
    """All layers of one modality, with its own final norm; the text branch also owns the token embedding."""

    def __init__(self, config: BackboneConfig, with_embedding: bool) -> None:
        super().__init__()
        if with_embedding:
            table = torch.empty(config.vocab_size, config.width)
            if not table.is_meta:  # PyTorch imports its compiler, half a second, to draw numbers that have no memory
                nn.init.normal_(table)
            self.embed_tokens = nn.Embedding(config.vocab_size, config.width, _weight=table)
            if not config.tie_embeddings:
                self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.layers))
        self.norm = LlamaNorm(config.width, config.norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., vocab_size) of normed hidden states (..., D)."""
        head = self.lm_head.weight if hasattr(self, "lm_head") else self.embed_tokens.weight
        return F.linear(hidden, head)


def mean_embedding(table_VD: Tensor) -> Tensor:
    """Mean of all token embeddings, shape (D,), float32; summed in parts, so that the table is not copied."""
    return (sum(rows.detach().double().sum(0) for rows in table_VD.split(4096)) / len(table_VD)).float()


def rotary_tables(config: BackboneConfig, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B or 1, 1, S, E) of rotary position embedding for integer ``positions`` (S,) or (B, S)."""
    angles = torch.atleast_2d(positions)[..., None].float() * inverse_frequencies(config, positions.device)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def inverse_frequencies(config: BackboneConfig, device: torch.device) -> Tensor:
    """Angle per position of each pair of channels, shape (E / 2,), [rad].

    With ``rope_scaling``, Llama 3.1's: waves longer than the context it was first trained on become ``factor`` times
    slower, short ones stay, and those between are blended, so that longer contexts look like the trained one.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    plain = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    # Each operation in transformers' order: another order of the same formula differs in the last bit.
    context, low, high = scaling.original_max_positions, scaling.low_freq_factor, scaling.high_freq_factor
    wavelengths = 2 * math.pi / plain
    is_long, is_short = wavelengths > context / low, wavelengths < context / high
    scaled = torch.where(is_long, plain / scaling.factor, plain)
    share_kept = (context / wavelengths - low) / (high - low)
    blended = (1 - share_kept) * scaled / scaling.factor + share_kept * scaled
    return torch.where(is_long | is_short, scaled, blended)


def apply_rotary(x_BHSE: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate queries or keys by their position."""
    first, second = x_BHSE[..., : x_BHSE.shape[-1] // 2], x_BHSE[..., x_BHSE.shape[-1] // 2 :]
    return x_BHSE * cosine + torch.cat((-second, first), dim=-1) * sine
