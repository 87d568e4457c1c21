"""A list that records its own changes; every mutating method of the builtin type is covered.

Each method works in the same order: run what is the user's (iterables, sort keys), ask the entity's record whether the change may
happen, convert and check the new values, record the change, change the list. A refusal leaves the list as it was.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.objects.edits import EDIT_WEIGHT, Edit, is_small, list_changes, list_edits, weight
from symphony_es.core.objects.mutation import Mutation, build_at, note_augmented, put_back
from symphony_es.core.objects.places import Move, own_new
from symphony_es.core.objects.plain import BUILDERS, MISSING, PLAIN_COPIES, UNOWNED, plain_at
from symphony_es.events.changes import APPEND, REMOVE, SET, SPLICE, Change
from symphony_es.events.values import plain_equal

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorder

__all__ = ["TrackedList"]


class TrackedList(list[Any]):
    """A list that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_base", "_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __new__(cls, items: Iterable[Any] = ()) -> list[Any]:  # type: ignore[misc]
        """Return a plain list: what is built with `type(x)(...)` from one that is tracked, as `dataclasses.asdict` does, is a copy."""
        return list(items)

    @classmethod
    def _symphony_make(cls, items: Iterable[Any] = (), world: Recorder | None = None, depth: int = 0) -> Self:
        """Return a tracked list that belongs nowhere yet."""
        made = list.__new__(cls)
        made._admit_all(items, world, depth)
        return made

    def _admit_all(self, items: Iterable[Any], world: Recorder | None, depth: int) -> None:
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        self._symphony_base = 0
        for index, item in enumerate(items):
            live = build_at(item, world, depth, index)
            own_new(live, self, index)
            super().append(live)

    def _symphony_key_of(self, child: Any) -> Any:
        """Return the child's index now, or MISSING.

        What a child keeps is its index plus the list's base, which is raised and lowered with what is taken out and put in near the
        beginning, so that it holds there as at the end. In between it is off by what was moved past it: the search goes outwards.
        """
        base, size = self._symphony_base, len(self)
        hint: int = child._symphony_key - base
        if 0 <= hint < size and self[hint] is child:
            return hint
        begin = low = high = min(max(hint, 0), size)
        found = MISSING
        while found is MISSING:
            low -= 1
            if low >= 0 and self[low] is child:
                found = low
            elif high < size and self[high] is child:
                found = high
            elif low < 0 and high >= size:
                return MISSING
            else:
                high += 1
        if (found - begin) ** 2 > size:
            self._number(0, size)  # far off, and others will be: a search costs less than the root of the size from now on
        child._symphony_key = found + base
        return found

    def _number(self, start: int, stop: int) -> None:
        base = self._symphony_base
        for index in range(start, stop):
            item = self[index]
            if type(item) not in UNOWNED and getattr(item, "_symphony_owner", None) is self:
                item._symphony_key = index + base

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (list(self),)

    # -- one way in ---------------------------------------------------------------------------------------------------

    def _symphony_undo(self, moves: list[Move], start: int, stop: int, old: list[Any]) -> None:
        """Put back what stood in the place of self[start:stop]."""
        left = super().__getitem__(slice(start, stop))
        self._fill(start, stop, old)
        put_back(self, moves, left, list(enumerate(old, start)))

    def _fill(self, start: int, stop: int, items: list[Any]) -> None:
        size = len(self)
        super().__setitem__(slice(start, stop), items)
        if start + stop < size:
            self._symphony_base += stop - start - len(items)  # fewer stand before the place than behind it

    def _replace(self, mutation: Mutation, start: int, stop: int, live: list[Any], changes: Sequence[Change]) -> None:
        """Record changes that put live values in the place of self[start:stop], and do so."""
        old = super().__getitem__(slice(start, stop))
        if mutation.recorded is not None:
            for at, item in enumerate(old, start):
                mutation.expect(item, at)
        mutation.replace(old, live)
        self._fill(start, stop, live)
        mutation.settle(enumerate(live, start))
        mutation.keep(changes, (self._symphony_undo, mutation.moves, start, start + len(live), old))
        mutation.bring(*live)

    def _splice(self, start: int, stop: int, values: Sequence[Any], mutation: Mutation) -> None:
        if not values and start == stop:
            return
        converted = mutation.convert_all([(start + offset, value) for offset, value in enumerate(values)])
        live, plain = [one for one, _ in converted], [other for _, other in converted]
        if start == stop:
            changes = list_changes(mutation.path, len(self), [(start, stop, 0, len(plain))], plain)
            self._replace(mutation, start, stop, live, changes)
            return
        old = super().__getitem__(slice(start, stop))
        edits = list_edits(old, live, lambda one, other: _same(old[one], live[other]))
        if edits:
            moved = [(start + at, start + to, lo, hi) for at, to, lo, hi in edits]
            self._replace(mutation, start, stop, live, list_changes(mutation.path, len(self), moved, plain))

    def append(self, value: Any, /) -> None:
        """Append a value."""
        with Mutation(self) as mutation:
            at = len(self)
            live, plain = mutation.convert(value, at)
            if type(live) in UNOWNED:  # it owns nothing, is owned by nobody and brings nobody along
                list.append(self, live)
                mutation.keep_one((APPEND, mutation.path, plain), (self._symphony_undo, mutation.moves, at, at + 1, []))
                return
            mutation.replace((), [live])
            super().append(live)
            mutation.settle([(at, live)])
            change: Change = (APPEND, mutation.path, plain) if is_small(plain) else (SPLICE, mutation.path, at, at, [plain])
            mutation.keep_one(change, (self._symphony_undo, mutation.moves, at, at + 1, []))
            mutation.bring(live)

    def extend(self, values: Iterable[Any], /) -> None:
        """Append all values."""
        given = list(values)
        with Mutation(self) as mutation:
            self._splice(len(self), len(self), given, mutation)

    def insert(self, index: SupportsIndex, value: Any, /) -> None:
        """Insert a value before an index."""
        wanted = operator.index(index)
        with Mutation(self) as mutation:
            at = slice(wanted, None).indices(len(self))[0]
            self._splice(at, at, [value], mutation)

    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """Remove and return the value at an index."""
        wanted = operator.index(index)
        with Mutation(self) as mutation:
            if not self:
                raise IndexError("pop from empty list")
            at = _place(wanted, len(self), "pop index out of range")
            value = self[at]
            self._remove(at, mutation)
            return value

    def remove(self, value: Any, /) -> None:
        """Remove the first equal value."""
        while True:
            at = self.index(value)  # compares, with what the user wrote: not under the lock
            found = self[at]
            with Mutation(self) as mutation:
                if at < len(self) and self[at] is found:
                    self._remove(at, mutation)
                    return

    def _remove(self, at: int, mutation: Mutation) -> None:
        self._replace(mutation, at, at + 1, [], [(REMOVE, (*mutation.path, at))])

    def clear(self) -> None:
        """Remove everything."""
        with Mutation(self) as mutation:
            self._splice(0, len(self), [], mutation)

    def _arrange(self, arranged: list[Any], mutation: Mutation) -> None:
        """Have exactly these members, all of which are here already, in this order: they stay the objects they are."""
        edits = list_edits(self, arranged, lambda one, other: self[one] is arranged[other])
        if edits:
            start, stop = edits[-1][0], edits[0][1]
            changes = list_changes(mutation.path, len(self), edits, _Plain(arranged, mutation) if mutation.sink is not None else arranged)
            self._replace(mutation, start, stop, arranged[start : edits[0][3]], changes)

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place.

        Raises:
            ValueError: the list was changed while it was sorted, by the key function or another thread. It is not sorted.
        """
        before = list(self)
        arranged = sorted(before, key=key, reverse=reverse)
        with Mutation(self) as mutation:
            if len(self) != len(before) or not all(map(operator.is_, self, before)):
                raise ValueError("list modified during sort")
            self._arrange(arranged, mutation)

    def reverse(self) -> None:
        """Reverse in place."""
        with Mutation(self) as mutation:
            self._arrange(self[::-1], mutation)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            wanted = operator.index(index)
            with Mutation(self) as mutation:
                self._set(_place(wanted, len(self), "list assignment index out of range"), value, mutation)
            return
        wanted_slice, values = _resolved(index), list(value)
        with Mutation(self) as mutation:
            start, stop, step = wanted_slice.indices(len(self))
            if step == 1:
                self._splice(start, max(start, stop), values, mutation)
            else:
                self._set_each(range(len(self))[wanted_slice], values, mutation)

    def _set(self, at: int, value: Any, mutation: Mutation) -> None:
        old = self[at]
        if value is old and mutation.is_in_place(old, at):
            return
        live, plain = mutation.convert(value, at)
        changes = mutation.changes_at(at, old, live, plain)
        self._replace(mutation, at, at + 1, [live], changes)

    def _set_each(self, places: range, values: list[Any], mutation: Mutation) -> None:
        if len(values) != len(places):
            raise ValueError(f"attempt to assign sequence of size {len(values)} to extended slice of size {len(places)}")
        pairs = sorted(zip(places, mutation.convert_all(zip(places, values, strict=True)), strict=True))
        changes = [(SET, (*mutation.path, at), plain) for at, (live, plain) in pairs if not _same(self[at], live)]
        if changes:
            start, stop = pairs[0][0], pairs[-1][0] + 1
            new = self[start:stop]
            for at, (live, _) in pairs:
                new[at - start] = live
            self._replace(mutation, start, stop, new, changes)

    def __delitem__(self, index: Any) -> None:
        if not isinstance(index, slice):
            wanted = operator.index(index)
            with Mutation(self) as mutation:
                self._remove(_place(wanted, len(self), "list assignment index out of range"), mutation)
            return
        wanted_slice = _resolved(index)
        with Mutation(self) as mutation:
            start, stop, step = wanted_slice.indices(len(self))
            if step == 1:
                self._splice(start, max(start, stop), [], mutation)
            else:
                self._drop(range(len(self))[wanted_slice], mutation)

    def _drop(self, places: range, mutation: Mutation) -> None:
        """Remove what stands at places with gaps between them."""
        if places:
            ascending = places if places.step > 0 else places[::-1]
            start, stop = ascending[0], ascending[-1] + 1
            kept = [item for at, item in enumerate(self[start:stop], start) if at not in ascending]
            edits: list[Edit] = [(at, at + 1, 0, 0) for at in reversed(ascending)]
            if weight(edits) > len(kept) + EDIT_WEIGHT:
                edits = [(start, stop, 0, len(kept))]
            changes = list_changes(mutation.path, len(self), edits, _Plain(kept, mutation) if mutation.sink is not None else kept)
            self._replace(mutation, start, stop, kept, changes)

    def __iadd__(self, values: Iterable[Any]) -> Self:  # type: ignore[misc]
        self.extend(values)
        note_augmented(self)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        wanted = operator.index(times)
        with Mutation(self) as mutation:
            if wanted <= 0:
                self._splice(0, len(self), [], mutation)
            else:
                self._splice(len(self), len(self), list(self) * (wanted - 1), mutation)
        note_augmented(self)
        return self


class _Plain(Sequence[Any]):
    """The plain form of items, made as they are asked for."""

    def __init__(self, items: list[Any], mutation: Mutation) -> None:
        self.items, self.mutation = items, mutation

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [plain_at(item, self.mutation.world, at) for at, item in enumerate(self.items[index])]
        return plain_at(self.items[index], self.mutation.world, index)


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) in UNOWNED and type(other) is type(one) and plain_equal(one, other))


def _place(index: int, size: int, refusal: str) -> int:
    at = index + size if index < 0 else index
    if not 0 <= at < size:
        raise IndexError(refusal)
    return at


def _resolved(index: slice) -> slice:
    """Return a slice of whole numbers: what the user's objects say has been asked."""
    parts = (index.start, index.stop, index.step)
    return slice(*(None if part is None else operator.index(part) for part in parts))


BUILDERS[list] = TrackedList._symphony_make
PLAIN_COPIES[TrackedList] = lambda live, world: [plain_at(item, world, index) for index, item in enumerate(live)]
