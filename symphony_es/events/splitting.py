"""Splitting: one change that is too large for an event as several smaller ones that come to the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from symphony_es.events.changes import ADD, INSERT, SET, SPLICE, Change
from symphony_es.events.references import Path
from symphony_es.events.values import Tagged

__all__ = ["split_change"]


def split_change(change: Change) -> Sequence[Change]:
    """Return changes that together do what one does, each of them smaller; itself alone where it cannot be divided.

    What is set is set with half of what it holds, and the other half is put in afterwards. Text, bytes and values that cannot change in
    place are not divided.
    """
    operation, path = change[0], tuple(change[1])
    if operation == SPLICE and len(change[4]) > 1:
        start, stop, values = change[2:]
        half = len(values) // 2
        return [(SPLICE, path, start, stop, values[:half]), (SPLICE, path, start + half, start + half, values[half:])]
    if operation == SPLICE and change[4]:
        start, stop, (value,) = change[2:]
        return [(SPLICE, path, start, stop, []), (INSERT, path, start, value)]
    if operation == SET:
        return _divide(change, path, change[2])
    if operation == INSERT:
        return _divide(change, (*path, change[2]), change[3])
    return [change]


def _divide(change: Change, path: Path, value: Any) -> Sequence[Change]:
    """Return a change that puts a value at a path: the same with half of the value, and what puts in the rest."""
    cls = type(value)
    if cls is Tagged and value.kind == "part":
        rest = _later_half(value.data)
        kept = {name: None if name in rest else item for name, item in value.data.items()}
        if all(value.data[name] is None for name in rest):
            return [change]
        return [(*change[:-1], Tagged(value.kind, value.name, kept)), *[(SET, (*path, name), item) for name, item in rest.items()]]
    if not value or cls not in (dict, list, set):
        return [change]
    if cls is dict:
        rest = _later_half(value)
        kept = {key: item for key, item in value.items() if key not in rest}
        return [(*change[:-1], kept), *[(SET, (*path, key), item) for key, item in rest.items()]]
    if cls is list:
        half = len(value) // 2
        return [(*change[:-1], value[:half]), (SPLICE, path, half, half, value[half:])]
    members = list(value)
    half = len(members) // 2
    return [(*change[:-1], set(members[:half])), *[(ADD, path, member) for member in members[half:]]]


def _later_half(items: dict[Any, Any]) -> dict[Any, Any]:
    return dict(list(items.items())[len(items) // 2 :])
