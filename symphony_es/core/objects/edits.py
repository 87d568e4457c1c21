"""What has to be recorded so that one plain container becomes another: the difference where that is less than the whole.

Everything costs at most what going through both containers does (a sort of the positions for lists).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from symphony_es.events.changes import ADD, APPEND, DISCARD, REMOVE, SET, SPLICE, Change
from symphony_es.events.references import Path
from symphony_es.events.values import Tagged, plain_equal

__all__ = ["EDIT_WEIGHT", "Edit", "changes_between", "is_small", "list_changes", "list_edits", "weight"]

EDIT_WEIGHT = 4
"""What the frame of a change costs, in items."""

SMALL_BYTES = 4096

Edit = tuple[int, int, int, int]  # old[start:stop] becomes new[lo:hi]


def changes_between(path: Path, old: Any, new: Any, live: tuple[Any, Any] | None = None) -> list[Change]:
    """Return the changes that make the plain value at a path another one.

    Args:
        live: the live forms of both, where there are any: what stands in both is recognised by identity.
    """
    cls = type(new)
    differ = _DIFFERENCES.get(cls)
    if differ is not None and type(old) is cls:
        if not old and not new:
            return []
        if old and new:
            changes = differ(path, old, new) if live is None or cls is not list else _list_difference(path, old, new, *live)
            if changes is not None:
                return changes
    return [(SET, path, new)]


def _list_difference(path: Path, old: list[Any], new: list[Any], old_live: Sequence[Any], new_live: Sequence[Any]) -> list[Change] | None:
    edits = list_edits(old_live, new_live, lambda one, other: old_live[one] is new_live[other] or plain_equal(old[one], new[other]))
    return list_changes(path, len(old), edits, new) if weight(edits) < len(new) + EDIT_WEIGHT else None


def _dict_difference(path: Path, old: dict[Any, Any], new: dict[Any, Any]) -> list[Change] | None:
    gone = [key for key in old if key not in new]
    stay = [key for key in old if key in new]
    if any(one != other for one, other in zip(stay, new, strict=False)):
        return None  # the order would be another one
    changes: list[Change] = [(REMOVE, (*path, key)) for key in gone]
    for key, item in new.items():
        if key not in old:
            changes.append((SET, (*path, key), item))
        elif not plain_equal(old[key], item):
            changes += changes_between((*path, key), old[key], item)
    return changes if len(changes) * EDIT_WEIGHT < len(new) + 2 * EDIT_WEIGHT else None


def _set_difference(path: Path, old: set[Any], new: set[Any]) -> list[Change] | None:
    stored = {member: member for member in old}
    gone: list[Change] = [(DISCARD, path, member) for member in old if member not in new]
    come: list[Change] = []
    for member in new:
        twin = stored.get(member, _NONE)
        if twin is _NONE:
            come.append((ADD, path, member))
        elif not plain_equal(twin, member):
            gone.append((DISCARD, path, twin))
            come.append((ADD, path, member))
    changes = gone + come
    return changes if len(changes) * EDIT_WEIGHT < len(new) + 2 * EDIT_WEIGHT else None


_NONE: Any = object()
_DIFFERENCES: dict[type, Callable[[Path, Any, Any], list[Change] | None]] = {
    list: lambda path, old, new: _list_difference(path, old, new, old, new),
    dict: _dict_difference,
    set: _set_difference,
}


def list_changes(path: Path, size: int, edits: Sequence[Edit], new: Sequence[Any]) -> list[Change]:
    """Return the changes of a list of `size` items for edits in the order in which they apply."""
    changes: list[Change] = []
    for start, stop, lo, hi in edits:
        if start == stop == size and hi - lo == 1 and is_small(new[lo]):
            changes.append((APPEND, path, new[lo]))
        elif stop - start == 1 and lo == hi:
            changes.append((REMOVE, (*path, start)))
        elif stop - start == 1 == hi - lo:
            changes.append((SET, (*path, start), new[lo]))
        else:
            changes.append((SPLICE, path, start, stop, list(new[lo:hi])))
    return changes


def is_small(value: Any) -> bool:
    """Return whether a plain value can be appended without saying where: one that is large may have to be divided, and its parts put in
    there.
    """
    left, stack = SMALL_BYTES, [value]
    while stack and left > 0:
        item = stack.pop()
        cls = type(item)
        left -= len(item) + 1 if cls is str or cls is bytes else EDIT_WEIGHT
        if cls is Tagged:
            left -= len(item.name)
            item, cls = item.data, type(item.data)
        if cls in (list, dict, tuple, set):
            if len(item) > left:
                return False
            stack.extend(item)
            if cls is dict:
                stack.extend(item.values())
    return left > 0


def list_edits(old: Sequence[Any], new: Sequence[Any], same: Callable[[int, int], bool]) -> list[Edit]:
    """Return what to replace in a list, last places first, so that the indexes of the others hold.

    Args:
        same: whether the item at a place of the old one and that at a place of the new one are the same plain data.
    """
    most = min(len(old), len(new))
    begin = 0
    while begin < most and same(begin, begin):
        begin += 1
    end = 0
    while end < most - begin and same(len(old) - 1 - end, len(new) - 1 - end):
        end += 1
    stop, hi = len(old) - end, len(new) - end
    if begin == stop and begin == hi:
        return []
    whole = [(begin, stop, begin, hi)]
    if begin in (stop, hi):
        return whole
    kept = _common(old[begin:stop], new[begin:hi])
    edits: list[Edit] = []
    at, lo = begin, begin
    for one, other in [*kept, (stop - begin, hi - begin)]:
        if at < begin + one or lo < begin + other:
            edits.append((at, begin + one, lo, begin + other))
        at, lo = begin + one + 1, begin + other + 1
    edits.reverse()
    return edits if weight(edits) < hi - begin + EDIT_WEIGHT else whole


def weight(edits: Sequence[Edit]) -> int:
    """Return what recording edits costs, in items."""
    return sum(EDIT_WEIGHT + hi - lo for _, _, lo, hi in edits)


def _common(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, int]]:
    """Return places of items that stay, ascending in both: all that are left when items were only taken out or put in, else of those that
    occur once the most that keep their order."""
    mine, yours = [_identity(item) for item in old], [_identity(item) for item in new]
    longer, shorter = (mine, yours) if len(mine) >= len(yours) else (yours, mine)
    found: list[int] = []
    for place, key in enumerate(longer):
        if len(found) < len(shorter) and key == shorter[len(found)]:
            found.append(place)
    if len(found) == len(shorter):
        pairs = list(enumerate(found))
        return [(there, here) for here, there in pairs] if longer is mine else pairs
    where: dict[Any, int] = {}
    for place, key in enumerate(mine):
        where[key] = -1 if key in where else place
    seen: dict[Any, int] = {}
    for key in yours:
        seen[key] = seen.get(key, 0) + 1
    matches = [(where[key], place) for place, key in enumerate(yours) if where.get(key, -1) >= 0 and seen[key] == 1]
    return _longest_ascending(matches)


def _longest_ascending(matches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    tails: list[int] = []
    last: list[int] = []  # the match that ends the best run of each length
    before: list[int] = []
    for index, (place, _) in enumerate(matches):
        length = bisect_left(tails, place)
        before.append(last[length - 1] if length else -1)
        if length == len(tails):
            tails.append(place)
            last.append(index)
        else:
            tails[length], last[length] = place, index
    run: list[tuple[int, int]] = []
    index = last[-1] if last else -1
    while index >= 0:
        run.append(matches[index])
        index = before[index]
    run.reverse()
    return run


_BY_VALUE = frozenset({str, int, bool, bytes, type(None)})


def _identity(item: Any) -> Any:
    """Return what tells items apart without looking into them: two of one identity are the same plain data."""
    cls = type(item)
    return (cls, item) if cls in _BY_VALUE else (cls, id(item))
