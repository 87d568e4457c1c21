"""What the application's code may raise: which of it is a failure of that code, and what is meant for others.

Whatever leaves the application's code is a failure of it, `SystemExit` and groups included, with two exceptions: a real cancellation, and
the `KeyboardInterrupt` of the main thread. A cancellation is real when somebody has asked the task for it.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

from symphony_es.raised import asks_the_program_to_end

__all__ = ["NobodysFailure", "has_failed", "is_current", "is_failure", "nobodys", "runs_now"]


class NobodysFailure(BaseException):
    """Raised and caught by the library, through code of the application: no failure of that."""


def nobodys(error: BaseException) -> NobodysFailure | None:
    """Return what is nobody's failure of an error, or of a group: code that opens an `asyncio.TaskGroup` raises groups. Else None."""
    if isinstance(error, NobodysFailure):
        return error
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for found in map(nobodys, inside) if found is not None), None)


def is_failure(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Return whether what has left the application's code is a failure of that code; called after its `Body`, where it has one.

    Args:
        error: what was raised.
        task: the task that ran the code, as it was when the code began: a coroutine that is closed ends while another one runs.
    """
    if task is not None and not is_current(task):
        return False
    if isinstance(error, Exception):
        return True
    if isinstance(error, asyncio.CancelledError):
        return task is not None and not task.cancelling()
    if isinstance(error, GeneratorExit):
        return task is not None and runs_now(task)
    return nobodys(error) is None and not asks_the_program_to_end(error)


def has_failed(error: BaseException) -> bool:
    """Return the same of code that awaits nothing, called by whatever runs: nobody can close it, and without a task nobody cancel it."""
    if isinstance(error, Exception | GeneratorExit):
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        task = None
    if isinstance(error, asyncio.CancelledError):
        return task is None or not task.cancelling()
    return nobodys(error) is None and not asks_the_program_to_end(error)


def is_current(task: asyncio.Task[Any]) -> bool:
    """Return whether the loop runs the task; not so where the garbage collector closes its coroutines, whatever runs at that moment."""
    return asyncio.current_task(task.get_loop()) is task


def runs_now(task: asyncio.Task[Any]) -> bool:
    """Return whether the task runs the calling code; not so where its coroutines are closed, which must not await anything then."""
    outermost = getattr(task.get_coro(), "cr_frame", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not outermost:
        frame = frame.f_back
    return frame is not None
