"""The state directory: made private, locked for one writing process, and refused where its locks could not be trusted."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from symphony_es.diagnostics import get_logger
from symphony_es.errors import LogInUseError, LogUnavailableError
from symphony_es.log.forks import Inherited, left_at_fork, open_ones
from symphony_es.shown import quoted
from symphony_es.system import (
    file_system_of,
    is_directory,
    is_network_file_system,
    lock,
    present,
    refuse_shared,
    require_posix,
    sync,
    sync_directory,
    unlock,
)

__all__ = [
    "LOCK_NAME",
    "DirectoryLock",
    "check_kinds",
    "check_readable",
    "is_unmade",
    "last_writer",
    "note_made",
    "prepare_directory",
    "prepare_file",
]

logger = get_logger(__name__)

LOCK_NAME = "LOCK"
_CLEAN = b"clean\n"
PATIENCE_S, TICK_S = 1.0, 0.01
"""For so long one who is just opening or closing a log is waited for, and so long between two looks."""
_FILES = (LOCK_NAME, "events.db", "events.db-wal", "events.db-shm", "events.db-journal", "events.db-head")
_DIRECTORIES = ("snapshots", "projections")  # the inbox is looked at by who takes requests from it


def prepare_directory(path: Path, *, force_network_fs: bool = False, allow_shared: bool = False) -> None:
    """Make the directory (mode 0700) if it is missing, and check that a log may live in it.

    Args:
        path: the directory.
        force_network_fs: take one on a network file system.
        allow_shared: take one that is another user's, or that others can write.

    Raises:
        LogUnavailableError: it cannot be made, somebody else could change what is in it, or it is on a network file system.
    """
    require_posix()
    try:
        made = not present(path)
        if not made and not is_directory(path):
            raise LogUnavailableError(f"{path} is not a directory: a log lives in a directory of its own")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if made:
            sync_directory(path.parent)
        if allow_shared:
            check_kinds(path)
        else:
            _check_private(path, os.geteuid())
    except LogUnavailableError:
        raise
    except OSError as error:
        raise unavailable(path, error) from error
    kind = file_system_of(path)
    if kind is None:
        logger.warning("file_system_unknown", directory=str(path))
    elif is_network_file_system(kind) and not force_network_fs:
        raise LogUnavailableError(
            f"{path} is on a network file system ({kind}), whose locks cannot be trusted: use a local disk, or pass force_network_fs=True"
        )


def check_readable(path: Path, *, allow_shared: bool = False) -> None:
    """Check, as whoever reads a log does before anything of it is opened, that nobody but its owner can change it. Nothing is written.

    Args:
        path: its directory.
        allow_shared: take what others could change; only the kinds of its files are looked at then.

    Raises:
        LogUnavailableError: there is no such directory; something in it belongs to another user than it does, can be written by others, or
            is a link; or the system does not tell.
    """
    if allow_shared:
        check_kinds(path)
        return
    try:
        _check_private(path, None)
    except LogUnavailableError:
        raise
    except OSError as error:
        raise unavailable(path, error) from error


def _check_private(path: Path, writer: int | None) -> None:
    """Check that a log belongs to its writer, or to one user where it is only read, and that nobody else can change it."""
    found = path.stat()
    owner = writer if writer is not None else found.st_uid
    for part, info in [(path, found), *_parts(path)]:
        refuse_shared(info, part, owner, path, written=writer is not None)


def check_kinds(path: Path) -> None:
    """Check that a log is made of plain files and directories. Nothing is opened: to open a named pipe would wait for who writes it.

    Args:
        path: its directory.

    Raises:
        LogUnavailableError: something else stands under one of their names, or the system does not tell.
    """
    try:
        for _ in _parts(path):
            pass
    except LogUnavailableError:
        raise
    except OSError as error:
        raise unavailable(path, error) from error


def _parts(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files and directories of a log that are there, and what the system says of them; each is of its kind."""
    for names, is_one, kind in ((_FILES, stat.S_ISREG, "a regular file"), (_DIRECTORIES, stat.S_ISDIR, "a directory")):
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                found = (path / name).lstat()
                if not is_one(found.st_mode):
                    raise LogUnavailableError(f"{path / name} is not {kind}: a log never follows links")
                yield path / name, found


def prepare_file(path: Path) -> bool:
    """Make a file (mode 0600) if it is missing, without following a link; True when it was made.

    Raises:
        LogUnavailableError: it is a link or no file, or cannot be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise LogUnavailableError(f"{path} is not a regular file: a log never follows links") from None
        return False
    except OSError as error:
        raise unavailable(path, error) from error
    sync_directory(path.parent)
    return True


def unavailable(path: Path, error: OSError) -> LogUnavailableError:
    """Return what went wrong with a file, and what to do about it."""
    advice = {
        errno.ENOSPC: "make room on the disk",
        errno.EROFS: "the file system is read-only: read the log with read_only=True",
        errno.EACCES: "check its permissions",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "a part of the path is a file: name a directory",
        errno.ENAMETOOLONG: "choose a shorter name",
    }
    return LogUnavailableError(f"{path}: {error.strerror or error}; {advice.get(error.errno or 0, 'check the disk')}")


def last_writer(directory: Path) -> Literal["closed", "writing", "gone", "unknown"]:
    """Return what the last writer of a log has done: closed it, is writing it, or has ended without closing it. Nothing is written.

    Where there is no lock, as beside a database that was copied by itself, or it cannot be read, nobody knows.
    """
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return "unknown"
    try:
        if os.pread(descriptor, 100, 0) in (b"", _CLEAN):
            return "closed"
        lock(descriptor, shared=True)  # given up at once: a writer that starts would find it in its way
    except BlockingIOError:
        return "writing"
    except OSError:
        return "unknown"
    finally:
        os.close(descriptor)
    return "gone"


def is_unmade(directory: Path) -> bool:
    """Return whether no writer has had a log open yet, so that its tables need not be there; False where the lock does not tell."""
    try:
        return (directory / LOCK_NAME).lstat().st_size == 0
    except OSError:
        return False


class DirectoryLock(Inherited):
    """The lock that makes one process the writer, and the record of whether the last one closed the log.

    The lock is the kernel's (flock): it goes with the process, however that ends. A child process lets go of its copy at once.

    Attributes:
        was_clean: whether the last writer closed the log; True for a new one.
        was_used: whether there has been a writer that had the log open: its file, and the tables in it, were durable by then.

    Raises:
        LogInUseError: another process has it, or this one has it already.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK_NAME
        prepare_file(self.path)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(self.path, error) from error
        try:
            lock(self._descriptor)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 100, 0)
            file = _identity(os.fstat(self._descriptor))
            os.close(self._descriptor)
            self._descriptor = -1
            raise _in_use(directory, holder, here=any(lock.file == file for lock in open_ones(DirectoryLock))) from None
        self.file: tuple[int, int] | None = _identity(os.fstat(self._descriptor))
        self.released = threading.Event()
        before = os.pread(self._descriptor, 100, 0)
        self.was_clean, self.was_used = before in (b"", _CLEAN), before != b""
        if not self.was_clean:  # who asks for the lock meanwhile is told of this process, not of one that has ended
            os.pwrite(self._descriptor, _opened_here().ljust(len(before)), 0)
        left_at_fork(self)

    @classmethod
    def obtain(cls, directory: Path) -> DirectoryLock:
        """Return the lock; one whose holder is just opening or closing the log is waited for a moment. Blocks.

        Raises:
            LogInUseError: as for the class.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return cls(directory)
            except LogInUseError as error:
                if error.process is not None or time.monotonic() > deadline:
                    raise
            time.sleep(TICK_S)

    def mark_open(self) -> None:
        """Note durably that the log is being written, by this process."""
        self._write(_opened_here())

    def mark_clean(self) -> None:
        """Note durably that the log has been closed."""
        self._write(_CLEAN)

    def _write(self, content: bytes) -> None:
        try:
            os.pwrite(self._descriptor, content, 0)
            os.ftruncate(self._descriptor, len(content))
            sync(self._descriptor)
        except OSError as error:
            raise unavailable(self.path, error) from error

    def release(self) -> None:
        """Give the lock up; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            unlock(descriptor)  # a copy of the descriptor in a child process would keep it
            os.close(descriptor)
            self.file = None  # not before: whoever is refused meanwhile is told that this process has it
            self.released.set()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.release()  # its holder was collected

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`: close the copy of the descriptor, without unlocking what it shares with the parent's."""
        descriptor, self._descriptor, self.file = self._descriptor, -1, None
        if descriptor >= 0:
            os.close(descriptor)


def note_made(directory: Path) -> None:
    """Note durably, beside a log that was put there as a whole, what its writer would leave at the close: that one is there.

    Raises:
        LogUnavailableError: the note cannot be written.
    """
    lock = DirectoryLock(directory)
    try:
        lock.mark_clean()
    finally:
        lock.release()


def _opened_here() -> bytes:
    return f"open by process {os.getpid()}\n".encode()


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _in_use(directory: Path, holder: bytes, *, here: bool) -> LogInUseError:
    """Return what stands in the way, and what to do about it."""
    if here:
        return LogInUseError(
            f"{directory} is open in this process (process {os.getpid()}) already: Symphony.opened({quoted(str(directory), 4096)}) is "
            "the Symphony that has it, unless an eventsourcing application opened it before: use that one, or close what has it",
            os.getpid(),
        )
    number = holder.decode(errors="replace").strip().removeprefix("open by process ").strip()
    process = int(number) if number.isascii() and number.isdigit() else None
    named = f"process {process}" if process is not None else "it is just opening or closing it"
    return LogInUseError(
        f"{directory} is in use by another writer ({named}): one process writes a log; close the other one, "
        f"or read beside it with Symphony({quoted(str(directory))}, read_only=True)",
        process,
    )
