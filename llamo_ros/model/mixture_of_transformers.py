"""Mixture-of-Transformers (paper section 3.2): norms, projections and FFN per modality, one causal attention.

Tokens reach their branch through index lists, so a pass with one modality touches one branch only: text-only input runs
exactly the operations of the base Llama and never reads a motion weight. With ``separate_motion=False`` there is no
motion branch and every token goes through the text branch (the ablation).
"""

# B batch, S sequence (text and motion), D width, H heads, K key/value heads, E head width

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llamo_ros.core.errors import ShapeError
from llamo_ros.model.config import BackboneConfig
from llamo_ros.model.llama import LlamaBranch, LlamaLayer, apply_rotary, rotary_tables


@dataclass(frozen=True)
class ModalityRoute:
    """Which tokens of a flattened (B * S) sequence go through which branch.

    Attributes:
        only: "text" or "motion" if all tokens are of that modality; then there are no lists. "" if they are mixed.
        text: Flat indexes of text tokens.
        motion: Flat indexes of motion tokens.
        restore: Position of each token in the concatenation [text, motion].
    """

    only: str = ""
    text: Tensor | None = None
    motion: Tensor | None = None
    restore: Tensor | None = None

    @classmethod
    def of(cls, is_motion_BS: Tensor) -> ModalityRoute:
        """Route for a boolean mask (B, S) that is true at motion tokens."""
        flat = is_motion_BS.reshape(-1)
        motion = flat.nonzero(as_tuple=True)[0]
        if len(motion) == 0:
            return TEXT_ONLY
        if len(motion) == len(flat):
            return MOTION_ONLY
        text = (~flat).nonzero(as_tuple=True)[0]
        restore = torch.empty_like(flat, dtype=torch.long)
        restore[text] = torch.arange(len(text), device=flat.device)
        restore[motion] = torch.arange(len(text), len(flat), device=flat.device)
        return cls("", text, motion, restore)

    def split(self, x_BSD: Tensor) -> dict[str, Tensor]:
        """Tokens of x (B, S, D) by modality: (N, D) each, or (B, S, D) as it is where there is only one."""
        if self.only:
            return {self.only: x_BSD}
        flat = x_BSD.reshape(-1, x_BSD.shape[-1])
        return {"text": flat.index_select(0, self.text), "motion": flat.index_select(0, self.motion)}

    def merge(self, streams: dict[str, Tensor], batch: int) -> Tensor:
        """Inverse of :meth:`split`: tokens (B, S, D) in reading order."""
        if self.only:
            return streams[self.only]
        both = torch.cat([streams["text"], streams["motion"]]).index_select(0, self.restore)
        return both.reshape(batch, -1, both.shape[-1])


TEXT_ONLY = ModalityRoute("text")
MOTION_ONLY = ModalityRoute("motion")


class TokenCache(Protocol):
    """Earlier tokens of a pass: :class:`KeyValueCache`, :class:`KeyValuePrefix`, or some slots of a ``SlotCache``.

    Attributes:
        length: Earlier tokens; of the longest row where rows differ.
        is_ragged: Whether rows differ in length.
    """

    length: int
    is_ragged: bool

    def positions(self, count: int, device: torch.device) -> Tensor:
        """Positions of ``count`` new tokens, shape (S,), or (B, S) where rows differ."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer with those (B, K, S, E) of the new tokens behind them."""

    def advance(self, count: int) -> None:
        """All layers have been extended by ``count`` tokens."""


class KeyValueCache:
    """Keys and values of all layers for the tokens so far, in buffers allocated once."""

    is_ragged = False

    def __init__(
        self, config: BackboneConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Most tokens it can hold."""
        return self.keys.shape[3]

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """Keys and values, shape (layers, B, K, capacity, E) each."""
        return self.keys, self.values

    @property
    def numbers(self) -> tuple[list[int], list[int]]:
        """Row of each sequence, and the tokens it holds."""
        rows = self.keys.shape[1]
        return list(range(rows)), [self.length] * rows

    def positions(self, count: int, device: torch.device) -> Tensor:
        """Positions of the next ``count`` tokens, shape (S,)."""
        return torch.arange(self.length, self.length + count, device=device)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values (B, K, S, E) of new tokens; returns all of this layer's so far."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ShapeError("keys", tuple(keys.shape), f"at most {self.capacity - self.length} more tokens")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, count: int) -> None:
        """All layers hold ``count`` more tokens."""
        self.length += count


class KeyValuePrefix:
    """Keys and values of a frozen prefix: new ones are put behind it, not kept, so that a backward pass can follow."""

    is_ragged = False

    def __init__(self, cache: KeyValueCache) -> None:
        self.length = cache.length
        self._keys, self._values = cache.keys[..., : cache.length, :], cache.values[..., : cache.length, :]

    def positions(self, count: int, device: torch.device) -> Tensor:
        """Positions of ``count`` tokens behind the prefix, shape (S,)."""
        return torch.arange(self.length, self.length + count, device=device)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of this layer: the prefix's, then the given ones (B, K, S, E)."""
        return torch.cat([self._keys[layer], keys], dim=2), torch.cat([self._values[layer], values], dim=2)

    def advance(self, count: int) -> None:
        """Nothing: the prefix stays as it is."""


class MixtureOfTransformers(nn.Module):
    """Text branch and motion branch around one shared causal self-attention."""

    def __init__(self, config: BackboneConfig, motion_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.motion_dropout = motion_dropout
        self.checkpointing = False  # whether layers are computed again on the way back, in place of kept activations
        self.text = LlamaBranch(config, with_embedding=True)
        self.motion = LlamaBranch(config, with_embedding=False) if config.separate_motion else None

    def copy_text_to_motion(self) -> None:
        """Start the motion branch, if there is one, as a copy of the text branch (paper, supplement)."""
        if self.motion is None:
            return
        with torch.no_grad():
            source = dict(self.text.named_parameters())
            for name, parameter in self.motion.named_parameters():
                parameter.copy_(source[name])

    def forward(
        self,
        x_BSD: Tensor,
        route: ModalityRoute,
        cache: TokenCache | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states, normed by each token's branch.

        Args:
            x_BSD: Embedded tokens, shape (B, S, D).
            route: Which token is of which modality.
            cache: Earlier tokens; extended by these S.
            key_mask: True at tokens that may be attended to, shape (B, cached + S); None if all may.

        Returns:
            Hidden states, shape (B, S, D).
        """
        batch, sequence, _ = x_BSD.shape
        positions = cache.positions(sequence, x_BSD.device) if cache else torch.arange(sequence, device=x_BSD.device)
        rotary = rotary_tables(self.config, positions, x_BSD.dtype)
        mask = _attention_mask(positions, cache, key_mask)
        route = route if self.motion else TEXT_ONLY
        branches = {"text": self.text, "motion": self.motion or self.text}
        streams = route.split(x_BSD)  # kept by modality from layer to layer; only attention sees the reading order
        for index in range(self.config.layers):
            layer_of = {modality: branches[modality].layers[index] for modality in streams}
            arguments = (index, streams, layer_of, route, batch, rotary, mask, cache)
            if self.checkpointing and torch.is_grad_enabled():
                streams = checkpoint(self._through_layer, *arguments, use_reentrant=False)
            else:
                streams = self._through_layer(*arguments)
        if cache:
            cache.advance(sequence)
        return route.merge({modality: branches[modality].norm(x) for modality, x in streams.items()}, batch)

    def _through_layer(
        self, index: int, streams: dict[str, Tensor], layer_of: dict[str, LlamaLayer], *shared: Any
    ) -> dict[str, Tensor]:
        """The streams after one layer; ``shared`` is what all layers have in common."""
        streams = self._attended(index, streams, layer_of, *shared)
        return {
            modality: x + self._drop(modality, layer_of[modality].mlp(layer_of[modality].post_attention_layernorm(x)))
            for modality, x in streams.items()
        }

    def _attended(
        self,
        index: int,
        streams: dict[str, Tensor],
        layer_of: dict[str, LlamaLayer],
        route: ModalityRoute,
        batch: int,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: TokenCache | None,
    ) -> dict[str, Tensor]:
        """The streams after the attention of one layer, residual added."""
        normed = {modality: layer_of[modality].input_layernorm(x) for modality, x in streams.items()}
        weights = {modality: layer_of[modality].self_attn for modality in streams}
        queries, keys, values = (
            self._heads(route.merge({m: getattr(weights[m], name)(x) for m, x in normed.items()}, batch))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        queries, keys = apply_rotary(queries, *rotary), apply_rotary(keys, *rotary)
        if cache:
            keys, values = cache.extend(index, keys, values)
        attended_BHSE = self._attention(queries, keys, values, mask)
        attended = route.split(attended_BHSE.transpose(1, 2).flatten(2).contiguous())
        return {m: x + self._drop(m, weights[m].o_proj(attended[m])) for m, x in streams.items()}

    def _attention(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled("cpu") and queries.device.type == "cpu":
            # The CPU's bfloat16 attention is 3 to 8 times slower than float32 at these sizes, forward and backward.
            with torch.autocast("cpu", enabled=False):
                return self._attention(queries.float(), keys.float(), values.float(), mask)
        return F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and queries.shape[2] > 1,
            enable_gqa=self.config.kv_heads != self.config.heads,
        )

    def _heads(self, x_BSD: Tensor) -> Tensor:
        return x_BSD.view(*x_BSD.shape[:-1], -1, self.config.head_dim).transpose(1, 2)

    def _drop(self, modality: str, x: Tensor) -> Tensor:
        return F.dropout(x, self.motion_dropout, self.training) if modality == "motion" else x


def _attention_mask(positions: Tensor, cache: TokenCache | None, key_mask: Tensor | None) -> Tensor | None:
    """Boolean mask (B or 1, 1, S, past + S) for tokens at (S,) or (B, S); None where plain causal attention will do."""
    past, is_ragged = (cache.length, cache.is_ragged) if cache else (0, False)
    sequence = positions.shape[-1]
    if key_mask is None and not is_ragged and (past == 0 or sequence == 1):
        return None
    rows = torch.atleast_2d(positions)[:, None, :, None]
    columns = torch.arange(past + sequence, device=positions.device)
    causal = columns <= rows
    if key_mask is None:
        return causal
    # A padding token attends to itself, so that no row of the softmax is empty (NaN).
    return (causal & key_mask[:, None, None, :]) | (columns == rows)
