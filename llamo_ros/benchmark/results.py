"""What the scripts in benchmarks/ have in common: their options, and what becomes of a result."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamo_ros.benchmark.machine import Limits
from llamo_ros.benchmark.tables import write_section
from llamo_ros.core.errors import ParameterError

DOCUMENT = Path("docs/performance.md")


def add_result_options(parser: argparse.ArgumentParser, name: str, document: Path = DOCUMENT) -> None:
    """Add --json, --write-docs and --busy-machine for the result of this name."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help=f"write benchmarks/results/{name}.json and its table in {document}; run it in the repository",
    )
    parser.add_argument(
        "--busy-machine", action="store_true", help="say in the result that other programs were running"
    )


def keep(
    result: dict[str, Any],
    options: argparse.Namespace,
    name: str,
    table: Callable[[dict], str],
    document: Path = DOCUMENT,
) -> None:
    """Write a result where the options say.

    Args:
        result: JSON values.
        options: Of :func:`add_result_options`.
        name: Of the file under benchmarks/results/ and of the section of the document.
        table: Makes the section.
        document: That has the section.

    Raises:
        ParameterError: the document is not here, or has no place for the table.
    """
    result["busy_machine"] = options.busy_machine
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text, encoding="utf-8")
    if options.write_docs:
        if not document.is_file():
            raise ParameterError(f"{document} is not here. Run the benchmark in the repository, or use --json.")
        write_section(document, name, table(json.loads(text)))
        Path("benchmarks/results", f"{name}.json").write_text(text, encoding="utf-8")


def limits_json(limits: Limits) -> dict[str, Any]:
    """Measured limits as JSON values: "bandwidths", [byte/s] by size, and "rates", [operation/s] by kind of number."""
    found = dataclasses.asdict(limits)
    return {"bandwidths": {str(size): rate for size, rate in found["bandwidths"].items()}, "rates": found["rates"]}
