"""Calls about a run that executes in the event loop of another thread: they are made there.

Tasks and events belong to the loop that they were made in, and another thread tells them nothing. A thread that has a portal asks a run for
something in a loop of its own, so what it asks is handed over, with the caller's context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from symphony_es.errors import RunInterruptedError

if TYPE_CHECKING:
    from symphony_es.workflow.engine.requests import RunRequests
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["in_loop", "where_it_executes"]

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound="RunRequests")

LOOK_S = 0.1
"""How often whoever waits for another loop looks whether it still runs."""


async def in_loop(loop: asyncio.AbstractEventLoop | None, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Make a call and await it, in the event loop of another thread where that runs, else in the caller's own.

    Raises:
        RunInterruptedError: that loop has ended meanwhile, and everything in it.
    """
    if loop is None or loop is asyncio.get_running_loop() or not loop.is_running():
        return await call()
    coroutine = call()
    try:
        there = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:  # it has been closed since
        coroutine.close()
        raise _has_ended() from None
    here = asyncio.wrap_future(there)
    try:
        while not (await asyncio.wait({here}, timeout=LOOK_S))[0]:
            if not loop.is_running():  # what is left in it tells nobody of its end
                raise _has_ended()
    except asyncio.CancelledError:
        here.cancel()
        raise
    if there.cancelled():
        raise _has_ended()
    return here.result()


def _has_ended() -> RunInterruptedError:
    return RunInterruptedError("the event loop that executes the run has ended; recover() goes on with it")


def where_it_executes(
    request: Callable[Concatenate[E, Workflow, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[E, Workflow, P], Coroutine[Any, Any, T]]:
    """Have a method of an engine that is about a run awaited in the event loop in which that executes."""

    @wraps(request)
    async def handed_over(engine: E, run: Workflow, /, *args: P.args, **kwargs: P.kwargs) -> T:
        active = engine.active.get(run)
        return await in_loop(None if active is None else active.task.get_loop(), partial(request, engine, run, *args, **kwargs))

    return handed_over
