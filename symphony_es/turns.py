"""Tasks that take turns."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["TaskLock"]


class TaskLock:
    """A lock for the tasks of an event loop, as `asyncio.Lock`; in the next loop it begins anew.

    A Symphony may outlive the loop that it was opened in (notebooks, a test client per call), and a lock of a loop that has ended
    would never be free again.
    """

    def __init__(self) -> None:
        self._of_loop: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        if self._of_loop is None or self._of_loop[0] is not loop:
            self._of_loop = loop, asyncio.Lock()
        await self._of_loop[1].acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._of_loop is not None and self._of_loop[0] is asyncio.get_running_loop():
            self._of_loop[1].release()
