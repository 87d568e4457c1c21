"""Places in a state: reading the value at a path, and paths written as text."""

from __future__ import annotations

import ast
import enum
import re
from typing import Any

from symphony_es.errors import ConfigurationError
from symphony_es.events.references import Path
from symphony_es.events.values import Tagged
from symphony_es.shown import quoted

__all__ = ["ABSENT", "Absent", "parse_path", "value_at"]

_PART = re.compile(
    r"""(?P<dot>\.)?(?P<name>[^.\[\]]+) | \[(?P<index>-?\d{1,4000})\] | \[(?P<text>'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")\]""",
    re.VERBOSE,
)


class Absent(enum.Enum):
    """The type of `ABSENT`: an enum, so that copies of it are itself, and encoders that know enums write its value, null."""

    ABSENT = None

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = Absent.ABSENT
"""What stands at a path that leads nowhere; None is a value like any other."""


def value_at(state: Any, path: Path) -> Any:
    """Return what stands at a path of plain data, through parts and `@value` objects too, or `ABSENT`. It is not copied."""
    for key in path:
        holder: Any = state.data if type(state) is Tagged and state.kind != "enum" else state
        cls = type(holder)
        if cls is dict:
            state = holder.get(key, ABSENT)
        elif (cls is list or cls is tuple) and type(key) is int and 0 <= key < len(holder):
            state = holder[key]
        else:
            return ABSENT
    return state


def parse_path(text: str) -> Path:
    """Return `lines[0].amount` as `('lines', 0, 'amount')`; `['a b']` for keys that are no names. The empty text is the whole state.

    It reads whatever `format_path` writes.

    Raises:
        ConfigurationError: the text is no path; the message says where it stops to be one.
    """
    path: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        name = match["name"] if match is not None else None
        if match is None or (name is not None and (bool(match["dot"]) != (at > 0) or not name.isidentifier())):
            raise ConfigurationError(
                f"{quoted(text)} is no path: a name, [index] or ['key'] is due at column {at + 1}, as in lines[0].amount"
            )
        if name is not None:
            path.append(name)
        elif match["index"] is not None:
            path.append(int(match["index"]))
        else:
            path.append(_unquote(match["text"], text))
        at = match.end()
    return tuple(path)


def _unquote(literal: str, text: str) -> str:
    try:
        key = ast.literal_eval(literal)
    except (ValueError, SyntaxError) as error:
        raise ConfigurationError(f"{quoted(text)} is no path: {literal} is no key in quotes") from error
    assert isinstance(key, str)
    return key
