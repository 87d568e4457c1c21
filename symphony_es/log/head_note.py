"""A note of how far the log goes, beside it: what a write-ahead file that was cut or damaged no longer tells.

SQLite drops what does not check at the end of its write-ahead file in silence, a whole tail of commits where the file was cut. The note is
written after a commit is durable and before anybody is told, so the log never ends before it. It is not synced: after a power loss it may
be older than the log, which is no fault; after the end of a process it is as new as the last commit that anybody was told of. It tells
where that commit began, too: a log that lacks this commit alone is opened, and what it lacks is reported.

Behind it stands how the last orderly close has left the database file: its size, and when it and its entry in the directory were changed.
A copy, a restored file, an edit differ in one of these, and opening then compares the file's index with its table. This rests on the file
system's clock: an edit that it dates as the close would show in none of them. So the note is left only once that clock has gone on, and not
at all where it does not in `TRIES` times `TICK_S`; then the next opening compares.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from zlib import crc32

from symphony_es.diagnostics import get_logger
from symphony_es.errors import LogDamagedError
from symphony_es.system import sync

__all__ = ["HEAD_NAME", "HeadNote", "is_as_left", "lost_at_the_end", "noted_head", "noted_log"]

HEAD_NAME = "events.db-head"
_NOTE = struct.Struct(">8s16sQQ")
_CHECK = struct.Struct(">I")
_MAGIC = b"symhead1"
_LEFT = struct.Struct(">8sQQQ")
_LEFT_AT = 64
_LEFT_MAGIC = b"symleft1"
TRIES = 12
TICK_S = 0.002
logger = get_logger(__name__)


class HeadNote:
    """The note of the log that this process writes. A note that cannot be written is an old one: the log goes on.

    Args:
        path: where it stands.
        log_id: of which log it is, 16 bytes.
        head: the log's head now.
    """

    def __init__(self, path: Path, log_id: bytes, head: int) -> None:
        self._path = path
        self._log_id = log_id
        self._descriptor = -1
        self._head = head
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            logger.warning("head_note_unavailable", path=str(path), error=str(error))
        another = noted_log(path) not in (None, log_id)
        self.write(head)
        if another and self._descriptor >= 0:  # after a power loss it would say that the log is another one
            try:
                sync(self._descriptor)
            except OSError as error:
                logger.warning("head_note_unavailable", path=str(path), error=str(error))

    def write(self, head: int) -> None:
        """Note that the log goes up to a position, which is durable."""
        if self._descriptor < 0:
            return
        note = _NOTE.pack(_MAGIC, self._log_id, self._head, head)
        self._head = head
        try:
            os.pwrite(self._descriptor, note + _CHECK.pack(crc32(note)), 0)
        except OSError as error:
            logger.warning("head_note_unavailable", path=str(self._path), error=str(error))
            self.close()

    def leave(self, database: Path) -> None:
        """Note how the database file is, which has been closed and whose directory is still locked."""
        if self._descriptor < 0:
            return
        try:
            *_, changed = left = _identity(database)
            note = _LEFT.pack(_LEFT_MAGIC, *left)
            for already in range(TRIES):
                if already > 1:  # a clock that is exact for files that are looked at has gone on by the second time
                    time.sleep(TICK_S)
                os.pwrite(self._descriptor, note + _CHECK.pack(crc32(note)), _LEFT_AT)
                if os.fstat(self._descriptor).st_mtime_ns > changed:
                    return
            os.pwrite(self._descriptor, bytes(_LEFT.size + _CHECK.size), _LEFT_AT)
        except OSError as error:
            logger.warning("head_note_unavailable", path=str(self._path), error=str(error))

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def noted_head(path: Path, log_id: bytes) -> tuple[int, int]:
    """Return the positions up to which a log went before its last commit, and after it; 0 where no note of it is there, or none that
    checks.
    """
    found = _noted(path)
    return found[1:] if found is not None and found[0] == log_id else (0, 0)


def noted_log(path: Path) -> bytes | None:
    """Return of which log a note is; None where there is none, or none that checks."""
    found = _noted(path)
    return found[0] if found is not None else None


def _noted(path: Path) -> tuple[bytes, int, int] | None:
    try:
        content = _content(path)
        magic, of_log, before, head = _NOTE.unpack_from(content)
        (check,) = _CHECK.unpack_from(content, _NOTE.size)
    except (OSError, struct.error):
        return None
    whole = magic == _MAGIC and check == crc32(content[: _NOTE.size])
    return (bytes(of_log), int(before), int(head)) if whole else None


def lost_at_the_end(noted: tuple[int, int], head: int, directory: Path) -> tuple[int, int] | None:
    """Return the positions of the last commit, where a log lacks it and nothing else.

    Args:
        noted: what `noted_head` told before the head was asked for: somebody may be writing the log.
        head: up to where the log goes.
        directory: its directory, for messages.

    Raises:
        LogDamagedError: more is missing.
    """
    before, acknowledged = noted
    if before <= head < acknowledged:
        logger.warning("last_commit_missing", first=head + 1, last=acknowledged, log=str(directory))
        return head + 1, acknowledged
    if acknowledged > head:
        raise LogDamagedError(
            f"the log of {directory} was acknowledged up to position {acknowledged}, and ends at {head}: its write-ahead file was cut or "
            "damaged; restore a backup, or open with ignore_anchor=True to go on with what is there"
        )
    return None


def is_as_left(path: Path, database: Path) -> bool:
    """Return whether a database file is as the last orderly close has left it; False where no note tells. The file is not opened."""
    try:
        content = _content(path)
        magic, *left = _LEFT.unpack_from(content, _LEFT_AT)
        (check,) = _CHECK.unpack_from(content, _LEFT_AT + _LEFT.size)
        return magic == _LEFT_MAGIC and check == crc32(content[_LEFT_AT : _LEFT_AT + _LEFT.size]) and tuple(left) == _identity(database)
    except (OSError, struct.error):
        return False


def _content(path: Path) -> bytes:
    """Return what stands in a note's file, which is no longer than a note, whatever is there instead."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, _LEFT_AT + _LEFT.size + _CHECK.size, 0)
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int, int]:
    # Looked at from outside: to open the file of a log that this process has open, and to close it, would drop its locks. No tool can set
    # the second of the times, so a copy that keeps the first one is known, too.
    info = path.stat()
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns
