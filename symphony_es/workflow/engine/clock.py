"""Time as a seam: what the engine asks for the present moment, and waits with.

Moments that are stored (timers, deadlines, the next attempt) are UTC and of this clock, so they mean the same in the process that goes
on after a crash. `symphony_es.testing.ManualClock` is one that stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from symphony_es.errors import ConfigurationError
from symphony_es.shown import shown
from symphony_es.steady import steady_ns

__all__ = ["Clock", "SteadyClock", "SystemClock", "checked_clock"]

LONGEST_NAP_S = 30.0
"""A wait looks at the clock again after so many seconds: it may have been set, and a suspended machine sleeps on."""


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> datetime:
        """Return the present moment, UTC."""
        ...

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the moment has come; at once when it is past."""
        ...


def checked_clock(clock: Any) -> Clock:
    """Return a clock of the application's, which tells a moment that timers can go by.

    Raises:
        ConfigurationError: it is no clock, or tells something else.
    """
    how = "a clock has now(), which gives the present moment with its time zone, and an async sleep_until(moment)"
    if isinstance(clock, type) or not all(callable(getattr(clock, name, None)) for name in ("now", "sleep_until")):
        raise ConfigurationError(f"clock={shown(clock)} is no clock: {how}, as symphony_es.testing.ManualClock does")
    now = clock.now()
    if not isinstance(now, datetime) or now.utcoffset() is None:
        if asyncio.iscoroutine(now):
            now.close()
        raise ConfigurationError(f"clock={shown(clock)}: its now() gives {shown(now)}: {how}")
    found: Clock = clock
    return found


class SystemClock:
    """The time of this process; setting the machine's clock moves no timer of it.

    Between two processes the machine's clock counts: one that was set forward, or a machine that stood still, is time that has passed; one
    that was set back goes on from the last event of the log.

    Args:
        last_event_ns: when the last event of the log was appended, nanoseconds since 1970; it is never before that.
        clock_ns: the time of this process.
    """

    def __init__(self, last_event_ns: int = 0, clock_ns: Callable[[], int] = steady_ns) -> None:
        self._clock_ns = clock_ns
        self._ahead_ns = max(0, last_event_ns - clock_ns())

    def now(self) -> datetime:
        """Return the present moment, UTC."""
        seconds, rest = divmod(self._clock_ns() + self._ahead_ns, 1_000_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the moment has come; at once when it is past."""
        # Not an event to wait for: what is waited for is the clock.
        while (left_s := (moment - self.now()).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_s, LONGEST_NAP_S))


class SteadyClock:
    """A clock of the application's, but that it goes on from where it was when it is set back. Its other names are the clock's own.

    Args:
        clock: the clock.
        monotonic: what passes meanwhile, in seconds.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._inner = clock
        self._monotonic = monotonic
        self._ahead = timedelta(0)
        self._last: tuple[datetime, float] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def now(self) -> datetime:
        """Return the present moment, UTC."""
        shown, at = self._inner.now() + self._ahead, self._monotonic()
        if self._last is not None and shown < self._last[0]:
            right = self._last[0] + timedelta(seconds=at - self._last[1])
            self._ahead += right - shown
            shown = right
        self._last = shown, at
        return shown

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the moment has come; at once when it is past."""
        while (left_s := (moment - self.now()).total_seconds()) > 0:
            ahead = self._ahead
            sleeping = asyncio.ensure_future(self._inner.sleep_until(moment - ahead))
            try:
                while ahead == self._ahead and left_s > 0 and not sleeping.done():
                    await asyncio.wait({sleeping}, timeout=min(left_s, LONGEST_NAP_S))
                    left_s = (moment - self.now()).total_seconds()
            finally:
                sleeping.cancel()
