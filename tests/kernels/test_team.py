"""Several threads in one call: the same latents, nobody who waits for a thread without a core, no trace when idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler, instruction_sets

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
needs_two_cores = pytest.mark.skipif(CORES < 2, reason="needs two cores")


def make_weights(width: int = 320, blocks: int = 3, channels: int = 8) -> FlowHeadWeights:
    random = torch.Generator().manual_seed(0)

    def layer(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random) / shape[-1] ** 0.5

    square, bias = (blocks, width, width), (blocks, width)
    return FlowHeadWeights(
        layer(width, channels),
        layer(width),
        layer(*square),
        layer(*bias),
        layer(*square),
        layer(*bias),
        layer(channels, width),
        layer(channels),
    )


def sample(sampler: FlowSampler, samples: int = 1, steps: int = 20, seed: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    row_size = (3 * sampler.blocks + 2) * sampler.width
    return sampler(
        torch.randn(samples, sampler.latent_channels, generator=random),
        time_modulations=0.5 * torch.randn(steps, row_size, generator=random),
        condition_modulations=0.5 * torch.randn(2 * samples, row_size, generator=random),
        guidance_scale=2.0,
    )


@needs_two_cores
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_latents_do_not_depend_on_the_number_of_threads(instruction_set: str, precision: str) -> None:
    weights = make_weights(width=330)  # whole chunks and a rest
    alone, together = (
        FlowSampler(weights, backend="cpu", instruction_set=instruction_set, precision=precision, threads=threads)
        for threads in (1, 2)
    )
    for samples in (1, 40):  # one group of rows; two
        torch.testing.assert_close(sample(together, samples), sample(alone, samples), rtol=0, atol=0)


@needs_two_cores
def test_calls_at_the_same_time_share_one_team() -> None:
    weights = make_weights()
    sampler = FlowSampler(weights, backend="cpu", threads=2)
    expected = [sample(FlowSampler(weights, backend="cpu"), seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for latents, wanted in zip(pool.map(lambda seed: sample(sampler, seed=seed), range(8)), expected, strict=True):
            torch.testing.assert_close(latents, wanted, rtol=0, atol=0)


@needs_two_cores
def test_helpers_sleep_between_calls() -> None:
    sampler = FlowSampler(make_weights(), backend="cpu", threads=2)
    sample(sampler)
    time.sleep(0.05)
    before = time.process_time()  # of all threads
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


SCRIPT = f"""
import os, sys
import torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(1)
from test_team import FlowSampler, make_weights, sample
sampler = FlowSampler(make_weights(), backend="cpu", threads=2)
expected = sample(sampler)
"""
FORK = """
for again in range(3):
    child = os.fork()
    if child == 0:
        same = torch.equal(sample(sampler), expected)
        del sampler
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
assert torch.equal(sample(sampler), expected)
"""


@needs_two_cores
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.parametrize("more", ["", "sys.exit(0)", "del sampler", FORK], ids=["end", "exit", "deleted", "fork"])
def test_a_program_with_helpers_ends_and_may_fork(more: str) -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT + more], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("threads", [0, -1, CORES + 1, 1.5, "2", None, True])
def test_a_number_of_threads_that_cannot_be_is_refused(threads: object) -> None:
    with pytest.raises(ParameterError, match=f"threads is .*expected a whole number from 1 to {CORES}"):
        FlowSampler(make_weights(8, 1), backend="cpu", threads=threads)


@needs_two_cores
def test_threads_mean_nothing_to_the_reference() -> None:
    with pytest.raises(BackendError, match="threads 2 means nothing to backend 'reference'"):
        FlowSampler(make_weights(8, 1), backend="reference", threads=2)


@pytest.mark.parametrize("sanitiser", [[], ["-fsanitize=thread"]], ids=["plain", "thread sanitiser"])
def test_a_caller_finishes_without_its_helpers_and_nothing_races(
    run_program: Callable[..., None], tmp_path: Path, sanitiser: list[str]
) -> None:
    run_program("team_program", tmp_path, ["-O2"], sanitiser)
