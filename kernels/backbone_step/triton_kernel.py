"""The backbone step on an NVIDIA GPU, in Triton. Imported only when it is asked for: the package works without Triton.

One kernel each for residual and RMSNorm; for rotary embedding, cache and attention; and for SwiGLU (triton_layers.py).
The matrix products between them are PyTorch's (cuBLAS), or Triton's where weights have scales (triton_steps.py has the
order). Where every sequence gets one token of motion, which is what happens between two latents, all layers are
recorded in one CUDA graph.
"""

# R tokens, D width, K key/value heads, E head width, L columns of the cache

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.kernels.backbone_step.triton_plan import Buffers, Part, make_buffers, pack
from llamo_ros.kernels.backbone_step.triton_steps import step_launches
from llamo_ros.kernels.backends import check_triton
from llamo_ros.kernels.triton_launch import STORAGE

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step import BranchWeights

__all__ = ["TritonBackboneStep"]

PLANS_KEPT = 16  # numbers of tokens, and caches, whose CUDA graph is kept


@dataclass
class Plan:
    """What is kept for one number of tokens and one cache: its memory, and its CUDA graph where there are such."""

    buffers: Buffers
    parts: list[Part]
    graph: torch.cuda.CUDAGraph | None = None


class TritonBackboneStep:
    """Runs tokens through fixed weights, whose shapes and values the caller has checked, as those of each call.

    Safe to call from several threads at once and on any stream. Calls with one token of motion per sequence run one
    after another on the GPU.

    Attributes:
        backend: "triton".
        precision: In which the matrices of the motion branch are kept.
    """

    backend = "triton"

    def __init__(
        self,
        motion: BranchWeights,
        text: BranchWeights | None = None,
        *,
        precision: str = "bfloat16",
        text_precision: str | None = None,
        use_graph: bool = True,
    ) -> None:
        """Copy and pack the weights.

        Args:
            motion: Floating point, all on one device, at least one layer.
            text: Of the same sizes, but for the feed-forward layer's; None if text goes through the same weights.
            precision: In which the matrices are kept: "float32", "bfloat16", "float8" (e4m3) or "int8", the last two
                with a scale per output. What they are multiplied with, and the products, are bfloat16, unless it is
                "float32". Residual, norms and attention are float32.
            text_precision: Likewise of the text branch; None for the same. "float32" goes only with "float32".
            use_graph: Whether all kernels are launched together by a CUDA graph. Without, each costs the time of a
                launch; only good for finding faults.

        Raises:
            ParameterError: there is no such precision, or just one of the two is "float32".
            BackendError: the kernels cannot run on the device of the weights.
        """
        text_precision = text_precision or precision
        self._device = motion.norm.device
        for name, value in {"precision": precision, "text_precision": text_precision}.items():
            if value not in STORAGE:
                raise ParameterError(f"{name} is {value!r}, expected one of {', '.join(STORAGE)}.")
            check_triton(self._device, value)
        if (precision == "float32") != (text_precision == "float32"):
            raise ParameterError(
                f"precision is {precision!r} and text_precision {text_precision!r}, but both branches multiply with "
                "activations of one type. Use 'float32' for both or for none."
            )
        self.precision = precision
        self._motion = pack(motion, precision)
        self._text = self._motion if text is None else pack(text, text_precision)
        self._use_graph = use_graph and self._device.type == "cuda"
        self._plans: OrderedDict[tuple, Plan] = OrderedDict()
        self._lock = threading.Lock()
        self._finished = None  # when the GPU has done the call before
        if self._device.type == "cuda":
            self._finished = torch.cuda.current_stream(self._device).record_event()

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
        """Final hidden states of more tokens, normed, shape (R, D), float32, fresh memory.

        Args:
            tokens_RD: Embedded tokens, those of text first, shape (R, D), floating point as the next two.
            cosine_RE: Cosine of the angle of each channel at the token's position, shape (R, E).
            sine_RE: Sine likewise.
            keys: Of all layers, float32 or bfloat16, contiguous, shape (layers, rows, K, L, E). Column ``lengths[r]``
                of row ``cache_rows[r]`` is written.
            values: Likewise.
            cache_rows: Row of the cache that holds each token's sequence, R of them.
            lengths: Earlier tokens of its sequence, R of them, each below L.
            text_rows: How many tokens go through the text branch, the first ones.
        """
        if len(tokens_RD) == 0:
            return tokens_RD.float().clone()
        numbers = torch.tensor([list(cache_rows), list(lengths)], dtype=torch.int64)
        arguments = (tokens_RD, cosine_RE, sine_RE, *numbers)
        is_prompt = len(set(cache_rows)) < len(tokens_RD)
        if is_prompt or text_rows:  # of any length, so memory for each would be much, and used once
            with torch.cuda.device(self._device) if self._finished else nullcontext():
                buffers, parts = make_buffers(self._motion, self._text, text_rows, len(tokens_RD))
                fill(buffers, *arguments)
                run(buffers, parts, keys, values, is_prompt)
                return buffers.hidden
        with self._lock, torch.cuda.device(self._device) if self._finished else nullcontext():
            if self._finished:  # the call before may have used another stream, and the same memory
                torch.cuda.current_stream().wait_event(self._finished)
            plan = self._plan(arguments, keys, values)
            fill(plan.buffers, *arguments)
            if plan.graph is not None:
                plan.graph.replay()
            else:
                run(plan.buffers, plan.parts, keys, values)
            hidden = plan.buffers.hidden.clone()
            if self._finished:
                self._finished = torch.cuda.current_stream().record_event()
        return hidden

    def _plan(self, arguments: tuple[Tensor, ...], keys: Tensor, values: Tensor) -> Plan:
        """That of this number of tokens and this cache, made if need be; the one unused for longest is dropped.

        A graph holds the address of the cache, not the cache: one that was freed is never asked for again, and another
        one at the same place with the same shape may as well be used with it.
        """
        rows = len(arguments[0])
        kind = (rows, keys.data_ptr(), values.data_ptr(), keys.shape, keys.dtype) if self._use_graph else (rows,)
        plan = self._plans.get(kind)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT:
                if self._finished:
                    self._finished.synchronize()  # nothing is freed that the GPU still works with
                self._plans.popitem(last=False)
            plan = Plan(*make_buffers(self._motion, self._text, 0, rows))
            if self._use_graph:
                # Compiles and loads every kernel, which must not happen while recording. What this call writes to the
                # cache is what the replay writes again.
                fill(plan.buffers, *arguments)
                run(plan.buffers, plan.parts, keys, values)
                plan.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(plan.graph, capture_error_mode="thread_local"):  # other threads use the GPU
                    run(plan.buffers, plan.parts, keys, values)
            self._plans[kind] = plan
        self._plans.move_to_end(kind)
        return plan


def run(buffers: Buffers, parts: list[Part], keys: Tensor, values: Tensor, is_prompt: bool = False) -> None:
    """Put everything from x to hidden on the current stream; it runs later."""
    for one in step_launches(buffers, parts, keys, values, is_prompt):
        one.run()


def fill(buffers: Buffers, tokens: Tensor, cosine: Tensor, sine: Tensor, cache_rows: Tensor, lengths: Tensor) -> None:
    """Copy the arguments of a call to where the kernels read them."""
    buffers.x.copy_(tokens)
    buffers.cosine.copy_(cosine)
    buffers.sine.copy_(sine)
    buffers.cache_rows.copy_(cache_rows)
    buffers.lengths.copy_(lengths)
