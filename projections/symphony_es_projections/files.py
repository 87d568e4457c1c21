"""The files of durable projections: one database per build, and a pointer that names the one that readers use.

`NAME.BUILD.db` is a build, `NAME.current` the pointer. A build is pointed at only when it is complete, and the pointer is replaced
in one step, so whoever follows it reads the old content or the new one. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from symphony_es.errors import ProjectionUnavailableError
from symphony_es.log.directory import prepare_file
from symphony_es.log.forks import Inherited, keep_for_ever, left_at_fork
from symphony_es.system import database_uri, given_path, present, sync, sync_directory
from symphony_es_projections.durable import Parameters, check_projection_name, is_projection_name
from symphony_es_projections.image import Image
from symphony_es_projections.sums import FILES, UntrueFileError, check_kinds
from symphony_es_projections.written import checked

__all__ = [
    "ProjectionReader",
    "builds_of",
    "current_build",
    "identity_of",
    "is_build",
    "is_damage",
    "is_trouble",
    "new_build",
    "open_current",
    "point_at",
    "pointed_at",
    "remove_build",
    "remove_orphans",
    "remove_pointer",
]

POINTER_BYTES = 200
IDLE_CONNECTIONS = 4
SWAPS_FOLLOWED = 20
"""How often in a row one read follows a pointer that is replaced under it; a build takes far longer than a read."""
BUSY_TIMEOUT_S = 5.0


def new_build(directory: Path, name: str) -> Path:
    """Make an empty file (mode 0600) for a build; its name has never been used before."""
    path = directory / f"{name}.{secrets.token_hex(6)}.db"
    prepare_file(path)
    return path


def builds_of(directory: Path, name: str) -> list[Path]:
    """Return the files of all builds of a projection, pointed at or not."""
    return [path for path in sorted(directory.glob(f"{name}.*.db")) if is_build(path.name, name)]


def pointed_at(directory: Path) -> list[str]:
    """Return the names of all projections that have a build for readers; none where there is no such directory."""
    names = [path.name.removesuffix(".current") for path in sorted(directory.glob("*.current"))]
    return [name for name in names if is_projection_name(name)]


def is_build(file: str, name: str | None = None) -> bool:
    """Return whether a build could have this name: of one projection, or of any."""
    return re.fullmatch(("[a-z0-9_]+" if name is None else re.escape(name)) + r"\.[0-9a-f]{12}\.db", file) is not None


def current_build(directory: Path, name: str) -> Path | None:
    """Return the file that the pointer names; None when there is no pointer, or none that makes sense."""
    pointer = directory / f"{name}.current"
    try:
        if not stat.S_ISREG(pointer.lstat().st_mode):
            return None
        descriptor = os.open(pointer, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        file = os.read(descriptor, POINTER_BYTES).decode("ascii", "replace").rstrip("\n")
    finally:
        os.close(descriptor)
    return directory / file if is_build(file, name) else None


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return which file stands under a name; None for one that is empty, as no build is.

    Raises:
        OSError: none does.
    """
    found = path.stat()
    return (found.st_dev, found.st_ino) if found.st_size else None


def point_at(build: Path, name: str) -> None:
    """Make readers use a build, durably and in one step."""
    directory = build.parent
    temporary = directory / f"{name}.current.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{build.name}\n".encode("ascii"))
        sync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(directory / f"{name}.current")
    sync_directory(directory)


def remove_pointer(directory: Path, name: str) -> None:
    """Leave readers without a build."""
    (directory / f"{name}.current").unlink(missing_ok=True)
    sync_directory(directory)


def remove_build(build: Path) -> None:
    """Remove a build's files; readers that have them open go on reading them."""
    for suffix in FILES:
        build.with_name(build.name + suffix).unlink(missing_ok=True)


def remove_orphans(directory: Path, name: str) -> None:
    """Remove what a reader may have made that opened a build while it was removed."""
    for suffix in FILES[1:]:
        for path in directory.glob(f"{name}.*.db{suffix}"):
            build = path.with_name(path.name.removesuffix(suffix))
            if is_build(build.name, name) and not present(build):
                path.unlink(missing_ok=True)


class _SwappedError(Exception):
    """The pointer was replaced while its build was being opened."""


class _Opened:
    """A connection to a build, and what looks whether that is true."""

    def __init__(self, build: Path, connection: sqlite3.Connection) -> None:
        self.build = build
        self.connection = connection
        self._image = Image(build)

    def read(self, sql: str, parameters: Parameters, *, whole: bool) -> list[sqlite3.Row]:
        """Return the rows of one SELECT."""
        db = self.connection
        return checked(db, self._image, "projection_progress", lambda: db.execute(sql, parameters).fetchall(), whole=whole)

    def close(self) -> None:
        """Close it; idempotent."""
        self.connection.close()
        self._image.release()


class ProjectionReader(Inherited):
    """Reads the current build of a projection, in any process, also while it is written and when it is replaced.

    Args:
        directory: where the files are; it need not be writable.
        name: which projection.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = check_projection_name(name)
        self._lock = threading.Lock()
        self._idle: list[_Opened] = []
        self._closed = False
        left_at_fork(self)

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`."""
        self._closed = True
        keep_for_ever(self, *self._idle)

    async def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return the rows of one SELECT, read in a worker thread.

        Raises:
            ProjectionUnavailableError: nothing has been built here, or its file cannot be read.
            sqlite3.Error: the statement is wrong.
        """
        import asyncio  # a command line that reads once does not wait for it

        return await asyncio.to_thread(self.read_now, sql, parameters)

    def read_now(self, sql: str, parameters: Parameters = (), *, whole: bool = False) -> list[sqlite3.Row]:
        """Return the same, blocking.

        Args:
            sql: the statement. parameters: its values.
            whole: look at the whole file first, whether anything has touched it since it was written or not.
        """
        for _ in range(SWAPS_FOLLOWED):
            build = self._build()
            try:
                with self._connection(build) as opened:
                    return opened.read(sql, parameters, whole=whole)
            except _SwappedError:
                continue
            except sqlite3.DatabaseError as error:
                if self._build() != build:
                    continue
                if is_trouble(error) and error.sqlite_errorcode != sqlite3.SQLITE_READONLY:  # that is a statement that would write
                    raise ProjectionUnavailableError(self.name, f"{build}: {error}; the runner builds a damaged file anew") from error
                raise
        raise ProjectionUnavailableError(self.name, "its file is replaced all the time; try again later")

    def _build(self) -> Path:
        if self._closed:
            raise ProjectionUnavailableError(self.name, "its reader is closed")
        try:
            build = current_build(self.directory, self.name)
        except OSError as error:
            raise ProjectionUnavailableError(self.name, f"{self.directory}: {error.strerror}") from error
        if build is None:
            raise ProjectionUnavailableError(self.name, f"{self.directory} has none that is complete; a ProjectionRunner builds it")
        return build

    @contextlib.contextmanager
    def _connection(self, build: Path) -> Iterator[_Opened]:
        """Hold a connection that nobody else uses meanwhile; those of earlier builds are closed."""
        with self._lock:
            stale = [opened for opened in self._idle if opened.build != build]
            self._idle = [opened for opened in self._idle if opened.build == build]
            found = self._idle.pop() if self._idle else None
        for opened in stale:
            opened.close()
        frozen = found is None and _is_frozen(build)
        opened = self._open(build, frozen) if found is None else found
        try:
            yield opened
        except BaseException:
            opened.close()
            raise
        with self._lock:
            keep = not self._closed and not frozen and len(self._idle) < IDLE_CONNECTIONS
            if keep:
                self._idle.append(opened)
        if not keep:
            opened.close()
        if frozen and not _is_frozen(build):  # a writer has begun meanwhile: what was read without locks is not to be trusted
            raise _SwappedError

    def _open(self, build: Path, frozen: bool) -> _Opened:
        try:
            connection = _connect(build, frozen)
        except sqlite3.OperationalError:
            if self._build() != build:
                raise _SwappedError from None
            raise
        try:
            if self._build() != build:  # its files may have gone while they were being opened: what was opened may lack its last part
                raise _SwappedError
            return _Opened(build, connection)
        except FileNotFoundError:
            connection.close()
            raise _SwappedError from None
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close all connections; idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for opened in idle:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _is_frozen(build: Path) -> bool:
    """Return whether nobody writes the file, in a directory where SQLite cannot make the file that it keeps its locks in."""
    return not os.access(build.parent, os.W_OK) and not present(build.with_name(f"{build.name}-wal"))


def _connect(build: Path, frozen: bool) -> sqlite3.Connection:
    """Return a connection that cannot write, and has read once: from then on it does not matter when the files' names go."""
    check_kinds(build)
    uri = database_uri(build, immutable=frozen)
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT position FROM projection_progress").fetchone()
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and not is_trouble(error):
            raise UntrueFileError(f"it is not a read model's ({error})") from error
        raise
    return connection


_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def is_trouble(error: BaseException) -> bool:
    """Return whether an error is that of a disk, lock or file, and no fault of a statement or an event."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _TROUBLE
    return isinstance(error, MemoryError)


def is_damage(error: BaseException | None) -> bool:
    """Return whether an error says that a file is no sound database."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return isinstance(error, sqlite3.Error) and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def open_current(directory: Path | str, name: str) -> ProjectionReader:
    """Open a projection for reading, in any process. Blocks for a moment.

    Returns:
        what follows the pointer: a build that replaces another one is read from its next `read` on. Close it.

    Raises:
        ProjectionUnavailableError: nothing has been built in the directory under this name.
        ConfigurationError: no projection can have this name.
    """
    reader = ProjectionReader(given_path(directory, "directory"), name)
    try:
        reader.read_now("SELECT position FROM projection_progress")
    except BaseException:
        reader.close()
        raise
    return reader
