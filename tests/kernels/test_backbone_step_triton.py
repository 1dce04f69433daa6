"""The backbone step in Triton against its reference: on a GPU, and on any CPU in Triton's interpreter.

How both come to be in one file says test_flow_sampler_triton.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.kernels.backbone_step import BranchWeights, LayerWeights, reference

pytest.importorskip("triton", reason="Triton is not installed: pip install -r requirements/gpu.txt")

from llamo_ros.kernels.backbone_step import triton_kernel
from llamo_ros.kernels.backbone_step.triton_kernel import TritonBackboneStep
from llamo_ros.kernels.triton_launch import INTERPRETED, STORAGE, quantize

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cpu" if INTERPRETED else "cuda"

# Largest error with each type of weights, of the largest value of what is compared. The worst seen in the interpreter,
# which cuts bfloat16 off where a GPU rounds it, are 2.7e-7, 7.2e-3, 5.0e-2 and 2.4e-2.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float8": 1e-1, "int8": 5e-2}
# The same against a reference that has the rounded weights: what is left are activations in bfloat16 (1.3e-2 seen).
TOLERANCE_ACTIVATIONS = 3e-2

# layers, width, heads, kv_heads, head_width, ffn_width: one of each; no power of two, queries in threes; in fours
SMALL = [(1, 8, 1, 1, 2, 5), (2, 63, 6, 2, 10, 70), (1, 64, 4, 1, 16, 96)]
LARGE = [(2, 320, 5, 5, 64, 832), (2, 2048, 32, 8, 64, 8192), (2, 4096, 32, 8, 128, 14336)]
SIZES = SMALL if INTERPRETED else SMALL + LARGE


def on_gpu(test: Callable) -> Callable:
    """Run only where there is a GPU."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
    return pytest.mark.gpu(skip(test))


def on_gpu_and_interpreted(test: Callable) -> Callable:
    """Run where there is a GPU, and in the interpreter."""
    return test if INTERPRETED else on_gpu(test)


def make_weights(sizes: tuple[int, ...], device: str = DEVICE) -> BranchWeights:
    """Random weights under which activations keep their size from layer to layer."""
    layers, width, heads, kv_heads, head_width, ffn_width = sizes
    random = torch.Generator().manual_seed(0)

    def matrix(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs, generator=random) / inputs**0.5

    def norm() -> Tensor:
        return 1 + 0.2 * torch.randn(width, generator=random)

    made = tuple(
        LayerWeights(
            norm(),
            matrix((heads + 2 * kv_heads) * head_width, width),
            matrix(width, heads * head_width),
            norm(),
            matrix(2 * ffn_width, width),
            matrix(width, ffn_width),
        )
        for _ in range(layers)
    )
    return BranchWeights(heads, kv_heads, head_width, norm(), 1e-5, made).map(lambda tensor: tensor.to(device))


def make_arguments(weights: BranchWeights, lengths: list[int], capacity: int = 80) -> dict[str, Any]:
    """Random tokens, angles and earlier keys and values; the rows of the cache are in another order."""
    random = torch.Generator().manual_seed(1)
    rows, width = len(lengths), weights.head_width
    shape = (len(weights.layers), rows + 1, weights.kv_heads, capacity, width)
    angles = 6 * torch.rand(rows, width // 2, generator=random).repeat(1, 2)
    return {
        "tokens_RD": torch.randn(rows, len(weights.norm), generator=random).to(DEVICE),
        "cosine_RE": angles.cos().to(DEVICE),
        "sine_RE": angles.sin().to(DEVICE),
        "keys": torch.randn(shape, generator=random).to(DEVICE),
        "values": torch.randn(shape, generator=random).to(DEVICE),
        "cache_rows": [rows - r for r in range(rows)],
        "lengths": lengths,
    }


def copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else list(value) for name, value in arguments.items()}


def rounded(weights: BranchWeights, precision: str) -> BranchWeights:
    """What is left of the matrices in this precision."""

    def round_matrix(weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return weight
        values, scale = quantize(weight, precision)
        return values.float() if scale is None else values.float() * scale[:, None]

    return weights.map(round_matrix)


def error(actual: tuple[Tensor, ...], weights: BranchWeights, arguments: dict[str, Any]) -> float:
    """Largest difference of hidden states, keys and values to the float64 reference, of the largest value of each."""
    doubled = {name: value.double() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    hidden = reference.backbone_step(weights.map(Tensor.double), **doubled)
    expected = (hidden, doubled["keys"], doubled["values"])
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, expected, strict=True))


# -------------------------------------------------------------------------------------------------- in the interpreter

if not INTERPRETED:

    def test_everything_that_does_not_need_a_gpu_holds_in_the_interpreter() -> None:
        command = [sys.executable, "-m", "pytest", __file__, "-q", "-m", "not gpu", "-p", "no:cacheprovider"]
        environment = os.environ | {"TRITON_INTERPRET": "1"}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
        assert result.returncode == 0, result.stdout + result.stderr
        summary = result.stdout.strip().splitlines()[-1]
        assert re.search(r"\b\d\d+ passed", summary) and "skipped" not in summary, result.stdout


# --------------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("precision", STORAGE)
@on_gpu_and_interpreted
def test_the_step_matches_the_float64_reference(precision: str, sizes: tuple[int, ...]) -> None:
    weights = make_weights(sizes)
    step = TritonBackboneStep(weights, precision)
    for lengths in ([0], [79, 0, 64, 65, 17]):
        arguments = make_arguments(weights, lengths)
        before = copied(arguments)
        hidden = step(**arguments)
        assert hidden.dtype == torch.float32 and hidden.shape == before["tokens_RD"].shape
        actual = (hidden, arguments["keys"], arguments["values"])
        tolerance = TOLERANCE["float32"] if precision == "float32" else TOLERANCE_ACTIVATIONS
        assert error(actual, rounded(weights, precision), before) <= tolerance
        assert error(actual, weights, before) <= TOLERANCE[precision]


@on_gpu_and_interpreted
def test_only_the_new_column_of_the_given_rows_is_written() -> None:
    weights = make_weights(SMALL[1])
    arguments = make_arguments(weights, [3, 11])
    before = copied(arguments)
    TritonBackboneStep(weights)(**arguments)
    for name in ("keys", "values"):
        changed = (arguments[name] != before[name]).any(dim=4).all(dim=2).all(dim=0)
        assert changed.nonzero().tolist() == [[1, 11], [2, 3]]
        assert (arguments[name] != before[name]).any(dim=(0, 2, 4)).sum() == 2
    for name in ("tokens_RD", "cosine_RE", "sine_RE"):
        torch.testing.assert_close(arguments[name], before[name], rtol=0, atol=0)


@on_gpu_and_interpreted
def test_a_sequence_is_the_same_token_by_token_in_a_cache_of_bfloat16() -> None:
    weights = make_weights(SMALL[1])
    step = TritonBackboneStep(weights, "float32")
    arguments = make_arguments(weights, [0, 5])
    narrow = copied(arguments)
    narrow["keys"], narrow["values"] = narrow["keys"].bfloat16(), narrow["values"].bfloat16()
    expected = copied(arguments)
    expected["keys"], expected["values"] = narrow["keys"].float(), narrow["values"].float()
    for _ in range(3):
        actual = step(**narrow)
        wanted = reference.backbone_step(weights, **expected)
        assert (actual - wanted).abs().max() <= 2e-2 * wanted.abs().max()  # bfloat16 has 8 bits
        for one in (narrow, expected):
            one["lengths"] = [length + 1 for length in one["lengths"]]
    assert narrow["keys"].dtype == torch.bfloat16


@on_gpu_and_interpreted
def test_scores_far_apart_do_not_overflow() -> None:
    weights = make_weights(SMALL[2])
    for layer in weights.layers:
        layer.query_key_value[:80].mul_(30)  # queries and keys
    arguments = make_arguments(weights, [70])
    arguments["keys"].mul_(30)
    before = copied(arguments)
    hidden = TritonBackboneStep(weights, "float32")(**arguments)
    # Scores of some thousands: their float32 rounding is a factor of about 1 + 1e-4 in the softmax.
    assert error((hidden, arguments["keys"], arguments["values"]), weights, before) <= 1e-3


@pytest.mark.parametrize("precision", ["float32", "int8"])
@on_gpu_and_interpreted
def test_nan_does_not_disappear(precision: str) -> None:
    weights = make_weights(SMALL[1])
    step = TritonBackboneStep(weights, precision)
    for name in ("tokens_RD", "keys", "values"):
        arguments = make_arguments(weights, [4])
        (arguments[name] if name == "tokens_RD" else arguments[name][0, 1, 0, 2])[..., 0] = torch.nan
        assert not torch.isfinite(step(**arguments)).all()


@on_gpu_and_interpreted
def test_a_call_does_not_depend_on_those_before_nor_on_other_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "PLANS_KEPT", 2)
    weights = make_weights(SMALL[0])
    step = TritonBackboneStep(weights, "float32")
    kinds = [make_arguments(weights, [3]), make_arguments(weights, [3, 2]), make_arguments(weights, [3, 2, 7], 20)]
    expected = [step(**copied(arguments)) for arguments in kinds]
    for arguments, hidden in zip(kinds, expected, strict=True):
        other = copied(arguments)
        other["lengths"] = [length + 1 for length in other["lengths"]]
        assert not torch.equal(step(**other), hidden)
        torch.testing.assert_close(step(**copied(arguments)), hidden, rtol=0, atol=0)
    assert len(step._plans) <= 2


@on_gpu_and_interpreted
def test_threads_may_step_different_rows_of_one_cache() -> None:
    weights = make_weights(SMALL[0])
    step = TritonBackboneStep(weights, "float32")
    arguments = make_arguments(weights, list(range(4)))
    expected = step(**copied(arguments))
    rows = [
        {name: value[r : r + 1] for name, value in arguments.items() if name not in ("keys", "values")}
        for r in range(4)
    ]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda row: step(**row, keys=arguments["keys"], values=arguments["values"]), rows))
    torch.testing.assert_close(torch.cat(made), expected)


@on_gpu_and_interpreted
def test_later_changes_to_the_weights_have_no_effect_and_no_rows_are_taken() -> None:
    weights = make_weights(SMALL[0])
    step = TritonBackboneStep(replace(weights, norm=torch.nn.Parameter(weights.norm)), "float32")
    arguments = make_arguments(weights, [4])
    before = step(**copied(arguments))
    assert not before.requires_grad
    weights.layers[0].down.zero_()
    weights.norm.zero_()
    torch.testing.assert_close(step(**copied(arguments)), before, rtol=0, atol=0)
    assert step(**make_arguments(weights, [])).shape == (0, 8)


# -------------------------------------------------------------------------------------------------------- only on a GPU


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@on_gpu
def test_a_graph_does_what_single_launches_do(precision: str) -> None:
    weights = make_weights(LARGE[0])
    for lengths in ([70], list(range(16))):
        arguments = make_arguments(weights, lengths)
        single = TritonBackboneStep(weights, precision, use_graph=False)(**copied(arguments))
        torch.testing.assert_close(TritonBackboneStep(weights, precision)(**arguments), single, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_an_unknown_precision_is_refused_with_a_list() -> None:
    with pytest.raises(ParameterError, match="'float16', expected one of float32, bfloat16, float8, int8"):
        TritonBackboneStep(make_weights(SMALL[0], "cpu"), "float16")


if not INTERPRETED:

    def test_a_cpu_is_refused_with_advice() -> None:
        with pytest.raises(BackendError, match="need an NVIDIA GPU, but the tensors are on cpu.*TRITON_INTERPRET=1"):
            TritonBackboneStep(make_weights(SMALL[0], "cpu"))
