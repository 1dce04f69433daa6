"""How long one latent takes in the flow head: PyTorch as published, PyTorch hoisted, the compiled kernel.

    python benchmarks/flow_sampler.py
    python benchmarks/flow_sampler.py --width 512 --blocks 6 --json result.json

One thread, pinned to one core. The candidates take turns, so that a busy moment of the machine hits all of them, and
must agree before anything is timed. Times are per call, [ms].
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler, instruction_sets, reference

GUIDANCE_SCALE = 2.0
AGREEMENT = 1e-5  # of the displacement, as in tests/kernels/test_flow_sampler.py


class FlowHead(nn.Module):
    """A random flow head with separable modulation, as the caller of the kernel holds it."""

    def __init__(self, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        row_size = (3 * blocks + 2) * width
        self.time_layers = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.time_modulation = nn.Linear(width, row_size)
        self.condition_modulation = nn.Linear(width, row_size)
        self.weights = FlowHeadWeights(
            *(nn.init.normal_(torch.empty(shape), std=shape[-1] ** -0.5) for shape in (
                (width, channels), (width,), (blocks, width, width), (blocks, width),
                (blocks, width, width), (blocks, width), (channels, width), (channels,),
            ))
        )  # fmt: skip

    def modulate_time(self, t: Tensor) -> Tensor:
        """Part of the modulation that depends on flow time (S,), shape (S, M)."""
        frequencies = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        angles = 1000 * t[:, None] * frequencies
        return self.time_modulation(self.time_layers(torch.cat([angles.cos(), angles.sin()], dim=-1)))

    def modulate_condition(self, condition: Tensor) -> Tensor:
        """Part that depends on the condition (R, W), shape (R, M)."""
        return self.condition_modulation(F.silu(condition))

    def naive_sample(self, noise: Tensor, condition: Tensor, steps: int, guided: bool) -> Tensor:
        """The loop as published: every step computes its own modulation."""
        x = noise
        for k in range(steps):
            modulation = self.modulate_time(torch.tensor([k / steps])) + self.modulate_condition(condition)
            if guided:
                conditional, null = reference.velocity_field(self.weights, torch.cat([x, x]), modulation).chunk(2)
                velocity = null + GUIDANCE_SCALE * (conditional - null)
            else:
                velocity = reference.velocity_field(self.weights, x, modulation)
            x = x + velocity / steps
        return x


def candidates(options: argparse.Namespace, guided: bool) -> tuple[dict[str, Callable[[], Tensor]], Tensor]:
    """What is timed, by name, and the noise they start from.

    All but the last return the same latents; the last is what a caller of the hoisted ones does besides, per latent.
    """
    torch.manual_seed(0)
    head = FlowHead(options.width, options.blocks, options.channels).eval()
    noise = torch.randn(options.samples, options.channels)
    condition = torch.randn(options.samples * (2 if guided else 1), options.width)
    arguments = {
        "time_modulations": head.modulate_time(torch.arange(options.steps) / options.steps),
        "condition_modulations": head.modulate_condition(condition),
        "guidance_scale": GUIDANCE_SCALE if guided else None,
    }

    def sampler(**choice: str) -> Callable[[], Tensor]:
        flow_sampler = FlowSampler(head.weights, **choice)
        return lambda: flow_sampler(noise, **arguments)

    return {
        "PyTorch, as published": lambda: head.naive_sample(noise, condition, options.steps, guided),
        "PyTorch, hoisted (reference)": sampler(backend="reference"),
        **{f"kernel, {name}": sampler(backend="cpu", instruction_set=name) for name in instruction_sets()},
        "condition modulations alone": lambda: head.modulate_condition(condition),
    }, noise


def measure(options: argparse.Namespace, guided: bool) -> list[dict[str, object]]:
    """Median and 95th percentile of each candidate, [ms].

    Raises:
        SystemExit: two candidates disagree, so that their times mean nothing.
    """
    functions, noise = candidates(options, guided)
    expected, *others = list(functions)[:-1]
    wanted = functions[expected]()
    for name in others:
        error = ((functions[name]() - wanted).abs().max() / (wanted - noise).abs().max()).item()
        if not error <= AGREEMENT:
            sys.exit(f"{name} differs from {expected} by {error:.1e} of the displacement; nothing was timed.")
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(options.repeats):
        for name, function in functions.items():
            function()  # warms the cache: in use, too, only the first of the S steps finds the weights elsewhere
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return [
        {
            "candidate": name,
            "guided": guided,
            "median_ms": statistics.median(values),
            "p95_ms": sorted(values)[int(0.95 * (len(values) - 1))],
        }
        for name, values in times.items()
    ]


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256, help="W")
    parser.add_argument("--blocks", type=int, default=4, help="N")
    parser.add_argument("--channels", type=int, default=32, help="Z, channels of a latent")
    parser.add_argument("--steps", type=int, default=50, help="S, Euler steps per latent")
    parser.add_argument("--samples", type=int, default=1, help="B, latents at once")
    parser.add_argument("--repeats", type=int, default=101, help="timed calls of each candidate")
    parser.add_argument("--core", type=int, help="core to stay on (default: the last one allowed)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if options.core is None else options.core})
    with torch.inference_mode():
        rows = measure(options, guided=False) + measure(options, guided=True)

    print(
        f"width {options.width}, {options.blocks} blocks, {options.channels} channels, {options.steps} steps, "
        f"batch {options.samples}; one thread; torch {torch.__version__}, {platform.machine()}"
    )
    print(f"{'':32}{'no guidance':>20}{'guidance':>20}\n{'[ms]':32}" + f"{'median':>12}{'p95':>8}" * 2)
    for plain, guided in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
        figures = "".join(f"{row['median_ms']:12.2f}{row['p95_ms']:8.2f}" for row in (plain, guided))
        print(f"{plain['candidate']:32}{figures}")
    if options.json:
        settings = {name: getattr(options, name) for name in ("width", "blocks", "channels", "steps", "samples")}
        options.json.write_text(json.dumps({**settings, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
