"""Telling a torn end of SQLite's write-ahead file, normal after a crash, from damage to acknowledged commits.

SQLite drops everything after the first frame that does not check, in silence. With synchronous=FULL each commit is on disk before
the next one begins; so when the file turns invalid and yet a frame follows that is chained to a commit in or after the invalid part,
that commit had been on disk, and has been damaged since. Damage to the last commit, or to the file's header, looks like a torn end:
only an anchor can tell.

Checking each frame here takes 25 ms per MiB, and the file may have grown to 32 MiB or more: so where there is room for a copy of it, SQLite
is let recover that copy first, and says up to where it checks. Only what comes after is looked at here. Both ways give the same verdict.

Source: the WAL format of SQLite's documentation ("WAL-mode File Format", section 4).
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Verdict", "scan_wal"]

Verdict = Literal["absent", "clean", "torn", "damaged"]

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682  # the lowest bit says whether checksums are big-endian
_MASK = 0xFFFFFFFF

Checksum = tuple[int, int]


class _Frame(NamedTuple):
    offset: int
    commits: bool
    salt: tuple[int, int]
    checksum: Checksum


def _checksum(data: bytes, start: Checksum, order: str) -> Checksum:
    first, second = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def scan_wal(path: Path, scratch: Path | None = None) -> Verdict:
    """Look at a write-ahead file that nobody has open.

    Args:
        scratch: a directory to make for a copy, and to remove again, so that it is fast; what is there of an earlier time is removed.

    Returns:
        `absent` (or empty), `clean`, `torn` (the last transaction was being written when the process or machine stopped), or
        `damaged` (a commit that had been acknowledged is not what it was).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "absent"
    if len(data) < _HEADER.size:
        return "absent"
    magic, _, page_size, _, *salt, first, second = _HEADER.unpack_from(data)
    order = ">" if magic & 1 else "<"
    if (
        magic & ~1 != _MAGIC
        or page_size not in (512 << shift for shift in range(8))
        or _checksum(data[:24], (0, 0), order) != (first, second)
    ):
        return "torn"  # a reset that was not finished looks like this; whether commits are missing, only an anchor can tell
    frames = _frames(data, page_size)
    own = next((index for index, frame in enumerate(frames) if frame.salt != tuple(salt)), len(frames))  # an earlier time's come after
    taken = _taken_by_sqlite(data[: _HEADER.size + own * (_FRAME.size + page_size)], page_size, scratch) if scratch is not None else 0
    previous: Checksum = frames[taken - 1].checksum if taken else (first, second)
    valid = taken
    for frame in frames[taken:]:
        if frame.salt != tuple(salt) or not _consistent(data, frame, previous, page_size, order):
            break
        previous, valid = frame.checksum, valid + 1
    if valid == len(frames):
        return "clean"
    for before, frame in pairwise(frames[valid:]):
        # A frame is chained to the one before it, and the one after a commit is written only when that commit has been synced.
        if before.commits and frame.salt == tuple(salt) and _follows(data, frame, before, previous, page_size, order):
            return "damaged"
        previous = before.checksum
    return "torn"


def _taken_by_sqlite(data: bytes, page_size: int, scratch: Path) -> int:
    """How many frames check, up to a commit, as SQLite finds when it recovers a copy; 0 where it cannot be asked.

    The copy stands beside an empty database of its own: the log's is not touched, and neither are its locks.
    """
    import shutil

    database = scratch / "copy.db"
    shutil.rmtree(scratch, ignore_errors=True)  # a process that was killed here has left it
    try:
        scratch.mkdir(mode=0o700)
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={page_size:d}")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=WAL")
        database.with_name("copy.db-wal").write_bytes(data)
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except (OSError, sqlite3.Error):
        return 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return max(0, int(frames))


def _frames(data: bytes, page_size: int) -> list[_Frame]:
    size = _FRAME.size + page_size
    whole = (len(data) - _HEADER.size) // size * size
    headers = struct.iter_unpack(f"{_FRAME.format}{page_size}x", memoryview(data)[_HEADER.size : _HEADER.size + whole])
    return [
        _Frame(offset, commit != 0, (salt1, salt2), (first, second))
        for offset, (_, commit, salt1, salt2, first, second) in zip(range(_HEADER.size, len(data), size), headers, strict=False)
    ]


def _computed(data: bytes, frame: _Frame, previous: Checksum, page_size: int, order: str) -> Checksum:
    start = frame.offset + _FRAME.size
    running = _checksum(data[frame.offset : frame.offset + 8], previous, order)
    return _checksum(data[start : start + page_size], running, order)


def _consistent(data: bytes, frame: _Frame, previous: Checksum, page_size: int, order: str) -> bool:
    return _computed(data, frame, previous, page_size, order) == frame.checksum


def _follows(data: bytes, frame: _Frame, before: _Frame, previous: Checksum, page_size: int, order: str) -> bool:
    """Whether a frame was written after the one before it: that one's content may be damaged, or its stored checksum."""
    return _consistent(data, frame, before.checksum, page_size, order) or _consistent(
        data, frame, _computed(data, before, previous, page_size, order), page_size, order
    )
