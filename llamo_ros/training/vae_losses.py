"""What a motion VAE is trained to do: two sets of losses, the paper's and one made for small bodies and robots."""

# B windows, T frames, L latents (T = 4 L), C latent channels

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.representation272 import ROOT_DISPLACEMENT, ROTATIONS, local_rotations
from llamo_ros.motion.skeleton import JOINT_INDEX, forward_kinematics

FEET = [JOINT_INDEX[name] for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]
STANDING_STEP = 0.003  # [m] per frame, 9 cm/s; a foot that moves less is standing, and its slide counts three times
ROOT_FEATURES = slice(0, 8)  # displacement and change of heading


class VaeLoss(Protocol):
    """Loss of one batch of windows."""

    def __call__(
        self, x: Tensor, y: Tensor, mu: Tensor, log_variance: Tensor | None, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise and its terms.

        Args:
            x: Real features, shape (B, T, 272), natural units.
            y: Reconstructed ones.
            mu: Latents, shape (B, L, C).
            log_variance: Logarithm of their variance, same shape, if the encoder predicts one.
            progress: Share of the training done, 0 to 1.
        """


def kl_to_standard_normal(mu: Tensor, log_variance: Tensor | None) -> Tensor:
    """KL(N(mu, variance) || N(0, I)) of every element of ``mu``; mu^2 / 2 where no variance is predicted.

    A variance that is not learned adds a constant only, which is left out.
    """
    kl = 0.5 * mu.square()
    return kl if log_variance is None else kl + 0.5 * (log_variance.exp() - 1.0 - log_variance)


def optimal_sigma_nll(difference: Tensor) -> Tensor:
    """Negative log-likelihood of errors under the Gaussian that suits them best, summed over all elements.

    One sigma for all elements: their root mean square (Rybkin et al., arXiv 2006.13202), with log sigma kept above -6
    by a soft clip. Used by MotionStreamer, and so by the paper, in place of a mean squared error: where the clip does
    not act, its gradient is that of log(mean square), so that the weight of the other terms need not follow the error.
    """
    # 1e-12 is an error of 1e-6 of a feature's spread: no perfect reconstruction gives an infinite gradient.
    log_rmse = 0.5 * (difference.square().mean() + 1e-12).log()
    log_sigma = -6.0 + F.softplus(log_rmse + 6.0)
    return (0.5 * (difference / log_sigma.exp()).square() + log_sigma + 0.5 * math.log(2.0 * math.pi)).sum()


@dataclass(frozen=True)
class PaperVaeLoss:
    """The paper's losses (MotionStreamer's): optimal-sigma likelihood of all features and of the root, and KL.

    The likelihoods sum over the batch, KL is its mean over windows, as in MotionStreamer's code. The total is divided
    by the number of feature elements, which AdamW does not see, so that the bound on the gradient keeps its meaning.

    Attributes:
        feature_std: Scale of the features, shape (272,), by which errors are normalised.
        root: Weight of the likelihood of the 8 root features, which has a sigma of its own.
        kl: Weight of KL, summed over latents and channels.
    """

    feature_std: Tensor
    root: float = 7.0
    kl: float = 1.0

    def __call__(
        self, x: Tensor, y: Tensor, mu: Tensor, log_variance: Tensor | None, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`VaeLoss`; the terms are per feature element, per root element and per window."""
        difference = (y - x) / self.feature_std
        of_root = difference[..., ROOT_FEATURES]
        features, root = optimal_sigma_nll(difference), optimal_sigma_nll(of_root)
        kl = kl_to_standard_normal(mu, log_variance).sum((1, 2)).mean()
        total = (features + self.root * root + self.kl * kl) / difference.numel()
        return total, {"nll": features / difference.numel(), "root": root / of_root.numel(), "kl": kl}


@dataclass(frozen=True)
class VaeLossWeights:
    """Weights of the terms of :class:`KinematicVaeLoss`; all are smooth-L1 means unless said.

    The heading, trajectory and feet terms ramp in from 10 % to 30 % of training: from step 0 they hold the model at the
    mean pose. A decoder that is trained alone has them from step 0.
    """

    features: float = 1.0
    points: float = 15.0
    velocity: float = 10.0
    acceleration: float = 5.0
    heading: float = 1.0
    trajectory: float = 1.0
    feet: float = 20.0
    kl: float = 1e-4


class KinematicVaeLoss:
    """Smooth-L1 on features, on points of the body by forward kinematics, on their motion and on the way of the feet.

    Args:
        feature_std: Scale of the features, shape (272,).
        weights: Of the terms.
        compile_terms: Compile the terms with PyTorch; needs a C++ compiler.
        ramp: Let heading, trajectory and feet in late; see :class:`VaeLossWeights`.
    """

    def __init__(
        self, feature_std: Tensor, weights: VaeLossWeights, compile_terms: bool = False, ramp: bool = True
    ) -> None:
        self.feature_std, self.weights, self.ramp = feature_std, weights, ramp
        feature_weights = torch.ones(272)
        feature_weights[0:8], feature_weights[74:140] = 3.0, 1.5
        feature_weights[ROTATIONS] = 1.3
        feature_weights[140 + 6 * JOINT_INDEX["left_shoulder"] :] = 3.0  # the arms' twist is the hardest to learn
        self.feature_weights = feature_weights.to(feature_std.device)
        self._terms: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = (
            torch.compile(self._loss_terms, dynamic=False) if compile_terms else self._loss_terms
        )

    def __call__(
        self, x: Tensor, y: Tensor, mu: Tensor, log_variance: Tensor | None, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`VaeLoss`."""
        features, points, velocity, acceleration, heading, trajectory, feet = self._terms(x, y)
        kl = kl_to_standard_normal(mu, log_variance).mean()
        w, late = self.weights, float(np.clip((progress - 0.1) / 0.2, 0.0, 1.0)) if self.ramp else 1.0
        total = w.features * features + w.points * points + w.kl * kl
        total = total + w.velocity * velocity + w.acceleration * acceleration
        total = total + late * (w.heading * heading + w.trajectory * trajectory + w.feet * feet)
        terms = {"rec": features, "points": points, "acc": acceleration, "yaw": heading, "path": trajectory}
        return total, terms | {"feet": feet, "kl": kl}

    def _loss_terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        difference = (y - x) / self.feature_std
        features = (
            F.smooth_l1_loss(difference, torch.zeros_like(difference), beta=0.5, reduction="none")
            * self.feature_weights
        ).mean()
        half = len(x) // 2  # forward kinematics costs more than the network; half the windows are enough
        real, made = skeleton_points(x[:half]), skeleton_points(y[:half])
        points = F.smooth_l1_loss(made, real, beta=0.02)
        error = made - real
        speed = error[:, 1:] - error[:, :-1]
        velocity = F.smooth_l1_loss(speed, torch.zeros_like(speed), beta=0.004)
        change = speed[:, 1:] - speed[:, :-1]
        acceleration = F.smooth_l1_loss(change, torch.zeros_like(change), beta=0.002)
        turn = (y[..., 4] - x[..., 4]).cumsum(1)
        heading = F.smooth_l1_loss(turn, torch.zeros_like(turn), beta=0.05)
        path = (y[..., :2] - x[..., :2]).cumsum(1)
        trajectory = F.smooth_l1_loss(path, torch.zeros_like(path), beta=0.05)
        steps, wanted = foot_steps(y[:half], made[..., :22, :]), foot_steps(x[:half], real[..., :22, :])
        is_standing = wanted.norm(dim=-1, keepdim=True) < STANDING_STEP
        slide = F.smooth_l1_loss(steps, wanted, beta=0.002, reduction="none")
        feet = (slide * (1.0 + 2.0 * is_standing)).mean()
        return features, points, velocity, acceleration, heading, trajectory, feet


LOSSES = ("ours", "paper")


def vae_loss(name: str, feature_std: Tensor, compile_terms: bool = False, ramp: bool = True) -> VaeLoss:
    """The losses by name: "paper" or "ours", which are :class:`PaperVaeLoss` and :class:`KinematicVaeLoss`.

    Raises:
        ParameterError: there are no such losses.
    """
    if name == "paper":
        return PaperVaeLoss(feature_std)
    if name == "ours":
        return KinematicVaeLoss(feature_std, VaeLossWeights(), compile_terms, ramp)
    raise ParameterError(f"there are no VAE losses {name!r}. Choose one of: {', '.join(LOSSES)}.")


def skeleton_points(features: Tensor) -> Tensor:
    """Three points on every joint, shape (..., 66, 3), [m], heading removed, pelvis at the origin.

    The joint itself and two points 25 cm along its own x and y axes: joint positions alone do not see the twist of
    hips, wrists, feet and head, which a robot needs.
    """
    rotations = local_rotations(features)
    positions, turned = forward_kinematics(rotations, torch.zeros_like(features[..., :3]))
    return torch.cat([positions, positions + 0.25 * turned[..., 0], positions + 0.25 * turned[..., 1]], dim=-2)


def foot_steps(features: Tensor, positions: Tensor) -> Tensor:
    """Way of ankles and feet over the floor in each frame but the first, shape (..., T - 1, 4, 2), [m] (x, z).

    In the heading of the frame before, which is the frame of the root displacement: what the root moves, and what the
    feet move about it while the body turns.

    Args:
        features: Features in natural units, shape (..., T, 272).
        positions: Their joints, heading removed, pelvis at the origin, shape (..., T, 22 or more, 3), [m].
    """
    feet = positions[..., FEET, :][..., [0, 2]]
    cosine, sine = features[..., 1:, 2, None], -features[..., 1:, 4, None]
    x, z = feet[..., 1:, :, 0], feet[..., 1:, :, 1]
    turned = torch.stack([cosine * x + sine * z, cosine * z - sine * x], dim=-1)
    return features[..., 1:, None, ROOT_DISPLACEMENT] + turned - feet[..., :-1, :, :]
