"""Audit queries: which events meet conditions, in order, by pages or as a stream, and what followed from one of them.

Answers come from the audit trail, a durable projection, as far as it has come; events after that are read from the log. Where there is
no trail, as in a log whose application has never asked, the log is read as far as the page needs, and the conditions are looked at one
event at a time. The events of one entity come from the log's own index in any case.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.names import Names
from symphony_es.core.state.past.moments import LAST_NS, Time, nanoseconds
from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, ProjectionUnavailableError
from symphony_es.events.identifiers import id_of_text
from symphony_es.events.rows import decode_row
from symphony_es.shown import shown
from symphony_es_projections.agreement import read_progress
from symphony_es_projections.audit_trail import AuditFilter, AuditTrail

if TYPE_CHECKING:
    from pathlib import Path

    from symphony_es.events.event import Event
    from symphony_es.log.log import EventLog
    from symphony_es_projections.durable import ReadAccess

__all__ = ["Audit", "AuditFilter", "trail_on_disk"]

PAGE = 1000
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
        """The events that meet all conditions given, in the order of their positions.

        The next page has `after_position` (newest first: `before_position`) set to the last position of this one.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`.
            entity_type: of any entity of this type, given by its name or class.
            event: what happened; one name or several.
            actor: who acted.
            run: id of the workflow run on whose behalf it happened.
            transaction: id of the transaction, as text or 16 bytes.
            correlation: the application's own thread of events.
            since: committed then or later: a datetime with a time zone, or ISO text, `"2026-11-27"` or `"2026-11-27T17:22:42+01:00"`.
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
        _check_conditions(event, after_position, before_position, actor=actor, run=run, correlation=correlation)
        if transaction is not None and not isinstance(transaction, str | bytes):
            raise ConfigurationError(f"transaction is an id as text or 16 bytes, not {type(transaction).__name__}")
        if self._settle is not None:
            await self._settle()
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
            since_ns=nanoseconds(since) if since is not None else None,
            until_ns=nanoseconds(until) + LAST_NS if until is not None else None,
            after_position=after_position,
            before_position=before_position,
        )
        return await self._find(await wanted.by_position(self.log), limit, newest_first=newest_first)

    async def stream(self, *, newest_first: bool = False, page: int = PAGE, **conditions: Any) -> AsyncIterator[Event]:
        """All events that meet the conditions of `find`, as far as the log goes at the call, without holding them all in memory."""
        bound = conditions.pop("before_position", None)
        head = await self.log.refresh_head()
        before = head + 1 if bound is None else min(bound, head + 1)
        after = conditions.pop("after_position", None)
        while True:
            events = await self.find(**conditions, after_position=after, before_position=before, newest_first=newest_first, limit=page)
            for event in events:
                yield event
            if len(events) < page:
                return
            after, before = (after, events[-1].position) if newest_first else (events[-1].position, before)

    async def consequences(self, position: int, *, limit: int = 1000) -> list[Event]:
        """All events that the event at a position has led to, at once or through others, in order; the first ones.

        Raises:
            PositionNotFoundError: there is no such event.
            ConfigurationError: a limit below 1, or a position that is not a whole number.
        """
        _check_limit(limit)
        _check_conditions(None, position)
        if position is None:
            raise ConfigurationError("a position is a whole number, not None")
        if self._settle is not None:
            await self._settle()
        root = decode_row(await self.log.row_at(position))
        trail = await self._believed()
        found: list[Event] = []
        covered = 0
        if trail is not None and trail[1] >= position:
            try:
                found, covered = await self._told_consequences(trail[0], root, limit), trail[1]
            except _NOT_BELIEVED as error:
                _not_used(error)
        known = {root.event_id, *(event.event_id for event in found)}
        async for page in self.log.read(max(covered, position), await self.log.refresh_head()):
            if len(found) >= limit:
                break
            for event in page:
                if event.metadata.cause in known:
                    known.add(event.event_id)
                    found.append(event)
        return found[:limit]

    # -- how answers are found ----------------------------------------------------------------------------------------

    async def _find(self, wanted: AuditFilter, limit: int, *, newest_first: bool) -> list[Event]:
        head = await self.log.refresh_head()
        low = max(self.log.base_position, wanted.after_position or 0)
        high = head if wanted.before_position is None else min(head, wanted.before_position - 1)
        if wanted.entity is not None:
            kept = self.log.base_state(wanted.entity)
            oldest = kept.version if kept is not None else 0
            first, last = [await self._version_at(wanted.entity, position, oldest) for position in (low, high)]
            return await self._of_entity(wanted, first, last, limit, newest_first=newest_first)
        trail = await self._believed()
        try:
            return await self._of_trail(wanted, low, high, limit, trail, newest_first=newest_first)
        except _NOT_BELIEVED as error:
            _not_used(error)
            return await self._scan(wanted, low, high, limit, newest_first=newest_first)

    async def _believed(self) -> Trail | None:
        """The trail, and up to where it is of this log's past, whoever has built it; None where the log has to answer."""
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

    async def _told_consequences(self, access: ReadAccess, root: Event, limit: int) -> list[Event]:
        """What the trail tells, where each event says so itself."""
        found = await self._load(await AuditTrail.consequences(access, root.position, limit))
        known = {root.event_id}
        for event in found:
            if event.metadata.cause not in known:
                raise _UntrueError(event.position)
            known.add(event.event_id)
        return found

    async def _of_trail(
        self, wanted: AuditFilter, low: int, high: int, limit: int, trail: Trail | None, *, newest_first: bool
    ) -> list[Event]:  # fmt: skip
        """The events that the trail tells as far as it goes, and those of the log beyond it."""
        covered = min(trail[1], high) if trail is not None else low
        found: list[Event] = []
        if newest_first and covered < high:
            found = await self._scan(wanted, max(low, covered), high, limit, newest_first=True)
        if trail is not None and len(found) < limit and covered > low:
            inside = replace(wanted, after_position=low, before_position=covered + 1)
            told = await self._load(await AuditTrail.find(trail[0], inside, limit - len(found), newest_first))
            for event in told:
                if not wanted.matches(event):
                    raise _UntrueError(event.position)
            found += told
        if not newest_first and covered < high and len(found) < limit:
            found += await self._scan(wanted, max(low, covered), high, limit - len(found), newest_first=False)
        return found

    async def _version_at(self, key: str, position: int, low: int) -> int:
        """The last version of an entity up to a position; a binary search from a version before it."""
        high = self.log.entity_status_now(key)[0]
        while low < high:
            middle = (low + high + 1) // 2
            row = await self.log.entity_row(key, middle)
            low, high = (middle, high) if row[0] <= position else (low, middle - 1)
        return low

    async def _of_entity(self, wanted: AuditFilter, first: int, last: int, limit: int, *, newest_first: bool) -> list[Event]:
        """The events of one entity with versions above `first` up to `last`, page by page from one end, until there are enough."""
        assert wanted.entity is not None
        found: list[Event] = []
        page = min(PAGE, max(limit, 100))
        while first < last and len(found) < limit:
            after, until = (max(first, last - page), last) if newest_first else (first, min(last, first + page))
            pages = self.log.entity_pages(wanted.entity, after, last_version=until)
            met = [event async for rows in pages for event in map(decode_row, rows) if wanted.matches(event)]
            found += reversed(met) if newest_first else met
            first, last = (first, after) if newest_first else (until, last)
        return found[:limit]

    async def _scan(self, wanted: AuditFilter, low: int, high: int, limit: int, *, newest_first: bool) -> list[Event]:
        """The events of the log itself, page by page from one end, until there are enough."""
        names = (wanted.event,) if isinstance(wanted.event, str) else wanted.event or ()
        found: list[Event] = []
        while low < high and len(found) < limit:
            first, last = (max(low, high - PAGE), high) if newest_first else (low, min(high, low + PAGE))
            page = [event async for events in self.log.read(first, last, names) for event in events if wanted.matches(event)]
            found += reversed(page) if newest_first else page
            low, high = (low, first) if newest_first else (last, high)
        return found[:limit]

    async def _load(self, positions: Sequence[int]) -> list[Event]:
        """The events at positions; those that stand side by side are read together."""
        runs: list[tuple[int, int]] = []
        for position in sorted(positions):
            if runs and position == runs[-1][1] + 1 and position - runs[-1][0] < PAGE:
                runs[-1] = (runs[-1][0], position)
            else:
                runs.append((position, position))
        found: dict[int, Event] = {}
        for first, last in runs:
            async for rows in self.log.pages(first - 1, last, PAGE):
                found.update((row[0], decode_row(row)) for row in rows)
        for position in positions:
            if position not in found:
                raise _UntrueError(position)
        return [found[position] for position in positions]


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


def trail_on_disk(directory: Path) -> Callable[[], Awaitable[Trail | None]]:
    """The audit trail that the writing process has built beside its log, for reading only.

    Args:
        directory: where durable projections live.
    """
    from symphony_es_projections.files import ProjectionReader

    access = ProjectionReader(directory, AuditTrail.name)  # one for all questions: it follows when a trail is made or replaced

    async def find() -> Trail | None:
        return access, _LARGEST  # as far as it has come: `Audit` looks how far that is, and whether it is of its log

    return find
