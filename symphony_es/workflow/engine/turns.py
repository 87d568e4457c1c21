"""Turns: hundreds of runs that wake up at once share the event loop in small portions.

A commit may wake hundreds of runs in one iteration of the loop, and each then computes for a fraction of a millisecond; together they
would hold up everything else for longer than other tasks should wait. Whoever has a portion of work to do takes a turn first: in one
iteration only so many begin as fit into the budget, the others follow in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter

__all__ = ["Turns"]

BUDGET_S = 0.005
"""For how long portions begin before the next ones wait for another iteration, unless there has been one: at most twice that in any."""

RELEASED = 8
"""How many portions of those who wait are let go on in one iteration."""


class Turns:
    """Hands out turns, first come, first served."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._gone_round = True  # the loop, since then
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._scheduled = False

    async def take(self, portions: int = 1) -> None:
        """Return when there is room for work in the present iteration of the loop: a portion is what one step computes."""
        if not self._waiting and self._has_room():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((future, portions))
        self._schedule()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._schedule()  # its turn goes to the next one
            raise

    def _has_room(self) -> bool:
        now = perf_counter()
        if now - self._began < BUDGET_S:
            return True
        if not self._gone_round:
            return False
        # To be called in each iteration would cost each step one; once in a budget costs nothing.
        self._began, self._gone_round = now, False
        asyncio.get_running_loop().call_soon(self._note_round)
        return True

    def _note_round(self) -> None:
        self._gone_round = True

    def _schedule(self) -> None:
        if not self._scheduled and self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        self._scheduled = False
        self._gone_round = True
        if self._has_room():
            released = 0
            while self._waiting and released < RELEASED:
                future, portions = self._waiting.popleft()
                if not future.done():
                    future.set_result(None)
                    released += portions
        self._schedule()
