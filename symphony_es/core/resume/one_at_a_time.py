"""What makes entities live happens one after the other: a resume puts a whole world in place, a load some entities into it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from symphony_es.contexts import reset_variable
from symphony_es.errors import RestorationError

__all__ = ["OneAtATime"]

_around: ContextVar[tuple[object, ...]] = ContextVar("blocks_around", default=())
"""The blocks that the code at hand runs in, or was begun in: tasks that a restorer begins inherit it."""


class OneAtATime:
    """A lock that knows its block: a restorer in it that asked for it would wait for its own end, and is refused instead."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: asyncio.AbstractEventLoop | None = None  # the loop of the block that is under way
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._block: object | None = None

    @asynccontextmanager
    async def __call__(self, what: str, *, restoring: bool) -> AsyncIterator[None]:
        """Enter a block that others wait for, also those that were begun in an earlier one.

        Args:
            what: what the block does, for the refusal.
            restoring: whether the Symphony asked is one that restorers see.

        Raises:
            RestorationError: a restorer calls it, or a task that it has begun.
        """
        if restoring or self._block in _around.get():
            raise RestorationError(f"a restorer asks for {what}: it makes one entity, and references are connected when all are made")
        await self._take()
        try:
            self._block = object()
            outside = _around.set((*_around.get(), self._block))
            try:
                yield
            finally:
                self._block = None
                reset_variable(outside)
        finally:
            self._give()

    async def _take(self) -> None:
        """Wait for the turn. A lock of asyncio's is one event loop's; here several may wait, one after the other or beside each other."""
        loop = asyncio.get_running_loop()
        with self._guard:
            holder = self._holder
            if holder is None or (holder is not loop and not holder.is_running()):  # a loop that has stopped never gives it back
                self._holder = loop
                return
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
            if turn.done() and not turn.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        with self._guard:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.get_loop().is_running():
                    self._holder = turn.get_loop()
                    self._holder.call_soon_threadsafe(self._hand, turn)
                    return
            self._holder = None

    def _hand(self, turn: asyncio.Future[None]) -> None:
        if turn.done():  # cancelled on the way
            self._give()
        else:
            turn.set_result(None)
