"""How long and how to train: what every stage has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.numbers import checked_count


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how to train.

    Attributes:
        minutes: Training time without validation, [min]; the schedule follows it. Alternative to ``steps``.
        steps: Optimiser steps; 0 means ``minutes`` decides.
        learning_rate: Peak; warm-up is linear over ``warmup_steps``, then cosine to ``final_rate`` of the peak.
        final_rate: Learning rate at the end, as a share of the peak.
        module_rates: Factor on the learning rate of parameters whose name starts with a key; the longest key counts.
        accumulate: Draws whose gradients are averaged before each step of the optimiser.
        ema_decay: Decay of the averaged weights, which are the ones validated and saved.
        seed: Of data order, noise and initialisation.
        bf16: Matrix products in bfloat16 (weights stay as they are).
        checkpointing: Compute the activations of each backbone layer again on the way back, in place of keeping them:
            about a quarter more time for much less memory.
        patience: So many steps in a row with a loss or gradient that is not finite end the run.
        save_minutes: Time between resumable checkpoints, [min].
        validate_minutes: Time between validations, [min].
        threads: CPU threads of PyTorch.
    """

    minutes: float = 10.0
    steps: int = 0
    learning_rate: float = 1e-3
    final_rate: float = 0.02
    module_rates: dict[str, float] = field(default_factory=dict)
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.998
    seed: int = 0
    bf16: bool = True
    checkpointing: bool = False
    patience: int = 20
    save_minutes: float = 3.0
    validate_minutes: float = 5.0
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.steps <= 0 and not self.minutes > 0:
            raise ParameterError("give a positive number of minutes or of steps to train.")
        checked_count("threads", self.threads)
        if self.accumulate < 1 or self.patience < 1:
            raise ParameterError(
                f"accumulate is {self.accumulate} and patience {self.patience}, expected at least 1 each."
            )


def training_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for :class:`TrainingSettings` as a file in ``config/training/`` has them.

    Raises:
        TypeError: there is no such setting.
    """
    unknown = set(given) - {entry.name for entry in fields(TrainingSettings)}
    if unknown:
        raise TypeError(f"training has no {', '.join(sorted(unknown))}")
    return {name: tuple(value) if name == "betas" else value for name, value in given.items()}
