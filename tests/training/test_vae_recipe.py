from __future__ import annotations

from pathlib import Path

import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import PRESETS, preset
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.vae_losses import LOSSES
from llamo_ros.training.vae_recipe import chosen_vae, default_loss, vae_recipe


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_a_recipe_that_training_accepts(loss: str) -> None:
    recipe = vae_recipe(loss)
    assert recipe.loss == loss
    assert recipe.batch_size >= 1
    TrainingSettings(**recipe.training)


def test_the_papers_recipe_is_that_of_its_supplement() -> None:
    recipe = vae_recipe("paper")
    settings = TrainingSettings(**recipe.training)
    assert (settings.learning_rate, settings.final_rate, settings.warmup_steps) == (5e-5, 0.0, 1000)
    assert (settings.steps, settings.betas, recipe.batch_size) == (3_000_000, (0.9, 0.95), 256)


def test_presets_of_the_papers_sizes_are_trained_with_the_papers_losses() -> None:
    losses = {name: default_loss(config.vae) for name, config in PRESETS.items()}
    assert losses == {"tiny": "ours", "mini": "ours", "1b": "paper", "3b": "paper", "8b": "paper"}


@pytest.mark.parametrize(
    "text",
    ["- a list", "loss: paper", "loss: paper\nbatch_size: 1\ntraining: {speed: 3}", "loss: ["],
    ids=["list", "no training", "unknown setting", "no YAML"],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match="does not describe the training of a VAE"):
        vae_recipe("paper", path)


def test_losses_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ParameterError, match="ours, paper"):
        vae_recipe("theirs")


def test_what_is_not_chosen_is_as_in_the_preset() -> None:
    config = preset("mini").vae
    assert chosen_vae(config, {"body": None, "width": None}) == config
    assert chosen_vae(config, {"variance": "predicted"}).variance == "predicted"
    with pytest.raises(ParameterError, match="sigma_per"):
        chosen_vae(config, {"sigma_per": "year"})


def test_another_body_comes_with_its_own_dilations() -> None:
    assert chosen_vae(preset("tiny").vae, {"body": "conv"}).dilations == (9, 3, 1)
    assert chosen_vae(preset("tiny").vae, {"body": "conv", "dilations": (2, 1)}).dilations == (2, 1)
    assert chosen_vae(preset("tiny").vae, {"body": "patch"}).dilations == preset("tiny").vae.dilations
