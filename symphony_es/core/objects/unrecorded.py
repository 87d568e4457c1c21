"""What was written past the methods of a tracked list, dict or set (`heapq`, `list.append(x.items, …)`, `exec` in a dict).

A subclass of a builtin type cannot keep C functions out. So a container is compared with what was recorded of it where its next change
is recorded: the number of its members, the first and the last one, and those at the place of the change. That costs what the change
costs. Whoever assigns the container to its own place says that it shall be recorded as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.plain import MISSING, UNOWNED, own, plain_of
from symphony_es.errors import UnrecordedChangeError, UnstorableValueError
from symphony_es.events.paths import value_at
from symphony_es.events.references import Path
from symphony_es.events.values import plain_equal

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorded, Recorder

__all__ = ["has_as_many", "is_recorded", "record_as_it_is", "recorded_at", "refuse_other"]


def recorded_at(record: Recorded, path: Path, node: Any) -> Any:
    """Return what was recorded of a container, which has as many members; None where nothing is recorded of the entity at the moment.

    Called with the world's lock held.

    Raises:
        UnrecordedChangeError: it has more members, or fewer.
    """
    shadow = record.shadow
    if shadow is None or record.world.restoring:
        return None
    recorded = value_at(shadow, path)
    if not isinstance(recorded, (list, dict, set)):
        raise UnrecordedChangeError(record.key, path, f"nothing is recorded of this {_name(node)}; it was put there")
    if len(recorded) != len(node):
        raise UnrecordedChangeError(record.key, path, f"it has {len(node)} members instead of {len(recorded)}; it was changed")
    if type(recorded) is list and recorded and (node[0] is not recorded[0] or node[-1] is not recorded[-1]):
        for at in (0, -1):  # a heap, or what is sorted, begins otherwise
            refuse_other(record, path, node[at], recorded[at])
    return recorded


def has_as_many(recorded: Any, node: Any) -> bool:
    """Return whether `recorded_at` would find nothing, looked at without its explanations; it also says no where it would have to look
    closer.
    """
    cls = type(recorded)
    if cls is list:
        size = len(recorded)
        return size == len(node) and (size == 0 or (node[0] is recorded[0] and node[-1] is recorded[-1]))
    return (cls is dict or cls is set) and len(recorded) == len(node)


def refuse_other(record: Recorded, path: Path, held: Any, recorded: Any) -> None:
    """Refuse a change at a member that is another one than was recorded. Only plain members are looked at: others know their places.

    Raises:
        UnrecordedChangeError: it is another.
    """
    if (held is MISSING) is not (recorded is MISSING) or (type(held) in UNOWNED and not plain_equal(held, recorded)):
        raise UnrecordedChangeError(record.key, path, "a member at the place of the change is another one; it was changed")


def is_recorded(live: Any, plain: Any, world: Recorder) -> bool:
    """Return whether a container is what was recorded of it; costs its size."""
    try:
        return plain_equal(plain_of(live, world), plain)
    except (UnstorableValueError, RecursionError):  # a container that was put into itself has no end
        return False


def record_as_it_is(node: Any, plain: Any, record: Recorded) -> None:
    """Record what was written into a container past its methods; what it holds now gets a place there, and stays the objects it is.

    It is first given the members that were recorded, and is then changed by its methods, so that a rollback puts back those.

    Raises:
        UnstorableValueError and other errors of a change: what was written cannot be stored; nothing is recorded.
    """
    world = record.world
    if isinstance(node, list) and type(plain) is list:
        held = list(node)
        list.__setitem__(node, slice(None), _members(held, plain, world))
        for at, member in enumerate(list(node)):
            own(member, node, at)
        _again(lambda: node.__setitem__(slice(None), held), lambda: list.__setitem__(node, slice(None), held))
    elif isinstance(node, dict) and type(plain) is dict:
        items = dict(node)
        before = {key: items[key] if key in items and _is(items[key], item, world) else _new(item, world) for key, item in plain.items()}
        _refill(node, before)
        for key, member in before.items():
            own(member, node, key)
        _again(lambda: _assign_items(node, items), lambda: _refill(node, items))
    elif isinstance(node, set) and type(plain) is set:
        members = set(node)
        set.clear(node)
        set.update(node, [_new(item, world) for item in plain])
        _again(lambda: _assign_members(node, members), lambda: (set.clear(node), set.update(node, members)))


def _again(change: Callable[[], Any], as_it_was: Callable[[], Any]) -> None:
    try:
        change()
    except Exception:
        as_it_was()
        raise


def _assign_items(node: Any, items: dict[Any, Any]) -> None:
    stay = [key for key in node if key in items]
    if stay != list(items)[: len(stay)]:
        node.clear()  # the order is another one
    for key in [key for key in node if key not in items]:
        del node[key]
    node.update(items)


def _assign_members(node: Any, members: set[Any]) -> None:
    node.difference_update([member for member in node if member not in members])
    node.update(members)


def _refill(node: dict[Any, Any], items: dict[Any, Any]) -> None:
    dict.clear(node)
    dict.update(node, items)


def _members(held: list[Any], plain: list[Any], world: Recorder) -> list[Any]:
    """Return what was recorded as members: those that are here still, from the beginning and from the end, and new ones
    for what is gone.
    """
    shift, used, members = len(held) - len(plain), set[int](), []
    for at, item in enumerate(plain):
        for place in (at, at + shift):
            if 0 <= place < len(held) and place not in used and _is(held[place], item, world):
                used.add(place)
                members.append(held[place])
                break
        else:
            members.append(_new(item, world))
    return members


def _is(live: Any, plain: Any, world: Recorder) -> bool:
    return plain_equal(live, plain) if type(live) in UNOWNED else is_recorded(live, plain, world)


def _name(node: Any) -> str:
    return type(node).__name__.removeprefix("Tracked").lower()


def _new(plain: Any, world: Recorder) -> Any:
    from symphony_es.core.objects.mending import made_of_plain  # it needs the containers, which need this module

    return made_of_plain(plain, world)
