"""The causal stack: every backend against the reference and the VAE's bodies, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError, ParameterError, ShapeError
from llamo_ros.kernels.backends import instruction_sets
from llamo_ros.kernels.causal_stack import (
    Add,
    CausalStack,
    Convolution,
    Keep,
    Norm,
    Operation,
    Relu,
    Repeat,
    Silu,
    reference,
)

# Of the largest output; worst seen over all shapes here: 9e-7, 5e-3, 3e-2.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1.5e-2, "int8": 9e-2}


def convolution(outputs: int, inputs: int, seed: int, bias: bool = True, **options: int) -> Convolution:
    random = torch.Generator().manual_seed(seed)
    size = options.get("kernel", 1) * inputs
    weight = torch.randn(outputs, size, generator=random) / size**0.5
    return Convolution(weight, torch.randn(outputs, generator=random) if bias else None, **options)


def patchified(width: int) -> list[Operation]:
    """The shape of llamo-mini's decoder."""
    block = [
        Keep(),
        Norm(1 + 0.1 * torch.arange(width) / width, 1e-6),
        convolution(width, width, 1, kernel=3, dilation=2),
        Silu(),
        convolution(width, width, 2, bias=False),
        Add(),
    ]
    return [convolution(width, 6, 0, kernel=2), *block, *block, Silu(), convolution(20, width, 3)]


def halving(width: int) -> list[Operation]:
    """The shape of the paper's encoder: two convolutions with a stride, residuals in residuals."""
    inner = [Keep(), Relu(), convolution(width, width, 4, kernel=3, dilation=3), Keep(), Relu(), Add(), Add()]
    down = convolution(width, width, 5, kernel=4, stride=2)
    return [convolution(width, 6, 6, kernel=3), down, *inner, down, Relu(), convolution(7, width, 7)]


def doubling(width: int) -> list[Operation]:
    """The shape of the paper's decoder: residuals at every frame rate."""
    up = [Keep(), Relu(), convolution(width, width, 12), Add(), Repeat(2), convolution(width, width, 8, kernel=3)]
    return [convolution(width, 6, 9), Relu(), *up, Relu(), *up, convolution(11, width, 10, kernel=3)]


BODIES = {"patchified": patchified, "halving": halving, "doubling": doubling}


def rows(batch: int, count: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, count, 6, generator=torch.Generator().manual_seed(seed))


def doubled(operations: list[Operation]) -> list[Operation]:
    return [
        replace(operation, **{k: v.double() for k, v in vars(operation).items() if torch.is_tensor(v)})
        for operation in operations
    ]


def in_parts(stack: CausalStack, x: Tensor, sizes: list[int]) -> Tensor:
    state, made = stack.empty_state(len(x)), []
    for part in x.split(sizes, dim=1):
        out, state = stack(part, state)
        made.append(out)
    return torch.cat(made, dim=1)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("width", [5, 70])
@pytest.mark.parametrize("body", BODIES)
def test_compiled_stack_matches_the_float64_reference(
    body: str, width: int, instruction_set: str, precision: str
) -> None:
    operations = BODIES[body](width)
    stack = CausalStack(operations, backend="cpu", instruction_set=instruction_set, precision=precision)
    assert (stack.instruction_set, stack.precision) == (instruction_set, precision)
    for batch, count in ((1, 4), (3, 20)):
        x = rows(batch, count)
        state = [torch.randn_like(past) for past in stack.empty_state(batch)]
        before = [past.clone() for past in state]
        expected, past = reference.causal_stack(doubled(operations), x.double(), [p.double() for p in state])
        out, new = stack(x, state)
        assert out.dtype == torch.float32 and out.shape == expected.shape and out.shape[2] == stack.outputs
        assert (out - expected).abs().max() <= TOLERANCES[precision] * expected.abs().max()
        for actual, wanted in zip(new, past, strict=True):
            assert actual.shape == wanted.shape
            assert wanted.numel() == 0 or (actual - wanted).abs().max() <= TOLERANCES[precision] * wanted.abs().max()
        for given, kept in zip(state, before, strict=True):
            torch.testing.assert_close(given, kept, rtol=0, atol=0)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("body", BODIES)
def test_parts_of_any_size_give_what_one_go_gives(body: str, precision: str) -> None:
    stack = CausalStack(BODIES[body](33), backend="cpu", precision=precision)
    x = rows(2, 24)
    whole = in_parts(stack, x, [24])
    for sizes in ([4] * 6, [8, 4, 12]):
        torch.testing.assert_close(in_parts(stack, x, sizes), whole, rtol=0, atol=0)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_stream_does_not_depend_on_the_streams_beside_it(precision: str) -> None:
    stack = CausalStack(patchified(33), backend="cpu", precision=precision)
    x = rows(7, 3)
    together, state = stack(x, stack.empty_state(7))
    for row in range(7):
        alone, past = stack(x[row : row + 1], stack.empty_state(1))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=0)
        for one, all_of_them in zip(past, state, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row], rtol=0, atol=0)


def test_threads_may_share_a_stack() -> None:
    stack = CausalStack(doubling(70), backend="cpu")
    parts = [rows(1, 8, seed) for seed in range(8)]
    expected = [stack(part, stack.empty_state(1))[0] for part in parts]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda part: stack(part, stack.empty_state(1))[0], parts))
    for actual, wanted in zip(made, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_later_changes_to_the_weights_have_no_effect(backend: str) -> None:
    operations = patchified(9)
    stack = CausalStack(operations, backend=backend)
    before = stack(rows(1, 4), stack.empty_state(1))[0]
    operations[0].weight.zero_()
    torch.testing.assert_close(stack(rows(1, 4), stack.empty_state(1))[0], before, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_nan_does_not_disappear(precision: str) -> None:
    for body in BODIES.values():
        stack = CausalStack(body(9), backend="cpu", precision=precision)
        x = rows(1, 4)
        x[0, -1, 2] = torch.nan
        assert not torch.isfinite(stack(x, stack.empty_state(1))[0]).all()


@pytest.mark.parametrize(
    ("operations", "error", "message"),
    [
        ([], ParameterError, "first operation"),
        ([Silu(), convolution(4, 6, 0)], ParameterError, "first operation"),
        ([convolution(4, 6, 0), convolution(4, 6, 0)], ShapeError, r"Convolution \(number 1\)"),
        ([convolution(4, 6, 0), Norm(torch.ones(6), 1e-6)], ShapeError, r"Norm \(number 1\)"),
        ([convolution(4, 6, 0), Add()], ParameterError, "nothing to add"),
        ([convolution(4, 6, 0), Keep(), convolution(5, 4, 0), Add()], ParameterError, "other channels"),
        ([convolution(4, 6, 0), Keep()], ParameterError, "no Add"),
        ([convolution(4, 6, 0), Keep(), Repeat(9), Add()], ParameterError, "another rate"),
        (
            [convolution(4, 6, 0), Keep(), convolution(4, 4, 0, kernel=2, stride=2), Add()],
            ParameterError,
            "another rate",
        ),
        ([Convolution(torch.full((4, 6), torch.nan))], ParameterError, "NaN"),
        ([Convolution(torch.zeros(4, 6), kernel=0)], ParameterError, "kernel 0"),
        ([Convolution(torch.zeros(6))], ShapeError, "outputs"),
        ([convolution(4, 6, 0), Repeat(0)], ParameterError, "times 0"),
        ([convolution(4, 6, 0, kernel=2, stride=3)], ParameterError, "stride"),
        ([Convolution(torch.zeros(4, 6).double())], ParameterError, "float64"),
        ([Convolution(torch.zeros(4, 6), torch.zeros(5))], ShapeError, "bias per output"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operations_that_do_not_fit_are_refused(operations: list[Operation], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        CausalStack(operations)


def test_calls_and_choices_that_do_not_fit_are_refused() -> None:
    stack = CausalStack(halving(9), backend="cpu")
    for shape in ((2, 4), (1, 4, 5), (1, 6, 6)):
        with pytest.raises(ShapeError, match="rows"):
            stack(torch.zeros(shape), stack.empty_state(1))
    third, fourth = convolution(6, 6, 0, kernel=3, stride=3), convolution(6, 6, 0, kernel=4, stride=4)
    for operations, multiple, count in (([third, Repeat(2), fourth], 6, 1), ([fourth, Repeat(2), third], 12, 2)):
        uneven = CausalStack(operations, backend="cpu")
        with pytest.raises(ShapeError, match=f"{multiple} n"):
            uneven(torch.zeros(1, multiple - 2, 6), uneven.empty_state(1))
        assert uneven(torch.zeros(1, multiple, 6), uneven.empty_state(1))[0].shape[1] == count
    with pytest.raises(ParameterError, match="the state has shapes"):
        stack(rows(2, 4), stack.empty_state(1))
    with pytest.raises(ParameterError, match="float64"):
        stack(rows(1, 4).double(), stack.empty_state(1))
    with pytest.raises(BackendError, match="instruction_set"):
        CausalStack(halving(9), backend="reference", instruction_set="portable")
    with pytest.raises(BackendError, match="float32"):
        CausalStack(halving(9), backend="reference", precision="int8")
