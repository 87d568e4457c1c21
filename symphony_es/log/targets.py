"""Where nothing may be put: what holds a log, or is kept beside it. Every export, backup, fork, restore and import asks here.

What is the library's own is known by its place (a directory that has a log's files), by its content (each of its files begins with a mark)
and by what it is beside (a database's write-ahead file). No option allows it to be replaced: whoever has it open would go on writing into
a file without a name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from symphony_es.errors import StorageUnavailableError, TargetOccupiedError
from symphony_es.log.directory import LOCK_NAME
from symphony_es.system import is_directory, is_link, is_mount_point, is_plain_file, present

__all__ = ["check_replaceable", "check_stream", "check_target"]

_LOG = "events.db"
_LOG_FILES = (_LOG, f"{_LOG}-head", f"{_LOG}-wal")
_DIRECTORIES = frozenset({"snapshots", "projections", "inbox"})
_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")
_MARKS = {
    b"SQLite format 3\0": "a database",
    b"\x37\x7f\x06\x82": "the write-ahead file of a database",
    b"\x37\x7f\x06\x83": "the write-ahead file of a database",
    b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7": "the journal of a database",
    b"\x89SYMSNAP": "a snapshot",
    b"symhead1": "the note of how far a log goes",
}
_MARK_BYTES = 16


def check_target(target: Path) -> None:
    """Refuse a target that is one of a state directory's own files or directories, or lies in one of them, or is a mount point. Blocking.

    Names count also where nothing is there yet: a log would find there what it has not written. What is mounted is found before anything
    is built that could not be put in its place.

    Raises:
        TargetOccupiedError: it is.
        StorageUnavailableError: the system does not tell.
    """
    real = Path(os.path.realpath(target))
    try:
        present(target)  # a name that is too long, say, ends here and not in the middle of the work
        if is_mount_point(real):
            within = f"{target}/state" if is_directory(real) else "another place"
            raise TargetOccupiedError(target, f"it is a mount point, and nothing can be put in the place of one: choose {within}, say")
        below = real
        for directory in real.parents:
            if _is_own(below.name) and any(is_link(directory / name) or present(directory / name) for name in _LOG_FILES):
                raise TargetOccupiedError(target, f"{below.name} in a state directory is the log's own: choose another place")
            below = directory
        for ending in _BESIDE_A_DATABASE:
            database = real.with_name(real.name[: -len(ending)]) if real.name.endswith(ending) and real.name != ending else None
            if database is not None and is_plain_file(database):
                raise TargetOccupiedError(
                    target, f"its name is that of what a database {database} keeps beside itself: choose another name"
                )
    except TargetOccupiedError:  # an OSError as well
        raise
    except OSError as error:
        raise StorageUnavailableError(error.errno, f"{target} cannot be looked at: {error.strerror}") from error


def _is_own(name: str) -> bool:
    given = name.casefold()  # there are file systems that do not tell a capital letter from a small one
    return given in _DIRECTORIES or given == LOCK_NAME.casefold() or given.startswith(_LOG)


def check_replaceable(target: Path) -> None:
    """Refuse a file that is a log, a snapshot, a read model or another database, wherever it is. Blocking.

    Raises:
        TargetOccupiedError: it is.
        StorageUnavailableError: it cannot be read.
    """
    check_target(target)
    try:
        if target.name.casefold() == LOCK_NAME.casefold():
            mark: str | None = "the lock of a directory in use"
        elif any(present(f"{target}{ending}") for ending in _BESIDE_A_DATABASE):  # first: opening it would drop this process's locks
            mark = "a database in use"
        else:
            mark = _mark(target)
    except OSError as error:
        raise StorageUnavailableError(error.errno, f"{target} cannot be looked at: {error.strerror}") from error
    if mark is not None:
        raise TargetOccupiedError(target, f"it is {mark}, and is never overwritten: choose another name")


def _mark(path: Path) -> str | None:
    """Return what kind of file it is, by how it begins; None where it is no plain file, or of none of these kinds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        begins = os.pread(descriptor, _MARK_BYTES, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)
    return next((kind for mark, kind in _MARKS.items() if begins.startswith(mark)), None)


def check_stream(stream: object, directory: Path) -> None:
    """Refuse a stream that writes into a file of a state directory, as `>>` of a shell makes one. Blocking.

    Raises:
        TargetOccupiedError: it does.
        StorageUnavailableError: the directory cannot be read.
    """
    try:
        descriptor = stream.fileno()  # type: ignore[attr-defined]
        written = os.fstat(descriptor)
    except (AttributeError, TypeError, ValueError, OSError):  # a stream that is no file of the system
        return
    if not stat.S_ISREG(written.st_mode):
        return
    try:
        own = [path for path in directory.iterdir() if _is_own(path.name)]
        for path in [each for one in own for each in (sorted(one.iterdir()) if is_directory(one) and not is_link(one) else [one])]:
            if _same(path, written):
                raise TargetOccupiedError(path, "the stream writes into a file of the state directory: choose another one")
    except TargetOccupiedError:  # an OSError as well
        raise
    except OSError as error:
        raise StorageUnavailableError(error.errno, f"{directory} cannot be looked at: {error.strerror}") from error


def _same(path: Path, written: os.stat_result) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (written.st_dev, written.st_ino)
