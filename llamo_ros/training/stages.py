"""The stages of training and the export, as functions: what ``llamo train`` does.

A pack gives :func:`train_vae` and :func:`train_text`; both give :func:`train_motion`; that gives :func:`export`, which
writes a checkpoint folder. Each stage works in a run folder (:mod:`llamo_ros.training.runs`) and resumes by itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from llamo_ros import __version__
from llamo_ros.core.errors import CheckpointError, DatasetError, ParameterError
from llamo_ros.model.checkpoint import checkpoint_folder, load_checkpoint, read_config, save_checkpoint
from llamo_ros.model.config import MotionVaeConfig, preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.mixture_of_transformers import MixtureOfTransformers
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.grounding import GroundedText, Grounding
from llamo_ros.training.loop import TrainingTask
from llamo_ros.training.motion_beginning import TRAIN_MOTION, require_stage, trained_model
from llamo_ros.training.pack import open_pack
from llamo_ros.training.provenance import licence_of, strictest
from llamo_ros.training.runs import (
    START,
    TOKENIZER,
    Ingredients,
    StageSettings,
    best_of,
    can_resume,
    load_start,
    load_tensors,
    record_of,
    save_start,
    train_in_folder,
    vae_config_of,
)
from llamo_ros.training.text_task import TEXTS, TextTask, caption_corpus, initialise_text
from llamo_ros.training.vae_recipe import default_loss
from llamo_ros.training.vae_task import VaeTask

# What differs from TrainingSettings' defaults, by stage; the schedule assumes one uninterrupted cosine.
DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {"minutes": 15.0, "weight_decay": 0.1},
}
BATCH_SIZES = {"text": 64}

TRAIN_DECODER = "llamo train vae --decoder-of CHECKPOINT"


def train_vae(
    settings: StageSettings,
    decoder_of: str | None = None,
    vae_config: MotionVaeConfig | None = None,
    loss: str | None = None,
) -> dict[str, float]:
    """Train the motion VAE; returns the last validation. Ctrl-C saves, then raises KeyboardInterrupt, in every stage.

    ``decoder_of`` names a checkpoint whose decoder alone is trained further, on latents with more noise: see VaeTask.
    Such a run keeps the VAE it began from in its folder. ``vae_config`` takes the place of the preset's VAE and is
    recorded in ``run.json`` (:func:`~llamo_ros.training.runs.vae_config_of`); ``loss`` that of the losses of its body.

    Raises:
        DatasetError: there is no pack.
        CheckpointError: the run folder belongs to another model or other losses, or ``decoder_of`` is not a checkpoint
            of this preset.
        ParameterError: the run folder holds a whole VAE, which the decoder alone cannot go on from, or ``vae_config``
            is not that of the checkpoint.
    """
    pack = open_pack(settings.data)
    begun = can_resume(settings.out) and (settings.out / START).exists()
    decoder_only = begun or decoder_of is not None
    if decoder_of is not None and can_resume(settings.out) and not begun:
        raise ParameterError(f"{settings.out} holds the run of a whole VAE. Choose another folder with --out.")
    if decoder_of is not None and not begun:
        config = read_config(checkpoint_folder(decoder_of))[0].vae
        if vae_config not in (None, config):
            raise ParameterError(f"the decoder of {decoder_of} is trained for its VAE as it is; choose no other VAE.")
    else:
        config = vae_config or preset(settings.preset).vae
    if can_resume(settings.out):
        config, loss = _as_begun(settings, None if decoder_only else config, loss)
    loss = loss or default_loss(config)

    def build() -> TrainingTask:
        model = MotionVae(config)
        if begun:
            load_start(model, settings.out, TRAIN_DECODER)
        elif decoder_of is not None:
            model = _checkpoint(decoder_of, settings.preset)[0].vae.requires_grad_(True)
            save_start(model, settings.out)
        elif not can_resume(settings.out):
            (settings.out / START).unlink(missing_ok=True)  # of a run that ended before its first step
        model.to(settings.training.device)
        return VaeTask(model, pack, settings.batch_size, loss, compile_loss=settings.compile, decoder_only=decoder_only)

    choices = {"vae_config": asdict(config), "loss": loss}
    return train_in_folder("vae", settings, pack, build, Ingredients({}, {"decoder_of": decoder_of}, {}, choices))


def _as_begun(settings: StageSettings, config: MotionVaeConfig | None, loss: str | None) -> tuple[MotionVaeConfig, str]:
    """Configuration and losses of the VAE run in the folder, if they are what is asked for or nothing is.

    Raises:
        CheckpointError: something else is asked for; other weights would not fit, and other losses would not show.
    """
    record = record_of(settings.out)
    began = vae_config_of(record, preset(record["preset"]).vae)
    began_loss = record.get("loss", default_loss(began))
    pairs = [(field.name, getattr(began, field.name), getattr(config or began, field.name)) for field in fields(began)]
    for name, before, now in [*pairs, ("loss", began_loss, loss or began_loss)]:
        if before != now:
            raise CheckpointError(
                f"{settings.out} holds the run of a VAE with {name} {before}, not {now}. "
                "Choose another folder with --out, or go on with what it began with."
            )
    return began, began_loss


def train_text(settings: StageSettings, source: Path, start: str | None = None) -> dict[str, float]:
    """Train tokenizer and text branch on captions; ``source`` is the folder of unpacked data, for its text-only rows.

    ``start`` names a checkpoint whose tokenizer and text branch are trained further, in place of fresh ones.

    Raises:
        DatasetError: there is no pack, or the source lacks its texts, or those of split val.
        CheckpointError: the run folder belongs to another model, or ``start`` is not a checkpoint of this preset.
    """
    pack = open_pack(settings.data)
    config = preset(settings.preset).backbone
    train, val = caption_corpus(pack, source)
    if not val:
        raise DatasetError(
            f"{source / TEXTS} has no captions of split val, expected some to tell the best weights by. "
            "Add rows of that split to it."
        )

    def build() -> TrainingTask:
        path = settings.out / TOKENIZER
        model = MixtureOfTransformers(config)
        if can_resume(settings.out):
            tokenizer = TextTokenizer.load(path)
        elif start is not None:
            begun, tokenizer = _checkpoint(start, settings.preset)
            model.load_state_dict(begun.backbone.state_dict())
            tokenizer.save(path)
        else:
            tokenizer = TextTokenizer.train((text for group in train for text in group), config.vocab_size)
            tokenizer.save(path)
            initialise_text(model)
        grounding = Grounding(pack, settings.training.seed)
        grounded = GroundedText(model, grounding.dim).to(settings.training.device)
        return TextTask(grounded, tokenizer, train, val, grounding, settings.batch_size)

    ingredients = Ingredients({}, {"start": start}, {"source": str(source)})
    return train_in_folder("text", settings, pack, build, ingredients)


def export(motion_run: Path, out: Path, name: str, decoder_run: Path | None = None) -> Path:
    """Write a checkpoint folder from a motion run: its best weights, tokenizer, statistics, and what they came from.

    ``decoder_run``, a VAE run that trained the decoder alone, gives the decoder.

    Raises:
        CheckpointError: a run is missing, incomplete or of another stage or VAE, or the folder cannot be written.
    """
    record = require_stage(motion_run, "motion")
    best = best_of(motion_run, TRAIN_MOTION)
    model, tokenizer = trained_model(str(motion_run))
    licence_set, sources = record["licence_set"], record["sources"]
    if decoder_run is not None:
        _take_decoder(model, decoder_run)
        decoder_record = record_of(decoder_run)
        licence_set = strictest([licence_set, decoder_record["licence_set"]])
        sources = list(dict.fromkeys([*sources, *decoder_record["sources"]]))
    metadata = {
        "name": name,
        "licence": licence_of(licence_set, sources),
        "data": "; ".join(sources),
        "seed": str(record["training"]["seed"]),
        "commit": record["commit"],
        "steps": str(best["step"]),
        "minutes": f"{record.get('minutes', 0.0):.1f}",
        "validation": json.dumps({key: round(value, 4) for key, value in best["figures"].items()}),
        "version": __version__,
        "exported": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    try:
        save_checkpoint(model, tokenizer, out, metadata)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written: {error.strerror}. Choose another folder.") from error
    return out


def _take_decoder(model: Llamo, run: Path) -> None:
    """Put the decoder of a run into a model, if it learned on latents of the same VAE."""
    decoder = best_of(run, TRAIN_DECODER)["average"]
    if not all(name.startswith("decoder.") for name in decoder):
        raise CheckpointError(f"{run} did not train a decoder alone. Make such a run with `{TRAIN_DECODER}`.")
    begun = MotionVae(model.config.vae)
    load_start(begun, run, TRAIN_DECODER)
    own = model.vae.state_dict()
    for name, tensor in begun.state_dict().items():
        # It may have begun from an exported model: those weights are in bfloat16, of 8 bits.
        if not name.startswith("decoder.") and not torch.allclose(tensor, own[name], rtol=2**-7, atol=1e-6):
            raise CheckpointError(f"the decoder of {run} belongs to another VAE: {name} differs from the model's.")
    load_tensors(model.vae, decoder, run, complete=False)


def _checkpoint(name: str, preset_name: str) -> tuple[Llamo, TextTokenizer]:
    model, tokenizer = load_checkpoint(name)
    expected = preset(preset_name)
    if replace(model.config, generation=expected.generation) != expected:
        raise CheckpointError(
            f"the configuration of {name} is not that of preset {preset_name}; choose the preset it was made with."
        )
    return model, tokenizer
