"""Audit queries: which events meet conditions, in order, by pages or as a stream, and what followed from one of them.

Answers come from the audit trail, a durable projection, as far as it has come; events after that are read from the log. Where there is
no trail, as in a log whose application has never asked, the log is read as far as the page needs, and the conditions are looked at one
event at a time. The events of one entity come from the log's own index in any case.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.moment_texts import Time, check_order, read_time
from symphony_es.core.past.moments import LAST_NS, nanoseconds
from symphony_es.core.past.names import Names
from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, ProjectionUnavailableError
from symphony_es.events.identifiers import id_of_text
from symphony_es.events.rows import decode_row
from symphony_es.log.pages import PAGE_ROWS
from symphony_es.shown import shown
from symphony_es_projections.agreement import read_progress
from symphony_es_projections.audit_trail import AuditFilter, AuditTrail

if TYPE_CHECKING:
    from pathlib import Path

    from symphony_es.events.event import Event
    from symphony_es.log.log import EventLog
    from symphony_es.log.pages import Page
    from symphony_es_projections.durable import ReadAccess

__all__ = ["Audit", "AuditFilter", "TrailOnDisk"]

PAGE = PAGE_ROWS
Trail = tuple["ReadAccess", int]
"""An audit trail, and the last position that is asked of it."""
_log = get_logger(__name__)


class Audit:
    """Asks one log who did what, to which entity, when and why.

    Threads: the calls that are awaited belong to the event loop of the `Symphony`, others may be made in any thread; see there.

    Args:
        log: the log; one that is open for reading will do.
        trail: gives the audit trail and how far it has come; None where there is none.
        settle: awaited before a question: what has been changed so far is part of the answer.
        names: tells which entity or type an argument means.
    """

    def __init__(
        self,
        log: EventLog,
        trail: Callable[[], Awaitable[Trail | None]],
        settle: Callable[[], Awaitable[None]] | None = None,
        names: Names | None = None,
    ) -> None:
        self.log = log
        self._trail = trail
        self._settle = settle
        self._names = names if names is not None else Names(log)

    async def find(
        self,
        *,
        entity: Any = None,
        entity_type: str | type | None = None,
        event: str | Collection[str] | None = None,
        actor: str | None = None,
        run: str | None = None,
        transaction: str | bytes | None = None,
        correlation: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        after_position: int | None = None,
        before_position: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> list[Event]:
        """Return the events that meet all conditions given, in the order of their positions.

        The next page has `after_position` (newest first: `before_position`) set to the last position of this one.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`.
            entity_type: of any entity of this type, given by its name or class.
            event: what happened; one name or several.
            actor: who acted.
            run: id of the workflow run on whose behalf it happened.
            transaction: id of the transaction, as text or 16 bytes.
            correlation: the application's own thread of events.
            since: committed then or later: a datetime with a time zone, or its text, as for `Symphony.at`: `"2026-11-27"`, `"@2h"`.
            until: committed then, to the microsecond, or earlier; given likewise. A date is its beginning, in UTC.
            after_position: later ones only.
            before_position: earlier ones only.
            newest_first: begin with the last one.
            limit: at most so many, 1 or more.

        Raises:
            ConfigurationError: a time without a time zone, a limit below 1, or a condition that is not of its type.
            UnknownTypeError: nothing has such a type.
            InvalidIdentifierError: the transaction's id is none.
            DamagedEventError: an event on the way is damaged.
            ProjectionFailedError: the audit trail cannot be built: the disk is full, for example.
            EntityOutOfStepError: changes of an entity could not be appended.
        """
        _check_limit(limit)
        wanted = await self._filter(
            entity=entity, entity_type=entity_type, event=event, actor=actor, run=run, transaction=transaction, correlation=correlation,
            since=since, until=until, after_position=after_position, before_position=before_position,
        )  # fmt: skip
        return [found async for found in self._each(wanted, limit, newest_first=newest_first, page=limit)]

    async def _filter(
        self,
        *,
        entity: Any = None,
        entity_type: str | type | None = None,
        event: str | Collection[str] | None = None,
        actor: str | None = None,
        run: str | None = None,
        transaction: str | bytes | None = None,
        correlation: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        after_position: int | None = None,
        before_position: int | None = None,
    ) -> AuditFilter:
        """Return the conditions of `find`, checked and by position; what has been changed so far is durable by then."""
        _check_conditions(event, after_position, before_position, actor=actor, run=run, correlation=correlation)
        if transaction is not None and not isinstance(transaction, str | bytes):
            raise ConfigurationError(f"transaction is an id as text or 16 bytes, not {type(transaction).__name__}")
        if self._settle is not None:
            await self._settle()
        check_order(since, until)
        times = [None if time is None else read_time(time) for time in (since, until)]
        check_order(*times)
        if after_position is not None and before_position is not None and before_position <= after_position:
            raise ConfigurationError(f"nothing is after position {after_position} and before {before_position}")
        key = self._names.key(entity) if entity is not None else None
        if key is not None and not self.log.entity_status_now(key)[0]:
            self._names.check_known(key.partition(":")[0], key)
        wanted = AuditFilter(
            entity=key,
            entity_type=self._names.type_of(entity_type) if entity_type is not None else None,
            event=event if event is None or isinstance(event, str) else tuple(event),
            actor=actor,
            run=run,
            transaction=id_of_text(transaction) if isinstance(transaction, str) else transaction,
            correlation=correlation,
            since_ns=nanoseconds(times[0]) if times[0] is not None else None,
            until_ns=nanoseconds(times[1]) + LAST_NS if times[1] is not None else None,
            after_position=after_position,
            before_position=before_position,
        )
        return await wanted.by_position(self.log)

    async def stream(
        self, *, newest_first: bool = False, limit: int | None = None, page: int = PAGE, **conditions: Any
    ) -> AsyncIterator[Event]:
        """Yield all events that meet the conditions of `find`, as far as the log goes at the call; of the log, a page is held at a time.

        Args:
            newest_first: begin with the last one.
            limit: at most so many.
            page: how many are looked up at once.
            conditions: those of `find`.

        Raises:
            ConfigurationError: as `find`. Its other errors may come after some events.
        """
        _check_limit(page)
        if limit is not None:
            _check_limit(limit)
        wanted = await self._filter(**conditions)
        async for event in self._each(wanted, limit, newest_first=newest_first, page=min(page, limit or page)):
            yield event

    async def consequences(self, position: int, *, limit: int = 1000) -> list[Event]:
        """Return all events that the event at a position has led to, at once or through others, in order; the first ones.

        Raises:
            PositionNotFoundError: there is no such event.
            ConfigurationError: a limit below 1, or a position that is not a whole number.
        """
        _check_limit(limit)
        return [found async for found in self.stream_consequences(position, limit=limit)]

    async def stream_consequences(self, position: int, *, limit: int | None = None) -> AsyncIterator[Event]:
        """Yield what `consequences` has, all of it or so many: a page of the log is held at a time, and the ids of what was found.

        Raises:
            PositionNotFoundError, ConfigurationError: as `consequences`.
        """
        if limit is not None:
            _check_limit(limit)
        _check_conditions(None, position)
        if position is None:
            raise ConfigurationError("a position is a whole number, not None")
        if self._settle is not None:
            await self._settle()
        async for found in self._each_consequence(position, _LARGEST if limit is None else limit):
            yield found

    async def _each_consequence(self, position: int, limit: int) -> AsyncIterator[Event]:
        root = decode_row(await self.log.row_at(position))
        known, count, covered = {root.event_id}, 0, position
        trail = await self._believed()
        if trail is not None and trail[1] >= position:
            try:
                async for event in self._load(await AuditTrail.consequences(trail[0], position, limit)):
                    if event.metadata.cause not in known:
                        raise _UntrueError(event.position)
                    known.add(event.event_id)
                    yield event
                    count, covered = count + 1, event.position
                covered = trail[1]
            except _NOT_BELIEVED as error:
                _not_used(error)
        async for page in self.log.read(covered, await self.log.refresh_head()):
            for event in page:
                if count >= limit:
                    return
                if event.metadata.cause in known:
                    known.add(event.event_id)
                    yield event
                    count += 1

    # -- how answers are found ----------------------------------------------------------------------------------------

    async def _each(self, wanted: AuditFilter, limit: int | None, *, newest_first: bool, page: int) -> AsyncIterator[Event]:
        """Yield the events that meet the conditions, in order; what is read begins with so many rows."""
        head = await self.log.refresh_head()
        low = max(self.log.base_position, wanted.after_position or 0)
        high = head if wanted.before_position is None else min(head, wanted.before_position - 1)
        count = 0
        async for event in self._found(wanted, low, high, min(page, PAGE), newest_first=newest_first):
            yield event
            count += 1
            if count == limit:
                return

    async def _found(self, wanted: AuditFilter, low: int, high: int, page: int, *, newest_first: bool) -> AsyncIterator[Event]:
        if wanted.entity is not None:
            async for event in self._of_entity(wanted, low, high, page, newest_first=newest_first):
                yield event
            return
        trail = await self._believed()
        covered = max(low, min(trail[1], high)) if trail is not None else low
        if newest_first and covered < high:
            async for event in _matching(wanted, self.log.pages_back(high + 1, covered, first=page)):
                yield event
        if trail is not None and covered > low:
            async for event in self._of_trail(trail[0], wanted, low, covered, page, newest_first=newest_first):
                yield event
        if not newest_first and covered < high:
            async for event in _matching(wanted, self.log.pages(covered, high, first=page)):
                yield event

    async def _of_trail(
        self, access: ReadAccess, wanted: AuditFilter, low: int, high: int, page: int, *, newest_first: bool
    ) -> AsyncIterator[Event]:
        """Yield the events that the audit trail knows between two positions, by pages of their positions; else those of the log."""
        try:
            while low < high:
                inside = replace(wanted, after_position=low, before_position=high + 1)
                positions = await AuditTrail.find(access, inside, page, newest_first)
                async for event in self._load(positions):
                    if not wanted.matches(event):
                        raise _UntrueError(event.position)
                    yield event
                    low, high = (low, event.position - 1) if newest_first else (event.position, high)
                if len(positions) < page:
                    return
        except _NOT_BELIEVED as error:
            _not_used(error)
        rest = self.log.pages_back(high + 1, low, first=page) if newest_first else self.log.pages(low, high, first=page)
        async for event in _matching(wanted, rest):
            yield event

    async def _believed(self) -> Trail | None:
        """Return the trail, and up to where it is of this log's past, whoever has built it; None where the log has to answer."""
        trail = await self._trail()
        if trail is None:
            return None
        try:
            position, why = await read_progress(trail[0], AuditTrail.name, AuditTrail.version, self.log)
        except ProjectionUnavailableError as error:
            if error.__cause__ is not None:  # else there is none
                _not_used(error)
            return None
        if why is not None:
            _not_used(why)
            return None
        return trail[0], min(trail[1], position)

    async def _of_entity(self, wanted: AuditFilter, low: int, high: int, page: int, *, newest_first: bool) -> AsyncIterator[Event]:
        """Yield the events of one entity after one position, up to another, from one end."""
        key = wanted.entity
        assert key is not None
        kept = self.log.base_state(key)
        after = max(await self.log.version_at(key, low), kept.version if kept is not None else 0)
        if newest_first:
            pages = self.log.entity_pages_back(key, after_version=after, until_position=high, first=page)
        else:
            pages = self.log.entity_pages(key, after, high, first=page)
        async for event in _matching(wanted, pages):
            yield event

    async def _load(self, positions: Sequence[int]) -> AsyncIterator[Event]:
        """Yield the events at positions, in that order; those that stand side by side are read together."""
        for run in _runs(positions):
            pages = self.log.pages(run[0] - 1, run[-1]) if run[0] <= run[-1] else self.log.pages_back(run[0] + 1, run[-1] - 1)
            async for rows in pages:
                for row in rows:
                    yield decode_row(row)


async def _matching(wanted: AuditFilter, pages: AsyncIterator[Page]) -> AsyncIterator[Event]:
    names = None if wanted.event is None else {wanted.event} if isinstance(wanted.event, str) else set(wanted.event)
    async for rows in pages:
        for row in rows:
            if (names is None or row[3] in names) and wanted.matches(event := decode_row(row)):
                yield event


def _runs(positions: Sequence[int]) -> Iterator[list[int]]:
    """Yield positions that stand side by side, going up or going down."""
    run: list[int] = []
    for position in positions:
        step = run[1] - run[0] if len(run) > 1 else position - run[0] if run else 0
        if run and (abs(step) != 1 or position != run[-1] + step):
            yield run
            run = []
        run.append(position)
    if run:
        yield run


class _UntrueError(Exception):
    """The trail says something of an event that the event does not."""

    def __init__(self, position: int) -> None:
        super().__init__(f"what it says of position {position} is not so")


_NOT_BELIEVED = (ProjectionUnavailableError, sqlite3.Error, _UntrueError)


def _not_used(why: object) -> None:
    _log.warning("audit_trail_not_used", reason=str(why), way_out="the log has been read instead; the application builds the trail anew")


_LARGEST = 2**63 - 1  # what a store takes as a number


def _check_limit(limit: int) -> None:
    if type(limit) is not int or not 1 <= limit <= _LARGEST:
        raise ConfigurationError(f"limit={shown(limit)}: a page has at least one event, and no more than a log")


def _check_conditions(event: Any, *positions: Any, **texts: Any) -> None:
    """Refuse conditions of a wrong type where they are given, before a store is asked.

    Raises:
        ConfigurationError: one is; the message says what is due.
    """
    for name, given in texts.items():
        if given is not None and not isinstance(given, str):
            raise ConfigurationError(f"{name} is one text, not {type(given).__name__} {shown(given)}; ask once for each")
    names = [event] if isinstance(event, str) else event
    if names is not None and (not isinstance(names, Collection) or not all(isinstance(name, str) for name in names)):
        raise ConfigurationError(f"event is the name of an event or a list of names, not {shown(event)}")
    for position in positions:
        if position is not None and (type(position) is not int or not -_LARGEST <= position <= _LARGEST):
            raise ConfigurationError(f"a position is a whole number, not {shown(position)}")
    for text in (*texts.values(), *(names or ())):
        if text is not None and not _is_storable(text):
            raise ConfigurationError(f"{shown(text)} holds a lone surrogate: no event has such a text")


def _is_storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class TrailOnDisk:
    """The audit trail that the writing process has built beside its log, for reading only. Close it.

    Args:
        directory: where durable projections live.
    """

    def __init__(self, directory: Path) -> None:
        from symphony_es_projections.files import ProjectionReader

        self._access = ProjectionReader(directory, AuditTrail.name)  # one for all questions: it follows when a trail is made or replaced

    async def __call__(self) -> Trail | None:
        """Return the trail, as far as it has come: `Audit` looks how far that is, and whether it is of its log."""
        return self._access, _LARGEST

    def close(self) -> None:
        """Close its files; idempotent."""
        self._access.close()
