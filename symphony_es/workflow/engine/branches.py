"""Runs branches beside each other as tasks of the event loop, and none is lost: all have ended when the call returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from symphony_es.workflow.engine.bodies import StepsTask, unclosed
from symphony_es.workflow.engine.control import RunStopped

__all__ = ["Stopped", "run_branches", "wait_for_end"]

B = TypeVar("B")


async def wait_for_end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Returns when all have ended, also when the waiting task is cancelled meanwhile, which takes effect then."""
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
    run: Callable[[B], Awaitable[None]],
    max_concurrency: int | None,
    *,
    tolerate: type[Exception] | None = None,
) -> Stopped:
    """Runs branches until all have ended.

    The first failure cancels the others. A request to stop does not: each branch comes to its own boundary between steps.

    Args:
        branches: by address, in the order in which they begin.
        run: runs one of them.
        max_concurrency: how many at once; None for all.
        tolerate: a failure of this kind leaves the other branches alone and is not reported: it is on record.
    """
    room = asyncio.Semaphore(max_concurrency or max(len(branches), 1))

    async def one(branch: B) -> None:
        async with room:
            await run(branch)

    tasks: dict[asyncio.Future[None], str] = {StepsTask(unclosed(one(branch), address)): address for address, branch in branches.items()}
    pending = set(tasks)
    failure: BaseException | None = None
    stop: BaseException | None = None
    cancelled: list[str] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                error = None if task.cancelled() else task.exception()
                if isinstance(error, RunStopped):
                    stop = stop or error
                elif error is not None and not (tolerate is not None and isinstance(error, tolerate)) and failure is None:
                    failure = error
                    cancelled = [tasks[other] for other in tasks if not other.done()]
                    for other in pending:
                        other.cancel()
    except BaseException:
        for task in pending:
            task.cancel()
        try:
            await wait_for_end(tasks)
        finally:
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        raise
    return Stopped(failure or stop, cancelled if failure is not None else [])
