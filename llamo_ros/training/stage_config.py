"""The three stages of motion training as files: ``config/training/stage1.yaml`` to ``stage3.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.resources import config_path
from llamo_ros.training.losses import LossSettings
from llamo_ros.training.motion_samples import TaskMix
from llamo_ros.training.settings import training_values

STAGES = (1, 2, 3)


@dataclass(frozen=True)
class MotionStage:
    """One stage of motion training.

    Attributes:
        stage: 1 aligns features, 2 trains everything that speaks motion, 3 anneals the heads.
        trained: Parameters whose name starts with one of these learn; everything else is frozen.
        drop_static: Whether clips without expressive motion are left out (paper, supplement section 3).
        batch_size: Sequences per step.
        training: Values of :class:`~llamo_ros.training.loop.TrainingSettings` that differ from its defaults.
        mix: Which tasks.
        losses: Choices of the losses.
    """

    stage: int
    trained: tuple[str, ...]
    drop_static: bool
    batch_size: int
    training: Mapping[str, Any]
    mix: TaskMix
    losses: LossSettings


def motion_stage(stage: int, preset: str, path: Path | None = None) -> MotionStage:
    """Stage 1, 2 or 3 as its file says, with what the preset does otherwise.

    Args:
        stage: 1, 2 or 3.
        preset: Name of the model's preset.
        path: File to read in place of the package's own.

    Raises:
        ParameterError: there is no such stage, or the file is not one.
    """
    if stage not in STAGES:
        raise ParameterError(f"stage is {stage}, expected 1, 2 or 3.")
    path = path or config_path("training", f"stage{stage}.yaml")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = data.pop("presets", None) or {}
        data = _merged(data, own.get(preset, {}))
        training = training_values(data.pop("training"))
        mix = TaskMix(shares=data.pop("tasks"), **data.pop("mix"))
        losses = LossSettings(**data.pop("losses"))
        return MotionStage(stage, tuple(data.pop("trained")), training=training, mix=mix, losses=losses, **data)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParameterError(f"{path} does not describe a training stage ({error}).") from error


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` in place of its values; mappings are merged, except ``tasks``, which replace."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping) and key != "tasks"
        result[key] = _merged(base[key], value) if both else value
    return result
