"""The one training loop: schedule, progress with ETA, validation, resumable checkpoints, Ctrl-C that saves.

Everything random in a step follows from the seed and the number of the step, so that a run that was interrupted goes on
exactly as if it had not been. (A schedule by the clock, ``minutes``, depends on the machine; ``steps`` do not.)
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from llamo_ros.core.errors import ParameterError, TrainingError
from llamo_ros.training.engine import Engine, local_part, trained_parameters
from llamo_ros.training.progress import NoLog, TrainingLog
from llamo_ros.training.run_state import load_state, replace_file, save_state
from llamo_ros.training.settings import TrainingSettings

# What a run counts, and goes on counting when it is resumed.
COUNTERS = ("step", "elapsed", "best", "skipped")


def compile_for_training(module: nn.Module) -> None:
    """Compile the forward pass of ``module`` for training steps; passes without gradient stay eager.

    On a CPU this makes the backbone's step about 1.6 times as fast, for one or two minutes of compilation at the start.
    """
    eager = module.forward
    compiled = torch.compile(eager, dynamic=True)

    def forward(*arguments: Any, **keywords: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else eager)(*arguments, **keywords)

    module.forward = forward


class TrainingTask(Protocol):
    """What is trained: a module, the loss of one step, and its validation."""

    model: nn.Module

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of a freshly drawn batch and figures to show; ``progress`` is 0 at the start, 1 at the end."""

    def validate(self) -> dict[str, float]:
        """Figures on the validation split with the weights as they are; ``score`` is the one to minimise."""


@runtime_checkable
class OrderedTask(Protocol):
    """A task whose data come in an order, so that a resumed run has to say where it goes on."""

    def go_to(self, position: int) -> None:
        """The next draw is number ``position`` of the run, counted from 0."""


def frozen_digests(module: nn.Module) -> dict[str, str]:
    """SHA-256 of every tensor of ``module`` that training must not change: frozen parameters and buffers.

    Of one that is sharded over processes: of the part that this one holds.
    """
    parameters = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    parts = {name: local_part(tensor).detach() for name, tensor in (parameters | dict(module.named_buffers())).items()}
    return {
        name: hashlib.sha256(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
        for name, part in parts.items()
    }


class Trainer:
    """Runs a task in a folder: ``state.pt`` resumes it, ``best.pt`` holds the averaged weights that validated best.

    ``on_validation`` is called with the step after each validation, with the averaged weights in the model.
    """

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainingSettings,
        folder: Path,
        on_validation: Callable[[int], None] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.on_validation = on_validation
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(settings.threads)
        self.engine = engine or Engine(settings.device)
        rates = {"lr": settings.learning_rate, "betas": settings.betas}
        self.engine.prepare(task, self._parameter_groups(), settings.bf16, settings.clip_norm, **rates)
        self.average = {name: local_part(p).detach().clone() for name, p in self.parameters.items()}
        self.step, self.elapsed, self.best, self.skipped = 0, 0.0, math.inf, 0

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return self.engine.parameters

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate, and by whether weight decay is for them: matrices, not norms and biases."""
        rates = self.settings.module_rates
        trained = trained_parameters(self.task.model)
        unknown = [key for key in rates if not any(name.startswith(key) for name in trained)]
        if unknown:
            raise ParameterError(f"module_rates names {', '.join(unknown)}, and no parameter that is trained is in it.")
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in trained.items():
            key = max((key for key in rates if name.startswith(key)), key=len, default=None)
            factor = 1.0 if key is None else rates[key]
            groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
        return [
            {"params": parameters, "factor": factor, "weight_decay": self.settings.weight_decay if decayed else 0.0}
            for (factor, decayed), parameters in groups.items()
        ]

    @property
    def progress(self) -> float:
        """Share of the training done, 0 to 1."""
        if self.settings.steps > 0:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.elapsed / (60.0 * self.settings.minutes))

    def save(self) -> None:
        """Write the resumable state."""
        counters = {name: getattr(self, name) for name in COUNTERS}
        save_state(self.folder / "state.pt", self.engine, self.average, counters)

    def resume(self) -> bool:
        """Continue from ``state.pt`` if there is one.

        Raises:
            CheckpointError: the state belongs to another model or cannot be read.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            return False
        state = load_state(path, self.engine, self.average)
        for name in COUNTERS:
            setattr(self, name, state[name])
        return True

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model carries the averaged weights."""
        kept = {name: local_part(p).detach().clone() for name, p in self.parameters.items()}
        self._load(self.average)
        try:
            yield
        finally:
            self._load(kept)

    def _load(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                local_part(parameter).copy_(values[name])
        self.engine.weights_changed()

    def _train_mode(self) -> None:
        """Training mode for what is trained; what is frozen stays as it is used, without dropout."""
        for module in self.task.model.modules():
            own = list(module.parameters())
            module.training = not own or any(parameter.requires_grad for parameter in own)

    def _validate(self) -> dict[str, float]:
        torch.manual_seed(1)
        self.task.model.eval()
        has_bfloat16 = any(parameter.dtype == torch.bfloat16 for parameter in self.task.model.parameters())
        device = torch.device(self.settings.device).type
        with self.averaged(), torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=has_bfloat16):
            figures = self.task.validate()
            if self.on_validation is not None:
                self.on_validation(self.step)
        self._train_mode()
        if figures["score"] <= self.best:
            self.best = figures["score"]
            best = {"average": self.engine.gathered(self.average), "step": self.step, "figures": figures}
            if self.engine.processes.is_first:
                replace_file(best, self.folder / "best.pt")
        return figures

    def _set_learning_rate(self) -> float:
        settings = self.settings
        warmup = min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        cosine = settings.final_rate + (1.0 - settings.final_rate) * 0.5 * (1.0 + math.cos(math.pi * self.progress))
        rate = settings.learning_rate * warmup * cosine
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def _optimise(self) -> dict[str, float]:
        """One step of the optimiser; figures are means over the draws it accumulates."""
        settings = self.settings
        rate = self._set_learning_rate()
        engine = self.engine
        engine.zero_grad()
        seen: dict[str, list[float]] = {}
        for draw in range(settings.accumulate):
            rng = np.random.default_rng([settings.seed, self.step, draw])
            # Of dropout and whatever a task draws with PyTorch; the processes have different rows.
            torch.manual_seed(int(rng.integers(2**62)) + engine.processes.rank)
            with engine.accumulating(is_last=draw == settings.accumulate - 1):
                with torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16, enabled=settings.bf16):
                    loss, figures = self.task.loss(rng, self.progress)
                engine.backward(loss / settings.accumulate)
            for name, value in ({"loss": loss.item()} | figures).items():
                seen.setdefault(name, []).append(value)
        norm = engine.update(settings.clip_norm)
        if not math.isfinite(norm):
            self._skip()
            return {}
        self.skipped = 0
        decay = min(settings.ema_decay, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            weights = [local_part(parameter) for parameter in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), weights, 1.0 - decay)
        return {name: float(np.mean(values)) for name, values in seen.items()} | {"norm": norm, "rate": rate}

    def _skip(self) -> None:
        """Count a step whose gradient is not finite; one bad batch must not poison the weights, many are no accident.

        Raises:
            TrainingError: there were too many in a row.
        """
        self.skipped += 1
        if self.skipped >= self.settings.patience:
            raise TrainingError(
                f"loss or gradient is NaN or infinite in {self.skipped} steps in a row, the last being {self.step}. "
                f"The weights are those before them, saved in {self.folder}. Lower the learning rate, or look for "
                "damaged data with `llamo data stats`."
            )

    def run(self) -> dict[str, float]:
        """Train until done or interrupted; returns the last validation. Ctrl-C and SIGTERM save first.

        Raises:
            TrainingError: loss or gradient stay NaN, or a frozen tensor has changed.
        """
        stop = False

        def request_stop(*_: Any) -> None:
            nonlocal stop
            stop = True

        handlers = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        figures: dict[str, float] = {}
        last_save = last_validation = self.elapsed
        frozen = frozen_digests(self.task.model)
        if isinstance(self.task, OrderedTask):
            self.task.go_to(self.step * self.settings.accumulate)
        self._train_mode()
        processes = self.engine.processes
        log = TrainingLog(self.folder, self.progress, self.step) if processes.is_first else NoLog()
        can_save = processes.count == 1  # an error of one of several leaves the others waiting, and no help in saving
        try:
            while self.progress < 1.0 and not stop:
                began = time.monotonic()
                seen = self._optimise()
                self.step += 1
                self.elapsed += time.monotonic() - began
                stop, self.elapsed = processes.agreed(stop, self.elapsed)
                log.stepped(self.step, self.progress, seen)
                if self.elapsed - last_validation >= 60.0 * self.settings.validate_minutes:
                    last_validation = self.elapsed
                    figures = self._validate()
                    log.validated(self.step, self.elapsed, figures)
                if self.elapsed - last_save >= 60.0 * self.settings.save_minutes:
                    last_save = self.elapsed
                    self.save()
            if not stop:
                figures = self._validate()
                log.validated(self.step, self.elapsed, figures)
            self._check_frozen(frozen)
            can_save = True
        except TrainingError:
            can_save = True  # all processes come to the same conclusion
            raise
        finally:
            if can_save:
                self.save()
            log.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if stop and processes.is_first:
            print(f"stopped at step {self.step}; run the same command again to continue from {self.folder}")
        return figures

    def _check_frozen(self, before: dict[str, str]) -> None:
        after = frozen_digests(self.task.model)
        changed = [name for name, digest in before.items() if after.get(name) != digest]
        if self.engine.processes.agreed(bool(changed), 0.0)[0]:
            raise TrainingError(
                f"{len(changed)} frozen tensors changed in training, first {', '.join(changed[:1]) or 'elsewhere'}. "
                "The run is not usable; this is a bug in the model or the task, which must not write to them."
            )
