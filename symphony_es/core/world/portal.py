"""A way into coroutines for threads that have no event loop: a loop in a thread of its own, which makes their calls."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, overload

from symphony_es.errors import ConfigurationError, ForkedProcessError, NotReadyError

__all__ = ["Portal"]

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """Makes calls for threads without an event loop; see `Symphony.portal`. Safe from every thread, and from several at once."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise ConfigurationError("this portal is open already: its call() serves every thread")
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="symphony-es-portal", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        thread, self._thread = self._thread, None
        loop, self._loop = self._loop, None
        if thread is None or loop is None or self._end is None or os.getpid() != self._pid:
            return
        loop.call_soon_threadsafe(self._end.set)
        thread.join()

    def _serve(self, ready: threading.Event) -> None:
        async def until_the_end() -> None:
            self._end = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            ready.set()
            await self._end.wait()

        asyncio.run(until_the_end())

    @overload
    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    def call(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        """Call a function in the portal's event loop, await what it returns, and return the result.

        The caller's context goes along: what `acting_as` says holds in the call. Ctrl-C while waiting cancels the call.

        Args:
            function: a coroutine function, for example `symphony.create_checkpoint`, or another function.
            *args: its arguments, with `**kwargs`.

        Raises:
            NotReadyError: the portal is not open: call it inside of its `with` block.
            ForkedProcessError: a parent process has opened it.
            ConfigurationError: the caller is in the portal's loop itself, and would wait for its own end: await the coroutine there.
                Or it gave a coroutine, which has been closed, or nothing else that can be called.
            Exception: whatever the function raises.
        """
        if os.getpid() != self._pid:
            raise ForkedProcessError(self._pid)
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            raise NotReadyError("this portal is not open: `with symphony.portal() as portal: portal.call(...)`")
        if threading.current_thread() is thread:
            raise ConfigurationError("portal.call() inside of a call of the portal would wait for itself: await the coroutine instead")
        if not callable(function):
            if inspect.iscoroutine(function):
                function.close()
            raise ConfigurationError(
                f"portal.call() is given a function and its arguments, `portal.call(symphony.flush)`, not {type(function).__name__}"
            )
        outcome: Future[object] = Future()
        surroundings = copy_context()

        async def work() -> object:
            found = function(*args, **kwargs)
            return await found if inspect.isawaitable(found) else found

        def begin() -> None:
            task = loop.create_task(work(), context=surroundings)
            task.add_done_callback(lambda _: _hand_over(task, outcome))
            started.append(task)

        started: list[asyncio.Task[object]] = []
        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:
            raise NotReadyError("this portal has been closed") from None
        try:
            return outcome.result()
        except KeyboardInterrupt:
            for task in started:
                loop.call_soon_threadsafe(task.cancel)
            raise


def _hand_over(task: asyncio.Task[object], outcome: Future[object]) -> None:
    if task.cancelled():
        outcome.set_exception(NotReadyError("the call was cancelled: the portal was closed, or the call cancelled itself"))
        return
    error = task.exception()
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
