"""`symphony-es`: the parser, and what each way of ending means to a shell.

Exit codes: 0 done; 1 a check found something wrong; 2 the arguments make no sense; 3 what was asked for is not there, be it an entity or
somebody who answers; 4 the log cannot be opened or used; 5 the log is damaged, or a backup or export that was to be taken in; 6 refused,
and nothing was changed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from symphony_es import __version__
from symphony_es.cli import output
from symphony_es.cli.advice import OF_DAMAGE, in_words_of_the_command_line
from symphony_es.cli.commands import audit, caring, changing, checkpoints, events, looking, pruning, requests, runs, transfer, types
from symphony_es.cli.commands.registry import CommandParser, Parsers
from symphony_es.cli.entry import INTERRUPTED
from symphony_es.errors import (
    ConfigurationError,
    InvalidIdentifierError,
    LogInUseError,
    LogUnavailableError,
    StorageUnavailableError,
    SymphonyError,
)
from symphony_es.shown import quoted

__all__ = ["build_parser", "main"]

LOOKING = frozenset(
    ("", "log", "tail", "entities", "show", "at", "history", "blame", "diff", "audit", "checkpoints", "runs", "run", "types", "stats")
)
"""Who reads what these print may stop when they have seen enough; the others check or change something."""
FOUND_WRONG, USAGE, NOT_THERE, UNAVAILABLE, DAMAGED, REFUSED = 1, 2, 3, 4, 5, 6


def build_parser() -> CommandParser:
    """Return the parser of all commands."""
    parser = CommandParser(
        prog="symphony-es",
        description="Look at the log of a symphony_es application: what is, what was, who changed it, and why.",
        epilog=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"symphony-es {__version__}")
    parsers = Parsers(parser)
    for commands in (events, looking, types, runs, requests, checkpoints, audit, changing, transfer, caring, pruning):
        commands.register(parsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    with output.standard_output():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    command, code = "", None
    try:
        parser = build_parser()
        given = parser.read(arguments)
        if given.run is None:
            parser.print_help()
            return USAGE
        command = given.command
        with output.fitted(full=given.full), output.logged():
            code = int(asyncio.run(given.run(given)) or 0)
        sys.stdout.flush()
    except SymphonyError as error:
        output.complain(in_words_of_the_command_line(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError as error:
        return _unread(command, code, error)
    except OSError as error:  # standard output on a full disk, or none, or a path that the system does not take
        output.complain(error)
        _end_output()
        return UNAVAILABLE
    except UnicodeEncodeError as error:  # what is printed is escaped, so it is an argument
        output.complain(f"{quoted(error.object, 80)} is no text in UTF-8")
        return USAGE
    return code


def _unread(command: str, code: int | None, error: BrokenPipeError) -> int:
    """Return what a shell is told where nobody reads standard output any more: `head`, for example, has seen enough; nobody has of an
    export.

    Args:
        command: its name; empty for help.
        code: what it came to; None where it was not at its end.
    """
    _end_output()
    if command == "export":
        output.complain(f"the export is not whole: {error.strerror}")
        return UNAVAILABLE
    if code is not None:
        return code
    if command in LOOKING:
        return 0
    output.complain(f"what {command} has to tell was not read to its end: {error.strerror}")
    return UNAVAILABLE


def _end_output() -> None:
    """Write what is not written yet; where that fails, have it go nowhere, so that ending the process does not fail at it once more."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(error: SymphonyError) -> int:
    """Return what a shell is told of an error."""
    if isinstance(error, OF_DAMAGE):
        return DAMAGED
    if isinstance(error, (LogInUseError, LogUnavailableError, StorageUnavailableError)):
        return UNAVAILABLE
    if isinstance(error, (ConfigurationError, InvalidIdentifierError)):
        return USAGE
    if isinstance(error, LookupError):
        return NOT_THERE
    return REFUSED
