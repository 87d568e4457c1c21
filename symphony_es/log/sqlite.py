"""The log in SQLite: its table, its triggers, its one writing connection.

The SQL and the table are this library's own, so the file does not depend on a version of `eventsourcing`; that library's recorder
interfaces work on it all the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent
from eventsourcing.sqlite import SQLiteCursor, SQLiteProcessRecorder

from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConcurrencyError, DamagedEventError, LogDamagedError, LogUnavailableError, SymphonyError
from symphony_es.events.codec import Row, check_row, seal_state, time_of
from symphony_es.events.fold import Fold
from symphony_es.log.recorder import Appended, PreparedEvent
from symphony_es.log.sqlite_connections import LogDatastore, unavailable_for

__all__ = ["SQLiteLogRecorder"]

SCHEMA = (
    (
        "CREATE TABLE stored_events (position INTEGER PRIMARY KEY AUTOINCREMENT, originator_id TEXT NOT NULL, "
        "originator_version INTEGER NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL)"
    ),
    "CREATE UNIQUE INDEX stored_events_by_entity ON stored_events (originator_id, originator_version)",
    "CREATE TRIGGER stored_events_no_update BEFORE UPDATE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TRIGGER stored_events_no_delete BEFORE DELETE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TABLE tracking (application_name TEXT, notification_id INTEGER, PRIMARY KEY (application_name)) WITHOUT ROWID",
    "CREATE TABLE log_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
FORMAT = "1"
TOLERATED = frozenset({"_litestream_lock", "_litestream_seq"})  # what a replicating tool adds to a log it copies
COLUMNS = "position, originator_id, originator_version, topic, state"
CHECKPOINT_AFTER_BYTES = 4 * 1024 * 1024
MAX_KNOWN_VERSIONS = 100_000

logger = get_logger(__name__)


class SQLiteLogRecorder(SQLiteProcessRecorder):
    """Events in a SQLite file, behind the port of the log and behind `eventsourcing`'s recorder interfaces.

    Args:
        path: the database file; the directory's lock is the caller's business.
        log_id: identity of a log that is created now.
        read_only: never write; a second process may do this while the first one writes.

    Raises:
        LogUnavailableError: the file cannot be opened.
        LogDamagedError: it is not a log, or somebody changed its schema.
    """

    def __init__(self, path: Path, *, log_id: UUID | None = None, read_only: bool = False, immutable: bool = False) -> None:
        self.path = path
        self._store = LogDatastore(path, read_only=read_only, immutable=immutable)
        super().__init__(self._store)
        self._versions: dict[str, int] = {}
        self._since_checkpoint = 0
        self._head = 0
        self._time_ns = 0
        try:
            if not read_only:
                self._create_schema(log_id)
            self._check_schema()
            self._find_end()
        except sqlite3.Error as error:
            self._store.close()
            raise unavailable_for(error, path, "opening it") from error
        except SymphonyError:
            self._store.close()
            raise

    # -- opening ------------------------------------------------------------------------------------------------------

    def construct_create_table_statements(self) -> list[str]:
        """The schema is made when the file is opened."""
        return []

    def create_table(self) -> None:
        """The schema is made when the file is opened."""

    def _create_schema(self, log_id: UUID | None) -> None:
        writer = self._writer
        if writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        writer.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            writer.execute(statement)
        settings = [("format", FORMAT), ("log_id", str(log_id or ""))]
        writer.executemany("INSERT INTO log_settings VALUES (?, ?)", settings)
        writer.execute("INSERT INTO tracking VALUES ('__migration__', 1)")
        writer.execute("COMMIT")

    def _check_schema(self) -> None:
        """Refuse a file whose schema is not the one above: a trigger or view in it would run on our queries."""
        with self._store.reader() as reader:
            found = {row[0]: row[1] for row in reader.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}
            expected = {statement.split()[3 if "UNIQUE" in statement else 2]: statement for statement in SCHEMA}
            strange = sorted(name for name, sql in found.items() if expected.get(name) != sql and name not in TOLERATED)
            missing = sorted(expected.keys() - found.keys())
            if strange or missing:
                raise LogDamagedError(
                    f"{self.path} does not have the schema of a log: unknown or changed {strange}, missing {missing}; restore a backup"
                )
            (version,) = reader.execute("SELECT value FROM log_settings WHERE name = 'format'").fetchone() or ("none",)
            if version != FORMAT:
                raise LogDamagedError(f"{self.path} has format {version}; this version of symphony_es reads format {FORMAT}")

    def _find_end(self) -> None:
        with self._store.reader() as reader:
            self._head = reader.execute("SELECT coalesce(max(position), 0) FROM stored_events").fetchone()[0]
            (issued,) = reader.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'stored_events'").fetchone()
        if issued != self._head:
            raise LogDamagedError(f"{self.path} has given out position {issued}, and its last event is at {self._head}: events are missing")
        if self._head:
            row = self.read(self._head - 1)[0]
            self._time_ns = time_of(row[4])

    def verify_pages(self) -> None:
        """Have SQLite look through its file.

        Raises:
            LogDamagedError: it found damage.
        """
        with self._store.reader() as reader:
            try:
                answer = reader.execute("PRAGMA quick_check(1)").fetchone()[0]
            except sqlite3.Error as error:
                raise unavailable_for(error, self.path, "checking it") from error
        if answer != "ok":
            raise LogDamagedError(f"{self.path}: SQLite found damage ({answer}); restore a backup")

    @property
    def _writer(self) -> sqlite3.Connection:
        if self._store.writer is None:
            raise LogUnavailableError(f"{self.path} is open for reading only")
        return self._store.writer

    # -- appending ----------------------------------------------------------------------------------------------------

    def append_groups(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """See `LogRecorder`."""
        with self._store.lock:
            time_ns = max(self._time_ns, time_ns)
            try:
                outcomes = self._append(groups, time_ns)
            except sqlite3.IntegrityError:
                self._undo()
                outcomes = self._append_one_by_one(groups, time_ns)
            return outcomes

    def _append(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """The usual way: versions are checked first, then all rows are inserted by one statement."""
        position, rows = self._head, list[Row]()
        outcomes: list[Appended | SymphonyError] = []
        versions: dict[str, int] = {}
        doing = "beginning a commit"
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            doing = "writing a commit"
            for group in groups:
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
            self._insert(rows)
            doing = "making a commit durable"
            self._writer.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            self._fail(error, doing)
        self._committed(position, time_ns, versions, sum(len(row[4]) for row in rows))
        return outcomes

    def _insert(self, rows: list[Row]) -> None:
        self._writer.executemany(f"INSERT INTO stored_events ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)  # noqa: S608  constant text

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

    def _known_version(self, key: str) -> int:
        version = self._versions.get(key)
        if version is None:
            version = self._stored_version(self._writer, key)
            self._versions[key] = version
        return version

    @staticmethod
    def _stored_version(connection: sqlite3.Connection, key: str) -> int:
        row = connection.execute("SELECT max(originator_version) FROM stored_events WHERE originator_id = ?", (key,)).fetchone()
        version: int = row[0] or 0
        return version

    def _append_one_by_one(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """After a conflict that was not foreseen: each group behind a savepoint, so that only the guilty one fails."""
        outcomes: list[Appended | SymphonyError] = []
        size = position = 0
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            position = self._writer.execute("SELECT coalesce(max(position), 0) FROM stored_events").fetchone()[0]
            for group in groups:
                rows = [
                    (at, key, version, name, seal_state(at, key, version, name, event_id, time_ns, body))
                    for at, (key, version, name, event_id, body) in enumerate(group, position + 1)
                ]
                conflict = self._conflict(
                    group, {event.entity_key: self._stored_version(self._writer, event.entity_key) for event in group}
                )
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
            return ConcurrencyError(rows[0][1], rows[0][2] - 1, self._stored_version(self._writer, rows[0][1]))
        self._writer.execute("RELEASE request")
        return None

    def _committed(self, position: int, time_ns: int, versions: dict[str, int], size: int) -> None:
        self._head, self._time_ns = position, time_ns
        if len(self._versions) > MAX_KNOWN_VERSIONS:
            self._versions.clear()
        self._versions.update(versions)
        self._since_checkpoint += size

    def _undo(self) -> None:
        self._versions.clear()
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _fail(self, error: sqlite3.Error, doing: str) -> None:
        """Roll back and raise; an I/O error leaves open whether the commit is on disk."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        try:
            self._undo()
        except sqlite3.Error as second:
            raise unavailable_for(second, self.path, "rolling back", outcome_unknown=True) from error
        harmless = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_TOOBIG)
        raise unavailable_for(error, self.path, doing, outcome_unknown=code not in harmless) from error

    def maintain(self) -> None:
        """Copy the write-ahead file into the database now and then, on the connection that writes it."""
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

    def close(self) -> None:
        """Copy everything into the database file and close it; idempotent."""
        with self._store.lock:
            if self._store.writer is not None and not self._store._closed:
                try:
                    self._store.checkpoint("TRUNCATE")
                except sqlite3.Error as error:
                    logger.warning("wal_checkpoint_failed", error=str(error))
            self._store.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _select(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        with self._store.reader() as reader:
            try:
                rows: list[Row] = reader.execute(sql, parameters).fetchall()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode" in str(
                    error
                ):
                    raise DamagedEventError("unknown", "unknown", f"SQLite found damage in {self.path} ({error})") from error
                raise unavailable_for(error, self.path, "reading it") from error
            except (OverflowError, UnicodeDecodeError) as error:
                raise DamagedEventError("unknown", "unknown", f"a column cannot be read ({error})") from error
        for row in rows:
            check_row(row)
        return rows

    def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int = 1000,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> list[Row]:
        """See `LogRecorder`."""
        sql = f"SELECT {COLUMNS} FROM stored_events"  # noqa: S608  constant text; values are parameters
        if key_range is not None:
            sql += " INDEXED BY stored_events_by_entity"
        sql += " WHERE position > ? AND position <= ?"
        parameters: list[Any] = [after, 2**62 if until is None else until]
        if key_range is not None:
            sql += " AND originator_id >= ? AND originator_id < ?"
            parameters += key_range
        if names:
            sql += f" AND topic IN ({', '.join('?' * len(names))})"
            parameters += names
        rows = self._select(f"{sql} ORDER BY position LIMIT ?", [*parameters, limit])
        expected = after
        for row in rows:
            expected = expected + 1 if not names and key_range is None else max(expected + 1, row[0])
            if row[0] != expected:
                raise DamagedEventError(expected, row[1], f"the next event there is has position {row[0]}")
        return rows

    def read_entity(self, key: str, *, after_version: int = 0, until_position: int | None = None, limit: int = 1000) -> list[Row]:
        """See `LogRecorder`."""
        rows = self._select(
            f"SELECT {COLUMNS} FROM stored_events WHERE originator_id = ? AND originator_version > ? AND position <= ? "  # noqa: S608
            "ORDER BY originator_version LIMIT ?",
            (key, after_version, 2**62 if until_position is None else until_position, limit),
        )
        for version, row in enumerate(rows, after_version + 1):
            if row[2] != version:
                raise DamagedEventError(row[0], key, f"it has version {row[2]} where {version} is due")
        return rows

    def last_row(self, key: str) -> Row | None:
        """See `LogRecorder`."""
        rows = self._select(
            f"SELECT {COLUMNS} FROM stored_events WHERE originator_id = ? ORDER BY originator_version DESC LIMIT 1",  # noqa: S608
            (key,),
        )
        return rows[0] if rows else None

    def head(self) -> int:
        """See `LogRecorder`."""
        with self._store.reader() as reader:
            position: int = reader.execute("SELECT coalesce(max(position), 0) FROM stored_events").fetchone()[0]
            return position

    def entity_version(self, key: str) -> int:
        """See `LogRecorder`."""
        with self._store.reader() as reader:
            return self._stored_version(reader, key)

    def weight(self, after: int) -> int:
        """See `LogRecorder`."""
        with self._store.reader() as reader:
            row = reader.execute("SELECT coalesce(sum(length(state)), 0) FROM stored_events WHERE position > ?", (after,)).fetchone()
            total: int = row[0]
            return total

    def size_bytes(self) -> int:
        """See `LogRecorder`."""
        with self._store.reader() as reader:
            (pages,), (size,) = reader.execute("PRAGMA page_count").fetchone(), reader.execute("PRAGMA page_size").fetchone()
            total: int = pages * size
            return total

    def base(self) -> Fold | None:
        """Everything is kept."""
        return None

    # -- eventsourcing's interfaces -----------------------------------------------------------------------------------

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert events whose states are sealed already, as a copy of another log has them."""
        with self._store.lock:
            inserted = super().insert_events(stored_events, **kwargs)
            self._versions.clear()
            self._head = self.head()
            return inserted

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        positions = []
        for event in stored_events:
            c.execute(
                "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)",
                (str(event.originator_id), event.originator_version, event.topic, event.state),
            )
            positions.append(c.lastrowid)
        tracking = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(c, tracking)
        return positions

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The events from a position on."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        return [
            Notification(id=row[0], originator_id=row[1], originator_version=row[2], topic=row[3], state=row[4])
            for row in self.read(after, until=stop, limit=limit, names=tuple(topics))
        ]

    def max_notification_id(self) -> int | None:  # type: ignore[override]
        """The newest position, or None."""
        return self.head() or None
