"""Opening the log of a directory: what a crash has left is looked at before anything is written."""

from __future__ import annotations

import os
import time
from contextlib import closing, nullcontext
from pathlib import Path
from uuid import UUID

from symphony_es.diagnostics import get_logger
from symphony_es.errors import AnchorMismatchError, LogDamagedError, SymphonyError
from symphony_es.events.identifiers import uuid7
from symphony_es.events.rows import commitment, event_id_of
from symphony_es.log.directory import DirectoryLock, check_readable, last_writer, prepare_file, unavailable
from symphony_es.log.head_note import HEAD_NAME, is_as_left, lost_at_the_end, noted_head
from symphony_es.log.recorder import Anchor, LogRecorder, missing
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_connections import connect_reader, is_empty, may_change
from symphony_es.system import present, sync

__all__ = ["DATABASE_NAME", "check_anchor", "open_reader", "open_recorder"]

DATABASE_NAME = "events.db"
SMALL_BYTES = 1024 * 1024
"""Up to this size the entries of the index are counted at each opening, however the file was left, which takes 0.1 ms; readers beside a
writer compare index and table, which takes some milliseconds."""
logger = get_logger(__name__)
SCRATCH_NAME = f"{DATABASE_NAME}-wal.check"


def _kind(skip_damaged: bool) -> type[SQLiteLogRecorder]:
    if not skip_damaged:
        return SQLiteLogRecorder
    from symphony_es.log.skipping import SkippingLogRecorder  # late: only who opens a damaged log needs it

    return SkippingLogRecorder


def _wal_is_damaged(directory: Path) -> bool:
    from symphony_es.log.walscan import scan_wal  # late: only who opens a log after a crash needs it

    return scan_wal(directory / f"{DATABASE_NAME}-wal", directory / SCRATCH_NAME) == "damaged"


def open_recorder(
    directory: Path, lock: DirectoryLock, anchor: Anchor | None, *, ignore_anchor: bool, skip_damaged: bool = False
) -> SQLiteLogRecorder:
    """Open the log's file for writing, creating what is missing. The directory is locked, and prepared; for the rest see `EventLog.open`.

    Raises:
        LogDamagedError, AnchorMismatchError, DamagedEventError: acknowledged events are missing or altered; nothing was changed.
        LogUnavailableError: the file cannot be used.
    """
    path = directory / DATABASE_NAME
    gone = not present(path) or is_empty(path)
    if lock.was_used and gone and not ignore_anchor:
        # Whatever stands in the write-ahead file: SQLite removes it where the database is empty.
        raise LogDamagedError(
            f"{path} is {'empty' if present(path) else 'missing'}, and a log was written there: put it back, restore a backup, "
            f"or remove {lock.path} to begin a new one"
        )
    made = prepare_file(path)
    # A database without a lock: nobody knows how its last writer ended. A write-ahead file with something in it: a reader that was open
    # kept an orderly close from taking it all into the database.
    held = _holds_anything(directory / f"{DATABASE_NAME}-wal")
    unclean = not lock.was_clean or not (lock.was_used or made) or held
    if unclean and not ignore_anchor and _wal_is_damaged(directory):
        raise LogDamagedError(
            f"{path}-wal holds acknowledged commits that are damaged, and opening the log would drop them and all later ones: "
            "restore a backup, or open with ignore_anchor=True to go on with what is before the damage"
        )
    suspect = unclean or not (made or is_as_left(directory / HEAD_NAME, path))
    if held:  # a commit that a killed process was just writing may be taken: whoever sees it may rely on it
        _sync(directory / f"{DATABASE_NAME}-wal")
    # SQLite's last connection takes a write-ahead file into the database and removes it, also where the opening is refused; one that only
    # reads does not, and it is the last one.
    with closing(connect_reader(path)) if held and lock.was_used and not gone else nullcontext():
        log_id = UUID(bytes=uuid7(time.time_ns(), os.urandom(16)))  # of a log that is made now, or whose making goes on
        recorder = _kind(skip_damaged)(path, log_id=log_id, has_tables=lock.was_used and not ignore_anchor)
        try:
            if not made:
                _look_through(recorder, suspect=suspect)
            if not ignore_anchor and anchor is not None and anchor.position not in recorder.skipped:
                check_anchor(recorder, anchor)
            if unclean:
                verify_tail(recorder, anchor.position if anchor is not None and not ignore_anchor else 0)
            if held and not ignore_anchor:
                _check_origin(recorder, path)
            if suspect and not ignore_anchor:  # after an orderly close as well: another file may have been put in its place
                _check_note(recorder, directory / HEAD_NAME)
        except SymphonyError:
            recorder.abandon()
            raise
        if held and ignore_anchor:  # commits behind a damage that has been accepted: after the next crash they would be found once more
            recorder.drop_what_is_not_taken()
    return recorder


def open_reader(directory: Path, *, skip_damaged: bool = False, allow_shared: bool = False) -> SQLiteLogRecorder:
    """Open the log's file for reading; another process may be writing it, or the directory not be writable.

    Raises:
        LogDamagedError: it is damaged, or the write-ahead file that its last writer has left is. The last commit alone may be missing,
            and `lost_at_the_end` of the recorder says so.
        LogUnavailableError: there is none, it cannot be read, or others than its owner could change it (and `allow_shared` is not given).
    """
    path = directory / DATABASE_NAME
    check_readable(directory, allow_shared=allow_shared)
    from symphony_es.log.sqlite_raw import lost_commits  # late: who writes the log needs it after a crash only

    if lost_commits(path):
        raise LogDamagedError(f"{path}-wal holds acknowledged commits that are damaged, and readers would not see them: restore a backup")
    writer, held = last_writer(directory), _holds_anything(path.with_name(f"{DATABASE_NAME}-wal"))
    suspect = writer in ("gone", "unknown") or (writer == "closed" and not is_as_left(directory / HEAD_NAME, path))
    recorder = _kind(skip_damaged)(path, read_only=True, immutable=not may_change(path))
    try:
        # One that is writing has looked at the file when it opened it; nobody else may change it, and where it is small, this is seen to.
        _look_through(recorder, suspect=suspect or (writer == "writing" and recorder.size_bytes() <= SMALL_BYTES))
        if writer != "writing":
            if held:
                _check_origin(recorder, path)
            _check_note(recorder, directory / HEAD_NAME)
    except SymphonyError:
        recorder.close()
        raise
    return recorder


def _look_through(recorder: SQLiteLogRecorder, *, suspect: bool) -> None:
    """Compare index and table where the file may differ from what was written; else count, where that costs next to nothing.

    A file that is as its last writer has left it has been changed by nobody since. Bits can have rotted in it: those of an event are found
    by its check value when it is read, those of the index where versions of an entity do not follow each other, and by counting.
    """
    if suspect or (recorder.size_bytes() <= SMALL_BYTES and not recorder.has_all_entries()):
        recorder.verify_pages()


def _check_note(recorder: SQLiteLogRecorder, path: Path) -> None:
    log_id = recorder.log_id()
    noted = noted_head(path, log_id.bytes if log_id is not None else bytes(16))
    recorder.lost_at_the_end = lost_at_the_end(noted, recorder.head(), path.parent)


def _sync(file: Path) -> None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unavailable(file, error) from error


def _check_origin(recorder: SQLiteLogRecorder, path: Path) -> None:
    from symphony_es.log.sqlite_raw import check_origin  # late: only where a write-ahead file was left

    check_origin(path, recorder.log_id())


def _holds_anything(file: Path) -> bool:
    return present(file) and file.stat().st_size > 0


def check_anchor(recorder: LogRecorder, anchor: Anchor) -> None:
    """Compare the log with what a snapshot knows of it.

    Raises:
        AnchorMismatchError: the log is shorter, or has another event there.
    """
    head = recorder.head()
    if head < anchor.position:
        raise AnchorMismatchError(anchor.position, f"the log ends at position {head}")
    rows = recorder.read(anchor.position - 1, until=anchor.position, limit=1)
    if not rows:
        raise missing(anchor.position, head)
    row = rows[0]
    if event_id_of(row[4]) != anchor.event_id or commitment(row[4]) != anchor.commitment:
        raise AnchorMismatchError(anchor.position, "it has another event there")


def verify_tail(recorder: LogRecorder, after: int) -> None:
    """Read everything after a position; reading checks it.

    Raises:
        DamagedEventError: an event is damaged.
    """
    until = recorder.head()
    while after < until:
        rows = recorder.read(after, until=until, limit=2000)
        if not rows:
            raise missing(after + 1, until)
        after = rows[-1][0]
