"""The flow sampler on an NVIDIA GPU, in Triton. Imported only when it is asked for: the package works without Triton.

There are two ways from noise to latents. One kernel per layer (triton_steps.py), recorded once in a CUDA graph per kind
of call, so that all S steps cost one launch; and one persistent kernel (triton_persistent.py). Both are made of the
functions in triton_tiles.py. The modulations that they read come from ``mod_gemm``, one product per latent.
"""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps, M = 3WN + 2W

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.kernels.backends import check_triton
from llamo_ros.kernels.flow_sampler.triton_persistent import persistent_launch
from llamo_ros.kernels.flow_sampler.triton_plan import Buffers, make_buffers, pack
from llamo_ros.kernels.flow_sampler.triton_steps import mod_gemm_launch, step_launches
from llamo_ros.kernels.triton_launch import STORAGE

if TYPE_CHECKING:
    from llamo_ros.kernels.flow_sampler import FlowHeadWeights

__all__ = ["TritonFlowSampler", "mod_gemm"]

MAX_PROGRAMS = 256  # per layer of dot products: one or two for each multiprocessor of a large GPU
PLANS_KEPT = 8  # kinds of calls whose memory and CUDA graph are kept: each as much as its arguments, and a little


@dataclass
class Plan:
    """What is kept for one kind of call: its memory, and its CUDA graph once there is one."""

    buffers: Buffers
    graph: torch.cuda.CUDAGraph | None = None


class TritonFlowSampler:
    """Samples latents with fixed weights, whose shapes and values the caller has checked.

    Safe to call from several threads at once and on any stream. Calls run one after another on the GPU.
    """

    def __init__(
        self, weights: FlowHeadWeights, dtype: str = "bfloat16", persistent: bool = False, use_graph: bool = True
    ) -> None:
        """Copy and pack the weights.

        Args:
            weights: Float32, all on one device.
            dtype: Type of the blocks' weights: "float32", "bfloat16", "float8" (e4m3) or "int8", the last two with a
                scale per output. With more than 4 rows their inputs are rounded to bfloat16, unless it is "float32".
            persistent: Whether one kernel does all steps, instead of one per layer.
            use_graph: Whether kernels, when there is one per layer, are launched together by a CUDA graph. Without,
                each costs the time of a launch; only good for finding faults.

        Raises:
            ParameterError: there is no such dtype.
            BackendError: the kernels cannot run on the device of the weights.
        """
        if dtype not in STORAGE:
            raise ParameterError(f"dtype is {dtype!r}, expected one of {', '.join(STORAGE)}.")
        self._device = weights.input_weight.device
        check_triton(self._device, dtype)
        on_gpu = self._device.type == "cuda"
        self._persistent = persistent
        self._use_graph = use_graph and on_gpu and not persistent
        self._weights = pack(weights, dtype)
        self._plans: OrderedDict[tuple[int, int, bool, bool], Plan] = OrderedDict()
        self._lock = threading.Lock()
        # Under the interpreter programs run one after another. Two show whether work is split well; where there is a
        # barrier, the first of two would wait at it for ever.
        self._max_programs, self._multiprocessors = 2, 1
        self._counter = torch.zeros(1, dtype=torch.int32, device=self._device)
        self._finished = None  # when the GPU has done the call before
        if on_gpu:
            self._max_programs = MAX_PROGRAMS
            self._multiprocessors = torch.cuda.get_device_properties(self._device).multi_processor_count
            self._finished = torch.cuda.current_stream(self._device).record_event()

    @torch.no_grad()
    def __call__(
        self,
        noise: Tensor,
        time_modulations: Tensor,
        condition_modulations: Tensor | None,
        guidance_scale: float | None,
    ) -> Tensor:
        """Follow the velocity field from flow time 0 (noise) to 1 (latents) in S Euler steps.

        Args:
            noise: Where to start, shape (B, Z), float32 as all others, on the device of the weights.
            time_modulations: Shape (S, M) where conditions are given, else (S, R, M).
            condition_modulations: Added to them, shape (R, M), or None.
            guidance_scale: None, R = B; or a number, R = 2B, conditional rows, then null rows.

        Returns:
            Latents, shape (B, Z), fresh memory.
        """
        if len(noise) == 0:
            return noise.clone()
        kind = (len(noise), len(time_modulations), guidance_scale is not None, condition_modulations is not None)
        with self._lock, torch.cuda.device(self._device) if self._finished else nullcontext():
            if self._finished:  # the call before may have used another stream, and the same memory
                torch.cuda.current_stream().wait_event(self._finished)
            plan = self._plan(kind)
            buffers = plan.buffers
            buffers.x.copy_(noise)
            buffers.time.copy_(time_modulations)
            if buffers.condition is not None:
                buffers.condition.copy_(condition_modulations)
            if buffers.guidance is not None:
                buffers.guidance.fill_(guidance_scale)
            if plan.graph is not None:
                plan.graph.replay()
            else:
                self._launch(buffers, len(buffers.time))
            latents = buffers.x.clone()
            if self._finished:
                self._finished = torch.cuda.current_stream().record_event()
        return latents

    def _plan(self, kind: tuple[int, int, bool, bool]) -> Plan:
        """That of this kind of call, made if need be; the one unused for longest is dropped."""
        plan = self._plans.get(kind)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT:
                if self._finished:
                    self._finished.synchronize()  # nothing is freed that the GPU still works with
                self._plans.popitem(last=False)
            plan = Plan(make_buffers(self._weights, *kind))
            if self._use_graph:
                plan.graph = self._record(plan.buffers)
            self._plans[kind] = plan
        self._plans.move_to_end(kind)
        return plan

    def _record(self, buffers: Buffers) -> torch.cuda.CUDAGraph:
        """A CUDA graph of all steps."""
        self._launch(buffers, 1)  # compiles and loads every kernel, which must not happen while recording
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads go on using the GPU
            self._launch(buffers, len(buffers.time))
        return graph

    def _launch(self, buffers: Buffers, steps: int) -> None:
        """Launch all kernels of the first `steps` steps; the persistent one always does all."""
        if self._persistent:
            self._counter.zero_()
            persistent_launch(self._weights, buffers, self._counter, self._multiprocessors).run()
            return
        for step in range(steps):
            for one in step_launches(self._weights, buffers, step, self._max_programs):
                one.run()


@torch.no_grad()
def mod_gemm(activations: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The modulations of all steps and rows in one matrix product: activations @ weight.T + bias.

    With P rows at once (all S steps, times all R rows where the modulations do not come apart) the weight is read once,
    not P times.

    Args:
        activations: SiLU of the embeddings, shape (P, W), float32.
        weight: Shape (M, W), float32, or bfloat16: then the activations are rounded to that as well.
        bias: Shape (M,), float32; None for none.

    Returns:
        Modulations, shape (P, M), float32.

    Raises:
        ShapeError: the shapes do not fit together.
        ParameterError: a type is none of these.
        BackendError: the kernel cannot run on the device of the weight.
    """
    if weight.ndim != 2 or weight.dtype not in (torch.float32, torch.bfloat16):
        raise ParameterError(f"weight is {weight.dtype} {tuple(weight.shape)}, expected float32 or bfloat16 (M, W).")
    outputs, inputs = weight.shape
    if activations.ndim != 2 or activations.shape[1] != inputs:
        raise ShapeError("activations", activations.shape, f"(P, {inputs})", f"The weight has {inputs} inputs.")
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError("bias", bias.shape, f"({outputs},)", f"The weight has {outputs} outputs.")
    for name, tensor in {"activations": activations, "bias": bias}.items():
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device != weight.device):
            raise ParameterError(f"{name} are {tensor.dtype} on {tensor.device}, expected float32 on {weight.device}.")
    check_triton(weight.device, "float32" if weight.dtype == torch.float32 else "bfloat16")
    out = torch.empty(len(activations), outputs, device=weight.device)
    if out.numel() == 0:
        return out
    bias = None if bias is None else bias.contiguous()
    one = mod_gemm_launch(activations.contiguous(), weight.contiguous(), bias, out)
    with torch.cuda.device(weight.device) if weight.device.type == "cuda" else nullcontext():
        one.run()
    return out
