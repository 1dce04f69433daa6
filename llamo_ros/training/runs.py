"""Run folders: what a stage of training keeps, how it goes on, and what a later stage takes from it.

A folder holds ``state.pt`` to resume, ``best.pt`` with the weights that validated best, ``log.jsonl``, and ``run.json``
with configuration, seed, data, licence, commit and results. Where weights were there before training began, and stay
frozen or are needed to resume, ``start.safetensors`` keeps them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llamo_ros import __version__
from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import checkpoint_folder, read_config
from llamo_ros.model.config import preset
from llamo_ros.training.loop import Trainer, TrainingSettings, TrainingTask
from llamo_ros.training.pack import Pack

TOKENIZER = "tokenizer.json"
RUN = "run.json"
STATE = "state.pt"
START = "start.safetensors"

# What weights trained on a licence set may be called.
LICENCES = {"noncommercial": "CC-BY-NC-4.0", "open": "Apache-2.0"}


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


@dataclass(frozen=True)
class Ingredients:
    """What a stage begins from besides its data.

    Attributes:
        runs: Run folders by the name they have in ``run.json``.
        checkpoints: Checkpoint names or folders by the name they have in ``run.json``.
        notes: Anything else worth a line there.
    """

    runs: dict[str, Path | None]
    checkpoints: dict[str, str | None]
    notes: dict[str, str]

    def record(self) -> dict[str, str]:
        """Lines for ``run.json``; what was not given is empty."""
        return {name: str(value or "") for name, value in (self.runs | self.checkpoints | self.notes).items()}

    def licence_sets(self) -> list[str]:
        """Licence set of everything that was given; an unknown licence of a checkpoint counts as the strictest.

        Raises:
            CheckpointError: one of them cannot be read.
        """
        known = {licence: licence_set for licence_set, licence in LICENCES.items()}
        given = [
            read_config(checkpoint_folder(name))[1].get("licence", "") for name in self.checkpoints.values() if name
        ]
        return [
            *(record_of(run)["licence_set"] for run in self.runs.values() if run),
            *(known.get(licence, "noncommercial") for licence in given),
        ]


def strictest(licence_sets: Iterable[str]) -> str:
    """What weights are that were made from all of these: open only if everything is."""
    return "open" if set(licence_sets) == {"open"} else "noncommercial"


def train_in_folder(
    stage: str,
    settings: StageSettings,
    pack: Pack,
    build: Callable[[], TrainingTask],
    ingredients: Ingredients,
) -> dict[str, float]:
    """Build the task with the seed set, train or go on training in the run folder, and keep the record of it.

    A run that goes on keeps the ingredients it began from, whatever is given now.
    """
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
    began = ingredients.record()
    if resumed:
        earlier = record_of(out)
        began = {name: earlier.get(name, value) for name, value in began.items()}
        licence_set = strictest([pack.licence_set, earlier["licence_set"]])
    else:
        licence_set = strictest([pack.licence_set, *ingredients.licence_sets()])
    record: dict[str, Any] = {
        "stage": stage,
        "preset": settings.preset,
        "batch_size": settings.batch_size,
        "compile": settings.compile,
        "training": asdict(settings.training),
        "data": str(settings.data),
        "licence_set": licence_set,
        "sequences": len(pack.sequences),
        **began,
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


def can_resume(run: Path) -> bool:
    """Whether a run folder holds a state to go on from."""
    return (run / STATE).exists()


def save_start(module: torch.nn.Module, run: Path) -> None:
    """Keep a module as training began in its run folder."""
    save_file({name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}, run / START)


def load_start(module: torch.nn.Module, run: Path, command: str) -> None:
    """Inverse of :func:`save_start`; ``command`` is what makes such a run.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another module.
    """
    try:
        tensors = load_file(run / START)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{run / START} cannot be read ({error}). Train again with `{command}`.") from error
    load_tensors(module, tensors, run, complete=True)


def record_of(run: Path, command: str = "llamo train") -> dict[str, Any]:
    """``run.json`` of a run folder; ``command`` is what makes such a run.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        record = json.loads((run / RUN).read_text(encoding="utf-8"))
        if not {"stage", "preset", "licence_set"} <= record.keys():
            raise KeyError("stage, preset or licence_set")
        return record
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{run} is not a training run ({error!r}). Make one with `{command}`.") from error


def best_of(run: Path, command: str) -> dict[str, Any]:
    """Averaged weights that validated best, their step and figures; ``command`` is what makes such a run.

    Raises:
        CheckpointError: there are none yet, or they are damaged.
    """
    path = run / "best.pt"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing. Train it with `{command} --out {run}`; the first validation writes it."
        )
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise CheckpointError(f"{path} cannot be read ({error}). Train again with `{command}`.") from error


def load_tensors(module: torch.nn.Module, tensors: dict[str, torch.Tensor], run: Path, complete: bool) -> None:
    """Load tensors of a run that must all fit, and cover the whole module if ``complete``.

    Raises:
        CheckpointError: they do not.
    """
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
