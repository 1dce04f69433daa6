"""What a run goes on from: weights, their average, the optimiser's state and counters, in one file, for any engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llamo_ros.core.errors import CheckpointError
from llamo_ros.training.engine import Engine


def save_state(path: Path, engine: Engine, average: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """Write the state; the first process does, the others help. Replaces the last one in a single rename.

    Args:
        path: File to write.
        engine: With what is trained.
        average: Averaged weights, the part of this process.
        counters: Numbers and texts to keep beside.
    """
    state = {
        "parameters": engine.gathered({name: p.detach() for name, p in engine.parameters.items()}),
        "average": engine.gathered(average),
        "optimizer": engine.optimizer_state(),
    }
    if engine.processes.is_first:
        replace_file(state | dict(counters), path)


def load_state(path: Path, engine: Engine, average: Mapping[str, Tensor]) -> dict[str, Any]:
    """Inverse of :func:`save_state`: fills engine and ``average``, and returns the whole state with its counters.

    Raises:
        CheckpointError: the state belongs to another model or cannot be read.
    """
    try:
        state = read_file(path, mmap=True)
        if set(state["parameters"]) != set(engine.parameters):
            raise CheckpointError(f"{path} belongs to a model with other parameters; choose another folder.")
        if not set(state["optimizer"]) <= set(engine.parameters):
            raise ValueError("its optimiser's state is of an earlier version")
        engine.scatter(state["parameters"], engine.parameters)
        engine.scatter(state["average"], average)
        engine.load_optimizer_state(state["optimizer"])
    except (RuntimeError, KeyError, ValueError, EOFError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be resumed ({error}); delete it to start afresh.") from error
    return state


def read_file(path: Path, mmap: bool = False) -> Any:
    """Inverse of :func:`replace_file`.

    Raises:
        ValueError: the file is damaged, or of another program.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception as error:  # whatever the damaged bytes lead to; PyTorch's advice is for those who wrote the file
        raise ValueError(f"damaged, {type(error).__name__}") from error


def replace_file(content: Any, path: Path) -> None:
    """Write ``content`` so that the file is whole at any time.

    Raises:
        CheckpointError: it cannot be written; the file of before is as it was.
    """
    partial = path.with_suffix(".partial")
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer has no error of its own
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} cannot be written ({error}). Make room there and run the same command again; "
            "it goes on from the last state that was saved."
        ) from error
