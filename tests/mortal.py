"""Processes that die at a commit, many of them in one process: what a crash leaves behind, without the crash.

A `Disk` is what outlives a process: the rows of its log, and what its bodies have noted with a service outside. A `Mortal` is a Symphony
on the rows of a disk. It dies right before one of its commits becomes durable: what the log has by then, and what has been noted by then,
is the disk that the next one begins with. So a body that has done its work, and whose completion is not on record, has done it. What the
dead one does afterwards goes nowhere. The log is in memory: what a disk does to bytes is not looked at here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from symphony_es import Symphony
from symphony_es.core.past.opening import OpenedLog
from symphony_es.core.past.states import StateHistory
from symphony_es.events.rows import Row
from symphony_es.log.log import EventLog
from symphony_es.log.memory import MemoryLogRecorder

__all__ = ["EMPTY", "Disk", "Mortal", "opened"]

Counts = Callable[[Sequence[Any]], bool]
"""Whether a commit of these events counts."""

PATIENCE_S = 60.0
"""How long a process may take to die or to end; a run that waits for what will never come is a failure, not a hanging test."""


@dataclass(frozen=True)
class Disk:
    """What a process leaves: rows of the log, the time of the last commit, and what was noted outside."""

    rows: tuple[Row, ...] = ()
    time_ns: int = 0
    notes: tuple[str, ...] = ()


EMPTY = Disk()


class _Recorder(MemoryLogRecorder):
    """A log that begins with the rows of a disk and remembers what a death before each commit would leave."""

    def __init__(self, disk: Disk, notes: list[str], counts: Counts) -> None:
        super().__init__()
        for row in disk.rows:
            self._keep(row)
        self._time_ns = disk.time_ns
        self._notes = notes
        self._counts = counts
        self.marks: list[tuple[int, int, int]] = []
        """Before each commit that counts: how many rows there were, the time of the last one, how many notes."""
        self.told: Callable[[int], None] = lambda commits: None

    def append_groups(self, groups: Any, time_ns: int) -> Any:
        """Each group is a commit of its own, so that every boundary between transactions is one at which a process can die."""
        outcomes = []
        for group in groups:
            if self._counts(group):
                self.marks.append((self._head(), self._time_ns, len(self._notes)))
                self.told(len(self.marks))
            outcomes += super().append_groups([group], time_ns)
        return outcomes

    def disk_at(self, mark: tuple[int, int, int]) -> Disk:
        rows, time_ns, notes = mark
        return Disk(tuple(self._rows[:rows]), time_ns, tuple(self._notes[:notes]))


class Mortal(Symphony):
    """A Symphony that may die.

    Args:
        disk: what an earlier process has left.
        commits: after how many commits it dies, right before the next one becomes durable; None: never.
        counts: which commits are counted.

    Attributes:
        notes: what its bodies have noted, and those of the processes before it.
        has_died: whether it came to the commit that it dies at.
    """

    def __init__(self, disk: Disk = EMPTY, *, commits: int | None = None, counts: Counts = lambda events: True) -> None:
        super().__init__()
        self.notes = list(disk.notes)
        self.has_died = False
        self._commits = commits
        self._recorder = _Recorder(disk, self.notes, counts)

    async def _open(self, *_: Any) -> OpenedLog:
        log = EventLog(self._recorder)
        return OpenedLog(log=log, history=StateHistory(log, None))

    async def live(self, work: Callable[[Mortal], Awaitable[Any]]) -> bool:
        """Open the log, do the work, and die on the way or end; whether it came to the end of its work."""
        died = asyncio.Event()
        before = asyncio.all_tasks()
        loop = asyncio.get_running_loop()

        def tell(commits: int) -> None:
            if self._commits is not None and commits == self._commits + 1:
                loop.call_soon_threadsafe(died.set)

        self._recorder.told = tell
        await self.setup()
        doing, dying = asyncio.ensure_future(work(self)), asyncio.ensure_future(died.wait())
        try:
            done, _ = await asyncio.wait({doing, dying}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            self.has_died = self._dies_by_now()
            if not self.has_died:
                assert done, "it neither ends nor dies: it waits for what will never come"
                doing.result()
            return not self.has_died
        finally:
            for task in (doing, dying):
                task.cancel()
            await asyncio.gather(doing, dying, return_exceptions=True)
            await self.close()
            left = asyncio.all_tasks() - before
            assert not left, f"closed, and something runs on: {[task.get_stack() for task in left]} {left}"

    def _dies_by_now(self) -> bool:
        return self._commits is not None and len(self._recorder.marks) > self._commits

    @property
    def commits(self) -> int:
        """How many commits it has begun."""
        return len(self._recorder.marks)

    def left(self, commits: int | None = None) -> Disk:
        """What it leaves: where it has died, where it has ended, or where it would have died after so many commits."""
        at = self._commits if commits is None and self.has_died else commits
        if at is not None:
            return self._recorder.disk_at(self._recorder.marks[at])
        return self._recorder.disk_at((self._recorder.head(), self._recorder.last_time_ns, len(self.notes)))


@asynccontextmanager
async def opened(disk: Disk) -> AsyncIterator[EventLog]:
    """The log on a disk, to look at."""
    log = EventLog(_Recorder(disk, [], lambda events: True))
    try:
        yield log
    finally:
        await log.close()
