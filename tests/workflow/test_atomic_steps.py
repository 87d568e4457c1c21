"""Atomic steps that meet each other: an assignment cannot wait, so the step does; nothing fails, nothing is counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import EntityBusyError


@entity(type="AtomicAccount")
class Account:
    id: str = ""
    balance: int = 0
    booked: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    other: Any = None


TOUCHES: dict[str, Callable[[Account], None]] = {
    "a field": lambda account: setattr(account, "balance", account.balance + 1),
    "a list": lambda account: (account.booked.append("x"), setattr(account, "balance", account.balance + 1))[0],
    "a dict": lambda account: account.limits.update({"n": account.limits.get("n", 0) + 1}),
    "a reference": lambda account: (setattr(account, "other", account), setattr(account, "balance", account.balance + 1))[0],
}


class WrappedError(Exception):
    """What an application makes of every error."""


@asynccontextmanager
async def held_elsewhere(symphony: Symphony, account: Account) -> AsyncIterator[None]:
    """A transaction of another task has set the balance to 100, and stays open."""
    held, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with symphony.transaction("Held"):
            account.balance = 100
            held.set()
            await done.wait()

    holding = asyncio.create_task(hold())
    await held.wait()
    yield
    done.set()
    await holding


async def plainly(touch: Callable[[], None]) -> None:
    touch()


async def wrapped(touch: Callable[[], None]) -> None:
    try:
        touch()
    except Exception as error:
        raise WrappedError("cannot book") from error


async def in_a_group(touch: Callable[[], None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(plainly(touch))


async def in_a_thread(touch: Callable[[], None]) -> None:
    await asyncio.to_thread(touch)


HOW: dict[str, Callable[[Callable[[], None]], Awaitable[None]]] = {
    "plainly": plainly, "wrapped": wrapped, "in a group": in_a_group, "in a thread": in_a_thread,
}  # fmt: skip


def total(account: Any) -> int:
    """Of a live account, or of a state."""
    read = account if isinstance(account, dict) else vars(account)
    return int(read["balance"] or read["limits"].get("n", 0))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("beside", ["branches of one run", "runs"])
async def test_atomic_steps_wait_for_each_other(symphony: Symphony, beside: str, touch: str, how: str) -> None:
    """Ten of them on one entity: each is done once, in one attempt with one key, and none fails."""
    account = symphony.entities.add(Account(id="a"))
    keys: list[str] = []

    async def book(context: Any) -> None:
        keys.append(context.idempotency_key)
        await HOW[how](lambda: TOUCHES[touch](account))
        for _ in range(3):
            await asyncio.sleep(0)

    symphony.functions.register("book", book)
    step = {"kind": "function", "function": "book", "atomic": True}
    if beside == "runs":
        definition = {"name": "w", "steps": [{**step, "name": "b"}]}
        runs = await asyncio.gather(*(symphony.workflows.execute_workflow(definition, auto_checkpoint=False) for _ in range(10)))
    else:
        definition = {"name": "w", "steps": [{"kind": "parallel", "name": "p", "branches": [{**step, "name": f"b{n}"} for n in range(10)]}]}
        runs = [await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)]
    assert [run.error for run in runs] == [None] * len(runs)
    assert total(account) == 10
    assert len(set(keys)) == 10
    assert all(attempts == 1 for run in runs for attempts in run.attempts.values())
    assert not [event async for page in symphony.log.read() for event in page if event.name == "WorkflowStepFailed"]
    assert total((await symphony.at("latest")).get("AtomicAccount:a")) == 10


async def test_two_that_need_the_same_two_in_different_orders_both_end(symphony: Symphony) -> None:
    """What is waited for is claimed in one order by all: no circle."""
    accounts = [symphony.entities.add(Account(id=name)) for name in "ab"]

    async def move(context: Any) -> None:
        order = accounts if context.inputs["order"] == "ab" else accounts[::-1]
        for account in order:
            account.balance += 1
            for _ in range(5):
                await asyncio.sleep(0)

    symphony.functions.register("move", move)
    step = {"kind": "function", "function": "move", "atomic": True}
    branches = [{**step, "name": f"m{n}", "inputs": {"order": "ab" if n % 2 else "ba"}} for n in range(8)]
    definition = {"name": "w", "steps": [{"kind": "parallel", "name": "p", "branches": branches}]}
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert run.error is None
    assert [account.balance for account in accounts] == [8, 8]


async def test_a_transaction_of_the_application_is_waited_for(symphony: Symphony) -> None:
    """The step goes on when the block has ended, and sees what it has done; what the step did before it met it is taken back."""
    account, mine = symphony.entities.add(Account(id="a")), symphony.entities.add(Account(id="m"))
    met = asyncio.Event()
    seen: list[tuple[int, int]] = []

    async def book(context: Any) -> None:
        seen.append((account.balance, mine.balance))
        mine.balance += 1
        met.set()
        account.balance += 1

    symphony.functions.register("book", book)
    definition = {"name": "w", "steps": [{"kind": "function", "name": "b", "function": "book", "atomic": True}]}
    async with held_elsewhere(symphony, account):
        handle = await symphony.workflows.start(definition)
        await met.wait()
        for _ in range(5):
            await asyncio.sleep(0)
    await handle.result()
    assert seen == [(100, 0), (100, 0)]
    assert (account.balance, mine.balance) == (101, 1)


async def test_a_step_that_is_not_atomic_is_told_at_once(symphony: Symphony) -> None:
    """It has no changes that could be taken back, so it fails, as its retry policy says."""
    account = symphony.entities.add(Account(id="a"))

    async def book(context: Any) -> None:
        account.balance += 1

    symphony.functions.register("book", book)
    definition = {"name": "w", "steps": [{"kind": "function", "name": "b", "function": "book"}]}
    async with held_elsewhere(symphony, account):
        handle = await symphony.workflows.start(definition)
        run = await handle.wait()
    assert run.error is not None
    assert run.error["type"] == EntityBusyError.__name__


async def test_a_wait_can_be_cancelled(symphony: Symphony) -> None:
    """A run whose atomic step waits for a block is cancelled at once, and nothing of it is left."""
    account = symphony.entities.add(Account(id="a"))
    calls = 0

    async def book(context: Any) -> None:
        nonlocal calls
        calls += 1
        account.balance += 1

    symphony.functions.register("book", book)
    definition = {"name": "w", "steps": [{"kind": "function", "name": "b", "function": "book", "atomic": True}]}
    async with held_elsewhere(symphony, account):
        handle = await symphony.workflows.start(definition)
        while not calls:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.create_task(symphony.workflows.cancel(handle.run.id, grace_s=0))
    assert handle.run.status == "cancelled"
    assert (account.balance, calls) == (100, 1)
