from __future__ import annotations

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import FlowHeadConfig, preset
from llamo_ros.model.flow_head import FlowHead


def random_head(**choices: object) -> FlowHead:
    head = FlowHead(FlowHeadConfig(width=32, blocks=2, **choices), latent_dim=8, condition_dim=20)
    for parameter in head.requires_grad_(False).parameters():
        parameter.normal_(std=0.2)
    return head


def test_a_fresh_head_is_the_zero_field() -> None:
    head = FlowHead(FlowHeadConfig(width=32, blocks=2), latent_dim=8, condition_dim=20)
    assert head(torch.randn(4, 8), torch.rand(4), torch.randn(4, 20)).abs().max() == 0


def test_an_unknown_modulation_is_refused() -> None:
    with pytest.raises(ParameterError, match="separable"):
        FlowHead(FlowHeadConfig(modulation="other"), 8, 20)


@pytest.mark.parametrize(("name", "millions"), [("1b", 152.41), ("3b", 153.98), ("8b", 155.56)])
def test_the_head_of_the_paper_has_the_number_of_weights_of_the_paper(name: str, millions: float) -> None:
    config = preset(name)
    with torch.device("meta"):
        head = FlowHead(config.flow_head, config.vae.latent_dim, config.backbone.width)
    count = sum(parameter.numel() for parameter in head.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)  # the published figures have two decimals


@pytest.mark.parametrize("modulation", ["separable", "joint"])
def test_an_affine_norm_of_one_and_zero_changes_nothing(modulation: str) -> None:
    torch.manual_seed(0)
    plain, affine = random_head(modulation=modulation), random_head(modulation=modulation, affine_norm=True)
    missing, unexpected = affine.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == {f"blocks.{n}.norm.{part}" for n in (0, 1) for part in ("weight", "bias")}
    for block in affine.blocks:
        block.norm.weight.fill_(1.0)
        block.norm.bias.fill_(0.0)
    inputs = torch.randn(4, 8), torch.rand(4), torch.randn(4, 20)
    torch.testing.assert_close(affine(*inputs), plain(*inputs))


def test_a_head_of_16_bits_takes_and_gives_what_the_rest_of_the_model_has() -> None:
    torch.manual_seed(0)
    head = random_head()
    x, t, condition = torch.randn(4, 8), torch.rand(4), torch.randn(4, 20)
    expected = head(x, t, condition)
    assert head(x, t, condition.bfloat16()).dtype == torch.float32
    actual = head.bfloat16()(x, t, condition)
    assert actual.dtype == torch.float32
    # bfloat16 keeps 8 bits: a few per cent after two blocks. Rounded flow times would be off by the whole velocity.
    assert (actual - expected).norm() < 0.1 * expected.norm()
