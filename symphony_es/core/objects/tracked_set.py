"""A set that records its own changes; every mutating method of the builtin type is covered.

Each method works in the same order: run what is the user's (iterables, `==` of members), ask the entity's record whether the change
may happen, convert and check the new members, record the change, change the set. A refusal leaves the set as it was.

What Python's `==` takes out of a set is recorded as it is stored: `{"red"}.discard(Colour.RED)` of a `StrEnum` discards the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.objects.mutation import Mutation, build_at, note_augmented
from symphony_es.core.objects.plain import BUILDERS, MISSING, PLAIN_COPIES, kind_of, plain_at, plain_of
from symphony_es.core.objects.stored import stored
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, DISCARD, SET

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorder

__all__ = ["TrackedSet"]


class TrackedSet(set[Any]):
    """A set that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __new__(cls, items: Iterable[Any] = ()) -> set[Any]:  # type: ignore[misc]
        """Return a plain set: what is built with `type(x)(...)` from one that is tracked, as `dataclasses.asdict` does, is a copy."""
        return set(items)

    @classmethod
    def _symphony_make(cls, items: Iterable[Any] = (), world: Recorder | None = None, depth: int = 0) -> Self:
        """Return a tracked set that belongs nowhere yet."""
        made = set.__new__(cls)
        made._admit_all(items, world, depth)
        return made

    def _admit_all(self, items: Iterable[Any], world: Recorder | None, depth: int) -> None:
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        for item in items:
            live = build_at(item, world, depth, "{}")
            _check_member(live)
            super().add(live)

    def __repr__(self) -> str:
        return repr(set(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return set, (set(self),)

    # -- one way in ---------------------------------------------------------------------------------------------------

    def _symphony_undo(self, come: set[Any], gone: set[Any]) -> None:
        """Take out what came, and put back what went."""
        super().difference_update(come)
        super().update(gone)

    def _add_all(self, given: Sequence[Any], mutation: Mutation) -> None:
        """Add members, or none if one of them is refused."""
        converted = mutation.convert_all([("{}", member) for member in given])
        for live, _ in converted:
            try:
                _check_member(live)
            except UnstorableValueError as error:
                raise error.within(mutation.record.key if mutation.record else None, (*mutation.path, "{}")) from None
        for live, plain in converted:
            if live not in self:
                super().add(live)
                mutation.keep([(ADD, mutation.path, plain)], (self._symphony_undo, {live}, set()))
                mutation.bring(live)

    def _drop_all(self, members: Iterable[Any], mutation: Mutation) -> None:
        """Take out members, given as they are stored."""
        for member in members:
            if member in self:
                plain = plain_of(member, mutation.world) if mutation.sink is not None else None
                super().discard(member)
                mutation.keep([(DISCARD, mutation.path, plain)], (self._symphony_undo, set(), {member}))

    def add(self, member: Any, /) -> None:
        """Add a member."""
        with Mutation(self) as mutation:
            self._add_all([member], mutation)

    def discard(self, member: Any, /) -> None:
        """Remove a member if it is there."""
        known = stored(self, member)
        if known is not MISSING:
            with Mutation(self) as mutation:
                self._drop_all([known], mutation)

    def remove(self, member: Any, /) -> None:
        """Remove a member; KeyError when it is not there."""
        known = stored(self, member)
        with Mutation(self) as mutation:
            if known is MISSING or known not in self:
                raise KeyError(member)
            self._drop_all([known], mutation)

    def pop(self) -> Any:
        """Remove and return some member."""
        with Mutation(self) as mutation:
            if not self:
                raise KeyError("pop from an empty set")
            member = next(iter(self))
            self._drop_all([member], mutation)
            return member

    def clear(self) -> None:
        """Remove everything."""
        with Mutation(self) as mutation:
            if self:
                old = set(self)
                super().clear()
                mutation.keep([(SET, mutation.path, set())], (self._symphony_undo, set(), old))

    def update(self, *others: Iterable[Any]) -> None:
        """Add all members of the others, or none if one of them is refused."""
        given = [member for other in others for member in other]
        with Mutation(self) as mutation:
            self._add_all(given, mutation)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove all members of the others."""
        doomed = [stored(self, member) for other in others for member in other]
        with Mutation(self) as mutation:
            self._drop_all([member for member in doomed if member is not MISSING], mutation)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep what all others have as well."""
        kept = set(self).intersection(*others)
        doomed = [member for member in self if member not in kept]
        with Mutation(self) as mutation:
            self._drop_all(doomed, mutation)

    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        """Keep what exactly one of the two has."""
        doomed: list[Any] = []
        new: list[Any] = []
        for member in dict.fromkeys(other):
            known = stored(self, member)
            (new if known is MISSING else doomed).append(member if known is MISSING else known)
        with Mutation(self) as mutation:
            self._add_all(new, mutation)
            self._drop_all(doomed, mutation)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        result: Self = self._augmented(TrackedSet.update, other)
        return result

    def __isub__(self, other: Any) -> Self:  # type: ignore[misc]
        result: Self = self._augmented(TrackedSet.difference_update, other)
        return result

    def __iand__(self, other: Any) -> Self:  # type: ignore[misc]
        result: Self = self._augmented(TrackedSet.intersection_update, other)
        return result

    def __ixor__(self, other: Any) -> Self:  # type: ignore[misc]
        result: Self = self._augmented(TrackedSet.symmetric_difference_update, other)
        return result

    def _augmented(self, method: Any, other: Any) -> Any:
        """Return what an operator with `=` does; with what is no set, Python tries the other's operator, as for `set |= dict.keys()`."""
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        method(self, other)
        note_augmented(self)
        return self


def _check_member(live: Any) -> None:
    if kind_of(live) in ("part", "container"):
        raise UnstorableValueError((), f"a {type(live).__name__} can change in place and cannot be a member of a set")
    if _holds_nan(live):
        raise UnstorableValueError((), "NaN cannot be a member of a set: it equals nothing, so it could never be removed")


def _holds_nan(live: Any) -> bool:
    if type(live) is tuple:
        return any(map(_holds_nan, live))
    if kind_of(live) == "value":
        return any(_holds_nan(getattr(live, name)) for name in type(live)._symphony_spec.fields)
    return (type(live) is float and live != live) or (type(live) is Decimal and live.is_nan())


def _plain_members(live: TrackedSet, world: Recorder | None) -> Iterator[Any]:
    for member in live:
        yield plain_at(member, world, "{}")


BUILDERS[set] = TrackedSet._symphony_make
PLAIN_COPIES[TrackedSet] = lambda live, world: set(_plain_members(live, world))
