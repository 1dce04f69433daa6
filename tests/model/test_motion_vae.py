from __future__ import annotations

import pytest
import torch

from llamo_ros.core.errors import ShapeError
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_vae import CausalLinear


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6], [12]], ids=str)
def test_streaming_decode_equals_offline_decode(tiny: Llamo, chunks: list[int]) -> None:
    latents = torch.randn(2, 12, 8)
    offline = tiny.vae.decode(latents)[0]
    state, parts = None, []
    for part in latents.split(chunks, dim=1):
        features, state = tiny.vae.decode(part, state)
        parts.append(features)
    torch.testing.assert_close(torch.cat(parts, dim=1), offline, rtol=0, atol=1e-4)  # the contract; float32 gives 1e-6


@pytest.mark.parametrize("chunks", [[4] * 6, [8, 4, 12]], ids=str)
def test_streaming_encode_equals_offline_encode(tiny: Llamo, chunks: list[int]) -> None:
    features = torch.randn(1, 24, 272)
    offline = tiny.vae.encode(features)[0]
    state, parts = None, []
    for part in features.split(chunks, dim=1):
        latents, state = tiny.vae.encode(part, state)
        parts.append(latents)
    torch.testing.assert_close(torch.cat(parts, dim=1), offline, rtol=0, atol=1e-4)


def test_no_frame_depends_on_a_later_latent(tiny: Llamo) -> None:
    latents = torch.randn(1, 10, 8)
    changed = latents.clone()
    changed[:, 6:] += 1.0
    before, after = tiny.vae.decode(latents)[0], tiny.vae.decode(changed)[0]
    assert torch.equal(before[:, :24], after[:, :24])
    assert not torch.equal(before[:, 24:28], after[:, 24:28])


def test_no_latent_depends_on_a_later_frame(tiny: Llamo) -> None:
    features = torch.randn(1, 40, 272)
    changed = features.clone()
    changed[:, 24:] += 1.0
    before, after = tiny.vae.encode(features)[0], tiny.vae.encode(changed)[0]
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6], after[:, 6])


def test_causal_linear_is_a_causal_convolution() -> None:
    torch.manual_seed(0)
    layer = CausalLinear(3, 5, kernel=3, dilation=2)
    x = torch.randn(2, 9, 3)
    weight = layer.linear.weight.reshape(5, 3, 3).permute(0, 2, 1)  # (out, tap, in) -> (out, in, tap)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (4, 0))
    expected = torch.nn.functional.conv1d(padded, weight, layer.linear.bias, dilation=2).transpose(1, 2)
    torch.testing.assert_close(layer(x)[0], expected, rtol=1e-5, atol=1e-5)  # float32, another order of summation


def test_training_noise_moves_latents_by_at_most_sigma_max_in_scale(tiny: Llamo) -> None:
    features = torch.randn(4, 32, 272)
    torch.manual_seed(1)
    noisy = torch.stack([tiny.vae(features)[0] for _ in range(4)])
    clean = tiny.vae.decode(tiny.vae.encode(features)[0])[0]
    assert 0 < (noisy - clean).std() < 0.5 * clean.std()


@pytest.mark.parametrize("shape", [(1, 6, 272), (1, 8, 271), (8, 272)], ids=str)
def test_frames_of_a_wrong_shape_are_refused(tiny: Llamo, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="4 L, 272"):
        tiny.vae.encode(torch.zeros(shape))
