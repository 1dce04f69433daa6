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
from llamo_ros.core.files import writable_path

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


def head_size(text: str) -> tuple[int, int]:
    """Width and blocks of a flow head, as 256x4; a type of argparse."""
    width, _, blocks = text.partition("x")
    if not (width.isdecimal() and blocks.isdecimal() and int(width) and int(blocks)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxBLOCKS, as in 256x4")
    return int(width), int(blocks)


def check_places(options: argparse.Namespace, document: Path = DOCUMENT) -> None:
    """Whether :func:`keep` will find its places; asked first, since the work before it takes long.

    Raises:
        ParameterError: the file cannot be written, or the document is not here.
    """
    if options.json is not None:
        writable_path(options.json)
    if options.write_docs and not document.is_file():
        raise ParameterError(f"{document} is not here. Run the benchmark in the repository, or use --json.")


def keep(
    result: dict[str, Any],
    options: argparse.Namespace,
    name: str,
    table: Callable[[dict], str],
    document: Path = DOCUMENT,
) -> None:
    """Write a result where the options say; :func:`check_places` has been asked.

    Args:
        result: JSON values.
        options: Of :func:`add_result_options`.
        name: Of the file under benchmarks/results/ and of the section of the document.
        table: Makes the section.
        document: That has the section.

    Raises:
        ParameterError: the document has no place for the table.
    """
    result["busy_machine"] = options.busy_machine
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if options.json is not None:
        options.json.write_text(text, encoding="utf-8")
    if options.write_docs:
        write_section(document, name, table(json.loads(text)))
        Path("benchmarks/results", f"{name}.json").write_text(text, encoding="utf-8")


def limits_json(limits: Limits) -> dict[str, Any]:
    """Measured limits as JSON values: "bandwidths", [byte/s] by size, and "rates", [operation/s] by kind of number."""
    found = dataclasses.asdict(limits)
    return {"bandwidths": {str(size): rate for size, rate in found["bandwidths"].items()}, "rates": found["rates"]}
