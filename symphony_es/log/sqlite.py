"""The log in SQLite: the recorder, and what it does on its one writing connection.

The SQL and the table are this library's own. What `eventsourcing` writes comes in by `symphony_es.adapters.eventsourcing`, as events like
all others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConcurrencyError, DamagedEventError, LogUnavailableError, SymphonyError
from symphony_es.events.identifiers import DEFINITION_PREFIX, SYSTEM_PREFIX
from symphony_es.events.rows import Row, check_row, seal_state, time_of
from symphony_es.log.placing import without_known
from symphony_es.log.recorder import Appended, PreparedEvent
from symphony_es.log.sqlite_connections import LogDatastore, failure_of, unavailable_for
from symphony_es.log.sqlite_reading import RecentVersions, SQLiteLogReader, stored_version
from symphony_es.log.sqlite_schema import COLUMNS, SCHEMA, check_schema, create_schema

__all__ = ["SCHEMA", "SQLiteLogRecorder"]

CHECKPOINT_AFTER_BYTES = 8 * 1024 * 1024
"""How much the write-ahead file may grow before it is copied into the database: half of what is kept of it between times.

From then on the file is written over from its beginning: a sync of bytes that exist writes no metadata, and takes half as long.
"""
COMMIT_BYTES = 16 * 1024
"""What a commit adds to it beside its events: whole pages, of the table's end, the index and the sequence, however small the event."""
LARGE_BYTES = 1024 * 1024
"""A commit of more takes so long that it may ask for the interpreter's lock for each row."""

_WIDTH = COLUMNS.count(",") + 1
_A_ROW = f"({', '.join('?' * _WIDTH)})"
_INTO = f"INSERT INTO stored_events ({COLUMNS})"
_INSERTS = [(1, f"{_INTO} VALUES {_A_ROW}")] + [
    (count, f"{_INTO} SELECT * FROM (VALUES {', '.join([_A_ROW] * count)}) WHERE column1 NOTNULL")  # noqa: S608  constant text
    for count in (4, 16, 64, 256, 1024)
]
"""Statements by how many rows they insert at most; rows of nothing but NULL fill them up."""

logger = get_logger(__name__)


def fitting(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """Return the statements that a connection takes: older versions of SQLite allow 999 parameters."""
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    return [insert for insert in _INSERTS if insert[0] * _WIDTH <= most]


class SQLiteLogRecorder(SQLiteLogReader):
    """Events in a SQLite file, behind the port of the log.

    Args:
        path: the database file; the directory's lock is the caller's business.
        log_id: identity of a log that is created now.
        has_tables: there is a log, so that its tables are there: where they are not, none are made.
        read_only: never write; a second process may do this while the first one writes.

    Raises:
        LogUnavailableError: the file cannot be opened.
        LogDamagedError: it is not a log, or somebody changed its schema.
    """

    in_process = False
    skips = False
    """Whether something is given in the place of damaged rows."""

    @property
    def skipped(self) -> dict[int, Row]:
        """What is given in the place of damaged rows, by position: nothing, since here damage is an error."""
        return {}

    def __init__(
        self, path: Path, *, log_id: UUID | None = None, has_tables: bool = False, read_only: bool = False, immutable: bool = False
    ) -> None:
        self.path = path
        self._store = LogDatastore(path, read_only=read_only, immutable=immutable)
        self._versions = RecentVersions()
        self._inserts = _INSERTS
        self._since_checkpoint = 0
        self._head = 0
        self._time_ns = 0
        self.lost_at_the_end: tuple[int, int] | None = None
        try:
            if not read_only:
                if not has_tables:
                    create_schema(self._writer, log_id)
                self._inserts = fitting(self._writer)
            with self._store.reader() as reader:
                self._settings = check_schema(reader, path)
            self._head = self.head()
            if self._head:
                self._time_ns = time_of(self.read(self._head - 1, until=self._head)[0][4])
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            self._store.close()
            raise failure_of(error, path, "opening it") from error
        except BaseException:
            self._store.close()
            raise

    @property
    def _writer(self) -> sqlite3.Connection:
        if self._store.writer is None:
            raise LogUnavailableError(f"{self.path} is open for reading only")
        return self._store.writer

    # -- appending ----------------------------------------------------------------------------------------------------

    @property
    def last_time_ns(self) -> int:
        """When the last event was committed, nanoseconds since 1970; 0 without any."""
        return self._time_ns

    def append_groups(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """See `LogRecorder`."""
        with self._store.lock:
            self._store.check_place()
            time_ns = max(self._time_ns, time_ns)
            try:
                outcomes = self._append(groups, time_ns)
            except sqlite3.IntegrityError:
                self._undo()
                outcomes = self._append_one_by_one(groups, time_ns)
            return outcomes

    def _append(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """Return the usual way: versions are checked first, then all rows are written together."""
        position, rows = self._head, list[Row]()
        outcomes: list[Appended | SymphonyError] = []
        versions: dict[str, int] = {}
        for group in groups:
            conflict = self._conflict(group, versions)
            if conflict is not None and conflict.entity.startswith(DEFINITION_PREFIX):
                group = self._without_known(group, versions)
                conflict = self._conflict(group, versions)
            if conflict is not None:
                outcomes.append(conflict)
                continue
            first = position + 1
            for key, version, name, event_id, body in group:
                position += 1
                rows.append((position, key, version, name, seal_state(position, key, version, name, event_id, time_ns, body)))
                versions[key] = version
            outcomes.append(Appended(first, position, time_ns))
        self._write(rows)
        self._committed(position, time_ns, versions, sum([len(row[4]) for row in rows]))
        return outcomes

    def _write(self, rows: Sequence[Row]) -> None:
        """Make rows durable, all of them or none.

        SQLite works through a statement, its commit included, without the interpreter's lock, while other threads go on; to get it back
        behind a busy event loop takes as long as that computes. So rows that fit into one statement are written by that alone.

        Raises:
            sqlite3.IntegrityError: a row is there already; nothing was written.
            LogUnavailableError: the commit failed.
        """
        doing = "beginning a commit"
        try:
            if sum([len(row[4]) for row in rows]) > LARGE_BYTES:  # SQLite keeps what a statement was given until it is given something else
                self._writer.execute("BEGIN IMMEDIATE")
                doing = "writing a commit"
                self._writer.executemany(self._inserts[0][1], rows)
            else:
                if len(rows) > self._inserts[-1][0]:
                    self._writer.execute("BEGIN IMMEDIATE")
                doing = "writing a commit"
                self._insert(rows)
            if self._writer.in_transaction:
                doing = "making a commit durable"
                self._writer.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            self._fail(error, doing)

    def _insert(self, rows: Sequence[Row]) -> None:
        """Insert rows by as few statements as possible."""
        done = 0
        while done < len(rows):
            count, statement = next((size for size in self._inserts if size[0] >= len(rows) - done), self._inserts[-1])
            values: list[Any] = list(chain.from_iterable(rows[done : done + count]))
            values += [None] * (count * _WIDTH - len(values))
            self._writer.execute(statement, values)
            done += count

    def append_rows(self, rows: Sequence[Row]) -> None:
        """Append rows as another log has them: positions, ids, times, every byte; all of them or none.

        Raises:
            DamagedEventError: a row does not check, or is not the next one of the log or of its entity; nothing was appended.
            LogUnavailableError: the commit failed.
        """
        with self._store.lock:
            versions: dict[str, int] = {}
            for position, row in enumerate(rows, self._head + 1):
                check_row(row)
                key, version = row[1], row[2]
                if row[0] != position:
                    raise DamagedEventError(row[0], key, f"position {position} is the next one of the log it would be appended to")
                due = (versions[key] if key in versions else self._known_version(key)) + 1
                if version != due:
                    raise DamagedEventError(position, key, f"it has version {version} where {due} is due")
                versions[key] = version
            if not rows:
                return
            try:
                self._write(rows)
            except sqlite3.IntegrityError as error:
                self._fail(error, "writing a commit")
            self._committed(rows[-1][0], max(self._time_ns, time_of(rows[-1][4])), versions, sum(len(row[4]) for row in rows))

    def _conflict(self, group: Sequence[PreparedEvent], versions: dict[str, int]) -> ConcurrencyError | None:
        own: dict[str, int] = {}
        for event in group:
            key = event.entity_key
            actual = own.get(key, versions.get(key))
            if actual is None:
                actual = self._known_version(key)
            if event.version != actual + 1:
                return ConcurrencyError(key, event.version - 1, actual)
            own[key] = event.version
        return None

    def _without_known(self, group: Sequence[PreparedEvent], versions: dict[str, int]) -> Sequence[PreparedEvent]:
        return without_known(group, lambda key: versions[key] if key in versions else self._known_version(key))

    def _known_version(self, key: str) -> int:
        version = self._versions.get(key)
        if version is None:
            try:
                version = stored_version(self._writer, key)
            except sqlite3.Error as error:
                self._fail(error, "looking for an entity's version")
            if not key.startswith(SYSTEM_PREFIX):
                self._versions.keep(key, version)
        return version

    def _append_one_by_one(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """Append each group behind a savepoint, after a conflict that was not foreseen, so that only the guilty one fails."""
        outcomes: list[Appended | SymphonyError] = []
        size = position = 0
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            position = self._writer.execute("SELECT coalesce(max(position), 0) FROM stored_events").fetchone()[0]
            for group in groups:
                versions = {event.entity_key: stored_version(self._writer, event.entity_key) for event in group}
                group = self._without_known(group, versions)
                rows = [
                    (at, key, version, name, seal_state(at, key, version, name, event_id, time_ns, body))
                    for at, (key, version, name, event_id, body) in enumerate(group, position + 1)
                ]
                conflict = self._conflict(group, versions)
                if conflict is None:
                    conflict = self._insert_behind_savepoint(rows)
                if conflict is not None:
                    outcomes.append(conflict)
                    continue
                size += sum(len(row[4]) for row in rows)
                outcomes.append(Appended(position + 1, position + len(rows), time_ns))
                position += len(rows)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._fail(error, "writing a commit")
        self._committed(position, time_ns, {}, size)
        return outcomes

    def _insert_behind_savepoint(self, rows: list[Row]) -> ConcurrencyError | None:
        self._writer.execute("SAVEPOINT request")
        try:
            self._insert(rows)
        except sqlite3.IntegrityError:
            self._writer.execute("ROLLBACK TO request")
            self._writer.execute("RELEASE request")
            return ConcurrencyError(rows[0][1], rows[0][2] - 1, stored_version(self._writer, rows[0][1]))
        self._writer.execute("RELEASE request")
        return None

    def _committed(self, position: int, time_ns: int, versions: dict[str, int], size: int) -> None:
        self._head, self._time_ns = position, time_ns
        for key, version in versions.items():
            if not key.startswith(SYSTEM_PREFIX):  # checkpoints and definitions are written once, and many of them
                self._versions.keep(key, version)
        self._since_checkpoint += size + COMMIT_BYTES

    def _undo(self) -> None:
        self._versions.clear()
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _fail(self, error: sqlite3.Error, doing: str) -> NoReturn:
        """Roll back and raise; an I/O error leaves open whether the commit is on disk."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        try:
            self._undo()
        except sqlite3.Error as second:
            raise unavailable_for(second, self.path, "rolling back", outcome_unknown=True) from error
        harmless = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_TOOBIG)
        raise unavailable_for(error, self.path, doing, outcome_unknown=code not in harmless) from error

    def maintain(self) -> None:
        """Copy the write-ahead file into the database now and then, on the connection that writes it; forget old versions."""
        self._versions.forget()
        if self._since_checkpoint < CHECKPOINT_AFTER_BYTES:
            return
        with self._store.lock:
            self._since_checkpoint = 0
            try:
                busy, frames, copied = self._store.checkpoint("PASSIVE")
            except sqlite3.Error as error:
                logger.warning("wal_checkpoint_failed", error=str(error))  # nothing is lost: the commits are in the write-ahead file
                return
            logger.debug("wal_checkpointed", busy=busy, frames=frames, copied=copied)

    def drop_what_is_not_taken(self) -> None:
        """Copy everything into the database file, and empty the write-ahead file: what stands behind its last commit is gone, too."""
        with self._store.lock:
            try:
                busy, frames, copied = self._store.checkpoint("TRUNCATE")
            except sqlite3.Error as error:
                logger.warning("wal_checkpoint_failed", error=str(error))
                return
            logger.debug("wal_checkpointed", busy=busy, frames=frames, copied=copied)

    def abandon(self) -> None:
        """Close the file and leave it as it is, where another connection has it open meanwhile: SQLite's last one copies and removes."""
        with self._store.lock:
            self._store.close()

    def close(self) -> None:
        """Copy everything into the database file and close it; idempotent."""
        with self._store.lock:
            if self._store.writer is not None and not self._store._closed:
                try:
                    self._store.checkpoint("TRUNCATE")
                except sqlite3.Error as error:
                    logger.warning("wal_checkpoint_failed", error=str(error))
            self._store.close()
