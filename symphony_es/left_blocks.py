"""Blocks that one task has entered and another one has left: for whom they still count.

The event loop closes an asynchronous generator in a task of its own, and a streaming answer is read by another task than began it. The
context of the task that entered such a block cannot be put right from there, so whoever reads a block from its context asks here. Tasks
that were started inside the block belong to it: they keep what it says, and are told that it has ended. The task that entered it, and what
that one starts from then on, does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import Any

__all__ = ["LeftElsewhere", "runner"]


class LeftElsewhere:
    """For whom a block counts that has ended out of sight of the task or thread that entered it."""

    __slots__ = ("_entered_by", "_then")

    def __init__(self, entered_by: object) -> None:
        """End the block now; it was entered by what `runner` gave then."""
        self._entered_by: object = weakref.ref(entered_by) if isinstance(entered_by, asyncio.Task) else entered_by
        self._then: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        with contextlib.suppress(RuntimeError):  # no event loop runs in this thread: nobody can tell which tasks are older than this
            self._then.update(asyncio.all_tasks())

    def counts(self) -> bool:
        """Return whether what runs right now may have been started inside the block.

        A thread may have been, unless it entered the block.
        """
        task = runner()
        if isinstance(task, asyncio.Task):
            owner = self._entered_by() if isinstance(self._entered_by, weakref.ref) else self._entered_by
            return task is not owner and task in self._then
        return task != self._entered_by


def runner() -> object:
    """Return what runs right now: a task, or else a thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task if task is not None else threading.get_ident()
