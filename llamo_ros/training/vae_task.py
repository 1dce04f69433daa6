"""Training of the motion VAE: windows, losses, validation by forward kinematics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.motion.quality import foot_sliding
from llamo_ros.motion.representation272 import (
    ROOT_DISPLACEMENT,
    ROTATIONS,
    decode_features,
    heading_change,
    local_rotations,
)
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_INDEX, forward_kinematics
from llamo_ros.training.pack import Pack, PackedSequence, mirror_features

WINDOW = 64  # frames
FEET = [JOINT_INDEX[name] for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]
STANDING_STEP = 0.003  # [m] per frame, 9 cm/s; a foot that moves less is standing, and its slide counts three times
# Largest noise on latents while the decoder learns alone, as a share of their spread.
DECODER_NOISE = 0.12


@dataclass(frozen=True)
class VaeLossWeights:
    """Weights of the VAE loss terms; all terms are smooth-L1 means unless said.

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


class VaeTask:
    """Draws 64-frame windows (CMU three times as often per frame as Bandai, half of them mirrored).

    With ``decoder_only`` the encoder stays as it is, so that a motion model keeps its latents, and the decoder learns
    to forgive: its latents get noise up to ``DECODER_NOISE`` of their spread, about what a flow head adds.
    """

    def __init__(
        self,
        model: MotionVae,
        pack: Pack,
        batch_size: int = 32,
        weights: VaeLossWeights | None = None,
        cmu_weight: float = 3.0,
        compile_loss: bool = False,
        decoder_only: bool = False,
    ) -> None:
        self.model, self.pack, self.batch_size = model, pack, batch_size
        self.weights = weights or VaeLossWeights()
        self.decoder_only = decoder_only
        self.sigma_max: float | Tensor = model.config.sigma_max
        if decoder_only:
            model.encoder.requires_grad_(False)
        else:
            with torch.no_grad():
                model.feature_mean.copy_(torch.from_numpy(pack.mean))
                model.feature_std.copy_(torch.from_numpy(pack.std))
        self.rows = [row for row in pack.split("train") if row.length >= 16]
        weight = np.array([row.length * (1.0 if row.kind == "bandai" else cmu_weight) for row in self.rows])
        self.chances = np.cumsum(weight / weight.sum())
        feature_weights = torch.ones(272)
        feature_weights[0:8], feature_weights[74:140] = 3.0, 1.5
        feature_weights[ROTATIONS] = 1.3
        feature_weights[140 + 6 * JOINT_INDEX["left_shoulder"] :] = 3.0  # the arms' twist is the hardest to learn
        self.feature_weights = feature_weights.to(model.feature_mean.device)
        if decoder_only:
            self.sigma_max = DECODER_NOISE * self._latent_spread()
        self._terms = torch.compile(self._loss_terms, dynamic=False) if compile_loss else self._loss_terms

    @torch.no_grad()
    def _latent_spread(self) -> Tensor:
        """Standard deviation of the latents (C,) over a thousand training windows."""
        rng = np.random.default_rng(0)
        windows = [self._batch(rng) for _ in range(max(1, 1000 // self.batch_size))]
        return torch.cat([self.model.encode(x)[0].flatten(0, 1) for x in windows]).std(0)

    def _batch(self, rng: np.random.Generator) -> Tensor:
        windows = np.empty((self.batch_size, WINDOW, 272), np.float32)
        for slot in range(self.batch_size):
            row = self.rows[min(int(np.searchsorted(self.chances, rng.random())), len(self.rows) - 1)]
            offset = rng.integers(0, max(1, row.length - WINDOW + 1))
            window = self.pack.of(row)[offset : offset + WINDOW]
            windows[slot, : len(window)] = window
            windows[slot, len(window) :] = _held(window[-1])
            if rng.random() < 0.5:
                windows[slot] = mirror_features(windows[slot])
        return torch.from_numpy(windows).to(self.model.feature_mean.device)

    def _loss_terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        difference = (y - x) / self.model.feature_std
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

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`."""
        x = self._batch(rng)
        y, mu = self.model(x, self.sigma_max)
        with torch.autocast(x.device.type, enabled=False):
            features, points, velocity, acceleration, heading, trajectory, feet = self._terms(x, y)
            kl = 0.5 * mu.square().mean()
            w, ramp = self.weights, 1.0 if self.decoder_only else float(np.clip((progress - 0.1) / 0.2, 0.0, 1.0))
            total = w.features * features + w.points * points + w.kl * kl
            total = total + w.velocity * velocity + w.acceleration * acceleration
            total = total + ramp * (w.heading * heading + w.trajectory * trajectory + w.feet * feet)
        figures = {
            "rec": features.item(),
            "points": points.item(),
            "acc": acceleration.item(),
            "yaw": heading.item(),
            "path": trajectory.item(),
            "feet": feet.item(),
            "kl": kl.item(),
        }
        return total, figures

    def validate(self) -> dict[str, float]:
        """Reconstruction of whole validation clips; see :func:`reconstruction_figures`."""
        figures = {}
        for name, kinds in (("cmu", ("h3d",)), ("bandai", ("bandai",))):
            rows = [row for row in self.pack.split("val") if row.kind in kinds]
            if rows:  # the open licence set has no Bandai clips
                figures |= {f"{name}_{k}": v for k, v in reconstruction_figures(self.model, self.pack, rows).items()}
        scale = {"cmu_mpjpe_mm": 1 / 20, "bandai_mpjpe_mm": 1 / 8, "cmu_jerk_ratio": 0.1, "bandai_slide_cm_s": 0.1}
        # Less slide than real is no merit; a figure that could not be measured (NaN) has no say.
        figures["score"] = sum(
            factor * max(0.0, figures[name]) for name, factor in scale.items() if np.isfinite(figures.get(name, np.nan))
        )
        return figures


def _held(frame: np.ndarray) -> np.ndarray:
    """The frame, standing still: no root motion, no velocities."""
    held = frame.copy()
    held[0:8] = [0, 0, 1, 0, 0, 0, 1, 0]
    held[74:140] = 0
    return held


@torch.no_grad()
def reconstruction_figures(model: MotionVae, pack: Pack, rows: list[PackedSequence]) -> dict[str, float]:
    """Reconstruction error of whole clips, averaged over frames.

    Returns:
        mpjpe_mm: root-aligned joint error by FK from rotations, [mm]; rotation_deg: geodesic error of local rotations,
        [deg]; jerk_ratio: mean jerk of the reconstruction over that of the real motion (same frame, FK, root-aligned);
        turn_deg: mean absolute error of the heading accumulated over the clip, [deg]; slide_cm_s: by how much faster
        the feet in contact move over the floor than the real ones, [cm/s].
    """
    device = model.feature_mean.device
    errors, angles, real_jerk, made_jerk, turns, slides = [], [], [], [], [], []
    for row in rows:
        frames = row.length // FRAMES_PER_LATENT * FRAMES_PER_LATENT
        if frames < 8:
            continue
        x = torch.from_numpy(np.array(pack.of(row)[:frames])).to(device)[None]
        y = model.decode(model.encode(x)[0])[0].float()
        zeros = torch.zeros_like(x[..., :3])
        rx, ry = local_rotations(x), local_rotations(y)
        px, py = forward_kinematics(rx, zeros)[0][0], forward_kinematics(ry, zeros)[0][0]
        errors.append((px - py).norm(dim=-1).mean(-1))
        angles.append(geodesic_angle(rx, ry)[0].mean(-1))
        turns.append((heading_change(y) - heading_change(x)).cumsum(-1).abs().mean()[None])
        made, real = (
            foot_sliding(decode_features(v[0].cpu().double().numpy()).joint_positions(), FRAME_RATE) for v in (y, x)
        )
        if np.isfinite(made) and np.isfinite(real):
            slides.append(made - real)
        for positions, out in ((px, real_jerk), (py, made_jerk)):
            out.append(positions.diff(n=3, dim=0).norm(dim=-1).mean(-1))
    mean = {
        k: torch.cat(v).mean().item()
        for k, v in (("e", errors), ("a", angles), ("r", real_jerk), ("m", made_jerk), ("t", turns))
    }
    return {
        "mpjpe_mm": 1000 * mean["e"],
        "rotation_deg": float(np.rad2deg(mean["a"])),
        "jerk_ratio": mean["m"] / mean["r"],
        "turn_deg": float(np.rad2deg(mean["t"])),
        "slide_cm_s": 100 * float(np.mean(slides)) if slides else float("nan"),
    }
