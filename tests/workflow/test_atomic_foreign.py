"""Atomic steps and objects that do not track themselves: what a step is handed is its own, is put back with it, and is changed once."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import attrs
import pydantic
import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import EntityBusyError, NotTakenBackError, TransactionEndedError
from symphony_es.workflow import step, step_context


class PydanticTill(pydantic.BaseModel):
    id: str
    open: int = 0
    lines: list[str] = []


@dataclass
class DataclassTill:
    id: str
    open: int = 0


@attrs.define
class AttrsTill:
    id: str
    open: int = 0


class PlainTill:
    def __init__(self, id: str, open: int = 0) -> None:
        self.id = id
        self.open = open


@entity(type="AtomicTillBoard")
class Board:
    id: str = ""
    n: int = 0


KINDS = [PydanticTill, DataclassTill, AttrsTill, PlainTill]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def handed(symphony: Symphony, kind: type[Any], how: str = "get") -> Any:
    """The till, as a step is given it."""
    key = f"{kind.__name__}:c"
    if how == "get":
        return symphony.entities.get(key)
    if how == "find":
        return symphony.entities.find(kind, "c")
    if how == "all":
        return symphony.entities.all(kind)[0]
    return symphony.entities[key]


HOW = ["get", "find", "all", "item"]


async def prepared(symphony: Symphony, kind: type[Any]) -> Any:
    symphony.entities.add(Board(id="b"))
    till = symphony.entities.add(kind(id="c"))
    await symphony.flush()
    return till


async def stored(symphony: Symphony, kind: type[Any]) -> int:
    """What the log has, which the object in hand has as well."""
    await symphony.flush()
    found: int = (await symphony.at("latest")).get(f"{kind.__name__}:c")["open"]
    assert symphony.entities.get(f"{kind.__name__}:c").open == found
    return found


async def run_all(symphony: Symphony, take: Any, count: int) -> list[Any]:
    """Runs beside each other of one atomic step."""
    symphony.functions.register("take", take, replace=True)
    definition = symphony.build_workflow("test-tills").add_function("take", "take", atomic=True).build()
    return await asyncio.gather(*(symphony.workflows.execute_workflow(definition, auto_checkpoint=False) for _ in range(count)))


@asynccontextmanager
async def beside(symphony: Symphony, work: Any) -> AsyncIterator[asyncio.Event]:
    """Another task has done something in a transaction, which stays open until the block's end, or the event is set."""
    begun, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with symphony.transaction("Beside"):
            work()
            begun.set()
            await done.wait()

    holding = asyncio.create_task(hold())
    await begun.wait()
    yield done
    done.set()
    await holding


@pytest.mark.parametrize("how", HOW)
async def test_an_entity_that_another_step_has_changes_nothing_twice(symphony: Symphony, kind: type[Any], how: str) -> None:
    """The step meets the board after it has changed the till: both are taken back, and are changed once when it runs again."""
    await prepared(symphony, kind)

    async def take(context: Any) -> None:
        handed(symphony, kind, how).open += 1
        await asyncio.sleep(0)
        symphony.entities.get("AtomicTillBoard:b").n += 1

    runs = await run_all(symphony, take, 5)
    assert [run.status.value for run in runs] == ["completed"] * 5
    assert all(run.attempts["take"] == 1 for run in runs)
    assert symphony.entities.get("AtomicTillBoard:b").n == await stored(symphony, kind) == 5
    booked = [version.event.metadata.run_id for version in (await symphony.history(f"{kind.__name__}:c"))[1:]]
    assert sorted(booked, key=str) == sorted(run.id for run in runs)


@pytest.mark.parametrize("cause", ["failure", "timeout"])
async def test_what_failed_is_not_there_when_it_is_tried_again(symphony: Symphony, kind: type[Any], cause: str) -> None:
    await prepared(symphony, kind)

    async def take() -> None:
        handed(symphony, kind).open += 1
        await asyncio.sleep(0.02)
        if step_context().attempt == 1:
            if cause == "failure":
                raise ConnectionError("again")
            await asyncio.sleep(30)

    @symphony.workflow
    async def tills() -> None:
        await step(take, atomic=True, retry={"max_attempts": 3, "delay_s": 0.01}, timeout_s=0.5)

    runs = await asyncio.gather(*(symphony.workflows.execute_workflow(tills) for _ in range(3)))
    assert [run.status.value for run in runs] == ["completed"] * 3
    assert await stored(symphony, kind) == 3


async def test_a_step_that_fails_for_good_leaves_nothing(symphony: Symphony, kind: type[Any]) -> None:
    till = await prepared(symphony, kind)

    async def take(context: Any) -> None:
        handed(symphony, kind).open += 1
        raise ValueError("no")

    runs = await run_all(symphony, take, 4)
    assert [run.status.value for run in runs] == ["failed"] * 4
    assert await stored(symphony, kind) == till.open == 0


@pytest.mark.parametrize("how", HOW)
async def test_no_update_of_twenty_is_lost(symphony: Symphony, kind: type[Any], how: str) -> None:
    """Each reads, awaits, and writes what it has read and one more."""
    await prepared(symphony, kind)

    async def take(context: Any) -> None:
        till = handed(symphony, kind, how)
        read = till.open
        await asyncio.sleep(0.001)
        till.open = read + 1

    runs = await run_all(symphony, take, 20)
    assert [run.status.value for run in runs] == ["completed"] * 20
    assert await stored(symphony, kind) == 20


async def test_no_update_of_threads_is_lost(symphony: Symphony, kind: type[Any]) -> None:
    await prepared(symphony, kind)

    def take(context: Any) -> None:
        till = handed(symphony, kind)
        read = till.open
        time.sleep(0.001)
        till.open = read + 1

    await run_all(symphony, take, 8)
    assert await stored(symphony, kind) == 8


@pytest.mark.parametrize("what", ["reads", "changes", "changes the board"])
async def test_a_transaction_that_was_handed_it_is_waited_for(symphony: Symphony, kind: type[Any], what: str) -> None:
    """Whether it has changed it or may still do so; the step begins when that has ended, and sees what it did."""
    await prepared(symphony, kind)
    seen: list[int] = []

    def hold() -> None:
        till = handed(symphony, kind)
        if what == "changes":
            till.open += 10
        if what == "changes the board":
            symphony.entities.get("AtomicTillBoard:b").n += 10

    async def take(context: Any) -> None:
        till = handed(symphony, kind)
        seen.append(till.open)
        till.open += 1
        symphony.entities.get("AtomicTillBoard:b").n += 1

    async with beside(symphony, hold):
        running = asyncio.create_task(run_all(symphony, take, 2))
        await asyncio.sleep(0.05)
        assert seen == []
    runs = await running
    assert [run.status.value for run in runs] == ["completed"] * 2
    assert await stored(symphony, kind) == (12 if what == "changes" else 2)


async def test_who_comes_after_the_step_is_not_waited_for_and_loses_nothing(symphony: Symphony, kind: type[Any]) -> None:
    """The step cannot be taken back without what the other did: it fails for good and says so, and both changes are in the log."""
    await prepared(symphony, kind)
    has, go = asyncio.Event(), asyncio.Event()

    async def take() -> None:
        handed(symphony, kind).open += 1
        has.set()
        await go.wait()
        raise ConnectionError("again")

    @symphony.workflow
    async def tills() -> None:
        await step(take, atomic=True, retry={"max_attempts": 3, "delay_s": 0.01})

    running = asyncio.create_task(symphony.workflows.execute_workflow(tills))
    await has.wait()

    def change() -> None:
        handed(symphony, kind).open += 10

    async with beside(symphony, change):
        go.set()
        run = await running
        assert run.status.value == "failed"
        assert NotTakenBackError.__name__ in str(run.error)
        assert f"{kind.__name__}:c" in str(run.error)
    assert run.attempts == {"take": 1}
    assert await stored(symphony, kind) == 11


async def test_a_reader_that_comes_after_the_step_does_not_keep_it_from_completing(symphony: Symphony, kind: type[Any]) -> None:
    await prepared(symphony, kind)
    has, go = asyncio.Event(), asyncio.Event()

    async def take(context: Any) -> None:
        handed(symphony, kind).open += 1
        has.set()
        await go.wait()

    running = asyncio.create_task(run_all(symphony, take, 1))
    await has.wait()
    async with beside(symphony, lambda: handed(symphony, kind).open):
        go.set()
        (run,) = await running
    assert run.status.value == "completed"
    assert await stored(symphony, kind) == 1
    assert (await symphony.history(f"{kind.__name__}:c"))[-1].event.metadata.run_id == run.id


async def test_transactions_that_wait_for_an_atomic_step_which_waits_for_them(symphony: Symphony, kind: type[Any]) -> None:
    """The one who closes the circle is told at once; the other goes on."""
    await prepared(symphony, kind)
    entered = asyncio.Event()

    async def take(context: Any) -> None:
        async with symphony.transaction("Both", claim=["AtomicTillBoard:b"]):
            entered.set()
            await asyncio.sleep(0.02)
            async with symphony.transaction("Till", claim=[f"{kind.__name__}:c"]):
                handed(symphony, kind).open += 1

    async def hold() -> None:
        async with symphony.transaction("Beside"):
            handed(symphony, kind)
            running.append(asyncio.create_task(run_all(symphony, take, 1)))
            await entered.wait()
            await asyncio.sleep(0.05)
            async with symphony.transaction("Inner", claim=["AtomicTillBoard:b"]):
                pass

    running: list[asyncio.Task[list[Any]]] = []
    async with asyncio.timeout(10):
        with pytest.raises(EntityBusyError):
            await hold()
        (run,) = await running[0]
    assert run.status.value == "completed"
    assert await stored(symphony, kind) == 1


async def test_a_thread_that_outlives_its_attempt_is_handed_nothing(symphony: Symphony, kind: type[Any]) -> None:
    """The time of the first attempt is up, and its thread runs on: what it would change then would be there twice."""
    await prepared(symphony, kind)
    told: list[BaseException] = []
    over, ended = threading.Event(), threading.Event()

    def take() -> None:
        if step_context().attempt == 1:
            over.wait(10)
            try:
                handed(symphony, kind).open += 1
            except TransactionEndedError as error:
                told.append(error)
            ended.set()
            return
        handed(symphony, kind).open += 1
        over.set()
        ended.wait(10)

    @symphony.workflow
    async def tills() -> None:
        await step(take, atomic=True, retry={"max_attempts": 2, "delay_s": 0}, timeout_s=1)

    run = await symphony.workflows.execute_workflow(tills)
    assert run.status.value == "completed"
    assert len(told) == 1
    assert await stored(symphony, kind) == 1


@pytest.mark.parametrize("how", HOW)
async def test_a_transaction_puts_back_what_it_was_handed(symphony: Symphony, kind: type[Any], how: str) -> None:
    """Also the changes of a block inside it, and what was changed before it began stays."""
    till = await prepared(symphony, kind)
    till.open = 5
    with pytest.raises(ValueError, match="no"):
        async with symphony.transaction("Outer"):
            handed(symphony, kind, how).open += 1
            async with symphony.transaction("Inner"):
                handed(symphony, kind, how).open += 1
            raise ValueError("no")
    assert await stored(symphony, kind) == 5


async def test_steps_of_one_run_beside_each_other(symphony: Symphony, kind: type[Any]) -> None:
    """Branches: the step around them was handed what they were, and they are kept apart all the same."""
    await prepared(symphony, kind)

    async def take(context: Any) -> None:
        till = handed(symphony, kind)
        read = till.open
        await asyncio.sleep(0)
        till.open = read + 1
        symphony.entities.get("AtomicTillBoard:b").n += 1

    symphony.functions.register("take", take)
    one = {"kind": "function", "function": "take", "atomic": True}
    branches = [{**one, "name": f"t{n}"} for n in range(6)]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "parallel", "name": "p", "branches": branches}]})
    assert run.error is None
    assert symphony.entities.get("AtomicTillBoard:b").n == await stored(symphony, kind) == 6


def in_a_closure(till: Any) -> Any:
    async def take() -> None:
        till.open += 1

    return take, ()


def in_a_function_of_a_closure(till: Any) -> Any:
    def change() -> None:
        till.open += 1

    async def take() -> None:
        change()

    return take, ()


def in_a_function_inside(till: Any) -> Any:
    async def take() -> None:
        async def change() -> None:
            till.open += 1

        await change()

    return take, ()


def as_a_default(till: Any) -> Any:
    async def take(till: Any = till) -> None:
        till.open += 1

    return take, ()


def as_an_argument(till: Any) -> Any:
    async def take(till: Any) -> None:
        till.open += 1

    return take, (till,)


def in_a_list(till: Any) -> Any:
    async def take(tills: dict[str, list[Any]]) -> None:
        tills["of today"][0].open += 1

    return take, ({"of today": [till]},)


def in_a_partial(till: Any) -> Any:
    async def change(till: Any) -> None:
        till.open += 1

    async def take() -> None:
        await bound()

    bound = functools.partial(change, till)
    return take, ()


THE_TILL: Any = None


async def take_the_global_one() -> None:
    THE_TILL.open += 1


def as_a_global(till: Any) -> Any:
    global THE_TILL
    THE_TILL = till
    return take_the_global_one, ()


IN_HAND = [
    in_a_closure, in_a_function_of_a_closure, in_a_function_inside, as_a_default, as_an_argument, in_a_list, in_a_partial, as_a_global,
]  # fmt: skip


@pytest.mark.parametrize("where", IN_HAND)
async def test_what_a_function_has_in_hand_is_handed_to_its_step(symphony: Symphony, kind: type[Any], where: Any) -> None:
    """It asks for nothing, and yet what it changes is put back before it runs again, and booked on its run."""
    await prepared(symphony, kind)
    change, arguments = where(handed(symphony, kind))

    async def fail_once() -> None:
        symphony.entities.get("AtomicTillBoard:b").n += 1
        if step_context().attempt == 1:
            raise ConnectionError("again")

    async def take(*given: Any) -> None:
        await change(*given)
        await asyncio.sleep(0)
        await fail_once()

    @symphony.workflow
    async def tills() -> None:
        await step(take, *arguments, atomic=True, retry={"max_attempts": 2, "delay_s": 0})

    runs = await asyncio.gather(*(symphony.workflows.execute_workflow(tills) for _ in range(3)))
    assert [run.status.value for run in runs] == ["completed"] * 3
    assert await stored(symphony, kind) == symphony.entities.get("AtomicTillBoard:b").n == 3
    booked = [version.event.metadata.run_id for version in (await symphony.history(f"{kind.__name__}:c"))[1:]]
    assert set(booked) == {run.id for run in runs}


async def test_a_method_of_an_adopted_object(symphony: Symphony, kind: type[Any]) -> None:
    """The object that the method is bound to is in hand."""
    till = await prepared(symphony, kind)

    async def take(self: Any) -> None:
        self.open += 1
        if step_context().attempt == 1:
            raise ConnectionError("again")

    bound = types.MethodType(take, till)

    @symphony.workflow
    async def tills() -> None:
        await step(bound, name="take", atomic=True, retry={"max_attempts": 2, "delay_s": 0})

    run = await symphony.workflows.execute_workflow(tills)
    assert run.status.value == "completed", run.error
    assert await stored(symphony, kind) == 1


async def test_an_object_that_the_runs_context_refers_to(symphony: Symphony, kind: type[Any]) -> None:
    """Of classes without declared fields the context hands out the entity's own object; of others a copy, which is nobody's."""
    till = await prepared(symphony, kind)
    same: list[bool] = []
    number = id(till)  # the function does not name the object itself

    async def take(context: Any) -> None:
        found = context["till"]
        same.append(id(found) == number)
        found.open += 1
        if context.attempt == 1:
            raise ConnectionError("again")

    symphony.functions.register("take", take)
    definition = (
        symphony.build_workflow("test-tills").add_function("take", "take", atomic=True, retry={"max_attempts": 2, "delay_s": 0}).build()
    )
    run = await symphony.workflows.execute_workflow(definition, {"till": till})
    assert run.status.value == "completed"
    assert await stored(symphony, kind) == (1 if same[0] else 0)


async def test_an_object_that_is_compared_when_it_is_recorded_only(symphony: Symphony, kind: type[Any]) -> None:
    """It is claimed and put back as well, to what it was: also to what nobody has recorded yet."""
    till = symphony.entities.add(kind(id="c"), capture="on_record")
    await symphony.flush()
    till.open = 100

    async def take() -> None:
        found = handed(symphony, kind)
        read = found.open
        await asyncio.sleep(0)
        found.open = read + 1
        if step_context().attempt == 1:
            raise ConnectionError("again")
        symphony.entities.record(found, "TillChanged")

    @symphony.workflow
    async def tills() -> None:
        await step(take, atomic=True, retry={"max_attempts": 2, "delay_s": 0})

    runs = await asyncio.gather(*(symphony.workflows.execute_workflow(tills) for _ in range(4)))
    assert [run.status.value for run in runs] == ["completed"] * 4
    assert await stored(symphony, kind) == 104


def inside(composite: str) -> dict[str, Any]:
    """A composite step whose atomic step asks for the till, and which waits for a signal then."""
    take = {"kind": "function", "name": "take", "function": "take", "atomic": True}
    wait = {"kind": "wait", "name": "wait", "signal": "go"}
    row = {"kind": "sequence", "name": "row", "steps": [take, wait]}
    return {
        "sequence": row,
        "parallel": {"kind": "parallel", "name": "beside", "branches": [row]},
        "conditional": {"kind": "conditional", "name": "if", "condition": "True", "then": [take, wait]},
        "map": {"kind": "map", "name": "each", "over": [1], "step": row},
        "loop": {"kind": "loop", "name": "again", "max_iterations": 1, "steps": [take, wait]},
    }[composite]


@pytest.mark.parametrize("composite", ["sequence", "parallel", "conditional", "map", "loop"])
async def test_the_step_around_has_nothing_that_an_atomic_step_was_handed(symphony: Symphony, kind: type[Any], composite: str) -> None:
    """Whoever changes it meanwhile has changed it, and `flush` records it; a failing atomic step of another run is taken back whole."""
    till = symphony.entities.add(kind(id="c"))
    await symphony.flush()
    taken = asyncio.Event()
    failures = iter([True, False])

    async def take(context: Any) -> None:
        assert handed(symphony, kind) is till
        taken.set()

    async def fail_once(context: Any) -> None:
        handed(symphony, kind).open += 1
        if next(failures):
            raise ConnectionError("again")

    symphony.functions.register("take", take)
    symphony.functions.register("fail_once", fail_once)
    waiting = await symphony.workflows.start({"name": "test-around", "steps": [inside(composite)]})
    await taken.wait()
    while not any(address.endswith("wait") for address in (await symphony.workflows.get_run(waiting.id)).attempts):
        await asyncio.sleep(0)
    with symphony.acting_as("bob"):
        till.open = 20
        await symphony.flush()
    assert await stored(symphony, kind) == 20
    beside = {"kind": "function", "name": "fail", "function": "fail_once", "atomic": True, "retry": {"max_attempts": 2, "delay_s": 0}}
    run = await symphony.workflows.execute_workflow({"name": "test-beside", "steps": [beside]})
    assert run.status.value == "completed"
    assert (till.open, await stored(symphony, kind)) == (21, 21)
    await waiting.signal("go")
    await waiting.result()
    await symphony.flush()
    last = (await symphony.history(till))[1:]
    assert [(version.event.metadata.actor, version.event.metadata.run_id) for version in last] == [("bob", None), (None, run.id)]
