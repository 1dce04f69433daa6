"""From noise to a latent in the flow head, in several ways: what is compared in benchmarks/operations.py.

Weights are random. "flow sampler" is everything that happens per latent, from noise and condition; "flow loop" only the
Euler steps, with modulations given, which is what the bandwidth of the weights limits.
"""

# B samples, R rows (B, or 2B with guidance), W width, N blocks, S Euler steps, M = 3WN + 2W

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from llamo_ros.benchmark.candidates import Candidate
from llamo_ros.benchmark.machine import BYTES, Work
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler, reference
from llamo_ros.model.config import FlowHeadConfig
from llamo_ros.model.flow_head import FlowHead
from llamo_ros.model.latent_sampler import LatentSampler

LATENT_CHANNELS = 32
STEPS = 50
GUIDANCE_SCALE = 2.0


def random_head(config: FlowHeadConfig, condition_width: int) -> FlowHead:
    """A flow head that moves latents: as it is initialised it is the zero field."""
    head = FlowHead(config, LATENT_CHANNELS, condition_width).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return head


def naive_sample(
    head: FlowHead, noise_BZ: Tensor, condition_RD: Tensor, steps: int, guidance_scale: float | None
) -> Tensor:
    """The Euler loop as one would write it first: each step computes its modulations anew. Latents, shape (B, Z)."""
    x_BZ = noise_BZ
    for k in range(steps):
        t = torch.full((1,), k / steps, device=noise_BZ.device)
        if guidance_scale is None:
            velocity_BZ = head(x_BZ, t, condition_RD)
        else:
            conditional_BZ, null_BZ = head(torch.cat([x_BZ, x_BZ]), t, condition_RD).chunk(2)
            velocity_BZ = null_BZ + guidance_scale * (conditional_BZ - null_BZ)
        x_BZ = x_BZ + velocity_BZ / steps
    return x_BZ


def loop_work(width: int, blocks: int, precision: str, rows: int, steps: int) -> Work:
    """What the Euler steps cannot do without: all matrices, and the step's and the rows' modulations, once per step."""
    weights = 2 * blocks * width * width
    edges = 2 * width * LATENT_CHANNELS  # input and output layer, float32 in every precision
    modulations = (1 + rows) * (3 * blocks + 2) * width
    size = weights * BYTES[precision] + 4 * (edges + modulations)
    return Work(size, steps, 2.0 * rows * steps * (weights + edges))


def sampler_candidates(
    config: FlowHeadConfig, precisions: Sequence[str], guided: bool = False, steps: int = STEPS
) -> list[Candidate]:
    """Ways from noise and condition to one latent; the first is the naive one.

    Args:
        config: Sizes of the head.
        precisions: Of the compiled kernel.
        guided: Whether with guidance: two rows.
        steps: S.
    """
    torch.manual_seed(0)
    rows = 2 if guided else 1
    head = random_head(config, config.width)
    noise, condition = torch.randn(1, LATENT_CHANNELS), torch.randn(rows, config.width)
    scale = GUIDANCE_SCALE if guided else None

    def sampler(backend: str, precision: str = "float32") -> Callable[[], Tensor]:
        sample = LatentSampler(head, steps, backend=backend, precision=precision)
        return lambda: sample(noise, condition, 1.0 if scale is None else scale)

    def naive() -> Tensor:
        with torch.inference_mode():
            return naive_sample(head, noise, condition, steps, scale)

    return [
        Candidate("eager PyTorch, naive", naive),
        Candidate("eager PyTorch, hoisted", sampler("reference")),
        *(
            Candidate(
                "kernel",
                sampler("cpu", precision),
                precision,
                work=loop_work(config.width, config.blocks, precision, rows, steps),
            )
            for precision in precisions
        ),
    ]


def loop_candidates(
    width: int,
    blocks: int,
    precisions: Sequence[str],
    instruction_sets: Sequence[str],
    *,
    rows: int = 1,
    steps: int = STEPS,
    compiled: bool = False,
    why_not_compiled: str = "",
) -> list[Candidate]:
    """Ways through the Euler steps alone; the first is eager PyTorch.

    Args:
        width: W.
        blocks: N.
        precisions: Of the compiled kernel.
        instruction_sets: Of the compiled kernel.
        rows: Latents made together, without guidance.
        steps: S.
        compiled: Whether to try torch.compile on one step, which takes a minute at the start.
        why_not_compiled: Why it cannot run here; shown in its row.
    """
    torch.manual_seed(0)
    weights = random_weights(width, blocks)
    row_size = (3 * blocks + 2) * width
    noise = torch.randn(rows, LATENT_CHANNELS)
    time, condition = 0.3 * torch.randn(steps, row_size), 0.3 * torch.randn(rows, row_size)

    def sampler(**choice: str) -> Callable[[], Tensor]:
        sample = FlowSampler(weights, **choice)
        return lambda: sample(noise, time_modulations=time, condition_modulations=condition)

    candidates = [Candidate("eager PyTorch, hoisted", sampler(backend="reference"))]
    if why_not_compiled:
        candidates.append(Candidate("torch.compile", None, why_not=why_not_compiled))
    elif compiled:
        torch.compiler.reset()  # a function is compiled anew for new weights only a few times, then silently not at all
        candidates.append(Candidate("torch.compile", compiled_loop(weights, noise, time, condition)))
    for name in instruction_sets:
        for precision in precisions:
            run = sampler(backend="cpu", instruction_set=name, precision=precision)
            work = loop_work(width, blocks, precision, rows, steps)
            candidates.append(Candidate("kernel", run, precision, name, work))
    return candidates


def compiled_loop(
    weights: FlowHeadWeights, noise_BZ: Tensor, time_SM: Tensor, condition_BM: Tensor, **options: object
) -> Callable[[], Tensor]:
    """The Euler loop around one step that torch.compile has made, with `options` for it.

    In mode "max-autotune" the step is a CUDA graph, whose output lies where the next call writes: it is copied first.
    """
    is_graph = options.get("mode") == "max-autotune"

    def step(x_BZ: Tensor, modulation_BM: Tensor) -> Tensor:
        return x_BZ + reference.velocity_field(weights, x_BZ, modulation_BM) / len(time_SM)

    compiled_step = torch.compile(step, **options)

    def run() -> Tensor:
        x_BZ = noise_BZ
        with torch.inference_mode():
            for k in range(len(time_SM)):
                if is_graph:
                    torch.compiler.cudagraph_mark_step_begin()
                x_BZ = compiled_step(x_BZ, time_SM[k] + condition_BM)
                x_BZ = x_BZ.clone() if is_graph else x_BZ
        return x_BZ

    return run


def random_weights(width: int, blocks: int, device: str = "cpu") -> FlowHeadWeights:
    """Weights of the blocks as ``torch.nn.Linear`` would begin."""
    shapes = (
        (width, LATENT_CHANNELS),
        (width,),
        (blocks, width, width),
        (blocks, width),
        (blocks, width, width),
        (blocks, width),
        (LATENT_CHANNELS, width),
        (LATENT_CHANNELS,),
    )
    return FlowHeadWeights(*(torch.randn(shape, device=device) * shape[-1] ** -0.5 for shape in shapes))
