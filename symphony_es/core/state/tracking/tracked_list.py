"""A list that records its own changes; every mutating method of the builtin type is covered.

Each method works in the same order: ask the entity's record whether the change may happen (it may belong to a transaction, or be
refused), convert the new values, change the container, record the change together with what undoes it. A refusal leaves the
container as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.state.tracking.live import BUILDERS, PLAIN_COPIES, own, plain_at, plain_of, release
from symphony_es.core.state.tracking.site import Site, build_at, whole
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import APPEND, REMOVE, SET, SPLICE

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership

__all__ = ["TrackedList"]


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
            try:
                for offset, value in enumerate(values):
                    one, other = site.convert(value, start + offset)
                    own(one, self, start + offset)  # so that the same part given twice is copied the second time
                    live.append(one)
                    plain.append(other)
            except UnstorableValueError:
                for one in live:
                    release(one)
                raise
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

    @whole
    def extend(self, values: Iterable[Any], /) -> None:
        """Append all values."""
        self._splice(len(self), len(self), list(values))

    @whole
    def insert(self, index: SupportsIndex, value: Any, /) -> None:
        """Insert a value before an index."""
        at = slice(index, None).indices(len(self))[0]
        self._splice(at, at, [value])

    @whole
    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """Remove and return the value at an index."""
        value = self[index]
        del self[index]
        return value

    @whole
    def remove(self, value: Any, /) -> None:
        """Remove the first equal value."""
        del self[self.index(value)]

    @whole
    def clear(self) -> None:
        """Remove everything."""
        self._splice(0, len(self), [])

    def _reorder(self, arranged: list[Any]) -> None:
        """Put the same members into another order: they stay the objects they are."""
        with Site(self) as site:
            plain = [plain_of(item, site.world) for item in arranged] if site.sink is not None else []
            old = self._swap(0, len(self), arranged)
            site.recorded((SPLICE, site.path, 0, len(old), plain), (self._swap, 0, len(old), old))

    @whole
    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place."""
        self._reorder(sorted(self, key=key, reverse=reverse))

    @whole
    def reverse(self) -> None:
        """Reverse in place."""
        self._reorder(list(reversed(self)))

    def __setitem__(self, index: Any, value: Any) -> None:
        with Site(self) as site:
            if not isinstance(index, slice):
                at = range(len(self))[index]  # a negative index counted from the end; IndexError as a list's
                live, plain = site.convert(value, at)
                old = self._swap(at, at + 1, [live])
                site.recorded((SET, (*site.path, at), plain), (self._swap, at, at + 1, old), live)
                return
            start, stop, step = index.indices(len(self))
            if step == 1:
                self._splice(start, max(start, stop), list(value))
                return
            values, places = list(value), range(len(self))[index]
            if len(values) != len(places):
                raise ValueError(f"attempt to assign sequence of size {len(values)} to extended slice of size {len(places)}")
            for place, item in zip(places, values, strict=True):
                self[place] = item

    @whole
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

    @whole
    def __iadd__(self, values: Iterable[Any]) -> Self:
        self.extend(values)
        return self

    @whole
    def __imul__(self, count: SupportsIndex) -> Self:
        copies = list(self) * (count.__index__() - 1)
        if count.__index__() <= 0:
            self.clear()
        elif copies:
            self.extend(copies)
        return self


BUILDERS[list] = TrackedList
PLAIN_COPIES[TrackedList] = lambda live, world: [plain_at(item, world, index) for index, item in enumerate(live)]
