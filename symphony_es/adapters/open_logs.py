"""The logs that applications of this process use: one that is open already is shared, and one that nobody uses any more is closed."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from weakref import finalize

from symphony_es.adapters.sequences import Sequences
from symphony_es.core.past.opening import newest_anchor
from symphony_es.errors import NotReadyError
from symphony_es.log.directory import LOCK_NAME, DirectoryLock
from symphony_es.log.forks import Inherited, left_at_fork, open_ones
from symphony_es.log.log import EventLog
from symphony_es.log.memory import MemoryLogRecorder
from symphony_es.system import given_path

__all__ = ["Use", "use_log", "use_memory"]

EXIT_TIMEOUT_S = 5.0


class _Shared(Sequences, Inherited):
    """The foreign sequences of a log, for all applications of this process that are on it.

    Args:
        log: the log.
        notified: see `Sequences`.
        owned: it was opened for these applications, and not by somebody who goes on using it.
    """

    def __init__(self, log: EventLog, notified: str, *, owned: bool) -> None:
        super().__init__(log, notified)
        self.owned = owned
        self.ended = False
        self.users = 0  # those that were collected are counted still: when all have let go, this object is collected as well
        if owned:  # whoever forgets to close it; the collector of garbage must not wait
            finalize(self, log.end_after, _nothing, _nothing).atexit = False  # at the exit `_at_exit` waits
        left_at_fork(self)

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`; the log itself tells whoever uses it here."""


class Use:
    """One application's use of a log, until it is closed or nobody has it any more."""

    def __init__(self, shared: _Shared) -> None:
        self._shared: _Shared | None = shared
        shared.users += 1

    @property
    def sequences(self) -> Sequences:
        """The foreign sequences of the log.

        Raises:
            NotReadyError: this use was closed.
        """
        if self._shared is None:
            raise NotReadyError("the application's infrastructure is closed")
        return self._shared

    def close(self) -> None:
        """End this use; idempotent. Where it is the last one of a log that was opened for such uses, that is closed. Blocks.

        Raises:
            LogError: the log could not be closed in order.
        """
        with _lock:  # for a moment only: the collector of garbage may call this in any thread, the log's own writer included
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.users -= 1
            shared.ended = shared.owned and not shared.users
        for listener in list(shared.listeners):
            listener.set()
        if shared.ended:
            shared.log.end()


def use_log(
    directory: str,
    notified: str,
    *,
    read_only: bool = False,
    skip_damaged: bool = False,
    allow_shared_directory: bool = False,
    force_network_fs: bool = False,
    ignore_anchor: bool = False,
) -> Use:
    """Use the log in a directory, which a Symphony or an application of this process may have open; otherwise it is opened here.

    Args:
        directory: the directory.
        notified: see `Sequences`.
        read_only: open a log that another process may be writing.
        skip_damaged, allow_shared_directory, force_network_fs, ignore_anchor: as of `Symphony.setup`, where it is opened here.

    Raises:
        LogInUseError: another process writes it.
        SymphonyError: as of `EventLog.open`, or of `EventLog.open_read_only`.
    """
    path = given_path(directory, "STATE_DIR")
    if read_only:
        log = EventLog.open_read_only_blocking(path, skip_damaged=skip_damaged, allow_shared=allow_shared_directory)
        return Use(_Shared(log, notified, owned=True))
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while True:
        with _lock:
            file = _lock_file(path)
            shared = _open_here(file, notified)
            if shared is not None:
                return Use(shared)
            closing = _being_closed(file)
            if closing is None or time.monotonic() > deadline:
                log = EventLog.open_blocking(
                    path,
                    anchor=newest_anchor(path),
                    ignore_anchor=ignore_anchor,
                    force_network_fs=force_network_fs,
                    allow_shared=allow_shared_directory,
                    skip_damaged=skip_damaged,
                )
                return Use(_Shared(log, notified, owned=True))
        closing.released.wait(0.05)


def use_memory(notified: str) -> Use:
    """Use a log in memory that is nobody else's, and keeps everything."""
    return Use(_Shared(EventLog(MemoryLogRecorder(sys.maxsize)), notified, owned=True))


def _open_here(file: tuple[int, int] | None, notified: str) -> _Shared | None:
    """Find the log that an application or a Symphony of this process has open; None where none has."""
    if file is None:
        return None
    known = open_ones(_Shared)
    for shared in known:
        if shared.log.lock_file == file and not shared.log.closed and not shared.ended:
            return shared
    ending = [shared.log for shared in known if shared.ended]
    for log in open_ones(EventLog):
        if log.lock_file == file and not log.closed and log not in ending:
            return _Shared(log, notified, owned=False)
    return None


def _being_closed(file: tuple[int, int] | None) -> DirectoryLock | None:
    """Find the lock of a log that nobody of this process has open any more, and whose writer thread is about to let go of it."""
    return None if file is None else next((lock for lock in open_ones(DirectoryLock) if lock.file == file), None)


def _lock_file(directory: Path) -> tuple[int, int] | None:
    try:
        info = (directory / LOCK_NAME).stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _nothing() -> None:
    """Do nothing: nothing is left to submit, or to report."""


def _at_exit() -> None:
    with ExitStack() as each:  # one that cannot be closed in order keeps no other from it
        for shared in open_ones(_Shared):
            if shared.owned:
                each.callback(shared.log.end, EXIT_TIMEOUT_S)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


_lock = threading.RLock()
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
