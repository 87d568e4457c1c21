"""What an event's changes do to the value at one path: whether they set it, move another one there, or change something inside it.

All of it is found before the changes are applied, at the cost of what they say and not of what the value holds: a list that grows by one
is not compared item by item. Only what changes cannot tell by themselves is copied, as little as will do, and compared afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import Path
from symphony_es.events.values import copy_plain, plain_equal

__all__ = ["Comparison", "Effect", "effect_on", "same"]

_IN_LISTS = (INSERT, SPLICE, APPEND)
_MEMBERS = (ADD, DISCARD)
Place = tuple[Any, ...]
"""A path; of a member of a set, with that member, in a set of its own, at its end."""


class Effect(NamedTuple):
    """What an event is about to do to the value at a path.

    Attributes:
        sets: it is set by name, and so it counts though it stays what it was.
        inside: the changes inside it, with paths that begin at it; None where another value may come to stand there.
    """

    sets: bool
    inside: list[Change] | None


def same(one: Any, other: Any) -> bool:
    """Return whether two values, either of which may be absent, are the same by type and value."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return plain_equal(one, other)


def effect_on(state: Any, changes: Sequence[Change], path: Path) -> Effect | None:
    """Return what changes are about to do to the value at a path of a state; None where they leave it alone."""
    sets = whole = False
    inside: list[Change] = []
    for at, change in enumerate(changes):
        operation, where = change[0], tuple(change[1])
        if len(where) >= len(path) and where[: len(path)] == path:
            at_it = len(where) == len(path)
            sets = sets or (at_it and operation in (SET, EXTEND))
            if at_it and operation in (SET, REMOVE):
                whole = True
            else:
                inside.append((operation, where[len(path) :], *change[2:]))
        elif not whole:
            around = operation in (SET, REMOVE) and where == path[: len(where)]
            whole = around or _moves(state, changes[:at], change, where, path)
    if whole:
        return Effect(sets, None)
    return Effect(sets, inside) if inside else None


def _moves(state: Any, earlier: Sequence[Change], change: Change, where: Path, path: Path) -> bool:
    """Return whether a change of a list that the path leads through may bring another item to the index that the path names."""
    operation = change[0]
    if operation == REMOVE:
        where, start = where[:-1], where[-1]
    elif operation in _IN_LISTS:
        start = 0 if operation == APPEND else change[2]
    else:
        return False
    if len(where) >= len(path) or where != path[: len(where)] or type(path[len(where)]) is not int or type(start) is not int:
        return False
    index: Any = path[len(where)]
    items = value_at(state, where)
    if operation == APPEND:
        return type(items) is not list or index >= len(items) or any(one[0] in (REMOVE, SPLICE, SET) for one in earlier)
    return start <= index and (operation != REMOVE or items is ABSENT or type(items) is list)


class Comparison:
    """Tells whether changes inside a value make another value of it.

    Args:
        value: before the changes, which fit it.
        inside: the changes, with paths that begin at it.
    """

    def __init__(self, value: Any, inside: Sequence[Change]) -> None:
        self._differs = False
        self._before: list[tuple[Path, Any]] = []
        if len(inside) == 1:
            self._differs = _has_effect(value, inside[0])
            return
        places = [_place(value, change) for change in inside]
        roots = _roots(places)
        groups: dict[Place, list[tuple[Place, Change]]] = {}
        for place, change in zip(places, inside, strict=True):
            groups.setdefault(roots[place], []).append((place, change))
        open_groups = []
        for root, group in groups.items():
            if len(group) == 1:
                self._differs = self._differs or _has_effect(value, group[0][1])
            elif _growth(root, group):
                self._differs = True
            else:
                open_groups.append((root, group))
        if not self._differs:
            self._before = [(_without_member(root), _kept(value, root, group)) for root, group in open_groups]

    def differs(self, value: Any) -> bool:
        """Return whether the value, after the changes, is another one."""
        return self._differs or any(not same(before, value_at(value, root)) for root, before in self._before)


def _place(value: Any, change: Change) -> Place:
    """Return what a change is about: a list, a member of a set, else the place that it names."""
    operation, path = change[0], change[1]
    if operation in _MEMBERS:
        return (*path, frozenset((change[2],)))
    if operation in _IN_LISTS or not path or type(value_at(value, path[:-1])) is not list:
        return tuple(path)
    return tuple(path[:-1])


def _roots(places: Sequence[Place]) -> dict[Place, Place]:
    """Return for each place the outermost one that it is inside of; itself where it is in none."""
    known = set(places)
    return {place: next(place[:length] for length in range(len(place) + 1) if place[:length] in known) for place in known}


def _without_member(root: Place) -> Path:
    return root[:-1] if root and type(root[-1]) is frozenset else root


def _has_effect(value: Any, change: Change) -> bool:
    """Return whether a change, alone, makes another value."""
    operation, path = change[0], change[1]
    if operation == SET:
        return not same(value_at(value, path), change[2])
    if operation == SPLICE:
        return not plain_equal(value_at(value, path)[change[2] : change[3]], change[4])
    if operation == EXTEND:
        return bool(change[2])
    if operation in _MEMBERS:
        return bool((change[2] in value_at(value, path)) is (operation == DISCARD))
    return True


def _growth(root: Place, group: Sequence[tuple[Place, Change]]) -> int:
    """Return by how many items changes of a list, and of what is in it, let it grow or shrink; 0 where they do not tell."""
    grown = 0
    for place, change in group:
        if place != root:
            continue  # further in
        operation = change[0]
        if operation == SPLICE:
            grown += len(change[4]) - (change[3] - change[2])
        elif operation in _IN_LISTS:
            grown += 1
        elif len(change[1]) == len(root):
            return 0  # the list itself is set
        elif operation == REMOVE:
            grown -= 1
    return grown


def _kept(value: Any, root: Place, group: Sequence[tuple[Place, Change]]) -> Any:
    """Return what stands at a place, for a comparison with what will."""
    found = value_at(value, _without_member(root))
    if type(found) is list and all(place == root and (change[0] in _IN_LISTS or len(change[1]) > len(root)) for place, change in group):
        return list(found)  # items come and go, and none of them changes
    return copy_plain(found)
