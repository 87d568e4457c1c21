"""A table of a log that is kept beside it: in a SQLite database of its own, or in a temporary one.

Blocking: the callers run it in a worker thread, one call at a time. The database is a cache of the log: it names the log and the event
that it stands for, and one that is of another past, or is not what has been written, is thrown away and made anew.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from symphony_es.errors import LogUnavailableError
from symphony_es.events.rows import commitment, event_id_of
from symphony_es.log.directory import prepare_file
from symphony_es.system import database_uri, present
from symphony_es_projections.agreement import PROGRESS, Progress
from symphony_es_projections.image import Image
from symphony_es_projections.sums import FILES, UntrueFileError, check_kinds
from symphony_es_projections.written import WrittenFile, checked

__all__ = ["CachedTable"]

_PROGRESS = "CREATE TABLE progress (version INTEGER, position INTEGER, event_id BLOB, commitment BLOB, log_id BLOB, commits INTEGER)"
_COPIED_PAGES = 1000
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
        self._file: WrittenFile | None = None
        self._log_id = b""

    def open(self, log_id: bytes) -> Progress:
        """Return up to where it goes, and of which log; opened, or made for the log that is given, at the first call.

        Raises:
            sqlite3.Error: the file cannot be opened, or made.
        """
        with self._lock:
            self._log_id = log_id
            if self._db is None:
                self._db = self._opened()
            progress = Progress.of(self._db.execute(f"SELECT {PROGRESS} FROM progress").fetchone() or ())  # noqa: S608  constant text
            if progress is None:
                raise UntrueFileError("it does not say how far it is")
            return progress

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
    def asking(self) -> Iterator[sqlite3.Connection]:
        """Enter a block that reads what has been written. It holds the lock.

        Raises:
            UntrueFileError: somebody else has written the file since, or it is damaged.
        """
        with self._lock:
            db = self.connection
            if self._file is not None:
                self._file.check()
            yield db

    @contextmanager
    def taking_in(self, position: int, state: bytes) -> Iterator[sqlite3.Connection]:
        """Enter a block that takes in what happened up to a position: whole or not at all. It holds the lock.

        Args:
            position: of the last event. state: of its row in the log; empty where there is none.
        """
        told = (event_id_of(state), commitment(state)) if state else (b"", b"")
        with self._lock:
            db = self.connection
            if self._file is not None:
                self._file.begin()
            else:
                db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE progress SET position = ?, event_id = ?, commitment = ?", (position, *told))
                db.execute("COMMIT")
                if self._file is not None:
                    self._file.committed()
            except BaseException:
                if db.in_transaction:  # SQLite may have ended it already; what failed is told
                    db.execute("ROLLBACK")
                raise

    def _opened(self) -> sqlite3.Connection:
        if self.path is None:
            db = self._connected(_TEMPORARY)
            with suppress(sqlite3.Error, OSError):  # what cannot be copied is made of the log
                if self._copy_of is not None and present(self._copy_of):
                    _copy(self._copy_of, db)
            if self._fits(db):
                return db
            db.close()
            return self._made(self._connected(_TEMPORARY))
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(f"{self.path.parent} cannot be made: {error}") from error
        for _ in range(2):
            try:
                check_kinds(self.path)
            except UntrueFileError:
                self._remove()
            try:
                prepare_file(self.path)  # SQLite would make it as the umask says
            except (LogUnavailableError, OSError) as error:
                raise sqlite3.OperationalError(f"{self.path} cannot be made: {error}") from error
            db = self._connected(self.path)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute("PRAGMA wal_autocheckpoint = 0")  # each copy of the write-ahead file is noted, see `WrittenFile`
                fits = self._fits(db)
                if fits or not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    db = db if fits else self._made(db)
                    self._file = WrittenFile(self.path, db, self, table="progress", pages=_COPIED_PAGES, durable=False)
                    self._file.check()
                    return db
            except sqlite3.DatabaseError:
                pass  # damaged, or no database: it is a cache, and made anew
            self._let_go(db)
            self._remove()
        raise sqlite3.OperationalError(f"{self.path} cannot be made anew")

    @staticmethod
    def _connected(path: Path | str) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def _fits(self, db: sqlite3.Connection) -> bool:
        return bool(db.execute("PRAGMA user_version").fetchone()[0] == self.version)

    def _made(self, db: sqlite3.Connection) -> sqlite3.Connection:
        db.execute("BEGIN")
        for statement in (*self.schema, _PROGRESS, f"PRAGMA user_version = {self.version}"):
            db.execute(statement)
        db.execute("INSERT INTO progress VALUES (?, 0, x'', x'', ?, 1)", (self.version, self._log_id))
        db.execute("COMMIT")
        return db

    def _remove(self) -> None:
        if self.path is None:
            return
        try:
            for ending in FILES:
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(f"{self.path} cannot be removed: {error}") from error

    def clear(self) -> None:
        """Throw everything away: the table begins anew at position 0."""
        self.close()
        self._copy_of = None
        self._remove()
        self.open(self._log_id)

    def do_without_file(self) -> bool:
        """Go on as a temporary table, which begins anew; False for one that is temporary already."""
        if self.path is None:
            return False
        self.close()
        self.path = self._copy_of = None
        return True

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._db is not None:
                self._let_go(self._db)
                self._db = None

    def _let_go(self, db: sqlite3.Connection) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        db.close()


def _copy(path: Path, db: sqlite3.Connection) -> None:
    """Copy a file that another process writes, if it is what has been written."""
    check_kinds(path)
    with closing(sqlite3.connect(database_uri(path), uri=True, timeout=5, isolation_level=None)) as there:
        image = Image(path)
        try:
            checked(there, image, "progress", lambda: there.backup(db))
        finally:
            there.close()
            image.release()
