from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.core.errors import CheckpointError, ParameterError, ShapeError
from llamo_ros.model.causal_layers import CausalLinear
from llamo_ros.model.checkpoint import available_models, read_config
from llamo_ros.model.config import LlamoConfig, MotionVaeConfig, preset
from llamo_ros.model.motion_vae import BODIES, MotionVae
from llamo_ros.model.stream_state import join_states, put_rows, take_rows

CHANNELS = 6
# float32 with values of order 1 to 10: matrix products of other sizes add up in another order.
STREAMING = {"rtol": 1e-5, "atol": 1e-5}


def small(body: str, **choices: object) -> MotionVaeConfig:
    dilations = {"patch": (1, 2), "conv": (9, 3, 1)}[body]
    return replace(MotionVaeConfig(latent_dim=CHANNELS, width=16, dilations=dilations, body=body), **choices)


def made(config: MotionVaeConfig) -> MotionVae:
    """A VAE in which no parameter is zero, so that nothing passes by being off."""
    torch.manual_seed(0)
    vae = MotionVae(config).eval().requires_grad_(False)
    for parameter in vae.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    vae.feature_mean.normal_()
    vae.feature_std.uniform_(0.5, 2.0)
    return vae


@pytest.fixture(params=sorted(BODIES))
def vae(request: pytest.FixtureRequest) -> MotionVae:
    return made(small(request.param))


def in_parts(
    run: Callable[[Tensor, list[Tensor] | None], tuple[Tensor, list[Tensor]]], whole: Tensor, parts: list[int]
) -> Tensor:
    state, outputs = None, []
    for part in whole.split(parts, dim=1):
        output, state = run(part, state)
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("parts", [[1] * 50, [5, 1, 44], [0, 50], [30, 20]], ids=str)
def test_latents_decoded_in_any_parts_give_what_they_give_in_one_go(vae: MotionVae, parts: list[int]) -> None:
    latents = torch.randn(2, 50, CHANNELS)  # longer than the look-back of the convolutional decoder, 43.5 latents
    torch.testing.assert_close(in_parts(vae.decode, latents, parts), vae.decode(latents)[0], **STREAMING)


@pytest.mark.parametrize("parts", [[1] * 50, [5, 1, 44], [0, 50], [30, 20]], ids=str)
def test_frames_encoded_in_any_groups_of_four_give_what_they_give_in_one_go(vae: MotionVae, parts: list[int]) -> None:
    features = torch.randn(2, 200, 272)  # longer than the look-back of the convolutional encoder, 172 frames
    streamed = in_parts(vae.encode, features, [4 * part for part in parts])
    torch.testing.assert_close(streamed, vae.encode(features)[0], **STREAMING)


def test_no_frame_depends_on_a_later_latent(vae: MotionVae) -> None:
    latents = torch.randn(1, 10, CHANNELS)
    changed = latents.clone()
    changed[:, 6:] += 1.0
    before, after = vae.decode(latents)[0], vae.decode(changed)[0]
    assert torch.equal(before[:, :24], after[:, :24])
    assert not torch.equal(before[:, 24:28], after[:, 24:28])


def test_no_latent_depends_on_a_later_frame(vae: MotionVae) -> None:
    features = torch.randn(1, 40, 272)
    changed = features.clone()
    changed[:, 24:] += 1.0
    before, after = vae.encode(features)[0], vae.encode(changed)[0]
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6], after[:, 6])


@pytest.mark.parametrize("latent", [0, 3, 9])
def test_gradients_reach_from_a_latent_to_its_four_frames_and_no_later_one(vae: MotionVae, latent: int) -> None:
    features = torch.randn(1, 40, 272, requires_grad=True)
    vae.encode(features)[0][:, latent].sum().backward()
    reached = features.grad[0].abs().sum(-1) > 0
    assert reached[4 * latent : 4 * latent + 4].all()
    assert not reached[4 * latent + 4 :].any()


@pytest.mark.parametrize("frame", [0, 13, 14, 39])
def test_gradients_reach_from_a_frame_to_its_latent_and_no_later_one(vae: MotionVae, frame: int) -> None:
    latents = torch.randn(1, 10, CHANNELS, requires_grad=True)
    vae.decode(latents)[0][:, frame].sum().backward()
    reached = latents.grad[0].abs().sum(-1) > 0
    assert reached[frame // 4]
    assert not reached[frame // 4 + 1 :].any()


def test_the_convolutional_body_looks_back_as_far_as_motionstreamer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vae = made(small("conv"))
    # With positive weights and without ReLU no gradient is lost on the way.
    for parameter in vae.parameters():
        parameter.abs_()
    monkeypatch.setattr(F, "relu", lambda x: x)
    features = torch.ones(1, 400, 272, requires_grad=True)
    vae.encode(features)[0][:, -1].sum().backward()
    assert (features.grad[0, :, 0] != 0).nonzero()[0].item() == 396 - 172
    latents = torch.ones(1, 60, CHANNELS, requires_grad=True)
    vae.decode(latents)[0][:, -4].sum().backward()
    assert (latents.grad[0, :, 0] != 0).nonzero()[0].item() == 59 - 44  # 43.5 latents, so half of one more
    assert (
        vae.decoder.state_shapes()
        == [(2, 16), (18, 16), (6, 16), (2, 16)] + [(2, 16), (18, 16), (6, 16)] + [(2, 16)] * 4
    )


def test_streams_that_share_a_pass_do_not_see_each_other(vae: MotionVae) -> None:
    latents = torch.randn(3, 8, CHANNELS)
    spoiled = latents.clone()
    spoiled[1] = torch.nan
    state = vae.decode(spoiled[:, :5])[1]
    features = vae.decode(spoiled[:, 5:], state)[0]
    torch.testing.assert_close(features[[0, 2]], vae.decode(latents)[0][[0, 2], 20:], **STREAMING)


def test_streams_join_and_leave_a_batch_at_any_time(vae: MotionVae) -> None:
    latents = torch.randn(3, 9, CHANNELS)
    alone = vae.decode(latents)[0]
    # Streams 0 and 1 run together, then stream 2 begins beside stream 1, then all three end together.
    _, both = vae.decode(latents[:2, :4])
    joined = join_states([take_rows(both, [1]), vae.empty_decoder_state(1)])
    features, joined = vae.decode(torch.stack([latents[1, 4:7], latents[2, :3]]), joined)
    torch.testing.assert_close(features, torch.stack([alone[1, 16:28], alone[2, :12]]), **STREAMING)
    everyone = join_states([both, vae.empty_decoder_state(1)])
    everyone = put_rows(everyone, torch.tensor([1, 2]), joined)
    features, _ = vae.decode(torch.stack([latents[0, 4:6], latents[1, 7:9], latents[2, 3:5]]), everyone)
    torch.testing.assert_close(features[0], alone[0, 16:24], **STREAMING)
    torch.testing.assert_close(features[1], alone[1, 28:36], **STREAMING)
    torch.testing.assert_close(features[2], alone[2, 12:20], **STREAMING)


def test_an_empty_state_is_the_state_before_a_clip(vae: MotionVae) -> None:
    latents, features = torch.randn(2, 3, CHANNELS), torch.randn(2, 12, 272)
    assert torch.equal(vae.decode(latents, vae.empty_decoder_state(2))[0], vae.decode(latents)[0])
    assert torch.equal(vae.encode(features, vae.empty_encoder_state(2))[0], vae.encode(features)[0])


def test_rows_put_back_where_they_were_taken_change_nothing(vae: MotionVae) -> None:
    state = vae.encode(torch.randn(4, 8, 272))[1]
    again = put_rows(state, [3, 1], take_rows(state, [3, 1]))
    assert all(torch.equal(before, after) for before, after in zip(state, again, strict=True))


def test_a_state_of_other_streams_or_another_direction_is_refused(vae: MotionVae) -> None:
    latents = torch.randn(2, 3, CHANNELS)
    with pytest.raises(ShapeError, match="other streams"):
        vae.decode(latents, vae.empty_decoder_state(3))
    with pytest.raises((ParameterError, ShapeError), match="state"):
        vae.decode(latents, vae.encode(torch.randn(2, 4, 272))[1])
    with pytest.raises(ParameterError, match="all of encode or all of decode"):
        join_states([vae.empty_decoder_state(1), vae.empty_encoder_state(1)])
    with pytest.raises(ParameterError, match="at least one"):
        join_states([])


@pytest.mark.parametrize(("kernel", "dilation", "stride"), [(3, 1, 1), (3, 9, 1), (4, 1, 2), (1, 1, 1)], ids=str)
def test_causal_linear_is_a_convolution_with_the_left_padding_of_motionstreamer(
    kernel: int, dilation: int, stride: int
) -> None:
    torch.manual_seed(0)
    layer = CausalLinear(3, 5, kernel, dilation, stride)
    x = torch.randn(2, 12, 3)
    weight = layer.linear.weight.reshape(5, kernel, 3).permute(0, 2, 1)  # (out, tap, in) -> (out, in, tap)
    padded = F.pad(x.transpose(1, 2), ((kernel - 1) * dilation + (1 - stride), 0))
    expected = F.conv1d(padded, weight, layer.linear.bias, stride, dilation=dilation).transpose(1, 2)
    torch.testing.assert_close(layer(x)[0], expected, rtol=1e-5, atol=1e-5)  # float32, another order of summation


def motionstreamer_decoder(vae: MotionVae, latents: Tensor) -> Tensor:
    """The decoder as MotionStreamer's text has it, with F.conv1d, on the weights of ``vae``."""

    def conv(layer: CausalLinear, x: Tensor) -> Tensor:
        weight = layer.linear.weight.unflatten(1, (layer.kernel, -1)).transpose(1, 2)
        return F.conv1d(F.pad(x, (layer.lookback, 0)), weight, layer.linear.bias, dilation=layer.dilation)

    decoder = vae.decoder
    x = conv(decoder.input, decoder.widen(latents).transpose(1, 2)).relu()
    for stage in decoder.stages:
        for block in stage.blocks:
            x = x + F.conv1d(conv(block.temporal, x.relu()).relu(), block.mix.weight[..., None], block.mix.bias)
        x = conv(stage.resample, F.interpolate(x, scale_factor=2, mode="nearest"))
    return vae.denormalise(conv(decoder.output, conv(decoder.last, x).relu()).transpose(1, 2))


def test_the_convolutional_decoder_is_motionstreamers() -> None:
    vae = made(small("conv"))
    latents = torch.randn(2, 12, CHANNELS)
    torch.testing.assert_close(vae.decode(latents)[0], motionstreamer_decoder(vae, latents), **STREAMING)
    assert [block.temporal.dilation for stage in vae.decoder.stages for block in stage.blocks] == [9, 3, 1] * 2


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("latent_dim", "variance", "expected"),
    [
        (16, "predicted", (37.6e6, 38.6e6)),  # MotionStreamer's, with mu and log variance
        (32, "std", (37.6e6, 38.6e6)),  # LLaMo's: 2 x 16 outputs became 1 x 32
    ],
)
def test_the_convolutional_body_has_the_size_of_the_papers(
    latent_dim: int, variance: str, expected: tuple[float, float]
) -> None:
    config = replace(preset("1b").vae, latent_dim=latent_dim, variance=variance)
    with torch.device("meta"):
        vae = MotionVae(config)
    width, features, outputs = 1024, 272, latent_dim * (2 if variance == "predicted" else 1)
    resnet = 3 * (4 * width**2 + 2 * width)  # dilated k3 and pointwise
    down = 4 * width**2 + width + resnet
    up = resnet + 3 * width**2 + width
    hidden = 3 * width**2 + width
    encoder = (3 * features + 1) * width + 2 * down + hidden + (width + 1) * outputs
    decoder = (latent_dim + 1) * width + hidden + 2 * up + hidden + 3 * width * features + features
    assert (parameters(vae.encoder), parameters(vae.decoder)) == (encoder, decoder)
    assert (encoder, decoder) == pytest.approx(expected, rel=2e-3)


def test_width_depth_and_latent_of_the_convolutional_body_can_be_chosen() -> None:
    vae = made(MotionVaeConfig(latent_dim=5, width=12, dilations=(4, 1), body="conv"))
    latents, _ = vae.encode(torch.randn(1, 16, 272))
    assert latents.shape == (1, 4, 5)
    assert vae.decode(latents)[0].shape == (1, 16, 272)
    assert [block.temporal.dilation for block in vae.encoder.stages[1].blocks] == [4, 1]


def test_a_deep_convolutional_body_starts_with_outputs_of_the_scale_of_its_inputs() -> None:
    torch.manual_seed(0)
    vae = MotionVae(MotionVaeConfig(width=64, dilations=(9, 3, 1), body="conv"))
    features = torch.randn(2, 64, 272)
    latents, _ = vae.encode(features)
    assert 0.3 < latents.std() < 3.0
    assert 0.3 < vae.decode(latents)[0].std() < 3.0


@pytest.mark.parametrize(("sigma_per", "free"), [("element", (1, 1, 1)), ("token", (1, 1, 0)), ("clip", (1, 0, 0))])
@pytest.mark.parametrize("variance", ["std", "variance"])
def test_sigma_is_uniform_and_drawn_as_often_as_the_configuration_says(
    monkeypatch: pytest.MonkeyPatch, variance: str, sigma_per: str, free: tuple[int, int, int]
) -> None:
    sigma_max = 0.04
    vae = made(small("patch", variance=variance, sigma_per=sigma_per, sigma_max=sigma_max))
    drawn: list[Tensor] = []
    monkeypatch.setattr(vae, "encode", None)  # noise is added to mu before decode, and read off there
    monkeypatch.setattr(vae, "decode", lambda z: (drawn.append(z) or z, None))
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)  # eps = 1: the noise is sigma itself
    _, mu = vae(torch.randn(300, 16, 272))
    sigma = drawn[0] - mu
    for dim, is_free in enumerate(free):
        assert (sigma.std(dim).max() > 0.1 * sigma.max()) == bool(is_free)
    uniform = sigma**2 if variance == "variance" else sigma
    assert -1e-6 <= uniform.min()  # z - mu in float32
    assert uniform.max() <= sigma_max * (1 + 1e-3)
    # 300 draws or more: mean and spread of U(0, C) to within 5 standard errors of the mean, C / sqrt(12 * 300)
    assert uniform.mean() == pytest.approx(sigma_max / 2, abs=5 * sigma_max / (12 * 300) ** 0.5)
    assert uniform.std() == pytest.approx(sigma_max / 12**0.5, rel=0.15)


def test_a_given_sigma_is_a_standard_deviation_whatever_the_configuration_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "rand", torch.ones)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    for variance in ("std", "variance", "predicted"):
        vae = made(small("patch", variance=variance))
        monkeypatch.setattr(vae, "decode", lambda z: (z, None))
        z, mu = vae(torch.randn(1, 8, 272), sigma_max=torch.arange(CHANNELS) + 1.0)
        torch.testing.assert_close(z - mu, (torch.arange(CHANNELS) + 1.0).expand(1, 2, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("body", sorted(BODIES))
def test_a_predicted_variance_is_the_noise_of_training_and_has_no_part_in_inference(
    monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    vae = made(small(body, variance="predicted"))
    features = torch.randn(2, 16, 272)
    mu, log_variance = vae.encoder(vae.normalise(features))[0].chunk(2, dim=-1)
    torch.testing.assert_close(vae.encode(features)[0], mu, rtol=0, atol=0)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    monkeypatch.setattr(vae, "decode", lambda z: (z, None))
    z, mu_again, predicted = vae.training_pass(features)
    torch.testing.assert_close(mu_again, mu, rtol=0, atol=0)
    torch.testing.assert_close(predicted, log_variance, rtol=0, atol=0)
    torch.testing.assert_close(z - mu, (0.5 * log_variance).exp(), rtol=1e-4, atol=1e-5)


def test_a_predicted_variance_is_bounded() -> None:
    vae = made(small("patch", variance="predicted"))
    vae.encoder.output.bias[CHANNELS:] = torch.tensor([-1e3, 1e3, 0.0, 0.0, 0.0, 0.0])
    reconstructed, _, log_variance = vae.training_pass(torch.randn(1, 8, 272))
    assert log_variance[..., 0].unique().tolist() == [-30.0]
    assert log_variance[..., 1].unique().tolist() == [20.0]
    assert torch.isfinite(reconstructed).all()


def test_without_a_predicted_variance_there_is_none(vae: MotionVae) -> None:
    assert vae.training_pass(torch.randn(1, 8, 272))[2] is None


@pytest.mark.parametrize("body", sorted(BODIES))
def test_16_bit_weights_take_and_give_float32_features(body: str) -> None:
    vae = made(small(body)).bfloat16()
    latents, _ = vae.encode(torch.randn(1, 16, 272))
    features, state = vae.decode(latents)
    assert features.dtype == torch.float32
    joined = join_states([state, vae.empty_decoder_state(1)])
    assert vae.decode(latents[:, :1].repeat(2, 1, 1), joined)[0].dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 6, 272), (1, 8, 271), (8, 272)], ids=str)
def test_frames_of_a_wrong_shape_are_refused(vae: MotionVae, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="4 L, 272"):
        vae.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 6, 5), (6, CHANNELS)], ids=str)
def test_latents_of_a_wrong_shape_are_refused(vae: MotionVae, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="another VAE"):
        vae.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"body": "transformer"}, "body of the motion VAE is 'transformer', expected one of: patch, conv"),
        ({"variance": "sigma"}, "std, variance, predicted"),
        ({"sigma_per": "frame"}, "element, token, clip"),
        ({"sigma_max": -0.1}, "sigma_max"),
        ({"sigma_max": float("nan")}, "sigma_max"),
        ({"width": 0}, "width"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"dilations": ()}, "dilations"),
        ({"dilations": (1, 0)}, "dilations"),
    ],
    ids=str,
)
def test_configurations_outside_their_range_are_refused(choice: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MotionVaeConfig(**choice)
    described = preset("tiny").to_json()
    with pytest.raises(CheckpointError, match=message):
        LlamoConfig.from_json(described | {"vae": described["vae"] | choice})


def test_models_of_before_the_convolutional_body_have_the_same_vae_as_ever() -> None:
    shipped = available_models()["llamo-mini"]
    assert read_config(shipped)[0].vae == preset("mini").vae
    names = {name.partition(".")[0] for name in MotionVae(preset("tiny").vae).state_dict()}
    assert names == {"encoder", "decoder", "feature_mean", "feature_std"}
