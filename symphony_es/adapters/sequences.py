"""Sequences of foreign events in a log: how they are appended, and read by their own numbers.

Nothing here knows a class of the library that they are of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from symphony_es.attribution import current_attribution
from symphony_es.errors import ConcurrencyError, DamagedEventError
from symphony_es.events.event import NewEvent
from symphony_es.events.foreign import Foreign, ForeignEvent, event_name, foreign_data, foreign_event
from symphony_es.events.identifiers import UUID7_RANDOM_BYTES, uuid7
from symphony_es.events.rows import Row
from symphony_es.log.arguments import LARGEST
from symphony_es.log.log import EventLog
from symphony_es.log.pages import PAGE_ROWS
from symphony_es.log.recorder import missing
from symphony_es.system import RandomBytes

__all__ = ["NumberTakenError", "Sequences"]

MAX_KNOWN_ENDS = 10_000


class NumberTakenError(Exception):
    """A sequence has an event with this number, or one that is behind it where numbers must go up; nothing was appended."""


class _End(NamedTuple):
    """The end of a sequence: the version of its last event, the highest number, and whether numbers have always gone up."""

    version: int
    highest: int
    rising: bool


_NOTHING = _End(0, -1, rising=True)


class Sequences:
    """The sequences of foreign events in one log. All calls block; several threads may make them at once.

    Args:
        log: the log, whoever has opened it.
        notified: the type of the entities whose events are notifications.
    """

    def __init__(self, log: EventLog, notified: str) -> None:
        self.log = log
        self.listeners: set[threading.Event] = set()
        """Set when something was appended."""
        self._notified = notified
        self._random = RandomBytes(UUID7_RANDOM_BYTES)
        self._ends: dict[str, _End] = {}
        self._last: dict[str, tuple[int, int]] = {}  # by application: its last notification, and up to where one was looked for
        self._lock = threading.Lock()

    # -- appending ----------------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Foreign], *, rising: Sequence[Foreign] = (), application: str = "") -> range:
        """Append foreign events together, in order, and wait until they are durable.

        Args:
            events: the events.
            rising: further ones in the same transaction, of sequences whose numbers must go up.
            application: name of the application that records them.

        Returns:
            the positions of `events`.

        Raises:
            NumberTakenError: a sequence has one of these numbers, or a higher one where numbers must go up; nothing was appended.
            SymphonyError: as of `EventLog.append`.
        """
        if not events and not rising:
            return range(0)
        while True:
            ends: dict[str, _End] = {}
            new = self._numbered(events, rising, ends, application)
            try:
                appended = self.log.append_blocking(new)
            except ConcurrencyError as error:
                self._ends.pop(error.entity, None)  # another thread was first: with this number, or with another one of the sequence
                continue
            if len(self._ends) >= MAX_KNOWN_ENDS:
                self._ends.clear()
            self._ends.update(ends)
            for listener in list(self.listeners):
                listener.set()
            return range(appended.first, appended.first + len(events))

    def _numbered(self, events: Sequence[Foreign], rising: Sequence[Foreign], ends: dict[str, _End], application: str) -> list[NewEvent]:
        metadata, now, first = current_attribution.get().metadata(), time.time_ns(), None
        new: list[NewEvent] = []
        for place, (key, number, topic, state) in enumerate((*events, *rising)):
            end = ends[key] if key in ends else self._end_of(key)
            if number <= end.highest and (
                number == end.highest
                or place >= len(events)
                or any(event[:2] == (key, number) for event in events[:place])
                or number in self._numbers(key)
            ):
                raise NumberTakenError(f"{key} has the number {end.highest} already: {number} is not free")
            version = end.version + 1
            ends[key] = end = _End(version, max(number, end.highest), end.rising and number > end.highest)
            data = foreign_data(topic, state, version, number=number, application=application, highest=None if end.rising else end.highest)
            event_id = uuid7(now, self._random.take())
            new.append(
                NewEvent(
                    entity_key=key,
                    version=version,
                    name=event_name(topic),
                    changes=(),
                    metadata=metadata,
                    data=data,
                    event_id=event_id,
                    transaction_id=first,
                )
            )
            first = first or event_id
        return new

    def _end_of(self, key: str) -> _End:
        """Return the end of a sequence, or one that it had: then the append finds that another thread was first."""
        return self._ends.get(key) or self._read_end(key)

    def _read_end(self, key: str) -> _End:
        row = self.log.recorder().last_row(key)
        if row is None:
            return _NOTHING
        last = foreign_event(row)
        if last is None:
            return _End(row[2], max(self._numbers(key), default=-1), rising=False)
        return _End(last.version, last.number if last.highest is None else last.highest, rising=last.highest is None)

    def _numbers(self, key: str) -> set[int]:
        return {event.number for event in self._all(key, 0, LARGEST)}

    # -- reading ------------------------------------------------------------------------------------------------------

    def highest(self, key: str) -> int | None:
        """Return the highest number of a sequence; None where it is empty."""
        highest = self._read_end(key).highest
        return highest if highest >= 0 else None

    def select(
        self, key: str, *, after: int | None = None, until: int | None = None, newest_first: bool = False, limit: int | None = None
    ) -> list[ForeignEvent]:
        """Return events of a sequence with numbers above `after` and at most `until`, by number: the first `limit` of them.

        Raises:
            DamagedEventError: one of them is damaged.
        """
        row = self.log.recorder().last_row(key)
        if row is None:
            return []
        low, high = -1 if after is None else after, LARGEST if until is None else until
        last = foreign_event(row)
        if last is None or last.highest is not None:  # numbers say nothing of versions
            events: Iterator[ForeignEvent] = iter(sorted(self._all(key, 0, row[2]), key=lambda event: event.number, reverse=newest_first))
        else:
            # Numbers go up, at least as fast as versions do, and from 0 at the lowest: so none is more than one behind its version, and
            # none is further ahead of it than the last one.
            first, final = max(0, low - (last.number - last.version)), min(row[2], high + 1)
            events = self._all(key, first, final, newest_first=newest_first, page=PAGE_ROWS if limit is None else limit + 1)
        return list(islice((event for event in events if low < event.number <= high), limit))

    def _all(self, key: str, after: int, until: int, *, newest_first: bool = False, page: int = PAGE_ROWS) -> Iterator[ForeignEvent]:
        """Yield the events of a sequence with versions above one and at most another."""
        recorder = self.log.recorder()
        while after < until:
            size = max(1, min(page, PAGE_ROWS, until - after))
            if newest_first:
                rows = recorder.read_entity_back(key, before_version=until + 1, after_version=after, limit=size)
            else:
                rows = recorder.read_entity(key, after_version=after, limit=size)
            yield from (event for row in rows if row[2] <= until and (event := foreign_event(row)) is not None)
            if not rows or (len(rows) < size and not rows.cut):
                return
            after, until = (after, rows[-1][2] - 1) if newest_first else (rows[-1][2], until)
            page *= 2

    def last_notification(self, application: str = "") -> int | None:
        """Return the position of the newest notification, of an application where one is named; None where there is none.

        Each row of the log is looked at once for each application.
        """
        recorder = self.log.recorder()
        with self._lock:
            head = recorder.head() if self.log.read_only else self.log.head
            last, looked_until = self._last.get(application, (0, 0))
            before = head + 1 if looked_until or self._notified in recorder.entity_types() else 0
            while before > looked_until + 1:
                rows = recorder.read_back(before, after=looked_until, limit=PAGE_ROWS)
                newest = next(self._notifications(rows, application), None)
                if newest is not None:
                    last = newest.position
                    break
                before = rows[-1][0] if rows else 0
            self._last[application] = last, head
            return last or None

    def notifications(
        self, after: int, *, until: int | None = None, limit: int, topics: Collection[str] = (), application: str = ""
    ) -> list[ForeignEvent]:
        """Return notifications with positions above `after` and at most `until`, in order: the first `limit` of them.

        Args:
            after: only later ones.
            until: only those up to this position; None for all.
            limit: how many at most.
            topics: only events of these topics; all where it is empty.
            application: only those that this application has recorded; all where it is empty.

        Raises:
            DamagedEventError: an event there is damaged or missing; where the log was opened with `skip_damaged`, it is left out.
        """
        last = self.last_notification(application) or 0
        last = last if until is None else min(until, last)
        chosen: list[ForeignEvent] = []
        size = max(1, min(limit, PAGE_ROWS))
        while after < last and len(chosen) < limit:
            rows = self.log.recorder().read(after, until=last, limit=size)
            if not rows:
                raise missing(after + 1, last)
            after = rows[-1][0]
            chosen += [event for event in self._notifications(rows, application) if not topics or event.topic in topics]
            size = min(2 * size, PAGE_ROWS)
        return chosen[:limit]

    def _notifications(self, rows: Sequence[Row], application: str) -> Iterator[ForeignEvent]:
        for row in rows:
            if row[1].startswith(f"{self._notified}:"):
                try:
                    event = foreign_event(row)
                except DamagedEventError:
                    if self.log.skips:
                        continue
                    raise
                if event is not None and (not application or event.application == application):
                    yield event
