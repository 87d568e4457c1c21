"""`max_concurrent_runs`: so many runs execute at once, the others are queued, on record and in order, and say where they stand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import RunHandle, step

GO = {"name": "order", "steps": [{"kind": "wait", "name": "go", "signal": "go"}, {"kind": "function", "name": "note", "function": "note"}]}


def register(symphony: Symphony) -> list[str]:
    order: list[str] = []

    async def note(context: Any) -> str:
        order.append(context.run_id)
        return "done"

    symphony.functions.register("note", note)
    return order


async def started(symphony: Symphony, number: int, **options: Any) -> list[RunHandle]:
    return [await symphony.workflows.start(GO, run_id=f"r{index}", **options) for index in range(number)]


def standing(handles: list[RunHandle]) -> list[tuple[str, int | None]]:
    return [(handle.status.value, handle.queue_position) for handle in handles]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_runs_execute_in_the_order_in_which_they_were_started(symphony: Symphony, limit: int) -> None:
    """At no time are there more than the limit; positions count from 1 and go down."""
    order = register(symphony)
    symphony.workflows.max_concurrent_runs = limit
    handles = await started(symphony, 6)
    for gone in range(6):
        await asyncio.sleep(0)
        await handles[gone].signal("go")
        waiting = [handle for handle in handles[gone:] if handle.queue_position]
        assert len(handles) - gone - len(waiting) <= limit
        assert [handle.queue_position for handle in waiting] == list(range(1, len(waiting) + 1))
        assert [handle.id for handle in symphony.workflows.queue()] == [handle.id for handle in waiting]
        assert {handle.status for handle in waiting} <= {"queued"}
        assert await handles[gone].result() == "done"
    assert order == [handle.id for handle in handles]
    assert symphony.workflows.queue() == []


async def test_a_queued_run_is_on_record(reopen: Any) -> None:
    """When `start` returns; a crash keeps the queue and its order, and the next process's limit counts."""
    symphony = await reopen()
    register(symphony)
    symphony.workflows.max_concurrent_runs = 1
    await started(symphony, 4)
    assert [event.name for event in await symphony.log.read_entity("Workflow:r3")] == ["WorkflowCreated", "WorkflowQueued"]
    symphony = await reopen(max_concurrent_runs=2)
    order = register(symphony)
    report = await symphony.workflows.recover(wait=False)
    assert [handle.id for handle in report.handles] == ["r0", "r1", "r2", "r3"]
    while report.handles[1].run.started_at is None:
        await asyncio.sleep(0)
    assert [handle.id for handle in symphony.workflows.queue()] == ["r2", "r3"]
    for handle in report.handles:
        await handle.signal("go")
    assert [await handle.result() for handle in report.handles] == ["done"] * 4
    assert sorted(order[:2]) == ["r0", "r1"]
    assert order[2:] == ["r2", "r3"]


async def test_a_queued_run_can_be_cancelled_paused_and_signalled(symphony: Symphony) -> None:
    """It leaves the queue at once, whoever waits for it is told, and those behind it move up."""
    order = register(symphony)
    symphony.workflows.max_concurrent_runs = 1
    handles = await started(symphony, 5)
    waiter = asyncio.create_task(handles[3].wait())
    await handles[1].cancel()
    await handles[2].pause()
    await handles[2].wait("paused")
    assert standing(handles) == [("running", None), ("cancelled", None), ("paused", None), ("queued", 1), ("queued", 2)]
    for place in (0, 3, 4):
        await handles[place].signal("go")
    assert (await waiter).status == "completed"
    await symphony.workflows.start(handles[2].run)
    await handles[2].signal("go")
    assert await handles[2].result() == "done"
    assert order == ["r0", "r3", "r4", "r2"]


async def test_a_pause_that_is_taken_back_in_the_queue(symphony: Symphony) -> None:
    """It begins when it is its turn."""
    register(symphony)
    symphony.workflows.max_concurrent_runs = 1
    first, second = await started(symphony, 2)
    await second.pause()
    await symphony.workflows.start(second.run)
    for handle in (first, second):
        await handle.signal("go")
    assert await second.result() == "done"


@pytest.mark.parametrize("way", ["resume", "retry", "fork", "transaction"])
async def test_what_goes_on_waits_for_a_place_too(symphony: Symphony, way: str) -> None:
    """A paused run, a failed one, a fork, and one that begins with a transaction."""
    order = register(symphony)
    (old,) = await started(symphony, 1)
    await old.signal("go")
    await old.wait()
    symphony.workflows.max_concurrent_runs = 1
    first = await symphony.workflows.start(GO, run_id="first")
    if way == "resume":
        second = await symphony.workflows.start(GO, run_id="second")
        await second.pause()
        await second.wait("paused")
        await symphony.workflows.start(second.run)
    elif way == "retry":
        task = asyncio.create_task(symphony.workflows.retry_from(old.run, "note"))
        second = old
        while second.queue_position is None:
            await asyncio.sleep(0)
    elif way == "fork":
        second = await symphony.workflows.start(await symphony.workflows.fork(old.run, "note", run_id="second"))
    else:
        async with symphony.transaction("Placed"):
            second = await symphony.workflows.start(GO, run_id="second")
    for _ in range(10):
        await asyncio.sleep(0)
    assert second.queue_position == 1
    assert second.progress.queue_position == 1
    await first.signal("go")
    if way != "retry":
        await second.signal("go")
    else:
        await task
    await second.wait()
    assert order[-1] == second.id


def child_by_code(symphony: Symphony) -> Any:
    async def work() -> str:
        return "worked"

    @symphony.workflow
    async def inner() -> str:
        return await step(work)

    async def start_and_wait() -> str:
        return await (await symphony.workflows.start(inner)).result()

    async def execute() -> str:
        return (await symphony.workflows.execute_workflow(inner)).result

    async def follow() -> str:
        handle = await symphony.workflows.start(inner)
        async for _ in handle.events():
            pass
        return await handle

    async def several() -> str:
        handles = [await symphony.workflows.start(inner) for _ in range(3)]
        return (await asyncio.gather(*(handle.result() for handle in handles)))[0]

    return {"start_and_wait": start_and_wait, "execute": execute, "follow": follow, "several": several}


@pytest.mark.parametrize("way", ["start_and_wait", "execute", "follow", "several", "child"])
async def test_what_a_run_waits_for_needs_no_place(symphony: Symphony, way: str) -> None:
    """Child runs, and runs that a step starts and waits for, at a limit of one: nobody waits for ever."""
    symphony.workflows.max_concurrent_runs = 1
    ways = child_by_code(symphony)
    if way == "child":
        definition = {"name": "outer", "steps": [{"kind": "workflow", "name": "sub", "workflow_id": "inner"}]}
        run = await symphony.workflows.execute_workflow(definition)
        assert run.status == "completed", run.error
        return

    @symphony.workflow
    async def outer() -> str:
        return await step(ways[way])

    assert await (await symphony.workflows.start(outer)) == "worked"


async def test_a_deadline_passes_in_the_queue(symphony: Symphony) -> None:
    """The run fails of it, and does not wait for a place first; it has done nothing."""
    order = register(symphony)
    symphony.workflows.max_concurrent_runs = 1
    (first,) = await started(symphony, 1)
    late = await symphony.workflows.start(GO, run_id="late", deadline_s=0.01)
    await late.wait()
    assert (late.status, late.run.error["type"]) == ("failed", "DeadlineExceededError")  # type: ignore[index]
    assert (first.status, order) == ("running", [])


async def test_the_limit_can_be_changed(symphony: Symphony) -> None:
    """More lets in who waits; none lets all in; less lets those go on that execute. What is no number is refused."""
    register(symphony)
    symphony.workflows.max_concurrent_runs = 1
    handles = await started(symphony, 6)
    symphony.workflows.max_concurrent_runs = 3
    assert [handle.id for handle in symphony.workflows.queue()] == ["r3", "r4", "r5"]
    symphony.workflows.max_concurrent_runs = 2
    assert len(symphony.workflows.queue()) == 3
    symphony.workflows.max_concurrent_runs = None
    assert symphony.workflows.queue() == []
    for handle in handles:
        await handle.signal("go")
        assert await handle.result() == "done"
    for wrong in (0, -1, True, 1.5, "2"):
        with pytest.raises(ConfigurationError, match="max_concurrent_runs"):
            symphony.workflows.max_concurrent_runs = wrong  # type: ignore[assignment]
