"""Rows as they stand in the file, unchecked, and the file as a whole: for verifying a log that may be damaged, and for copying it.

Nothing here trusts what it reads, and a page that SQLite cannot read does not hide the ones behind it. The file is only ever opened
through SQLite: opening and closing it otherwise in a process that has it open would drop that process's locks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symphony_es.errors import LogDamagedError, LogUnavailableError
from symphony_es.events.rows import Row
from symphony_es.log.directory import is_unmade, last_writer, unavailable
from symphony_es.log.head_note import HEAD_NAME, noted_log
from symphony_es.log.pages import PAGE_BYTES, take_page
from symphony_es.log.sqlite_connections import connect_reader, is_damage, may_change, unavailable_for
from symphony_es.log.sqlite_schema import COLUMNS, SCHEMA, check_schema
from symphony_es.log.walscan import scan_wal
from symphony_es.system import present

__all__ = ["RawLog", "Unreadable", "check_origin", "lost_commits"]

COPY_PAGES = 1024  # 4 MiB between two looks at whether to go on
_FAILURES = (sqlite3.Error, UnicodeDecodeError, OverflowError)


def lost_commits(path: Path) -> bool:
    """Return whether the write-ahead file that the last writer has left holds acknowledged commits that are damaged; readers do not see
    them.

    It is what a crash leaves, and an orderly close beside a reader that stays open. While somebody writes the log it is not looked at: it
    changes then.
    """
    wal = path.with_name(f"{path.name}-wal")
    if last_writer(path.parent) == "writing":
        return False
    try:
        before = wal.stat()
        damaged = scan_wal(wal) == "damaged"
        after = wal.stat()
    except OSError:
        return False
    same = (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)
    return damaged and same and last_writer(path.parent) != "writing"


def check_origin(path: Path, log_id: UUID | None) -> None:
    """Check that the write-ahead file beside a database is of the same log. Laid over the database, another log's makes that other log of
    it.

    Args:
        path: the database.
        log_id: the identity that the log has with what its write-ahead file holds.

    Raises:
        LogDamagedError: the database by itself has another identity, or the note beside it has.
    """
    seen = log_id.bytes if log_id is not None else bytes(16)
    wal = path.with_name(f"{path.name}-wal")
    noted = None if is_unmade(path.parent) else noted_log(path.with_name(HEAD_NAME))  # a log that is begun anew has no note of its own yet
    if not present(wal) or not wal.stat().st_size or {noted, _own_identity(path)} <= {None, seen}:
        return
    raise LogDamagedError(
        f"{wal} is not of the log that {path.name} and {HEAD_NAME} beside it are of, and would make another log of it: put back the "
        f"files that belong together, or restore a backup; where {path.name} and {wal.name} do, remove {HEAD_NAME}"
    )


def _own_identity(path: Path) -> bytes | None:
    """Return the identity that stands in a database file itself; None where none does yet, or none that can be read."""
    try:
        with RawLog(path, immutable=True) as alone:
            found = alone.setting("log_id")
        return UUID(found).bytes if found else None
    except (LogUnavailableError, LogDamagedError, ValueError, AttributeError, TypeError):
        return None


class Unreadable(NamedTuple):
    """A row that SQLite cannot read."""

    position: int
    why: str


class RawLog:
    """An unchecked look at a log's database file; a context manager. One thread at a time uses it.

    Raises:
        LogUnavailableError, LogDamagedError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, immutable: bool | None = None) -> None:
        self.path = path
        self._reader = connect_reader(path, immutable=not may_change(path) if immutable is None else immutable)

    def __enter__(self) -> RawLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._reader.close()

    def check_schema(self) -> None:
        """Check the schema.

        Raises:
            LogDamagedError: the schema is not a log's.
        """
        try:
            check_schema(self._reader, self.path)
        except _FAILURES as error:
            raise unavailable_for(error, self.path, "reading its schema") from error

    def has_events_table(self) -> bool:
        """Return whether the table of events is exactly a log's, so that reading it runs nothing else."""
        try:
            row = self._reader.execute("SELECT type, sql FROM sqlite_master WHERE name = 'stored_events'").fetchone()
        except _FAILURES:
            return False
        return row is not None and tuple(row) == ("table", SCHEMA[0])

    def ends(self) -> tuple[int | None, int | None]:
        """Return the newest position there is, and the newest that was given out, as of one moment; None where it cannot be read."""
        self._reader.execute("BEGIN")
        try:
            return (
                self._number("SELECT coalesce(max(position), 0) FROM stored_events"),
                self._number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'stored_events'"),
            )
        finally:
            self._reader.execute("ROLLBACK")

    def _number(self, sql: str) -> int | None:
        try:
            found = self._reader.execute(sql).fetchone()[0]
        except _FAILURES:
            return None
        return found if type(found) is int else None

    def integrity(self, limit: int = 10) -> list[str]:
        """Return what SQLite finds wrong with its file, index against table included; empty when nothing is."""
        try:
            answers = [str(row[0]) for row in self._reader.execute(f"PRAGMA integrity_check({limit:d})")]
        except _FAILURES as error:
            return [str(error)]
        return [] if answers == ["ok"] else answers

    def page(self, after: int, until: int, limit: int) -> tuple[list[Row | Unreadable], int]:
        """Return rows above `after`, at most `until`, in order, as far as a page goes, and the last position that was looked at.

        Raises:
            LogUnavailableError: the disk cannot be read.
        """
        sql = f"SELECT {COLUMNS} FROM stored_events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"  # noqa: S608
        try:
            with closing(self._reader.execute(sql, (after, until, limit))) as cursor:
                rows = take_page(cursor, limit)
        except _FAILURES as error:
            if not is_damage(error):
                raise unavailable_for(error, self.path, "reading it") from error
            return self._one_by_one(after, min(until, after + limit))
        last = rows[-1][0] if len(rows) == limit or rows.cut else until
        return [*rows], last if after < last <= until else until  # what is damaged may come in any order

    def _one_by_one(self, after: int, until: int) -> tuple[list[Row | Unreadable], int]:
        rows: list[Row | Unreadable] = []
        room = PAGE_BYTES
        for position in range(after + 1, until + 1):
            found = self._one(position)
            if found is not None:
                rows.append(found)
                room -= len(found[4]) if not isinstance(found, Unreadable) and type(found[4]) is bytes else 0
            if room <= 0:
                return rows, position
        return rows, until

    def _one(self, position: int) -> Row | Unreadable | None:
        try:
            row: Row | None = self._reader.execute(
                f"SELECT {COLUMNS} FROM stored_events WHERE position = ?",  # noqa: S608  constant text
                (position,),
            ).fetchone()
        except _FAILURES as error:
            return Unreadable(position, str(error))
        return row

    def entries_of(self, positions: Collection[int]) -> dict[int, tuple[str, int]]:
        """Return what the index says of some positions: key and version, as far as it can be read. The table is not looked at."""
        sql = "SELECT position, originator_id, originator_version FROM stored_events INDEXED BY stored_events_by_entity"
        found: dict[int, tuple[str, int]] = {}
        try:
            for position, key, version in self._reader.execute(sql):
                if position in positions:
                    found[position] = (key, version)
        except _FAILURES:
            return found  # what the index said up to its own damage
        return found

    def setting(self, name: str) -> str | None:
        """Return one of the log's settings (`format`, `log_id`)."""
        try:
            row = self._reader.execute("SELECT value FROM log_settings WHERE name = ?", (name,)).fetchone()
        except _FAILURES:
            return None
        return row[0] if row is not None else None

    def copy_to(self, target: Path, on_step: Callable[[int, int], None]) -> None:
        """Copy the database, as it is at one moment, into a new file, while another process writes it.

        A read transaction is held meanwhile, so commits that come later neither show in the copy nor begin it anew; the write-ahead
        file cannot be emptied for that long.

        Args:
            on_step: called with how many pages are done, and how many there are; what it raises ends the copying.

        Raises:
            LogUnavailableError: the log cannot be read, or the copy not be written.
        """
        try:
            copy = sqlite3.connect(target, isolation_level=None)
        except sqlite3.Error as error:
            raise unavailable_for(error, target, "making the copy") from error
        try:
            copy.execute("PRAGMA synchronous=OFF")  # the caller makes the whole file durable
            self._reader.execute("BEGIN")
            self._reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on it stands still
            self._reader.backup(copy, pages=COPY_PAGES, progress=lambda _, left, total: on_step(total - left, total))
        except sqlite3.Error as error:
            raise unavailable_for(error, self.path, "copying it") from error
        except OSError as error:
            raise error if isinstance(error, LogUnavailableError) else unavailable(target, error) from error
        finally:
            copy.close()
            if self._reader.in_transaction:
                self._reader.execute("ROLLBACK")
