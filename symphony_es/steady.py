"""The time of this process: the wall clock's when the library was loaded, and from there on what has passed since.

Setting the wall clock moves it neither back nor forth; where the system tells, it goes on while the machine is suspended.
"""

from __future__ import annotations

import time
from functools import partial

__all__ = ["steady_ns"]

_passed_ns = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
_BEGAN_NS = time.time_ns() - _passed_ns()


def steady_ns() -> int:
    """Return the time, nanoseconds since 1970."""
    return _BEGAN_NS + _passed_ns()
