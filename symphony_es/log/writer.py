"""Group commit: one thread appends whatever waits, with one commit for all of it.

Requests that arrive while a commit is under way share the next one; there is no timer to linger for them. A request that conflicts
fails alone. After an I/O error whose outcome is unknown nothing more is written until the log is opened anew.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityError, ForkedProcessError, LogUnavailableError, NotReadyError, SymphonyError
from symphony_es.log.placing import Placing
from symphony_es.log.recorder import Appended, LogRecorder, PreparedEvent
from symphony_es.shown import quoted
from symphony_es.steady import steady_ns

__all__ = ["Ticket", "Writer"]

MAX_BATCH_EVENTS = 4096
MAX_PENDING_EVENTS = 20_000
MAX_PENDING_BYTES = 64 * 1024 * 1024
WOKEN_AT_ONCE = 128
"""How many who wait for one commit go on in one iteration of the event loop: all of a thousand would hold it up for too long."""

NOTHING: frozenset[str] = frozenset()
Outcome = Appended | SymphonyError
Call = tuple[asyncio.Future[Any], Any] | Callable[[], Any]
Calls = dict[asyncio.AbstractEventLoop | None, list[Call]]
"""By event loop what to do in it: futures to resolve, each with its result; functions to call. Without a loop: in the writer thread."""

AHEAD_NS = 60 * 10**9
"""How far the last event may be ahead of the clock before it is said."""
logger = get_logger(__name__)


class Submission:
    """Events that are appended together; its outcome is told to the one future that waits for it: see `Writer.append`.

    Attributes:
        unplaced: keys whose events are numbered from 1, without a look at the log.
    """

    __slots__ = ("_future", "events", "size_bytes", "unplaced")

    def __init__(self, events: Sequence[PreparedEvent], unplaced: frozenset[str], future: asyncio.Future[Outcome] | None) -> None:
        self.events = events
        self.unplaced = unplaced
        self.size_bytes = len(events[0].body) if len(events) == 1 else sum([len(event.body) for event in events])
        self._future = future

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome, with the writer's lock held: nobody begins to wait for it from now on."""

    def tell(self, outcome: Outcome, calls: Calls) -> None:
        """Add what has to be done in event loops, or right away, after the outcome was set."""
        if self._future is not None:
            _add_call(calls, self._future.get_loop(), (self._future, outcome))


class _Awaited(Submission):
    """A submission that a thread waits for."""

    __slots__ = ("_told", "outcome")

    def __init__(self, events: Sequence[PreparedEvent]) -> None:
        super().__init__(events, NOTHING, None)
        self.outcome: Outcome | None = None
        self._told = threading.Lock()
        self._told.acquire()

    def settle(self, outcome: Outcome) -> None:
        """See `Submission`."""
        self.outcome = outcome

    def tell(self, outcome: Outcome, calls: Calls) -> None:
        """See `Submission`."""
        self._told.release()

    def wait(self) -> Outcome:
        """Wait for the outcome."""
        self._told.acquire()
        assert self.outcome is not None, "it is set before anybody is told"
        return self.outcome


class Ticket(Submission):
    """What became, or will become, of a submission; made by `Writer.submit`, whose lock guards all its tickets."""

    __slots__ = ("_callbacks", "_futures", "_lock", "_outcome", "apart", "moved", "refused")

    def __init__(
        self, events: Sequence[PreparedEvent], lock: threading.Lock, unplaced: frozenset[str] = NOTHING, *, apart: bool = False
    ) -> None:
        super().__init__(events, unplaced, None)
        self.apart = apart
        self.moved: dict[str, int] = {}
        self.refused: dict[str, EntityError] = {}
        self._outcome: Outcome | None = None
        self._lock = lock
        self._futures: list[asyncio.Future[Outcome]] = []
        self._callbacks: list[tuple[asyncio.AbstractEventLoop | None, Callable[[Ticket], Any]]] = []

    def done(self) -> bool:
        """Return whether the outcome is known."""
        return self._outcome is not None

    def result(self) -> Appended:
        """Return where the events are.

        Raises:
            ConcurrencyError: another writer was first; none of them was appended.
            LogUnavailableError: the commit failed.
            asyncio.InvalidStateError: the outcome is not known yet.
        """
        if self._outcome is None:
            raise asyncio.InvalidStateError("the outcome is not known yet")
        if isinstance(self._outcome, SymphonyError):
            raise self._outcome
        return self._outcome

    async def wait(self) -> Appended:
        """Wait for the outcome. Cancelling the wait does not take the submission back. Errors are those of `result`."""
        if self._outcome is None:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            with self._lock:
                waits = self._outcome is None
                if waits:
                    self._futures.append(future)
            if waits:
                await future
        return self.result()

    def add_done_callback(self, callback: Callable[[Ticket], Any]) -> None:
        """Have a callback called once the outcome is known: in the running loop if there is one, else in the writer thread."""
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            if self._outcome is None:
                self._callbacks.append((loop, callback))
                return
        callback(self)

    def settle(self, outcome: Outcome) -> None:
        """See `Submission`."""
        self._outcome = outcome

    def tell(self, outcome: Outcome, calls: Calls) -> None:
        """See `Submission`."""
        for future in self._futures:
            _add_call(calls, future.get_loop(), (future, outcome))
        for loop, callback in self._callbacks:
            _add_call(calls, loop, partial(callback, self))


def _add_call(calls: Calls, loop: asyncio.AbstractEventLoop | None, call: Call) -> None:
    of_loop = calls.get(loop)
    if of_loop is None:
        calls[loop] = [call]
    else:
        of_loop.append(call)


class Writer:
    """The one thread that appends to a recorder.

    Args:
        recorder: where to.
        on_appended: called in the writer thread with the new head after each commit, before anybody is told.
        clock_ns: the time, nanoseconds since 1970.
        on_end: called in the writer thread as the last thing that it does.
        placing: decides about births whose ids nobody has looked up; None where nobody gives any.
    """

    def __init__(
        self,
        recorder: LogRecorder,
        on_appended: Callable[[int, int], None],
        clock_ns: Callable[[], int] = steady_ns,
        on_end: Callable[[], None] = lambda: None,
        placing: Placing | None = None,
    ) -> None:
        self._recorder = recorder
        self._on_appended = on_appended
        self._on_end = on_end
        self._placing = placing
        self._clock_ns = clock_ns
        # A clock that was set back since the last event goes on from that.
        self._ahead_ns = max(0, recorder.last_time_ns - clock_ns())
        if self._ahead_ns > AHEAD_NS:  # the times of what is appended now are not those of the clock either
            logger.warning("log_ahead_of_clock", ahead_s=self._ahead_ns // 10**9)
        self._queue: queue.SimpleQueue[Submission | Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending_events = 0
        self._pending_bytes = 0
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._closed = False
        self._ending = False  # then what is queued last ends the thread, and may submit before
        self._pid = os.getpid()
        self._poison: LogUnavailableError | None = None
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="symphony-es-writer", daemon=True)
        self._thread.start()

    def submit(self, events: Sequence[PreparedEvent], unplaced: frozenset[str] = NOTHING, *, apart: bool = False) -> Ticket:
        """Queue a group of events; the order of calls is the order in the log. Never blocks; safe from every thread.

        Args:
            events: appended together.
            unplaced: keys whose events are numbered from 1, without a look at the log; see `Placing`. The ticket says what became of them.
            apart: where an id is taken, only that entity's events are left out.

        Raises:
            NotReadyError: the log is closed, or this is a child process that inherited it.
        """
        ticket = Ticket(events, self._lock, unplaced, apart=apart)
        self._put(ticket)
        return ticket

    def append(self, events: Sequence[PreparedEvent]) -> asyncio.Future[Outcome]:
        """Queue a group of events for one who waits for nothing else: the future, of the running loop, gets the outcome.

        An error is the future's result, too: nobody need ask for it. Errors are those of `submit`.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._put(Submission(events, NOTHING, future))
        return future

    def append_blocking(self, events: Sequence[PreparedEvent]) -> Outcome:
        """Do as `append` does, for a thread that waits for the outcome. Blocks; an error is the outcome, too."""
        submission = _Awaited(events)
        self._put(submission)
        return submission.wait()

    def _put(self, submission: Submission) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcessError(self._pid)
        with self._lock:
            if self._closed:
                raise NotReadyError("the log is closed")
            self._pending_events += len(submission.events)
            self._pending_bytes += submission.size_bytes
            self._queue.put(submission)

    def has_room(self) -> bool:
        """Return whether less waits to be written than the bound."""
        return self._pending_events < MAX_PENDING_EVENTS and self._pending_bytes < MAX_PENDING_BYTES

    async def room(self) -> None:
        """Wait until less waits to be written than the bound."""
        while not self.has_room():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._lock:
                self._waiting_for_room.append(future)
                if self.has_room() and not future.done():
                    future.set_result(None)
            await future

    def _run(self) -> None:
        try:
            self._write_what_comes()
        finally:
            self._on_end()

    def _write_what_comes(self) -> None:
        while True:
            item = self._queue.get()
            batch: list[Submission] = []
            events = 0
            while isinstance(item, Submission):
                batch.append(item)
                events += len(item.events)
                if events >= MAX_BATCH_EVENTS:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch, events)
            if item is None:
                return
            if not isinstance(item, Submission):
                item()

    def _commit(self, batch: list[Submission], events: int) -> None:
        outcomes: Sequence[Outcome]
        if self._poison is not None:
            outcomes = [self._poison] * len(batch)
        else:
            try:
                outcomes = self._append(batch)
            except LogUnavailableError as error:
                if error.outcome_unknown:
                    self._poison = error
                logger.error("commit_failed", error=str(error), outcome_unknown=error.outcome_unknown)  # noqa: TRY400  told to callers
                outcomes = [error] * len(batch)
            except Exception as error:  # noqa: BLE001  a dead writer thread would leave everybody waiting: stop writing, and say why
                self._poison = LogUnavailableError(
                    f"the log stopped writing after an unexpected error: {quoted(error)}", outcome_unknown=True
                )
                self._poison.__cause__ = error
                outcomes = [self._poison] * len(batch)
        last = next((outcome for outcome in reversed(outcomes) if isinstance(outcome, Appended)), None)
        if last is not None:
            self.commits += 1
            self._on_appended(last.last, last.time_ns)
        self._tell(batch, outcomes, events)
        if last is not None:
            self._recorder.maintain()

    def _append(self, batch: list[Submission]) -> Sequence[Outcome]:
        if self._placing is None or not [ticket for ticket in batch if ticket.unplaced]:
            return self._recorder.append_groups([ticket.events for ticket in batch], self._clock_ns() + self._ahead_ns)
        refusals: dict[Submission, SymphonyError] = {}
        for ticket in batch:
            if isinstance(ticket, Ticket) and ticket.unplaced:
                placed, ticket.moved, ticket.refused = self._placing.place(list(ticket.events), ticket.unplaced)
                if ticket.refused and not (ticket.apart and placed):
                    refusals[ticket] = next(iter(ticket.refused.values()))
                else:
                    ticket.events = placed
        appended = iter(
            self._recorder.append_groups([ticket.events for ticket in batch if ticket not in refusals], self._clock_ns() + self._ahead_ns)
        )
        return [refusals.get(ticket) or next(appended) for ticket in batch]

    def _tell(self, batch: list[Submission], outcomes: Sequence[Outcome], events: int) -> None:
        calls: Calls = {}
        size_bytes = sum([ticket.size_bytes for ticket in batch])
        with self._lock:  # for a moment only: a busy event loop would have to wait for it
            for ticket, outcome in zip(batch, outcomes, strict=True):
                ticket.settle(outcome)
            self._pending_events -= events
            self._pending_bytes -= size_bytes
            waiting, self._waiting_for_room = self._waiting_for_room, []
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.tell(outcome, calls)
        for future in waiting:
            _add_call(calls, future.get_loop(), (future, None))
        for loop, of_loop in calls.items():
            if loop is None or loop.is_closed():
                _make_here(of_loop)
            else:
                _make_in(loop, of_loop)

    def close(self, timeout_s: float | None = None) -> bool:
        """Write everything that waits, and end the thread; idempotent. Blocks.

        Args:
            timeout_s: how long to wait for it, in seconds; None waits for ever.

        Returns:
            whether the thread has ended; if not, it does when it has written everything. In that thread itself: that it will.
        """
        with self._lock:
            if not self._closed and not self._ending:
                self._closed = True
                self._queue.put(None)
        if threading.current_thread() is self._thread:  # the collector of garbage closes something there
            return True
        if os.getpid() == self._pid:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def end_after(self, submit: Callable[[], None], report: Callable[[], None]) -> None:
        """Have one call made in the writer thread, another one when all that has been submitted by then is written, and end the thread.

        Takes no lock and waits for nothing, so that the collector of garbage may call it, in the middle of whatever.
        """

        def end() -> None:
            try:
                submit()
            finally:
                with self._lock:
                    self._closed = True
                self._queue.put(report)
                self._queue.put(None)

        self._ending = True
        self._queue.put(end)


def _make_here(calls: Iterable[Call]) -> None:
    """Make calls in the writer thread; there is nobody for futures to tell."""
    for call in calls:
        if not isinstance(call, tuple):
            try:
                call()
            except Exception as error:  # noqa: BLE001  a dead writer thread would leave everybody else waiting
                logger.error("callback_failed", error=repr(error))  # noqa: TRY400  the application's own, of which a traceback may tell too much


def _make_in(loop: asyncio.AbstractEventLoop, calls: list[Call]) -> None:
    """Make calls in a loop with one wake-up, so many in one iteration; a loop that is closed meanwhile has nobody waiting in it."""
    try:
        loop.call_soon_threadsafe(_make_some, loop, iter(calls))
    except RuntimeError:
        if not loop.is_closed():
            raise


def _make_some(loop: asyncio.AbstractEventLoop, left: Iterator[Call]) -> None:
    some = list(islice(left, WOKEN_AT_ONCE))
    for call in some:
        if not isinstance(call, tuple):
            loop.call_soon(call)  # by itself: one that fails is told to the loop, and the others are made
        elif not call[0].done():
            call[0].set_result(call[1])
    if len(some) == WOKEN_AT_ONCE:
        loop.call_soon(_make_some, loop, left)
