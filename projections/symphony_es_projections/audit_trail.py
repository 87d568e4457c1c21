"""The audit trail: one narrow row per event, with the indexes that questions need and the log does not have.

Who did what, to which entity, in which run, on whose behalf, and what followed from it. Answers are positions, in order: the events
themselves are read from the log, which checks every one. Times are no columns of a condition, because positions are in the order of
time: `EventLog.position_at` makes a position of a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from symphony_es.errors import ConfigurationError
from symphony_es.events.event import Event
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.log import EventLog
from symphony_es_projections.durable import ReadAccess, SQLiteProjection
from symphony_es_projections.runs import RUN_TYPE

__all__ = ["AuditFilter", "AuditTrail"]

_MOST = 2**63 - 2  # with one more, what SQLite takes as a number
_INSERT = f"INSERT INTO audit VALUES ({', '.join('?' * 14)})"  # noqa: S608  constant text


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which events are meant: those that meet every condition given.

    Attributes:
        entity: key of the entity, `Type:id`. entity_type: its type.
        event: what happened; one name or several.
        actor: who acted. run: id of the workflow run. correlation: the application's thread of events.
        transaction: id (16 bytes) of the transaction.
        since_ns, until_ns: when it was committed, nanoseconds since 1970; both inclusive. They are for `matches`: for a search,
            `by_position` makes positions of them.
        after_position, before_position: its place in the log; both exclusive.
    """

    entity: str | None = None
    entity_type: str | None = None
    event: str | tuple[str, ...] | None = None
    actor: str | None = None
    run: str | None = None
    transaction: bytes | None = None
    correlation: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    after_position: int | None = None
    before_position: int | None = None

    def _names(self) -> tuple[str, ...] | None:
        return (self.event,) if isinstance(self.event, str) else self.event

    def matches(self, event: Event) -> bool:
        """Return whether an event is meant."""
        names, metadata, position = self._names(), event.metadata, event.position
        return (
            (self.entity is None or event.entity_key == self.entity)
            and (self.entity_type is None or event.entity_type == self.entity_type)
            and (names is None or event.name in names)
            and (self.actor is None or metadata.actor == self.actor)
            and (self.run is None or _run_of(event) == self.run)
            and (self.transaction is None or event.transaction_id == self.transaction)
            and (self.correlation is None or metadata.correlation_id == self.correlation)
            and (self.since_ns is None or event.time_ns >= self.since_ns)
            and (self.until_ns is None or event.time_ns <= self.until_ns)
            and (self.after_position is None or position > self.after_position)
            and (self.before_position is None or position < self.before_position)
        )

    def where(self) -> tuple[str, list[Any]]:
        """Return the conditions, but for the times, as SQL over the table `audit`, and its parameters."""
        names = self._names()
        found: list[tuple[str, Any]] = [
            ("entity_key = ?", self.entity),
            ("entity_type = ?", self.entity_type),
            ("actor = ?", self.actor),
            ("run_id = ?", self.run),
            ("transaction_id = ?", self.transaction),
            ("correlation_id = ?", self.correlation),
            ("position > ?", self.after_position),
            ("position < ?", self.before_position),
        ]
        conditions = [condition for condition, value in found if value is not None]
        parameters = [value for _, value in found if value is not None]
        if names is not None:
            conditions.append(f"name IN ({', '.join('?' * len(names))})")
            parameters.extend(names)
        return " AND ".join(conditions) or "1", parameters

    async def by_position(self, log: EventLog) -> AuditFilter:
        """Return the same with positions instead of times; a binary search in the log for each."""
        after, before = self.after_position, self.before_position
        if self.since_ns is not None:
            after = max(await log.position_at(self.since_ns - 1), -1 if after is None else after)
        if self.until_ns is not None:
            last = await log.position_at(self.until_ns)
            before = last + 1 if before is None else min(last + 1, before)
        return replace(self, since_ns=None, until_ns=None, after_position=after, before_position=before)


class AuditTrail(SQLiteProjection):
    """One row per event of the log, in the table `audit`."""

    name = "audit"
    version = 1
    schema = (
        """CREATE TABLE audit (
            position INTEGER PRIMARY KEY, time_ns INTEGER, entity_type TEXT, entity_key TEXT, version INTEGER, name TEXT, event_id BLOB,
            transaction_id BLOB, cause BLOB, actor TEXT, reason TEXT, run_id TEXT, step TEXT, correlation_id TEXT
        )""",
        "CREATE INDEX audit_entity ON audit (entity_key, position)",
        "CREATE INDEX audit_type ON audit (entity_type, position)",
        "CREATE INDEX audit_name ON audit (name, position)",
        "CREATE INDEX audit_actor ON audit (actor, position) WHERE actor IS NOT NULL",
        "CREATE INDEX audit_run ON audit (run_id, position) WHERE run_id IS NOT NULL",
        "CREATE INDEX audit_transaction ON audit (transaction_id)",
        "CREATE INDEX audit_correlation ON audit (correlation_id, position) WHERE correlation_id IS NOT NULL",
        "CREATE INDEX audit_cause ON audit (cause) WHERE cause IS NOT NULL",
        "CREATE INDEX audit_event ON audit (event_id)",
        "CREATE INDEX audit_time ON audit (time_ns)",
    )

    def apply(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        """Add a row for each."""
        db.executemany(_INSERT, [_row(event) for event in events])

    @staticmethod
    async def find(
        access: ReadAccess, filter: AuditFilter | None = None, limit: int = 100, newest_first: bool = False  # noqa: A002  it is one
    ) -> list[int]:  # fmt: skip
        """Return positions of the events that are meant, in order.

        The next page is found with `after_position` (or, newest first, `before_position`) set to the last position of this one.

        Args:
            access: an audit trail that a runner feeds, or what `open_current` has opened.
            filter: which events; all by default. Its times are not looked at: see `AuditFilter.by_position`.
            limit: at most how many, 1 or more.
            newest_first: begin with the last one.
        """
        where, parameters = (filter or AuditFilter()).where()
        order = "DESC" if newest_first else "ASC"
        sql = f"SELECT position FROM audit WHERE {where} ORDER BY position {order} LIMIT ?"  # noqa: S608  constant text
        return [row[0] for row in await access.read(sql, (*parameters, _checked(limit)))]

    @staticmethod
    async def consequences(access: ReadAccess, position: int, limit: int = 1000) -> list[int]:
        """Return positions of all events that the event at a position has led to, at once or by others, in order.

        Args:
            access: as for `find`.
            limit: at most how many, 1 or more; the first ones.
        """
        sql = """
            WITH RECURSIVE chain (position, event_id) AS (
                SELECT position, event_id FROM audit WHERE position = ?
                UNION
                SELECT audit.position, audit.event_id FROM chain CROSS JOIN audit
                WHERE audit.cause = chain.event_id AND audit.position > chain.position
                ORDER BY 1 LIMIT ?
            )
            SELECT position FROM chain WHERE position <> ? ORDER BY position
        """
        return [row[0] for row in await access.read(sql, (position, _checked(limit) + 1, position))]


def _checked(limit: int) -> int:
    if limit < 1:
        raise ConfigurationError(f"limit is {limit}, and must be at least 1")
    return min(limit, _MOST)


def _run_of(event: Event) -> str | None:
    """Return the run on whose behalf an event happened; a run's own events are its own, and do not repeat it in their metadata."""
    return event.entity_id if event.entity_type == RUN_TYPE else event.metadata.run_id


def _row(event: Event) -> tuple[Any, ...]:
    why = event.metadata
    return (
        event.position,
        event.time_ns,
        event.entity_type,
        event.entity_key,
        event.version,
        event.name,
        event.event_id,
        event.transaction_id,
        why.cause,
        why.actor,
        why.reason,
        _run_of(event),
        why.step,
        why.correlation_id,
    )
