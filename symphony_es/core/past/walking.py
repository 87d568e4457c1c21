"""A walk through all versions of one entity in one pass, oldest or newest first.

Events lead forward only. To go back, the states at every so many versions are kept from one pass, and each stretch between two of them
is folded once more, the last one first: two passes in all, and room for about twice the root of the number of versions in states.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from math import isqrt
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.entity_events import events_of, kept_from, must_exist
from symphony_es.core.past.walk import Walk
from symphony_es.events.event import Event
from symphony_es.events.fold import Damage, EntityState
from symphony_es.events.readable import readable
from symphony_es.events.values import copy_plain
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from symphony_es.core.past.states import StateHistory

__all__ = ["VersionState", "walk"]

State = dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VersionState:
    """One version of an entity, and its whole state then.

    Attributes:
        event: the event that made it.
        data: its state right after that, plain data of the caller's own; None where it was deleted. Of an entity that is damaged, the
            last good one.
        damage: since when, and why, it is damaged; None where it is not.
    """

    event: Event
    data: State
    damage: Damage | None = None

    @property
    def version(self) -> int:
        """The version's number, from 1."""
        return self.event.version

    @property
    def position(self) -> int:
        """The position of its event."""
        return self.event.position

    def __repr__(self) -> str:
        return f"<version {self.version} at position {self.position}: {self.event.name}>"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: that of the event, and `state`."""
        return {**self.event.to_dict(), "state": readable(self.data)}


async def walk(
    history: StateHistory, key: str, *, since: int = 0, until: int | None = None, newest_first: bool = False
) -> AsyncIterator[VersionState]:
    """Yield every version of an entity with its state, in one pass; in memory those that are kept.

    Args:
        since: only those after this position.
        until: only those up to this position.
        newest_first: begin with the last one.

    Raises:
        EntityNotFoundError: there never was such an entity.
        DamagedEventError: an event's check value does not hold.
    """
    kept = kept_from(history, key)
    if newest_first:
        async for item in _backwards(history, key, kept, since, until):
            yield item
        return
    seen, going = kept is not None, Walk(kept)
    async for event in events_of(history, key, kept.version if kept is not None else 0, until):
        seen = True
        going.take(event)
        if event.position > since:
            yield VersionState(event=event, data=copy_plain(going.state), damage=going.damage)
    if not seen:
        must_exist(history, key)


async def _backwards(
    history: StateHistory, key: str, kept: EntityState | None, since: int, until: int | None
) -> AsyncIterator[VersionState]:
    begun: list[EntityState | None] = []  # the state that each stretch begins with
    events = [event async for event in events_of(history, key, kept.version if kept is not None else 0, until)]
    if not events:
        must_exist(history, key)
    stretch, going = isqrt(len(events)) + 1, Walk(kept)
    for at, event in enumerate(events):
        if at % stretch == 0:
            begun.append(going.standing(key))
        going.take(event)
    while begun:
        for item in reversed(list(_stretch(begun.pop(), events[len(begun) * stretch :]))):
            if item.event.position <= since:
                return
            yield item
        del events[len(begun) * stretch :]


def _stretch(start: EntityState | None, events: list[Event]) -> Iterator[VersionState]:
    going = Walk(start)
    for event in events:
        going.take(event)
        yield VersionState(event=event, data=copy_plain(going.state), damage=going.damage)
