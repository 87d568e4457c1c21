"""Telling a torn end of SQLite's write-ahead file, normal after a crash, from damage to acknowledged commits.

SQLite drops everything after the first frame that does not check, in silence. With synchronous=FULL each commit is on disk before
the next one begins; so when the file turns invalid and yet a frame follows that is chained to a commit in or after the invalid part,
that commit had been on disk, and has been damaged since. Damage to the last commit, or to the file's header, looks like a torn end:
only an anchor can tell.

Checking each frame here takes 25 ms per MiB, and the file may have grown to 8 MiB or more: so where there is room for a copy of it, SQLite
is let recover that copy first, and says up to where it checks. Only what comes after is looked at here. Both ways give the same verdict.

Source: the WAL format of SQLite's documentation ("WAL-mode File Format", section 4).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from symphony_es.system import present

__all__ = ["Verdict", "scan_wal"]

Verdict = Literal["absent", "clean", "torn", "damaged"]

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682  # the lowest bit says whether checksums are big-endian
_MASK = 0xFFFFFFFF
PIECE_FRAMES = 256  # looked at or copied at a time, about 1 MiB: what the file has grown to is not held in memory

Checksum = tuple[int, int]


class _Frame(NamedTuple):
    offset: int
    commits: bool
    salt: Checksum
    checksum: Checksum


class _Header(NamedTuple):
    page_size: int
    order: str
    salt: Checksum
    checksum: Checksum


def scan_wal(path: Path, scratch: Path | None = None) -> Verdict:
    """Look at a write-ahead file that nobody has open.

    Args:
        scratch: a directory to make for a copy, and to remove again, so that it is fast; what is there of an earlier time is removed.

    Returns:
        `absent` (or empty), `clean`, `torn` (the last transaction was being written when the process or machine stopped), or
        `damaged` (a commit that had been acknowledged is not what it was).
    """
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
            if len(start) < _HEADER.size:
                return "absent"
            header = _header(start)
            if header is None:
                return _without_header(file)
            return _scan(file, header, scratch)
    except FileNotFoundError:
        return "absent"


def _without_header(file: BinaryIO) -> Verdict:
    """Return whether a file whose header does not check holds commits that the database lacks; a reset that was not finished lacks none."""
    database = Path(file.name.removesuffix("-wal"))
    try:
        kept: BinaryIO = database.open("rb")
    except OSError:
        kept = BytesIO()
    with kept:
        return _left_of_a_reset(file, kept)


def _left_of_a_reset(file: BinaryIO, kept: BinaryIO) -> Verdict:
    start = kept.read(18)
    page_size = int.from_bytes(start[16:18], "big") if start else 4096
    page_size = 65536 if page_size == 1 else page_size
    if page_size not in (512 << shift for shift in range(8)):
        return "torn"
    for order in ("<", ">"):
        for number, offset in _committed(file, _Header(page_size, order, (0, 0), (0, 0))).items():
            file.seek(offset)
            kept.seek(max(0, number - 1) * page_size)
            if not number or file.read(page_size) != kept.read(page_size):
                return "damaged"
    return "torn"


def _committed(file: BinaryIO, header: _Header) -> dict[int, int]:
    """Return where the newest page of each number stands, up to the last commit: the file may be as large as the database."""
    heads = _heads(file, header)
    # What damaged the header may have damaged the first frame, which stands in the same sector; the second one then begins the chain.
    begin = 1 if len(heads) > 1 and heads[0][2:4] == heads[1][2:4] else 2
    pages: dict[int, int] = {}
    since: dict[int, int] = {}
    for index in range(begin, len(heads)):
        number, commit, *salt, first, second = heads[index]
        frame = _Frame(_offset(index, header), commit != 0, (salt[0], salt[1]), (first, second))
        if heads[index - 1][2:4] != frame.salt or not _consistent(file, header, frame, heads[index - 1][4:6]):
            break
        since[number] = frame.offset + _FRAME.size
        if frame.commits:  # what comes after the last one was never acknowledged: the rest of a transaction that was taken back
            pages |= since
            since.clear()
    return pages


def _header(start: bytes) -> _Header | None:
    magic, _, page_size, _, salt1, salt2, first, second = _HEADER.unpack(start)
    order = ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or page_size not in (512 << shift for shift in range(8)):
        return None
    if _checksum(start[:24], (0, 0), order) != (first, second):
        return None
    return _Header(page_size, order, (salt1, salt2), (first, second))


def _scan(file: BinaryIO, header: _Header, scratch: Path | None) -> Verdict:
    heads = _heads(file, header)
    own = next((index for index, head in enumerate(heads) if head[2:4] != header.salt), len(heads))  # an earlier time's come after
    taken = _taken_by_sqlite(file, header, _offset(own, header), scratch) if scratch is not None else 0
    if all(head[2:4] != header.salt for head in heads[taken:]):
        return "clean" if taken == len(heads) else "torn"  # all that belongs to this time checks
    previous: Checksum = heads[taken - 1][4:6] if taken else header.checksum
    frames = [
        _Frame(_offset(index, header), commit != 0, (salt1, salt2), (first, second))
        for index, (_, commit, salt1, salt2, first, second) in enumerate(heads[taken:], taken)
    ]
    valid = 0
    for frame in frames:
        if frame.salt != header.salt or not _consistent(file, header, frame, previous):
            break
        previous, valid = frame.checksum, valid + 1
    if valid == len(frames):
        return "clean"
    for before, frame in pairwise(frames[valid:]):
        # A frame is chained to the one before it, and the one after a commit is written only when that commit has been synced.
        if before.commits and frame.salt == header.salt and _follows(file, header, frame, before, previous):
            return "damaged"
        previous = before.checksum
    return "torn"


def _offset(frame: int, header: _Header) -> int:
    return _HEADER.size + frame * (_FRAME.size + header.page_size)


def _heads(file: BinaryIO, header: _Header) -> list[tuple[int, int, int, int, int, int]]:
    """Return page, size of the database after a commit or 0, two words of salt, two of checksum: of each whole frame."""
    size = _FRAME.size + header.page_size
    head = struct.Struct(f"{_FRAME.format}{header.page_size}x")
    heads: list[Any] = []
    piece = memoryview(bytearray(size * PIECE_FRAMES))
    file.seek(_HEADER.size)
    while whole := file.readinto(piece) // size:  # type: ignore[attr-defined]
        heads += head.iter_unpack(piece[: whole * size])
    return heads


def _taken_by_sqlite(file: BinaryIO, header: _Header, size: int, scratch: Path) -> int:
    """Return how many frames of the first bytes check, up to a commit, as SQLite finds when it recovers a copy; 0 where it cannot be asked.

    The copy stands beside an empty database of its own: the log's is not touched, and neither are its locks. It is as long as the log's, a
    hole for the most part, since SQLite takes no write-ahead file that makes a database grow by more than it holds.
    """
    import shutil

    database, whole = scratch / "copy.db", Path(file.name.removesuffix("-wal"))
    shutil.rmtree(scratch, ignore_errors=True)  # a process that was killed here has left it
    try:
        scratch.mkdir(mode=0o700)
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={header.page_size:d}")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=WAL")
        if present(whole):
            os.truncate(database, max(database.stat().st_size, whole.stat().st_size))
        file.seek(0)
        with database.with_name("copy.db-wal").open("wb") as copy:
            while piece := file.read(min(size - copy.tell(), PIECE_FRAMES * header.page_size)):
                copy.write(piece)
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except (OSError, sqlite3.Error):
        return 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return max(0, int(frames))


def _checksum(data: bytes, start: Checksum, order: str) -> Checksum:
    first, second = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def _computed(file: BinaryIO, header: _Header, frame: _Frame, previous: Checksum) -> Checksum:
    file.seek(frame.offset)
    content = file.read(_FRAME.size + header.page_size)
    return _checksum(content[_FRAME.size :], _checksum(content[:8], previous, header.order), header.order)


def _consistent(file: BinaryIO, header: _Header, frame: _Frame, previous: Checksum) -> bool:
    return _computed(file, header, frame, previous) == frame.checksum


def _follows(file: BinaryIO, header: _Header, frame: _Frame, before: _Frame, previous: Checksum) -> bool:
    """Return whether a frame was written after the one before it: that one's content may be damaged, or its stored checksum."""
    return _consistent(file, header, frame, before.checksum) or _consistent(file, header, frame, _computed(file, header, before, previous))
