"""A call of a code-first workflow inside a transaction of its function would be on record with that: it is refused before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import gather, patched, run_workflow, sleep, sleep_until, step, step_with, wait_for_signal

CHILD: dict[str, Any] = {"name": "child", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}
RAN: list[str] = []


@entity
class Till:
    id: str = ""
    paid: int = 0


async def pay() -> int:
    RAN.append("pay")
    return 1


async def strand() -> int:
    return await step(pay)


CALLS: dict[str, Callable[[], Awaitable[Any]]] = {
    "step": lambda: step(pay),
    "atomic": lambda: step(pay, atomic=True),
    "step_with": lambda: step_with(retry=2)(pay),
    "sleep": lambda: sleep(0),
    "sleep_until": lambda: sleep_until(datetime.now(UTC)),
    "signal": lambda: wait_for_signal("go"),
    "child": lambda: run_workflow(CHILD),
    "gather": lambda: gather(strand(), strand()),
    "gather_of_steps": lambda: gather(step(pay), step(pay)),
    "empty_gather": gather,
}


@asynccontextmanager
async def inner(symphony: Symphony) -> AsyncIterator[None]:
    async with symphony.transaction("Outer"), symphony.transaction("Inner"):
        yield


@asynccontextmanager
async def outer(symphony: Symphony) -> AsyncIterator[None]:
    async with symphony.transaction("Outer"):
        async with symphony.transaction("Inner"):
            pass
        yield


@asynccontextmanager
async def recording(symphony: Symphony) -> AsyncIterator[None]:
    with symphony.world.recording("Recorded"):
        yield


@asynccontextmanager
async def behind_another(symphony: Symphony) -> AsyncIterator[None]:
    """The innermost block is one of another Symphony."""
    async with Symphony(persistence_enabled=False) as other, symphony.transaction("Outer"), other.transaction("Other"):
        yield


BLOCKS: dict[str, Callable[[Symphony], AbstractAsyncContextManager[Any]]] = {
    "transaction": lambda symphony: symphony.transaction("Paid"),
    "unnamed": lambda symphony: symphony.transaction(),
    "inner": inner,
    "outer": outer,
    "recording": recording,
    "behind_another": behind_another,
}


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


async def events_of(symphony: Symphony) -> list[str]:
    return [version.event.name for version in await symphony.history("Workflow:r")]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("when", ["there", "before"])
async def test_every_call_is_refused(symphony: Symphony, call: str, when: str) -> None:
    """Also one that was made before the transaction and is awaited in it; the run fails, and nothing else is on record."""

    @symphony.workflow
    async def order() -> None:
        made = CALLS[call]() if when == "before" else None
        async with symphony.transaction("Paid"):
            await (made or CALLS[call]())

    run = await symphony.workflows.execute_workflow(order, run_id="r", auto_checkpoint=False)
    assert (run.status, run.error and run.error["type"]) == ("failed", "ConfigurationError")
    assert run.error is not None
    assert "inside the transaction 'Paid'" in run.error["message"]
    assert "step(fn, atomic=True)" in run.error["message"]
    assert await events_of(symphony) == ["WorkflowCreated", "WorkflowStarted", "WorkflowFailed"]
    assert RAN == []


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("where", ["body", "strand"])
async def test_in_every_block_and_strand(symphony: Symphony, block: str, where: str) -> None:
    """Code that catches the error goes on, and what it calls behind the block is recorded; what the block changed is taken back."""
    till = symphony.entities.add(Till(id="t"))

    async def refused() -> int:
        with pytest.raises(ConfigurationError, match="inside the transaction"):
            async with BLOCKS[block](symphony):
                till.paid += 1
                await step(pay)
        return await step(pay)

    @symphony.workflow
    async def order() -> int:
        return sum(await gather(refused())) if where == "strand" else await refused()

    run = await symphony.workflows.execute_workflow(order, run_id="r", auto_checkpoint=False)
    assert (run.status, run.result, RAN, till.paid) == ("completed", 1, ["pay"], 0)
    assert list(run.outputs) == ["pay" if where == "body" else "gather/0/pay"]


async def test_what_was_refused_takes_no_place(symphony: Symphony) -> None:
    """The function runs again after a pause, and each call finds its own record."""

    @symphony.workflow
    async def order() -> int:
        first = await step(pay)
        with pytest.raises(ConfigurationError):
            async with symphony.transaction("Paid"):
                await step(pay)
        second = await step(pay)
        return first + second + await wait_for_signal("go")

    handle = await symphony.workflows.start(order, run_id="r")
    await waiting(handle.run)
    await symphony.workflows.pause("r")
    await symphony.workflows.signal("r", "go", 5)
    run = await symphony.workflows.resume("r")
    assert (run.status, run.result, RAN) == ("completed", 7, ["pay", "pay"])
    assert list(run.outputs) == ["pay", "pay#2", "wait go"]


async def waiting(run: Any) -> None:
    async with asyncio.timeout(30):
        while "wait go" not in run.attempts:
            await asyncio.sleep(0.005)


async def test_transactions_beside_calls_are_the_codes_own(symphony: Symphony) -> None:
    """Between two calls, inside a step, around an answer of `patched`, and those of another Symphony."""
    till = symphony.entities.add(Till(id="t"))

    async def paid() -> None:
        async with symphony.transaction("Paid"):
            till.paid += 1

    async with Symphony(persistence_enabled=False) as other:

        @symphony.workflow
        async def order() -> int:
            await step(pay)
            async with symphony.transaction("Between"):
                assert patched("new")
                till.paid += 1
            await step(paid)
            async with other.transaction("Other"):
                await step(pay)
            return await step(pay)

        async with symphony.transaction("Around"):  # of who starts the run, which it is no part of
            run = await symphony.workflows.execute_workflow(order, run_id="r", auto_checkpoint=False)
        assert (run.status, run.error, till.paid, RAN) == ("completed", None, 2, ["pay"] * 3)


async def test_clean_up_in_a_transaction_is_refused_too(symphony: Symphony) -> None:
    """A cancelled run whose `finally` calls a step inside a block: the step does not run, and its clean-up says why it failed."""

    @symphony.workflow
    async def order() -> None:
        try:
            await wait_for_signal("go")
        finally:
            async with symphony.transaction("Undone"):
                await step(pay)

    handle = await symphony.workflows.start(order, run_id="r")
    await waiting(handle.run)
    await symphony.workflows.cancel("r")
    assert RAN == []
    assert handle.run.error is not None
    assert (handle.run.status, handle.run.error["type"]) == ("cancelled", "ConfigurationError")
    assert "inside the transaction 'Undone'" in handle.run.error["message"]
