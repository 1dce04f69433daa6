"""The flow head on a GPU in several ways, and what the GPU can do at most: see benchmarks/gpu_flow_sampler.py.

Everything also runs on a CPU, where only the ways that need a GPU are left out: that tries the code, not the speed.
"""

# B samples, W width, N blocks, S Euler steps, M = 3WN + 2W

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llamo_ros.benchmark.candidates import Candidate
from llamo_ros.benchmark.flow_operation import (
    LATENT_CHANNELS,
    STEPS,
    compiled_loop,
    loop_work,
    naive_sample,
    random_head,
    random_weights,
)
from llamo_ros.benchmark.machine import Limits
from llamo_ros.core.errors import LlamoError
from llamo_ros.kernels.flow_sampler import FlowSampler, reference
from llamo_ros.model.config import FlowHeadConfig
from llamo_ros.model.latent_sampler import LatentSampler

# Precision of the blocks' weights, and whether one kernel does all steps in place of a CUDA graph of many.
TRITON_KINDS = (("bfloat16", False), ("bfloat16", True), ("int8", False), ("float8", False))
NO_GPU = "needs an NVIDIA GPU"


@dataclass
class GpuLimits(Limits):
    """What a device can do, by PyTorch's own kernels; the best of some rounds counts.

    Reading is a sum over the buffer, or a copy if that is faster, recorded in a CUDA graph so that launches cost
    little. Calculating is a product of two large matrices in bfloat16: the kernels multiply in bfloat16 or float32
    whatever the weights are stored in.

    Attributes:
        device: PyTorch device.
        matrix: Rows and columns of the matrices.
    """

    device: str = "cuda"
    matrix: int = 8192

    def bandwidth(self, size: int) -> float:
        """Rate of reading so many bytes again and again, [byte/s]."""
        if size not in self.bandwidths:
            source = torch.ones(max(4, size // 4), device=self.device)
            target = torch.empty_like(source)
            passes = max(1, (64 << 20) // size)
            reading = self._best(lambda: source.sum(), passes)
            copying = self._best(lambda: target.copy_(source), passes) / 2  # it reads and writes
            self.bandwidths[size] = 4 * len(source) / min(reading, copying)
        return self.bandwidths[size]

    def rate(self, precision: str) -> float:
        """Rate of products in bfloat16, [operation/s]."""
        if "bfloat16" not in self.rates:
            a = torch.randn(self.matrix, self.matrix, device=self.device, dtype=torch.bfloat16)
            self.rates["bfloat16"] = 2.0 * self.matrix**3 / self._best(lambda: a @ a, 1)
        return self.rates["bfloat16"]

    def _best(self, function: Callable[[], object], passes: int) -> float:
        """Shortest time of a call, [s], of so many in a row."""
        function()

        def many() -> None:
            for _ in range(passes):
                function()

        run = recorded(many, self.device)
        best, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < self.seconds:
            synchronise(self.device)
            start = time.perf_counter()
            run()
            synchronise(self.device)
            best = min(best, time.perf_counter() - start)
        return best / passes


def synchronise(device: str) -> None:
    """Wait until the device has done everything."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def recorded(function: Callable[[], object], device: str) -> Callable[[], object]:
    """The function as a CUDA graph; on a CPU as it is."""
    if not device.startswith("cuda"):
        return function
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # as capturing wants it: warmed up on another stream
        function()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def sampler_candidates(config: FlowHeadConfig, batch: int, device: str, steps: int = STEPS) -> list[Candidate]:
    """Ways from noise and condition to `batch` latents, without guidance; eager PyTorch in bfloat16 is the first."""
    torch.manual_seed(0)
    head = random_head(config, config.width).to(device)
    half = random_head(config, config.width).to(device)
    half.load_state_dict(head.state_dict())
    half.to(torch.bfloat16)
    noise = torch.randn(batch, LATENT_CHANNELS, device=device)
    condition = torch.randn(batch, config.width, device=device)

    def naive() -> Tensor:
        with torch.inference_mode():
            return naive_sample(half, noise, condition, steps, None)

    def sampler(**choice: Any) -> Callable[[], Tensor]:
        sample = LatentSampler(head, steps, **choice)
        return lambda: sample(noise, condition)

    candidates = [
        Candidate("eager PyTorch, naive", naive, "bfloat16"),
        Candidate("eager PyTorch, hoisted", sampler(backend="reference"), "float32"),
    ]
    for precision, persistent in TRITON_KINDS:
        if not persistent:
            candidates.append(_triton("kernel", sampler, precision, config.width, config.blocks, batch, device, steps))
    return _synchronised(candidates, device)


def loop_candidates(
    width: int, blocks: int, batch: int, device: str, steps: int = STEPS, compiled: bool = True
) -> list[Candidate]:
    """Ways through the Euler steps with modulations given; eager PyTorch in bfloat16 is the first.

    "torch.compile" is one step in mode max-autotune, with the CUDA graphs that it makes itself. "in one graph" is the
    same step, all calls of it recorded in one CUDA graph, which is the most that PyTorch can do.
    """
    torch.manual_seed(0)
    weights = random_weights(width, blocks, device)
    half = weights.map(Tensor.bfloat16)
    noise = torch.randn(batch, LATENT_CHANNELS, device=device)
    row_size = (3 * blocks + 2) * width
    time_SM = 0.3 * torch.randn(steps, row_size, device=device)
    condition_BM = 0.3 * torch.randn(batch, row_size, device=device)
    half_noise, half_time, half_condition = noise.bfloat16(), time_SM.bfloat16(), condition_BM.bfloat16()

    def eager() -> Tensor:
        with torch.inference_mode():
            return reference.flow_sampler(half, half_noise, half_time[:, None] + half_condition)

    def sampler(**choice: Any) -> Callable[[], Tensor]:
        sample = FlowSampler(weights, **choice)
        return lambda: sample(noise, time_modulations=time_SM, condition_modulations=condition_BM)

    def compiled_ways() -> list[Candidate]:
        given = (half, half_noise, half_time, half_condition)
        if not compiled:
            return [Candidate("torch.compile", None, "bfloat16", why_not="left out")]
        if not device.startswith("cuda"):
            return [Candidate("torch.compile", None, "bfloat16", why_not=NO_GPU)]
        torch.compiler.reset()  # a function is compiled anew for new weights only a few times, then silently not at all
        alone = compiled_loop(*given, mode="max-autotune")
        joined = compiled_loop(*given, mode="max-autotune-no-cudagraphs")
        made: list[Callable[[], object]] = []
        kept: list[Tensor] = []

        def in_one_graph() -> Tensor:
            if not made:
                joined()  # compiles
                made.append(recorded(lambda: kept.append(joined()), device))
            made[0]()
            return kept[-1]

        return [
            Candidate("torch.compile", alone, "bfloat16"),
            Candidate("torch.compile, in one graph", in_one_graph, "bfloat16"),
        ]

    candidates = [Candidate("eager PyTorch, hoisted", eager, "bfloat16"), *compiled_ways()]
    for precision, persistent in TRITON_KINDS:
        name = "kernel, persistent" if persistent else "kernel"
        choice = {"persistent": True} if persistent else {}
        candidates.append(_triton(name, sampler, precision, width, blocks, batch, device, steps, **choice))
    return _synchronised(candidates, device)


def _triton(
    name: str,
    sampler: Callable[..., Callable[[], Tensor]],
    precision: str,
    width: int,
    blocks: int,
    batch: int,
    device: str,
    steps: int,
    **choice: Any,
) -> Candidate:
    """One with backend "triton", or why there is none: an older Triton, or a GPU without this precision."""
    if not device.startswith("cuda"):
        return Candidate(name, None, precision, why_not=NO_GPU)
    try:
        run = sampler(backend="triton", precision=precision, **choice)
    except (LlamoError, TypeError, ImportError) as error:
        return Candidate(name, None, precision, why_not=" ".join(str(error).split())[:200])
    return Candidate(name, run, precision, work=loop_work(width, blocks, precision, batch, steps))


def _synchronised(candidates: Sequence[Candidate], device: str) -> list[Candidate]:
    """The same, each waiting for the device, with its result in main memory's reach."""

    def waiting(run: Callable[[], Any]) -> Callable[[], Tensor]:
        def call() -> Tensor:
            result = run()
            synchronise(device)
            return result

        return call

    return [
        Candidate(
            c.name, waiting(c.run) if c.run else None, c.precision, c.instruction_set, c.work, c.why_not
        )
        for c in candidates
    ]  # fmt: skip
