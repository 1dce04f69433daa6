from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import CheckpointError
from llamo_ros.model.config import MotionVaeConfig, preset
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.training.pack import open_pack
from llamo_ros.training.runs import StageSettings, record_of, vae_config_of
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.stages import train_vae
from llamo_ros.training.vae_task import VaeTask, reconstruction_figures, trained_vae


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


@pytest.mark.parametrize("body", ["patch", "conv"])
@pytest.mark.parametrize("variance", ["std", "variance", "predicted"])
@pytest.mark.parametrize("loss", ["ours", "paper"])
def test_every_kind_of_vae_learns_with_either_loss(packed_folder: Path, body: str, variance: str, loss: str) -> None:
    torch.manual_seed(0)
    config = replace(preset("tiny").vae, body=body, variance=variance)
    task = VaeTask(MotionVae(config), open_pack(packed_folder), batch_size=4, loss=loss)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    before = task.loss(np.random.default_rng(0), progress=0.0)[0].item()
    for step in range(12):
        optimizer.zero_grad()
        total, figures = task.loss(np.random.default_rng(step), progress=0.0)
        total.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in task.model.parameters())
    assert np.isfinite(list(figures.values())).all()
    assert task.loss(np.random.default_rng(0), progress=0.0)[0].item() < before - 0.05


def test_each_body_has_the_losses_of_its_recipe_unless_others_are_chosen(packed_folder: Path) -> None:
    pack = open_pack(packed_folder)

    def figures(body: str, loss: str | None) -> set[str]:
        task = VaeTask(MotionVae(replace(preset("tiny").vae, body=body)), pack, batch_size=2, loss=loss)
        return set(task.loss(np.random.default_rng(0), 0.0)[1])

    assert figures("conv", None) == figures("patch", "paper") == {"nll", "root", "kl"}
    assert figures("patch", None) == figures("conv", "ours") > {"points", "feet", "kl"}


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


def vae_run(folder: Path, packed: Path, config: MotionVaeConfig, **choices: object) -> Path:
    settings = StageSettings(packed, folder, TrainingSettings(steps=2, bf16=False), preset="tiny", batch_size=2)
    train_vae(settings, vae_config=config, **choices)
    return folder


def test_a_run_says_which_vae_it_trained_and_is_read_back_as_such(packed_folder: Path, tmp_path: Path) -> None:
    config = MotionVaeConfig(latent_dim=5, width=8, dilations=(3, 1), body="conv", variance="predicted")
    run = vae_run(tmp_path / "vae", packed_folder, config)
    record = record_of(run)
    assert record["loss"] == "paper"
    assert vae_config_of(record, preset("tiny").vae) == config
    pack = open_pack(packed_folder)
    vae = trained_vae(run, pack)
    assert vae.config == config
    np.testing.assert_array_equal(vae.feature_mean, pack.mean)
    best = torch.load(run / "best.pt", weights_only=True)["average"]
    assert all(torch.equal(vae.state_dict()[name], value) for name, value in best.items())


def test_runs_of_before_the_vae_could_be_chosen_have_that_of_their_preset() -> None:
    assert vae_config_of({"preset": "tiny"}, preset("tiny").vae) == preset("tiny").vae


@pytest.mark.parametrize("recorded", [{"body": "conv"}, {"dilations": [1], "body": "none"}, {"dilations": 3}, "conv"])
def test_a_record_that_describes_no_vae_is_refused(recorded: object) -> None:
    with pytest.raises(CheckpointError, match="vae_config"):
        vae_config_of({"vae_config": recorded}, preset("tiny").vae)


def test_a_run_goes_on_only_as_what_it_began_as(packed_folder: Path, tmp_path: Path) -> None:
    config = preset("tiny").vae
    run = vae_run(tmp_path / "vae", packed_folder, config, loss="paper")
    with pytest.raises(CheckpointError, match="loss paper, not ours"):
        vae_run(run, packed_folder, config, loss="ours")
    with pytest.raises(CheckpointError, match="variance std, not predicted"):
        vae_run(run, packed_folder, replace(config, variance="predicted"))
    vae_run(run, packed_folder, config)
    assert record_of(run)["resumed_at_step"] == 2
    assert record_of(run)["loss"] == "paper"
