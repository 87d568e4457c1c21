"""A dict that records its own changes; every mutating method of the builtin type is covered.

Each method works in the same order: run what is the user's (iterables, `==` of keys), ask the entity's record whether the change may
happen, convert and check the new values, record the change, change the dict. A refusal leaves the dict as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.objects.mutation import Mutation, build_at, note_augmented, put_back
from symphony_es.core.objects.places import Move, own_new
from symphony_es.core.objects.plain import BUILDERS, MISSING, PLAIN_COPIES, UNOWNED, plain_at
from symphony_es.core.objects.stored import stored
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.events.values import check_plain
from symphony_es.shown import type_shown

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorder

__all__ = ["TrackedDict"]

_KEYS = frozenset({str, int})


def check_key(key: Any) -> None:
    """Refuse a key that is not exactly text or a whole number: True would come back as 1.

    Raises:
        UnstorableValueError: it is anything else.
    """
    if type(key) is str and key.isascii():
        return
    if type(key) is not str and type(key) is not int:
        raise UnstorableValueError((), f"one of its dict keys is {type_shown(key)}; keys are str or int")
    check_plain(key)


class TrackedDict(dict[Any, Any]):
    """A dict that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __new__(cls, items: Mapping[Any, Any] | Iterable[Any] = ()) -> dict[Any, Any]:  # type: ignore[misc]
        """Return a plain dict: what is built with `type(x)(...)` from one that is tracked, as `dataclasses.asdict` does, is a copy."""
        return dict(items)

    @classmethod
    def _symphony_make(cls, items: Mapping[Any, Any] | Iterable[Any] = (), world: Recorder | None = None, depth: int = 0) -> Self:
        """Return a tracked dict that belongs nowhere yet."""
        made = dict.__new__(cls)
        made._admit_all(items, world, depth)
        return made

    def _admit_all(self, items: Mapping[Any, Any] | Iterable[Any], world: Recorder | None, depth: int) -> None:
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        for key, item in dict(items).items():
            check_key(key)
            live = build_at(item, world, depth, key)
            own_new(live, self, key)
            super().__setitem__(key, live)

    def _symphony_key_of(self, child: Any) -> Any:
        key = child._symphony_key
        return key if super().get(key, MISSING) is child else MISSING

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (dict(self),)

    # -- one way in ---------------------------------------------------------------------------------------------------

    def _stored(self, key: Any) -> Any:
        """Return the key as it is stored: the one that equals what was given, or MISSING."""
        if type(key) in _KEYS:
            return key if key in self else MISSING
        return stored(self, key)

    def _new_key(self, key: Any) -> Any:
        """Return the key that a value is put under: one that equals it and is there already, else itself."""
        if type(key) in _KEYS:
            return key
        known = stored(self, key)
        return key if known is MISSING else known

    def _symphony_undo(self, moves: list[Move], before: dict[Any, Any]) -> None:
        """Put back what stood under keys, or nothing."""
        left = [super(TrackedDict, self).get(key, MISSING) for key in before]
        for key, live in before.items():
            if live is MISSING:
                super().pop(key, None)
            else:
                super().__setitem__(key, live)
        put_back(self, moves, left, [(key, live) for key, live in before.items() if live is not MISSING])

    def _put_plain(self, key: Any, value: Any, mutation: Mutation) -> bool:
        """Return what `_put` does for one value that cannot change where there is none, or one that cannot change either; whether it was
        that.

        It assumes that such values own nothing, are owned by nobody and bring nobody along, so that no place has to be looked after.
        """
        old = dict.get(self, key, MISSING)  # `super()` takes longer
        if type(value) not in UNOWNED or not (old is MISSING or type(old) in UNOWNED) or type(key) not in _KEYS:
            return False
        if type(key) is str and not key.isascii():
            return False  # it may hold what cannot be stored
        live, plain = mutation.convert(value, key)
        if mutation.recorded is not None and mutation.recorded.get(key, MISSING) is not old:
            mutation.expect(old, key)
        dict.__setitem__(self, key, live)
        mutation.keep_one((SET, (*mutation.path, key), plain), (self._symphony_undo, mutation.moves, {key: old}))
        return True

    def _put(self, given: dict[Any, Any], mutation: Mutation) -> None:
        """Set all given items: one mutation, of which nothing is done if anything of it is refused."""
        for key in given:
            try:
                check_key(key)
            except UnstorableValueError as error:
                raise error.within(mutation.record.key if mutation.record else None, mutation.path) from None
        changed = {}
        for key, value in given.items():
            old = super().get(key, MISSING)
            if value is not old or not mutation.is_in_place(old, key):
                changed[key] = value
        converted = dict(zip(changed, mutation.convert_all(changed.items()), strict=True))
        before = {key: super(TrackedDict, self).get(key, MISSING) for key in converted}
        if mutation.recorded is not None:
            for key, item in before.items():
                mutation.expect(item, key)
        changes: list[Change] = []
        for key, (live, plain) in converted.items():
            changes += mutation.changes_at(key, before[key], live, plain)
        new = [live for live, _ in converted.values()]
        mutation.replace(before.values(), new)
        for key, live in zip(converted, new, strict=True):
            super().__setitem__(key, live)
        mutation.settle(zip(converted, new, strict=True))
        mutation.keep(changes, (self._symphony_undo, mutation.moves, before))
        mutation.bring(*new)

    def _drop(self, key: Any, mutation: Mutation) -> Any:
        """Remove a key that is there, and return its value."""
        old = super().__getitem__(key)
        if mutation.recorded is not None:
            mutation.expect(old, key)
        mutation.replace([old], [])
        super().__delitem__(key)
        mutation.keep([(REMOVE, (*mutation.path, key))], (self._symphony_undo, mutation.moves, {key: old}))
        return old

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) not in _KEYS:
            key = self._new_key(key)
        with Mutation(self) as mutation:
            if not self._put_plain(key, value, mutation):
                self._put({key: value}, mutation)

    def __delitem__(self, key: Any) -> None:
        known = self._stored(key)
        with Mutation(self) as mutation:
            if known is MISSING or known not in self:
                raise KeyError(key)
            self._drop(known, mutation)

    def pop(self, key: Any, /, *default: Any) -> Any:
        """Remove a key and return its value."""
        known = self._stored(key)
        with Mutation(self) as mutation:
            if known is MISSING or known not in self:
                return super().pop(key, *default)
            return self._drop(known, mutation)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the last item."""
        with Mutation(self) as mutation:
            if not self:
                raise KeyError("popitem(): dictionary is empty")
            key = next(reversed(self))
            return key, self._drop(key, mutation)

    def clear(self) -> None:
        """Remove everything."""
        with Mutation(self) as mutation:
            if self:
                old = dict(self)
                mutation.replace(old.values(), [])
                super().clear()
                mutation.keep([(SET, mutation.path, {})], (self._symphony_undo, mutation.moves, old))

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """Return the value under a key, which is set to the default when it is missing."""
        key = self._new_key(key)
        with Mutation(self) as mutation:
            if key not in self:
                self._put({key: default}, mutation)
            return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Set all given items, or none if one of them is refused."""
        given = {self._new_key(key): value for key, value in dict(*others, **named).items()}
        with Mutation(self) as mutation:
            self._put(given, mutation)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        note_augmented(self)
        return self


BUILDERS[dict] = TrackedDict._symphony_make
PLAIN_COPIES[TrackedDict] = lambda live, world: {key: plain_at(item, world, key) for key, item in live.items()}
