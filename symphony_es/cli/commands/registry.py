"""How commands are registered, and what they have in common: which log, which form, which moment."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.errors import ConfigurationError, InvalidIdentifierError, LogUnavailableError

if TYPE_CHECKING:
    from datetime import datetime

    from symphony_es.core.state.opening import OpenedLog

__all__ = ["MOMENT", "Parsers", "entity_key", "event_name", "moment", "reading", "state_dir", "whole_number", "writing"]

MOMENT = "a position, a time (2026-11-23T10:00, UTC unless it says otherwise), the id or name of a checkpoint, or `latest`"
DATABASE = "events.db"
STATE_DIR: dict[str, Any] = {
    "type": Path,
    "metavar": "DIR",
    "help": "the log's directory; else SYMPHONY_STATE_DIR, else the working directory, or the nearest .symphony in it or above",
}
MOST = 10**15  # more than a log can have, and less than a database refuses


class Parsers:
    """Adds commands to a parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(run=None)
        parser.add_argument("--state-dir", **STATE_DIR)
        self._commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(self, name: str, run: Callable[[argparse.Namespace], Awaitable[int | None]], about: str, *, writes: bool = False) -> Any:
        """A command with the options that all have; returns its parser."""
        command = self._commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        # Without a default of its own, so that it leaves what was given before the command.
        command.add_argument("--state-dir", default=argparse.SUPPRESS, **STATE_DIR)
        command.add_argument("--json", action="store_true", help="print JSON, an object on each line")
        if writes:
            command.add_argument("--actor", default=f"cli:{os.environ.get('USER', os.getuid())}", help="who does it, for the record")
            command.add_argument("--reason", help="why, for the record")
        return command


def state_dir(given: argparse.Namespace) -> Path:
    """The log's directory.

    Raises:
        LogUnavailableError: there is no log.
    """
    chosen = given.state_dir or os.environ.get("SYMPHONY_STATE_DIR")
    if chosen:
        directory = Path(chosen)
        if not (directory / DATABASE).exists():
            raise LogUnavailableError(f"there is no log in {directory} (no {DATABASE})")
        return directory
    here = Path.cwd()
    if (here / DATABASE).exists():
        return here
    for directory in (here, *here.parents):
        if (directory / ".symphony" / DATABASE).exists():
            return directory / ".symphony"
    raise LogUnavailableError(f"there is no log in {here}, and no .symphony in it or above: name the log's directory with --state-dir")


@asynccontextmanager
async def reading(given: argparse.Namespace, *, skip_damaged: bool = False) -> AsyncIterator[OpenedLog]:
    """The log, open for reading: nothing is written, and another process may write it meanwhile."""
    from symphony_es.core.state.opening import open_to_read

    opened = await open_to_read(state_dir(given), skip_damaged=skip_damaged)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def writing(given: argparse.Namespace) -> AsyncIterator[OpenedLog]:
    """The log, open for writing; what is appended names the actor and the reason.

    Raises:
        LogInUseError: another process writes it.
    """
    from symphony_es.core.state.attribution import attributed
    from symphony_es.core.state.opening import open_on_disk

    opened = await open_on_disk(state_dir(given), force_network_fs=False, ignore_anchor=False)
    try:
        with attributed(actor=given.actor, reason=given.reason):
            yield opened
    finally:
        await opened.close()


def moment(text: str) -> int | datetime | str:
    """What a moment written on the command line means.

    Raises:
        argparse.ArgumentTypeError: it looks like a time and is none.
    """
    from symphony_es.core.state.past.moments import read_moment  # late: not every command asks for a moment

    try:
        read = read_moment(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text if read is None else read


def whole_number(text: str) -> int:
    """A number of the command line that counts something: 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return min(int(text), MOST)


def event_name(text: str) -> str:
    """What names an event on the command line.

    Raises:
        argparse.ArgumentTypeError: no event can have that name.
    """
    from symphony_es.events.identifiers import check_event_name

    try:
        return check_event_name(text)
    except InvalidIdentifierError as error:
        raise argparse.ArgumentTypeError(output.safe(error)) from error


def entity_key(text: str) -> str:
    """What names an entity on the command line.

    Raises:
        argparse.ArgumentTypeError: it cannot be one's name.
    """
    from symphony_es.events.references import EntityReference

    try:
        return EntityReference.parse(text).key
    except InvalidIdentifierError as error:
        raise argparse.ArgumentTypeError(output.safe(error)) from error
