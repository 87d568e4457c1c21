"""Telling how far something has come, a few times a second at most, and working in threads that can be stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

__all__ = ["OnProgress", "Progress", "Stop", "in_thread"]

OnProgress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""

INTERVAL_S = 0.1
T = TypeVar("T")


class Progress:
    """Calls a callback at most ten times a second, and once at the end."""

    def __init__(self, callback: OnProgress | None, total: int) -> None:
        self._callback = callback
        self.total = total
        self._next = 0.0

    def tell(self, done: int) -> None:
        """Say how much is done, unless that was said a moment ago."""
        if self._callback is not None and (now := time.monotonic()) >= self._next and done < self.total:
            self._next = now + INTERVAL_S
            self._callback(done, self.total)

    def end(self) -> None:
        """Say that all is done."""
        if self._callback is not None:
            self._callback(self.total, self.total)


class Stop:
    """Asks work in a thread to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ask(self) -> None:
        """Have the work stop at its next look."""
        self._event.set()

    def look(self) -> None:
        """Raises: CancelledError: the work is to stop."""
        if self._event.is_set():
            raise asyncio.CancelledError


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Work in a worker thread. A cancellation asks it to stop and waits until it has: nothing goes on behind the caller's back."""
    stop, context = Stop(), copy_context()
    # A future and no task: a loop that is shut down cancels all tasks, and would take this one for ended while the thread goes on.
    future = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(work, stop))
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
            stop.ask()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # taken note of: who would have handled it has been cancelled
        raise cancelled
    return future.result()
