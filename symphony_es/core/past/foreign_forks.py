"""Which foreign entities a log has, and what a fork takes along of them: their events, since these are all there is of them."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from typing import TYPE_CHECKING

from symphony_es.errors import DamagedEventError
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Damage
from symphony_es.events.foreign import AGGREGATE, FOREIGN_PREFIX, SNAPSHOT, TRACKING, followed_by, foreign_data, foreign_event
from symphony_es.events.identifiers import uuid7
from symphony_es.events.rows import decode_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from symphony_es.events.foreign import ForeignEvent
    from symphony_es.events.rows import Row
    from symphony_es.log.log import EventLog

__all__ = ["append_foreign", "foreign_at"]

_TRACKED = f"{TRACKING}:"


async def append_foreign(origin: EventLog, into: EventLog, position: int, damaged: dict[str, Damage]) -> int:
    """Append the foreign events of a log up to a position, in their order, to a fork of it.

    Their positions are others there. How far one application has come in following another is kept as its last word, and where the one
    that it follows stands in the same log, it is said in positions of the fork.

    Args:
        origin: the log. into: its fork.
        position: the last one.
        damaged: of damaged entities what is wrong, by key: they stay behind from there on. Those that are found to be are added.

    Returns:
        how many entities they are of.

    Raises:
        DamagedEventError: an event is damaged, and the log was not opened with `skip_damaged`.
        LogUnavailableError: the fork cannot be written.
    """
    if not any(name.startswith(FOREIGN_PREFIX) for name in origin.entity_types_now()):
        return 0
    versions: dict[str, int] = {}
    numbers: dict[str, int] = {}  # the highest ones that were taken along
    tracked: dict[str, ForeignEvent] = {}
    applications: set[str] = set()
    before, after = list[int](), list[int]()
    async for rows in origin.pages(origin.base_position, position):
        new: list[NewEvent] = []
        for row in rows:
            key, damage = row[1], damaged.get(row[1])
            if not key.startswith(FOREIGN_PREFIX) or (damage is not None and row[2] >= damage.version):
                continue
            event = _event_of(row, damaged)
            if event is None or _is_ahead(event, damaged, numbers):
                continue
            if key.startswith(_TRACKED):
                tracked[key] = event
                continue
            versions[key] = versions.get(key, 0) + 1
            numbers[key] = max(event.number, numbers.get(key, -1))
            applications.add(event.application)
            told = decode_row(row, checked=True)
            new.append(_copy(event, told.name, told.metadata, versions[key], event.number, new))
            before.append(event.position)
        if new:
            appended = await into.append(new)
            after += range(appended.first, appended.last + 1)
    last: list[NewEvent] = []
    for key, event in tracked.items():
        number = event.number
        if followed_by(key) in applications:
            seen = bisect_right(before, number)
            number = after[seen - 1] if seen else 0
        last.append(_copy(event, "Tracked", EventMetadata(), 1, number, last))
    if last:
        await into.append(last)
    return len(versions) + len(tracked)


async def foreign_at(log: EventLog, position: int) -> dict[str, tuple[int, int]]:
    """Return the foreign entities that a log has up to a position: version and position of the last event of each, by key.

    Costs the log up to there, where it has any.
    """
    found: dict[str, tuple[int, int]] = {}
    if any(name.startswith(FOREIGN_PREFIX) for name in log.entity_types_now()):
        async for rows in log.pages(log.base_position, position):
            found.update((row[1], (row[2], row[0])) for row in rows if row[1].startswith(FOREIGN_PREFIX))
    return dict(sorted(found.items()))


def _event_of(row: Row, damaged: dict[str, Damage]) -> ForeignEvent | None:
    """Decode the foreign event of a row; None of another one, and of one that says nothing, which damages its entity."""
    try:
        return foreign_event(row)
    except DamagedEventError as error:
        damaged[row[1]] = Damage(version=row[2], position=row[0], reason=error.why)
        return None


def _is_ahead(event: ForeignEvent, damaged: Mapping[str, Damage], numbers: Mapping[str, int]) -> bool:
    """Tell whether an event is the snapshot of an aggregate as it was with events that stay behind."""
    entity_type, _, entity_id = event.key.partition(":")
    aggregate = f"{AGGREGATE}:{entity_id}"
    return entity_type == SNAPSHOT and aggregate in damaged and event.number > numbers.get(aggregate, -1)


def _copy(event: ForeignEvent, name: str, metadata: EventMetadata, version: int, number: int, before: list[NewEvent]) -> NewEvent:
    highest = max(number, event.highest) if event.highest is not None else None
    return NewEvent(
        entity_key=event.key,
        version=version,
        name=name,
        changes=(),
        metadata=metadata,
        data=foreign_data(event.topic, event.state, version, number=number, application=event.application, highest=highest),
        event_id=uuid7(time.time_ns(), os.urandom(16)),
        transaction_id=before[0].event_id if before else None,
    )
