"""A set that records its own changes; every mutating method of the builtin type is covered.

Each method works in the same order: ask the entity's record whether the change may happen (it may belong to a transaction, or be
refused), convert the new values, change the container, record the change together with what undoes it. A refusal leaves the
container as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.state.tracking.live import BUILDERS, PLAIN_COPIES, entities_in, kind_of, plain_at, plain_of
from symphony_es.core.state.tracking.site import Site, build_at, whole
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, DISCARD, SET
from symphony_es.events.values import check_plain

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership

__all__ = ["TrackedSet"]

_HAVE_TWINS = frozenset({bool, int, float, Decimal, tuple})
"""Types with values that are equal and not the same: 1, True and 1.0. What is stored has to be found, not what was given."""


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

    @whole
    def discard(self, member: Any, /) -> None:
        """Remove a member if it is there."""
        if member in self:
            with Site(self) as site:
                stored = next(item for item in self if item == member) if type(member) in _HAVE_TWINS else member
                super().discard(member)
                site.recorded((DISCARD, site.path, plain_of(stored, site.world)), (self._put, stored))

    @whole
    def remove(self, member: Any, /) -> None:
        """Remove a member; KeyError when it is not there."""
        if member not in self:
            raise KeyError(member)
        self.discard(member)

    @whole
    def pop(self) -> Any:
        """Remove and return some member."""
        if not self:
            raise KeyError("pop from an empty set")
        member = next(iter(self))
        self.discard(member)
        return member

    @whole
    def clear(self) -> None:
        """Remove everything."""
        if self:
            with Site(self) as site:
                old = set(self)
                self._refill(set())
                site.recorded((SET, site.path, set()), (self._refill, old))

    def _refill(self, members: set[Any]) -> None:
        super().clear()
        super().update(members)

    @whole
    def update(self, *others: Iterable[Any]) -> None:
        """Add all members of the others."""
        for member in [member for other in others for member in other]:
            self.add(member)

    @whole
    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove all members of the others."""
        for member in [member for other in others for member in other]:
            self.discard(member)

    @whole
    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep what all others have as well."""
        self.difference_update(set(self).difference(set(self).intersection(*others)))

    @whole
    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        """Keep what exactly one of the two has."""
        members = set(other)
        common = members & self
        self.update(members - common)
        self.difference_update(common)

    @whole
    def __ior__(self, other: Any) -> Self:
        self.update(_as_set(other))
        return self

    @whole
    def __isub__(self, other: Any) -> Self:
        self.difference_update(_as_set(other))
        return self

    @whole
    def __iand__(self, other: Any) -> Self:
        self.intersection_update(_as_set(other))
        return self

    @whole
    def __ixor__(self, other: Any) -> Self:
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


BUILDERS[set] = TrackedSet
PLAIN_COPIES[TrackedSet] = lambda live, world: set(_plain_members(live, world))
