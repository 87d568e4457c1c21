"""The log, as the layers above see it: an asynchronous front over a recorder and its writer thread.

Acknowledged means durable: what `append`, or a ticket, has returned is on disk. Readers see only what is durable, and every row
is checked before it is handed out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self
from uuid import UUID
from weakref import WeakMethod

from symphony_es.errors import CloseTimeoutError, LogError, ReadOnlyError, SymphonyError
from symphony_es.events.event import Event, NewEvent
from symphony_es.events.rows import decode_row, encode_body
from symphony_es.events.values import Limits
from symphony_es.log.directory import DirectoryLock, prepare_directory
from symphony_es.log.forks import left_at_fork
from symphony_es.log.head_note import HEAD_NAME, HeadNote
from symphony_es.log.memory import MemoryLogRecorder
from symphony_es.log.opening import DATABASE_NAME, open_reader, open_recorder
from symphony_es.log.placing import Placing
from symphony_es.log.reading import LogReader
from symphony_es.log.recorder import Anchor, Appended, LogRecorder, PreparedEvent
from symphony_es.log.writer import NOTHING, Ticket, Writer
from symphony_es.steady import steady_ns
from symphony_es.system import RandomBytes, given_path

__all__ = ["DATABASE_NAME", "Anchor", "Appended", "EventLog", "Ticket"]

SALT_BYTES = 16
MAX_KNOWN_CONSTANTS = 10_000
ENCODED_AT_ONCE = 256
"""How many events are encoded in one turn of the event loop, some milliseconds."""


class EventLog(LogReader):
    """An ordered, append-only log of events. Make one with `open`, `open_read_only` or `in_memory`."""

    def __init__(
        self,
        recorder: LogRecorder,
        *,
        lock: DirectoryLock | None = None,
        note: HeadNote | None = None,
        read_only: bool = False,
        limits: Limits | None = None,
        clock_ns: Callable[[], int] = steady_ns,
        head: int | None = None,
    ) -> None:
        super().__init__(recorder, read_only=read_only, head=head)
        self._lock = lock
        self._note = note
        self._limits = limits or Limits()
        self._salts = RandomBytes(SALT_BYTES, 1024)
        self._ended = False
        self._written: set[str] = set()
        self.allow_shared = False  # whether who opened it takes what other users could change, in its directory and beside it
        self.report: Callable[[], None] = _nothing  # what tells of changes that nobody else can tell of
        self._ending_failed: LogError | None = None
        placing = None if self._in_process else Placing(recorder, self.state_before)
        self._writer = None if read_only else Writer(recorder, self._advance, clock_ns, self._end, placing)
        left_at_fork(self)

    # -- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def in_memory(cls, max_events: int = 100_000, *, limits: Limits | None = None) -> Self:
        """Return a log in memory that keeps the last `max_events` events, and a base state for those before."""
        return cls(MemoryLogRecorder(max_events), limits=limits)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        anchor: Anchor | None = None,
        ignore_anchor: bool = False,
        force_network_fs: bool = False,
        allow_shared: bool = False,
        skip_damaged: bool = False,
        limits: Limits | None = None,
    ) -> EventLog:
        """Open the log in a directory for writing, creating what is missing.

        After an unclean end of the last writer the write-ahead file is scanned before SQLite sees it, and the events after the
        anchor are verified.

        Args:
            anchor: what the newest snapshot knows of the log.
            ignore_anchor: open a log that does not match it.
            force_network_fs: open a log on a network file system.
            allow_shared: open a log that other users could change.
            skip_damaged: read damaged and missing events as events that damage their entity, and nobody else. The whole log is read once.

        Raises:
            LogInUseError: another process writes it.
            LogDamagedError, AnchorMismatchError, DamagedEventError: acknowledged events are missing or altered; nothing was changed.
            LogUnavailableError: the directory or file cannot be used.
        """
        return await _opened_in_thread(
            partial(
                cls.open_blocking,
                given_path(directory, "directory"),
                anchor=anchor,
                ignore_anchor=ignore_anchor,
                force_network_fs=force_network_fs,
                allow_shared=allow_shared,
                skip_damaged=skip_damaged,
                limits=limits,
            )
        )

    @classmethod
    def open_blocking(
        cls,
        directory: Path,
        *,
        anchor: Anchor | None = None,
        ignore_anchor: bool = False,
        force_network_fs: bool = False,
        allow_shared: bool = False,
        skip_damaged: bool = False,
        limits: Limits | None = None,
    ) -> Self:
        """Do as `open` does, without an event loop. Blocks."""
        directory = given_path(directory, "directory")
        prepare_directory(directory, force_network_fs=force_network_fs, allow_shared=allow_shared)
        lock = DirectoryLock.obtain(directory)
        try:
            recorder = open_recorder(directory, lock, anchor, ignore_anchor=ignore_anchor, skip_damaged=skip_damaged)
            try:
                log_id, head = recorder.log_id(), recorder.head()
                # The note comes first: one of another log speaks against this one as soon as the lock says that there is one.
                note = HeadNote(directory / HEAD_NAME, log_id.bytes if log_id is not None else bytes(16), head)
                try:
                    lock.mark_open()
                except BaseException:
                    note.close()
                    raise
                log = cls(recorder, lock=lock, note=note, limits=limits, head=head)
                log.allow_shared = allow_shared
                return log
            except BaseException:
                recorder.close()
                raise
        except BaseException:
            lock.release()
            raise

    @classmethod
    async def open_read_only(cls, directory: Path, *, skip_damaged: bool = False, allow_shared: bool = False) -> EventLog:
        """Open a log for reading, also while another process writes it, and in a directory that cannot be written.

        Raises:
            LogUnavailableError: there is none, it cannot be read, or others than its owner could change it.
            LogDamagedError: it is damaged, or a crashed writer's write-ahead file is.
        """
        directory = given_path(directory, "directory")
        start = partial(cls.open_read_only_blocking, directory, skip_damaged=skip_damaged, allow_shared=allow_shared)
        return await _opened_in_thread(start)

    @classmethod
    def open_read_only_blocking(cls, directory: Path, *, skip_damaged: bool = False, allow_shared: bool = False) -> Self:
        """Do as `open_read_only` does, without an event loop. Blocks."""
        directory = given_path(directory, "directory")
        log = cls(open_reader(directory, skip_damaged=skip_damaged, allow_shared=allow_shared), read_only=True)
        log.allow_shared = allow_shared
        return log

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
        """Close it, without an event loop. Blocks."""
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
            if self._note is not None:
                if self.path is not None:
                    self._note.leave(self.path)
                self._note.close()
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

    @property
    def path(self) -> Path | None:
        """The database file; None in memory."""
        return self._recorder.path

    @property
    def lost_at_the_end(self) -> tuple[int, int] | None:
        """First and last position of the last commit before a crash, where opening found that it is missing; None where nothing is."""
        return self._recorder.lost_at_the_end

    def skipped(self) -> list[Event]:
        """Return, with `skip_damaged`, what stands in the place of each damaged event; its `fault` says what is wrong. Blocks."""
        return [decode_row(row) for row in self._recorder.skipped.values()]

    @property
    def skips(self) -> bool:
        """Whether it was opened with `skip_damaged`."""
        return self._recorder.skips

    def skipped_until(self) -> int:
        """Return, with `skip_damaged`, the position of the last damaged event; 0 where there is none. Blocks."""
        return max(self._recorder.skipped, default=0)

    async def log_id(self) -> UUID | None:
        """Return the identity that the log was made with, which copies of it keep; None in memory."""
        return await self._call(self._recorder.log_id)

    def bound_versions(self, least: Callable[[str], int]) -> None:
        """Have readings of one entity compared with a version that its last event has at least, 0 where nobody knows one.

        Args:
            least: a method; the object that it belongs to is not kept alive.
        """
        method = WeakMethod(least)
        self._recorder.least_of = lambda key: asked(key) if (asked := method()) is not None else 0

    # -- appending ----------------------------------------------------------------------------------------------------

    def prepare(self, event: NewEvent) -> PreparedEvent:
        """Encode an event; nothing is appended.

        Raises:
            UnstorableValueError: a value that is no plain data.
            LimitExceededError: it is too large.
        """
        body = encode_body(event, self._salts.take(), self._limits)
        return PreparedEvent(event.entity_key, event.version, event.name, event.event_id, body)

    @property
    def answers_at_once(self) -> bool:
        """Whether asking it blocks nobody: it is in memory."""
        return self._in_process

    def submit(self, events: Sequence[PreparedEvent], unplaced: frozenset[str] = NOTHING, *, apart: bool = False) -> Ticket:
        """Have events appended together; the order of calls is the order in the log. Never blocks; safe from every thread.

        See `Writer.submit`; a log that answers at once is given no `unplaced` events.

        Raises:
            ReadOnlyError: the log is open for reading only.
            NotReadyError: it is closed. ForkedProcessError: it is the parent process's.
        """
        if self._writer is None:
            raise ReadOnlyError("this log is open for reading only")
        return self._writer.submit(events, unplaced, apart=apart)

    def has_written(self, key: str) -> bool:
        """Return whether the log is known to have a constant entity; False where nobody knows."""
        return key in self._written

    def lost_version(self, key: str) -> int:
        """Return the version of an entity's last event that is damaged and was passed over by `skip_damaged`; 0 where none is."""
        return max((row[2] for row in self._recorder.skipped.values() if row[1] == key), default=0)

    def note_written(self, key: str) -> None:
        """Note that the log has a constant entity."""
        if len(self._written) >= MAX_KNOWN_CONSTANTS:
            self._written.clear()  # what is not known is submitted once more, and left out
        self._written.add(key)

    async def append(self, events: Sequence[NewEvent]) -> Appended:
        """Append events together and wait until they are durable. Cancelling the wait does not take them back.

        Raises:
            ConcurrencyError: an entity has another version; nothing was appended.
            UnstorableValueError, LimitExceededError: an event cannot be stored; nothing was appended.
            LogUnavailableError: the commit failed.
        """
        prepared: list[PreparedEvent] = []
        for event in events:
            if len(prepared) % ENCODED_AT_ONCE == ENCODED_AT_ONCE - 1:
                await asyncio.sleep(0)  # others in the loop have their turn
            prepared.append(self.prepare(event))
        if self._writer is None:
            raise ReadOnlyError("this log is open for reading only")
        if not self._writer.has_room():
            await self._writer.room()
        outcome = await self._writer.append(prepared)
        if isinstance(outcome, SymphonyError):
            raise outcome
        return outcome

    def append_blocking(self, events: Sequence[NewEvent]) -> Appended:
        """Do as `append` does, for threads without an event loop. Blocks until the events are durable; errors are the same."""
        if self._writer is None:
            raise ReadOnlyError("this log is open for reading only")
        outcome = self._writer.append_blocking([self.prepare(event) for event in events])
        if isinstance(outcome, SymphonyError):
            raise outcome
        return outcome

    def has_room(self) -> bool:
        """Return whether less waits to be written than the bound."""
        return self._writer is None or self._writer.has_room()

    async def room(self) -> None:
        """Wait until less waits to be written than the bound."""
        if self._writer is not None:
            await self._writer.room()

    @property
    def last_time_ns(self) -> int:
        """When the last event was committed, nanoseconds since 1970; 0 without any."""
        return self._recorder.last_time_ns

    @property
    def commits(self) -> int:
        """How many commits there have been since the log was opened."""
        return self._writer.commits if self._writer is not None else 0

    def _advance(self, head: int, time_ns: int) -> None:
        self._head = head
        if self._note is not None:
            self._note.write(head)
        self._wake()

    def _wake(self) -> None:
        for follower in list(self._followers):
            loop: asyncio.AbstractEventLoop = follower.loop  # type: ignore[attr-defined]
            if not loop.is_closed():
                with suppress(RuntimeError):  # it is closed by now
                    loop.call_soon_threadsafe(follower.set)


async def _opened_in_thread(start: Callable[[], EventLog]) -> EventLog:
    """Return a log that is opened in a thread; when nobody waits for it any more, the thread closes it again."""
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
    """Do nothing: nothing is left to do for a log that nobody has written."""
