"""The check values of a read model's pages, which stand beside its file, and how that file is read beside SQLite.

SQLite believes what it reads: a flipped bit in an index leaves rows out, an older page brings back rows that are no more. So whoever writes
a read model notes a check value for each page in `FILE-sums`. A check value is chained to the number of its page, and all of them to each
other: a page of another place or time does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import struct
import threading
from array import array
from collections.abc import Container
from dataclasses import field
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple
from zlib import crc32

from symphony_es.late_dataclasses import dataclass
from symphony_es.system import sync, sync_directory

__all__ = ["FILES", "SUMS", "HeldFile", "Stat", "Sums", "UntrueFileError", "check_kinds"]

SUMS = "-sums"
_UNFINISHED = f"{SUMS}.new"
FILES = ("", "-wal", "-shm", SUMS, _UNFINISHED)
"""What the names of a read model's files end with."""

_MAGIC = b"symSUMS1"
_HEAD = struct.Struct("<8sQII8sI4q")
_DIGEST_BYTES = 16
_PIECE_BYTES = 1 << 20
_SMALLEST_PAGE_BYTES = 512


class UntrueFileError(sqlite3.DatabaseError):
    """A read model's file is not what its writer has written. It counts as damage that SQLite has found."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        self.sqlite_errorname = "SQLITE_CORRUPT"


def check_kinds(path: Path) -> None:
    """Check that a read model's files are plain ones: to open a named pipe would wait for who writes it, and a link leads elsewhere.

    Raises:
        UntrueFileError: one is not.
    """
    for ending in FILES:
        file = path.with_name(path.name + ending)
        with contextlib.suppress(FileNotFoundError):
            if not S_ISREG(file.lstat().st_mode):
                raise UntrueFileError(f"{file.name} is not a plain file")


class Stat(NamedTuple):
    """What the system says of a file: nobody writes it without changing this."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stat:
        """Return the part of it that matters."""
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


_NOTHING = Stat(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sums:
    """What the file came to when its write-ahead file had last been copied into it.

    Attributes:
        commits: how many commits had been made by then.
        page_size: in bytes. values: of each page, the first one first.
        salt: of the write-ahead file. frames: how many of its frames had been copied by then.
        stat: of the file.
    """

    commits: int = 0
    page_size: int = 0
    values: array[int] = field(default_factory=lambda: array("I"))
    salt: bytes = bytes(8)
    frames: int = 0
    stat: Stat = _NOTHING

    @classmethod
    def read(cls, path: Path) -> Sums:
        """Return those beside a file. Where there are none, all its pages have to stand in the write-ahead file.

        Raises:
            UntrueFileError: they are damaged.
        """
        file = path.with_name(path.name + SUMS)
        try:
            found = file.lstat()
            if not S_ISREG(found.st_mode) or found.st_size > _most_bytes(path):
                raise UntrueFileError(f"{file.name} is damaged")
            content = file.read_bytes()
        except FileNotFoundError:
            return cls()
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if len(body) < _HEAD.size or _digest(body) != digest:
            raise UntrueFileError(f"{path.name}{SUMS} is damaged")
        magic, commits, page_size, pages, salt, frames, *stat = _HEAD.unpack_from(body)
        values = array("I")
        values.frombytes(body[_HEAD.size :])
        if magic != _MAGIC or len(values) != pages:
            raise UntrueFileError(f"{path.name}{SUMS} is of another form")
        return cls(commits, page_size, values, salt, frames, Stat(*stat))

    def write(self, path: Path, *, durable: bool) -> None:
        """Put them beside a file, whole or not at all."""
        head = _HEAD.pack(_MAGIC, self.commits, self.page_size, len(self.values), self.salt, self.frames, *self.stat)
        body = head + self.values.tobytes()
        target = path.with_name(path.name + SUMS)
        temporary = path.with_name(path.name + _UNFINISHED)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(body + _digest(body))
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
        if durable:
            sync_directory(path.parent)

    def first_untrue(self, file: HeldFile, pages: int, elsewhere: Container[int]) -> int | None:
        """Return the first of so many pages that is not as noted; None when all are. Those that stand elsewhere are passed over.

        So are those that nothing is noted of: nobody has written them, and no row stands there.
        """
        size, values, number = self.page_size, self.values, 0
        pages = min(pages, len(values))
        while number < pages:
            piece = memoryview(file.read(number * size, max(_PIECE_BYTES // size, 1) * size))
            for start in range(0, min(max(len(piece), 1), (pages - number) * size), size):
                number += 1
                if number in elsewhere:
                    continue
                page = piece[start : start + size]
                if len(page) != size or crc32(page, number) != values[number - 1]:
                    return number
        return None


def _most_bytes(path: Path) -> int:
    """Return how many bytes the check values of a file can have: SQLite has no smaller pages, and each stands in the file or behind it."""
    size = path.stat().st_size
    with contextlib.suppress(FileNotFoundError):
        size += path.with_name(f"{path.name}-wal").stat().st_size
    return _HEAD.size + _DIGEST_BYTES + array("I").itemsize * (size // _SMALLEST_PAGE_BYTES + 1)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


class HeldFile:
    """A file that SQLite has open, read beside it.

    POSIX gives up all locks that a process has on a file as soon as the process closes it once, so each file is opened once, and closed
    when nobody here needs it any more: after the connections to it.
    """

    _lock = threading.RLock()  # the collector may let go of one while another one is being opened
    _open: dict[tuple[int, int], list[int]] = {}  # descriptor and number of holders, by device and inode

    def __init__(self, path: Path) -> None:
        with self._lock:
            found = path.stat()
            self._key: tuple[int, int] | None = (found.st_dev, found.st_ino)
            if self._key not in self._open:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                found = os.fstat(descriptor)
                self._key = (found.st_dev, found.st_ino)
                self._open.setdefault(self._key, [descriptor, 0])
            entry = self._open[self._key]
            entry[1] += 1
            self._descriptor = entry[0]

    def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes from an offset on, or what there is."""
        return os.pread(self._descriptor, size, offset)

    def stat(self) -> Stat:
        """Return what the system says of it."""
        return Stat.of(os.fstat(self._descriptor))

    def release(self) -> None:
        """Say that it is not needed any more; idempotent."""
        with self._lock:
            key, self._key = self._key, None
            if key is None:
                return
            entry = self._open[key]
            entry[1] -= 1
            if not entry[1]:
                del self._open[key]
                with contextlib.suppress(OSError):
                    os.close(entry[0])
