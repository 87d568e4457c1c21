"""What makes entities live happens one after the other: a resume puts a whole world in place, a load some entities into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from symphony_es.errors import RestorationError

__all__ = ["OneAtATime"]


class OneAtATime:
    """A lock that knows its task: a restorer that asked for it would wait for its own end, and is refused instead."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def __call__(self, what: str, *, restoring: bool) -> AsyncIterator[None]:
        """A block that others wait for.

        Args:
            what: what the block does, for the refusal.
            restoring: whether the Symphony asked is one that restorers see.

        Raises:
            RestorationError: a restorer calls it.
        """
        if restoring or self._task is asyncio.current_task():
            raise RestorationError(f"a restorer asks for {what}: it makes one entity, and references are connected when all are made")
        async with self._lock:
            self._task = asyncio.current_task()
            try:
                yield
            finally:
                self._task = None
