from __future__ import annotations

import dataclasses

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import FlowHeadConfig, preset
from llamo_ros.model.flow_head import FlowHead


@pytest.mark.parametrize("modulation", ["separable", "joint"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_sampler_follows_the_velocity_field_by_euler_steps(modulation: str, guidance: float) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(preset("tiny").flow_head, modulation=modulation)
    head = FlowHead(config, latent_dim=8, condition_dim=20).requires_grad_(False)
    for parameter in head.parameters():
        parameter.normal_(std=0.2)
    noise, condition, null = torch.randn(3, 8), torch.randn(3, 20), torch.randn(3, 20)
    x = noise
    for k in range(20):
        t = torch.full((3,), k / 20)
        v, v_null = head(x, t, condition), head(x, t, null)
        x = x + (v if guidance == 1.0 else v_null + guidance * (v - v_null)) / 20
    rows = condition if guidance == 1.0 else torch.cat([condition, null])
    torch.testing.assert_close(head.sampler(20)(noise, rows, guidance), x, rtol=1e-4, atol=1e-4)  # float32, 20 steps


def test_a_fresh_head_is_the_zero_field() -> None:
    head = FlowHead(FlowHeadConfig(width=32, blocks=2), latent_dim=8, condition_dim=20)
    assert head(torch.randn(4, 8), torch.rand(4), torch.randn(4, 20)).abs().max() == 0


def test_an_unknown_modulation_is_refused() -> None:
    with pytest.raises(ParameterError, match="separable"):
        FlowHead(FlowHeadConfig(modulation="other"), 8, 20)
