"""Work that is waited for to its end, whatever happens to who waits; in a thread, too, where it can be asked to stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TypeVar

__all__ = ["Stop", "in_thread", "to_the_end"]

T = TypeVar("T")


class Stop:
    """Asks work in a thread to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ask(self) -> None:
        """Have the work stop at its next look."""
        self._event.set()

    def look(self) -> None:
        """Stop where the work is to stop.

        Raises:
            CancelledError: the work is to stop.
        """
        if self._event.is_set():
            raise asyncio.CancelledError


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Work in a worker thread. A cancellation asks it to stop and waits until it has: nothing goes on behind the caller's back."""
    stop, context = Stop(), copy_context()
    # A future and no task: a loop that is shut down cancels all tasks, and would take this one for ended while the thread goes on.
    future = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(work, stop))
    return await to_the_end(future, stop.ask)


async def to_the_end(work: Awaitable[T], ask_to_stop: Callable[[], object] | None = None) -> T:
    """Await what must not be left half done: a cancellation, and each further one, takes effect when the work has ended.

    Whoever was cancelled is told that, and not what the work has returned or raised.

    Args:
        ask_to_stop: called at each cancellation; work that heeds it ends early.
    """
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
            if ask_to_stop is not None:
                ask_to_stop()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # taken note of: who would have handled it has been cancelled
        raise cancelled
    return future.result()
