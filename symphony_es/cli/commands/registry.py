"""How commands are registered, and what they have in common: which log, which form, which moment."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from symphony_es.cli import output
from symphony_es.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    EntityNotFoundError,
    InvalidIdentifierError,
    LogUnavailableError,
    RunPrunedError,
    SymphonyError,
    UnknownTypeError,
    near_misses,
)
from symphony_es.shown import message as one_message
from symphony_es.shown import quoted, so_many
from symphony_es.system import absolute, present

if TYPE_CHECKING:
    from symphony_es.core.past.opening import OpenedLog

__all__ = [
    "MOMENT", "PAST_TIME", "CommandParser", "Parsers", "entity_key", "event_name", "file_name", "file_path", "moment", "past_time",
    "reading", "run_id", "seconds", "state_dir", "whole_number", "writing",
]  # fmt: skip

MOMENT = (
    "'#42' a position, @2026-11-23T10:00 a time (UTC unless it says otherwise), @2h two hours ago, id:… or name:… a checkpoint, `latest`"
)
PAST_TIME = "a time (2026-11-23T10:00, UTC unless it says otherwise), or how long ago: 90s, 30m, 2h, 7d"
DATABASE = "events.db"
MOST_SKIPPED = 3


def file_name(text: str) -> str:
    """Return the name of a file or directory on the command line; an empty one would be the working directory.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty, as a variable is that is not set: name a file or directory, . for the working one")
    return text


def file_path(text: str) -> Path:
    """Return `file_name`, as a path.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    return Path(file_name(text))


STATE_DIR: dict[str, Any] = {
    "type": file_path,
    "metavar": "DIR",
    "help": "the log's directory; else SYMPHONY_STATE_DIR, else the working directory, or the nearest .symphony in it or above",
}
MOST = 10**15  # more than a log can have, and less than a database refuses
MOST_NAMES = 5000
"""How many names are looked at for near misses."""


class CommandParser(argparse.ArgumentParser):
    """A parser that knows what is written like a command or option that there is not.

    Attributes:
        commands: the parsers of its commands, by their names.
    """

    commands: Mapping[str, CommandParser] = {}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.color = False  # what it prints is made safe, and colours are control characters

    def error(self, message: str) -> NoReturn:
        """End with the usage, and what is wrong: on one line, whatever is in the arguments that it names."""
        super().error(one_message(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        output.help_text(message, error=file is not None and file is sys.stderr)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = near_misses(str(value), choices)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, one_message(f"invalid choice: {quoted(value)}; {hint}"))

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return what is given; of an option that a command has not, end with those of that command that are written like it."""
        given, unknown = self.parse_known_args(arguments)
        if unknown:
            self.commands.get(getattr(given, "command", ""), self).refuse(unknown)
        return given

    def refuse(self, unknown: Sequence[str]) -> None:
        """End with the usage, and what is not known."""
        near = near_misses(unknown[0].partition("=")[0], [option for option in self._option_string_actions if option.startswith("--")])
        self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


class Parsers:
    """Adds commands to a parser."""

    def __init__(self, parser: CommandParser) -> None:
        parser.set_defaults(run=None)
        parser.add_argument("--state-dir", **STATE_DIR)
        self._commands = parser.add_subparsers(title="commands", metavar="COMMAND")
        parser.commands = self._commands.choices

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], Awaitable[int | None]],
        about: str,
        *,
        writes: bool = False,
        skips: bool = False,
    ) -> Any:
        """Add a command with the options that all have; return its parser.

        Args:
            name: how it is called.
            run: what it does.
            about: what it does, for people.
            writes: whether it writes the log, so that it takes who does it, and why.
            skips: whether it reads of the log what can be read without its damaged events.
        """
        command = self._commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run, command=name)
        # Without a default of its own, so that it leaves what was given before the command.
        command.add_argument("--state-dir", default=argparse.SUPPRESS, **STATE_DIR)
        command.add_argument(
            "--allow-shared-directory", action="store_true", help="read or change a log that others than its owner can write"
        )
        command.add_argument("--json", action="store_true", help="print JSON, an object on each line")
        command.add_argument("--full", action="store_true", help="cut nothing, however narrow the terminal")
        if skips:
            command.add_argument(
                "--skip-damaged",
                action="store_true",
                help="go on without damaged events: their entities are marked as damaged from there on",
            )
        if writes:
            command.add_argument("--actor", default=f"cli:{_user()}", help="who does it, for the record")
            command.add_argument("--reason", help="why, for the record")
        return command


def _user() -> str:
    """Return who runs the command line, as the system names them; their number where they have no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without an entry, as in a container
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def state_dir(given: argparse.Namespace) -> Path:
    """Return the log's directory.

    Raises:
        LogUnavailableError: there is no log.
    """
    chosen = given.state_dir or os.environ.get("SYMPHONY_STATE_DIR")
    if chosen:
        directory = Path(chosen)
        if not present(directory / DATABASE):
            raise LogUnavailableError(f"there is no log in {directory} (no {DATABASE})")
        return directory
    here = absolute(Path())
    if present(here / DATABASE):
        return here
    for directory in (here, *here.parents):
        if present(directory / ".symphony" / DATABASE):
            return directory / ".symphony"
    raise LogUnavailableError(f"there is no log in {here}, and no .symphony in it or above: name the log's directory with --state-dir")


@asynccontextmanager
async def reading(given: argparse.Namespace, *, skip_damaged: bool = False) -> AsyncIterator[OpenedLog]:
    """Open the log for reading: nothing is written, and another process may write it meanwhile."""
    from symphony_es.core.past.opening import open_to_read
    from symphony_es.facades.composed import composed_state

    skips = skip_damaged or getattr(given, "skip_damaged", False)
    opened = await open_to_read(state_dir(given), skip_damaged=skips, allow_shared=given.allow_shared_directory)
    opened.past.composed = composed_state
    try:
        if skips and not skip_damaged:
            await _tell_skipped(opened)
        yield opened
    except (EntityNotFoundError, CheckpointNotFoundError) as error:
        raise await _with_near_misses(opened, error) from error
    finally:
        await opened.close()


async def _tell_skipped(opened: OpenedLog) -> None:
    """Say on standard error what an answer goes without."""
    skipped = await asyncio.to_thread(opened.log.skipped)
    if skipped:
        named = ", ".join(f"{event.position} ({event.entity_key})" for event in skipped[:MOST_SKIPPED])
        more = f" and {len(skipped) - MOST_SKIPPED:,} more" if len(skipped) > MOST_SKIPPED else ""
        output.complain(f"without {so_many(len(skipped), 'damaged event')}, at {named}{more}: what they belong to is marked as damaged")


async def _with_near_misses(opened: OpenedLog, error: EntityNotFoundError | CheckpointNotFoundError) -> SymphonyError:
    """Return an error that names what there is under a name almost like the one that was asked for."""
    if isinstance(error, (UnknownTypeError, RunPrunedError)):
        return error  # the one names what is like it itself, and of the other the name was right
    if isinstance(error, CheckpointNotFoundError):
        from symphony_es.core.past.checkpoint_pages import CheckpointFilter

        entries = await opened.past.checkpoints(CheckpointFilter(limit=MOST_NAMES))
        near = near_misses(error.checkpoint, [name for entry in entries for name in (entry.name, entry.id)])
    else:
        entity_type, _, wanted = error.entity.partition(":")
        kinds = [name for name in opened.log.entity_types_now() if name.casefold() == entity_type.casefold()]
        keys = [key for name in kinds for key in await opened.log.alive_keys(name)]
        ids = [key.partition(":")[2] for key in keys if key.startswith(f"{entity_type}:")][:MOST_NAMES]
        others = [key for key in keys if key.casefold() == error.entity.casefold() and key != error.entity]
        near = [*others, *(f"{entity_type}:{found}" for found in near_misses(wanted, ids) if found != wanted)]
    if not near:
        return error
    made = SymphonyError.__new__(type(error))
    made.__dict__.update(error.__dict__)
    made.args = (one_message(f"{error}; did you mean {' or '.join(dict.fromkeys(near))}?"),)
    return made


@asynccontextmanager
async def writing(given: argparse.Namespace) -> AsyncIterator[OpenedLog]:
    """Open the log for writing; what is appended names the actor and the reason.

    Raises:
        LogInUseError: another process writes it.
    """
    from symphony_es.attribution import attributed
    from symphony_es.core.past.opening import open_on_disk

    opened = await open_on_disk(state_dir(given), force_network_fs=False, ignore_anchor=False, allow_shared=given.allow_shared_directory)
    try:
        with attributed(actor=given.actor, reason=given.reason):
            yield opened
    finally:
        await opened.close()


def moment(text: str) -> str:
    """Return a moment written on the command line, as the API takes it; which one it is says the log.

    Raises:
        argparse.ArgumentTypeError: it can mean none.
    """
    from symphony_es.core.past.moment_texts import read_moment  # late: not every command asks for a moment

    with _as_argument():
        read_moment(text)
    return text


def past_time(text: str) -> str:
    """Return a time written on the command line that has passed, or so long ago, as the API takes it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from symphony_es.core.past.moment_texts import read_age_or_time

    with _as_argument():
        read_age_or_time(text)
    return text


@contextmanager
def _as_argument() -> Iterator[None]:
    """Refuse as an argument what the library refuses in the block."""
    try:
        yield
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(output.safe(error)) from error


def run_id(text: str) -> str:
    """Return what names a run on the command line: its id, or `Workflow:` and its id.

    Raises:
        argparse.ArgumentTypeError: it cannot be one's name.
    """
    return entity_key(f"Workflow:{text.removeprefix('Workflow:')}").partition(":")[2]


def whole_number(text: str) -> int:
    """Return a number of the command line that counts something: 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from symphony_es.events.bounds import read_digits

    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no whole number of 0 or more")
    return min(read_digits(text), MOST)


def seconds(text: str) -> float:
    """Return a time of the command line in seconds: 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        read = float(text)
    except ValueError:
        read = -1.0
    if not 0 <= read < MOST:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number of seconds of 0 or more")
    return read


def event_name(text: str) -> str:
    """Return what names an event on the command line.

    Raises:
        argparse.ArgumentTypeError: no event can have that name.
    """
    from symphony_es.events.identifiers import check_event_name

    try:
        return check_event_name(text)
    except InvalidIdentifierError as error:
        raise argparse.ArgumentTypeError(output.safe(error)) from error


def entity_key(text: str) -> str:
    """Return what names an entity on the command line.

    Raises:
        argparse.ArgumentTypeError: it cannot be one's name.
    """
    from symphony_es.events.references import EntityReference

    try:
        return EntityReference.parse(text).key
    except InvalidIdentifierError as error:
        raise argparse.ArgumentTypeError(output.safe(error)) from error
