"""The life of one open Symphony, and what is done when it ends without `close()`: it is collected, its process ends, or it is forked.

What has been changed and not submitted by then is submitted without an event loop, by the log's writer thread. What does not become
durable is told on standard error, by entity and count, and as a `ResourceWarning`: nobody is left to raise to.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
import warnings
from asyncio import to_thread
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from symphony_es.errors import CloseTimeoutError, ForkedProcessError, NotReadyError, SymphonyError
from symphony_es.log.directory import LOCK_NAME, DirectoryLock
from symphony_es.log.forks import Inherited, left_at_fork, open_ones
from symphony_es.log.log import EventLog
from symphony_es.shown import message, so_many

if TYPE_CHECKING:
    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.core.world.world import World

__all__ = ["Lifetime", "counted", "find_open", "make_way"]

EXIT_TIMEOUT_S = 5.0
"""How long the process waits at its end for what is still being written, and an opening for a Symphony that is just ending."""


class Lifetime(Inherited):
    """What one open Symphony, and those that restorers see of it, hold together; nothing else holds it.

    Attributes:
        opened: the log and what stands on it.
        world: the live objects.
        owner: the Symphony, weakly.
        over: whether it has ended.
        forked_from: in a child process, the one that has opened it; else None.
    """

    def __init__(self, opened: OpenedLog, owner: Any) -> None:
        self.opened = opened
        self.world: World | None = None
        self.owner = ref(owner)
        self.over = False
        self._failures: list[SymphonyError] = []
        self._pid = os.getpid()
        self.forked_from: int | None = None
        left_at_fork(self)

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`."""
        self.forked_from = parent

    def check(self) -> None:
        """Do nothing in the process that has opened it.

        Raises:
            ForkedProcessError: this is a child of that process.
        """
        if self.forked_from is not None:
            raise ForkedProcessError(self.forked_from)

    @property
    def here(self) -> bool:
        """Whether it goes on, and this process has opened it."""
        return not self.over and self.forked_from is None and self._pid == os.getpid()

    def submit(self) -> None:
        """Submit what waits, without an event loop."""
        if self.world is not None:
            _submit(self.world, self._failures)

    def end(self, timeout_s: float) -> None:
        """Write what has been submitted, close the log, and report what is not durable. Blocks at most so long."""
        self.over = True
        try:
            with suppress(CloseTimeoutError):
                self.opened.log.end(timeout_s)
        finally:
            if self.world is not None:
                _report(self.world, self.opened.directory, self._failures)

    def __del__(self) -> None:
        # The collector may call this in the middle of anything, with any lock held: the writer thread does the work.
        if self.here and self.world is not None and not sys.is_finalizing():
            self.over = True
            submit = partial(_submit, self.world, self._failures)
            self.opened.log.end_after(submit, partial(_report, self.world, self.opened.directory, self._failures))


def counted(changes: Mapping[str, int]) -> str:
    """Return how many changes there are of which entities."""
    shown = [f"{so_many(count, 'change')} of {key}" for key, count in list(changes.items())[:10]]
    more = len(changes) - len(shown)
    return ", ".join(shown) + (f" and of {more} more" if more > 0 else "")


def _submit(world: World, failures: list[SymphonyError]) -> None:
    """Submit what waits; what could not be compared, and what was changed past the methods of its container, is added to the failures."""

    def submit() -> None:
        with world.lock:
            world.outbox.submit_pending()
            world.close("its Symphony has ended without close()")

    def compare() -> None:
        with world.lock:
            failures.extend(world.outbox.suspects.compare_all())

    with ExitStack() as each:  # code of the application's that goes wrong here keeps nothing else from being submitted
        each.callback(submit)
        each.callback(compare)
        each.callback(lambda: failures.extend(world.foreign.record_others()))


def _report(world: World, directory: Path | None, failures: list[SymphonyError]) -> None:
    """Tell what is not durable: one line, and a warning for those who have turned such warnings on."""
    if directory is None:
        return  # a log in memory ends with its process
    with world.lock:
        world.outbox.settle()
        undone = world.outbox.undone()
    if undone or failures:
        cause = next((f" ({record.broken})" for record in world.outbox.broken), "")
        told = "; ".join(([counted(undone) + cause] if undone else []) + [str(failure) for failure in failures])
        text = message(f"symphony_es: {directory}: never written: {told}")
        sys.stderr.write(f"{text}\n")
        warnings.warn(text, ResourceWarning, stacklevel=1, source=world)


async def make_way(directory: Path) -> bool:
    """Have what nobody can reach any more let go of a directory: a Symphony of this process, or an opening that was cancelled.

    Returns:
        whether the directory is free of this process now.
    """
    gc.collect()
    file = _lock_file(directory)
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while locks := [lock for lock in open_ones(DirectoryLock) if lock.file == file is not None]:
        if any(not log.closed and log.lock_file == file for log in open_ones(EventLog)) or time.monotonic() > deadline:
            return False
        await to_thread(locks[0].released.wait, 0.05)
    return True


def _lock_file(directory: Path) -> tuple[int, int] | None:
    try:
        info = (directory / LOCK_NAME).stat()
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino


def find_open(directory: Path) -> Any:
    """Return the Symphony of this process that has a directory open for writing.

    Raises:
        NotReadyError: there is none.
    """
    file = _lock_file(directory)
    for lifetime in open_ones(Lifetime) if file is not None else ():
        owner = lifetime.owner()
        if lifetime.here and owner is not None and lifetime.opened.log.lock_file == file:
            return owner
    raise NotReadyError(f"no Symphony of this process has {directory} open for writing; await symphony.setup() opens one")


def _at_exit() -> None:
    """Submit what is pending in every Symphony that is open still, and give all of them together some seconds to write it."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    with ExitStack() as each:
        for log in open_ones(EventLog):  # of Symphonies that have been collected just now
            if log.closed:
                each.callback(_finish, log, deadline)
        lifetimes = [lifetime for lifetime in open_ones(Lifetime) if lifetime.here]
        for lifetime in lifetimes:
            each.callback(lambda ended: ended.end(max(0.0, deadline - time.monotonic())), lifetime)
        for lifetime in lifetimes:
            each.callback(lifetime.submit)


def _finish(log: EventLog, deadline: float) -> None:
    try:
        log.end(max(0.0, deadline - time.monotonic()))
    except CloseTimeoutError:
        log.report()


atexit.register(_at_exit)
