"""What a stage of motion training begins from: a checkpoint, or runs of the stages before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.model.config import LlamoConfig, MotionVaeConfig, preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.pack import Pack
from llamo_ros.training.runs import (
    TOKENIZER,
    best_of,
    is_run,
    load_start,
    load_tensors,
    read_model_config,
    record_of,
    vae_config_of,
)

TRAIN_MOTION = "llamo train motion"


@dataclass(frozen=True)
class MotionBeginning:
    """What a stage of motion training begins from.

    Attributes:
        start: Checkpoint, or run of a motion stage, whose weights are trained further.
        base: Checkpoint whose text branch, tokenizer and VAE are taken; the motion side is made anew.
        vae_run: Run of the VAE; in place of the one of ``start`` or ``base``.
        text_run: Run of the text branch, for ``mini``; in place of the one of ``start`` or ``base``.
        with_mixture: False for one transformer for both modalities, trained whole: the ablation without MoT.
    """

    start: str | None = None
    base: str | None = None
    vae_run: Path | None = None
    text_run: Path | None = None
    with_mixture: bool = True

    @property
    def is_fresh(self) -> bool:
        """Whether the motion side is made anew."""
        return self.start is None

    def ingredients(self) -> tuple[dict[str, Path | None], dict[str, str | None]]:
        """Runs and checkpoints, for the record."""
        start_run = Path(self.start) if self.start and is_run(Path(self.start)) else None
        checkpoints = {"start": None if start_run else self.start, "base": self.base}
        return {"vae_run": self.vae_run, "text_run": self.text_run, "start_run": start_run}, checkpoints

    def assembled(self, preset_name: str, pack: Pack) -> tuple[Llamo, TextTokenizer]:
        """The model as training begins, and its tokenizer.

        Raises:
            CheckpointError: a run or checkpoint is missing, or they do not fit together.
            ParameterError: something is missing to begin from.
        """
        if self.start is not None:
            model, tokenizer = trained_model(self.start)
            if model.config.backbone.separate_motion and not self.with_mixture:
                raise ParameterError(
                    f"{self.start} has a motion branch, so it cannot go on as one transformer. "
                    "Begin without the mixture in stage 1, or leave out --without-mixture."
                )
        elif self.base is not None:
            base, tokenizer = load_checkpoint(self.base)
            model = self._fresh(replace(base.config, vae=self._vae_config(base.config)))
            if self.vae_run is None:
                model.vae.load_state_dict(base.vae.state_dict())
            text = {name: v for name, v in base.backbone.state_dict().items() if name.startswith("text.")}
            load_tensors(model.backbone, text, Path(self.base), complete=False)
        elif self.vae_run is not None and self.text_run is not None:
            config = preset(preset_name)
            model = self._fresh(replace(config, vae=self._vae_config(config)))
        else:
            raise ParameterError(
                "nothing to begin from. Give --base CHECKPOINT, or a VAE run and a text run, or --start."
            )
        if self.vae_run is not None:
            vae = best_of(self.vae_run, "llamo train vae")["average"]
            vae |= {"feature_mean": torch.from_numpy(pack.mean), "feature_std": torch.from_numpy(pack.std)}
            load_tensors(model.vae, vae, self.vae_run, complete=True)
        if self.text_run is not None:
            average = best_of(self.text_run, "llamo train text")["average"]
            text = {name: value for name, value in average.items() if name.startswith("text.")}
            load_tensors(model.backbone, text, self.text_run, complete=False)
            tokenizer = TextTokenizer.load(self.text_run / TOKENIZER)
        if self.is_fresh:
            model.initialise_motion()
        elif self.text_run is not None:
            model.initialise_special_tokens()
        return model, tokenizer

    def _vae_config(self, config: LlamoConfig) -> MotionVaeConfig:
        if self.vae_run is None:
            return config.vae
        return vae_config_of(record_of(self.vae_run, "llamo train vae"), config.vae)

    def _fresh(self, config: LlamoConfig) -> Llamo:
        backbone = replace(config.backbone, separate_motion=self.with_mixture)
        return Llamo(replace(config, backbone=backbone))


def trained_model(start: str) -> tuple[Llamo, TextTokenizer]:
    """Model and tokenizer of a checkpoint or of a run of a motion stage, with its best weights."""
    run = Path(start)
    if not is_run(run):
        return load_checkpoint(start)
    require_stage(run, "motion")
    model, tokenizer = model_at_start(run)
    load_tensors(model, best_of(run, TRAIN_MOTION)["average"], run, complete=False)
    return model, tokenizer


def require_stage(run: Path, stage: str) -> dict[str, Any]:
    """Record of a run, if it is of that stage: vae, text or motion.

    Raises:
        CheckpointError: it is of another stage, or no run.
    """
    record = record_of(run, TRAIN_MOTION)
    if record["stage"] != stage:
        raise CheckpointError(f"{run} is a run of stage {record['stage']}, expected one of stage {stage}.")
    return record


def model_at_start(run: Path) -> tuple[Llamo, TextTokenizer]:
    """Model and tokenizer of a motion run as training began."""
    model = Llamo(read_model_config(run))
    load_start(model, run, TRAIN_MOTION)
    return model, TextTokenizer.load(run / TOKENIZER)
