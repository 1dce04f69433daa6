"""What the backbone step in Triton works with: packed weights, and the memory of its calls."""

# R tokens, D width, H heads, K key/value heads, E head width, F feed-forward width

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llamo_ros.kernels.triton_launch import quantize

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step import BranchWeights


@dataclass(frozen=True)
class Matrix:
    """The weights of a linear layer without bias.

    Attributes:
        values: Shape (outputs, inputs), of a type in ``STORAGE``.
        scale: Of each output, shape (outputs,), float32; None if the type needs none.
    """

    values: Tensor
    scale: Tensor | None


@dataclass(frozen=True)
class PackedBranch:
    """All layers of a branch as the step reads them.

    Attributes:
        heads: H.
        kv_heads: K.
        head_width: E.
        norm_epsilon: Added to the mean square in every RMSNorm.
        norm: Weight of the final one, shape (D,), float32 as all norms.
        layers: Norms and matrices of each layer, by the names of
            :class:`~llamo_ros.kernels.backbone_step.LayerWeights`.
    """

    heads: int
    kv_heads: int
    head_width: int
    norm_epsilon: float
    norm: Tensor
    layers: tuple[dict[str, Any], ...]

    @property
    def ffn_width(self) -> int:
        """F."""
        return self.layers[0]["down"].values.shape[1]

    @property
    def activation(self) -> torch.dtype:
        """Type of what matrices are multiplied with, and of the products."""
        return torch.float32 if self.layers[0]["down"].values.dtype == torch.float32 else torch.bfloat16


def pack(weights: BranchWeights, precision: str) -> PackedBranch:
    """Copy the weights to what the step reads; `precision` is a key of STORAGE."""

    def packed(tensor: Tensor) -> Tensor | Matrix:
        tensor = tensor.detach().float().clone(memory_format=torch.contiguous_format)
        return tensor if tensor.ndim == 1 else Matrix(*quantize(tensor, precision))

    return PackedBranch(
        weights.heads,
        weights.kv_heads,
        weights.head_width,
        weights.norm_epsilon,
        packed(weights.norm),
        tuple({name: packed(tensor) for name, tensor in vars(layer).items()} for layer in weights.layers),
    )


# --------------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Buffers:
    """The memory of calls with R tokens. A CUDA graph keeps the addresses, so arguments are copied in here.

    Attributes:
        x: Tokens, later what the layers made of them, shape (R, D), float32.
        cosine: Shape (R, E), float32.
        sine: Shape (R, E), float32.
        cache_rows: Shape (R,), int64.
        lengths: Shape (R,), int64.
        normed: What matrices are multiplied with, shape (R, D), of the type of activations as all that follow.
        heads: Queries, keys, values, shape (R, (H + 2 K) E).
        attended: Shape (R, H E).
        gate_up: Shape (R, 2 F).
        gated: Shape (R, F).
        change: What is added to x next, shape (R, D).
        hidden: The result, shape (R, D), float32.
    """

    x: Tensor
    cosine: Tensor
    sine: Tensor
    cache_rows: Tensor
    lengths: Tensor
    normed: Tensor
    heads: Tensor
    attended: Tensor
    gate_up: Tensor
    gated: Tensor
    change: Tensor
    hidden: Tensor

    def part(self, first: int, last: int) -> Buffers:
        """The memory of tokens `first` to `last` - 1."""
        return Buffers(*(tensor[first:last] for tensor in vars(self).values()))


def make_buffers(motion: PackedBranch, text: PackedBranch, text_rows: int, rows: int) -> tuple[Buffers, list[Part]]:
    """Uninitialised memory for calls with `rows` tokens, the first `text_rows` of text, on the device of the weights.

    Returns:
        All of it, and the parts that go through each branch.
    """
    width, heads_width = len(motion.norm), motion.heads * motion.head_width

    def empty(*columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((rows, *columns), dtype=dtype, device=motion.norm.device)

    narrow = motion.activation
    buffers = Buffers(
        x=empty(width),
        cosine=empty(motion.head_width),
        sine=empty(motion.head_width),
        cache_rows=empty(dtype=torch.int64),
        lengths=empty(dtype=torch.int64),
        normed=empty(width, dtype=narrow),
        heads=empty(heads_width + 2 * motion.kv_heads * motion.head_width, dtype=narrow),
        attended=empty(heads_width, dtype=narrow),
        gate_up=empty(2 * motion.ffn_width, dtype=narrow),
        gated=empty(motion.ffn_width, dtype=narrow),
        change=empty(width, dtype=narrow),
        hidden=empty(width),
    )
    parts = [Part(text, buffers.part(0, text_rows)), Part(motion, buffers.part(text_rows, rows))]
    if text.ffn_width != motion.ffn_width:
        wider = {"gate_up": 2 * text.ffn_width, "gated": text.ffn_width}
        own = {name: empty(columns, dtype=narrow)[:text_rows] for name, columns in wider.items()}
        parts[0] = Part(text, replace(parts[0].buffers, **own))
    return buffers, [part for part in parts if len(part.buffers.x)]


@dataclass(frozen=True)
class Part:
    """Some of the tokens of a call.

    Attributes:
        branch: The weights that they go through.
        buffers: Their memory.
    """

    branch: PackedBranch
    buffers: Buffers
