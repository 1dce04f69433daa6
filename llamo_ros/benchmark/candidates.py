"""Several ways to do the same thing: checked against one another, timed in turns, compared with the machine's limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llamo_ros.benchmark.machine import Limits, Work
from llamo_ros.benchmark.timing import spread, take_turns
from llamo_ros.core.errors import LlamoError

AGREEMENT = {
    "float32": 1e-4,
    "bfloat16": 0.03,
    "int8": 0.1,
    "float8": 0.2,
}  # of the largest value; the exact ones are in the tests


class DisagreementError(LlamoError, AssertionError):
    """Two candidates do not compute the same, so that their times mean nothing."""


@dataclass(frozen=True)
class Candidate:
    """One way to do an operation.

    Attributes:
        name: As the table shows it.
        run: Does it once. None for one that cannot run here.
        precision: Of the weights.
        instruction_set: Of a compiled kernel; empty for others.
        work: What no implementation can do without; None where no limit is stated.
        why_not: Why it cannot run here.
    """

    name: str
    run: Callable[[], Tensor | np.ndarray] | None
    precision: str = "float32"
    instruction_set: str = ""
    work: Work | None = None
    why_not: str = ""


def measure(
    operation: str,
    candidates: Sequence[Candidate],
    limits: Limits | None,
    seconds: float,
    details: Mapping[str, object] | None = None,
    *,
    is_strict: bool = True,
) -> list[dict[str, object]]:
    """A row for each candidate: its times, the limit of the machine, the ratio, and how much faster than the first.

    Args:
        operation: Name of what they do.
        candidates: The first one defines the result and is what others are compared with.
        limits: Of this machine; None leaves them out.
        seconds: For all candidates together, [s].
        details: Further entries of each row.
        is_strict: False turns a candidate that fails or computes something else into a row that says so, for runs on
            machines that one cannot come back to. The first must succeed.

    Raises:
        DisagreementError: a candidate computes something else, and `is_strict`.
    """
    able = {_key(candidate): candidate for candidate in candidates if candidate.run is not None}
    first = next(iter(able.values()))
    wanted = torch.as_tensor(first.run()).float()
    failed: dict[str, str] = {}
    for key, candidate in list(able.items())[1:]:
        try:
            check(candidate, torch.as_tensor(candidate.run()).float(), wanted, first)
        except Exception as error:
            if is_strict:
                raise
            del able[key]
            failed[key] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    times = take_turns({key: candidate.run for key, candidate in able.items()}, seconds)
    base = float(np.median(times[_key(first)]))
    rows = []
    for candidate in candidates:
        row: dict[str, object] = {"operation": operation, **(details or {}), "candidate": candidate.name}
        row |= {"precision": candidate.precision, "instruction_set": candidate.instruction_set}
        if _key(candidate) not in able:
            rows.append(row | {"not_run": failed.get(_key(candidate), candidate.why_not)})
            continue
        row |= spread(times[_key(candidate)])
        row["speedup"] = 1e3 * base / row["p50_ms"]
        if candidate.work is not None and limits is not None:
            least, bound = limits.least_time(candidate.work, candidate.precision)
            row |= {"limit_ms": 1e3 * least, "bound": bound, "to_limit": row["p50_ms"] / (1e3 * least)}
        rows.append(row)
    return rows


def check(candidate: Candidate, actual: Tensor, wanted: Tensor, by: Candidate) -> None:
    """Raise DisagreementError unless two results agree as far as the precisions of both allow."""
    if actual.shape != wanted.shape:
        raise DisagreementError(f"{candidate.name} gives {tuple(actual.shape)}, {by.name} {tuple(wanted.shape)}.")
    error = ((actual - wanted).abs().max() / wanted.abs().max()).item()
    if not error <= max(AGREEMENT[candidate.precision], AGREEMENT[by.precision]):
        raise DisagreementError(
            f"{candidate.name} ({candidate.precision}) differs from {by.name} by {error:.1e} of the largest value; "
            "nothing was timed. Run the tests of the kernels."
        )


def _key(candidate: Candidate) -> str:
    return f"{candidate.name}/{candidate.precision}/{candidate.instruction_set}"
