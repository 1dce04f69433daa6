"""What a training run shows and leaves behind: progress bar, ``log.jsonl``, TensorBoard scalars."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

LOG = "log.jsonl"
STEPS_PER_ROW = 20


class TrainingLog:
    """Shows and keeps the figures of a run. Scalars for TensorBoard are written where it is installed.

    Of a run that goes on, figures of steps after ``step`` are of one that was killed, and come again; they go.
    """

    def __init__(self, folder: Path, progress: float, step: int) -> None:
        _cut_after(folder / LOG, step)
        self._file = (folder / LOG).open("a", encoding="utf-8")
        self._writer = _scalar_writer(folder / "tensorboard", step + 1)
        self._smooth: dict[str, float] = {}
        self._bar = tqdm(
            total=1000,
            initial=int(1000 * progress),
            bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
            mininterval=2,
        )

    def stepped(self, step: int, progress: float, figures: dict[str, float]) -> None:
        """Take the figures of a step, none if it was skipped."""
        for name, value in figures.items():
            self._smooth[name] = 0.98 * self._smooth.get(name, value) + 0.02 * value
        if step % STEPS_PER_ROW:
            return
        self._bar.n = int(1000 * progress)
        shown = (f"{name} {value:.4g}" for name, value in self._smooth.items() if name not in ("norm", "rate"))
        self._bar.set_postfix_str(f"step {step} " + " ".join(shown))
        self._write({"step": step, "train": figures})
        self._scalars("train", step, figures)

    def validated(self, step: int, elapsed: float, figures: dict[str, float]) -> None:
        """Take the figures of a validation; ``elapsed`` is the training time so far, [s]."""
        minutes = elapsed / 60
        self._write({"step": step, "minutes": round(minutes, 2), "smooth": self._smooth, "validation": figures})
        self._scalars("validation", step, figures)
        self._bar.write(f"step {step} min {minutes:.1f} " + " ".join(f"{k} {v:.4g}" for k, v in figures.items()))

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def _scalars(self, group: str, step: int, figures: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


class NoLog:
    """In place of a :class:`TrainingLog`, for all processes but the first."""

    def stepped(self, step: int, progress: float, figures: dict[str, float]) -> None:
        """Nothing."""

    def validated(self, step: int, elapsed: float, figures: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _cut_after(log: Path, step: int) -> None:
    """Leave the rows up to ``step``; a row that was cut short when the run was killed goes too."""
    rows = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    kept = [row for row in rows if _step_of(row) <= step]
    if len(kept) < len(rows):
        log.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _step_of(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _scalar_writer(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("no TensorBoard scalars: `pip install tensorboard` for them; log.jsonl has all figures", file=sys.stderr)
        return None
    return SummaryWriter(str(folder), purge_step=first_step)
