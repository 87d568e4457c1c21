"""Connections to a read model's file: the one that writes it, and those that read. Both look first whether it is true (see `image`).

Each commit of the writer is counted in the database itself. Whoever else writes there does not count, and is noticed.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from symphony_es.log.forks import keep_for_ever
from symphony_es.system import database_uri
from symphony_es_projections.image import Image
from symphony_es_projections.sums import UntrueFileError

__all__ = ["WrittenFile", "checked"]

T = TypeVar("T")
ATTEMPTS = 20
"""How often in a row one read finds that the file has changed since; a commit takes far longer than a look."""
_FRAME_BYTES = 4096 + 24
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def checked(db: sqlite3.Connection, image: Image, table: str, question: Callable[[], T], *, whole: bool = False) -> T:
    """Ask a question of what has been written, and of nothing else.

    Args:
        db: a connection that only reads. image: of the file.
        table: where the number of commits stands.
        whole: look at all pages, whether anything has touched the file or not.

    Raises:
        UntrueFileError: the file is not what has been written.
    """
    for attempt in range(1, ATTEMPTS + 1):
        db.execute("BEGIN")
        try:
            later = image.check(_commits(db, table, image.path), whole=whole)
            if not later:
                return question()
            raise UntrueFileError(f"{image.path.name} has been written by somebody else")
        except UntrueFileError:
            if attempt == ATTEMPTS:
                raise
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    raise AssertionError("the last attempt returns or raises")


def _commits(db: sqlite3.Connection, table: str, path: Path) -> int:
    found = db.execute(f"SELECT commits FROM {table}").fetchone()  # noqa: S608  constant text
    if found is None or type(found[0]) is not int:
        raise UntrueFileError(f"{path.name} does not say of how many commits it is")
    return int(found[0])


class WrittenFile:
    """A file that one connection writes. Blocking; one call at a time.

    It is closed when its owner is gone, or the program ends: else SQLite would copy the write-ahead file then, and nobody would note it.

    Args:
        path: the file. db: the connection, which begins no transaction by itself. owner: what uses it.
        table: where the number of commits stands, in the column `commits`; the transaction that makes the table is the first.
        pages: of the write-ahead file, after which it is copied into the database.
        durable: whether the check values have to be on the disk, so that a power failure costs nothing.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, owner: object, *, table: str, pages: int, durable: bool) -> None:
        self.path = path
        self._db = db
        self._table = table
        self._due_bytes = pages * _FRAME_BYTES
        self._durable = durable
        self._wal = path.with_name(f"{path.name}-wal")
        self._owed = False
        self._process = os.getpid()
        self._image = Image(path)
        self._end = weakref.finalize(owner, self._close)

    def check(self) -> None:
        """Look whether the file is what has been written.

        Raises:
            UntrueFileError: it is not.
        """
        self._db.execute("BEGIN")
        try:
            self._look()
        finally:
            self._db.execute("ROLLBACK")

    def _look(self) -> int:
        commits = _commits(self._db, self._table, self.path)
        if self._image.check(commits):
            raise UntrueFileError(f"{self.path.name} has been written by somebody else")
        return commits

    def begin(self, comment: str = "") -> None:
        """Begin a transaction, and count it.

        Args:
            comment: what the statements end with.

        Raises:
            UntrueFileError: the file is not what has been written. Nothing has begun.
            sqlite3.OperationalError: the check values cannot be noted, or another connection writes.
        """
        if self._owed:
            self._note()
        self._db.execute(f"BEGIN IMMEDIATE{comment}")
        try:
            self._look()
            self._db.execute(f"UPDATE {self._table} SET commits = commits + 1")  # noqa: S608  constant text
        except BaseException:
            self._db.execute(f"ROLLBACK{comment}")
            raise

    def committed(self) -> None:
        """Copy the write-ahead file into the database after a commit, where it has grown, and begin it anew.

        Raises:
            UntrueFileError: somebody else has written the file.
        """
        try:
            if self._wal.stat().st_size < self._due_bytes or not self._note():
                return
            (wait_ms,) = self._db.execute("PRAGMA busy_timeout").fetchone()
            self._db.execute("PRAGMA busy_timeout = 0")
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # readers may hold that up, to a later commit
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {wait_ms:d}")
        except UntrueFileError:
            raise
        except (OSError, sqlite3.Error):  # the next transaction says so; this one is there, and would be taken in twice
            return

    def _note(self) -> bool:
        """Copy and note; once copied, SQLite may begin the write-ahead file anew with any commit, so noting is owed before that."""
        self._owed = True
        try:
            noted = self._image.note(self._db, _commits(self._db, self._table, self.path), durable=self._durable)
        except OSError as error:
            told = sqlite3.OperationalError(f"{self.path.name}: {error.strerror}")
            told.sqlite_errorcode = sqlite3.SQLITE_FULL if error.errno in _FULL else sqlite3.SQLITE_IOERR
            raise told from error
        self._owed = False
        return noted

    def close(self) -> None:
        """Copy what no reader holds up into the file, note its check values, and close the connection; idempotent."""
        self._end()

    def leave(self) -> None:
        """Leave the connection to the parent process, and do nothing more."""
        self._end.detach()

    def _close(self) -> None:
        if os.getpid() != self._process:
            keep_for_ever(self._db)
            return
        try:
            noted = self._note()
        except sqlite3.Error:  # nothing is lost: the commits are in the write-ahead file
            noted = False
        if noted:
            self._db.close()
        else:
            self._close_uncopied()
        self._image.release()

    def _close_uncopied(self) -> None:
        """Close, while another connection sees to it that SQLite does not copy what nobody could note any more."""
        try:
            with closing(sqlite3.connect(database_uri(self.path), uri=True, isolation_level=None, check_same_thread=False)) as guard:
                guard.execute("PRAGMA schema_version").fetchone()
                self._db.close()
        except sqlite3.Error:
            self._db.close()
