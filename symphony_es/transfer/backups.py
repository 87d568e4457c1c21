"""Backups of a state directory while it is in use, and back.

A backup is a state directory itself: the database as it was at one moment, and the snapshots up to there. The order of durable steps:
the database is copied through SQLite into a directory beside the target → checked → fsync → the snapshots are copied, each with an
fsync → `LOCK` notes that there is a log → fsync of the directories → rename → fsync of the parent. Before the rename there is nothing at
the target, after it there is all.

The database file of a log in use is never opened but through SQLite: copying it with other means would drop the locks of this process,
and catch the file between two writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
from symphony_es.errors import BackupDamagedError, LogDamagedError, SnapshotDamagedError
from symphony_es.files.directory import discard, sync_directory, unavailable
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.directory import check_readable, note_made
from symphony_es.log.head_note import HEAD_NAME, lost_at_the_end, noted_head
from symphony_es.log.opening import DATABASE_NAME, check_anchor
from symphony_es.log.recorder import Anchor
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_raw import RawLog, check_origin, lost_commits
from symphony_es.system import is_plain_file, sync
from symphony_es.transfer.placing import absolute, building, check_free_directory, put_directory
from symphony_es.transfer.progress import OnProgress, Progress, Stop, in_thread
from symphony_es.transfer.snapshot_files import is_whole, read_hashed
from symphony_es.transfer.verification import VerifyReport, verify

__all__ = ["BackupReport", "backup", "restore"]

_SNAPSHOTS = "snapshots"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """A backup that was made, or a state directory that was restored from one.

    Attributes:
        directory: where it is.
        head: its newest position.
        snapshots: how many snapshots it has.
        size_bytes: of all its files.
        duration_s: how long it took, in seconds.
    """

    directory: Path
    head: int
    snapshots: int
    size_bytes: int
    duration_s: float


async def backup(
    directory: Path | str, target: Path | str, *, on_progress: OnProgress | None = None, allow_shared_directory: bool = False
) -> BackupReport:
    """Copy a state directory while this or another process writes it. The copy can be opened, verified and restored.

    It holds every event that was durable when the call began, and whole transactions only. Projections are not copied: they are
    rebuilt. A call that fails leaves nothing; one that is cancelled as well, unless the backup was complete by then.

    Args:
        target: it must not exist, or be empty.
        on_progress: called with how many pages of the database are done, and how many there are; ten times a second at most, in a
            worker thread.
        allow_shared_directory: copy a log that others than its owner could change.

    Raises:
        TargetOccupiedError: there is something at the target.
        LogUnavailableError, StorageUnavailableError: the log cannot be read, others could change it, or the backup cannot be written.
        LogDamagedError, AnchorMismatchError, DamagedEventError: the log is damaged: `verify` tells where.
    """
    origin, to = absolute(directory, "directory"), absolute(target, "target")
    await in_thread(lambda _: check_free_directory(to))
    await in_thread(lambda _: check_readable(origin, allow_shared=allow_shared_directory))
    async with building(to) as place:
        return await in_thread(lambda stop: _backup(origin, place, to, stop, on_progress))


async def restore(
    backup_directory: Path | str,
    directory: Path | str,
    *,
    on_progress: OnProgress | None = None,
    allow_shared_directory: bool = False,
) -> BackupReport:
    """Put a backup in place as a state directory. The backup is verified first, and stays as it is; entities damaged in it stay damaged.

    Args:
        directory: it must not exist, be empty, or hold a log without events.
        on_progress: as with `backup`.
        allow_shared_directory: take a backup that others than its owner could change.

    Raises:
        BackupDamagedError: the backup does not verify; its `report` says where.
        TargetOccupiedError: there is something in the directory.
        LogInUseError: another process writes a log there.
        LogUnavailableError, StorageUnavailableError: the backup cannot be read, others could change it, or the directory cannot be written.
    """
    origin, to = absolute(backup_directory, "backup_directory"), absolute(directory, "directory")
    await in_thread(lambda _: check_free_directory(to))
    report: VerifyReport = await verify(origin, allow_shared_directory=allow_shared_directory)
    if not report.whole:  # an entity that is damaged is as damaged as it was, and can be repaired
        raise BackupDamagedError(origin, report)
    async with building(to) as place:
        return await in_thread(lambda stop: _backup(origin, place, to, stop, on_progress))


def _backup(origin: Path, built: Path, target: Path, stop: Stop, on_progress: OnProgress | None) -> BackupReport:
    began = time.monotonic()
    # These are listed before the log is read: what they were taken of is in it, or has been removed.
    before = SnapshotStore(origin / _SNAPSHOTS, read_only=True).list()
    progress = Progress(on_progress, 0)

    def step(done: int, total: int) -> None:
        stop.look()
        progress.total = total
        progress.tell(done)

    with unavailable(f"{target} cannot be built beside its place"):
        (built / DATABASE_NAME).touch(mode=0o600)
    with RawLog(origin / DATABASE_NAME) as log:
        if lost_commits(log.path):
            raise LogDamagedError(f"the write-ahead file of {log.path} holds acknowledged commits that are damaged: restore a backup")
        log_id = _identity(log)
        if log_id is not None:  # a damaged one is found by the look at the copy
            check_origin(log.path, log_id)
        noted = noted_head(log.path.with_name(HEAD_NAME), log_id.bytes) if log_id is not None else (0, 0)
        log.copy_to(built / DATABASE_NAME, step)
    head = _check_copy(built / DATABASE_NAME, before)
    lost_at_the_end(noted, head, origin)
    with unavailable(f"{target} cannot be made durable"):
        _sync_file(built / DATABASE_NAME)
    copied = _copy_snapshots(origin / _SNAPSHOTS, built / _SNAPSHOTS, head, stop)
    note_made(built)
    sync_directory(built)
    size = sum(path.stat().st_size for path in built.rglob("*") if is_plain_file(path))
    stop.look()
    put_directory(built, target)
    progress.end()
    return BackupReport(directory=target, head=head, snapshots=copied, size_bytes=size, duration_s=time.monotonic() - began)


def _identity(log: RawLog) -> UUID | None:
    try:
        return UUID(log.setting("log_id") or "")
    except (ValueError, AttributeError, TypeError):
        return None


def _check_copy(path: Path, before: Sequence[SnapshotInfo]) -> int:
    """Give the head of a copy whose pages, schema, last position and last event are right, and which has what the newest snapshot is of."""
    recorder = SQLiteLogRecorder(path, read_only=True, immutable=True)  # nobody else has it: no files appear beside it
    try:
        recorder.verify_pages()
        head = recorder.head()
        if before:
            newest = before[0]
            check_anchor(recorder, Anchor(position=newest.position, event_id=newest.event_id, commitment=newest.commitment))
    finally:
        recorder.close()
    return head


def _copy_snapshots(origin: Path, built: Path, head: int, stop: Stop) -> int:
    """Copy the snapshots up to a position; one that is thinned out meanwhile, or cannot be trusted, is passed over: it is a cache."""
    infos = [info for info in SnapshotStore(origin, read_only=True).list() if info.position <= head]
    copied = 0
    for info in infos:
        stop.look()
        with unavailable(f"{built} cannot be written"):
            built.mkdir(mode=0o700, exist_ok=True)
            try:
                hashed = _copy_file(origin / info.name, built / info.name, info.size_bytes)
            except FileNotFoundError:
                discard(built / info.name)
                continue
        try:
            whole = is_whole(built / info.name, hashed)
        except SnapshotDamagedError:
            whole = False
        if whole:
            copied += 1
        else:
            discard(built / info.name)
    if infos:
        sync_directory(built)
    return copied


def _copy_file(source: Path, target: Path, size_bytes: int) -> bytes:
    """Copy a snapshot durably; return the hash of what its own hash is about."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as writing:
        hashed = read_hashed(source, size_bytes, writing.write)
        writing.flush()
        sync(writing.fileno())
    return hashed


def _sync_file(path: Path) -> None:
    """Make a file durable; nobody has it open, so opening it here drops nobody's locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
