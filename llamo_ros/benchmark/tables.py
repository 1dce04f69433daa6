"""Results as tables of Markdown, and their place in a document, so that figures and text cannot drift apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamo_ros.core.errors import ParameterError

Rows = Sequence[dict[str, Any]]


def begin_mark(name: str) -> str:
    """The line before a table."""
    return f"<!-- {name}: written by the benchmark, do not edit -->"


def end_mark(name: str) -> str:
    """The line behind it."""
    return f"<!-- end of {name} -->"


def section(document: str, name: str) -> str:
    """What stands between the marks of a table.

    Raises:
        ParameterError: the marks are not there, or not in this order.
    """
    before, begin, rest = document.partition(begin_mark(name))
    content, end, _ = rest.partition(end_mark(name))
    if not begin or not end:
        raise ParameterError(f"the document has no place for {name!r}: put {begin_mark(name)} and {end_mark(name)} in.")
    return content.strip()


def write_section(path: Path, name: str, content: str) -> None:
    """Replace what stands between the marks of a table in a file.

    Raises:
        ParameterError: the marks are not there.
    """
    document = path.read_text(encoding="utf-8")
    section(document, name)
    before, _, rest = document.partition(begin_mark(name))
    after = rest.partition(end_mark(name))[2]
    made = f"{before}{begin_mark(name)}\n\n{content}\n\n{end_mark(name)}{after}"
    path.write_text(made, encoding="utf-8")


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers are given three digits, None is a dash."""
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def caption(result: dict[str, Any]) -> str:
    """Where, when and of which commit a result is, in a sentence or two."""
    machine = result["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items() if name != "L1i")
    where = f"{machine['cpu']} ({caches}), {machine['cores']} cores, torch {machine['torch']}"
    if machine.get("gpu"):
        where += f", {machine['gpu']}"
    commit = result["commit"][:12] + ("+changes" if result["commit"].endswith("+changes") else "")
    made = f"{result['date'][:10]}, commit {commit}, {where}."
    return (
        made
        + f" Load of the machine at the beginning: {machine['load']}."
        + (" **Other programs were running: the times are too long.**" if result.get("busy_machine") else "")
    )


def operations_table(result: dict[str, Any]) -> str:
    """The table of benchmarks/operations.py."""
    rows = []
    for row in result["rows"]:
        named = [row["operation"], row["size"], row["candidate"], row["precision"], row["instruction_set"] or None]
        if "not_run" in row:
            rows.append([*named, f"not run: {row['not_run']}", None, None, None])
            continue
        limit = None
        if "to_limit" in row:
            limit = f"{row['to_limit']:.2f} x {_number(row['limit_ms'])} ({row['bound']})"
        rows.append([*named, row["p50_ms"], row["p99_ms"], f"{_number(row['speedup'])} x", limit])
    header = (
        "operation",
        "size",
        "how",
        "weights",
        "instructions",
        "p50 [ms]",
        "p99 [ms]",
        "speed",
        "of the limit [ms]",
    )
    return f"{caption(result)}\n\n{_bars(result)}{markdown(header, rows)}\n\n{_limits(result['limits'])}"


def whole_latent_table(result: dict[str, Any]) -> str:
    """The tables of benchmarks/whole_latent.py."""
    parts = [caption(result), *([_bars(result).strip()] if result.get("bars") else [])]
    rows = [
        [row["precision"], row["busy"], row["p50_ms"], row["p90_ms"], row["p99_ms"], row["max_ms"],
         f"{row['real_time']:.0f} x", row["calls"]]
        for row in result["latents"]
    ]  # fmt: skip
    header = ("weights", "busy neighbour", "p50 [ms]", "p90 [ms]", "p99 [ms]", "longest [ms]", "real time", "latents")
    parts.append(markdown(header, rows))
    if result.get("processes"):
        header = ("weights", "imports", "model loaded [s]", "first pose [s]", "peak memory [MB]")
        names = ("precision", "imports", "loaded_s", "first_pose_s", "peak_mb")
        parts.append(markdown(header, [[row[name] for name in names] for row in result["processes"]]))
    for found in result.get("streams", []):
        header = ("streams", "p50 [ms]", "p99 [ms]", "mean [ms]", "keeps up")
        rows = [
            [row["streams"], row["p50_ms"], row["p99_ms"], row["mean_ms"], "yes" if row["keeps_up"] else "no"]
            for row in found["rows"]
        ]
        said = f"{found['streams']} streams together are made in real time (weights {found['precision']}):"
        parts.append(f"{said}\n\n{markdown(header, rows)}")
    for found in result.get("long_motion", []):
        header = ("from [s]", "p50 [ms]", "p99 [ms]", "mean [ms]")
        rows = [[row["from_s"], row["p50_ms"], row["p99_ms"], row["mean_ms"]] for row in found["rows"]]
        means = [row["mean_ms"] for row in found["rows"]]
        growth = f"last piece / first piece: {means[-1] / means[0]:.2f}"
        said = f"One motion of {found['seconds']:g} s (weights {found['precision']}); mean cost, {growth}:"
        parts.append(f"{said}\n\n{markdown(header, rows)}")
    return "\n\n".join(parts)


def gpu_table(result: dict[str, Any]) -> str:
    """The table of benchmarks/gpu_flow_sampler.py."""
    rows = []
    for row in result["rows"]:
        named = [row["operation"], row["size"], row["batch"], row["candidate"], row["precision"]]
        if "not_run" in row:
            rows.append([*named, f"not run: {row['not_run']}", None, None, None])
            continue
        limit = f"{row['to_limit']:.2f} x {_number(row['limit_ms'])} ({row['bound']})" if "to_limit" in row else None
        rows.append([*named, row["p50_ms"], row["p99_ms"], f"{_number(row['speedup'])} x", limit])
    header = ("operation", "size", "latents", "how", "weights", "p50 [ms]", "p99 [ms]", "speed", "of the limit [ms]")
    limits = result["limits"]
    said = f"Measured limits: {_number(limits['bandwidth'] / 1e9)} GB/s, {_number(limits['rate'] / 1e12)} TFLOP/s."
    return f"{caption(result)}\n\n{markdown(header, rows)}\n\n{said}"


def _bars(result: dict[str, Any]) -> str:
    """What the figures have to be, with an empty line behind; empty if there is nothing to say."""
    rows = [
        [
            bar["name"],
            bar["value"],
            f"{'>=' if bar['is_least'] else '<='} {bar['bar']:g}",
            "yes" if bar["holds"] else "NO",
        ]
        for bar in result.get("bars", [])
    ]
    return markdown(("figure", "measured", "bar", "holds"), rows) + "\n\n" if rows else ""


def _limits(limits: dict[str, Any]) -> str:
    bandwidths = markdown(
        ("read again and again [MB]", "one thread [GB/s]"),
        [[size / 1e6, rate / 1e9] for size, rate in sorted((int(s), r) for s, r in limits["bandwidths"].items())],
    )
    rates = ", ".join(f"{kind} {_number(rate / 1e9)} G/s" for kind, rate in sorted(limits["rates"].items()))
    return f"Measured limits of one core; multiply-adds count as two: {rates or 'none'}.\n\n{bandwidths}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
