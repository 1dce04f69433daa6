"""Training of the motion VAE: windows of frames, one step, validation by forward kinematics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.config import FRAMES_PER_LATENT, preset
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.motion.quality import foot_sliding
from llamo_ros.motion.representation272 import decode_features, heading_change, local_rotations
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE, forward_kinematics
from llamo_ros.training.pack import Pack, PackedSequence, mirror_features
from llamo_ros.training.runs import START, best_of, load_start, load_tensors, record_of, vae_config_of
from llamo_ros.training.vae_losses import vae_loss
from llamo_ros.training.vae_recipe import default_loss

WINDOW = 64  # frames
# Largest noise on latents while the decoder learns alone, as a share of their spread.
DECODER_NOISE = 0.12


class VaeTask:
    """Draws 64-frame windows (CMU three times as often per frame as Bandai, half of them mirrored).

    ``loss`` is one of :data:`~llamo_ros.training.vae_losses.LOSSES`; None takes the one of the body.

    With ``decoder_only`` the encoder stays as it is, so that a motion model keeps its latents, and the decoder learns
    to forgive: its latents get noise up to ``DECODER_NOISE`` of their spread, about what a flow head adds.

    Raises:
        DatasetError: no training clip is long enough.
    """

    def __init__(
        self,
        model: MotionVae,
        pack: Pack,
        batch_size: int = 32,
        loss: str | None = None,
        cmu_weight: float = 3.0,
        compile_loss: bool = False,
        decoder_only: bool = False,
    ) -> None:
        self.model, self.pack, self.batch_size = model, pack, batch_size
        self.sigma_max: Tensor | None = None  # as configured
        if decoder_only:
            model.encoder.requires_grad_(False)
        else:
            with torch.no_grad():
                model.feature_mean.copy_(torch.from_numpy(pack.mean))
                model.feature_std.copy_(torch.from_numpy(pack.std))
        self.rows = [row for row in pack.split("train") if row.length >= 16]
        if not self.rows:
            raise DatasetError("no training clip has 16 frames; pack other data.")
        weight = np.array([row.length * (1.0 if row.kind == "bandai" else cmu_weight) for row in self.rows])
        self.chances = np.cumsum(weight / weight.sum())
        if decoder_only:
            self.sigma_max = DECODER_NOISE * self._latent_spread()
        loss = loss or default_loss(model.config)
        self._loss = vae_loss(loss, model.feature_std, compile_loss, ramp=not decoder_only)

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

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`."""
        x = self._batch(rng)
        y, mu, log_variance = self.model.training_pass(x, self.sigma_max)
        with torch.autocast(x.device.type, enabled=False):
            total, terms = self._loss(x, y, mu, log_variance, progress)
        return total, {name: term.item() for name, term in terms.items()}

    def validate(self) -> dict[str, float]:
        """Reconstruction of whole validation clips; see :func:`reconstruction_figures`."""
        figures = {}
        rows = [row for row in self.pack.split("val") if row.kind != "cmu_trial"]  # whose parts are in h3d
        names = {kind: {"h3d": "cmu"}.get(kind, kind) for kind in sorted({row.kind for row in rows})}
        for kind, name in names.items():
            own = [row for row in rows if row.kind == kind]
            figures |= {f"{name}_{k}": v for k, v in reconstruction_figures(self.model, self.pack, own).items()}
        scale = {f"{name}_mpjpe_mm": 1 / 20 for name in names.values()}
        scale |= {"bandai_mpjpe_mm": 1 / 8, "cmu_jerk_ratio": 0.1, "bandai_slide_cm_s": 0.1}
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


def trained_vae(run: Path, pack: Pack) -> MotionVae:
    """The VAE of a run as it validated best, with the feature statistics of the pack it was trained on.

    Raises:
        CheckpointError: it is no run of a VAE, or has not been validated yet.
    """
    command = "llamo train vae"
    record = record_of(run, command)
    model = MotionVae(vae_config_of(record, preset(record["preset"]).vae))
    average = best_of(run, command)["average"]
    if (run / START).exists():  # the decoder alone was trained, and the rest is as it began
        load_start(model, run, command)
        load_tensors(model, average, run, complete=False)
    else:
        statistics = {"feature_mean": torch.from_numpy(pack.mean), "feature_std": torch.from_numpy(pack.std)}
        load_tensors(model, average | statistics, run, complete=True)
    return model.eval().requires_grad_(False)


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
