"""Deciding when a snapshot is due, and writing it behind the application's back.

A new snapshot is due when the events since the last one weigh more than what that snapshot has alive, and more than a floor. So all
snapshots together are written in proportion to the log, and a resume reads at most about twice the living state. What is at rest is copied
with each: so that this stays in proportion too, the events weigh at least a part of it. One is written at a
time, off the event loop; a crash before it is there costs a longer replay, nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from symphony_es.core.past.snapshots.retention import spares_little
from symphony_es.core.past.snapshots.writing import part_of
from symphony_es.core.past.states import StateHistory
from symphony_es.diagnostics import get_logger
from symphony_es.errors import DamagedEventError, LogError, NotReadyError, SnapshotDamagedError, StorageError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.rows import commitment, decode_row

if TYPE_CHECKING:
    from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
    from symphony_es.log.log import EventLog

__all__ = ["FLOOR_BYTES", "Snapshotter"]

FLOOR_BYTES = 64 * 1024
"""Below this weight of events no snapshot is due, so a small run leaves no files."""

COPIES = 16
"""How often what is at rest is copied at most while as much again comes to rest."""

OVERDUE = 4
"""How many times heavier than what makes a snapshot due the events must be to bring one without a checkpoint."""

logger = get_logger(__name__)


class Snapshotter:
    """Writes the snapshots of one log.

    Attributes:
        failure: what went wrong with the last attempt, or None. A snapshot is a cache: a failure is logged, and tried again later.
    """

    def __init__(self, log: EventLog, store: SnapshotStore, history: StateHistory) -> None:
        self.log = log
        self.store = store
        self.history = history
        self.failure: Exception | None = None
        self._weight = 0
        self._not_before = 0
        self._wanted = 0
        self._task: asyncio.Task[None] | None = None
        self._unweighed: tuple[int, int] | None = None
        self._weighing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to weigh the events since the newest snapshot. The application does not wait for it; what decides by it does."""
        newest = self._newest()
        self._unweighed = (newest.position if newest is not None else 0, self.log.head)
        self._weighing = asyncio.create_task(self._weigh_stored(*self._unweighed))

    async def _weigh_stored(self, after: int, until: int) -> None:
        try:
            stored = await self.log.weight(after, until)
        except NotReadyError:  # the log was closed meanwhile: its Symphony was forgotten without a close
            self._unweighed = None
            return
        except (LogError, DamagedEventError) as error:
            stored = 0
            self.failure = error
            logger.warning("snapshot_failed", position=until, error=str(error))
        if self._unweighed is not None:
            self._unweighed = None
            self._weight += stored  # later ones are weighed as they are submitted, also during the wait above

    async def _weighed(self) -> None:
        """Wait until the events that the log was opened with have been weighed."""
        while self._unweighed is not None:
            task = self._weighing
            if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():  # the loop it began in has ended
                task = self._weighing = asyncio.create_task(self._weigh_stored(*self._unweighed))
            await asyncio.wait([task])

    def weigh(self, appended_bytes: int) -> None:
        """Take note of bytes that have been submitted to the log.

        An application that makes no checkpoints gets a snapshot all the same once they are overdue, so that a resume never costs
        the length of the log.
        """
        self._weight += appended_bytes
        # Asked for each submission, so the least threshold first: what it really is takes a look at all snapshots.
        if self._weight > OVERDUE * FLOOR_BYTES and self._weight > OVERDUE * self._threshold():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return  # a thread, or no loop: a later submission finds it overdue again
            self.consider(self.log.head)

    def _newest(self) -> SnapshotInfo | None:
        infos = self.store.list()
        return infos[0] if infos else None

    def _threshold(self) -> float:
        newest = self._newest()
        if newest is None:
            return max(FLOOR_BYTES, self._not_before)
        return max(FLOOR_BYTES, newest.size_bytes - newest.resting_bytes, newest.resting_bytes / COPIES, self._not_before)

    @property
    def due(self) -> bool:
        """Whether the events since the last snapshot weigh more than it does."""
        return self._weight > self._threshold()

    def consider(self, position: int) -> None:
        """Begin a snapshot at a position when one is due and none is being written; when the weight is not known yet, as soon as it is."""
        if self.due or self._unweighed is not None:
            self._wanted = max(self._wanted, position)
            if self._task is None or _ended(self._task):
                self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Write what is wanted; while one is being written, a later position may have become due."""
        done = 0
        await self._weighed()
        while self._wanted > done and self.due:
            done = self._wanted
            await self._try(done)

    async def _try(self, position: int) -> SnapshotInfo | None:
        try:
            info = await self.take(position)
        except NotReadyError:
            return None  # the log was closed meanwhile: whoever opens it next has the snapshot written
        except (StorageError, LogError, DamagedEventError) as error:
            self.failure = error
            self._not_before = 2 * self._weight  # not again at once: the disk may be full
            logger.warning("snapshot_failed", position=position, error=str(error))
            return None
        self.failure = None
        self._not_before = 0
        return info

    async def pass_damage(self) -> None:
        """Have a snapshot behind the last damaged event that is passed over; an opening without the setting begins with it.

        Behind a last event that is damaged there is no place for one: whoever appends or closes asks again.
        """
        if not self.log.skips:
            return
        try:
            damaged = await asyncio.to_thread(self.log.skipped_until)
        except (StorageError, LogError, DamagedEventError) as error:  # the log is not there any more: this must not keep it from closing
            self.failure = error
            return
        newest = self._newest()
        if (newest.position if newest is not None else 0) < damaged < self.log.head:
            await self._try(self.log.head)

    async def take(self, position: int) -> SnapshotInfo | None:
        """Write a snapshot at a position now: merged from the newest earlier one and the events since.

        Raises:
            StorageError, LogError, DamagedEventError: it could not be written; nothing else has changed.
        """
        if position == 0:
            return None
        started = time.monotonic()
        await self._weighed()
        row = await self.log.row_at(position)
        event = decode_row(row)
        anchor = (event.event_id, commitment(row[4]), event.time_ns)
        base = self.store.nearest(position)
        if base is not None and base.position == position:
            return base
        info = await self._merge(base, position, anchor) if base is not None else None
        if info is None:
            fold = await self.history.states_at(position)
            info = await self.store.write(position, anchor, sorted(fold.states.values(), key=_key))
        covered = await self.log.weight(base.position if base is not None else 0, position)
        self._weight = max(0, self._weight - covered)  # what is submitted and not committed yet stays counted
        await self._thin()
        logger.info(
            "snapshot_written", position=position, size_bytes=info.size_bytes, duration_ms=round((time.monotonic() - started) * 1000)
        )
        return info

    async def _thin(self) -> None:
        """Remove older snapshots that are not worth their room: the last one where it spares little, and what is too much together."""
        older = self.store.list()[1:]
        if older:
            last, before = older[0], older[1] if len(older) > 1 else None
            events_bytes = await self.log.weight(before.position if before is not None else 0, last.position)
            if spares_little(last, before, events_bytes):
                await asyncio.to_thread(self.store.delete, last)
        await asyncio.to_thread(self.store.thin, await self.log.size_bytes())

    def _read_with_parts(self, base: SnapshotInfo, keys: Collection[str]) -> tuple[dict[str, EntityState], dict[str, bytes]]:
        """Return states of a snapshot and the parts that they stand in, by key: the fold changes the states themselves."""
        states = self.store.read_some(base, keys)
        return states, {key: part_of(state) for key, state in states.items()}

    async def _merge(self, base: SnapshotInfo, position: int, anchor: tuple[bytes, bytes, int]) -> SnapshotInfo | None:
        """Copy what has not changed since an earlier snapshot; None when that one cannot be trusted."""
        keys = await self.history.changed_keys(base.position, position)
        try:
            earlier, before = await asyncio.to_thread(self._read_with_parts, base, keys)
        except SnapshotDamagedError as error:
            self.store.distrust(base, str(error))
            return None
        fold = Fold(earlier, base.position, self.log.state_before)
        await self.log.replay(fold, position)
        try:
            moved = await asyncio.to_thread(_moved, before, fold)
            return await self.store.merge(base, fold.states, position, anchor, moved)
        except SnapshotDamagedError as error:
            self.store.distrust(base, str(error))
            return None

    async def close(self) -> None:
        """Wait for the snapshot that is being written; one that was begun in an event loop that has ended is left as it is."""
        if self._task is not None:
            await _end_of(self._task)
        if self._weighing is not None and not self._weighing.done() and self._weighing.get_loop() is asyncio.get_running_loop():
            self._weighing.cancel()
            await asyncio.wait([self._weighing])


def _moved(before: Mapping[str, bytes], fold: Fold) -> list[str]:
    """Return keys of the states that a fold has brought into the other part of a snapshot."""
    return [key for key, part in before.items() if part != part_of(fold.states[key])]


def _ended(task: asyncio.Task[None]) -> bool:
    """Return whether a task does not go on: it is done, or its event loop has stopped."""
    return task.done() or not task.get_loop().is_running()


async def _end_of(task: asyncio.Task[None]) -> None:
    """Wait for a task's end, in whatever event loop it runs. What it raised, or that it was cancelled, is its own business."""
    if _ended(task):
        return
    if task.get_loop() is asyncio.get_running_loop():
        await asyncio.wait([task])
        return

    async def watch() -> None:
        await asyncio.wait([task])

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(watch(), task.get_loop()))


def _key(state: EntityState) -> str:
    return state.key
