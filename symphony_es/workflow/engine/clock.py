"""Time as a seam: what the engine asks for the present moment, and waits with.

Moments that are stored (timers, deadlines, the next attempt) are UTC and of this clock, so they mean the same in the process that goes
on after a crash. `symphony_es.testing.ManualClock` is one that stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]

LONGEST_NAP_S = 30.0
"""A wait looks at the clock again after so many seconds: the wall clock may be set, and a suspended machine sleeps on."""


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        ...

    async def sleep_until(self, moment: datetime) -> None:
        """Returns when the moment has come; at once when it is past."""
        ...


class SystemClock:
    """The wall clock of this machine."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        return datetime.now(UTC)

    async def sleep_until(self, moment: datetime) -> None:
        """Returns when the moment has come; at once when it is past."""
        # Not an event to wait for: what is waited for is the wall clock.
        while (left_s := (moment - self.now()).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_s, LONGEST_NAP_S))
