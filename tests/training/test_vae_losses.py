from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import decode_features, encode_clip
from llamo_ros.training.vae_losses import (
    FEET,
    KinematicVaeLoss,
    PaperVaeLoss,
    VaeLossWeights,
    foot_steps,
    kl_to_standard_normal,
    optimal_sigma_nll,
    skeleton_points,
    vae_loss,
)


def test_foot_steps_are_the_way_of_the_feet_over_the_floor_whatever_the_body_turns(
    random_clip: Callable[..., MotionClip],
) -> None:
    features = encode_clip(random_clip(0))
    feet = decode_features(features).joint_positions()[:, FEET][..., [0, 2]]
    expected = np.linalg.norm(np.diff(feet, axis=0), axis=-1)
    x = torch.from_numpy(features)[None]
    steps = foot_steps(x, skeleton_points(x)[..., :22, :])[0]
    np.testing.assert_allclose(steps.norm(dim=-1).numpy(), expected, atol=1e-12)  # float64 throughout


def test_kl_is_that_of_two_normal_distributions() -> None:
    torch.manual_seed(0)
    mu, log_variance = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    posterior = torch.distributions.Normal(mu, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mu, log_variance), expected)


def test_kl_without_a_learned_variance_differs_by_a_constant_only() -> None:
    mu = torch.randn(5, dtype=torch.float64)
    constant = kl_to_standard_normal(mu, torch.full_like(mu, math.log(0.01))) - kl_to_standard_normal(mu, None)
    torch.testing.assert_close(constant, constant[:1].expand(5))
    torch.testing.assert_close(kl_to_standard_normal(mu, None), 0.5 * mu**2)


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_no_other_sigma_makes_the_errors_likelier(scale: float) -> None:
    torch.manual_seed(0)
    difference = scale * torch.randn(4, 8, 5, dtype=torch.float64)
    nll = optimal_sigma_nll(difference)
    for sigma in scale * np.array([0.5, 0.9, 0.98, 1.02, 1.1, 2.0]):
        other = -torch.distributions.Normal(0.0, float(sigma)).log_prob(difference).sum()
        # The soft clip at -6 moves log sigma by softplus: by 0.05 at scale 0.05, by less above.
        assert nll < other + 0.01 * difference.numel()


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_gradient_of_the_likelihood_is_that_of_log_mean_square(scale: float) -> None:
    torch.manual_seed(0)
    difference = (scale * torch.randn(6, 7, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(optimal_sigma_nll(difference), difference)
    (expected,) = torch.autograd.grad(0.5 * 42 * difference.square().mean().log(), difference)
    # 1 / (1 + e^-6 / scale), 0.25 %, is what the soft clip leaves of it
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=0)


def test_sigma_is_clipped_softly_and_a_perfect_reconstruction_is_no_infinity() -> None:
    difference = torch.zeros(10, 10, requires_grad=True)
    nll = optimal_sigma_nll(difference)
    nll.backward()
    assert nll.item() == pytest.approx(100 * (-6.0 + 0.5 * math.log(2 * math.pi)), rel=1e-3)
    assert torch.equal(difference.grad, torch.zeros(10, 10))


def test_the_papers_loss_is_written_as_in_its_text() -> None:
    torch.manual_seed(0)
    std = torch.rand(272, dtype=torch.float64) + 0.5
    x, y = (torch.randn(3, 8, 272, dtype=torch.float64) for _ in range(2))
    mu, log_variance = (torch.randn(3, 2, 5, dtype=torch.float64) for _ in range(2))

    def nll(error: np.ndarray) -> float:
        log_sigma = -6 + np.log1p(np.exp(np.log(np.sqrt((error**2).mean())) + 6))
        return float((0.5 * (error / np.exp(log_sigma)) ** 2 + log_sigma + 0.5 * np.log(2 * np.pi)).sum())

    error = ((y - x) / std).numpy()
    kl = -0.5 * (1 + log_variance - mu**2 - log_variance.exp()).numpy().sum((1, 2)).mean()
    expected = (nll(error) + 7.0 * nll(error[..., :8]) + kl) / error.size
    total, terms = PaperVaeLoss(std)(x, y, mu, log_variance, 0.5)
    assert total.item() == pytest.approx(expected, rel=1e-9)
    assert terms["kl"].item() == pytest.approx(kl, rel=1e-9)


def test_the_root_is_eight_features_in_the_papers_loss() -> None:
    x = torch.zeros(2, 4, 272)
    mu = torch.zeros(2, 1, 3)
    for feature in (0, 7, 8):
        y = x.clone()
        y[..., feature] = 1.0
        root = PaperVaeLoss(torch.ones(272))(x, y, mu, None, 0.0)[1]["root"].item()
        assert (root > -5.0) == (feature < 8)


def test_terms_of_the_way_travelled_ramp_in_unless_the_decoder_learns_alone() -> None:
    torch.manual_seed(0)
    x, mu = torch.randn(4, 8, 272), torch.zeros(4, 2, 3)
    y = x.clone()
    y[..., :2] += 0.1
    only_way = VaeLossWeights(features=0, points=0, velocity=0, acceleration=0, heading=0, feet=0)

    def at(progress: float, ramp: bool) -> float:
        return KinematicVaeLoss(torch.ones(272), only_way, ramp=ramp)(x, y, mu, None, progress)[0].item()

    assert at(0.05, ramp=True) == 0.0
    assert at(0.2, ramp=True) == pytest.approx(0.5 * at(1.0, ramp=True))
    assert at(0.0, ramp=False) == at(1.0, ramp=True) > 0.0


def test_each_weight_of_the_kinematic_loss_counts() -> None:
    torch.manual_seed(0)
    x, y, mu = torch.randn(4, 8, 272), torch.randn(4, 8, 272), torch.randn(4, 2, 3)
    whole = KinematicVaeLoss(torch.ones(272), VaeLossWeights())(x, y, mu, None, 1.0)[0]
    for name in vars(VaeLossWeights()):
        without = KinematicVaeLoss(torch.ones(272), replace(VaeLossWeights(), **{name: 0.0}))(x, y, mu, None, 1.0)[0]
        assert without < whole


def test_unknown_losses_are_refused_with_the_choices() -> None:
    with pytest.raises(ParameterError, match="ours, paper"):
        vae_loss("theirs", torch.ones(272))
