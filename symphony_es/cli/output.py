"""What commands print: aligned columns for people, JSON for tools. Text of the log never moves the cursor, and no line of a table wraps.

What is printed for people is fitted to the terminal; where there is none, values are cut at a length of their own, and with `--full`
nothing is cut. `--json` is exact, whatever the terminal.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import select
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, Any
from unicodedata import combining, east_asian_width
from weakref import finalize

from symphony_es.late_dataclasses import dataclass

__all__ = [
    "Bad", "Kept", "Table", "brief", "change", "check_read", "complain", "cut", "fitted", "help_text", "is_nowhere",
    "json_line", "json_text", "line", "logged", "pairs", "progress", "safe", "say", "standard_output", "status", "table", "time",
]  # fmt: skip

WIDEST = 60
KEPT_IN_MEMORY = 12 * 1024 * 1024
"""Bytes of what waits to be printed before it goes to a temporary file."""
CELL_BYTES = 60
NARROWEST = 8
"""A column is not cut below this; a table that does not fit then is printed as one name and value below the other."""
CUT_FIRST = frozenset({"changes", "error", "output or error", "before", "after", "state", "metadata", "reason"})
"""Columns of values: what names something is cut only where that is not enough."""
NEVER_CUT = frozenset({"position", "time", "created", "started", "ended", "version", "n"})
RED, PLAIN = "\x1b[31m", "\x1b[0m"


@dataclass(slots=True)
class _Page:
    """What is printed on: how many columns it has, None where any number; whether nothing is cut; whether it shows colours."""

    columns: int | None = None
    full: bool = False
    colours: bool = False


_page = _Page()


class _Nowhere(io.TextIOBase):
    """Standard output of a process that was given none (`>&-`): what would be printed on it is lost, and that is an error."""

    def write(self, text: str, /) -> int:
        """Refuse every text; print writes none to flush."""
        if text:
            raise OSError("there is no standard output to write to")
        return 0


@contextmanager
def standard_output() -> Iterator[None]:
    """Have a standard output in the block, which fails where the process has none."""
    given = sys.stdout
    if isinstance(given, io.TextIOWrapper):
        given.reconfigure(errors="backslashreplace")  # a terminal that has not every character is no reason to say nothing
    sys.stdout = _Nowhere() if given is None else given
    try:
        yield
    finally:
        sys.stdout = given


def is_nowhere() -> bool:
    """Return whether the process has no standard output."""
    return isinstance(sys.stdout, _Nowhere)


def check_read() -> None:
    """Check that somebody can read standard output: a pipe whose reader has ended says so before anything is written to it.

    Raises:
        BrokenPipeError: nobody can any more.
    """
    look = select.poll()
    look.register(sys.stdout.fileno(), 0)
    if look.poll(0):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def fitted(*, full: bool = False) -> Iterator[None]:
    """Fit what is printed in the block to what standard output is, or cut it nowhere."""
    terminal = sys.stdout.isatty()
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isascii() and given.isdigit() and len(given) < 7 else 0
    if not columns and terminal:
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except OSError:
            columns = 80
    _page.columns, _page.full = columns or None, full
    _page.colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    try:
        yield
    finally:
        _page.columns, _page.full, _page.colours = None, False, False


class Bad(str):
    """A text that stands in red where there are colours."""

    __slots__ = ()


def status(text: str) -> str:
    """Return a run's or task's status, as a cell of a table."""
    return Bad(text) if text in ("failed", "blocked") else text


def safe(text: object) -> str:
    """Return a text without control characters: they are written as escapes."""
    given = str(text)
    if not given.isprintable():
        given = "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in given)
    return Bad(given) if isinstance(text, Bad) else given


def say(text: object = "", *, flush: bool = False) -> None:
    """Print a line for people, whatever is in it: nothing that commands print goes another way."""
    print(safe(text), flush=flush)


class Screen:
    """A terminal that an export goes to: its lines, without what would move the cursor."""

    def write(self, data: bytes) -> None:
        """Print whole lines."""
        for text in data.decode("utf-8", "backslashreplace").splitlines() if data else ():
            say(text)


def brief(value: Any, widest: int = WIDEST) -> str:
    """Return a value of a state on one line, cut where it is long: where the terminal ends, else after so many characters."""
    from symphony_es.events.people import text_of  # late, as all of the library: `--help` needs none of it

    most = sys.maxsize - 1 if _page.full else _page.columns or widest
    text = safe(text_of(value, None if _page.full else most))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def time(moment: datetime, *, milliseconds: bool = False) -> str:
    """Return a time of the log for people: UTC, and it says so, as the times do that a command line takes."""
    from symphony_es.events.people import time_text

    return time_text(moment, milliseconds=milliseconds)


def json_line(value: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own."""
    print(json_text(value), flush=True)


def json_text(value: Mapping[str, Any]) -> str:
    """Return one JSON object as a line of visible ASCII. What JSON has not is written as everywhere (`transfer.text`)."""
    return json.dumps(_exact(value), ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def _exact(value: Any) -> Any:
    """Return a value as what JSON has. Lists and dicts are what they are; what has been converted already stays as it is."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _exact(item) for key, item in value.items()}
    from symphony_es.transfer.text import plain_as_json

    return plain_as_json(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str = "nothing") -> None:
    """Print aligned columns below their names, as wide as the terminal; numbers stand at the right.

    A column without a value is left out.
    """
    collected = Table(columns, nothing)
    for row in rows:
        collected.add(row)
    collected.print()


class Table:
    """A table whose rows come one by one, any number of them: see `table`. Rows wait in a temporary file where they are many."""

    def __init__(self, columns: Sequence[str], nothing: str = "nothing") -> None:
        self._columns = [safe(name) for name in columns]
        self._nothing = nothing
        self._rows = Kept()
        self._natural = [_width(name) for name in self._columns]
        self._used = [False] * len(columns)
        self._numbers = [True] * len(columns)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Sequence[object]) -> None:
        """Take the next row."""
        cells = [safe(cell) for cell in row]
        for index, cell in enumerate(cells):
            if cell:
                self._used[index] = True
                if 2 * len(cell) > self._natural[index]:  # else it is no wider: a character takes two columns at most
                    self._natural[index] = max(self._natural[index], _width(cell))
                self._numbers[index] = self._numbers[index] and (cell.isdigit() or cell == "-")
        self._rows.add([[cell] if isinstance(cell, Bad) else cell for cell in cells], sum(map(len, cells)) + CELL_BYTES * len(cells))

    def print(self, *, newest_first: bool = False, nothing: str | None = None) -> None:
        """Print it, or what is said where there is nothing; the last row first where that is asked for."""
        if not self._rows:
            say(self._nothing if nothing is None else nothing)
            return
        used = [index for index, is_used in enumerate(self._used) if is_used]
        columns, numbers = [self._columns[index] for index in used], [self._numbers[index] for index in used]
        widths = _fitted(columns, [self._natural[index] for index in used], numbers)
        kept = self._rows.each(newest_first=newest_first)
        rows = ([Bad(row[index][0]) if isinstance(row[index], list) else row[index] for index in used] for row in kept)
        if widths is None:
            for number, row in enumerate(rows):
                if number:
                    print()
                pairs({name: cell for name, cell in zip(columns, row, strict=True) if cell})
            return
        for row in chain([columns], rows):
            shown = [_cell(cell, width, right=right) for cell, width, right in zip(row, widths, numbers, strict=True)]
            print("  ".join(shown).rstrip())


class Kept:
    """What is to be printed later, or in the opposite order: in memory while it is little, then in a temporary file without a name."""

    def __init__(self) -> None:
        self._count = 0
        self._texts = False
        self._waiting: list[Any] = []
        self._room = KEPT_IN_MEMORY
        self._file: IO[bytes] | None = None
        self._starts = array("q")

    def __len__(self) -> int:
        return self._count

    def add(self, value: Any, size: int) -> None:
        """Keep a value that JSON has, or a line of text where all are, that takes about so many bytes."""
        self._texts = isinstance(value, str)
        self._count += 1
        self._room -= size
        self._waiting.append(value)
        if self._room < 0:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115  it lives as long as this object
            finalize(self, self._file.close)
        at = self._file.seek(0, os.SEEK_END)
        for value in self._waiting:
            self._starts.append(at)
            at += self._file.write((value if self._texts else json.dumps(value)).encode()) + self._file.write(b"\n")
        self._waiting.clear()
        self._room = KEPT_IN_MEMORY

    def each(self, *, newest_first: bool = False) -> Iterator[Any]:
        """Yield all of them, in the order they came or in the opposite one."""
        if self._file is None:
            yield from reversed(self._waiting) if newest_first else self._waiting
            return
        self._write()
        for start in reversed(self._starts) if newest_first else self._starts:
            self._file.seek(start)
            line = self._file.readline()[:-1].decode()
            yield line if self._texts else json.loads(line)


def _fitted(columns: Sequence[str], natural: Sequence[int], numbers: Sequence[bool]) -> list[int] | None:
    """Return the widths of columns that fit beside each other: the widest are cut, those of values first; None where they cannot fit."""
    if _page.full or _page.columns is None:
        return list(natural)
    room = _page.columns - 2 * (len(columns) - 1)
    widths = list(natural)
    named = [index for index, name in enumerate(columns) if not numbers[index] and name not in NEVER_CUT]
    for group, narrowest in (([i for i in named if columns[i] in CUT_FIRST], 2 * NARROWEST), (named, NARROWEST)):
        least = {index: min(natural[index], max(narrowest, len(columns[index]))) for index in group}
        while sum(widths) > room:
            widest = max(group, key=lambda index: widths[index] - least[index] and widths[index], default=None)
            if widest is None or widths[widest] <= least[widest]:
                break
            widths[widest] -= 1
    return widths if sum(widths) <= room else None


def _cell(text: str, width: int, *, right: bool) -> str:
    if len(text) <= width and text.isascii() and not isinstance(text, Bad):
        return text.rjust(width) if right else text.ljust(width)
    shown = _cut(text, width)
    room = " " * (width - _width(shown))
    coloured = f"{RED}{shown}{PLAIN}" if isinstance(text, Bad) and _page.colours else shown
    return f"{room}{coloured}" if right else f"{coloured}{room}"


def _cut(text: str, columns: int) -> str:
    """Return a text in so many columns of a terminal."""
    if _width(text) <= columns:
        return text
    kept, used = [], 1
    for character in text:
        used += _width(character)
        if used > columns:
            break
        kept.append(character)
    return f"{''.join(kept)}…"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii() or text.replace("…", "").isascii():
        return len(text)
    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


def line(text: str) -> None:
    """Print a line that is cut where the terminal ends."""
    text = safe(text)
    print(text if _page.full or _page.columns is None else _cut(text, _page.columns))


def change(where: str, before: Any, after: Any) -> None:
    """Print what became of a value, on one line in which both are seen."""
    shown = [brief(before), brief(after)]
    if not _page.full and _page.columns is not None:
        room = _page.columns - _width(safe(where)) - 10
        each = max(NARROWEST, room // 2, room - min(map(_width, shown)))
        shown = [_cut(text, each) for text in shown]
    line(f"    {safe(where)}: {shown[0]} -> {shown[1]}")


def pairs(values: Mapping[str, object], indent: str = "") -> None:
    """Print names and values, a line each."""
    names = [safe(name) for name in values]
    widest = max(map(_width, names), default=0)
    for name, value in zip(names, values.values(), strict=True):
        start = f"{indent}{name}{' ' * (widest - _width(name))}  "
        room = None if _page.full or _page.columns is None else max(NARROWEST, _page.columns - _width(start))
        shown = safe(value)
        print(f"{start}{_cell(shown, _width(shown) if room is None else min(room, _width(shown)), right=False)}".rstrip())


def cut(text: str, *, as_json: bool) -> None:
    """Say that there is more than was printed, and how to see it: below a table, or beside JSON, each line of which is an answer."""
    complain(text) if as_json else say(text)


def complain(error: object) -> None:
    """Say what went wrong, on standard error."""
    _on_standard_error(f"symphony-es: {safe(error)}")


def _on_standard_error(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):  # nobody reads it: there is nobody to tell
            print(text, file=sys.stderr)


def help_text(text: str, *, error: bool) -> None:
    """Print lines that a parser of arguments has made, on standard error where they say what is wrong with the arguments."""
    lines = "\n".join(map(safe, text.removesuffix("\n").split("\n")))
    if error:
        _on_standard_error(lines)
    else:
        print(lines, flush=True)


class _LogLines(logging.Handler):
    """Log lines on standard error, without what would move the cursor."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one, with its traceback where it has one."""
        _on_standard_error("\n".join(map(safe, self.format(record).split("\n"))))


@contextmanager
def logged() -> Iterator[None]:
    """Print what is logged in the block, from a warning on, as everything is, unless the program has a handler of its own."""
    root, lines = logging.getLogger(), _LogLines(logging.WARNING)
    if root.handlers:
        yield
        return
    root.addHandler(lines)
    try:
        yield
    finally:
        root.removeHandler(lines)


def progress(what: str) -> Any:
    """Return a function that shows how far something is on standard error, where that is a terminal; else None."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        ending = "\n" if done >= total else ""
        print(f"\r{what}: {done:,} of {total:,}", end=ending, file=sys.stderr, flush=True)

    return show
