"""Reading the log in SQLite: every row is checked, and whatever SQLite raises over a damaged file becomes a typed error."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.persistence import Notification
from eventsourcing.sqlite import SQLiteProcessRecorder

from symphony_es.errors import DamagedEventError, LogDamagedError
from symphony_es.events.fold import Fold
from symphony_es.events.rows import Row, check_rows
from symphony_es.log.sqlite_connections import LogDatastore, is_damage, unavailable_for
from symphony_es.log.sqlite_schema import COLUMNS

__all__ = ["SQLiteLogReader", "stored_version"]


def stored_version(connection: sqlite3.Connection, key: str) -> int:
    """Version of an entity's last event; 0 when there is none."""
    row = connection.execute("SELECT max(originator_version) FROM stored_events WHERE originator_id = ?", (key,)).fetchone()
    version: int = row[0] or 0
    return version


_position = itemgetter(0)
_NEXT_KEY = "SELECT originator_id FROM stored_events WHERE originator_id >= ? ORDER BY originator_id LIMIT 1"


def _check_order(rows: Sequence[Row], after: int, *, gaps: bool) -> None:
    if not gaps and list(map(_position, rows)) == list(range(after + 1, after + 1 + len(rows))):
        return
    expected = after
    for row in rows:
        expected = max(expected + 1, row[0]) if gaps else expected + 1
        if row[0] != expected:
            raise DamagedEventError(expected, row[1], f"the next event there is has position {row[0]}")


class SQLiteLogReader(SQLiteProcessRecorder):
    """The reading half of the recorder: the port's and `eventsourcing`'s queries, on connections that cannot write."""

    path: Path
    _store: LogDatastore

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A reading connection, whose errors are typed.

        Raises:
            DamagedEventError: SQLite found damage.
            LogUnavailableError: the file cannot be read.
        """
        try:
            with self._store.reader() as reader:
                yield reader
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            if is_damage(error):
                raise DamagedEventError("unknown", "unknown", f"SQLite found damage in {self.path} ({error})") from error
            raise unavailable_for(error, self.path, "reading it") from error

    def _select(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        with self._reading() as reader:
            rows: list[Row] = reader.execute(sql, parameters).fetchall()
        check_rows(rows)
        return rows

    def verify_pages(self) -> None:
        """Have SQLite look through its file, and compare the index with the table: an index that lost an entry hides events of an entity.

        Raises:
            LogDamagedError, DamagedEventError: it found damage.
        """
        with self._reading() as reader:
            answer = reader.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            raise LogDamagedError(f"{self.path}: SQLite found damage ({answer}); restore a backup")

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
        _check_order(rows, after, gaps=bool(names) or key_range is not None)
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

    def entity_types(self) -> list[str]:
        """See `LogRecorder`."""
        found: list[str] = []
        low = ""
        with self._reading() as reader:
            while row := reader.execute(_NEXT_KEY, (low,)).fetchone():
                entity_type = row[0].partition(":")[0]
                found.append(entity_type)
                low = f"{entity_type};"  # the character after the colon: behind all keys of the type
        return sorted(found)

    def last_rows(self, entity_type: str) -> list[Row]:
        """See `LogRecorder`."""
        # Beside max(), SQLite takes the other columns from the row that has the maximum.
        rows = self._select(
            "SELECT position, originator_id, max(originator_version), topic, state FROM stored_events "
            "WHERE originator_id >= ? AND originator_id < ? GROUP BY originator_id ORDER BY originator_id",
            (f"{entity_type}:", f"{entity_type};"),
        )
        return rows

    def head(self) -> int:
        """See `LogRecorder`."""
        with self._reading() as reader:
            position: int = reader.execute("SELECT coalesce(max(position), 0) FROM stored_events").fetchone()[0]
            return position

    def entity_version(self, key: str) -> int:
        """See `LogRecorder`."""
        with self._reading() as reader:
            return stored_version(reader, key)

    def weight(self, after: int, until: int | None = None) -> int:
        """See `LogRecorder`."""
        sql = "SELECT coalesce(sum(length(state)), 0) FROM stored_events WHERE position > ? AND position <= ?"
        with self._reading() as reader:
            total: int = reader.execute(sql, (after, 2**62 if until is None else until)).fetchone()[0]
            return total

    def size_bytes(self) -> int:
        """See `LogRecorder`."""
        with self._reading() as reader:
            (pages,), (size,) = reader.execute("PRAGMA page_count").fetchone(), reader.execute("PRAGMA page_size").fetchone()
            total: int = pages * size
            return total

    def log_id(self) -> UUID | None:
        """The identity that the log was made with; None when it has none."""
        with self._reading() as reader:
            (value,) = reader.execute("SELECT value FROM log_settings WHERE name = 'log_id'").fetchone() or (None,)
        try:
            return UUID(value) if value else None
        except (ValueError, AttributeError) as error:
            raise LogDamagedError(f"{self.path} has no valid identity: {value!r:.80}; restore a backup") from error

    def base(self) -> Fold | None:
        """Everything is kept."""
        return None

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
