"""Reading the log in SQLite: every row is checked, and whatever SQLite raises over a damaged file becomes a typed error."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

from symphony_es.errors import WAYS_OUT, ConfigurationError, DamagedEventError, LogDamagedError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.rows import Row, check_rows
from symphony_es.log.pages import PAGE_ROWS, Page, take_page
from symphony_es.log.recorder import missing
from symphony_es.log.sqlite_connections import LogDatastore, is_damage, unavailable_for
from symphony_es.log.sqlite_schema import COLUMNS, ends, last_position
from symphony_es.shown import quoted, shown, type_shown

__all__ = ["RecentVersions", "SQLiteLogReader", "stored_version"]

MAX_KNOWN_VERSIONS = 20_000


def stored_version(connection: sqlite3.Connection, key: str) -> int:
    """Return version of an entity's last event; 0 when there is none."""
    row = connection.execute("SELECT max(originator_version) FROM stored_events WHERE originator_id = ?", (key,)).fetchone()
    return _version(row[0] or 0, key)


def _version(found: object, key: str) -> int:
    """Return a version as a file has it, where anything may stand in its place.

    Raises:
        DamagedEventError: it is none.
    """
    if type(found) is not int or not 0 <= found < 2**63:
        raise DamagedEventError(None, key, f"one of its versions is {type_shown(found)}")
    return found


_position = itemgetter(0)
_ENTRIES = (
    "SELECT (SELECT count(*) FROM stored_events INDEXED BY stored_events_by_entity), (SELECT coalesce(max(position), 0) FROM stored_events)"
)
_NEXT_KEY = "SELECT originator_id FROM stored_events WHERE originator_id >= ? ORDER BY originator_id LIMIT 1"


def _check_order(rows: Sequence[Row], after: int) -> None:
    if list(map(_position, rows)) == list(range(after + 1, after + 1 + len(rows))):
        return
    for expected, row in enumerate(rows, after + 1):
        if row[0] != expected:
            raise DamagedEventError(expected, None, f"it is missing: the next event there is has position {row[0]}")


class RecentVersions:
    """The versions of the entities that were written or asked for last; what is forgotten is looked up again where it is needed.

    They are kept in two generations, so that forgetting the older one is one step that copies nothing, however many there are.
    """

    def __init__(self) -> None:
        self._newer: dict[str, int] = {}
        self._older: dict[str, int] = {}

    def get(self, key: str) -> int | None:
        """Return an entity's version; None where it is not known."""
        version = self._newer.get(key)
        return self._older.get(key) if version is None else version

    def keep(self, key: str, version: int) -> None:
        """Keep this as the version of an entity."""
        self._newer[key] = version

    def forget(self) -> None:
        """Let go of the older generation once the newer one is half of what may be kept."""
        if len(self._newer) >= MAX_KNOWN_VERSIONS // 2:
            self._older, self._newer = self._newer, {}

    def clear(self) -> None:
        """Know nothing."""
        self._newer, self._older = {}, {}


class SQLiteLogReader:
    """The reading half of the recorder: the port's queries, on connections that cannot write."""

    path: Path
    _store: LogDatastore
    _head: int
    _settings: dict[str, str]
    _versions: RecentVersions
    least_of: Callable[[str], int] | None = None
    """Gives the version that an entity has at least, by events that are durable: an index that hides its last ones is found by it."""

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold a reading connection, whose errors are typed.

        Raises:
            DamagedEventError: SQLite found damage.
            LogUnavailableError: the file cannot be read.
        """
        try:
            with self._store.reader() as reader:
                yield reader
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"{shown(error.object)} holds a lone surrogate: no event has such a text") from error
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            if is_damage(error):
                raise DamagedEventError("unknown", "unknown", f"SQLite found damage in {self.path} ({error})") from error
            raise unavailable_for(error, self.path, "reading it") from error

    def _select(self, sql: str, parameters: Sequence[Any], limit: int) -> Page:
        """Return the first rows that a query finds, as far as a page goes, checked; no later one is read."""
        with self._reading() as reader, closing(reader.execute(sql, parameters)) as cursor:
            rows = take_page(cursor, limit)
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
            raise LogDamagedError(f"{self.path}: SQLite found damage ({answer}); {WAYS_OUT}")

    def has_all_entries(self) -> bool:
        """Return whether the index has as many entries as there are events; a file that SQLite cannot read has not.

        It takes some hundredths of a millisecond: SQLite counts by the heads of the index's pages.
        """
        try:
            with self._reading() as reader:
                entries, last = reader.execute(_ENTRIES).fetchone()
        except DamagedEventError:
            return False
        return bool(entries == last)

    def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int = PAGE_ROWS,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> Page:
        """See `LogRecorder`."""
        until = self.head() if until is None else until
        if key_range is not None:
            return self._read_range(after, until, limit, names, key_range)
        return take_page(self._named(after, until, frozenset(names)), limit) if names else self._read_all(after, until, limit)

    def _read_all(self, after: int, until: int, limit: int) -> Page:
        rows = self._page(after, until, limit)
        if rows.cut or len(rows) == limit or after + len(rows) >= until:
            return rows
        # Fewer than asked for: the head may come before `until`. A page of the table that lost its row ends a query in silence, too.
        with self._reading() as reader:
            last, issued = ends(reader)
        until = min(until, max(number for number in (last, issued, 0) if type(number) is int))
        if after + len(rows) < until:  # appended meanwhile, or missing
            rows = self._page(after, until, limit)
            if len(rows) < min(limit, until - after) and not rows.cut:
                raise missing(after + len(rows) + 1, until)
        return rows

    def _page(self, after: int, until: int, limit: int) -> Page:
        """Return rows as a query finds them, checked, and each next to the one before; whether there are more, the query does not tell."""
        sql = f"SELECT {COLUMNS} FROM stored_events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"  # noqa: S608
        rows = self._select(sql, (after, until, limit), limit)
        _check_order(rows, after)
        return rows

    def _named(self, after: int, until: int, names: frozenset[str]) -> Iterator[Row]:
        """Yield rows of some names. All are read: a query for names would pass over a row whose name is damaged."""
        while after < until and (rows := self._read_all(after, until, PAGE_ROWS)):  # the head may come before `until`
            yield from (row for row in rows if row[3] in names)
            after = rows[-1][0]

    def _read_range(self, after: int, until: int, limit: int, names: Sequence[str], key_range: tuple[str, str]) -> Page:
        """Return rows of a range of keys, by the index.

        The versions of each key follow each other, unless only some names are asked for.
        """
        chosen = f" AND topic IN ({', '.join('?' * len(names))})" if names else ""
        sql = (
            f"SELECT {COLUMNS} FROM stored_events WHERE position IN "  # noqa: S608  constant text; values are parameters
            "(SELECT position FROM stored_events INDEXED BY stored_events_by_entity "
            f"WHERE position > ? AND position <= ? AND originator_id >= ? AND originator_id < ?{chosen} ORDER BY position LIMIT ?) "
            "ORDER BY position"
        )
        rows = self._select(sql, (after, until, *key_range, *names, limit), limit)
        versions: dict[str, int] = {}
        for position, key, version, _, _ in () if names else rows:
            due = versions.get(key, version - 1 if after else 0) + 1
            if version != due and self._misses_one(position):
                raise DamagedEventError(position, key, f"it has version {version} where {due} is due: an event before it is missing")
            versions[key] = max(version, versions.get(key, 0))
        return rows

    def read_back(self, before: int, *, after: int = 0, limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        before = min(before, self.head() + 1)
        sql = f"SELECT {COLUMNS} FROM stored_events WHERE position > ? AND position < ? ORDER BY position DESC LIMIT ?"  # noqa: S608
        rows = self._select(sql, (after, before, limit), limit)
        for expected, row in zip(range(before - 1, 0, -1), rows, strict=False):
            if row[0] != expected:
                raise DamagedEventError(expected, None, f"it is missing: the event before it that there is has position {row[0]}")
        if len(rows) < min(limit, before - 1 - after) and not rows.cut:
            raise missing(before - 1 - len(rows), before - 1)
        return rows

    def read_entity(self, key: str, *, after_version: int = 0, until_position: int | None = None, limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        least = self._least(key, until_position)
        rows = self._select(
            f"SELECT {COLUMNS} FROM stored_events WHERE originator_id = ? AND originator_version > ? AND position <= ? "  # noqa: S608
            "ORDER BY originator_version LIMIT ?",
            (key, after_version, 2**62 if until_position is None else until_position, limit),
            limit,
        )
        for version, row in enumerate(rows, after_version + 1):
            if row[2] != version and self._misses_one(row[0]):
                raise DamagedEventError(row[0], key, f"it has version {row[2]} where {version} is due: an event before it is missing")
        last = rows[-1][2] if rows else after_version
        if last < least and len(rows) < limit and not rows.cut:
            raise DamagedEventError(None, key, f"version {last + 1} is not found, and it goes up to version {least}: the index has lost it")
        return rows

    def read_entity_back(
        self,
        key: str,
        *,
        before_version: int | None = None,
        after_version: int = 0,
        until_position: int | None = None,
        limit: int = PAGE_ROWS,
    ) -> Page:
        """See `LogRecorder`."""
        least = self._least(key, until_position)
        rows = self._select(
            f"SELECT {COLUMNS} FROM stored_events WHERE originator_id = ? AND originator_version > ? AND originator_version < ? "  # noqa: S608
            "AND position <= ? ORDER BY originator_version DESC LIMIT ?",
            (key, after_version, before_version or 2**62, 2**62 if until_position is None else until_position, limit),
            limit,
        )
        if before_version is None and limit > 0 and least > max(rows[0][2] if rows else 0, after_version):
            raise DamagedEventError(None, key, f"version {least} is not found: the index has lost it")
        due, newer = before_version - 1 if before_version is not None else rows[0][2] if rows else 0, 2**62
        for row in rows:
            if row[2] != due and self._misses_one(min(newer, self.head())):
                raise DamagedEventError(None, key, f"version {due} is missing: the one before it that there is has version {row[2]}")
            newer, due = row[0], row[2] - 1
        if due > after_version and len(rows) < limit and not rows.cut and self._misses_one(min(newer, self.head())):
            raise DamagedEventError(None, key, f"version {due} is missing")
        return rows

    def _least(self, key: str, until_position: int | None) -> int:
        """Return the version that the last event of an entity up to a position has at least; 0 where nobody knows.

        It is asked before the head, and both before a query: what they say is durable by then.
        """
        least = self._least_version(key)
        return 0 if until_position is not None and (self._store.writer is None or until_position < self._head) else least

    def _least_version(self, key: str) -> int:
        return max(self._versions.get(key) or 0, self.least_of(key) if self.least_of is not None else 0)

    def _misses_one(self, position: int) -> bool:
        """Return whether an event up to a position is missing. Where none is, versions that jump are that entity's damage alone."""
        with self._reading() as reader:
            (count,) = reader.execute("SELECT count(*) FROM stored_events WHERE position <= ?", (position,)).fetchone()
        return bool(count != position)

    def last_row(self, key: str) -> Row | None:
        """See `LogRecorder`."""
        rows = self._select(
            f"SELECT {COLUMNS} FROM stored_events WHERE originator_id = ? ORDER BY originator_version DESC LIMIT 1",  # noqa: S608
            (key,),
            1,
        )
        return rows[0] if rows else None

    def entity_types(self) -> list[str]:
        """See `LogRecorder`."""
        found: list[str] = []
        low = ""
        with self._reading() as reader:
            while row := reader.execute(_NEXT_KEY, (low,)).fetchone():
                if type(row[0]) is not str:
                    raise DamagedEventError(None, None, f"the key of an entity is {type_shown(row[0])}")
                entity_type = row[0].partition(":")[0]
                found.append(entity_type)
                low = f"{entity_type};"  # the character after the colon: behind all keys of the type
        return sorted(found)

    def last_rows(self, entity_type: str, after_key: str = "", limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        # Beside max(), SQLite takes the other columns from the row that has the maximum.
        return self._select(
            "SELECT position, originator_id, max(originator_version), topic, state FROM stored_events "
            "WHERE originator_id >= ? AND originator_id > ? AND originator_id < ? GROUP BY originator_id ORDER BY originator_id LIMIT ?",
            (f"{entity_type}:", after_key, f"{entity_type};", limit),
            limit,
        )

    def head(self) -> int:
        """See `LogRecorder`."""
        with self._reading() as reader:
            return last_position(reader, self.path)

    def version_at(self, key: str, position: int) -> int:
        """See `LogRecorder`."""
        sql = (
            "SELECT originator_version FROM stored_events INDEXED BY stored_events_by_entity "
            "WHERE originator_id = ? AND position <= ? ORDER BY originator_version DESC LIMIT 1"
        )
        with self._reading() as reader:
            row = reader.execute(sql, (key, position)).fetchone()
        return _version(row[0], key) if row is not None else 0

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
        """Return the identity that the log was made with; None when it has none."""
        value = self._settings.get("log_id")
        try:
            return UUID(value) if value else None
        except (ValueError, AttributeError, TypeError) as error:
            raise LogDamagedError(f"{self.path} has no valid identity: {quoted(value, 80)}; restore a backup") from error

    def base(self) -> Fold | None:
        """Return None: everything is kept."""
        return None

    def base_position(self) -> int:
        """Return 0: everything is kept."""
        return 0

    def base_state(self, key: str) -> EntityState | None:
        """Return None: everything is kept."""
        return None
