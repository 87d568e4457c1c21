"""Building something beside its target, and putting it in place in one step.

What is being built is in a directory `.NAME.HEX.part` beside the target, locked as long as its process lives. The next one to build
for the same target removes those whose process is gone; so a kill leaves nothing that could be taken for a result, and nothing for long.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from symphony_es.core.state.files.directory import make_directory, sync_directory, unavailable
from symphony_es.errors import TargetOccupiedError
from symphony_es.log.directory import LOCK_NAME, DirectoryLock
from symphony_es.log.head_note import HEAD_NAME
from symphony_es.log.log import DATABASE_NAME
from symphony_es.log.sqlite_raw import RawLog
from symphony_es.log.targets import check_replaceable, check_target
from symphony_es.system import is_directory, is_link, is_plain_file, lock, present
from symphony_es.transfer.progress import in_thread

__all__ = ["absolute", "building", "check_free_directory", "check_free_file", "put_directory", "put_file"]

_SNAPSHOTS = "snapshots"
_OF_AN_EMPTY_LOG = frozenset({DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", HEAD_NAME, LOCK_NAME, _SNAPSHOTS})


def absolute(path: Path | str) -> Path:
    """A path that goes on meaning the same when the working directory changes."""
    return Path(path).absolute()


@contextlib.asynccontextmanager
async def building(target: Path) -> AsyncIterator[Path]:
    """An empty private directory beside the target, gone at the end of the block whatever is in it, unless it has become the target.

    Raises:
        StorageUnavailableError: it cannot be made.
    """
    place = _workplace(target)
    directory = place.__enter__()  # a few system calls: nothing to be left half-way by a cancellation
    try:
        yield directory
    finally:
        await in_thread(lambda _: place.__exit__(None, None, None))


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    make_directory(target.parent)
    with unavailable(f"{target} cannot be built beside its place"):
        _remove_stale(target)
        place, descriptor = _make(target)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _make(target: Path) -> tuple[Path, int]:
    while True:
        place = target.with_name(f".{_shortened(target.name)}.{secrets.token_hex(8)}.part")
        place.mkdir(mode=0o700)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # somebody took it for one that a kill has left: another one
            lock(descriptor)
            if place.stat().st_ino == os.fstat(descriptor).st_ino:
                return place, descriptor
        os.close(descriptor)


def _shortened(name: str) -> str:
    """A name that leaves room for what is put around it: file systems take 255 bytes, not characters."""
    return os.fsencode(name)[:200].decode(errors="ignore")


def _remove_stale(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(_shortened(target.name))}\.[0-9a-f]{{16}}\.part")
    for path in list(target.parent.iterdir()):
        if pattern.fullmatch(path.name) is None or is_link(path):
            continue
        with contextlib.suppress(OSError):  # somebody else's, or gone already
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                lock(descriptor)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


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
    """A second name instead of a new one: it fails where there is something by now."""
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
    if is_link(target) or (present(target) and not is_directory(target)):
        raise TargetOccupiedError(target, "it is no directory")
    check_target(target)
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
    lock = DirectoryLock(target)
    try:
        if DATABASE_NAME in names:
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
