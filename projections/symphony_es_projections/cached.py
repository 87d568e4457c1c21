"""A table of a log that is kept beside it: in a SQLite database of its own, or in a temporary one.

Blocking: the callers run it in a worker thread, one call at a time. The database is a cache of the log: it names the event that it stands
for, and one that belongs to another log, or cannot be read, is thrown away and made anew.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from symphony_es.system import present

__all__ = ["CachedTable"]

_PROGRESS = ("CREATE TABLE progress (position INTEGER, event_id BLOB)", "INSERT INTO progress VALUES (0, x'')")
_TEMPORARY = ""
"""SQLite's name for a file of the connection's own, which is gone with it: of a large table only some pages are in memory."""


class CachedTable:
    """What some events of a log come to, as rows.

    Args:
        path: its file; None for a temporary one.
        copy_of: with no path of its own, begin with a copy of what another process has in this file.
    """

    schema: ClassVar[tuple[str, ...]]
    version: ClassVar[int]

    def __init__(self, path: Path | None, copy_of: Path | None = None) -> None:
        self.path = path
        self._copy_of = copy_of
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def open(self) -> tuple[int, bytes]:
        """Up to which position it goes, and the id of the event there; opened, or made, at the first call."""
        with self._lock:
            if self._db is None:
                self._db = self._opened()
            position, event_id = self._db.execute("SELECT position, event_id FROM progress").fetchone()
            return position, event_id

    @property
    def connection(self) -> sqlite3.Connection:
        """The database.

        Raises:
            sqlite3.ProgrammingError: it is not open.
        """
        if self._db is None:
            raise sqlite3.ProgrammingError("the table is not open")
        return self._db

    @contextmanager
    def taking_in(self, position: int, event_id: bytes) -> Iterator[sqlite3.Connection]:
        """A block that takes in what happened up to a position, whose event has an id: whole or not at all. It holds the lock."""
        with self._lock:
            db = self.connection
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE progress SET position = ?, event_id = ?", (position, event_id))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite may have ended it already; what failed is told
                    db.execute("ROLLBACK")
                raise

    def _opened(self) -> sqlite3.Connection:
        if self.path is None:
            db = self._connected(_TEMPORARY)
            with suppress(sqlite3.Error, OSError):  # what cannot be copied is made of the log
                if self._copy_of is not None and present(self._copy_of):
                    with closing(sqlite3.connect(f"{self._copy_of.as_uri()}?mode=ro", uri=True, timeout=5)) as there:
                        there.backup(db)
            if self._fits(db):
                return db
            db.close()
            return self._made(self._connected(_TEMPORARY))
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(f"{self.path.parent} cannot be made: {error}") from error
        for _ in range(2):
            db = self._connected(self.path)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                if self._fits(db):
                    return db
                if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    return self._made(db)
            except sqlite3.DatabaseError:
                pass  # damaged, or no database: it is a cache, and made anew
            db.close()
            self._remove()
        raise sqlite3.OperationalError(f"{self.path} cannot be made anew")

    @staticmethod
    def _connected(path: Path | str) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def _fits(self, db: sqlite3.Connection) -> bool:
        return bool(db.execute("PRAGMA user_version").fetchone()[0] == self.version)

    def _made(self, db: sqlite3.Connection) -> sqlite3.Connection:
        db.execute("BEGIN")
        for statement in (*self.schema, *_PROGRESS, f"PRAGMA user_version = {self.version}"):
            db.execute(statement)
        db.execute("COMMIT")
        return db

    def _remove(self) -> None:
        if self.path is None:
            return
        try:
            for name in (self.path.name, f"{self.path.name}-wal", f"{self.path.name}-shm"):
                self.path.with_name(name).unlink(missing_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(f"{self.path} cannot be removed: {error}") from error

    def clear(self) -> None:
        """Throw everything away: the table begins anew at position 0."""
        self.close()
        self._copy_of = None
        self._remove()
        self.open()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
