"""The stages of training and the export, as functions: what ``llamo train`` does.

A pack gives :func:`train_vae` and :func:`train_text`; both give :func:`train_motion`; that gives :func:`export`, which
writes a checkpoint folder. Each stage has a run folder: ``state.pt`` to resume, ``best.pt`` with the weights that
validated best, ``log.jsonl``, and ``run.json`` with configuration, seed, data, commit and results. A stage resumes by
itself when its folder holds a state.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llamo_ros import __version__
from llamo_ros.core.errors import CheckpointError, LlamoError, ParameterError
from llamo_ros.model.checkpoint import load_checkpoint, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.mixture_of_transformers import MixtureOfTransformers
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.grounding import GroundedText, Grounding
from llamo_ros.training.loop import Trainer, TrainingSettings, TrainingTask, compile_for_training
from llamo_ros.training.motion_data import latent_clips, worded_clips, worded_segments
from llamo_ros.training.motion_task import MotionTask
from llamo_ros.training.pack import Pack, open_pack
from llamo_ros.training.text_task import TextTask, caption_corpus, initialise_text
from llamo_ros.training.vae_task import VaeTask

TOKENIZER = "tokenizer.json"
RUN = "run.json"
# The model as motion training began: VAE, text branch, statistics. They stay frozen, so that run and export can never
# disagree about them, even if the VAE's own run goes on.
START = "start.safetensors"

# What weights trained on a licence set may be called, and what they were trained on.
LICENCES = {"noncommercial": "CC-BY-NC-4.0", "open": "Apache-2.0"}
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


@dataclass(frozen=True)
class StageSettings:
    """What all stages share.

    Attributes:
        data: Folder of the pack.
        out: Run folder.
        training: How long and how to train.
        preset: Size of the model: mini or tiny.
        batch_size: Windows, captions or clips per step.
        compile: Compile with PyTorch what gains from it; needs a C++ compiler.
    """

    data: Path
    out: Path
    training: TrainingSettings
    preset: str = "mini"
    batch_size: int = 32
    compile: bool = False

    def __post_init__(self) -> None:
        preset(self.preset)
        if self.batch_size < 1:
            raise ParameterError(f"batch size is {self.batch_size}, expected at least 1.")


def train_vae(settings: StageSettings, decoder_of: str | None = None) -> dict[str, float]:
    """Train the motion VAE; returns the last validation. Ctrl-C saves, then raises KeyboardInterrupt, in every stage.

    ``decoder_of`` names a checkpoint whose decoder alone is trained further, on latents with more noise: see VaeTask.

    Raises:
        DatasetError: there is no pack.
        CheckpointError: the run folder belongs to another model, or ``decoder_of`` is not a checkpoint of this preset.
    """
    pack = open_pack(settings.data)

    def build() -> TrainingTask:
        model = MotionVae(preset(settings.preset).vae)
        if decoder_of is not None:
            model = _checkpoint(decoder_of, settings.preset)[0].vae.requires_grad_(True)
        model.to(settings.training.device)
        return VaeTask(
            model, pack, settings.batch_size, compile_loss=settings.compile, decoder_only=decoder_of is not None
        )

    return _run("vae", settings, pack, build, {"decoder_of": decoder_of or ""})


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
        if start is not None:
            begun, tokenizer = _checkpoint(start, settings.preset)
            model.load_state_dict(begun.backbone.state_dict())
            tokenizer.save(path)
        elif not path.exists():
            texts = (text for group in train for text in group)
            TextTokenizer.train(texts, config.vocab_size).save(path)
        if start is None:
            initialise_text(model)
        grounding = Grounding(pack, settings.training.seed)
        grounded = GroundedText(model, grounding.dim).to(settings.training.device)
        return TextTask(grounded, TextTokenizer.load(path), train, val, grounding, settings.batch_size)

    return _run("text", settings, pack, build, {"source": str(source), "start": start or ""})


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

    def build() -> TrainingTask:
        if not (settings.out / START).exists():
            model, tokenizer = assembled(settings.preset, pack, vae_run, text_run, start)
            tokenizer.save(settings.out / TOKENIZER)
        else:
            model, tokenizer = _at_start(settings.preset, settings.out)
        model.to(settings.training.device)
        model.vae.eval()
        seed = settings.training.seed
        train = latent_clips(model.vae, worded_clips(pack, "train", mirrored=True))
        train += latent_clips(model.vae, worded_segments(pack, seed))
        val = latent_clips(model.vae, worded_clips(pack, "val", mirrored=False))
        task = MotionTask(model, tokenizer, train, val, settings.batch_size)
        if not (settings.out / START).exists():
            save_start(model, settings.out)
        if settings.compile:
            compile_for_training(model.backbone)
            compile_for_training(model.flow_head)
        return task

    inputs = {"vae_run": str(vae_run or ""), "text_run": str(text_run or ""), "start": start or ""}
    return _run("motion", settings, pack, build, inputs)


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
        vae = _best(vae_run, "llamo train vae")["average"]
        vae |= {"feature_mean": torch.from_numpy(pack.mean), "feature_std": torch.from_numpy(pack.std)}
        _load(model.vae, vae, vae_run, complete=True)
    if text_run is not None:
        average = _best(text_run, "llamo train text")["average"]
        text = {name: value for name, value in average.items() if name.startswith("text.")}
        _load(model.backbone, text, text_run, complete=False)
        tokenizer = TextTokenizer.load(text_run / TOKENIZER)
        if start is None:
            model.initialise_motion()
        else:
            model.initialise_special_tokens()
    return model, tokenizer


def _checkpoint(name: str, preset_name: str) -> tuple[Llamo, TextTokenizer]:
    model, tokenizer = load_checkpoint(name)
    expected = preset(preset_name)
    if replace(model.config, generation=expected.generation) != expected:
        raise CheckpointError(f"{name} is a model of another size than preset {preset_name}; choose one preset.")
    return model, tokenizer


def save_start(model: Llamo, run: Path) -> None:
    """Keep the model as motion training began, latent statistics included, in its run folder for :func:`export`."""
    save_file({name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}, run / START)


def export(motion_run: Path, out: Path, name: str, decoder_run: Path | None = None) -> Path:
    """Write a checkpoint folder from a motion run: its best weights, tokenizer, statistics, and what they came from.

    ``decoder_run``, a VAE run that trained the decoder alone, gives the decoder.

    Raises:
        CheckpointError: a run is missing or incomplete, or the folder cannot be written.
    """
    record = _record_of(motion_run)
    best = _best(motion_run, "llamo train motion")
    model, tokenizer = _at_start(record["preset"], motion_run)
    _load(model, best["average"], motion_run, complete=False)
    if decoder_run is not None:
        decoder = _best(decoder_run, "llamo train vae --decoder-of")["average"]
        if any(name.startswith("encoder.") for name in decoder):
            raise CheckpointError(
                f"{decoder_run} trained an encoder too; its latents are not those of {motion_run}. "
                "Train the decoder alone with `llamo train vae --decoder-of`."
            )
        _load(model.vae, decoder, decoder_run, complete=False)
    metadata = {
        "name": name,
        "licence": LICENCES[record["licence_set"]],
        "data": SOURCES[record["licence_set"]],
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


def _run(
    stage: str,
    settings: StageSettings,
    pack: Pack,
    build: Callable[[], TrainingTask],
    inputs: dict[str, str] | None = None,
) -> dict[str, float]:
    """Build the task with the seed set, train or go on training in the run folder, and keep the record of it."""
    out = settings.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"run folder {out} cannot be made: {error.strerror}. Choose another with --out."
        ) from error
    torch.manual_seed(settings.training.seed)
    torch.set_num_threads(settings.training.threads)
    trainer = Trainer(build(), settings.training, out)
    resumed = trainer.resume()
    record: dict[str, Any] = {
        "stage": stage,
        "preset": settings.preset,
        "batch_size": settings.batch_size,
        "compile": settings.compile,
        "training": asdict(settings.training),
        "data": str(settings.data),
        "licence_set": pack.licence_set,
        "sequences": len(pack.sequences),
        **(inputs or {}),
        "commit": git_commit(),
        "version": __version__,
        "torch": torch.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed_at_step": trainer.step if resumed else 0,
    }
    _write_record(out, record)
    if resumed:
        print(f"going on at step {trainer.step} of {out}")
    figures = trainer.run()
    record |= {
        "steps": trainer.step,
        "minutes": round(trainer.elapsed / 60, 2),
        "best": trainer.best,
        "validation": figures,
    }
    _write_record(out, record)
    if trainer.progress < 1.0:  # the trainer caught the signal, saved and came back; callers should stop too
        raise KeyboardInterrupt
    return figures


def git_commit() -> str:
    """Commit of the checkout this package runs from, with ``+changes`` if files differ from it; else ``unknown``."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # an installed package has no git around it
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _write_record(run: Path, record: dict[str, Any]) -> None:
    (run / RUN).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _record_of(run: Path) -> dict[str, Any]:
    try:
        record = json.loads((run / RUN).read_text(encoding="utf-8"))
        if record["stage"] != "motion":
            raise CheckpointError(f"{run} is a run of stage {record['stage']}; a checkpoint is made from a motion run.")
        return record
    except LlamoError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run} is not a motion run ({error!r}). Make one with `llamo train motion`.") from error


def _best(run: Path, command: str) -> dict[str, Any]:
    path = run / "best.pt"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing. Train it with `{command} --out {run}`; the first validation writes it."
        )
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise CheckpointError(f"{path} cannot be read ({error}). Train again with `{command}`.") from error


def _at_start(preset_name: str, run: Path) -> tuple[Llamo, TextTokenizer]:
    model = Llamo(preset(preset_name))
    try:
        tensors = load_file(run / START)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{run / START} cannot be read ({error}). Train again with `llamo train motion`."
        ) from error
    _load(model, tensors, run, complete=True)
    return model, TextTokenizer.load(run / TOKENIZER)


def _load(module: torch.nn.Module, tensors: dict[str, torch.Tensor], run: Path, complete: bool) -> None:
    """Load tensors that must all fit, and cover the whole module if ``complete``."""
    try:
        missing, unexpected = module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{run} holds weights of other sizes; use one preset for all stages ({detail})."
        ) from error
    if unexpected or (complete and missing):
        names = ", ".join([*unexpected, *missing][:3])
        raise CheckpointError(
            f"{run} does not hold the weights that are wanted here ({names}); is it another stage's run?"
        )
