"""What the figures have to be, and whether they are: a row for each bar that a result says something about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

FLOW_MS = {"float32": 5.5, "int8": 1.2}  # of the flow sampler 256 x 4, one latent without guidance
FLOW_SPEEDUP = 20.0  # of it against naive eager PyTorch
LOOP_TO_LIMIT = 1.5  # of the flow loop at each width from 384 on
LOOP_WIDTHS = range(384, 1537)
LATENT_P50_MS, LATENT_P99_MS, BUSY_P99_MS = 5.0, 15.0, 40.0  # of a whole latent on one core
PEAK_MB, FIRST_POSE_S = 700.0, 3.0  # of a fresh process
GROWTH = 1.1  # of the mean cost of a long motion, last piece against first: attention within a window only


@dataclass(frozen=True)
class Bar:
    """A figure and what it has to be.

    Attributes:
        name: What it is of, with its unit.
        value: As measured.
        bar: What it may be at most, or has to be at least.
        is_least: Whether `bar` is the least.
    """

    name: str
    value: float
    bar: float
    is_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is what it has to be."""
        return self.value >= self.bar if self.is_least else self.value <= self.bar


def operation_bars(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    """Those of benchmarks/operations.py, from its rows."""
    kernels = [row for row in rows if row["candidate"] == "kernel" and "p50_ms" in row]
    for row in kernels:
        if row["operation"] == "flow sampler" and row["size"] == "256 x 4" and row["precision"] in FLOW_MS:
            name = f"flow sampler 256 x 4, {row['precision']}"
            yield Bar(f"{name}, p50 [ms]", row["p50_ms"], FLOW_MS[row["precision"]])
            yield Bar(f"{name}, times naive eager PyTorch", row["speedup"], FLOW_SPEEDUP, is_least=True)
    for row in kernels:
        if row["operation"] == "flow loop" and int(row["size"].split(" x ")[0]) in LOOP_WIDTHS:
            kind = " ".join(word for word in (row["precision"], row["instruction_set"]) if word)
            yield Bar(f"flow loop {row['size']}, {kind}, times the limit", row["to_limit"], LOOP_TO_LIMIT)


def whole_latent_bars(result: dict[str, Any]) -> Iterator[Bar]:
    """Those of benchmarks/whole_latent.py, from its result."""
    for row in result["latents"]:
        name = f"whole latent, {row['precision']}"
        if row["busy"] == "no":
            yield Bar(f"{name}, p50 [ms]", row["p50_ms"], LATENT_P50_MS)
            yield Bar(f"{name}, p99 [ms]", row["p99_ms"], LATENT_P99_MS)
        else:
            yield Bar(f"{name}, busy neighbour on the {row['busy']}, p99 [ms]", row["p99_ms"], BUSY_P99_MS)
    for row in result["processes"]:
        name = f"fresh process, {row['precision']}, {row['imports']}"
        yield Bar(f"{name}, peak memory [MB]", row["peak_mb"], PEAK_MB)
        yield Bar(f"{name}, first pose [s]", row["first_pose_s"], FIRST_POSE_S)
    for found in result["long_motion"]:
        means = [row["mean_ms"] for row in found["rows"]]
        name = f"motion of {found['seconds']:g} s, {found['precision']}, last piece / first piece"
        yield Bar(name, means[-1] / means[0], GROWTH)


def bars_json(bars: Iterator[Bar]) -> list[dict[str, Any]]:
    """The bars as JSON values."""
    return [asdict(bar) | {"holds": bar.holds} for bar in bars]
