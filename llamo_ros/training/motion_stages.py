"""Motion training in the paper's three stages, each on what the one before it left.

Stage 1 begins from a frozen VAE and text branch; ``llamo train export`` makes a checkpoint of any of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from llamo_ros.core.errors import DatasetError, ParameterError
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.engine import Engine, alone
from llamo_ros.training.filters import is_static
from llamo_ros.training.loop import TrainingTask, compile_for_training
from llamo_ros.training.motion_beginning import MotionBeginning, model_at_start
from llamo_ros.training.motion_data import (
    MIN_LATENTS,
    LatentClip,
    latent_clips,
    shares_record,
    with_other_speeds,
    worded_clips,
    worded_segments,
)
from llamo_ros.training.motion_task import MotionTask
from llamo_ros.training.pack import Pack, open_pack
from llamo_ros.training.runs import (
    TOKENIZER,
    Ingredients,
    StageSettings,
    can_resume,
    save_start,
    train_in_folder,
    write_model_config,
)
from llamo_ros.training.shard_stream import ShardStream
from llamo_ros.training.shards import ShardSet, is_shard_folder, open_shards
from llamo_ros.training.stage_config import MotionStage
from llamo_ros.training.streamed_task import StreamedMotionTask, some_clips, validation_clips

# Clips of which slower and faster versions are made, for "now slower" and "now faster".
OTHER_SPEEDS = 600


def train_motion(
    settings: StageSettings,
    stage: MotionStage,
    begin: MotionBeginning,
    on_validation: Callable[[Llamo, TextTokenizer, Path, int], None] | None = None,
    engine: Engine | None = None,
) -> dict[str, float]:
    """One of the three stages of motion training; what is not trained in it stays as it is, to the bit.

    A resumed run takes what is frozen from its own folder. ``on_validation`` is called after each validation with the
    model (averaged weights), its tokenizer, the run folder and the step. With an ``engine`` of several processes the
    first one calls it, and writes.

    Data are a pack, held in memory as latents, or shards, read and encoded as they are needed.

    Raises:
        DatasetError: there is no pack, or no clip fits a task.
        CheckpointError: what training begins from is missing or does not fit, or the run folder is another model's.
        ParameterError: nothing is given to begin from.
        TrainingError: the loss stays NaN.
    """
    engine = engine or alone("motion")
    processes, training = engine.processes, settings.training
    pack = open_shards(settings.data) if is_shard_folder(settings.data) else open_pack(settings.data)
    if settings.compile and processes.count > 1:
        raise ParameterError("compiled steps are for one process; leave out --compile.")
    begun = can_resume(settings.out)  # START alone is of a run that ended before its first step
    callback: Callable[[int], None] | None = None

    def build() -> TrainingTask:
        nonlocal callback
        if begun:
            model, tokenizer = model_at_start(settings.out)
        else:
            model, tokenizer = begin.assembled(settings.preset, pack)
        set_trained(model, stage.trained)
        if model.config.dtype == "bfloat16" and not training.bf16:
            raise ParameterError("the base is in bfloat16, and so are the products with it; train with --bf16.")
        model.to(training.device)
        model.vae.eval()
        model.backbone.checkpointing = training.checkpointing
        if isinstance(pack, ShardSet):
            train, val = some_clips(model.vae, pack, training.seed), validation_clips(model.vae, pack)
        else:
            train, val = _motion_clips(model, pack, training.seed, stage)
        if not begun and begin.is_fresh:
            set_latent_statistics(model, train)
        if not begun and processes.is_first:
            tokenizer.save(settings.out / TOKENIZER)
            write_model_config(model.config, settings.out)
            save_start(model, settings.out)
        common = (val, settings.batch_size, stage.mix, stage.losses, processes)
        if isinstance(pack, ShardSet):
            order = (settings.batch_size, training.seed, processes, settings.workers, stage.drop_static)
            stream = ShardStream(pack, *order)
            task = StreamedMotionTask(model, tokenizer, stream, train, *common, training.seed)
        else:
            task = MotionTask(model, tokenizer, train, *common)
        if settings.compile:
            compile_for_training(model.backbone)
            compile_for_training(model.flow_head)
        if on_validation is not None:
            callback = partial(_called_with_whole, on_validation, engine, model, tokenizer, settings.out)
        return task

    notes = {
        "motion_stage": str(stage.stage),
        "trained": ", ".join(stage.trained),
        "drop_static": str(stage.drop_static),
        "mix": json.dumps(asdict(stage.mix)),
        "losses": json.dumps(asdict(stage.losses)),
    }
    if isinstance(pack, Pack):  # shards come in their own order
        notes |= shares_record()
    ingredients = Ingredients(*begin.ingredients(), notes)
    processes.wait()  # all have looked whether the run has begun
    return train_in_folder(
        "motion", settings, pack, build, ingredients, lambda step: callback and callback(step), engine
    )


def _called_with_whole(
    on_validation: Callable[[Llamo, TextTokenizer, Path, int], None], engine: Engine, model: Llamo, *rest: Any
) -> None:
    """Call with the whole model, in the first process."""
    whole = engine.whole_model(model)
    if whole is not None:
        device = whole.latent_mean.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=model.config.dtype == "bfloat16"):
            on_validation(whole, *rest)


def _motion_clips(model: Llamo, pack: Pack, seed: int, stage: MotionStage) -> tuple[list[LatentClip], list[LatentClip]]:
    """Training clips with their mirror images, labelled parts and other speeds, and validation clips."""
    worded = chain(worded_clips(pack, "train", mirrored=True), worded_segments(pack, seed))
    if stage.drop_static:
        worded = (pair for pair in worded if not is_static(pair[0]))
    train = latent_clips(model.vae, worded)
    if any(stage.mix.shares.get(task) for task in ("follow_up_slower", "follow_up_faster")):
        train = with_other_speeds(model.vae, pack, train, OTHER_SPEEDS, seed)
    return train, latent_clips(model.vae, worded_clips(pack, "val", mirrored=False))


def set_latent_statistics(model: Llamo, clips: Sequence[LatentClip]) -> None:
    """Mean and spread of the latents that the sequence model sees, from those of all clips.

    Raises:
        DatasetError: there is no clip.
    """
    if not clips:
        raise DatasetError(
            f"no training clip has {MIN_LATENTS * FRAMES_PER_LATENT} frames or is left by the filters; pack other data."
        )
    everything = torch.cat([clip.latents for clip in clips])
    with torch.no_grad():
        model.latent_mean.copy_(everything.mean(0))
        model.latent_std.copy_(everything.std(0))


def set_trained(model: Llamo, trained: Sequence[str]) -> None:
    """Let the parameters learn whose names start with one of ``trained``, in float32; freeze all others as they are.

    Steps of the optimiser are too small for bfloat16 to hold.

    Raises:
        ParameterError: one of them names nothing.
    """
    found = set()
    for name, parameter in model.named_parameters():
        fitting = [prefix for prefix in trained if name == prefix or name.startswith(f"{prefix}.")]
        parameter.requires_grad_(bool(fitting))
        if fitting:
            parameter.data = parameter.data.float()
        found.update(fitting)
    missing = [prefix for prefix in trained if prefix not in found]
    if missing:
        raise ParameterError(f"the model has no parameters {', '.join(missing)} to train; see `trained` of the stage.")


def without_mixture(stage: MotionStage) -> MotionStage:
    """The stage for one transformer for both modalities: its text branch learns in every stage, at the stage's rate."""
    trained = (*(name for name in stage.trained if name != "backbone.motion"), "backbone.text")
    rates = {key: rate for key, rate in stage.training.get("module_rates", {}).items() if key != "backbone.motion"}
    return replace(stage, trained=trained, training=dict(stage.training) | {"module_rates": rates})
