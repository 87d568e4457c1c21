"""Code that contradicts what a run has called before it was taken back: all is undone that the code knows, and the rest is named."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition, step, step_context, wait_for_signal
from symphony_es.workflow.code import strands
from symphony_es.workflow.definitions import steps
from symphony_es.workflow.engine import undoing
from symphony_es.workflow.kinds.function import FunctionStep
from symphony_es.workflow.kinds.sequence import SequenceStep

WAIT: dict[str, Any] = {"kind": "wait", "name": "wait go", "id": "wait go", "signal": "go"}


class Shop:
    """A workflow in code of which there are several releases; it keeps a ledger of what was done and undone, by idempotency key."""

    def __init__(self, symphony: Symphony) -> None:
        self.symphony = symphony
        self.done: list[tuple[str, Any]] = []
        self.undone: list[tuple[str, Any]] = []
        self.release(1)

    def release(self, price: int, how: str = "argument") -> None:
        """From here on this is the code: with another price, under another name, or without the charge."""
        shop = self

        async def act(given: Any) -> Any:
            shop.done.append((step_context().idempotency_key, given))
            return given

        async def undo(given: Any) -> None:
            undone = step_context().undoes
            assert undone is not None
            assert undone.output in (None, given)
            shop.undone.append((undone.idempotency_key, given))

        async def look() -> None:
            return None

        changed = price > 1

        @self.symphony.workflow(name="order", replace=True, cleanup_on=["failure", "deadline"])
        async def order() -> None:
            await step(act, "room", name="book", undo=undo)
            if changed and how == "inserted":
                await step(look)
            if not (changed and how == "removed"):
                name = f"charge {price}" if how == "renamed" else "charge"
                await step(act, price if how == "argument" else 1, name=name, undo=undo)
            await step(act, "parcel", name="ship", undo=undo)
            await wait_for_signal("go")
            raise ValueError("nobody was at home")

        self.order = order


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def waits(run: Workflow) -> bool:
    return "wait go" in run.attempts and "wait go" not in run.outputs


async def waiting(shop: Shop) -> Workflow:
    run: Workflow = (await shop.symphony.workflows.start(shop.order, run_id="r", auto_checkpoint=False)).run
    await until(lambda: waits(run))
    return run


async def again(symphony: Symphony, run: Workflow, address: str) -> None:
    await symphony.workflows.pause(run)
    await symphony.workflows.handle(run).wait("paused")
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, address, auto_checkpoint=False))
    await until(lambda: going.done() or (run.status == "running" and waits(run)))
    if going.done():
        await going
    going.add_done_callback(lambda task: task.exception())


async def end(shop: Shop, run: Workflow, how: str) -> None:
    if how == "cancel":
        await shop.symphony.workflows.cancel(run)
    else:
        await shop.symphony.workflows.signal(run, "go")
        await shop.symphony.workflows.handle("r").wait()
    assert run.status == {"cancel": "cancelled", "failure": "failed"}[how]


@pytest.mark.parametrize("ends", ["failure", "cancel"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("how", ["argument", "renamed", "removed", "inserted"])
async def test_what_the_code_knows_is_undone_and_the_rest_is_named(symphony: Symphony, how: str, times: int, ends: str) -> None:
    """Each execution is undone once, under its own key with its own arguments; where the code does not tell them, it has failed."""
    shop = Shop(symphony)
    run = await waiting(shop)
    for generation in range(times):
        first = "charge" if generation == 0 else next(address for address in run.attempts if address != "book")
        shop.release(generation + 2, how)
        await again(symphony, run, first)
    await end(shop, run, ends)
    failed = {address for address in run.failures if address.startswith("undo/")}
    unknown = {
        "argument": {("charge", generation) for generation in range(times)},
        "renamed": {("charge", 0), *({("charge 2", 0)} if times > 1 else ())},
        "removed": {("charge", 0)},
        "inserted": set(),
    }[how]
    keys = {f"r:{address}:{generation}" for address, generation in unknown}
    assert sorted(shop.undone) == sorted((key, given) for key, given in shop.done if key not in keys)
    assert failed == {f"undo/@{generation}/{address}" for address, generation in unknown}
    for address, generation in unknown:
        told = run.failures[f"undo/@{generation}/{address}"]
        assert told["type"] == "CleanupUnfinishedError"
        assert f"{address} of generation {generation}" in told["message"]
        assert f"r:{address}:{generation}" in told["message"]
        assert f"{address} of generation {generation}" in (run.error or {})["message"]


@pytest.mark.parametrize("ends", ["failure", "cancel"])
async def test_a_resume_undoes_nothing_twice_and_says_the_same(symphony: Symphony, ends: str) -> None:
    """What nobody knows how to undo is left of the clean-up, and stays so until somebody has done it by hand."""
    shop = Shop(symphony)
    run = await waiting(shop)
    shop.release(2)
    await again(symphony, run, "charge")
    await end(shop, run, ends)
    before = list(shop.undone)
    assert ("r:charge:0", 1) not in before
    await symphony.workflows.resume(run, auto_checkpoint=False)
    assert run.status == {"cancel": "cancelled", "failure": "failed"}[ends]
    assert shop.undone == before
    assert [address for address in run.failures if address.startswith("undo/")] == ["undo/@0/charge"]


def declared(*charges: str, serves: str = "refund") -> WorkflowDefinition:
    charged = [{"kind": "function", "name": name, "function": "charge", "undo": serves} for name in charges]
    return WorkflowDefinition(
        name="w", steps=[*charged, WAIT, {"kind": "function", "name": "deliver", "function": "deliver"}], cleanup_on=["failure"]
    )


@pytest.mark.parametrize("ends", ["failure", "cancel"])
@pytest.mark.parametrize("forced", ["held", "taken back", "both"])
@pytest.mark.parametrize("new", [["a", "c"], ["a"], []], ids=["renamed", "removed", "all removed"])
async def test_steps_that_a_new_definition_does_not_have_are_undone(symphony: Symphony, new: list[str], forced: str, ends: str) -> None:
    """The definition by which they ran says how: each execution is undone once, and sees what it gave."""
    done: list[str] = []
    undone: list[str] = []

    async def charge(context: RunContext) -> str:
        done.append(context.idempotency_key)
        return context.idempotency_key

    async def refund(context: RunContext) -> None:
        assert context.undoes is not None
        assert context.undoes.output == context.undoes.idempotency_key
        undone.append(context.undoes.idempotency_key)

    async def deliver(context: RunContext) -> None:
        raise ValueError("nobody was at home")

    for function in (charge, refund, deliver):
        symphony.functions.register(function.__name__, function)
    workflows = symphony.workflows
    run: Workflow = (await workflows.start(declared("a", "b"), run_id="r", auto_checkpoint=False)).run
    await until(lambda: "wait go" in run.attempts)
    await workflows.pause(run)
    if forced != "held":  # the new definition is taken before any step begins again, or after that
        gate = asyncio.Event()
        symphony.functions.register("charge", charge if forced == "both" else held(gate), replace=True)
        going = asyncio.ensure_future(workflows.retry_from(run, "a", auto_checkpoint=False))
        await until(lambda: run.status == "running" and ("wait go" if forced == "both" else "a") in run.attempts)
        pausing = asyncio.ensure_future(workflows.pause(run))
        gate.set()
        await pausing
        await asyncio.gather(going, return_exceptions=True)
        symphony.functions.register("charge", charge, replace=True)
    if forced == "taken back":
        done.append("r:a:1")
    assert run.status == "paused"
    going = asyncio.ensure_future(workflows.resume(run, definition=declared(*new), force=True, auto_checkpoint=False))
    await until(lambda: run.status == "running" and "wait go" in run.attempts and set(new) <= run.outputs.keys())
    if ends == "failure":
        await workflows.signal(run, "go")
    else:
        await workflows.cancel(run)
    await asyncio.gather(going, return_exceptions=True)
    assert run.status == {"cancel": "cancelled", "failure": "failed"}[ends]
    assert sorted(undone) == sorted(done)


async def test_a_step_that_is_taken_back_after_it_was_removed_is_undone(symphony: Symphony) -> None:
    """The definition by which it ran says how, though the run went by another one when it was taken back."""
    undone: list[str] = []

    async def charge(context: RunContext) -> str:
        return context.idempotency_key

    async def refund(context: RunContext) -> None:
        assert context.undoes is not None
        assert context.undoes.output == context.undoes.idempotency_key
        undone.append(context.undoes.idempotency_key)

    for name, function in {"charge": charge, "refund": refund, "deliver": charge}.items():
        symphony.functions.register(name, function)
    workflows = symphony.workflows
    run: Workflow = (await workflows.start(declared("a", "b"), run_id="r", auto_checkpoint=False)).run
    await until(lambda: "wait go" in run.attempts)
    await workflows.pause(run)
    going = asyncio.ensure_future(workflows.resume(run, definition=declared("b"), force=True, auto_checkpoint=False))
    await until(lambda: run.status == "running")
    await again(symphony, run, "a")
    await workflows.cancel(run)
    await asyncio.gather(going, return_exceptions=True)
    assert sorted(undone) == ["r:a:0", "r:b:0", "r:b:1"]


def held(gate: asyncio.Event) -> Callable[[RunContext], Awaitable[str]]:
    async def charge(context: RunContext) -> str:
        await gate.wait()
        return context.idempotency_key

    return charge


async def test_a_removed_step_whose_undo_nobody_has_is_named(symphony: Symphony, reopen: Any) -> None:
    """The others are undone all the same."""
    undone: list[str] = []

    async def charge(context: RunContext) -> None:
        return None

    async def refund(context: RunContext) -> None:
        assert context.undoes is not None
        undone.append(context.undoes.address)

    for name, function in {"charge": charge, "refund": refund, "deliver": charge, "old refund": refund}.items():
        symphony.functions.register(name, function)
    run: Workflow = (await symphony.workflows.start(declared("a", "b", serves="old refund"), run_id="r", auto_checkpoint=False)).run
    await until(lambda: "wait go" in run.attempts)
    await symphony.workflows.pause(run)
    symphony = await reopen(resume="latest")
    for name, function in {"charge": charge, "refund": refund, "deliver": charge}.items():
        symphony.functions.register(name, function)
    workflows = symphony.workflows
    run = await workflows.get_run("r")
    going = asyncio.ensure_future(workflows.resume(run, definition=declared("a"), force=True, auto_checkpoint=False))
    await until(lambda: run.status == "running")
    await workflows.cancel(run)
    await asyncio.gather(going, return_exceptions=True)
    assert undone == ["a"]
    assert "b of generation 0" in run.failures["undo/b"]["message"]
    assert "'old refund'" in (run.error or {})["message"]


@pytest.mark.parametrize("times", [0, 1], ids=["held", "taken back"])
@pytest.mark.parametrize("lost", ["step", "step around", "undo", "beside"])
async def test_a_removed_step_whose_kind_is_gone_is_named_and_the_others_are_undone(
    symphony: Symphony, monkeypatch: pytest.MonkeyPatch, lost: str, times: int
) -> None:
    """One step that cannot be read any more ends no clean-up; where its undo can be, that is done."""
    undone: list[str] = []

    async def charge(context: RunContext) -> None:
        return None

    async def refund(context: RunContext) -> None:
        assert context.undoes is not None
        undone.append(context.undoes.address)

    for name, function in {"charge": charge, "refund": refund, "deliver": charge}.items():
        symphony.functions.register(name, function)
    monkeypatch.setattr(steps, "_kinds", dict(steps._kinds))
    steps.register_step_kind(type("Going", (FunctionStep,), {"kind": "test-going"}))
    steps.register_step_kind(type("GoingAround", (SequenceStep,), {"kind": "test-going-around"}))
    going: dict[str, Any] = {"name": "b", "function": "charge", "undo": "refund"}
    plain: dict[str, Any] = {"name": "p", "kind": "function", "function": "charge"}
    removed: dict[str, Any] = {
        "step": {"kind": "test-going", **going},
        "step around": {"kind": "test-going-around", "name": "s", "steps": [{"kind": "function", **going}, plain]},
        "undo": {"kind": "function", **going, "undo": {"kind": "test-going", "name": "u", "function": "refund"}},
        "beside": {"kind": "test-going", **going, "undo": None},
    }[lost]
    old = declared("a", "c").to_dict()
    old["steps"].insert(1, removed)
    workflows = symphony.workflows
    run: Workflow = (await workflows.start(WorkflowDefinition.from_dict(old), run_id="r", auto_checkpoint=False)).run
    await until(lambda: "wait go" in run.attempts)
    await workflows.pause(run)
    for _ in range(times):
        going_on = asyncio.ensure_future(workflows.retry_from(run, removed["name"], auto_checkpoint=False))
        await until(lambda: run.status == "running" and "wait go" in run.attempts)
        await workflows.pause(run)
        await asyncio.gather(going_on, return_exceptions=True)
    going_on = asyncio.ensure_future(workflows.resume(run, definition=declared("a"), force=True, auto_checkpoint=False))
    await until(lambda: run.status == "running")
    for kind in ("test-going", "test-going-around"):
        del steps._kinds[kind]
    await workflows.cancel(run)
    await asyncio.gather(going_on, return_exceptions=True)
    assert run.status == "cancelled"
    gone = {"step": None, "step around": "s/b", "undo": "b", "beside": None}[lost]
    assert sorted(undone) == sorted(["a", *["c"] * (1 + times), *["b"] * ((1 + times) * (lost == "step"))])
    failed = {address: failure["message"] for address, failure in run.failures.items() if address.startswith("undo/")}
    assert sorted(failed) == ([] if gone is None else sorted([f"undo/{gone}", *(f"undo/@{number}/{gone}" for number in range(times))]))
    assert all(f"{gone} of generation" in told and "'test-going" in told for told in failed.values())


async def calls_of_a_plan(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, items: int, how: str) -> int:
    """How many functions are called to plan the undos of a map that is not part of the definition any more."""

    async def charge(context: RunContext) -> None:
        return None

    for name in ("charge", "refund", "deliver"):
        symphony.functions.register(name, charge, replace=True)
    inner = {"kind": "function", "name": "x", "function": "charge", "undo": "refund"}
    mapped = {"kind": "map", "name": "m", "over": list(range(items)), "step": inner}
    old = WorkflowDefinition.from_dict({**declared().to_dict(), "steps": [mapped, WAIT]})
    workflows, run_id = symphony.workflows, f"{how}{items}"
    run: Workflow = (await workflows.start(old, run_id=run_id, auto_checkpoint=False)).run
    await until(lambda: "wait go" in run.attempts)
    await workflows.pause(run)
    if how == "taken back":
        await workflows.retry_from(run, "m", auto_checkpoint=False, deadline_s=1e-9)
    else:
        going = asyncio.ensure_future(workflows.resume(run, definition=declared(), force=True, auto_checkpoint=False))
        await until(lambda: run.status == "running")
    calls, plan_undos = 0, undoing.plan_undos

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    async def counted(*args: Any) -> Any:
        sys.setprofile(count)
        try:
            return await plan_undos(*args)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(undoing, "plan_undos", counted)
    await workflows.cancel(run)
    monkeypatch.undo()
    if how == "removed":
        await asyncio.gather(going, return_exceptions=True)
    assert len([address for address in run.outputs if address.startswith("undo/")]) == items
    return calls


@pytest.mark.parametrize("how", ["removed", "taken back"])
async def test_planning_the_undos_of_a_map_is_linear(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Ten times as many items cost about ten times as many calls."""
    few = await calls_of_a_plan(symphony, monkeypatch, 6, how)
    assert await calls_of_a_plan(symphony, monkeypatch, 60, how) < 12 * few


@pytest.mark.parametrize("how", ["retry", "rewind", "later undo", "old log"])
async def test_a_call_that_never_had_an_undo_is_not_owed(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Each call on record says whether it has an undo; of a log in which they do not say it, all are named that the code makes no more."""
    if how == "old log":
        monkeypatch.setattr(strands, "ON_CALLS", True)
    price, attempts = 1, 0

    async def act(given: Any) -> Any:
        return given

    async def undo(given: Any) -> None:
        return None

    async def late(given: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("once more")
        return given

    @symphony.workflow(name="order", replace=True)
    async def order() -> None:
        if how == "rewind":
            await wait_for_signal("begin")
        await step(act, "room", name="book", undo=undo)
        await step(act, price, name=f"look {price}")
        if how == "later undo":  # the code of the second attempt has one
            await step(late, price, **({"undo": undo} if attempts else {}))
        await step(act, price, name="charge", undo=undo)
        await wait_for_signal("go")

    workflows = symphony.workflows
    run: Workflow = (await workflows.start(order, run_id="r", auto_checkpoint=False)).run
    if how == "rewind":
        await until(lambda: "wait begin" in run.attempts)
        before = await symphony.create_checkpoint("before")
        await workflows.signal(run, "begin")
    if how == "later undo":
        await workflows.handle("r").wait()
        asyncio.ensure_future(workflows.resume(run, auto_checkpoint=False)).add_done_callback(lambda task: task.exception())
    await until(lambda: waits(run))
    price = 2
    if how == "rewind":
        await workflows.pause(run)
        await symphony.resume_from_checkpoint(before)
        run = await workflows.get_run("r")
        await workflows.signal(run, "begin")
        asyncio.ensure_future(workflows.resume(run, auto_checkpoint=False)).add_done_callback(lambda task: task.exception())
        await until(lambda: waits(run))
    else:
        await again(symphony, run, "look 1")
    await workflows.cancel(run)
    named = {
        "retry": ["undo/@0/charge"],
        "rewind": ["undo/@0/charge"],
        "later undo": ["undo/@0/charge", "undo/@0/late"],
        "old log": ["undo/@0/charge", "undo/@0/look 1"],
    }
    assert sorted(address for address in run.failures if address.startswith("undo/")) == named[how]
