"""Plain data as people read them: on the command line, and in spreadsheets. One way; what is exact is written by `symphony_es.transfer`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from symphony_es.events.paths import ABSENT
from symphony_es.events.readable import readable
from symphony_es.events.values import Tagged

__all__ = ["for_people", "text_of", "time_text"]

MOST_MEMBERS = 1000
"""A set of more is shown by their number where it is cut: its first ones would be known only after a look at all of them."""
_READS_AS_ANOTHER = re.compile(r"""-?\d+(\.\d+)?([eE][+-]?\d+)?\Z|["\[{]|(-|null|true|false)?\Z""")
"""Texts that would be taken for a number, or for nothing; they are written in quotes, as no text and lists and dicts are."""


def text_of(value: Any, most: int | None = None) -> str:
    """Return a value as one text; values of different types look different, but for what is written as a text: enums, times, decimals.

    Args:
        value: plain data, or `ABSENT`.
        most: only the first so many characters are of interest, and cost anything; there may be more of them, which need not be right.
    """
    if most is not None:
        value = _beginning(value, most)[0]
    if value is ABSENT:
        return "-"
    if isinstance(value, str):
        return value if _READS_AS_ANOTHER.match(value) is None else json.dumps(value, ensure_ascii=False)
    shown = for_people(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def _beginning(value: Any, room: int) -> tuple[Any, int]:
    """Return as much of a value as so many characters can show, and how many it takes at least."""
    kind = type(value)
    if kind is str or kind is bytes:
        return (value if len(value) <= room else value[: room + 1]), min(len(value), room + 1)
    if kind is Tagged and value.kind != "enum":
        return _beginning(value.data, room)
    if kind is set:
        return (f"{len(value):,} members", room) if len(value) > MOST_MEMBERS else (value, room)
    if kind is dict:
        fields: dict[Any, Any] = {}
        left = room
        for key, item in value.items():
            if left < 0:
                break
            fields[key], used = _beginning(item, left)
            left -= used + 4
        return fields, room - left
    if kind is list or kind is tuple:
        items = []
        left = room
        for item in value:
            if left < 0:
                break
            part, used = _beginning(item, left)
            items.append(part)
            left -= used + 2
        return items, room - left
    return value, 1


def for_people(value: Any) -> Any:
    """Return a value as what JSON has: an enum's member is its name, a part or value its fields, a time ends in its zone."""
    kind = type(value)
    if kind is Tagged:
        return str(readable(value.data)) if value.kind == "enum" else for_people(value.data)
    if kind is dict:
        return {key if isinstance(key, str) else text_of(key): for_people(item) for key, item in value.items()}
    if kind in (list, tuple):
        return [for_people(item) for item in value]
    if kind is set:
        return sorted((for_people(item) for item in value), key=repr)
    if kind is datetime and value.tzinfo is not None:
        return time_text(value, milliseconds=bool(value.microsecond)) if not value.utcoffset() else value.isoformat(" ")
    return readable(value)


def time_text(moment: datetime, *, milliseconds: bool = False) -> str:
    """Return a moment in UTC, which it says."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{moment.microsecond // 1000:03d}Z" if milliseconds else f"{text}Z"
