"""Putting what is whole in its place, in one step, where the place is free; `workplace.building` says where it is built."""

from __future__ import annotations

from pathlib import Path

from symphony_es.errors import TargetOccupiedError
from symphony_es.files.directory import sync_directory, unavailable
from symphony_es.files.workplace import building
from symphony_es.log.directory import LOCK_NAME, DirectoryLock, check_kinds
from symphony_es.log.head_note import HEAD_NAME
from symphony_es.log.log import DATABASE_NAME
from symphony_es.log.sqlite_raw import RawLog
from symphony_es.log.targets import check_replaceable, check_target
from symphony_es.system import absolute, is_directory, is_link, is_plain_file, present

__all__ = ["absolute", "building", "check_free_directory", "check_free_file", "put_directory", "put_file"]

_SNAPSHOTS = "snapshots"
_OF_AN_EMPTY_LOG = frozenset({DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", HEAD_NAME, LOCK_NAME, _SNAPSHOTS})


def check_free_file(target: Path, *, overwrite: bool) -> None:
    """Refuse a file's place that is taken. Blocking.

    Raises:
        TargetOccupiedError: something is there, and it is not to be overwritten, or is no plain file, or one that is never overwritten:
            a log, a snapshot, a read model. Or the place is the log's own.
    """
    check_target(target)
    if is_link(target) or present(target):
        if not overwrite:
            raise TargetOccupiedError(target, "it exists already: choose another name, or pass overwrite=True")
        if is_link(target) or not is_plain_file(target):
            raise TargetOccupiedError(target, "it is no plain file, and is never overwritten")
        check_replaceable(target)


def put_file(built: Path, target: Path, *, overwrite: bool) -> None:
    """Give a file that is whole and durable its name, durably. Blocking; errors are those of `check_free_file`, and of the disk."""
    check_free_file(target, overwrite=overwrite)
    with unavailable(f"{target} cannot be put in place"):
        if overwrite:
            built.replace(target)
        else:
            _link(built, target)
    sync_directory(target.parent)


def _link(built: Path, target: Path) -> None:
    """Give a second name instead of a new one: it fails where there is something by now."""
    try:
        target.hardlink_to(built)
    except FileExistsError as error:
        raise TargetOccupiedError(target, "it exists by now: choose another name, or pass overwrite=True") from error
    except OSError:  # a file system without second names
        built.rename(target)


def check_free_directory(target: Path) -> None:
    """Refuse a state directory's place that is taken. An empty directory is free, and one whose log has no events. Blocking.

    Raises:
        TargetOccupiedError: there are events, or files that are no log's; or the place is another log's own.
        LogInUseError: another process writes a log there.
    """
    _with_empty_log(target, remove=False)


def put_directory(built: Path, target: Path) -> None:
    """Give a directory that is whole and durable its name, durably. Blocking; errors are those of `check_free_directory`.

    What an empty log has left there is removed first; a crash then leaves an empty directory or the new one.
    """
    _with_empty_log(target, remove=True)
    with unavailable(f"{target} cannot be put in place"):
        built.rename(target)  # over an empty directory this is one step; over one that has got something by now it fails
    sync_directory(target.parent)


def _with_empty_log(target: Path, *, remove: bool) -> None:
    check_target(target)
    if is_link(target) or (present(target) and not is_directory(target)):
        raise TargetOccupiedError(target, "it is no directory")
    if not present(target):
        return
    with unavailable(f"{target} cannot be read"):
        names = {path.name for path in target.iterdir()}
        snapshots = sorted(path.name for path in (target / _SNAPSHOTS).iterdir()) if _SNAPSHOTS in names else []
    if not names:
        return
    strange = sorted(names - _OF_AN_EMPTY_LOG)
    if strange or snapshots:
        found = [*strange, *(f"{_SNAPSHOTS}/{name}" for name in snapshots)]
        raise TargetOccupiedError(target, f"there is something in it ({', '.join(found[:5])}): choose an empty directory")
    check_kinds(target)
    lock = DirectoryLock(target)
    try:
        begun = DATABASE_NAME in names and (target / DATABASE_NAME).stat().st_size > 0
        if not begun and f"{DATABASE_NAME}-wal" in names and (target / f"{DATABASE_NAME}-wal").stat().st_size:
            raise TargetOccupiedError(target, f"{DATABASE_NAME}-wal has commits of a database that is gone: choose an empty directory")
        if begun:
            with RawLog(target / DATABASE_NAME, immutable=False) as log:
                head, issued = log.ends()
            if head != 0 or issued != 0:
                raise TargetOccupiedError(target, f"the log in it has {issued if head is None else head} events: choose an empty directory")
        if remove:
            _empty(target)
    finally:
        lock.release()


def _empty(target: Path) -> None:
    with unavailable(f"{target} cannot be emptied"):
        for name in sorted(_OF_AN_EMPTY_LOG - {_SNAPSHOTS}):
            (target / name).unlink(missing_ok=True)
        if is_directory(target / _SNAPSHOTS):
            (target / _SNAPSHOTS).rmdir()
