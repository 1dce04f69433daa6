from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.model.config import preset
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import decode_features, encode_clip
from llamo_ros.training.pack import open_pack
from llamo_ros.training.vae_task import FEET, VaeTask, foot_steps, reconstruction_figures, skeleton_points


def test_foot_steps_are_the_way_of_the_feet_over_the_floor_whatever_the_body_turns(
    random_clip: Callable[..., MotionClip],
) -> None:
    features = encode_clip(random_clip(0))
    feet = decode_features(features).joint_positions()[:, FEET][..., [0, 2]]
    expected = np.linalg.norm(np.diff(feet, axis=0), axis=-1)
    x = torch.from_numpy(features)[None]
    steps = foot_steps(x, skeleton_points(x)[..., :22, :])[0]
    np.testing.assert_allclose(steps.norm(dim=-1).numpy(), expected, atol=1e-12)  # float64 throughout


def test_a_decoder_that_learns_alone_leaves_the_latents_as_they_are(packed_folder: Path) -> None:
    torch.manual_seed(0)
    pack = open_pack(packed_folder)
    model = MotionVae(preset("tiny").vae)
    task = VaeTask(model, pack, batch_size=2, decoder_only=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss, figures = task.loss(np.random.default_rng(0), progress=1.0)
    loss.backward()
    optimizer.step()
    assert np.isfinite(list(figures.values())).all()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)


def test_noise_of_the_decoders_training_follows_the_spread_of_each_latent_channel(packed_folder: Path) -> None:
    torch.manual_seed(0)
    model = MotionVae(preset("tiny").vae)
    with torch.no_grad():
        model.encoder.output.weight[0] *= 10.0
    task = VaeTask(model, open_pack(packed_folder), batch_size=2, decoder_only=True)
    assert task.sigma_max.shape == (8,)
    assert task.sigma_max[0] > 3 * task.sigma_max[1:].max()


def test_a_perfect_reconstruction_has_no_error(packed_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = open_pack(packed_folder)
    model = MotionVae(preset("tiny").vae)
    monkeypatch.setattr(model, "encode", lambda x: (x, None))
    monkeypatch.setattr(model, "decode", lambda z: (z, None))
    figures = reconstruction_figures(model, pack, pack.split("val"))
    assert figures["mpjpe_mm"] == pytest.approx(0.0, abs=1e-6)
    # acos near 1 of float32 matrices that are orthogonal to 1e-6
    assert figures["rotation_deg"] == pytest.approx(0.0, abs=0.1)
    assert figures["jerk_ratio"] == pytest.approx(1.0)
    assert figures["slide_cm_s"] == pytest.approx(0.0, abs=1e-6)
