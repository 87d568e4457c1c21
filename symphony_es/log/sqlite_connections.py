"""Connections to the log's database: one that writes, a few that read and cannot write, each with its settings read back."""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import LogDamagedError, LogUnavailableError
from symphony_es.log.directory import is_unmade
from symphony_es.log.forks import Inherited, close_inherited, keep_for_ever, leave_connections, left_at_fork
from symphony_es.system import absolute, database_uri, present

__all__ = ["LogDatastore", "connect_reader", "failure_of", "is_damage", "is_empty", "may_change", "unavailable_for"]

BUSY_TIMEOUT_MS = 5000
READERS = 4
MOST_ROW_BYTES = 64 * 1024 * 1024
"""What one row of a file is read for at most: an event has 16 MiB, unless its log was told otherwise. What is longer is damage."""
logger = get_logger(__name__)

WRITER_SETTINGS: tuple[tuple[str, object, object], ...] = (
    ("busy_timeout", BUSY_TIMEOUT_MS, BUSY_TIMEOUT_MS),  # before anything that may have to wait
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),  # an acknowledged commit survives a power cut
    ("fullfsync", 1, 1),  # where plain fsync does not reach the platter (macOS)
    ("checkpoint_fullfsync", 1, 1),
    ("wal_autocheckpoint", 0, 0),  # checkpoints are explicit: the automatic one swallows I/O errors
    ("mmap_size", 0, 0),  # an I/O error is an error, not a signal
    ("trusted_schema", 0, 0),
    ("cell_size_check", 1, 1),
    ("foreign_keys", 1, 1),
    ("temp_store", 2, 2),
    ("cache_size", -16384, -16384),
    ("journal_size_limit", 16777216, 16777216),
)
READER_SETTINGS: tuple[tuple[str, object, object], ...] = (
    ("busy_timeout", BUSY_TIMEOUT_MS, BUSY_TIMEOUT_MS),
    ("query_only", 1, 1),
    ("mmap_size", 0, 0),
    ("trusted_schema", 0, 0),
    ("cell_size_check", 1, 1),
    ("temp_store", 2, 2),
)
UNSUPPORTED_ARE_SILENT = frozenset({"fullfsync", "checkpoint_fullfsync", "mmap_size"})  # answered with nothing where not built in


def is_damage(error: Exception) -> bool:
    """Return whether an error says that the file holds something that was never written: a damaged page, or text that is none."""
    if not isinstance(error, sqlite3.Error):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_TOOBIG)
    return code in damage or "decode" in str(error)


def failure_of(error: Exception, path: Path | str, doing: str) -> LogUnavailableError | LogDamagedError:
    """Return the typed error for what went wrong while a file was opened."""
    if not is_damage(error):
        return unavailable_for(error, path, doing)
    return LogDamagedError(f"{path}: {error} while {doing}: the file is damaged; restore a backup")


def unavailable_for(error: Exception, path: Path | str, doing: str, *, outcome_unknown: bool = False) -> LogUnavailableError:
    """Return SQLite's error as one that says what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    advice = {
        sqlite3.SQLITE_FULL: "the disk is full: make room, then go on",
        sqlite3.SQLITE_READONLY: "it is read-only: check its permissions",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that it exists, and its permissions",
        sqlite3.SQLITE_BUSY: "another process holds its lock",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a backup",
        sqlite3.SQLITE_NOTADB: "it is no SQLite database: restore a backup",
    }.get(code & 0xFF if code is not None else -1, "check the disk, then open the log anew")
    return LogUnavailableError(f"{path}: {error} while {doing}; {advice}", outcome_unknown=outcome_unknown)


def apply_settings(connection: sqlite3.Connection, settings: tuple[tuple[str, object, object], ...]) -> None:
    """Set pragmas and read each back.

    Raises:
        LogUnavailableError: one did not take effect, so that a guarantee would not hold.
    """
    for name, wanted, expected in settings:
        connection.execute(f"PRAGMA {name}={wanted}").fetchall()
        row = connection.execute(f"PRAGMA {name}").fetchone()
        if row is None and name in UNSUPPORTED_ARE_SILENT:
            continue
        if row is None or row[0] != expected:
            raise LogUnavailableError(f"SQLite refused PRAGMA {name}={wanted} (it says {row[0] if row else 'nothing'})")


def warn_of_wal_reset_bug() -> None:
    """Say once when this SQLite can lose commits if two connections checkpoint at once; one connection here does both."""
    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if not fixed:
        logger.debug("sqlite_wal_reset_bug", sqlite_version=sqlite3.sqlite_version, remedy="let no other program checkpoint this log")


def _identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file; None when there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116  half of what Path.stat costs, once a commit
    except OSError:
        return None
    return found.st_dev, found.st_ino


def may_change(path: Path) -> bool:
    """Return whether a database file can change while it is read; where not even SQLite can make its own files beside it, it cannot."""
    return os.access(path.parent, os.W_OK) or present(path.with_name(f"{path.name}-wal"))


def _no_index(error: Exception, path: Path) -> LogUnavailableError | None:
    """Return why a copy of what a crashed writer has left cannot be read where nothing can be written: SQLite makes an index of such
    commits.
    """
    wal, index = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_CANTOPEN or not present(wal) or os.access(path.parent, os.W_OK):
        return None
    return LogUnavailableError(
        f"{wal} has commits that its writer has not moved into {path.name}, and to read them SQLite makes {index.name} beside it, in a "
        "directory that cannot be written: copy the whole directory to where it can be, and read it there"
    )


def _not_yet(path: Path) -> LogUnavailableError:
    return LogUnavailableError(
        f"there is no log in {path.parent} yet: who writes it is just making it, or was stopped before it was made; "
        "try again when there is a writer, which makes it or goes on with that"
    )


def is_empty(path: Path) -> bool:
    """Return whether SQLite takes a file for an empty one, into which it puts one byte itself; False where it is not there."""
    try:
        return path.stat().st_size <= 1
    except OSError:
        return False


def connect_reader(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Return a private connection that cannot write, in autocommit mode.

    Raises:
        LogUnavailableError: the file cannot be opened, or is being made.
        LogDamagedError: it is empty. SQLite is not shown it: it would remove the write-ahead file beside it, for a reader as well.
    """
    connection = None
    unmade = is_unmade(path.parent)  # looked at first: its writer notes that the tables are there when they are
    if is_empty(path):
        if unmade:
            raise _not_yet(path)
        raise LogDamagedError(f"{path} is empty: put back what was there, or restore a backup; nothing was changed")
    try:
        connection = sqlite3.connect(
            database_uri(path, immutable=immutable), uri=True, check_same_thread=False, isolation_level=None, cached_statements=128
        )
        apply_settings(connection, READER_SETTINGS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_ROW_BYTES)
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and unmade:
            raise _not_yet(path)
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        if connection is not None:
            connection.close()
        if unmade and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:  # stopped within its first page
            raise _not_yet(path) from error
        raise _no_index(error, path) or failure_of(error, path, "opening it for reading") from error
    except LogUnavailableError:
        if connection is not None:
            connection.close()
        raise
    return connection


class LogDatastore(Inherited):
    """The writing connection and the reading ones of one database file.

    Args:
        path: the database file.
        read_only: have no writing connection.
        immutable: the file cannot change and its directory cannot be written (implies read_only).
    """

    def __init__(self, path: Path, *, read_only: bool = False, immutable: bool = False) -> None:
        close_inherited(path)
        self.path = absolute(path)  # a program may go to another directory
        self._name = str(self.path)  # what it is looked at by, once a commit
        self.immutable = immutable
        self.lock = threading.RLock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._opened: list[sqlite3.Connection] = []
        self._reader_lock = threading.Lock()
        self._closed = False
        self._held: list[sqlite3.Connection] = []  # during a fork: idle reading connections, and the locks that keep others out
        self._held_locks: list[Any] = []
        self.writer: sqlite3.Connection | None = None
        if not read_only:
            self.writer = self._connect_writer()
        self.file = _identity(self._name)
        """Device and inode of what was opened."""
        left_at_fork(self)

    def _connect_writer(self) -> sqlite3.Connection:
        warn_of_wal_reset_bug()
        connection = None
        try:
            connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, cached_statements=128)
            apply_settings(connection, WRITER_SETTINGS)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            if connection is not None:
                connection.close()
            raise failure_of(error, self.path, "opening it for writing") from error
        except LogUnavailableError:
            if connection is not None:
                connection.close()
            raise
        return connection

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Hold a private reading connection, used by one thread at a time; at most four, a fifth thread waits.

        Raises:
            LogUnavailableError: it cannot be opened; or, of a log that another process writes, the file is not the one under its name.
        """
        if self.writer is None:
            self.check_place()
        connection = self._take()
        try:
            yield connection
        finally:
            self._readers.put(connection)

    def _take(self) -> sqlite3.Connection:
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            with self._reader_lock:
                if self._closed:
                    raise LogUnavailableError(f"{self.path} is closed") from None
                if len(self._opened) < READERS:
                    self.check_place()
                    connection = connect_reader(self.path, immutable=self.immutable)
                    self._opened.append(connection)
                    return connection
            return self._readers.get()

    def check_place(self) -> None:
        """Check that the file that was opened still stands under its name.

        SQLite goes on writing what nobody can open any more, and reading what nobody writes any more; a connection opened later reads
        another file than those before it.

        Raises:
            LogUnavailableError: it does not; nothing was read or written.
        """
        if _identity(self._name) != self.file:
            if self.writer is None:
                raise LogUnavailableError(
                    f"{self.path} has been deleted, moved or replaced since it was opened for reading, and nobody goes on with it: "
                    "close this Symphony or log, and open what stands there now",
                    lasting=True,
                )
            raise LogUnavailableError(
                f"{self.path} has been deleted, moved or replaced since it was opened: nothing can be written to it or read "
                "from it any more, and what was written until then is in the file that it was; close this Symphony, put that file or a "
                "backup in its place",
                lasting=True,
            )

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; idempotent. Nobody may be using one."""
        if getattr(self, "_closed", True):
            return
        self._closed = True
        with self._reader_lock:
            for connection in self._opened:
                connection.close()
        if self.writer is not None:
            self.writer.close()

    def quiet_for_fork(self, deadline: float) -> None:
        """See `Inherited`: wait until no thread is inside SQLite with one of the connections."""
        for lock in (self.lock, self._reader_lock):
            if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                self._held_locks.append(lock)
        try:
            while len(self._held) < len(self._opened):
                self._held.append(self._readers.get(timeout=max(0.0, deadline - time.monotonic())))
        except queue.Empty:
            return

    def go_on_after_fork(self) -> None:
        """See `Inherited`."""
        while self._held:
            self._readers.put(self._held.pop())
        while self._held_locks:
            self._held_locks.pop().release()

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`."""
        if self._closed:
            return
        self._closed = True
        keep_for_ever(self)
        connections = [*self._opened, *([self.writer] if self.writer is not None else [])]
        idle = len(self._held_locks) == 2 and len(self._held) == len(self._opened)
        if self.file is not None:
            leave_connections(self.file, connections, idle=idle)

    def checkpoint(self, mode: str) -> tuple[Any, ...]:
        """Copy the write-ahead file into the database; return SQLite's answer (busy, frames, copied).

        Raises:
            sqlite3.Error: an I/O error, which the automatic checkpoint would have swallowed.
        """
        assert self.writer is not None, "only the writer checkpoints"
        answer: tuple[Any, ...] = self.writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return answer
