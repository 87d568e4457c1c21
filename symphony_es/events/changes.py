"""Changes: primitive mutations of a state, as plain tuples, and how they are applied.

A change is `(operation, path, ...)`. The path leads from the state's root through keys of dicts, fields of parts and indexes of
lists, as they were at that moment; the changes of an event apply in order. The whole state is the empty path: setting it is the
creation of an entity, removing it its deletion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

from symphony_es.errors import ChangeError, UnstorableValueError, format_path
from symphony_es.events.bounds import TOO_ALIKE, has_room, is_wide
from symphony_es.events.references import Path
from symphony_es.events.undo import ABSENT, Undo, cut_back, forget_added, put_back, put_back_member
from symphony_es.events.values import DEFAULT_LIMITS, Tagged, check_member, copy_plain, plain_equal
from symphony_es.shown import quoted

__all__ = [
    "ADD", "APPEND", "DISCARD", "EXTEND", "INSERT", "LONG",
    "OPERATION_NAMES", "REMOVE", "SET", "SPLICE", "Change", "EventChange", "apply_changes", "as_extension", "check_room",
]  # fmt: skip

SET: Final = 0  # (SET, path, value)
INSERT: Final = 1  # (INSERT, path of the list, index, value)
SPLICE: Final = 2  # (SPLICE, path of the list, start, stop, values)
APPEND: Final = 3  # (APPEND, path of the list, value)
REMOVE: Final = 4  # (REMOVE, path to a key or index)
ADD: Final = 5  # (ADD, path of the set, value)
DISCARD: Final = 6  # (DISCARD, path of the set, value)
EXTEND: Final = 7  # (EXTEND, path to a text or bytes, what is put at its end)

Change: TypeAlias = tuple[Any, ...]
"""A change as the fold takes it, operation first: looked at by position, where its shape is checked as it is applied."""

EventChange: TypeAlias = (
    tuple[Literal[0, 3, 5, 6], Path, Any]
    | tuple[Literal[1], Path, int, Any]
    | tuple[Literal[2], Path, int, int, Sequence[Any]]
    | tuple[Literal[4], Path]
    | tuple[Literal[7], Path, str | bytes]
)
"""A change as an event tells it: what stands behind the operation and the path is known once `change[0]` has been compared."""

OPERATION_NAMES = ("set", "insert", "splice", "append", "remove", "add", "discard", "extend")

_ARITY = (3, 4, 5, 3, 2, 3, 3, 3)
TEXTS = frozenset({str, bytes})
LONG = 1024
"""From this length on, a text or bytes that grows at its end is stored by its new end alone: characters or bytes."""
KEY_TYPES = frozenset({str, int})
MAX_DEPTH = DEFAULT_LIMITS.max_depth
SCALARS = frozenset({str, int, float, bool, type(None), bytes})


def apply_changes(
    state: dict[str, Any] | None, changes: Sequence[Change], *, own_values: bool = False, applied: int = 0, undo: Undo | None = None
) -> dict[str, Any] | None:
    """Apply changes in order to a state, in place, and return it (another object after creation, None after deletion).

    Args:
        state: plain data; None for an entity that does not exist.
        changes: what to apply.
        own_values: the changes' values belong to the caller alone (freshly decoded): containers are taken over, not copied.
        applied: how many of them have been applied before.
        undo: takes note of what takes each change back, for `revert`; the whole state, which is replaced and not changed, the caller keeps.

    Raises:
        ChangeError: a change does not fit; the ones before it have been applied.
    """
    for index, change in enumerate(islice(changes, applied, None), applied):
        try:
            operation, path = change[0], change[1]
            if operation == SET and len(path) == 1 and state is not None and type(path[0]) is str:  # by far the most common one
                value = change[2]
                if undo is not None:
                    undo.append((put_back, state, path[0], state.get(path[0], ABSENT)))
                state[path[0]] = value if own_values or type(value) in SCALARS else copy_plain(value)
                continue
            if not path:
                state = _whole(operation, change, own_values)
            else:
                if state is None:
                    raise ChangeError("the entity does not exist")
                if type(operation) is not int or operation < 0:
                    raise ChangeError(f"{quoted(operation)} is no operation")
                values = change if own_values else (*change[:2], *map(copy_plain, change[2:]))
                back = _way_back(state, *values) if undo is not None else None
                _OPERATIONS[operation](state, path, *values[2:])
                if back is not None and undo is not None:
                    undo.append(back)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ChangeError(_describe(index, change, error)) from error
    return state


def check_change(change: Any) -> None:
    """Check the form of a change: a known operation, its number of elements, a path of keys.

    Of its values only what a set shall hold is looked at: how it is encoded does not say that it becomes a member.

    Raises:
        ChangeError: it is no change.
        UnstorableValueError: it would add to a set what no set holds.
    """
    cls = type(change)
    if (cls is not tuple and cls is not list) or len(change) < 2:
        raise ChangeError(f"this is no change: {quoted(change, 80)}")
    operation, path = change[0], change[1]
    if type(operation) is not int or not 0 <= operation < len(_ARITY) or len(change) != _ARITY[operation]:
        raise ChangeError(f"this is no change, or has the wrong number of elements: {quoted(change, 80)}")
    if (type(path) is not tuple and type(path) is not list) or not (
        type(path[0]) in KEY_TYPES if len(path) == 1 else KEY_TYPES.issuperset(map(type, path))
    ):
        raise ChangeError(f"the path of a change consists of text and whole numbers: {quoted(path, 80)}")
    if len(path) > MAX_DEPTH:
        raise ChangeError(f"the path of a change is longer than {MAX_DEPTH}")
    if operation == SPLICE and type(change[4]) is not list:
        raise ChangeError("what a splice puts in is a list")
    if operation == ADD:
        check_member(change[2], path)
    if operation == EXTEND and (type(change[2]) not in TEXTS or not path):
        raise ChangeError("what extends a text is text, and what extends bytes is bytes, below the whole state")


def check_room(state: Any, change: Change) -> None:
    """Check that a set or dict may take what a change brings into it (`bounds.MOST_ALIKE`), before it is applied.

    Raises:
        UnstorableValueError: it may not.
    """
    operation, path = change[0], change[1]
    if operation == ADD:
        holder, key = _found(state, path), change[2]
    elif operation == SET and path and is_wide(path[-1]):
        holder, key = _found(state, path[:-1]), path[-1]
    else:
        return
    if type(holder) in (set, dict) and not has_room(holder, key):
        raise UnstorableValueError(tuple(path), TOO_ALIKE)


def _found(state: Any, path: Path) -> Any:
    try:
        return _container(state, path)
    except (ChangeError, LookupError, TypeError):
        return None


def as_extension(old: Any, change: Change) -> Change:
    """Return a change that sets a value, as one that extends the old value where the new one is long and begins with it; else as it is."""
    new = change[2]
    cls = type(new)
    if cls in TEXTS and type(old) is cls and LONG <= len(old) <= len(new) and new.startswith(old):
        return (EXTEND, change[1], new[len(old) :])
    return change


def _describe(index: int, change: Any, error: Exception) -> str:
    try:
        where = format_path(change[1]) or "the root"
        return f"change {index} ({OPERATION_NAMES[change[0]]} at {where}) does not fit the state: {quoted(error)}"
    except (IndexError, TypeError, KeyError):
        return f"change {index} is none: {quoted(change, 80)}"


def _whole(operation: int, change: Change, own_values: bool) -> dict[str, Any] | None:
    if operation == REMOVE:
        return None
    value = change[2]
    if operation != SET or type(value) is not dict:
        raise ChangeError("the whole state is a dict, which can only be set or removed")
    copied: dict[str, Any] = value if own_values else copy_plain(value)
    return copied


def _descend(state: Any, path: Path) -> Any:
    """Return the container at a path."""
    for key in path:
        cls = type(state)
        if type(key) not in KEY_TYPES:
            raise ChangeError(f"{quoted(key)} is no key")
        if cls is Tagged and state.kind == "part":
            state = state.data[key]
        elif cls is list or cls is tuple:
            if type(key) is not int or key < 0:
                raise ChangeError(f"{quoted(key)} is no index")
            state = state[key]
        elif cls is dict:
            state = state[key]
        else:
            raise ChangeError(f"a {cls.__name__} has nothing under {quoted(key)}")
    return state


def _container(state: Any, path: Path) -> Any:
    found = _descend(state, path)
    return found.data if type(found) is Tagged and found.kind == "part" else found


def _list(state: Any, path: Path) -> list[Any]:
    found = _descend(state, path)
    if type(found) is not list:
        raise ChangeError(f"there is a {type(found).__name__}, not a list")
    return found


def _set_of(state: Any, path: Path) -> set[Any]:
    found = _descend(state, path)
    if type(found) is not set:
        raise ChangeError(f"there is a {type(found).__name__}, not a set")
    return found


def _index(items: list[Any], index: Any, bound: int) -> int:
    if type(index) is not int or not 0 <= index <= bound:
        raise ChangeError(f"{quoted(index)} is no index of a list of {len(items)}")
    return index


def _apply_set(state: Any, path: Path, value: Any) -> None:
    holder, key = _container(state, path[:-1]), path[-1]
    if type(holder) is list:
        holder[_index(holder, key, len(holder) - 1)] = value
    elif type(holder) is dict and type(key) in KEY_TYPES:
        if is_wide(key) and not has_room(holder, key):
            raise ChangeError(TOO_ALIKE)
        holder[key] = value
    else:
        raise ChangeError(f"nothing can be set under {quoted(key)} in a {type(holder).__name__}")


def _apply_insert(state: Any, path: Path, index: Any, value: Any) -> None:
    items = _list(state, path)
    items.insert(_index(items, index, len(items)), value)


def _apply_splice(state: Any, path: Path, start: Any, stop: Any, values: Any) -> None:
    items = _list(state, path)
    if type(values) is not list or _index(items, start, len(items)) > _index(items, stop, len(items)):
        raise ChangeError(f"[{quoted(start)}:{quoted(stop)}] is no slice of a list of {len(items)}")
    items[start:stop] = values


def _apply_append(state: Any, path: Path, value: Any) -> None:
    _list(state, path).append(value)


def _apply_remove(state: Any, path: Path) -> None:
    holder, key = _container(state, path[:-1]), path[-1]
    if type(holder) is list:
        del holder[_index(holder, key, len(holder) - 1)]
    elif type(holder) is dict and type(key) in KEY_TYPES:
        del holder[key]
    else:
        raise ChangeError(f"nothing can be removed under {quoted(key)} from a {type(holder).__name__}")


def _apply_extend(state: Any, path: Path, tail: Any) -> None:
    holder: Any = _container(state, path[:-1])
    key = path[-1]
    if type(holder) is list:
        _index(holder, key, len(holder) - 1)
    elif type(holder) is not dict:
        raise ChangeError(f"nothing can be extended under {quoted(key)} in a {type(holder).__name__}")
    items: Any = holder
    old = items[key]
    if type(old) not in TEXTS or type(old) is not type(tail):
        raise ChangeError(f"there is a {type(old).__name__}, which a {type(tail).__name__} cannot extend")
    items[key] = old + tail


def _apply_add(state: Any, path: Path, value: Any) -> None:
    members = _set_of(state, path)
    if not has_room(members, value):
        raise ChangeError(TOO_ALIKE)
    members.add(value)


def _apply_discard(state: Any, path: Path, value: Any) -> None:
    _set_of(state, path).discard(value)


_OPERATIONS: tuple[Callable[..., None], ...] = (
    _apply_set, _apply_insert, _apply_splice, _apply_append, _apply_remove, _apply_add, _apply_discard,
    _apply_extend,
)  # fmt: skip


def _way_back(state: Any, operation: int, path: Path, *values: Any) -> tuple[Any, ...] | None:
    """Return what takes a change back, worked out before it is applied; None where it changes nothing, or will not fit."""
    if operation in (SET, REMOVE, EXTEND):
        holder, key = _container(state, path[:-1]), path[-1]
        if operation == EXTEND and type(holder) in (dict, list):
            return (cut_back, holder, key, len(holder[key]))  # the texts before each of many extensions would add up
        if type(holder) is dict:
            return (put_back, holder, key, holder.get(key, ABSENT))
        if type(holder) is list:
            old = holder[_index(holder, key, len(holder) - 1)]
            return (list.insert if operation == REMOVE else list.__setitem__, holder, key, old)
        return None
    if operation in (ADD, DISCARD):
        members = _set_of(state, path)
        return forget_added(members, values[0]) if operation == ADD else put_back_member(members, values[0])
    items = _list(state, path)
    if operation == APPEND:
        return (list.pop, items)
    if operation == INSERT:
        return (list.__delitem__, items, values[0])
    start, stop, brought = values
    return (list.__setitem__, items, slice(start, start + len(brought)), items[start:stop])


def same_change(one: Change, other: Change) -> bool:
    """Return whether two changes say the same, by type and value."""
    return plain_equal(list(one), list(other))
