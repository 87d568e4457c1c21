"""The log, as the layers above see it: an asynchronous front over a recorder and its writer thread.

Acknowledged means durable: what `append`, or a ticket, has returned is on disk. Readers see only what is durable, and every row
is checked before it is handed out.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from struct import iter_unpack
from typing import Any, Self, TypeVar
from uuid import UUID

from symphony_es.errors import (
    AnchorMismatchError,
    CloseTimeoutError,
    ForkedProcessError,
    LogDamagedError,
    LogError,
    NotReadyError,
    PositionNotFoundError,
    ReadOnlyError,
)
from symphony_es.events.changes import REMOVE
from symphony_es.events.event import Event, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.identifiers import uuid7
from symphony_es.events.rows import Row, commitment, decode_row, encode_body, event_id_of, time_of
from symphony_es.events.values import Limits
from symphony_es.log.directory import DirectoryLock, prepare_directory, prepare_file
from symphony_es.log.forks import Inherited, left_at_fork
from symphony_es.log.memory import MemoryLogRecorder
from symphony_es.log.recorder import Anchor, Appended, LogRecorder, PreparedEvent
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_connections import may_change
from symphony_es.log.walscan import scan_wal
from symphony_es.log.writer import Ticket, Writer

__all__ = ["DATABASE_NAME", "Anchor", "Appended", "EventLog", "Ticket"]

DATABASE_NAME = "events.db"
SCRATCH_NAME = f"{DATABASE_NAME}-wal.check"
SALT_BYTES = 16
SALTS_AT_ONCE = 1024
PAGE = 1000
REPLAYED_PAGES = 16
LOOK_UP_ROWS = 50  # what looking up an entity counts, so that some hundred make as long a call as some pages do
T = TypeVar("T")


class EventLog(Inherited):
    """An ordered, append-only log of events. Make one with `open`, `open_read_only` or `in_memory`."""

    def __init__(
        self,
        recorder: LogRecorder,
        *,
        lock: DirectoryLock | None = None,
        read_only: bool = False,
        limits: Limits | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._recorder = recorder
        self._lock = lock
        self._limits = limits or Limits()
        self._in_process = isinstance(recorder, MemoryLogRecorder)
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="symphony-es-reader")
        self._head = recorder.head()
        self._followers: set[asyncio.Event] = set()
        self._salts: Iterator[bytes] = iter(())
        self._closed = False
        self._forked_from: int | None = None
        self._ended = False
        self.report: Callable[[], None] = _nothing  # what tells of changes that nobody else can tell of
        self._ending_failed: LogError | None = None
        self._writer = None if read_only else Writer(recorder, self._advance, clock_ns, self._end)
        left_at_fork(self)

    # -- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def in_memory(cls, max_events: int = 100_000, *, limits: Limits | None = None) -> Self:
        """A log in memory that keeps the last `max_events` events, and a base state for those before."""
        return cls(MemoryLogRecorder(max_events), limits=limits)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        anchor: Anchor | None = None,
        ignore_anchor: bool = False,
        force_network_fs: bool = False,
        limits: Limits | None = None,
    ) -> EventLog:
        """Open the log in a directory for writing, creating what is missing.

        After an unclean end of the last writer the write-ahead file is scanned before SQLite sees it, and the events after the
        anchor are verified.

        Args:
            anchor: what the newest snapshot knows of the log.
            ignore_anchor: open a log that does not match it.
            force_network_fs: open a log on a network file system.

        Raises:
            LogInUseError: another process writes it.
            LogDamagedError, AnchorMismatchError, DamagedEventError: acknowledged events are missing or altered; nothing was changed.
            LogUnavailableError: the directory or file cannot be used.
        """

        def start() -> EventLog:
            prepare_directory(directory, force_network_fs=force_network_fs)
            lock = DirectoryLock(directory)
            try:
                recorder = _open_recorder(directory, lock, anchor, ignore_anchor=ignore_anchor)
                try:
                    lock.mark_open()
                    return cls(recorder, lock=lock, limits=limits)
                except BaseException:
                    recorder.close()
                    raise
            except BaseException:
                lock.release()
                raise

        return await _opened_in_thread(start)

    @classmethod
    async def open_read_only(cls, directory: Path) -> EventLog:
        """Open a log for reading, also while another process writes it, and in a directory that cannot be written.

        Raises:
            LogUnavailableError: there is none, or it cannot be read.
        """

        def start() -> EventLog:
            path = directory / DATABASE_NAME
            return cls(SQLiteLogRecorder(path, read_only=True, immutable=not may_change(path)), read_only=True)

        return await _opened_in_thread(start)

    async def close(self, timeout_s: float | None = None) -> None:
        """Write everything submitted, and close; idempotent. In a child process it does nothing: the log is the parent's.

        Args:
            timeout_s: how long to wait for it, in seconds; None waits for ever.

        Raises:
            CloseTimeoutError: it takes longer. The writer thread lets go of the log when it has written everything.
            LogUnavailableError: the note that the log is closed could not be written.
        """
        self._closed = True
        try:
            await asyncio.to_thread(self.end, timeout_s)
        finally:
            self._wake()

    def end(self, timeout_s: float | None = None) -> None:
        """`close` without an event loop. Blocks."""
        if self._forked_from is not None:
            return
        self._closed = True
        if self._writer is None:
            self._end()
        elif not self._writer.close(timeout_s):
            raise CloseTimeoutError(f"{self.path or 'the log'} is still being written after {timeout_s:g} s", {})
        if self._ending_failed is not None:
            raise self._ending_failed

    def end_after(self, submit: Callable[[], None], report: Callable[[], None]) -> None:
        """Close without waiting: see `Writer.end_after`. Its callers have lost the log, and nobody hears of an error."""
        self._closed = True
        self.report = report
        if self._writer is not None:
            self._writer.end_after(submit, report)

    def _end(self) -> None:
        """Let go of everything, in the writer thread if there is one: nobody writes any more."""
        if self._ended:
            return
        self._ended = True
        self._readers.shutdown()
        try:
            self._recorder.close()
            if self._lock is not None:
                self._lock.mark_clean()
        except LogError as error:
            self._ending_failed = error
        finally:
            if self._lock is not None:
                self._lock.release()

    @property
    def closed(self) -> bool:
        """Whether it is closed, or its writer thread is closing it."""
        return self._closed

    @property
    def lock_file(self) -> tuple[int, int] | None:
        """Device and inode of the file that is locked while the log is open for writing; None for others."""
        return self._lock.file if self._lock is not None else None

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`."""
        self._closed, self._forked_from = True, parent

    def _check_process(self) -> None:
        if self._forked_from is not None:
            raise ForkedProcessError(self._forked_from)

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise NotReadyError("the log is closed")

    # -- appending ----------------------------------------------------------------------------------------------------

    def prepare(self, event: NewEvent) -> PreparedEvent:
        """Encode an event; nothing is appended.

        Raises:
            UnstorableValueError: a value that is no plain data.
            LimitExceededError: it is too large.
        """
        salt = next(self._salts, None)
        if salt is None:
            self._salts = iter([made for (made,) in iter_unpack(f"{SALT_BYTES}s", os.urandom(SALTS_AT_ONCE * SALT_BYTES))])
            salt = next(self._salts)
        return PreparedEvent(event.entity_key, event.version, event.name, event.event_id, encode_body(event, salt, self._limits))

    def submit(self, events: Sequence[PreparedEvent]) -> Ticket:
        """Have events appended together; the order of calls is the order in the log. Never blocks; safe from every thread.

        Raises:
            ReadOnlyError: the log is open for reading only.
            NotReadyError: it is closed. ForkedProcessError: it is the parent process's.
        """
        if self._writer is None:
            raise ReadOnlyError("this log is open for reading only")
        return self._writer.submit(events)

    async def append(self, events: Sequence[NewEvent]) -> Appended:
        """Append events together and wait until they are durable. Cancelling the wait does not take them back.

        Raises:
            ConcurrencyError: an entity has another version; nothing was appended.
            UnstorableValueError, LimitExceededError: an event cannot be stored; nothing was appended.
            LogUnavailableError: the commit failed.
        """
        prepared = [self.prepare(event) for event in events]
        if not self.has_room():
            await self.room()
        return await self.submit(prepared).wait()

    def has_room(self) -> bool:
        """Whether less waits to be written than the bound."""
        return self._writer is None or self._writer.has_room()

    async def room(self) -> None:
        """Wait until less waits to be written than the bound."""
        if self._writer is not None:
            await self._writer.room()

    @property
    def commits(self) -> int:
        """How many commits there have been since the log was opened."""
        return self._writer.commits if self._writer is not None else 0

    def _advance(self, head: int, time_ns: int) -> None:
        self._head = head
        self._wake()

    def _wake(self) -> None:
        for follower in list(self._followers):
            loop: asyncio.AbstractEventLoop = follower.loop  # type: ignore[attr-defined]
            if not loop.is_closed():
                with suppress(RuntimeError):  # it is closed by now
                    loop.call_soon_threadsafe(follower.set)

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading: another process may be writing it."""
        return self._writer is None

    @property
    def path(self) -> Path | None:
        """The database file; None in memory."""
        return self._recorder.path if isinstance(self._recorder, SQLiteLogRecorder) else None

    async def log_id(self) -> UUID | None:
        """The identity that the log was made with, which copies of it keep; None in memory."""
        return await self._call(self._recorder.log_id) if isinstance(self._recorder, SQLiteLogRecorder) else None

    @property
    def head(self) -> int:
        """The newest durable position known here; 0 when the log is empty."""
        return self._head

    async def refresh_head(self) -> int:
        """The newest durable position, asked of the store: another process may have appended."""
        self._check_process()
        if self._writer is None:
            self._head = await self._call(self._recorder.head)
        return self._head

    async def _call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        if self._in_process and not self._closed:
            return function(*arguments, **named)
        return await self._in_reader(partial(function, *arguments, **named))

    async def _in_reader(self, function: Callable[..., T], *arguments: Any) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def read_rows(
        self,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> list[Row]:
        """A page of checked rows with positions above `after`; see `LogRecorder.read`."""
        return await self._call(self._recorder.read, after, until=until, limit=limit, names=tuple(names), key_range=key_range)

    async def replay(self, fold: Fold, until: int) -> None:
        """Feed a fold with the events after its position, up to `until`, in a thread; a cancelled call stops after some thousand events.

        Raises:
            DamagedEventError: an event is damaged; those before it have been applied.
        """
        while fold.position < until and await self._in_reader(self._replay_some, fold, until):
            pass

    def _replay_some(self, fold: Fold, until: int) -> bool:
        """Feed some pages at once, since each hop between threads costs as much as a hundred events; whether there were any."""
        rows: list[Row] = []
        for _ in range(REPLAYED_PAGES):
            rows = self._recorder.read(fold.position, until=until, limit=PAGE)
            if not rows:
                break
            fold.apply_rows(rows)
        return bool(rows)

    async def replay_entities(self, folds: Mapping[str, Fold], until: int) -> None:
        """Feed folds of one entity each, by key, with that entity's later events, up to `until`, as `replay` does with all events.

        Raises:
            DamagedEventError: an event is damaged.
        """
        waiting = list(folds.items())
        while waiting:
            await self._call(self._replay_some_entities, waiting, until)

    def _replay_some_entities(self, waiting: list[tuple[str, Fold]], until: int) -> None:
        """Feed some hundred folds, the last ones first, or fewer that have many events; those that are done wait no more."""
        room = REPLAYED_PAGES * PAGE
        while waiting and room > 0:
            key, fold = waiting[-1]
            state = fold.states.get(key)
            rows = self._recorder.read_entity(key, after_version=state.version if state else 0, until_position=until, limit=PAGE)
            fold.apply_rows(rows)
            if len(rows) < PAGE:
                waiting.pop()
            room -= LOOK_UP_ROWS + len(rows)

    async def read(
        self, after: int = 0, until: int | None = None, names: Sequence[str] = (), page: int = 1000
    ) -> AsyncIterator[list[Event]]:
        """Pages of events with positions above `after`, up to `until` or the head as it is now.

        Raises:
            DamagedEventError: an event is damaged; those before it have been handed out.
        """
        stop = self._head if until is None else until
        while after < stop:
            rows = await self.read_rows(after, stop, page, names)
            if rows:
                yield [decode_row(row) for row in rows]
            if len(rows) < page:
                return
            after = rows[-1][0]

    async def read_entity_rows(self, key: str, after_version: int = 0, until_position: int | None = None, limit: int = 1000) -> list[Row]:
        """A page of one entity's rows with versions above `after_version`."""
        return await self._call(self._recorder.read_entity, key, after_version=after_version, until_position=until_position, limit=limit)

    async def read_entity(self, key: str, after_version: int = 0, until_position: int | None = None) -> list[Event]:
        """All events of one entity with versions above `after_version`, in order."""
        events: list[Event] = []
        while True:
            rows = await self.read_entity_rows(key, after_version, until_position)
            events.extend(decode_row(row) for row in rows)
            if len(rows) < 1000:
                return events
            after_version = rows[-1][2]

    async def row_at(self, position: int) -> Row:
        """The row at a position.

        Raises:
            PositionNotFoundError: there is none.
        """
        rows = await self.read_rows(position - 1, position, 1) if position > 0 else []
        if not rows:
            raise PositionNotFoundError(f"position {position} is not in the log: its head is {self._head}")
        return rows[0]

    def entity_status_now(self, key: str) -> tuple[int, bool]:
        """Version of an entity's last event (0 when there is none) and whether it is alive; a synchronous look-up.

        Raises:
            DamagedEventError: that event is damaged.
        """
        self._check_process()
        version = self._recorder.entity_version(key)
        if not version:
            return 0, False
        row = self._recorder.last_row(key)
        if row is None:
            base = self._recorder.base()
            state = base.states.get(key) if base is not None else None
            return version, state is not None and not state.deleted
        changes = decode_row(row).changes
        return version, not (changes and changes[-1][0] == REMOVE and not changes[-1][1])

    async def weight(self, after: int, until: int | None = None) -> int:
        """Bytes of all states at positions above `after`, up to `until` where it is given."""
        return await self._call(self._recorder.weight, after, until)

    async def size_bytes(self) -> int:
        """How much room the log takes, in bytes."""
        return await self._call(self._recorder.size_bytes)

    @property
    def base(self) -> Fold | None:
        """In memory: the states that events no longer kept were folded into, as a copy; None where everything is kept."""
        return self._recorder.base()

    async def position_at(self, time_ns: int) -> int:
        """The position before the first event with a later time; a binary search."""
        base = self._recorder.base()
        low, high = base.position if base is not None else 0, await self.refresh_head()
        while low < high:
            middle = (low + high + 1) // 2
            if time_of((await self.row_at(middle))[4]) <= time_ns:
                low = middle
            else:
                high = middle - 1
        return low

    async def transaction_bounds(self, position: int) -> tuple[int, int]:
        """First and last position of the transaction that an event belongs to.

        Raises:
            PositionNotFoundError: there is no event there.
        """
        own = decode_row(await self.row_at(position)).transaction_id
        first = last = position
        while first > 1 and decode_row(await self.row_at(first - 1)).transaction_id == own:
            first -= 1
        while last < self._head and decode_row(await self.row_at(last + 1)).transaction_id == own:
            last += 1
        return first, last

    # -- following ----------------------------------------------------------------------------------------------------

    async def follow(self, after: int = 0, names: Sequence[str] = (), poll_s: float = 0.1) -> AsyncIterator[list[Event]]:
        """Pages of events as they become durable, for ever: history first, then what is appended, no event twice or missing.

        Args:
            after: the last position already known.
            names: only events of these names.
            poll_s: how often, in seconds, a log that another process writes is asked; in the writing process a signal wakes.
        """
        self._check_process()
        changed = _LoopEvent(asyncio.get_running_loop())
        self._followers.add(changed)
        try:
            while not self._closed:
                changed.clear()
                head = await self.refresh_head()
                async for events in self.read(after, head, names):
                    yield events
                after = max(after, head)
                if self._head <= after and not self._closed:
                    await self._wait_for_change(changed, poll_s)
        finally:
            self._followers.discard(changed)

    async def _wait_for_change(self, changed: asyncio.Event, poll_s: float) -> None:
        if self._writer is not None:
            await changed.wait()
            return
        try:
            await asyncio.wait_for(changed.wait(), poll_s)
        except TimeoutError:
            return

    async def wait_for(self, position: int, timeout_s: float | None = None) -> None:
        """Wait until a position is durable.

        Raises:
            TimeoutError: it is not after `timeout_s` seconds.
        """
        async with asyncio.timeout(timeout_s):
            changed = _LoopEvent(asyncio.get_running_loop())
            self._followers.add(changed)
            try:
                while await self.refresh_head() < position:
                    changed.clear()
                    if self._head < position:
                        await self._wait_for_change(changed, 0.1)
            finally:
                self._followers.discard(changed)


class _LoopEvent(asyncio.Event):
    """An event that knows its loop, so that the writer thread can set it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop


async def _opened_in_thread(start: Callable[[], EventLog]) -> EventLog:
    """A log that is opened in a thread; when nobody waits for it any more, the thread closes it again."""
    guard = threading.Lock()
    opened: list[EventLog] = []
    wanted = True

    def work() -> EventLog:
        log = start()
        with guard:
            opened.append(log)
            if wanted:
                return log
        log.end()
        return log

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        with guard:
            wanted = False
            unwanted = opened[:]
        for log in unwanted:  # it was opened, and the cancellation came before it was handed over
            log.end_after(_nothing, _nothing)
        raise


def _nothing() -> None:
    """What is left to do for a log that nobody has written."""


def _open_recorder(directory: Path, lock: DirectoryLock, anchor: Anchor | None, *, ignore_anchor: bool) -> SQLiteLogRecorder:
    path = directory / DATABASE_NAME
    made = prepare_file(path)
    unclean = not lock.was_clean
    if unclean and scan_wal(directory / f"{DATABASE_NAME}-wal", directory / SCRATCH_NAME) == "damaged" and not ignore_anchor:
        raise LogDamagedError(
            f"{path}-wal holds acknowledged commits that are damaged, and opening the log would drop them and all later ones: "
            "restore a backup, or open with ignore_anchor=True to go on with what is before the damage"
        )
    recorder = SQLiteLogRecorder(path, log_id=UUID(bytes=uuid7(time.time_ns(), os.urandom(16))) if made else None)
    try:
        if unclean:
            recorder.verify_pages()
        if not ignore_anchor and anchor is not None:
            check_anchor(recorder, anchor)
        if unclean:
            verify_tail(recorder, anchor.position if anchor is not None and not ignore_anchor else 0)
    except LogError:
        recorder.close()
        raise
    return recorder


def check_anchor(recorder: LogRecorder, anchor: Anchor) -> None:
    """Compare the log with what a snapshot knows of it.

    Raises:
        AnchorMismatchError: the log is shorter, or has another event there.
    """
    head = recorder.head()
    if head < anchor.position:
        raise AnchorMismatchError(anchor.position, f"the log ends at position {head}")
    (row,) = recorder.read(anchor.position - 1, until=anchor.position, limit=1)
    if event_id_of(row[4]) != anchor.event_id or commitment(row[4]) != anchor.commitment:
        raise AnchorMismatchError(anchor.position, "it has another event there")


def verify_tail(recorder: LogRecorder, after: int) -> None:
    """Read everything after a position; reading checks it.

    Raises:
        DamagedEventError: an event is damaged.
    """
    while rows := recorder.read(after, limit=2000):
        after = rows[-1][0]
