"""The ``llamo`` command. Each subcommand imports what it needs when it runs, so that help answers at once."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from llamo_ros.cli.parser import make_parser
from llamo_ros.core.errors import LlamoError

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after ``llamo``; None takes them from the command line.

    Returns:
        Exit status: 0 done, 2 bad input (one line on stderr says what), 130 interrupted, 141 the reader went away.
    """
    for name in ("stdout", "stderr"):  # closed, as under some daemons
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not end the command
    try:
        options = make_parser().parse_args(arguments)
        status = options.run(options)
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes into it at exit
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("\nllamo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except LlamoError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'file'}: {error.strerror or error}. Check the path and its permissions."
    print(f"llamo: error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT
