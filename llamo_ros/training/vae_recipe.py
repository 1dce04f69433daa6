"""How a motion VAE is trained by default (``config/training/vae_*.yaml``), and VAEs that differ from their preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.resources import config_path
from llamo_ros.model.config import MotionVaeConfig
from llamo_ros.training.settings import training_values
from llamo_ros.training.vae_losses import LOSSES

# Dilations where a preset of the other body has none to offer: the paper's, and those of `mini`.
DILATIONS = {"conv": (9, 3, 1), "patch": (1, 2, 4)}


@dataclass(frozen=True)
class VaeRecipe:
    """Losses and what goes with them.

    Attributes:
        loss: One of :data:`~llamo_ros.training.vae_losses.LOSSES`.
        batch_size: Windows per step.
        training: Values of :class:`~llamo_ros.training.loop.TrainingSettings` that differ from its defaults.
    """

    loss: str
    batch_size: int
    training: Mapping[str, Any]


def default_loss(config: MotionVaeConfig) -> str:
    """The losses a body is trained with if none are asked for: the paper's body has the paper's."""
    return "paper" if config.body == "conv" else "ours"


def vae_recipe(loss: str, path: Path | None = None) -> VaeRecipe:
    """The recipe of some losses.

    Args:
        loss: One of :data:`~llamo_ros.training.vae_losses.LOSSES`.
        path: File to read in place of the package's own.

    Raises:
        ParameterError: there are no such losses, or the file is no recipe.
    """
    if loss not in LOSSES:
        raise ParameterError(f"there are no VAE losses {loss!r}. Choose one of: {', '.join(LOSSES)}.")
    path = path or config_path("training", f"vae_{loss}.yaml")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        training = training_values(data.pop("training"))
        return VaeRecipe(training=training, **data)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParameterError(f"{path} does not describe the training of a VAE ({error}).") from error


def chosen_vae(preset_config: MotionVaeConfig, choices: Mapping[str, Any]) -> MotionVaeConfig:
    """The VAE of a preset with some fields chosen otherwise; None is as in the preset.

    Another body than the preset's comes with the dilations of that body, unless these are chosen too.

    Raises:
        ParameterError: a choice is outside its range.
    """
    chosen = {name: value for name, value in choices.items() if value is not None}
    body = chosen.get("body", preset_config.body)
    if body != preset_config.body and body in DILATIONS:
        chosen = {"dilations": DILATIONS[body]} | chosen
    return replace(preset_config, **chosen)
