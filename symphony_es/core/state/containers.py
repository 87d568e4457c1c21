"""Lists, dicts and sets that record their own changes.

Every mutating method of the builtin type is covered. Each works in the same order: ask the entity's record whether the change
may happen (it may belong to a transaction, or be refused), convert the new values, change the container, record the change
together with what undoes it. A refusal leaves the container as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.state.live import (
    ATOMS,
    BUILDERS,
    MISSING,
    PLAIN_COPIES,
    admit,
    entities_in,
    kind_of,
    locate,
    own,
    plain_at,
    plain_of,
    refuse_cycle,
    release,
)
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, APPEND, DISCARD, REMOVE, SET, SPLICE, Change
from symphony_es.events.values import check_plain

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership

__all__ = ["Site", "TrackedDict", "TrackedList", "TrackedSet"]

Undo = tuple[Any, ...]


class Site:
    """One mutation of a node: holds its entity's lock, converts values for it, and records what changed.

    A node that belongs to no entity yet has a site without a record: values are converted, nothing is recorded.
    """

    __slots__ = ("node", "path", "record", "sink", "world")

    def __init__(self, node: Any) -> None:
        self.node = node
        self.record, self.path = locate(node)
        self.world: Membership | None = self.record.world if self.record is not None else None
        self.sink: Callable[[Change, Undo], None] | None = None

    def __enter__(self) -> Self:
        if self.record is not None:
            self.record.world.lock.acquire()
            try:
                self.sink = self.record.sink()
            except BaseException:
                self.record.world.lock.release()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self.record is not None:
            self.record.world.lock.release()

    def convert(self, value: Any, key: Any) -> tuple[Any, Any]:
        """The live and the plain form of a value that is to stand under `key`; a refusal names entity and path."""
        try:
            live = admit(value, self.world)
            if type(live) in ATOMS:
                return live, live
            refuse_cycle(self.node, live)
            return live, plain_of(live, self.world) if self.sink is not None else None
        except UnstorableValueError as error:
            raise error.within(self.record.key if self.record else None, (*self.path, key)) from None

    def recorded(self, change: Change, undo: Undo, *brought: Any) -> None:
        """Record a change that has been made, and add the entities that came with it."""
        if self.sink is not None and self.world is not None:
            self.sink(change, undo)
            for live in brought:
                for found in entities_in(live):
                    self.world.adopt_referred(found)


def build_at(item: Any, world: Membership | None, depth: int, key: Any) -> Any:
    """`admit` for a member of a container under construction, with its key added to the path of a refusal."""
    try:
        return admit(item, world, depth + 1)
    except UnstorableValueError as error:
        raise error.within(None, (key,)) from None


class TrackedList(list[Any]):
    """A list that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __init__(self, items: Iterable[Any] = (), world: Membership | None = None, depth: int = 0) -> None:
        super().__init__()
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        for index, item in enumerate(items):
            live = build_at(item, world, depth, index)
            own(live, self, index)
            super().append(live)

    @classmethod
    def _symphony_copy(cls, source: Iterable[Any], world: Membership | None, depth: int) -> TrackedList:
        return cls(source, world, depth)

    def _symphony_key_of(self, child: Any) -> int:
        """The child's index now; where it was last is looked at first, so that a walk is rarely needed."""
        hint = child._symphony_key
        if not (isinstance(hint, int) and 0 <= hint < len(self) and self[hint] is child):
            hint = next(index for index, item in enumerate(self) if item is child)
            child._symphony_key = hint
        return hint

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (list(self),)

    def _swap(self, start: int, stop: int, live: list[Any]) -> list[Any]:
        """Put live values in the place of self[start:stop], unrecorded; returns what stood there."""
        old = super().__getitem__(slice(start, stop))
        for item in old:
            release(item)
        super().__setitem__(slice(start, stop), live)
        for offset, item in enumerate(live):
            own(item, self, start + offset)
        return old

    def _splice(self, start: int, stop: int, values: Iterable[Any]) -> None:
        with Site(self) as site:
            live: list[Any] = []
            plain: list[Any] = []
            for offset, value in enumerate(values):
                one, other = site.convert(value, start + offset)
                live.append(one)
                plain.append(other)
            old = self._swap(start, stop, live)
            if live or old:
                site.recorded((SPLICE, site.path, start, stop, plain), (self._swap, start, start + len(live), old), *live)

    def append(self, value: Any, /) -> None:
        """Append a value."""
        with Site(self) as site:
            live, plain = site.convert(value, len(self))
            own(live, self, len(self))
            super().append(live)
            site.recorded((APPEND, site.path, plain), (self._swap, len(self) - 1, len(self), []), live)

    def extend(self, values: Iterable[Any], /) -> None:
        """Append all values."""
        self._splice(len(self), len(self), list(values))

    def insert(self, index: SupportsIndex, value: Any, /) -> None:
        """Insert a value before an index."""
        at = slice(index, None).indices(len(self))[0]
        self._splice(at, at, [value])

    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """Remove and return the value at an index."""
        value = self[index]
        del self[index]
        return value

    def remove(self, value: Any, /) -> None:
        """Remove the first equal value."""
        del self[self.index(value)]

    def clear(self) -> None:
        """Remove everything."""
        self._splice(0, len(self), [])

    def _reorder(self, arranged: list[Any]) -> None:
        """Put the same members into another order: they stay the objects they are."""
        with Site(self) as site:
            plain = [plain_of(item, site.world) for item in arranged] if site.sink is not None else []
            old = self._swap(0, len(self), arranged)
            site.recorded((SPLICE, site.path, 0, len(old), plain), (self._swap, 0, len(old), old))

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place."""
        self._reorder(sorted(self, key=key, reverse=reverse))

    def reverse(self) -> None:
        """Reverse in place."""
        self._reorder(list(reversed(self)))

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            at = range(len(self))[index]  # a negative index counted from the end; IndexError as a list's
            with Site(self) as site:
                live, plain = site.convert(value, at)
                old = self._swap(at, at + 1, [live])
                site.recorded((SET, (*site.path, at), plain), (self._swap, at, at + 1, old), live)
            return
        start, stop, step = index.indices(len(self))
        if step == 1:
            self._splice(start, max(start, stop), list(value))
            return
        arranged = list(self)
        arranged[index] = value
        self._splice(0, len(self), arranged)

    def __delitem__(self, index: Any) -> None:
        if not isinstance(index, slice):
            at = range(len(self))[index]
            with Site(self) as site:
                old = self._swap(at, at + 1, [])
                site.recorded((REMOVE, (*site.path, at)), (self._swap, at, at, old))
            return
        start, stop, step = index.indices(len(self))
        if step == 1:
            self._splice(start, max(start, stop), [])
            return
        doomed = set(range(len(self))[index])
        self._keep([item for at, item in enumerate(self) if at not in doomed])

    def _keep(self, kept: list[Any]) -> None:
        with Site(self) as site:
            plain = [plain_of(item, site.world) for item in kept] if site.sink is not None else []
            old = self._swap(0, len(self), kept)
            site.recorded((SPLICE, site.path, 0, len(old), plain), (self._swap, 0, len(kept), old))

    def __iadd__(self, values: Iterable[Any]) -> Self:  # type: ignore[misc]  # the builtin returns itself as well
        self.extend(values)
        return self

    def __imul__(self, count: SupportsIndex) -> Self:
        copies = list(self) * (count.__index__() - 1)
        if count.__index__() <= 0:
            self.clear()
        elif copies:
            self.extend(copies)
        return self


def check_key(key: Any) -> None:
    """Dict keys are text or whole numbers, exactly: True would come back as 1.

    Raises:
        UnstorableValueError: it is anything else.
    """
    if type(key) is not str and type(key) is not int:
        raise UnstorableValueError((), f"the dict key {key!r} is a {type(key).__name__}; keys are str or int")
    check_plain(key)


class TrackedDict(dict[Any, Any]):
    """A dict that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __init__(self, items: Mapping[Any, Any] | Iterable[Any] = (), world: Membership | None = None, depth: int = 0) -> None:
        super().__init__()
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        for key, item in dict(items).items():
            check_key(key)
            live = build_at(item, world, depth, key)
            own(live, self, key)
            super().__setitem__(key, live)

    @classmethod
    def _symphony_copy(cls, source: Mapping[Any, Any], world: Membership | None, depth: int) -> TrackedDict:
        return cls(source, world, depth)

    def _symphony_key_of(self, child: Any) -> Any:
        return child._symphony_key

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def _put(self, key: Any, live: Any) -> Any:
        """Set or drop a key, unrecorded; returns what stood there, or MISSING."""
        old = super().pop(key, MISSING) if live is MISSING else super().get(key, MISSING)
        release(old)
        if live is not MISSING:
            super().__setitem__(key, live)
            own(live, self, key)
        return old

    def __setitem__(self, key: Any, value: Any) -> None:
        with Site(self) as site:
            try:
                check_key(key)
            except UnstorableValueError as error:
                raise error.within(site.record.key if site.record else None, site.path) from None
            live, plain = site.convert(value, key)
            old = self._put(key, live)
            site.recorded((SET, (*site.path, key), plain), (self._put, key, old), live)

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        with Site(self) as site:
            old = self._put(key, MISSING)
            site.recorded((REMOVE, (*site.path, key)), (self._put, key, old))

    def pop(self, key: Any, /, *default: Any) -> Any:
        """Remove a key and return its value."""
        if key not in self:
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the last item."""
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        key = next(reversed(self))
        return key, self.pop(key)

    def _refill(self, items: Mapping[Any, Any]) -> None:
        for key in list(self):
            self._put(key, MISSING)
        for key, live in items.items():
            self._put(key, live)

    def clear(self) -> None:
        """Remove everything."""
        if self:
            with Site(self) as site:
                old = dict(self)
                self._refill({})
                site.recorded((SET, site.path, {}), (self._refill, old))

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """The value under a key, which is set to the default when it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Set all given items, one by one."""
        for key, value in dict(*others, **named).items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]  # the builtin returns itself as well
        self.update(other)
        return self


class TrackedSet(set[Any]):
    """A set that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __init__(self, items: Iterable[Any] = (), world: Membership | None = None, depth: int = 0) -> None:
        super().__init__()
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        for item in items:
            live = build_at(item, world, depth, "{}")
            _check_member(live)
            super().add(live)

    @classmethod
    def _symphony_copy(cls, source: Iterable[Any], world: Membership | None, depth: int) -> TrackedSet:
        return cls(source, world, depth)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return set, (set(self),)

    def _put(self, member: Any) -> None:
        super().add(member)

    def _drop(self, member: Any) -> None:
        super().discard(member)

    def add(self, member: Any, /) -> None:
        """Add a member."""
        with Site(self) as site:
            live, plain = site.convert(member, "{}")
            _check_member(live)
            if live not in self:
                super().add(live)
                site.recorded((ADD, site.path, plain), (self._drop, live), live)

    def discard(self, member: Any, /) -> None:
        """Remove a member if it is there."""
        if member in self:
            with Site(self) as site:
                stored = next(item for item in self if item == member)
                super().discard(member)
                site.recorded((DISCARD, site.path, plain_of(stored, site.world)), (self._put, stored))

    def remove(self, member: Any, /) -> None:
        """Remove a member; KeyError when it is not there."""
        if member not in self:
            raise KeyError(member)
        self.discard(member)

    def pop(self) -> Any:
        """Remove and return some member."""
        if not self:
            raise KeyError("pop from an empty set")
        member = next(iter(self))
        self.discard(member)
        return member

    def clear(self) -> None:
        """Remove everything."""
        self.difference_update(set(self))

    def update(self, *others: Iterable[Any]) -> None:
        """Add all members of the others."""
        for member in [member for other in others for member in other]:
            self.add(member)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove all members of the others."""
        for member in [member for other in others for member in other]:
            self.discard(member)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep what all others have as well."""
        self.difference_update(set(self).difference(set(self).intersection(*others)))

    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        """Keep what exactly one of the two has."""
        members = set(other)
        common = members & self
        self.update(members - common)
        self.difference_update(common)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]  # the builtin returns itself as well
        self.update(_as_set(other))
        return self

    def __isub__(self, other: Any) -> Self:  # type: ignore[misc]  # the builtin returns itself as well
        self.difference_update(_as_set(other))
        return self

    def __iand__(self, other: Any) -> Self:  # type: ignore[misc]  # the builtin returns itself as well
        self.intersection_update(_as_set(other))
        return self

    def __ixor__(self, other: Any) -> Self:  # type: ignore[misc]  # the builtin returns itself as well
        self.symmetric_difference_update(_as_set(other))
        return self


def _as_set(other: Any) -> Iterable[Any]:
    if not isinstance(other, (set, frozenset)):
        raise TypeError(f"a set operator needs a set, not {type(other).__name__}")
    return other


def _check_member(live: Any) -> None:
    if kind_of(live) in ("part", "container"):
        raise UnstorableValueError((), f"a {type(live).__name__} can change in place and cannot be a member of a set")
    if type(live) in (float, tuple) and not entities_in(live):
        check_plain({live})


def _plain_members(live: TrackedSet, world: Membership | None) -> Iterator[Any]:
    for member in live:
        yield plain_at(member, world, "{}")


BUILDERS.update({list: TrackedList, dict: TrackedDict, set: TrackedSet})
PLAIN_COPIES.update(
    {
        TrackedList: lambda live, world: [plain_at(item, world, index) for index, item in enumerate(live)],
        TrackedDict: lambda live, world: {key: plain_at(item, world, key) for key, item in live.items()},
        TrackedSet: lambda live, world: set(_plain_members(live, world)),
    }
)
