"""`start` inside a transaction is part of it: what is rolled back leaves no run, and what is committed begins after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import DeadlockError, EntityExistsError, IllegalTransitionError, LogUnavailableError, TransactionEndedError
from symphony_es.workflow import RunHandle, step


@entity(type="StartOrder")
class Order:
    id: str = ""
    state: str = "new"


@pytest.fixture
def charged(symphony: Symphony) -> list[str]:
    """Which orders were charged."""
    orders: list[str] = []

    async def charge(context: Any) -> str:
        orders.append(context["order"])
        return "receipt"

    symphony.functions.register("charge", charge)
    return orders


CHARGE = {"name": "order", "steps": [{"kind": "function", "name": "charge", "function": "charge"}]}

Start = Callable[[Symphony, str], Awaitable[RunHandle]]


async def plain(symphony: Symphony, run_id: str) -> RunHandle:
    return await symphony.workflows.start(CHARGE, {"order": run_id}, run_id=run_id)


async def in_a_block_inside(symphony: Symphony, run_id: str) -> RunHandle:
    async with symphony.transaction("Inner"):
        return await plain(symphony, run_id)


async def in_a_task(symphony: Symphony, run_id: str) -> RunHandle:
    return await asyncio.create_task(plain(symphony, run_id))


async def in_a_group(symphony: Symphony, run_id: str) -> RunHandle:
    async with asyncio.TaskGroup() as group:
        begun = group.create_task(plain(symphony, run_id))
    return begun.result()


async def from_a_thread(symphony: Symphony, run_id: str) -> RunHandle:
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(plain(symphony, run_id), loop).result())


async def acting(symphony: Symphony, run_id: str) -> RunHandle:
    with symphony.acting_as("bob"):
        return await plain(symphony, run_id)


async def a_function(symphony: Symphony, run_id: str) -> RunHandle:
    if "ordering" not in symphony.workflows.by_name:

        @symphony.workflow
        async def ordering(order: str) -> str:
            charge: Any = symphony.functions.get("charge")
            await step(charge, {"order": order})
            return "receipt"

    return await symphony.workflows.start("ordering", {"order": run_id}, run_id=run_id)


async def safe_to_repeat(symphony: Symphony, run_id: str) -> RunHandle:
    handles = [await symphony.workflows.start(CHARGE, {"order": run_id}, run_id=run_id, if_exists="return") for _ in range(3)]
    assert len({id(handle.run) for handle in handles}) == 1
    return handles[0]


WAYS: list[Start] = [plain, in_a_block_inside, in_a_task, in_a_group, from_a_thread, acting, a_function, safe_to_repeat]


@pytest.mark.parametrize("start", WAYS)
async def test_committed_it_begins_after_the_commit(symphony: Symphony, charged: list[str], start: Start) -> None:
    """Nothing of it runs in the block; its events share the transaction with the order's, and it is one run."""
    async with symphony.transaction("OrderPlaced") as placed:
        symphony.entities.add(Order(id="1"))
        handle = await start(symphony, "r")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not charged
        assert handle.status == "running"
    assert await handle.result() == "receipt"
    assert charged == ["r"]
    events = await symphony.log.read_entity("Workflow:r")
    assert [event.name for event in events[:3]] == ["WorkflowCreated", "WorkflowStarted", "WorkflowStepStarted"]
    order = (await symphony.log.read_entity("StartOrder:1"))[0]
    assert {event.transaction_id for event in events[:2]} == {order.transaction_id}
    assert events[1].position <= placed.position < events[2].position  # type: ignore[operator]


@pytest.mark.parametrize("start", WAYS)
async def test_rolled_back_it_leaves_no_run(symphony: Symphony, charged: list[str], start: Start) -> None:
    """Nothing is charged, nothing is on record, who waits is told, and the id is free for the next one."""
    with pytest.raises(RuntimeError, match="sold out"):
        async with symphony.transaction("OrderPlaced"):
            symphony.entities.add(Order(id="1"))
            handle = await start(symphony, "r")
            raise RuntimeError("sold out")
    with pytest.raises(TransactionEndedError, match="never began"):
        await handle.result()
    with pytest.raises(TransactionEndedError, match="never began"):
        await handle.wait()
    assert (charged, await symphony.workflows.get_all_runs()) == ([], [])
    assert await symphony.log.read_entity("Workflow:r") == []
    assert await (await start(symphony, "r")).result() == "receipt"
    assert charged == ["r"]


@pytest.mark.parametrize("start", [plain, in_a_task, safe_to_repeat])
async def test_an_inner_block_alone_can_be_rolled_back(symphony: Symphony, charged: list[str], start: Start) -> None:
    """Its run never begins; the other one of the outer block does, also with the same id."""
    async with symphony.transaction("OrderPlaced"):
        with pytest.raises(RuntimeError):
            async with symphony.transaction("Tried"):
                lost = await start(symphony, "r")
                raise RuntimeError
        kept = await start(symphony, "r")
    assert await kept.result() == "receipt"
    with pytest.raises(TransactionEndedError):
        await lost.result()
    assert charged == ["r"]


async def test_a_commit_that_fails_leaves_no_run(symphony: Symphony, charged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The block has ended well, and the log could not append it."""

    def refuse(*_: Any, **__: Any) -> None:
        raise LogUnavailableError("the disk is full")

    with monkeypatch.context() as patched, pytest.raises(LogUnavailableError):
        async with symphony.transaction("OrderPlaced"):
            handle = await plain(symphony, "r")
            patched.setattr(symphony.world.outbox, "submit_transaction", refuse)
    with pytest.raises(TransactionEndedError):
        await handle.result()
    assert (charged, await symphony.workflows.get_all_runs()) == ([], [])


async def test_many_runs_of_one_transaction(symphony: Symphony, charged: list[str]) -> None:
    """All begin, in order, and all of a rolled back one do not."""
    async with symphony.transaction("Batch"):
        handles = [await plain(symphony, f"r{number}") for number in range(20)]
    await asyncio.gather(*(handle.result() for handle in handles))
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Batch"):
            for number in range(20, 40):
                await plain(symphony, f"r{number}")
            _ = 1 / 0
    assert sorted(charged) == sorted(f"r{number}" for number in range(20))
    assert symphony.workflows.handle("r0").status == "completed"
    assert not symphony.registry.get("workflow_engine").active.ids


async def test_a_crash_after_the_commit(reopen: Any) -> None:
    """The run is on record as running, so that `recover` drives it: the charge is made, once."""
    symphony = await reopen()
    charged = register(symphony)
    async with symphony.transaction("OrderPlaced"):
        symphony.entities.add(Order(id="1"))
        handle = await plain(symphony, "r")
    await symphony.registry.get("workflow_engine").interrupt([handle.id])
    assert not charged
    symphony = await reopen()
    charged = register(symphony)
    report = await symphony.workflows.recover(wait=False)
    assert [each.id for each in report.handles] == ["r"]
    assert await report.handles[0].result() == "receipt"
    assert charged == ["r"]


def register(symphony: Symphony) -> list[str]:
    orders: list[str] = []

    async def charge(context: Any) -> str:
        orders.append(context["order"])
        return "receipt"

    symphony.functions.register("charge", charge)
    return orders


async def test_what_cannot_wait_in_the_block_says_so(symphony: Symphony, charged: list[str]) -> None:
    """Waiting for a run that begins after the block would never end: errors come at once, and the run begins all the same."""
    async with symphony.transaction("OrderPlaced"):
        handle = await plain(symphony, "r")
        for waiting in (handle.result, handle.wait, handle.__await__().__next__):
            with pytest.raises(DeadlockError, match="after that"):
                found: Any = waiting()
                await found
        with pytest.raises(DeadlockError):
            async for _ in handle.events():
                raise AssertionError
        for asking in (handle.pause, handle.cancel, handle.resume):
            with pytest.raises(IllegalTransitionError, match="transaction"):
                await asking()
        waiter = asyncio.create_task(handle.result())  # beside the block, which does not wait for it
    assert await waiter == await handle.result() == "receipt"


async def test_a_signal_is_part_of_the_block(symphony: Symphony) -> None:
    """It is there when the run begins."""
    definition = {"name": "wait", "steps": [{"kind": "wait", "name": "paid", "signal": "paid"}]}
    async with symphony.transaction("OrderPlaced"):
        handle = await symphony.workflows.start(definition, run_id="r")
        await handle.signal("paid", 5)
    assert await handle.result() == 5
    assert [event.name for event in await symphony.log.read_entity("Workflow:r")][:3] == [
        "WorkflowCreated",
        "WorkflowStarted",
        "WorkflowSignalReceived",
    ]


@pytest.mark.parametrize("ends", ["well", "rolled back"])
async def test_a_run_that_goes_on_in_a_block(symphony: Symphony, charged: list[str], ends: str) -> None:
    """A fork that is made and started in one, and a paused run that is started again, are part of it as well."""
    first = await plain(symphony, "r")
    await first.wait()
    handle = None
    try:
        async with symphony.transaction("Again"):
            fork = await symphony.workflows.fork("r", "charge", {"order": "fork"}, run_id="f")
            handle = await symphony.workflows.start(fork)
            if ends != "well":
                raise RuntimeError
    except RuntimeError:
        with pytest.raises(TransactionEndedError):
            await handle.result()  # type: ignore[union-attr]
        assert charged == ["r"]
    else:
        assert await handle.result() == "receipt"
        assert charged == ["r", "fork"]


async def test_a_paused_run_that_is_taken_back(symphony: Symphony) -> None:
    """It is paused again, and whoever waits for it is told that it does not go on."""
    definition = {"name": "wait", "steps": [{"kind": "wait", "name": "paid", "signal": "paid"}]}
    run = (await symphony.workflows.start(definition, run_id="r")).run
    await symphony.workflows.pause(run)
    await symphony.workflows.handle(run).wait("paused")
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Again"):
            handle = await symphony.workflows.start(run)
            _ = 1 / 0
    assert run.status == "paused"
    with pytest.raises(TransactionEndedError):
        await handle.result()
    await symphony.workflows.signal(run, "paid", 1)
    assert await (await symphony.workflows.start(run)).result() == 1


async def test_another_call_waits_for_the_transaction(symphony: Symphony, charged: list[str]) -> None:
    """The same id, `if_exists="return"`: where the block is rolled back, it starts its own run."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def lost() -> None:
        async with symphony.transaction("OrderPlaced"):
            await plain(symphony, "r")
            entered.set()
            await leave.wait()
            raise RuntimeError

    losing = asyncio.create_task(lost())
    await entered.wait()
    with pytest.raises(EntityExistsError):
        await plain(symphony, "r")
    other = asyncio.create_task(safe_to_repeat(symphony, "r"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not other.done()
    assert (await symphony.workflows.recover(wait=False)).handles == []  # it is not on record
    leave.set()
    with pytest.raises(RuntimeError):
        await losing
    assert await (await other).result() == "receipt"
    assert charged == ["r"]


async def test_an_atomic_step_starts_runs_with_its_completion(symphony: Symphony, charged: list[str]) -> None:
    """A failed attempt leaves none, so that the next one can take the same id."""
    attempts = []

    async def place(context: Any) -> str:
        attempts.append(await plain(symphony, "child"))
        if len(attempts) == 1:
            raise ConnectionError("once")
        return "placed"

    symphony.functions.register("place", place)
    outer = {
        "name": "outer",
        "steps": [{"kind": "function", "name": "place", "function": "place", "atomic": True, "retry": {"max_attempts": 2, "delay_s": 0}}],
    }
    assert (await symphony.workflows.execute_workflow(outer)).result == "placed"
    assert await attempts[1].result() == "receipt"
    assert charged == ["child"]


@pytest.mark.parametrize("fails", [True, False])
async def test_a_task_that_outlives_the_block(symphony: Symphony, charged: list[str], fails: bool) -> None:
    """It belongs to a transaction that has ended, and starts nothing in its name."""
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        await plain(symphony, "r")

    try:
        async with symphony.transaction("OrderPlaced"):
            symphony.entities.add(Order(id="1"))
            task = asyncio.create_task(later())
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    go.set()
    with pytest.raises(TransactionEndedError):
        await task
    assert charged == []


async def test_what_finds_a_place_is_not_queued(symphony: Symphony, charged: list[str]) -> None:
    """Of several runs that begin with one transaction, those are queued for which there is no place: the places are counted once each."""
    symphony.workflows.max_concurrent_runs = 2
    async with symphony.transaction("Placed"):
        handles = [await plain(symphony, f"o{number}") for number in range(4)]
        assert [handle.status for handle in handles] == ["running", "running", "queued", "queued"]
    assert [await handle.result() for handle in handles] == ["receipt"] * 4
    named = [[event.name for event in await symphony.log.read_entity(f"Workflow:o{number}")] for number in range(4)]
    assert ["WorkflowQueued" in names for names in named] == [False, False, True, True]
    assert charged == ["o0", "o1", "o2", "o3"]


async def test_a_place_that_is_taken_before_the_commit(symphony: Symphony, charged: list[str]) -> None:
    """Whoever began meanwhile has it: the run of the transaction waits for the next one, and there are never more than the limit."""
    symphony.workflows.max_concurrent_runs = 1
    waits = {"name": "waits", "steps": [{"kind": "wait", "name": "go", "signal": "go"}]}
    inside, outside = asyncio.Event(), asyncio.Event()

    async def another() -> RunHandle:  # a task of its own, made before: it is no part of the transaction
        await inside.wait()
        handle = await symphony.workflows.start(waits, run_id="beside")
        outside.set()
        return handle

    task = asyncio.create_task(another())
    async with symphony.transaction("Placed"):
        handle = await plain(symphony, "o1")
        assert handle.status == "running"
        inside.set()
        await outside.wait()
    other = await task
    while handle.status == "running":
        await asyncio.sleep(0)
    assert (handle.status, handle.queue_position, charged) == ("queued", 1, [])
    await other.signal("go")
    assert await handle.result() == "receipt"
