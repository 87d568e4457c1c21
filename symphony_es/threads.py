"""The threads that plain functions of the application run in: a pool of their own, of daemon threads.

Neither the event loop's default pool nor the end of the program waits for them, so a function that does not return holds up nobody: not the
library's own file reads, not `asyncio.run`, not the exit. A thread whose caller has given up on it (the time was up, the run was cancelled)
while the function still runs is *hung*. It is counted, named in the log of the program, and another thread takes its place, up to a bound.

A time limit does not run while a call waits for a free thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic
from typing import Any, TypeVar

from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, ThreadsExhaustedError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

__all__ = ["HungThread", "ThreadPool", "TimeLimit", "current_limit", "current_pool", "current_step"]

T = TypeVar("T")

SIZE = 64
"""Functions that wait for the network cost little; a machine of two cores has no trouble with so many."""

IDLE_S = 10.0
"""A thread without work ends after so long."""

SHOWN = 5
"""So many functions are named in a line of the log."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HungThread:
    """A thread whose caller has given up on it while its function still runs.

    Attributes:
        thread: its name.
        function: the function's name.
        step: run id and address of the step that called it, as `run:address`; "" for no step.
        running_s: for how long the function runs, in seconds.
    """

    thread: str
    function: str
    step: str
    running_s: float


class TimeLimit:
    """The time limit of an attempt, which stands still while a call of it waits for a thread. Used on the event loop's thread."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._left_s: float | None = None

    def hold(self) -> None:
        """Stop the time."""
        when = self._timeout.when()
        if when is not None and not self._timeout.expired():
            self._left_s = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)

    def go_on(self) -> None:
        """Let the time go on."""
        if self._left_s is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left_s)
            self._left_s = None


class _Job:
    """One call: what runs, and who waits for it."""

    __slots__ = ("_context", "_fn", "_loop", "began", "function", "future", "limit", "step", "waited")

    def __init__(self, fn: Callable[[], Any], function: str, future: asyncio.Future[Any]) -> None:
        self.function = function
        self.step = current_step.get()
        self.waited = False
        self.limit = current_limit.get()
        self.began: float | None = None
        self._fn = fn
        self.future = future
        self._loop = future.get_loop()
        self._context = contextvars.copy_context()

    def run(self) -> None:
        if self.waited and self.limit is not None:
            self._tell(self._start_time)
        try:
            result = self._context.run(self._fn)
        except BaseException as error:  # noqa: BLE001  whatever it is, it is for the one who waits
            self._tell(self._fail, error)
        else:
            self._tell(self._finish, result)

    def refuse(self, error: Exception) -> None:
        self._tell(self._fail, error)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop has ended: nobody waits
            return

    def _start_time(self) -> None:
        if self.limit is not None and not self.future.done():
            self.limit.go_on()

    def _finish(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
        del self.future  # frames in the error's traceback hold this job: a circle


class ThreadPool:
    """Runs plain functions for coroutines, in daemon threads that are started as they are needed.

    Args:
        size: how many functions run at once.
        max_replaced: how many hung threads are replaced; as many as `size` by default.

    Raises:
        ConfigurationError: the size makes no sense.
    """

    def __init__(self, size: int = SIZE, max_replaced: int | None = None) -> None:
        if type(size) is not int or size < 1:
            raise ConfigurationError(f"threads={shown(size)}: a number of threads from 1 on")
        self.size = size
        self.max_replaced = size if max_replaced is None else max_replaced
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Condition()
        self._pid = os.getpid()
        self._waiting: deque[_Job] = deque()
        self._running: dict[threading.Thread, _Job] = {}
        self._hung: dict[threading.Thread, _Job] = {}
        self._idle = 0
        self._count = 0
        self._started = 0
        self._warned = False

    @property
    def hung(self) -> list[HungThread]:
        """The threads whose callers have given up on them while their functions still run."""
        now = monotonic()
        with self._lock:
            return [
                HungThread(thread=thread.name, function=job.function, step=job.step, running_s=now - (job.began or now))
                for thread, job in self._hung.items()
            ]

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return len(self._waiting)

    async def run(self, fn: Callable[[], T], function: str) -> T:
        """Call `fn` in a thread, with the caller's context variables, and return its result.

        Cancelling the call leaves a function that has begun to itself: its result is dropped, its thread counts as hung until it returns.

        Args:
            fn: what to call.
            function: its name, for the log.

        Raises:
            ThreadsExhaustedError: all threads hang, and as many as may be have been replaced.
        """
        job = _Job(fn, function, asyncio.get_running_loop().create_future())
        self._submit(job)
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        return result

    def _submit(self, job: _Job) -> None:
        if self._pid != os.getpid():
            self._reset()  # a forked process has none of the threads
        with self._lock:
            if self._may_start <= 0 and len(self._hung) == self._count:
                raise self._exhausted()
            self._waiting.append(job)
            if self._idle >= len(self._waiting):
                self._lock.notify()
            elif self._may_start > 0:
                self._start_thread()
            else:
                job.waited = True
                if job.limit is not None:
                    job.limit.hold()
                if not self._warned:
                    self._warned = True
                    _log.warning("threads_all_busy", threads=self._count, hung=len(self._hung), functions=_names(self._running.values()))

    @property
    def _may_start(self) -> int:
        """How many further threads may be started."""
        return self.size + min(len(self._hung), self.max_replaced) - self._count

    def _start_thread(self) -> None:
        self._count += 1
        self._started += 1
        threading.Thread(target=self._work, name=f"symphony-function-{self._started}", daemon=True).start()

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            if job.began is None:
                if job in self._waiting:
                    self._waiting.remove(job)
                return
            thread = next((thread for thread, other in self._running.items() if other is job), None)
            if thread is None:
                return
            self._hung[thread] = job
            hung = len(self._hung)
            if self._waiting and self._may_start > 0:
                self._start_thread()
            elif self._may_start <= 0 and hung == self._count:
                refused, self._waiting = list(self._waiting), deque()
                for waiting in refused:
                    waiting.refuse(self._exhausted())
        _log.warning("function_runs_on", function=job.function, step=job.step, thread_name=thread.name, hung=hung)

    def _exhausted(self) -> ThreadsExhaustedError:
        return ThreadsExhaustedError(len(self._hung), _names(self._hung.values()))

    def _work(self) -> None:
        thread = threading.current_thread()
        while (job := self._next(thread)) is not None:
            job.run()
            self._done(thread)
            del job  # what it holds goes with it

    def _next(self, thread: threading.Thread) -> _Job | None:
        with self._lock:
            while not self._waiting:
                if self._count - len(self._hung) > self.size:
                    break
                self._idle += 1
                notified = self._lock.wait(IDLE_S)
                self._idle -= 1
                if not notified and not self._waiting:
                    break
            else:
                job = self._waiting.popleft()
                job.began = monotonic()
                self._running[thread] = job
                return job
            self._count -= 1
            return None

    def _done(self, thread: threading.Thread) -> None:
        with self._lock:
            job = self._running.pop(thread)
            self._warned = self._warned and bool(self._waiting)
            if self._hung.pop(thread, None) is None:
                return
            hung = len(self._hung)
        ran_s = monotonic() - (job.began or monotonic())
        _log.info("function_returned_late", function=job.function, step=job.step, duration_ms=round(ran_s * 1000), hung=hung)


def _names(jobs: Any) -> list[str]:
    """Return names of some functions, those that have run for longest first."""
    longest = sorted(jobs, key=lambda job: job.began or 0.0)
    return [f"{job.function} ({job.step})" if job.step else job.function for job in longest[:SHOWN]]


current_limit: ContextVar[TimeLimit | None] = ContextVar("symphony_es_time_limit", default=None)
"""The time limit of the attempt that the running code is part of."""

current_step: ContextVar[str] = ContextVar("symphony_es_thread_step", default="")
"""Run id and address of the step that the running code is part of, as `run:address`."""

current_pool: ContextVar[ThreadPool | None] = ContextVar("symphony_es_threads", default=None)
"""Where plain functions run; the engine puts its own here."""
