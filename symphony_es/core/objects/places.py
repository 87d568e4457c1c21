"""Where a node stands, and what happens when it is put somewhere while it stands somewhere else.

A part, list, dict or set is in one of three states. It is *new* while nobody owns it: just made, or taken out of its place. It is
*owned* by what holds it. It is *detached* when an entity holds a copy of it, or something else, where it stood: it may be read and be
put somewhere again, and changing it is an error, because nobody would record that.

A node stands at one place: the last one that it was put to. Where it stood before in the Symphony, an equal copy takes its place. What
an operation replaces is released before that is asked, so a list that is filtered, sorted or swapped keeps its nodes. Containers
that belong to no Symphony share their nodes, as plain ones do; they take them when they are put into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.core.objects.plain import MISSING, UNOWNED, attributes_of, kind_of, own, record_above

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorder

__all__ = [
    "Detached", "Move", "clone", "detach", "give_back", "is_node", "own", "own_new", "place", "release", "settle",
    "settle_members", "stands_elsewhere", "take",
]  # fmt: skip

_NODES = ("part", "container")


class Detached:
    """Stands for the owner of a detached node.

    Attributes:
        where: the entity and the path at which something else stands now.
    """

    _symphony_kind = "detached"
    _symphony_owner = None

    def __init__(self, where: str) -> None:
        self.where = where


class Move(NamedTuple):
    """A node was taken from a place in the Symphony, and a copy stands there now."""

    node: Any
    owner: Any
    copy: Any


def is_node(live: Any) -> bool:
    """Return whether a value is a part or a tracked container."""
    return type(live) not in UNOWNED and kind_of(live) in _NODES


def members(node: Any) -> Iterable[tuple[Any, Any]]:
    """Return what a part, list or dict holds, by key; a set holds no nodes."""
    if isinstance(node, list):
        return enumerate(node)
    if isinstance(node, dict):
        return node.items()
    if isinstance(node, set):
        return ()
    fields = type(node)._symphony_spec.fields
    return [(name, held) for name, held in node.__dict__.items() if name in fields]


def place(owner: Any, key: Any, live: Any) -> None:
    """Put a value somewhere, past everything that records it."""
    if isinstance(owner, list):
        list.__setitem__(owner, key, live)
    elif isinstance(owner, dict):
        dict.__setitem__(owner, key, live)
    else:
        attributes_of(owner)[key] = live


def _at(owner: Any, key: Any) -> Any:
    """Return what stands under a key that there is."""
    return owner[key] if isinstance(owner, (list, dict)) else owner.__dict__[key]


def own_new(live: Any, owner: Any, key: Any) -> None:
    """Give a node that nobody owns its place."""
    if is_node(live) and (live._symphony_owner is None or type(live._symphony_owner) is Detached):
        own(live, owner, key)


def release(live: Any, owner: Any) -> None:
    """Take a node's place away, if that is where it stands: it is new again."""
    if is_node(live) and live._symphony_owner is owner:
        live._symphony_owner = None


def detach(live: Any, where: str) -> None:
    """Note that something else stands where a node stood; its next change is refused."""
    if is_node(live):
        live._symphony_owner = Detached(where)


def clone(live: Any) -> Any:
    """Return an equal value whose containers and parts are new; what cannot change in place is shared."""
    if not is_node(live):
        return live
    cls: Any = type(live)
    if isinstance(live, set):
        made = cls._symphony_make()
        set.update(made, live)
        return made
    made = cls.__new__(cls) if kind_of(live) == "part" else cls._symphony_make()
    if isinstance(live, list):
        list.extend(made, live)
    elif isinstance(live, dict):
        dict.update(made, live)
    else:
        attributes_of(made).update(members(live))
    for key, item in _nodes_in(live):
        copy = clone(item)
        place(made, key, copy)
        own(copy, made, key)
    return made


def _nodes_in(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, (list, dict)) and UNOWNED.issuperset(map(type, node if isinstance(node, list) else node.values())):
        return iter(())
    return iter([(key, item) for key, item in members(node) if is_node(item)])


def take(owner: Any, old: Iterable[Any], new: list[Any], moves: list[Move], *, recorded: bool) -> None:
    """Release what leaves before `new` replaces `old` in an owner, and leave copies where something comes from.

    Args:
        old: what stands there now.
        new: what comes; of a node that is there twice, the last place keeps it, and the others get copies.
        moves: gets what was taken from elsewhere.
        recorded: the owner belongs to a Symphony; otherwise nothing is taken from anywhere.
    """
    coming: set[int] = set()
    for index in range(len(new) - 1, -1, -1):
        if is_node(new[index]):
            if recorded and id(new[index]) in coming:
                new[index] = clone(new[index])
            coming.add(id(new[index]))
    staying: set[int] = set()
    for item in old:
        if is_node(item) and item._symphony_owner is owner:
            if id(item) in coming:
                staying.add(id(item))
            else:
                item._symphony_owner = None
    if recorded:
        for item in new:
            if is_node(item) and id(item) not in staying:
                _leave(item, moves)


def _leave(node: Any, moves: list[Move]) -> None:
    """Have a copy stand where a node stands now, if that is in a Symphony; the node is new then."""
    owner = node._symphony_owner
    if owner is not None and record_above(owner) is not None:
        copy = clone(node)
        key = owner._symphony_key_of(node)
        if key is not MISSING:
            place(owner, key, copy)
            own(copy, owner, key)
            moves.append(Move(node, owner, copy))
    node._symphony_owner = None


def stands_elsewhere(live: Any, owner: Any) -> bool:
    """Return whether a node stands in a Symphony, somewhere else than in an owner."""
    if not is_node(live) or live._symphony_owner is owner or live._symphony_owner is None:
        return False
    return record_above(live) is not None


def settle(live: Any, owner: Any, key: Any, world: Recorder | None, moves: list[Move] | None) -> None:
    """Make an owner that belongs to a Symphony the owner of what was put there, and of all that it holds.

    Args:
        moves: gets what was taken from elsewhere; None when something is put back, which takes nothing from anywhere.
    """
    if not is_node(live):
        return
    was = live._symphony_owner
    if was is not None and was is not owner and moves is not None:
        _leave(live, moves)  # something that was put here just before holds it as well
    there = _at(owner, key)
    if there is not live:
        release(there, owner)  # a copy: what was put here just before has taken it from here
        place(owner, key, live)
    own(live, owner, key)
    if was is not owner:
        settle_members(live, world, moves)


def settle_members(holder: Any, world: Recorder | None, moves: list[Move] | None) -> None:
    """Make a node the owner of all that it holds: while it was new, it may have shared that with others. `moves` as in `settle`."""
    nodes = list(_nodes_in(holder))
    last = {id(item): key for key, item in nodes}
    apart: list[tuple[Any, Any]] = []
    for key, item in nodes:
        was = item._symphony_owner
        record = record_above(was) if was is not None and was is not holder else None
        taken = record is not None and moves is not None and (world is None or world.may_take(record))
        if last[id(item)] != key or (record is not None and not taken):
            apart.append((key, item))
            place(holder, key, None)  # it may hold the holder, until the copy stands here
            continue
        if taken and moves is not None:
            _leave(item, moves)
        own(item, holder, key)
        if record is None and (not isinstance(item, (list, dict, set)) or item):
            settle_members(item, world, moves)
    for key, item in apart:
        copy = clone(item)
        place(holder, key, copy)
        own(copy, holder, key)


def give_back(moves: list[Move], world: Recorder | None) -> None:
    """Put what was taken back where its copy stands, after a rollback, with that one's content once it has been mended.

    Where the copy stands nowhere any more, or its entity is somebody else's now, what was taken is detached.
    """
    while moves:
        node, owner, copy = moves.pop()
        if node._symphony_owner is not None and record_above(node) is not None:
            continue  # it stands somewhere again
        record = record_above(owner)
        key = owner._symphony_key_of(copy) if copy._symphony_owner is owner else MISSING
        if key is not MISSING and record is not None and world is not None and world.may_take(record):
            place(owner, key, node)
            own(node, owner, key)
            copy._symphony_owner = Detached(record.key)
            settle_members(node, world, None)
        else:
            node._symphony_owner = Detached(record.key if record is not None else "its entity")
