"""What commands print: aligned columns for people, JSON for tools. Text of the log never moves the cursor."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from unicodedata import combining, east_asian_width

__all__ = ["brief", "complain", "json_line", "pairs", "progress", "safe", "table", "time"]

WIDEST = 60
_READS_AS_ANOTHER = re.compile(r"""-?\d+(\.\d+)?([eE][+-]?\d+)?\Z|["\[{]|(-|null|true|false)?\Z""")
"""Texts that would be taken for a number, or for nothing; they are written in quotes, as no text and lists and dicts are."""


def safe(text: object) -> str:
    """A text without control characters: they are written as escapes."""
    given = str(text)
    if given.isprintable():
        return given
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in given)


def brief(value: Any, widest: int = WIDEST) -> str:
    """A value of a state on one line, cut where it is long."""
    from symphony_es.events.paths import ABSENT
    from symphony_es.transfer.text import plain_as_json

    if value is ABSENT:
        return "-"
    if isinstance(value, str):
        value = value[: widest + 1]
    plain = isinstance(value, str) and _READS_AS_ANOTHER.match(value) is None
    text = safe(value if plain else json.dumps(plain_as_json(value), ensure_ascii=False))
    return text if len(text) <= widest else f"{text[: widest - 1]}…"


def time(moment: datetime, *, milliseconds: bool = False) -> str:
    """A time of the log for people: UTC, and it says so, as the times do that a command line takes."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{moment.microsecond // 1000:03d}Z" if milliseconds else f"{text}Z"


def json_line(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    print(json.dumps(value, ensure_ascii=True), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str = "nothing") -> None:
    """Aligned columns below their names; numbers stand at the right."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if not cells:
        print(nothing)
        return
    widths = [max(_width(row[index]) for row in [columns, *cells]) for index in range(len(columns))]
    numbers = [all(row[index].isdigit() or row[index] in ("", "-") for row in cells) for index in range(len(columns))]
    for row in [columns, *cells]:
        line = []
        for cell, width, right in zip(row, widths, numbers, strict=True):
            room = " " * (width - _width(cell))
            line.append(f"{room}{cell}" if right else f"{cell}{room}")
        print("  ".join(line).rstrip())


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


def pairs(values: Mapping[str, object]) -> None:
    """Names and values, a line each."""
    widest = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"{name.ljust(widest)}  {safe(value)}".rstrip())


def complain(error: object) -> None:
    """Say what went wrong, on standard error."""
    print(f"symphony-es: {safe(error)}", file=sys.stderr)


def progress(what: str) -> Any:
    """A function that shows how far something is on standard error, where that is a terminal; else None."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        ending = "\n" if done >= total else ""
        print(f"\r{what}: {done:,} of {total:,}", end=ending, file=sys.stderr, flush=True)

    return show
