"""Times of calls that take turns on one core, and what is said of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from llamo_ros.core.errors import ParameterError

LEAST = 3  # timed calls of whatever is slow
LOOK = 0.3  # [s] for which cores are watched to find the quietest


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile and largest of at least one time [s], in [ms], and how many there are."""
    values = 1e3 * np.asarray(seconds)
    p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99])
    return {
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "max_ms": float(values.max()),
        "calls": len(values),
    }


def take_turns(
    functions: Mapping[str, Callable[[], object]], seconds: float, most: int = 300
) -> dict[str, list[float]]:
    """Times of each function, [s]. They take turns, so that a busy moment of the machine hits all of them.

    Before each timed call there is one that is not: it brings weights into the cache, as in use the first of many
    steps does.

    Args:
        functions: By name.
        seconds: For all of them together, [s]; each gets as much, but is called at least three times.
        most: Timed calls of each, at most.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    used = dict.fromkeys(functions, 0.0)
    share = seconds / max(1, len(functions))
    for function in functions.values():
        function()  # first calls allocate and compile
    waiting = list(functions)
    while waiting:
        for name in waiting:
            began = time.perf_counter()
            functions[name]()
            start = time.perf_counter()
            functions[name]()
            end = time.perf_counter()
            times[name].append(end - start)
            used[name] += end - began
        waiting = [
            name for name in waiting if len(times[name]) < LEAST or (used[name] < share and len(times[name]) < most)
        ]
    return times


@contextmanager
def one_core(core: int | None = None) -> Iterator[int | None]:
    """Stay on one core, with one thread of PyTorch; afterwards everything is as it was.

    Args:
        core: Which; None takes the one with the least to do at present. Threads that run already stay where they are.

    Raises:
        ParameterError: this process may not use the core.

    Yields:
        The core; None where the system cannot bind a process (not Linux).
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is not None and core is not None and core not in allowed:
        raise ParameterError(f"core is {core}, expected one of {sorted(allowed)}, those that this process may use.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if allowed is not None:
            core = quietest_core(allowed) if core is None else core
            os.sched_setaffinity(0, {core})
        yield core if allowed is not None else None
    finally:
        if allowed is not None:
            os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


def quietest_core(cores: set[int]) -> int:
    """The core that has the least to do for a moment; the last one where the system does not say."""
    before = _idle_time()
    if not cores <= before.keys():
        return max(cores)
    time.sleep(LOOK)
    after = _idle_time()
    return max(cores, key=lambda core: (after[core] - before[core], core))


def _idle_time() -> dict[int, int]:
    """How long each core has been idle since the system started, in ticks of its clock; empty if it does not say."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return {}
    cells = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    return {int(name[3:]): int(values[3]) for name, *values in cells}
