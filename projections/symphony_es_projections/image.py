"""A read model's file as SQLite reads it: pages of the database, but those that stand in the write-ahead file.

The rule: what is read is what the writer has committed. Each page of the database is as its check value says (see `sums`), or stands in a
frame of the write-ahead file, which SQLite checks when it opens it; and there are as many commits in these frames as the rows count. So a
page that is damaged, swapped or of another time, rows that somebody else has changed, and a write-ahead file that is gone, cut or of
another time are noticed before a row is believed. The order of a copy: frames are copied into the database → check values are noted →
the write-ahead file begins anew; a crash between any two leaves frames that stand for the pages whose check values are older.

The file is looked through as a whole when it is opened, and again when anything has touched it; of a file of more than `CHECKED_BYTES`, it
is enough at first that nothing has touched it since its check values were noted.

Source: the WAL format and the WAL-index format of SQLite's documentation.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from array import array
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from symphony_es_projections.sums import SUMS, HeldFile, Stat, Sums, UntrueFileError

__all__ = ["CHECKED_BYTES", "Image"]

CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are looked through as a whole whenever they are opened."""

_HEADER = struct.Struct(">6I8x")
_FRAME = struct.Struct(">II8s")
_HEADER_BYTES = 32
_FRAME_BYTES = 24
_MAGIC = 0x377F0682  # the lowest bit says whether checksums are big-endian
_FRAMES_AT = 16  # where the index says how many frames are valid


class _Frame(NamedTuple):
    page: int
    commits: int  # pages of the database after a commit; 0 in the middle of one


class Frames:
    """The heads of the valid frames of a write-ahead file. SQLite has no lock on this file: it is opened each time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: list[_Frame] = []
        self.salt = bytes(8)
        self.page_size = 0

    def first(self, count: int) -> list[_Frame]:
        """Return the heads of so many frames.

        Raises:
            UntrueFileError: there are not so many.
        """
        if not count:
            return []
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UntrueFileError(f"{self._path.name} is missing") from None
        try:
            header = os.pread(descriptor, _HEADER_BYTES, 0)
            page_size = _page_size(header)
            if not page_size:
                raise UntrueFileError(f"{self._path.name} is damaged")
            if header[16:24] != self.salt:
                self._known, self.salt, self.page_size = [], header[16:24], page_size
            while len(self._known) < count:
                head = os.pread(descriptor, _FRAME_BYTES, self.offset(len(self._known)))
                if len(head) < _FRAME_BYTES or head[8:16] != self.salt:
                    raise UntrueFileError(f"{self._path.name} is cut")
                page, commits, _ = _FRAME.unpack_from(head)
                self._known.append(_Frame(page, commits))
        finally:
            os.close(descriptor)
        return self._known[:count]

    def offset(self, index: int) -> int:
        """Return where a frame begins."""
        return _HEADER_BYTES + index * (_FRAME_BYTES + self.page_size)

    def values_of(self, indexes: dict[int, int]) -> dict[int, int]:
        """Return the check values of pages, whose frames are given by number of the page."""
        with self._path.open("rb", buffering=0) as file:
            return {
                page: crc32(os.pread(file.fileno(), self.page_size, self.offset(index) + _FRAME_BYTES), page)
                for page, index in indexes.items()
            }


def _page_size(header: bytes) -> int:
    """Return what a write-ahead file's header says, where it checks; else 0."""
    if len(header) < _HEADER_BYTES:
        return 0
    magic, _, page_size, *_ = _HEADER.unpack(header)
    first = second = 0
    words = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    sound = magic & ~1 == _MAGIC and struct.unpack(">2I", header[24:]) == (first, second)
    return page_size if sound else 0


class Image:
    """The file of one read model, looked at by one connection that writes, or by those of one reader.

    Args:
        path: the file. Its check values and its write-ahead file stand beside it.

    Raises:
        UntrueFileError: the check values are damaged.
        OSError: there is no such file, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums_path = path.with_name(path.name + SUMS)
        self._index_path = path.with_name(f"{path.name}-shm")
        self._frames = Frames(path.with_name(f"{path.name}-wal"))
        self._lock = threading.Lock()
        self._index: HeldFile | None = None
        self._seen: tuple[Stat, Stat | None] | None = None
        self._file = HeldFile(path)
        self._sums = Sums()
        self._sums_stat: Stat | None = None
        try:
            self._load()
        except BaseException:
            self._file.release()
            raise

    def _load(self) -> bool:
        """Take the check values as they are now; whether they have changed."""
        try:
            found: Stat | None = Stat.of(self._sums_path.stat())
        except FileNotFoundError:
            found = None
        if found == self._sums_stat:
            return False
        self._sums = Sums.read(self.path)
        self._sums_stat = found
        return True

    # -- looking ------------------------------------------------------------------------------------------------------

    def check(self, commits: int, *, whole: bool = False) -> int:
        """Look whether what a transaction reads is what has been written. It has begun, and has read how many commits there have been.

        Args:
            commits: those. whole: look at all pages, whether anything has touched the file or not.

        Returns:
            how many more commits there are by now: a later transaction has to know of them.

        Raises:
            UntrueFileError: it is not.
        """
        with self._lock:
            while True:
                self._load()
                try:
                    return self._check(commits, whole)
                except UntrueFileError:
                    if not self._load():  # the writer has noted others meanwhile
                        raise

    def _check(self, commits: int, whole: bool) -> int:
        frames = self._frames.first(self._valid_frames())
        begin = self._begin()
        missing, end, pages, later = commits - self._sums.commits, begin, len(self._sums.values), 0
        for index in range(begin, len(frames)):
            if frames[index].commits and missing > 0:
                missing, end, pages = missing - 1, index + 1, frames[index].commits
            elif frames[index].commits:
                later += 1
        if missing:
            raise UntrueFileError(f"{self.path.name} says that it is of {commits} commits, and others are on record")
        stat = self._file.stat()
        if whole or not self._is_known(stat):
            self._look_through(pages, {frame.page for frame in frames[begin:end]}, stat.size)
        self._seen = (stat, self._sums_stat)
        return later

    def _begin(self) -> int:
        """Return how many frames of the write-ahead file are in the database, and in the check values."""
        return self._sums.frames if self._frames.salt == self._sums.salt else 0

    def _valid_frames(self) -> int:
        """Return how many frames SQLite takes, as its index says; it has made that before a transaction has read anything."""
        try:
            found = self._index_path.stat()
        except FileNotFoundError:  # nobody writes, and it cannot be made here; or somebody has removed it, and SQLite has it still
            pass
        else:
            if self._index is None or self._index.stat().inode != found.st_ino:
                self._let_go_of_index()
                self._index = HeldFile(self._index_path)
        told = self._index.read(_FRAMES_AT, 4) if self._index is not None else b""
        return int(struct.unpack("=I", told)[0]) if len(told) == 4 else 0

    def _is_known(self, stat: Stat) -> bool:
        """Return whether nothing has touched the file since it was looked through, or since its check values were noted."""
        if self._seen == (stat, self._sums_stat):
            return True
        return stat == self._sums.stat and (self._seen is not None or stat.size > CHECKED_BYTES)

    def _look_through(self, pages: int, elsewhere: set[int], size: int) -> None:
        untrue = self._sums.first_untrue(self._file, pages, elsewhere)
        if untrue is not None:
            raise UntrueFileError(f"page {untrue} of {self.path.name} is not what has been written there")
        if not elsewhere and size != pages * self._sums.page_size:
            raise UntrueFileError(f"{self.path.name} has {size} bytes, and {pages} pages of {self._sums.page_size} have been written")

    # -- writing ------------------------------------------------------------------------------------------------------

    def note(self, db: sqlite3.Connection, commits: int, *, durable: bool) -> bool:
        """Copy the write-ahead file into the database and note the check values of the pages; False where readers hold that up.

        Args:
            db: the connection that writes, outside a transaction. commits: how many have been made in this file.
            durable: whether the check values have to be on the disk.

        Raises:
            UntrueFileError: somebody else has written the file.
        """
        _, count, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        with self._lock:
            stat = self._file.stat()
            if count != copied:
                self._seen = (stat, self._sums_stat)  # what has been copied stands in the write-ahead file too
                return False
            frames = self._frames.first(max(count, 0))
            new = range(self._begin(), len(frames))
            made = [frames[index].commits for index in new if frames[index].commits]
            if len(made) != commits - self._sums.commits:
                raise UntrueFileError(f"{self.path.name} has {len(made)} new commits, and {commits - self._sums.commits} have been made")
            if made:
                values = self._values(made[-1], {frames[index].page: index for index in new})
                self._put(Sums(commits, self._frames.page_size, values, self._frames.salt, len(frames), stat), durable)
            elif stat != self._sums.stat:
                self._put(replace(self._sums, stat=stat), durable)
            self._seen = (stat, self._sums_stat)
        return True

    def _values(self, pages: int, written: dict[int, int]) -> array[int]:
        """Return the check values of so many pages, some of which have been written since; by page, in which frame."""
        values = array("I", self._sums.values[:pages])
        size, new = self._frames.page_size, self._frames.values_of(written)
        for number in range(len(values) + 1, pages + 1):  # a page that nobody has written yet is as the system has made it
            values.append(new[number] if number in new else crc32(self._file.read((number - 1) * size, size), number))
        for number, value in new.items():
            if number <= pages:
                values[number - 1] = value
        return values

    def _put(self, sums: Sums, durable: bool) -> None:
        sums.write(self.path, durable=durable)
        self._sums, self._sums_stat = sums, Stat.of(self._sums_path.stat())

    def release(self) -> None:
        """Let go of the files, after the connections to them."""
        self._file.release()
        self._let_go_of_index()

    def _let_go_of_index(self) -> None:
        if self._index is not None:
            self._index.release()
            self._index = None
