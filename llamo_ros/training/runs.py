"""Run folders: what a stage of training keeps, how it goes on, and what a later stage takes from it.

A folder holds ``state.pt`` to resume, ``best.pt`` with the weights that validated best, ``log.jsonl``, and ``run.json``
with configuration, seed, data, licence, commit and results. Where weights were there before training began, and stay
frozen or are needed to resume, ``start.safetensors`` keeps them.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llamo_ros import __version__
from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.checkpoint import checkpoint_folder, read_config
from llamo_ros.model.config import LlamoConfig, MotionVaeConfig, preset
from llamo_ros.training.engine import Engine, alone
from llamo_ros.training.loop import Trainer, TrainingTask
from llamo_ros.training.pack import INDEX as PACK_INDEX
from llamo_ros.training.pack import Pack
from llamo_ros.training.provenance import LICENCES, sources_of, strictest
from llamo_ros.training.run_state import read_file
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.shards import INDEX as SHARD_INDEX
from llamo_ros.training.shards import ShardSet

TOKENIZER = "tokenizer.json"
RUN = "run.json"
MODEL = "model.json"
STATE = "state.pt"
BEST = "best.pt"
START = "start.safetensors"

# Of TrainingSettings: what may differ when a run goes on, since it says where and how often, not what is trained.
FREE_SETTINGS = ("bf16", "checkpointing", "patience", "save_minutes", "validate_minutes", "threads", "device")
LENGTH = ("steps", "minutes")
PATHS = ("source", "base")

CUSTOM = "custom"  # a model made from a base of another size than the presets'


@dataclass(frozen=True)
class StageSettings:
    """What all stages share.

    Attributes:
        data: Folder of the pack, or of shards.
        out: Run folder.
        training: How long and how to train.
        preset: Size of the model; CUSTOM where a checkpoint says it.
        batch_size: Windows, captions or clips per step.
        compile: Compile with PyTorch what gains from it; needs a C++ compiler.
        workers: Processes that read shards ahead, per process that trains; 0 reads between steps.
    """

    data: Path
    out: Path
    training: TrainingSettings
    preset: str = "mini"
    batch_size: int = 32
    compile: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.preset != CUSTOM:
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
        choices: What was chosen for this run beyond its preset, as JSON values.
    """

    runs: dict[str, Path | None]
    checkpoints: dict[str, str | None]
    notes: dict[str, str]
    choices: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Lines for ``run.json``; what was not given is empty."""
        named = {name: str(value or "") for name, value in (self.runs | self.checkpoints | self.notes).items()}
        return named | self.choices

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

    def sources(self) -> list[str]:
        """What everything that was given learned from, as it says itself.

        Raises:
            CheckpointError: one of them cannot be read.
        """
        of_runs = [source for run in self.runs.values() if run for source in record_of(run).get("sources", [])]
        metadata = (read_config(checkpoint_folder(name))[1] for name in self.checkpoints.values() if name)
        return [*of_runs, *(source for data in metadata for source in data.get("data", "").split("; ") if source)]


def train_in_folder(
    stage: str,
    settings: StageSettings,
    pack: Pack | ShardSet,
    build: Callable[[], TrainingTask],
    ingredients: Ingredients,
    on_validation: Callable[[int], None] | None = None,
    engine: Engine | None = None,
) -> dict[str, float]:
    """Build the task with the seed set, train or go on training in the run folder, and keep the record of it.

    A run that goes on keeps the ingredients it began from, whatever is given now; data, seed and the values of the
    stage must be those of before, but a finished run may be made longer. ``on_validation`` is called with the step
    after each validation. Of several processes with an ``engine``, the first writes.

    Raises:
        ParameterError: the run folder cannot be made, or a launcher started several processes and there is no engine.
            Or a run is to go on with other data or values than it began with.
        CheckpointError: the folder holds a run of another stage.
    """
    engine = engine or alone(stage)
    out = settings.out
    if is_run(out) and (other := record_of(out)["stage"]) != stage:
        raise CheckpointError(f"{out} is a run of stage {other}, expected one of stage {stage}. Choose another --out.")
    if is_run(out) and can_resume(out):
        _require_same(out, settings, ingredients.notes, isinstance(pack, ShardSet))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"run folder {out} cannot be made: {error.strerror}. Choose another with --out."
        ) from error
    torch.manual_seed(settings.training.seed)
    torch.set_num_threads(settings.training.threads)
    trainer = Trainer(build(), settings.training, out, on_validation, engine)
    resumed = trainer.resume()
    if not resumed and engine.processes.is_first:
        (out / BEST).unlink(missing_ok=True)  # of a run whose state was deleted: it began from other weights
    began = ingredients.record()
    if resumed:
        earlier = record_of(out)
        began |= {name: earlier[name] for name in began if name in earlier and name not in ingredients.notes}
        licence_set = strictest([pack.licence_set, earlier["licence_set"]])
        sources = [*earlier.get("sources", []), *sources_of(pack.licences)]
    else:
        licence_set = strictest([pack.licence_set, *ingredients.licence_sets()])
        sources = [*ingredients.sources(), *sources_of(pack.licences)]
    record: dict[str, Any] = {
        "stage": stage,
        "preset": settings.preset,
        "batch_size": settings.batch_size,
        "compile": settings.compile,
        "training": asdict(settings.training),
        "data": str(settings.data),
        "data_index": index_digest(settings.data),
        "licence_set": licence_set,
        "sources": list(dict.fromkeys(sources)),
        "sequences": len(pack),
        **began,
        "commit": git_commit(),
        "version": __version__,
        "torch": torch.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "processes": engine.processes.count,
        "resumed_at_step": trainer.step if resumed else 0,
    }
    engine.processes.wait()  # all have read the record of before
    is_first = engine.processes.is_first
    if is_first:
        _write_record(out, record)
    if resumed and is_first:
        print(f"going on at step {trainer.step} of {out}")
    figures = trainer.run()
    record |= {
        "steps": trainer.step,
        "minutes": round(trainer.elapsed / 60, 2),
        "best": trainer.best,
        "validation": figures,
        "finished": trainer.progress >= 1.0,
    }
    if is_first:
        _write_record(out, record)
    if trainer.progress < 1.0:  # the trainer caught the signal, saved and came back; callers should stop too
        raise KeyboardInterrupt
    return figures


def index_digest(data: Path) -> str:
    """SHA-256 of the index of a pack or of shards, which tells one from another wherever they lie; empty if none."""
    for name in (SHARD_INDEX, PACK_INDEX):
        if (data / name).is_file():
            return hashlib.sha256((data / name).read_bytes()).hexdigest()
    return ""


def differences(
    run: Path, settings: StageSettings, given: Mapping[str, str] | None = None, with_length: bool = True
) -> list[str]:
    """What a run was trained with that is asked for otherwise now, such as "seed 0, not 1".

    Lines that an older version did not record are passed over, and so is what says only where and how often.

    Args:
        run: Run folder.
        settings: Of now.
        given: Further lines of ``run.json`` as they would be now.
        with_length: Whether the length of the schedule counts.

    Raises:
        CheckpointError: the folder holds no run.
    """
    record = record_of(run)
    free = FREE_SETTINGS if with_length else (*FREE_SETTINGS, *LENGTH)
    training = {name: value for name, value in asdict(settings.training).items() if name not in free}
    if settings.training.steps > 0:
        training.pop("minutes", None)  # they count for nothing beside steps
    now = {"preset": settings.preset, "batch_size": settings.batch_size} | training | dict(given or {})
    before = record | record.get("training", {})  # the steps of the schedule, not those that were made
    found = []
    if not _is_same_data(record, settings.data):
        found.append(f"data {record['data']}, not {settings.data} as it is now")
    for name, value in json.loads(json.dumps(now)).items():  # as a record has it, without tuples
        is_same_path = name in PATHS and name in before and _is_same_path(before[name], value)
        if name in before and not is_same_path:
            found += _differences(name, _parsed(before[name]), _parsed(value))
    return found


def _is_same_data(record: Mapping[str, Any], data: Path) -> bool:
    if record.get("data_index"):
        return record["data_index"] == index_digest(data)
    return "data" not in record or _is_same_path(record["data"], str(data))


def _is_same_path(one: str, other: str) -> bool:
    return one == other or bool(one and other and Path(one).resolve() == Path(other).resolve())


def _parsed(value: Any) -> Any:
    """A value of a record; some notes are JSON in a string."""
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def _differences(name: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = list(dict.fromkeys([*before, *now]))
        return [text for key in names for text in _differences(f"{name}.{key}", before.get(key), now.get(key))]
    if before == now:
        return []
    before, now = ("none" if value in (None, "") else value for value in (before, now))
    return [f"{name} {before}, not {now}"]


def _require_same(run: Path, settings: StageSettings, notes: Mapping[str, str], is_in_order: bool) -> None:
    """Raise ParameterError if a run is to go on with something else than it began with."""
    found = differences(run, settings, notes, with_length=not is_finished(run))
    if found:
        why = "; in another order of the shards samples would be lost and doubled" if is_in_order else ""
        raise ParameterError(
            f"the run in {run} began with {'; '.join(found)}{why}. Go on with what it began with, choose another "
            "folder with --out, or delete this one."
        )


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training run."""
    return (folder / RUN).is_file()


def is_finished(run: Path) -> bool:
    """Whether a run came to the end of its schedule."""
    return is_run(run) and bool(record_of(run).get("finished"))


def write_model_config(config: LlamoConfig, run: Path) -> None:
    """Keep the configuration of the model that is trained in its run folder."""
    (run / MODEL).write_text(json.dumps(config.to_json(), indent=1) + "\n", encoding="utf-8")


def read_model_config(run: Path) -> LlamoConfig:
    """Inverse of :func:`write_model_config`.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return LlamoConfig.from_json(json.loads((run / MODEL).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run / MODEL} cannot be read ({error}). Train again in another folder.") from error


def can_resume(run: Path) -> bool:
    """Whether a run folder holds a state to go on from."""
    return (run / STATE).exists()


def save_start(module: torch.nn.Module, run: Path) -> None:
    """Keep a module as training began in its run folder.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        save_file({name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}, run / START)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{run / START} cannot be written ({error}). Make room there, or choose another folder with --out."
        ) from error


def load_start(module: torch.nn.Module, run: Path, command: str) -> None:
    """Inverse of :func:`save_start`; ``command`` is what makes such a run.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another module.
    """
    try:
        tensors = load_file(run / START)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{run / START} cannot be read ({error}). Train again with `{command}`, in another folder."
        ) from error
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


def vae_config_of(run_record: dict[str, Any], preset_config: MotionVaeConfig) -> MotionVaeConfig:
    """Configuration of the motion VAE of a run, from its ``run.json``.

    ``preset_config`` is that of the run's preset; it holds for runs that were made before the VAE could be chosen.

    Raises:
        CheckpointError: what is recorded is no such configuration.
    """
    recorded = run_record.get("vae_config")
    if recorded is None:
        return preset_config
    try:
        return MotionVaeConfig(**(recorded | {"dilations": tuple(recorded["dilations"])}))
    except (TypeError, KeyError, ParameterError) as error:
        raise CheckpointError(
            f"vae_config of {RUN} does not describe a motion VAE of this version ({error}). "
            "It was written by another version, or edited; train the VAE again."
        ) from error


def best_of(run: Path, command: str) -> dict[str, Any]:
    """Averaged weights that validated best, their step and figures; ``command`` is what makes such a run.

    Raises:
        CheckpointError: there are none yet, or they are damaged.
    """
    path = run / BEST
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing. Train it with `{command} --out {run}`; the first validation writes it."
        )
    try:
        return read_file(path)
    except ValueError as error:
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
    partial = run / f"{RUN}.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(run / RUN)  # without its record a run does not go on
