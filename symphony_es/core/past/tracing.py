"""Following the value at one path through the events of an entity: which of them set it, and what it was after each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.core.past.effects import Comparison, Effect, effect_on, same
from symphony_es.core.past.entity_events import events_of, kept_from, must_exist, must_have_states, must_have_stood
from symphony_es.core.past.renames import path_in_time
from symphony_es.core.past.unrecorded import unrecorded
from symphony_es.core.past.walk import Walk
from symphony_es.events.changes import EXTEND, SET, Change, apply_changes
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import Event
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import Path
from symphony_es.events.values import Tagged, copy_plain

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory

__all__ = ["Setting", "ValueChain", "ValueTrace"]

LEAST_REPLAYED = 16
REPLAYED_SHARE = 4
TEXT_ROOM = 1024
"""A value is kept again after so many changes inside it, or after a quarter of what it consists of, whichever is more: as many changes are
applied as fast as the value is copied, and all that is kept is a small multiple of what the events say. Characters count as one item."""


class Setting(NamedTuple):
    """An event that set a value.

    Attributes:
        event: the event.
        path: where the value stands after it.
        inside: the changes inside the value that it made, with paths that begin at it; None where it may be another one as a whole.
        value: what stands there now: that of the trace, to be read before it goes on, and not to be changed.
        told: everything that the event changed, where that was asked for.
        before: then, where `inside` is None, what stood there before.
    """

    event: Event
    path: Path
    inside: list[Change] | None
    value: Any
    told: list[ValueChange]
    before: Any


class ValueTrace:
    """Follows the value at a path through an entity's events: `begin()`, then `settings()`.

    An event sets a value where it gives it another one, whether by a change at its path, around it or inside it, or by items of a list that
    come, go or move before it; and where it sets it, by its own path, to what it was. What one event left, the next one found.

    Args:
        history: the log's past states.
        names: tells declared fields and upcasts.
        key: `Type:id`.
        path: where the value stands at the end; empty for the whole entity.
        until: only events up to this position.
        tell: with every value that the events changed.
    """

    def __init__(self, history: StateHistory, names: Names, key: str, path: Path, until: int | None, *, tell: bool = False) -> None:
        self._history = history
        self._names = names
        self._key = key
        self._path = path
        self._until = until
        self._tell = tell

    async def begin(self) -> Any:
        """Return what stood there before the first event: `ABSENT`, but in memory, where earlier events are no longer kept."""
        self._in_time = await path_in_time(self._history, self._names, self._key, self._path, self._until)
        self._kept = kept_from(self._history, self._key)
        self._walk = Walk(self._kept)
        return self._value(self._in_time.at(self._kept.version)) if self._kept is not None else ABSENT

    def _value(self, path: Path) -> Any:
        return ABSENT if self._walk.state is None else value_at(self._walk.state, path)

    async def settings(self) -> AsyncIterator[Setting]:
        """Yield the events that set the value, oldest first.

        Raises:
            EntityNotFoundError: there never was such an entity.
            UnknownPathError: nothing has ever stood there; raised at the end.
            DamagedEventError: an event is damaged.
        """
        must_have_states(self._history, self._key)
        kept, walk = self._kept, self._walk
        first, seen = kept.version if kept is not None else 0, kept is not None
        stood = self._value(self._in_time.at(first)) is not ABSENT
        async for event in events_of(self._history, self._key, first, self._until):
            seen = True
            before, after = self._in_time.at(event.version - 1), self._in_time.at(event.version)
            if not walk.fits(event):
                continue
            found = self._take(event, before, after)
            if found is not None:
                stood = stood or found.value is not ABSENT
                yield found
        if not seen:
            must_exist(self._history, self._key)
        path = self._path
        if stood or not path or (len(path) == 1 and path[0] in self._names.declared_fields(self._key.partition(":")[0])):
            return
        if await unrecorded(self._history, self._names, self._key, path) is None:
            await must_have_stood(self._history, self._names, self._key, path)

    def _take(self, event: Event, one: Path, other: Path) -> Setting | None:
        """Apply an event; None where it does not set the value."""
        walk = self._walk
        effect = effect_on(walk.state, event.changes, other) if one == other else _renaming(event, other)
        if effect is None:
            walk.apply(event)
            return None
        value, before, comparison = self._value(one), ABSENT, None
        if effect.inside is None:
            before = copy_plain(value) if self._tell or not effect.sets else ABSENT
        elif not effect.sets:
            comparison = Comparison(value, effect.inside)
        told = walk.apply(event, tell=self._tell)
        value = self._value(other)
        sets = effect.sets or (comparison.differs(value) if comparison is not None else not same(before, value))
        return Setting(event, other, effect.inside, value, told, before) if sets else None


def _renaming(event: Event, path: Path) -> Effect:
    """Return what an event does that gives the value another name."""
    return Effect(any(change[0] in (SET, EXTEND) and tuple(change[1]) == path for change in event.changes), None)


class ValueChain:
    """What a value was after each of the events that set it, kept by what they changed inside it.

    Args:
        start: what it was before the first one.
    """

    def __init__(self, start: Any) -> None:
        self._changes: list[Sequence[Change]] = []
        self._kept_at: list[int] = []
        self._kept: list[Any] = []
        self._keep(start)

    def add(self, setting: Setting) -> None:
        """Take the next event that set the value."""
        self._changes.append(setting.inside or ())
        self._waiting += len(setting.inside or ())
        if setting.inside is None or self._waiting >= self._most_waiting:
            self._keep(setting.value)

    def _keep(self, value: Any) -> None:
        self._kept_at.append(len(self._changes))
        self._kept.append(copy_plain(value))
        self._waiting, self._most_waiting = 0, max(LEAST_REPLAYED, _items(value) // REPLAYED_SHARE)

    def after(self, count: int) -> Any:
        """Return a copy of what the value was after so many of the events. Costs what it consists of."""
        at = bisect_right(self._kept_at, count) - 1
        holder: dict[str, Any] | None = {"": copy_plain(self._kept[at])}
        for change in chain.from_iterable(islice(self._changes, self._kept_at[at], count)):
            holder = apply_changes(holder, [(change[0], ("", *change[1]), *change[2:])])
        assert holder is not None
        return holder[""]


def _items(value: Any) -> int:
    """Return how many values one consists of."""
    count = 0
    below: list[Any] = [value]
    while below:
        top = below.pop()
        count += 1
        item: Any = top.data if type(top) is Tagged and top.kind != "enum" else top
        if type(item) is dict:
            below.extend(item.values())
        elif type(item) in (list, tuple, set):
            below.extend(item)
        elif type(item) in (str, bytes):
            count += len(item) // TEXT_ROOM
    return count
