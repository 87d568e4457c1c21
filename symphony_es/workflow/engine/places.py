"""Places: how many runs execute at once in this process, and the queue of those that wait for one.

Child runs take no place, and a run that another one waits for is let in at once: a run that waits never holds the place that what it waits
for needs.
"""

from __future__ import annotations

import asyncio

__all__ = ["Places"]


class Places:
    """Hands out places, first come, first served."""

    def __init__(self) -> None:
        self._limit: int | None = None
        self._taken: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @property
    def limit(self) -> int | None:
        """How many there are; None for no limit. More than before lets those in who wait."""
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self._limit = limit
        self._let_in()

    @property
    def queue(self) -> list[str]:
        """Ids of the runs that wait, the next one first."""
        return [run_id for run_id, place in self._waiting.items() if not place.done()]

    def is_free_after(self, others: int) -> bool:
        """Return whether there is a place for one more, behind so many that have not come yet."""
        return self._limit is None or (len(self._taken) + others < self._limit and not self.queue)

    def enter(self, run_id: str) -> asyncio.Future[None] | None:
        """Take a place; where none is free, return what is done when there is one."""
        if self.is_free_after(0):
            self._taken.add(run_id)
            return None
        place = self._waiting[run_id] = asyncio.get_running_loop().create_future()
        return place

    def leave(self, run_id: str) -> None:
        """Give a place back, or leave the queue; nothing happens where the run has neither."""
        self._waiting.pop(run_id, None)
        self._taken.discard(run_id)
        self._let_in()

    def let_in(self, run_id: str) -> None:
        """Let a run in whatever the limit says: another one, which may hold the last place, waits for it."""
        place = self._waiting.get(run_id)
        if place is not None:
            self._give(run_id, place)

    def _let_in(self) -> None:
        for run_id, place in list(self._waiting.items()):
            if self._limit is not None and len(self._taken) >= self._limit:
                return
            self._give(run_id, place)

    def _give(self, run_id: str, place: asyncio.Future[None]) -> None:
        del self._waiting[run_id]
        if not place.done():
            self._taken.add(run_id)
            place.set_result(None)
