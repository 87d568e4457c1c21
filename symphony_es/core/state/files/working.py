"""Working in a thread that can be asked to stop, and is waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

__all__ = ["Stop", "in_thread"]

T = TypeVar("T")


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
