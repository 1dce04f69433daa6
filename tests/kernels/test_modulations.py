"""The layer that makes the modulations: every backend against PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.kernels.flow_sampler import instruction_sets
from llamo_ros.kernels.flow_sampler.modulations import ModulationLayer


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("rows", "width", "outputs"), [(0, 8, 8), (1, 3, 1), (2, 33, 65), (70, 64, 224)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_every_instruction_set_is_the_linear_layer(
    instruction_set: str, precision: str, rows: int, width: int, outputs: int, has_bias: bool
) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, width, generator=random) / width**0.5
    bias = torch.randn(outputs, generator=random) if has_bias else None
    activations = torch.randn(rows, width, generator=random)
    layer = ModulationLayer(weight, bias, backend="cpu", precision=precision, instruction_set=instruction_set)
    kept = weight if precision == "float32" else weight.bfloat16().float()  # int8 blocks leave these at 16 bits
    expected = F.linear(activations.double(), kept.double(), None if bias is None else bias.double())
    actual = layer(activations)
    assert actual.dtype == torch.float32 and actual.shape == (rows, outputs)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-6)


def test_leading_dimensions_are_kept_and_a_row_does_not_depend_on_the_others() -> None:
    random = torch.Generator().manual_seed(0)
    layer = ModulationLayer(torch.randn(40, 16, generator=random), backend="cpu", instruction_set=instruction_sets()[0])
    activations = torch.randn(3, 2, 16, generator=random)
    together = layer(activations)
    assert together.shape == (3, 2, 40)
    assert torch.equal(together[1, 1], layer(activations[1, 1]))


def test_what_does_not_fit_is_refused() -> None:
    layer = ModulationLayer(torch.zeros(4, 3), backend="cpu", instruction_set="portable")
    with pytest.raises(ShapeError, match=r"\(\.\.\., 3\)"):
        layer(torch.zeros(1, 4))
    with pytest.raises(ParameterError, match="float64"):
        layer(torch.zeros(1, 3, dtype=torch.float64))
