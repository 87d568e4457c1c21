"""Runs branches beside each other as tasks of the event loop, and none is lost: all have ended when the call returns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from symphony_es.workflow.engine.bodies import StepsTask, unclosed
from symphony_es.workflow.engine.control import RunStopped

__all__ = ["AT_ONCE", "Stopped", "run_branches", "wait_for_end"]

B = TypeVar("B")

AT_ONCE = 1_000
"""Branches that are looked at in one turn of the event loop."""

_BEGUN_AT_ONCE = 100
"""Branches that begin in one turn of the event loop, so that others have theirs between them."""


async def wait_for_end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Return when all have ended, also when the waiting task is cancelled meanwhile, which takes effect then."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class Stopped(NamedTuple):
    """How branches have ended: the first failure, if any, and the addresses of the branches that were cancelled because of it."""

    failure: BaseException | None
    cancelled: list[str]


async def run_branches(
    branches: Mapping[str, B],
    run: Callable[[B], Coroutine[Any, Any, None]],
    max_concurrency: int | None,
    *,
    tolerate: type[Exception] | None = None,
) -> Stopped:
    """Run branches until all have ended.

    The first failure cancels the others, and those that wait for room never begin. A request to stop cancels none: each branch comes to
    its own boundary between steps. Costs the number of branches, however many fail.

    Args:
        branches: by address, in the order in which they begin.
        run: runs one of them.
        max_concurrency: how many at once; None for all.
        tolerate: a failure of this kind leaves the other branches alone and is not reported: it is on record.
    """
    waiting = iter(branches.items())
    room = max_concurrency or len(branches)
    running: dict[asyncio.Future[None], str] = {}
    ended: set[str] = set()
    finished: deque[asyncio.Future[None]] = deque()
    woken = asyncio.Event()
    failure: BaseException | None = None
    stop: BaseException | None = None
    cancelled: list[str] = []

    def note_end(task: asyncio.Future[None]) -> None:
        ended.add(running[task])
        finished.append(task)
        woken.set()

    def begin(address: str, branch: B) -> None:
        task: asyncio.Future[None] = StepsTask(unclosed(partial(run, branch), address))
        running[task] = address
        task.add_done_callback(note_end)

    try:
        while True:
            free = min(room - len(running), _BEGUN_AT_ONCE) if failure is None and stop is None else 0
            begun = list(islice(waiting, free))
            for address, branch in begun:
                begin(address, branch)
            if not running:
                break
            await (asyncio.sleep(0) if len(begun) == _BEGUN_AT_ONCE else woken.wait())
            woken.clear()
            while finished:
                task = finished.popleft()
                del running[task]
                error = None if task.cancelled() else task.exception()
                if isinstance(error, RunStopped):
                    stop = stop or error
                elif error is not None and not (tolerate is not None and isinstance(error, tolerate)) and failure is None:
                    failure = error
                    cancelled = [address for address in branches if address not in ended]
                    for other in running:
                        other.cancel()
    except BaseException:
        for task in running:
            task.cancel()
        try:
            await wait_for_end(list(running))
        finally:
            for task in running:
                if task.done() and not task.cancelled():
                    task.exception()
        raise
    return Stopped(failure or stop, cancelled)
