"""What the parsers of all subcommands share: how a command is added, and how numbers are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

DEFAULT_MODEL = "llamo-mini"


def add_group(commands: Any, name: str, about: str, example: str) -> Any:
    """Add a command that has commands of its own, and return what those are added to."""
    parser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, example: str
) -> argparse.ArgumentParser:
    """Add a command that calls ``run`` with its options, and return its parser."""
    parser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text, float)
    if value is None or not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def not_negative(text: str) -> float:
    """A finite number from 0 on."""
    value = _number(text, float)
    if value is None or not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def whole(text: str) -> int:
    """A whole number from 0 on, as seeds are."""
    value = _number(text, int)
    if value is None or not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return value


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = _number(text, int)
    if value is None or not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return value


def _number(text: str, kind: Callable[[str], float]) -> float | None:
    try:
        return kind(text)
    except ValueError:
        return None
