"""The backbone step on an NVIDIA GPU, in Triton. Imported only when it is asked for: the package works without Triton.

One kernel each for residual and RMSNorm; for rotary embedding, cache and attention; and for SwiGLU. The matrix products
between them are PyTorch's (cuBLAS), or Triton's where weights have scales. All layers are recorded in one CUDA graph.
"""

# R rows, D width, K key/value heads, E head width, L columns of the cache

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
from llamo_ros.kernels.backbone_step.triton_layers import Buffers, make_buffers, pack, step_launches
from llamo_ros.kernels.backends import check_triton
from llamo_ros.kernels.triton_launch import STORAGE

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step import BranchWeights

__all__ = ["TritonBackboneStep"]

PLANS_KEPT = 16  # numbers of rows, and caches, whose CUDA graph is kept


@dataclass
class Plan:
    """What is kept for one number of rows and one cache: its memory, and its CUDA graph where there are such."""

    buffers: Buffers
    graph: torch.cuda.CUDAGraph | None = None


class TritonBackboneStep:
    """Runs tokens through fixed weights, whose shapes and values the caller has checked, as those of each call.

    Safe to call from several threads at once and on any stream. Calls run one after another on the GPU. Neither the
    dispatch of :class:`~llamo_ros.kernels.backbone_step.BackboneStep` nor a model uses it yet.
    """

    def __init__(self, weights: BranchWeights, precision: str = "bfloat16", use_graph: bool = True) -> None:
        """Copy and pack the weights.

        Args:
            weights: Floating point, all on one device, at least one layer.
            precision: In which the matrices are kept: "float32", "bfloat16", "float8" (e4m3) or "int8", the last two
                with a scale per output. What they are multiplied with, and the products, are bfloat16, unless it is
                "float32". Residual, norms and attention are float32.
            use_graph: Whether all kernels are launched together by a CUDA graph. Without, each costs the time of a
                launch; only good for finding faults.

        Raises:
            ParameterError: there is no such precision.
            BackendError: the kernels cannot run on the device of the weights.
        """
        if precision not in STORAGE:
            raise ParameterError(f"precision is {precision!r}, expected one of {', '.join(STORAGE)}.")
        self._device = weights.norm.device
        check_triton(self._device, precision)
        self._branch = pack(weights, precision)
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
    ) -> Tensor:
        """Final hidden states of one more token per row, normed, shape (R, D), float32, fresh memory.

        Args:
            tokens_RD: Embedded tokens, shape (R, D), floating point as the next two.
            cosine_RE: Cosine of the angle of each channel at the row's position, shape (R, E).
            sine_RE: Sine likewise.
            keys: Of all layers, float32 or bfloat16, contiguous, shape (layers, rows, K, L, E). Column ``lengths[r]``
                of row ``cache_rows[r]`` is written.
            values: Likewise.
            cache_rows: Row of the cache of each row, R of them, none twice.
            lengths: Earlier tokens of each row, R of them, each below L.
        """
        if len(tokens_RD) == 0:
            return tokens_RD.float().clone()
        numbers = torch.tensor([list(cache_rows), list(lengths)], dtype=torch.int64)
        arguments = (tokens_RD, cosine_RE, sine_RE, *numbers)
        with self._lock, torch.cuda.device(self._device) if self._finished else nullcontext():
            if self._finished:  # the call before may have used another stream, and the same memory
                torch.cuda.current_stream().wait_event(self._finished)
            plan = self._plan(arguments, keys, values)
            fill(plan.buffers, *arguments)
            if plan.graph is not None:
                plan.graph.replay()
            else:
                self._launch(plan.buffers, keys, values)
            hidden = plan.buffers.hidden.clone()
            if self._finished:
                self._finished = torch.cuda.current_stream().record_event()
        return hidden

    def _plan(self, arguments: tuple[Tensor, ...], keys: Tensor, values: Tensor) -> Plan:
        """That of this number of rows and this cache, made if need be; the one unused for longest is dropped.

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
            plan = Plan(make_buffers(self._branch, rows))
            if self._use_graph:
                # Compiles and loads every kernel, which must not happen while recording. What this call writes to the
                # cache is what the replay writes again.
                fill(plan.buffers, *arguments)
                self._launch(plan.buffers, keys, values)
                plan.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(plan.graph, capture_error_mode="thread_local"):  # other threads use the GPU
                    self._launch(plan.buffers, keys, values)
            self._plans[kind] = plan
        self._plans.move_to_end(kind)
        return plan

    def _launch(self, buffers: Buffers, keys: Tensor, values: Tensor) -> None:
        for one in step_launches(self._branch, buffers, keys, values):
            one.run()


def fill(buffers: Buffers, tokens: Tensor, cosine: Tensor, sine: Tensor, cache_rows: Tensor, lengths: Tensor) -> None:
    """Copy the arguments of a call to where the kernels read them."""
    buffers.x.copy_(tokens)
    buffers.cosine.copy_(cosine)
    buffers.sine.copy_(sine)
    buffers.cache_rows.copy_(cache_rows)
    buffers.lengths.copy_(lengths)
