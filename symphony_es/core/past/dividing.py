"""Appending whole states: those that are larger than an event may be take several events of the same transaction."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from symphony_es.errors import LimitExceededError
from symphony_es.events.changes import Change
from symphony_es.events.event import NewEvent
from symphony_es.events.identifiers import uuid7
from symphony_es.events.splitting import split_change

if TYPE_CHECKING:
    from symphony_es.log.log import EventLog

__all__ = ["append_divided"]


async def append_divided(log: EventLog, events: Sequence[NewEvent]) -> Sequence[NewEvent]:
    """Append a transaction of events of different entities, and divide those that are too large.

    Returns:
        the events as they were appended: an entity's last one has its version.

    Raises:
        LimitExceededError: a single text, or another value that cannot be divided, is too large; nothing was appended.
        ConcurrencyError, LogUnavailableError: as of `EventLog.append`.
    """
    try:
        await log.append(events)
    except LimitExceededError:
        events = [piece for event in events for piece in _divide(log, event)]
        await log.append(events)
    return events


def _divide(log: EventLog, event: NewEvent) -> list[NewEvent]:
    """Return an event as several that the log takes; itself where it does."""
    waiting: list[Sequence[Change]] = [event.changes]  # the next one last
    made: list[NewEvent] = []
    while waiting:
        changes = waiting.pop()
        piece = replace(event, changes=changes)
        if made:
            transaction_id = event.transaction_id or event.event_id
            event_id = uuid7(time.time_ns(), os.urandom(16))
            piece = replace(piece, version=event.version + len(made), event_id=event_id, transaction_id=transaction_id, data=None)
        try:
            log.prepare(piece)
        except LimitExceededError:
            parts = changes if len(changes) > 1 else split_change(changes[0]) if changes else ()
            if len(parts) < 2:
                raise
            half = len(parts) // 2
            waiting += [parts[half:], parts[:half]]
            continue
        made.append(piece)
    return made
