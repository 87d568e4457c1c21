"""The changes that lead from one state to another: few, and as small as the difference."""

from __future__ import annotations

from typing import Any

from symphony_es.events.changes import ADD, APPEND, DISCARD, REMOVE, SET, SPLICE, TEXTS, Change, as_extension
from symphony_es.events.codec import encode_canonical
from symphony_es.events.references import Path
from symphony_es.events.values import Tagged, copy_plain, plain_equal

__all__ = ["diff"]


def diff(one: Any, other: Any, path: Path = ()) -> list[Change]:
    """Return the changes that turn `one` into `other`, two plain values that stand at `path`.

    Dicts and parts are compared by key; lists by their common beginning and end, so that appending is one change; sets by member.
    `apply_changes(one, diff(one, other))` equals `other` by type and value.

    Args:
        one: the value before; two states (dicts) when the path is empty.
        other: the value after. The changes hold copies of what they need of it.
    """
    changes: list[Change] = []
    _compare(one, other, path, changes)
    return changes


def _compare(one: Any, other: Any, path: Path, changes: list[Change]) -> None:
    if one is other:
        return
    cls = type(one)
    if cls is type(other):
        if cls is dict:
            return _compare_dicts(one, other, path, changes)
        if cls is list and path:
            return _compare_lists(one, other, path, changes)
        if cls is set and path:
            return _compare_sets(one, other, path, changes)
        if cls is Tagged and _same_shape(one, other):
            return _compare_dicts(one.data, other.data, path, changes)
        if plain_equal(one, other):
            return None
        if cls in TEXTS and path:
            changes.append(as_extension(one, (SET, path, other)))
            return None
    changes.append((SET, path, copy_plain(other)))
    return None


def _same_shape(one: Tagged, other: Tagged) -> bool:
    """Return whether two parts differ by fields alone; another version of the shape is another value, whose fields mean something else."""
    return (
        one.kind == other.kind == "part"
        and one.name == other.name
        and one.state_version == other.state_version
        and one.data.keys() == other.data.keys()
    )


def _compare_dicts(one: dict[Any, Any], other: dict[Any, Any], path: Path, changes: list[Change]) -> None:
    changes.extend((REMOVE, (*path, key)) for key in one if key not in other)
    for key, item in other.items():
        if key in one:
            _compare(one[key], item, (*path, key), changes)
        else:
            changes.append((SET, (*path, key), copy_plain(item)))


def _compare_lists(one: list[Any], other: list[Any], path: Path, changes: list[Change]) -> None:
    shorter = min(len(one), len(other))
    start = 0
    while start < shorter and plain_equal(one[start], other[start]):
        start += 1
    if start == len(one) and start == len(other) - 1:
        changes.append((APPEND, path, copy_plain(other[start])))
        return
    tail = 0
    while tail < shorter - start and plain_equal(one[-1 - tail], other[-1 - tail]):
        tail += 1
    stop, stop_other = len(one) - tail, len(other) - tail
    if stop - start != stop_other - start:
        # One that was changed in its place stays in it, though others came or went behind it.
        while start < stop and start < stop_other and (_is_the_same(one[start], other[start]) or _stays_before(start, one, other)):
            _compare(one[start], other[start], (*path, start), changes)
            start += 1
        if start == len(one) == len(other) - 1:
            changes.append((APPEND, path, copy_plain(other[start])))
            return
    if stop - start == stop_other - start:
        for index in range(start, stop):
            _compare(one[index], other[index], (*path, index), changes)
    elif start != stop or start != stop_other:
        changes.append((SPLICE, path, start, stop, [copy_plain(item) for item in other[start:stop_other]]))


def _stays_before(at: int, one: list[Any], other: list[Any]) -> bool:
    """Return whether a part or dict stands, in both lists, before one that has not changed."""
    here, there = one[at], other[at]
    alike = _same_shape(here, there) if type(here) is type(there) is Tagged else type(here) is type(there) is dict
    return alike and at + 1 < min(len(one), len(other)) and plain_equal(one[at + 1], other[at + 1])


def _is_the_same(one: Any, other: Any) -> bool:
    """Return whether a member of a list is the one of before, changed: by its id, else by most of its fields."""
    if type(one) is Tagged and type(other) is Tagged and _same_shape(one, other):
        one, other = one.data, other.data
    if type(one) is not dict or type(other) is not dict:
        return False
    if "id" in one or "id" in other:
        return "id" in one and "id" in other and plain_equal(one["id"], other["id"])
    same = sum(key in other and plain_equal(item, other[key]) for key, item in one.items())
    return 2 * same >= max(len(one), len(other), 1)


def _compare_sets(one: set[Any], other: set[Any], path: Path, changes: list[Change]) -> None:
    before = {encode_canonical(member): member for member in one}
    after = {encode_canonical(member): member for member in other}
    changes.extend((DISCARD, path, before[code]) for code in sorted(before.keys() - after.keys()))
    changes.extend((ADD, path, after[code]) for code in sorted(after.keys() - before.keys()))
