"""The stages of training and the export, as functions: what ``llamo train`` does.

A pack gives :func:`train_vae` and :func:`train_text`; both give :func:`train_motion`; that gives :func:`export`, which
writes a checkpoint folder. Each stage works in a run folder (:mod:`llamo_ros.training.runs`) and resumes by itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from llamo_ros import __version__
from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import load_checkpoint, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.mixture_of_transformers import MixtureOfTransformers
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.grounding import GroundedText, Grounding
from llamo_ros.training.loop import TrainingTask, compile_for_training
from llamo_ros.training.motion_data import latent_clips, worded_clips, worded_segments
from llamo_ros.training.motion_task import MotionTask
from llamo_ros.training.pack import Pack, open_pack
from llamo_ros.training.runs import (
    LICENCES,
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
    strictest,
    train_in_folder,
)
from llamo_ros.training.text_task import TextTask, caption_corpus, initialise_text
from llamo_ros.training.vae_task import VaeTask

# What weights of a licence set were trained on.
SOURCES = {
    "noncommercial": "CMU Graphics Lab Motion Capture Database, HumanML3D captions (MIT), "
    "Bandai-Namco-Research-Motiondataset 1 and 2 (CC BY-NC 4.0)",
    "open": "CMU Graphics Lab Motion Capture Database, HumanML3D captions (MIT)",
}

# What differs from TrainingSettings' defaults, by stage; the schedule assumes one uninterrupted cosine.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vae": {"minutes": 30.0},
    "text": {"minutes": 15.0, "weight_decay": 0.1},
    "motion": {"minutes": 60.0, "weight_decay": 0.05, "betas": (0.9, 0.95)},
}
BATCH_SIZES = {"vae": 32, "text": 64, "motion": 16}

TRAIN_MOTION = "llamo train motion"
TRAIN_DECODER = "llamo train vae --decoder-of CHECKPOINT"


def train_vae(settings: StageSettings, decoder_of: str | None = None) -> dict[str, float]:
    """Train the motion VAE; returns the last validation. Ctrl-C saves, then raises KeyboardInterrupt, in every stage.

    ``decoder_of`` names a checkpoint whose decoder alone is trained further, on latents with more noise: see VaeTask.
    Such a run keeps the VAE it began from in its folder.

    Raises:
        DatasetError: there is no pack.
        CheckpointError: the run folder belongs to another model, or ``decoder_of`` is not a checkpoint of this preset.
        ParameterError: the run folder holds a whole VAE, which the decoder alone cannot go on from.
    """
    pack = open_pack(settings.data)
    begun = (settings.out / START).exists()
    if decoder_of is not None and can_resume(settings.out) and not begun:
        raise ParameterError(f"{settings.out} holds the run of a whole VAE. Choose another folder with --out.")

    def build() -> TrainingTask:
        model = MotionVae(preset(settings.preset).vae)
        if begun:
            load_start(model, settings.out, TRAIN_DECODER)
        elif decoder_of is not None:
            model = _checkpoint(decoder_of, settings.preset)[0].vae.requires_grad_(True)
            save_start(model, settings.out)
        model.to(settings.training.device)
        decoder_only = begun or decoder_of is not None
        return VaeTask(model, pack, settings.batch_size, compile_loss=settings.compile, decoder_only=decoder_only)

    return train_in_folder("vae", settings, pack, build, Ingredients({}, {"decoder_of": decoder_of}, {}))


def train_text(settings: StageSettings, source: Path, start: str | None = None) -> dict[str, float]:
    """Train tokenizer and text branch on captions; ``source`` is the folder of unpacked data, for its text-only rows.

    ``start`` names a checkpoint whose tokenizer and text branch are trained further, in place of fresh ones.

    Raises:
        DatasetError: there is no pack, or the source lacks its texts.
        CheckpointError: the run folder belongs to another model, or ``start`` is not a checkpoint of this preset.
    """
    pack = open_pack(settings.data)
    config = preset(settings.preset).backbone
    train, val = caption_corpus(pack, source)

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


def train_motion(
    settings: StageSettings, vae_run: Path | None, text_run: Path | None, start: str | None = None
) -> dict[str, float]:
    """Train everything that speaks motion, on top of the frozen VAE and text branch of the other two runs.

    With ``start``, a checkpoint, training begins from its weights; a run that is given as well replaces its VAE or text
    branch. A resumed run takes VAE and text branch from its own folder, not from theirs.

    Raises:
        DatasetError: there is no pack.
        CheckpointError: another run is missing or of another preset, or the run folder belongs to another model.
        ParameterError: a run is missing and there is no ``start``.
    """
    pack = open_pack(settings.data)
    begun = (settings.out / START).exists()

    def build() -> TrainingTask:
        if begun:
            model, tokenizer = _at_start(settings.preset, settings.out)
        else:
            model, tokenizer = assembled(settings.preset, pack, vae_run, text_run, start)
            tokenizer.save(settings.out / TOKENIZER)
        model.to(settings.training.device)
        model.vae.eval()
        seed = settings.training.seed
        train = latent_clips(model.vae, worded_clips(pack, "train", mirrored=True))
        train += latent_clips(model.vae, worded_segments(pack, seed))
        val = latent_clips(model.vae, worded_clips(pack, "val", mirrored=False))
        task = MotionTask(model, tokenizer, train, val, settings.batch_size)
        if not begun:  # with the statistics of the latents, which the task has set
            save_start(model, settings.out)
        if settings.compile:
            compile_for_training(model.backbone)
            compile_for_training(model.flow_head)
        return task

    ingredients = Ingredients({"vae_run": vae_run, "text_run": text_run}, {"start": start}, {})
    return train_in_folder("motion", settings, pack, build, ingredients)


def assembled(
    preset_name: str, pack: Pack, vae_run: Path | None, text_run: Path | None, start: str | None = None
) -> tuple[Llamo, TextTokenizer]:
    """The model as motion training begins: best VAE and text weights, motion branch copied from the text branch.

    With ``start`` the motion side, and what no run is given for, comes from that checkpoint.

    Raises:
        CheckpointError: a run or the checkpoint is missing or of another preset.
        ParameterError: a run is missing and there is no ``start``.
    """
    if start is not None:
        model, tokenizer = _checkpoint(start, preset_name)
        model.requires_grad_(True)
    elif vae_run is None or text_run is None:
        raise ParameterError("motion training needs a VAE run and a text run, or a checkpoint to start from.")
    else:
        model = Llamo(preset(preset_name))
    if vae_run is not None:
        vae = best_of(vae_run, "llamo train vae")["average"]
        vae |= {"feature_mean": torch.from_numpy(pack.mean), "feature_std": torch.from_numpy(pack.std)}
        load_tensors(model.vae, vae, vae_run, complete=True)
    if text_run is not None:
        average = best_of(text_run, "llamo train text")["average"]
        text = {name: value for name, value in average.items() if name.startswith("text.")}
        load_tensors(model.backbone, text, text_run, complete=False)
        tokenizer = TextTokenizer.load(text_run / TOKENIZER)
        if start is None:
            model.initialise_motion()
        else:
            model.initialise_special_tokens()
    return model, tokenizer


def export(motion_run: Path, out: Path, name: str, decoder_run: Path | None = None) -> Path:
    """Write a checkpoint folder from a motion run: its best weights, tokenizer, statistics, and what they came from.

    ``decoder_run``, a VAE run that trained the decoder alone, gives the decoder.

    Raises:
        CheckpointError: a run is missing, incomplete or of another stage or VAE, or the folder cannot be written.
    """
    record = record_of(motion_run, TRAIN_MOTION)
    if record["stage"] != "motion":
        raise CheckpointError(
            f"{motion_run} is a run of stage {record['stage']}; a checkpoint is made from a motion run."
        )
    best = best_of(motion_run, TRAIN_MOTION)
    model, tokenizer = _at_start(record["preset"], motion_run)
    load_tensors(model, best["average"], motion_run, complete=False)
    licence_set = record["licence_set"]
    if decoder_run is not None:
        _take_decoder(model, decoder_run)
        licence_set = strictest([licence_set, record_of(decoder_run)["licence_set"]])
    metadata = {
        "name": name,
        "licence": LICENCES[licence_set],
        "data": SOURCES[licence_set],
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


def _at_start(preset_name: str, run: Path) -> tuple[Llamo, TextTokenizer]:
    model = Llamo(preset(preset_name))
    load_start(model, run, TRAIN_MOTION)
    return model, TextTokenizer.load(run / TOKENIZER)
