"""The next tokens of one or many sequences through a Mixture-of-Transformers, with its key-value cache.

Each token goes through the weights of its modality (LLaMo, arXiv 2602.12370, section 3.2), and all attend together:
RMSNorm, rotary embedding, grouped-query attention over the cache, SwiGLU. Between two latents this is one motion token
per sequence; a prompt is many tokens of text at once.

    step = BackboneStep(motion, text)  # once: packs the weights
    step(prompt, ..., cache_rows=[0, 0, 0], lengths=[0, 1, 2], text_rows=3)
    hidden = step(latent, ..., cache_rows=[0], lengths=[3])
"""

# R tokens, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.core.numbers import real_number, whole_number
from llamo_ros.kernels.backbone_step import reference
from llamo_ros.kernels.backends import choose, compiled_kernels

__all__ = ["BackboneStep", "BranchWeights", "LayerWeights"]


@dataclass(frozen=True)
class LayerWeights:
    """One layer; matrices are (outputs, inputs) as in ``torch.nn.Linear``, without bias.

    Attributes:
        attention_norm: Weight of the RMSNorm before attention, shape (D,).
        query_key_value: Queries, then keys, then values, shape ((H + 2 K) E, D).
        attention_output: Shape (D, H E).
        feed_forward_norm: Weight of the RMSNorm before SwiGLU, shape (D,).
        gate_up: What goes through SiLU, then what it is multiplied with, shape (2 F, D).
        down: Shape (D, F).
    """

    attention_norm: Tensor
    query_key_value: Tensor
    attention_output: Tensor
    feed_forward_norm: Tensor
    gate_up: Tensor
    down: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerWeights:
        """The same layer with `function` applied to each tensor."""
        return LayerWeights(*(function(getattr(self, field.name)) for field in fields(self)))


@dataclass(frozen=True)
class BranchWeights:
    """All layers of a branch.

    Attributes:
        heads: H.
        kv_heads: K, a divisor of H.
        head_width: E, even.
        norm: Weight of the final RMSNorm, shape (D,).
        norm_epsilon: Added to the mean square in every RMSNorm.
        layers: From the first to the last.
    """

    heads: int
    kv_heads: int
    head_width: int
    norm: Tensor
    norm_epsilon: float
    layers: tuple[LayerWeights, ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> BranchWeights:
        """The same branch with `function` applied to each tensor."""
        return replace(self, norm=function(self.norm), layers=tuple(layer.map(function) for layer in self.layers))


class BackboneStep:
    """Runs tokens through fixed weights. Safe to call from several threads at once on different rows of a cache.

    Attributes:
        backend: "reference" or "cpu", what "auto" became.
        instruction_set: What the "cpu" backend runs on, one of :func:`~llamo_ros.kernels.backends.instruction_sets`.
        precision: In which the weights of the motion branch are kept.
    """

    def __init__(
        self,
        motion: BranchWeights,
        text: BranchWeights | None = None,
        *,
        backend: str = "auto",
        instruction_set: str | None = None,
        precision: str = "float32",
        text_precision: str | None = None,
    ) -> None:
        """Copy and pack the weights.

        Args:
            motion: Float32, all on one device, at least one layer.
            text: Of the same sizes, but for the feed-forward layer's; None if text goes through the same weights.
            backend: "auto" (the compiled kernel for tensors in main memory, the reference elsewhere), "reference"
                (PyTorch) or "cpu" (compiled, one thread).
            instruction_set: For the "cpu" backend: one of those of this machine. None takes the fastest.
            precision: For the "cpu" backend: "float32", "bfloat16" or "int8". Sums are float32, of int8 exact.
            text_precision: Likewise of the text branch; None for the same.

        Raises:
            ShapeError: the shapes do not fit together.
            ParameterError: a tensor is none, not float32, not finite, or on another device than the first, a number is
                out of range, or the branches differ in their numbers of layers or heads.
            BackendError: backend, instruction set or precision cannot run here, or the kernels are not built.
        """
        _check_weights("motion", motion)
        if text is not None:
            _check_weights("text", text)
            _check_branches(motion, text)
        self._device, self._width = motion.norm.device, len(motion.norm)
        self._shape = (len(motion.layers), motion.kv_heads, motion.head_width)
        self.backend, self.instruction_set, self.precision = choose(backend, self._device, instruction_set, precision)
        # Checked even where there is no such branch, so that a wrong name never passes.
        text_choice = choose(backend, self._device, instruction_set, text_precision or precision)
        self._motion = self._packed(motion, self.precision)
        self._text = self._motion if text is None else self._packed(text, text_choice.precision)

    def _packed(self, weights: BranchWeights, precision: str) -> Any:
        """The weights as the backend takes them."""
        if self.backend == "reference":
            return weights.map(lambda tensor: tensor.detach().clone())
        branch = compiled_kernels("backbone_step").BackboneBranch(
            weights.heads,
            weights.kv_heads,
            weights.head_width,
            weights.norm.detach().contiguous().numpy(),
            weights.norm_epsilon,
            self.instruction_set,
            precision,
        )
        for layer in weights.layers:
            branch.add_layer(*(getattr(layer, f.name).detach().contiguous().numpy() for f in fields(layer)))
        return branch

    @torch.no_grad()
    def __call__(
        self,
        tokens_RD: Tensor,
        cosine_RE: Tensor,
        sine_RE: Tensor,
        keys: Tensor,
        values: Tensor,
        cache_rows: Sequence[int],
        lengths: Sequence[int],
        text_rows: int = 0,
    ) -> Tensor:
        """Final hidden states of more tokens, normed, shape (R, D), fresh memory.

        Args:
            tokens_RD: Embedded tokens, those of text first, float32, shape (R, D).
            cosine_RE: Cosine of the angle of each channel at the token's position, shape (R, E).
            sine_RE: Sine likewise.
            keys: Of all layers, float32, contiguous, shape (layers, rows, K, L, E). Column ``lengths[r]`` of row
                ``cache_rows[r]`` is written.
            values: Likewise, in memory of their own.
            cache_rows: Row of the cache that holds each token's sequence, R of them.
            lengths: Earlier tokens of its sequence, R of them, each below L: the column that the token goes to, and the
                last one that it attends to. Those before it are in the cache, or among these tokens.
            text_rows: How many tokens go through the text branch, the first ones.

        Raises:
            ShapeError: a shape does not fit the weights or the other arguments.
            ParameterError: a tensor is none, not float32, or elsewhere than the weights, a cache is not contiguous, the
                two share memory, a row or length is no whole number or out of range, two tokens have the same place, or
                ``text_rows`` is not among the tokens.
        """
        cache_rows, lengths = _whole_numbers("cache_rows", cache_rows), _whole_numbers("lengths", lengths)
        self._check_call(tokens_RD, cosine_RE, sine_RE, keys, values, cache_rows, lengths, text_rows)
        branches = self._motion, self._text
        if self.backend == "reference":
            tensors = (tokens_RD, cosine_RE, sine_RE, keys, values)
            return reference.backbone_step(*branches, *tensors, cache_rows, lengths, text_rows)
        arrays = (tensor.detach().contiguous().numpy() for tensor in (tokens_RD, cosine_RE, sine_RE, keys, values))
        indexes = (torch.tensor(numbers, dtype=torch.int64).numpy() for numbers in (cache_rows, lengths))
        return torch.from_numpy(
            compiled_kernels("backbone_step").backbone_step(*branches, *arrays, *indexes, text_rows)
        )

    def _check_call(
        self,
        tokens: Tensor,
        cosine: Tensor,
        sine: Tensor,
        keys: Tensor,
        values: Tensor,
        cache_rows: list[int],
        lengths: list[int],
        text_rows: int,
    ) -> None:
        layers, kv_heads, head_width = self._shape
        tensors = {"tokens": tokens, "cosine": cosine, "sine": sine, "keys": keys, "values": values}
        for name, tensor in tensors.items():
            _check_tensor(name, tensor, self._device)
        if tokens.ndim != 2 or tokens.shape[1] != self._width:
            raise ShapeError("tokens", tokens.shape, f"(R, {self._width})", "The width is that of the weights.")
        rows = len(tokens)
        for name in ("cosine", "sine"):
            if tensors[name].shape != (rows, head_width):
                raise ShapeError(name, tensors[name].shape, f"({rows}, {head_width})", "A row for each token.")
        wanted = f"({layers}, rows, {kv_heads}, L, {head_width})"
        for name in ("keys", "values"):
            shape = tensors[name].shape
            if len(shape) != 5 or (shape[0], shape[2], shape[4]) != self._shape or shape != keys.shape:
                raise ShapeError(name, shape, wanted, "Layers, heads and head width are those of the weights.")
            if not tensors[name].is_contiguous():
                raise ParameterError(f"{name} is not contiguous, so it cannot be written in place. Pass a whole cache.")
        if _overlap(keys, values):
            raise ParameterError("keys and values share memory, but both are written. Pass a cache for each.")
        if len(cache_rows) != rows or len(lengths) != rows:
            raise ParameterError(
                f"there are {rows} tokens, {len(cache_rows)} cache_rows and {len(lengths)} lengths; expected as many."
            )
        if whole_number(text_rows) is None or not 0 <= text_rows <= rows:
            raise ParameterError(
                f"text_rows is {text_rows!r}, expected a whole number from 0 to {rows}, the number of tokens."
            )
        if rows and not (0 <= min(cache_rows) and max(cache_rows) < keys.shape[1]):
            raise ParameterError(f"cache_rows are {cache_rows}, expected 0 to {keys.shape[1] - 1}.")
        if rows and not (0 <= min(lengths) and max(lengths) < keys.shape[3]):
            raise ParameterError(f"lengths are {lengths}, expected 0 to {keys.shape[3] - 1}; make the cache longer.")
        if len(set(zip(cache_rows, lengths, strict=True))) != rows:
            raise ParameterError(
                f"two tokens have the same place: cache_rows are {cache_rows} and lengths {lengths}; expected each "
                "pair once."
            )


def _check_branches(motion: BranchWeights, text: BranchWeights) -> None:
    """Raise unless tokens of both branches can attend to one another."""
    sizes = [
        (len(branch.layers), len(branch.norm), branch.heads, branch.kv_heads, branch.head_width, branch.norm.device)
        for branch in (motion, text)
    ]
    if sizes[0] != sizes[1]:
        raise ParameterError(
            f"layers, width, heads, kv_heads, head_width and device are {sizes[0]} in the motion branch and {sizes[1]} "
            "in the text branch; expected the same."
        )


def _check_weights(branch: str, weights: BranchWeights) -> None:
    """Raise unless every tensor is finite float32 on one device, the shapes fit together and the numbers are some."""
    if not isinstance(weights, BranchWeights):
        raise ParameterError(f"{branch} is a {type(weights).__name__}, expected BranchWeights.")
    heads, kv_heads, head_width = (whole_number(n) or 0 for n in (weights.heads, weights.kv_heads, weights.head_width))
    if not isinstance(weights.layers, Sequence) or not weights.layers:
        raise ParameterError(f"the {branch} branch has no layers but {weights.layers!r}, expected at least one.")
    if min(heads, kv_heads, head_width) < 1 or heads % kv_heads or head_width % 2:
        raise ParameterError(
            f"heads is {weights.heads!r}, kv_heads {weights.kv_heads!r} and head_width {weights.head_width!r}; "
            "expected whole numbers, kv_heads to divide heads and head_width to be even."
        )
    if not 0 <= real_number(weights.norm_epsilon) < math.inf:
        raise ParameterError(f"norm_epsilon is {weights.norm_epsilon!r}, expected a number from 0 on, such as 1e-5.")
    device = weights.norm.device if isinstance(weights.norm, Tensor) else torch.device("cpu")
    _check_weight("norm", weights.norm, device, ("D",))
    width, ffn_width = len(weights.norm), None
    for index, layer in enumerate(weights.layers):
        if not isinstance(layer, LayerWeights):
            raise ParameterError(f"layer {index} is a {type(layer).__name__}, expected LayerWeights.")
        if ffn_width is None:
            _check_weight(f"down of layer {index}", layer.down, device, (width, "F"))
            ffn_width = layer.down.shape[1]
        expected = {
            "attention_norm": (width,),
            "query_key_value": ((heads + 2 * kv_heads) * head_width, width),
            "attention_output": (width, heads * head_width),
            "feed_forward_norm": (width,),
            "gate_up": (2 * ffn_width, width),
            "down": (width, ffn_width),
        }
        for name, shape in expected.items():
            _check_weight(f"{name} of layer {index}", getattr(layer, name), device, shape)


def _check_weight(name: str, tensor: Tensor, device: torch.device, shape: tuple[int | str, ...]) -> None:
    """Raise unless it is finite float32 on the device and of this shape, in which a letter stands for any size."""
    _check_tensor(name, tensor, device)
    if tensor.ndim != len(shape) or any(
        size != wanted for size, wanted in zip(tensor.shape, shape, strict=True) if isinstance(wanted, int)
    ):
        raise ShapeError(name, tensor.shape, f"({', '.join(map(str, shape))})", "All layers have the same sizes.")
    if not torch.isfinite(tensor).all():
        raise ParameterError(f"{name} has values that are NaN or infinite. Use an undamaged model.")


def _check_tensor(name: str, tensor: Tensor, device: torch.device) -> None:
    """Raise unless it is a float32 tensor on the device."""
    if not isinstance(tensor, Tensor):
        raise ParameterError(f"{name} is a {type(tensor).__name__}, expected a torch.Tensor. Convert it first.")
    if tensor.dtype != torch.float32 or tensor.device != device:
        raise ParameterError(f"{name} is {tensor.dtype} on {tensor.device}, expected torch.float32 on {device}.")


def _whole_numbers(name: str, numbers: Sequence[int]) -> list[int]:
    """The numbers, which a tensor may hold, as plain ones."""
    try:
        given = list(numbers)
    except TypeError:
        given = [None]
    made = [whole_number(number) for number in given]
    if None in made:
        raise ParameterError(f"{name} are {numbers!r}, expected whole numbers, one for each token.")
    return made


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Whether two contiguous tensors of the same size have memory in common."""
    return abs(first.data_ptr() - second.data_ptr()) < first.numel() * first.element_size()
