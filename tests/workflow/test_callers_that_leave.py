"""A request to cancel that is on record is carried out, also where its caller is cut off: a client that hangs up, a time limit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext

undone: list[str] = []


async def reserve(context: RunContext) -> str:
    """Has an undo."""
    return "reserved"


async def refuse(context: RunContext) -> None:
    """Fails."""
    raise ValueError("refused")


async def release(context: RunContext) -> None:
    """An undo, or a clean-up, that is not done at once."""
    for _ in range(3):
        await asyncio.sleep(0)
    undone.append(context.step)


@pytest.fixture
async def symphony(tmp_path: Path) -> AsyncIterator[Symphony]:
    """A Symphony with those functions."""
    undone.clear()
    async with Symphony(tmp_path) as symphony:
        for function in (reserve, refuse, release):
            symphony.functions.register(function.__name__, function)
        yield symphony


def booking(fails: bool) -> dict[str, Any]:
    """A definition with something to undo and to clean up, which fails or waits."""
    last = {"kind": "function", "name": "last", "function": "refuse"} if fails else {"kind": "wait", "name": "last", "signal": "paid"}
    first = {"kind": "function", "name": "first", "function": "reserve", "undo": "release"}
    return {"name": "booking", "steps": [first, last], "cleanup": [{"kind": "function", "name": "after", "function": "release"}]}


async def run_in(symphony: Symphony, status: str) -> str:
    """The id of a run that has a status."""
    if status == "failed":
        return (await symphony.workflows.execute_workflow(booking(True), auto_checkpoint=False)).id
    handle = await symphony.workflows.start(booking(False), auto_checkpoint=False)
    while "last" not in handle.run.attempts:
        await asyncio.sleep(0)
    if status == "paused":
        await handle.pause()
        await handle.wait("paused")
    return handle.id


@pytest.mark.parametrize("turns", [1, 2, 4, 7, 12, 20, 35])
@pytest.mark.parametrize("status", ["running", "paused", "failed"])
async def test_a_cancel_whose_caller_is_cut_off(symphony: Symphony, status: str, turns: int) -> None:
    """The run is undone and cleaned up once, and is cancelled in this process, whenever its caller left."""
    run_id = await run_in(symphony, status)
    asking = asyncio.ensure_future(symphony.workflows.cancel(run_id))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    if (await symphony.workflows.get_run(run_id)).status == status:
        await symphony.workflows.cancel(run_id)
    run = await asyncio.wait_for(symphony.workflows.handle(run_id).wait("cancelled"), 10)
    assert run.status == "cancelled"
    assert undone == ["undo/first", "cleanup/after"]


async def test_closing_ends_what_such_a_caller_has_left(symphony: Symphony, tmp_path: Path) -> None:
    """A clean-up that goes on by itself is interrupted by a close, and the next process goes on with it."""
    run_id = await run_in(symphony, "paused")
    held = asyncio.Event()

    async def hangs(context: RunContext) -> None:
        undone.append("hangs")
        await held.wait()

    symphony.functions.register("release", hangs, replace=True)
    asking = asyncio.ensure_future(symphony.workflows.cancel(run_id))
    while "hangs" not in undone:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    await asyncio.wait_for(symphony.close(), 10)
    assert [task.get_name() for task in asyncio.all_tasks() if "of run" in task.get_name()] == []
    async with Symphony(tmp_path) as after:
        after.functions.register("release", release)
        after.functions.register("reserve", reserve)
        assert [run.status for run in await after.workflows.recover()] == ["cancelled"]
    assert undone == ["hangs", "undo/first", "cleanup/after"]
