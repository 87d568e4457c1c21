"""Taking changes back: what a change does to plain data, the other way round, noted before it is applied.

Only an event of several changes needs this: when a later one does not fit, the state is to be what it was before the event. What is
noted costs what the change costs, and names the very containers, so it holds in strict reverse order only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ABSENT", "Undo", "cut_back", "forget_added", "put_back", "put_back_member", "revert"]

Undo = list[tuple[Any, ...]]
"""What takes changes back, in the order they were made: `(function, *arguments)`."""

ABSENT: Any = object()
"""Stands for the value of a key that was not there."""


def revert(undo: Undo) -> None:
    """Take back what has been noted, the last one first; the list is empty afterwards."""
    while undo:
        function, *arguments = undo.pop()
        function(*arguments)


def put_back(holder: dict[Any, Any], key: Any, old: Any) -> None:
    """Give a key of a dict its old value, or none."""
    if old is ABSENT:
        holder.pop(key, None)
    else:
        holder[key] = old


def cut_back(holder: Any, key: Any, length: int) -> None:
    """Give a text or bytes in a dict or list the length back that it had before it was extended."""
    holder[key] = holder[key][:length]


def put_back_member(members: set[Any], value: Any) -> tuple[Callable[..., Any], Any, Any] | None:
    """Return what puts the member of a set back that `discard(value)` drops; None where it drops none.

    The member may be equal and not the same (1 and True): the set is asked which one it has, without walking through it.
    """
    probe = _Probe(value)
    return (set.add, members, probe.found) if probe in members else None


def forget_added(members: set[Any], value: Any) -> tuple[Callable[..., Any], Any, Any] | None:
    """Return what takes a member out of a set again that `add(value)` puts in; None where it is there."""
    return None if value in members else (set.discard, members, value)


class _Probe:
    """Equal to what a value is equal to, and remembers it."""

    __slots__ = ("found", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.found: Any = None

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        same = self.value is other or bool(self.value == other)
        if same:
            self.found = other
        return same
