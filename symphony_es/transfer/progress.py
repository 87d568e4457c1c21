"""Telling how far something has come, a few times a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable

from symphony_es.files.working import Stop, in_thread

__all__ = ["OnProgress", "Progress", "Stop", "in_thread"]

OnProgress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""

INTERVAL_S = 0.1


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
