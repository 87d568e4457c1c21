"""What makes entities live happens one after the other: a resume puts a whole world in place, a load some entities into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from symphony_es.errors import RestorationError

__all__ = ["OneAtATime"]

_around: ContextVar[tuple[object, ...]] = ContextVar("blocks_around", default=())
"""The blocks that the code at hand runs in, or was begun in: tasks that a restorer begins inherit it."""


class OneAtATime:
    """A lock that knows its block: a restorer in it that asked for it would wait for its own end, and is refused instead."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._block: object | None = None

    @asynccontextmanager
    async def __call__(self, what: str, *, restoring: bool) -> AsyncIterator[None]:
        """A block that others wait for, also those that were begun in an earlier one.

        Args:
            what: what the block does, for the refusal.
            restoring: whether the Symphony asked is one that restorers see.

        Raises:
            RestorationError: a restorer calls it, or a task that it has begun.
        """
        if restoring or self._block in _around.get():
            raise RestorationError(f"a restorer asks for {what}: it makes one entity, and references are connected when all are made")
        async with self._lock_here():
            self._block = object()
            outside = _around.set((*_around.get(), self._block))
            try:
                yield
            finally:
                self._block = None
                _around.reset(outside)

    def _lock_here(self) -> asyncio.Lock:
        """The lock; a new one in a later event loop, since a lock belongs to the loop in which somebody waited for it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop and (self._loop is None or not self._loop.is_running()):
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
