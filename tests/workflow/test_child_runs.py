"""Child runs: whose they are, what becomes of them with their parents, and who drives those that no parent drives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import DeadlockError, DefinitionError, RunInterruptedError
from symphony_es.testing import ManualClock
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition, gather, run_workflow, step, wait_for_signal
from tests.conftest import Opener

POLICIES = ("cancel", "terminate", "abandon")


async def until(holds: Callable[[], bool]) -> None:
    """Returns when something has come to hold."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


class Shop:
    """Functions of steps.

    Attributes:
        keys: idempotency keys of the bodies that came to their end, in order.
        broken: names of the steps that fail.
        held: names of the steps that wait before they end.
    """

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.broken: set[str] = set()
        self.held: set[str] = set()

    async def act(self, context: RunContext) -> str:
        """One step."""
        name = context.step.rpartition("/")[2]
        if name in self.held:
            await asyncio.Event().wait()
        if name in self.broken:
            raise OSError(f"{name} is down")
        self.keys.append(context.idempotency_key)
        return name

    def names(self) -> list[str]:
        """The names of the steps that came to their end."""
        return [key.split(":")[1].rpartition("/")[2] for key in self.keys]

    def register(self, symphony: Symphony) -> None:
        """Makes the functions known to a process."""
        symphony.functions.register("act", self.act, replace=True)


def act(name: str) -> dict[str, Any]:
    """A function step."""
    return {"kind": "function", "name": name, "function": "act"}


def wait(name: str) -> dict[str, Any]:
    """A step that waits for a signal of its name."""
    return {"kind": "wait", "name": name, "signal": name}


def child(name: str, *steps: dict[str, Any], cleanup: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    """A workflow step."""
    return {"kind": "workflow", "name": name, "definition": {"name": name, "steps": list(steps), "cleanup": list(cleanup)}, **more}


def fan(*branches: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A parallel."""
    return {"kind": "parallel", "name": "fan", "branches": list(branches), **more}


@pytest.fixture
def shop() -> Shop:
    """The steps of a test."""
    return Shop()


async def waiting(symphony: Symphony, run_id: str, step_name: str) -> Workflow:
    """A run that waits at a step."""
    await until(lambda: step_name in getattr(symphony.world.find(f"Workflow:{run_id}"), "attempts", ()))
    return await symphony.workflows.get_run(run_id)


async def statuses(symphony: Symphony) -> dict[str, str]:
    """Of all runs, also those that are at rest."""
    return {run.id: str(run.status) for run in await symphony.workflows.list_runs(newest_first=False)}


def engine_of(symphony: Symphony) -> Any:
    """The engine."""
    return symphony.registry.get("workflow_engine")


ENDS = ("a step beside it fails", "the deadline passes", "it is given up, and the parent completes", "the parent is cancelled")


async def ended(symphony: Symphony, shop: Shop, how: str, kid: dict[str, Any]) -> Workflow:
    """A run that has ended while its child run had not."""
    symphony.registry.get("workflow_engine").clock = clock = ManualClock()
    beside: dict[str, Any] = {"kind": "sequence", "name": "beside", "steps": [wait("fail"), act("bad")]}
    given_up = {**kid, "timeout_s": 1.0} if "given up" in how else kid
    steps = [fan(given_up, beside, on_error="collect" if "given up" in how else "fail_fast")]
    definition = WorkflowDefinition.from_dict({"name": "w", "steps": steps, "deadline_s": 100 if "deadline" in how else None})
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    await waiting(symphony, "r/fan/kid", "go")
    if "beside" in how or "given up" in how:
        if "given up" in how:
            await until(lambda: "fan/kid" in handle.run.failures)
        shop.broken = {"bad"}
        await waiting(symphony, "r", "fan/beside/fail")
        await handle.signal("fail")
    elif "deadline" in how:
        clock.advance(200)
    else:
        await handle.cancel()
    return await handle.wait()


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_that_ends_takes_its_children_along(symphony: Symphony, shop: Shop, how: str, policy: str) -> None:
    """However it ends: they are cancelled with their clean-up, without it, or go on by themselves, and the child run says so."""
    shop.register(symphony)
    kid = child("kid", act("reserve"), wait("go"), cleanup=(act("undo"),), on_parent_end=policy)
    run = await ended(symphony, shop, how, kid)
    expected = {ENDS[0]: "failed", ENDS[1]: "failed", ENDS[2]: "completed", ENDS[3]: "cancelled"}[how]
    held = await symphony.workflows.get_run("r/fan/kid")
    assert (run.status, held.status) == (expected, "running" if policy == "abandon" else "cancelled")
    assert shop.names() == (["reserve", "undo"] if policy == "cancel" else ["reserve"])
    assert held.with_parent == {"cancel": "cancelled", "terminate": "cancelled", "abandon": "abandoned"}[policy]
    if policy == "abandon":
        recovered = asyncio.ensure_future(symphony.workflows.recover(auto_checkpoint=False))
        await symphony.workflows.signal(held, "go")
        await symphony.workflows.handle(held).result()
        await recovered
    assert await symphony.workflows.recover() == []
    assert "running" not in (await statuses(symphony)).values()


@pytest.mark.parametrize("how", ["resume", "retry_from"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("cleans_up", [False, True])
async def test_what_was_cancelled_with_its_parent_goes_on_with_it(
    symphony: Symphony, shop: Shop, reopen: Any, how: str, depth: int, cleans_up: bool
) -> None:
    """Where nothing was cleaned up, nothing is done twice; what was cleaned up is done anew, by another run and under other keys."""
    shop.register(symphony)
    shop.broken = {"left"}
    undo = (act("undo"),) if cleans_up else ()
    kid = child("kid", act("reserve"), wait("go"), act("charge"), cleanup=undo)
    for _ in range(depth - 1):
        kid = child("kid", act("outer"), kid)
    late = {"kind": "sequence", "name": "late", "steps": [wait("now"), act("left")]}
    handle = await symphony.workflows.start({"name": "w", "steps": [fan(kid, late)]}, run_id="r", auto_checkpoint=False)
    deepest = "r/fan/kid" + "/kid" * (depth - 1)
    await waiting(symphony, deepest, "go")
    await handle.signal("now")
    assert (await handle.wait()).status == "failed"
    assert set((await statuses(symphony)).values()) == {"failed", "cancelled"}
    again = await reopen()
    await again.resume()
    shop.register(again)
    assert await again.workflows.recover() == []
    shop.broken = set()
    call = again.workflows.resume("r") if how == "resume" else again.workflows.retry_from("r", "fan/late/left")
    going = asyncio.ensure_future(call)
    now = f"{deepest}~2" if cleans_up else deepest
    if depth > 1 and cleans_up:
        now = "r/fan/kid~2" + "/kid" * (depth - 1)
    await until(lambda: getattr(again.world.find(f"Workflow:{now}"), "status", None) == "running")
    await waiting(again, now, "go")
    await again.workflows.signal(now, "go")
    assert (await going).status == "completed"
    assert Counter(shop.keys).most_common(1)[0][1] == 1, shop.keys
    times = 2 if cleans_up else 1
    counted = Counter(shop.names())
    assert (counted["reserve"], counted["charge"], counted["undo"]) == (times, 1, times - 1)


PAUSES = ("the process dies", "its parent is paused and resumed", "its parent fails and is resumed")


@pytest.mark.parametrize("then", PAUSES)
async def test_a_child_run_that_was_paused_by_itself_stays_paused(symphony: Symphony, shop: Shop, reopen: Any, then: str) -> None:
    """It waits for somebody who knows why; its parent waits for it, and goes on when it is resumed."""
    shop.register(symphony)
    shop.broken = {"left"}
    late = {"kind": "sequence", "name": "late", "steps": [wait("now"), act("left")]}
    kid = child("kid", wait("go"), act("pay"))
    handle = await symphony.workflows.start({"name": "w", "steps": [fan(kid, late)]}, run_id="r", auto_checkpoint=False)
    await waiting(symphony, "r/fan/kid", "go")
    await symphony.workflows.pause("r/fan/kid")
    await symphony.workflows.signal("r/fan/kid", "go")
    if then == PAUSES[1]:
        await waiting(symphony, "r", "fan/late/now")
        await handle.pause()
    elif then == PAUSES[2]:
        await handle.signal("now")
        assert (await handle.wait()).status == "failed"
    again = await reopen()
    await again.resume()
    shop.register(again)
    shop.broken = set()
    run = await again.workflows.get_run("r")
    if then == PAUSES[0]:
        going = asyncio.ensure_future(again.workflows.recover(auto_checkpoint=False))
    else:
        going = asyncio.ensure_future(again.workflows.resume("r", auto_checkpoint=False))
    if then != PAUSES[2]:
        await again.workflows.signal("r", "now")
    await until(lambda: "fan/late/left" in run.outputs and run.children["fan/kid"].status != "cancelled")
    await engine_of(again).interrupt()
    await asyncio.gather(going, return_exceptions=True)
    assert (await statuses(again), shop.names()) == ({"r": "running", "r/fan/kid": "paused"}, ["left"])
    whole = asyncio.gather(again.workflows.recover(auto_checkpoint=False), again.workflows.resume("r/fan/kid", auto_checkpoint=False))
    await whole
    assert (await statuses(again), shop.names()) == ({"r": "completed", "r/fan/kid": "completed"}, ["left", "pay"])


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_a_run_and_all_below_it_are_paused_at_once(symphony: Symphony, shop: Shop, reopen: Any, depth: int) -> None:
    """One transaction, so that no crash leaves a child run running below a paused one; they go on with their parent."""
    shop.register(symphony)
    kid = wait("go")
    for _ in range(depth):
        kid = child("kid", kid)
    handle = await symphony.workflows.start({"name": "w", "steps": [kid, act("last")]}, run_id="r", auto_checkpoint=False)
    deepest = "r" + "/kid" * depth
    await waiting(symphony, deepest, "go")
    await handle.pause()
    assert set((await statuses(symphony)).values()) == {"paused"}
    paused = [event for event in await all_events(symphony) if event.name == "WorkflowPaused"]
    assert len(paused) == depth + 1
    assert len({event.transaction_id for event in paused}) == 1
    again = await reopen()
    await again.resume()
    shop.register(again)
    assert await again.workflows.recover() == []
    going = asyncio.ensure_future(again.workflows.resume("r", auto_checkpoint=False))
    await until(lambda: {str(run.status) for run in again.world.all("Workflow")} == {"running"})
    await again.workflows.signal(deepest, "go")
    assert (await going).status == "completed"
    assert set((await statuses(again)).values()) == {"completed"}


async def all_events(symphony: Symphony) -> list[Any]:
    """The events of all runs."""
    return [event for key in await statuses(symphony) for event in await symphony.log.read_entity(f"Workflow:{key}")]


async def test_a_child_run_that_is_not_live_is_found_in_the_log(symphony: Symphony, shop: Shop, reopen: Any) -> None:
    """A process that has loaded only what is unfinished goes on with the paused child run that its parent has, and begins no other."""
    shop.register(symphony)
    await symphony.workflows.start(
        {"name": "w", "steps": [child("kid", act("a"), wait("go"), act("pay"))]}, run_id="r", auto_checkpoint=False
    )
    await waiting(symphony, "r/kid", "go")
    await symphony.workflows.pause("r/kid")
    again = await reopen(resume=None)
    shop.register(again)
    going = asyncio.ensure_future(again.workflows.recover(auto_checkpoint=False))
    kid = await waiting(again, "r/kid", "go")
    assert (kid.status, await statuses(again)) == ("paused", {"r": "running", "r/kid": "paused"})
    await again.workflows.signal(kid, "go")
    await again.workflows.resume(kid, auto_checkpoint=False)
    await going
    assert (await statuses(again), shop.names()) == ({"r": "completed", "r/kid": "completed"}, ["a", "pay"])


DRIVEN = ("resumed", "cancelled", "resumed below a paused parent")


@pytest.mark.parametrize("how", DRIVEN)
async def test_recover_drives_what_no_parent_drives(symphony: Symphony, shop: Shop, reopen: Any, how: str) -> None:
    """A child run that was taken up by itself, and met a crash, is taken up again; with its parent nothing happens."""
    shop.register(symphony)
    shop.broken = {"pay"} if how != DRIVEN[2] else set()
    steps = (act("pay"),) if how != DRIVEN[2] else (wait("go"), act("pay"))
    definition = {"name": "p", "steps": [child("kid", *steps, cleanup=(act("undo"),))]}
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    if how == DRIVEN[2]:
        await waiting(symphony, "r/kid", "go")
        await handle.pause()
    else:
        assert (await handle.wait()).status == "failed"
    shop.broken, shop.held = set(), {"pay", "undo"}
    call = symphony.workflows.cancel("r/kid") if how == DRIVEN[1] else symphony.workflows.resume("r/kid", auto_checkpoint=False)
    going = asyncio.ensure_future(call)
    kid = await symphony.workflows.get_run("r/kid")
    await until(lambda: engine_of(symphony).active.get(kid) is not None)
    if how == DRIVEN[2]:
        await symphony.workflows.signal("r/kid", "go")
    await until(lambda: kid.attempts.get("cleanup/undo" if how == DRIVEN[1] else "pay", 0) > (0 if how != DRIVEN[0] else 1))
    await engine_of(symphony).interrupt()
    await asyncio.gather(going, return_exceptions=True)
    again = await reopen()
    await again.resume()
    shop.register(again)
    shop.held = set()
    assert [run.id for run in await again.workflows.recover(auto_checkpoint=False)] == ["r/kid"]
    parent = "paused" if how == DRIVEN[2] else "failed"
    assert await statuses(again) == {"r": parent, "r/kid": "cancelled" if how == DRIVEN[1] else "completed"}
    assert await again.workflows.recover() == []


async def test_ids_of_child_runs_never_become_too_long(symphony: Symphony, shop: Shop) -> None:
    """A child of a child of a child has an id, however long those above it are, and each is found by its parent."""
    shop.register(symphony)
    long = "step-with-a-name-that-somebody-has-thought-about-for-a-while-" + "x" * 35
    await symphony.workflows.save_workflow({"id": "saved-0", "name": "saved", "steps": [act("leaf")]})
    for level in range(1, 30):
        steps = [{"kind": "workflow", "name": long, "workflow_id": f"saved-{level - 1}"}, act("after")]
        await symphony.workflows.save_workflow({"id": f"saved-{level}", "name": "saved", "steps": steps})
    run = await symphony.workflows.execute_workflow("saved-29", run_id="r" * 200, auto_checkpoint=False)
    assert run.status == "completed", run.error
    assert len(set(shop.keys)) == len(shop.keys) == 30
    assert len(await statuses(symphony)) == 30


async def test_a_workflow_that_starts_itself_ends(symphony: Symphony) -> None:
    """There are so many levels of child runs and no more; each of them has failed, and nothing is running."""
    await symphony.workflows.save_workflow(
        {"id": "me", "name": "me", "steps": [{"kind": "workflow", "name": "again", "workflow_id": "me"}]}
    )
    run = await symphony.workflows.execute_workflow("me", run_id="r", auto_checkpoint=False)
    assert run.status == "failed"
    assert set((await statuses(symphony)).values()) == {"failed"}
    assert len(await statuses(symphony)) == 65
    deepest = max(await symphony.workflows.get_all_runs(), key=lambda each: len(each.id))
    assert (deepest.error["type"], "level 64" in deepest.error["message"]) == ("LimitExceededError", True)


def test_what_becomes_of_child_runs_is_part_of_a_definition() -> None:
    """It is written and read back, left out where it is the default, and another word is a fault with its path."""
    for policy in POLICIES:
        made = WorkflowDefinition.from_dict({"name": "w", "steps": [child("kid", act("a"), on_parent_end=policy)]})
        assert WorkflowDefinition.from_json(made.to_json()) == made
        assert made.to_dict()["steps"][0].get("on_parent_end", "cancel") == policy
    with pytest.raises(DefinitionError, match=r"steps\[0\].on_parent_end"):
        WorkflowDefinition.from_dict({"name": "w", "steps": [child("kid", act("a"), on_parent_end="kill")]})


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_code_first_workflow_says_what_becomes_of_its_child_runs(symphony: Symphony, shop: Shop, policy: str) -> None:
    """The same words, for a child run beside a strand that fails."""
    shop.register(symphony)
    definition = WorkflowDefinition.from_dict(child("kid", act("a"), wait("go"), cleanup=(act("undo"),))["definition"])

    async def fails() -> None:
        await wait_for_signal("fail")
        await step(broken)

    async def broken() -> None:
        raise OSError("down")

    @symphony.workflow
    async def order() -> None:
        await gather(run_workflow(definition, on_parent_end=policy), fails())

    handle = await symphony.workflows.start(order, run_id="r", auto_checkpoint=False)
    held = await waiting(symphony, "r/kid", "go")
    await handle.signal("fail")
    assert (await handle.wait()).status == "failed"
    assert held.status == ("running" if policy == "abandon" else "cancelled")
    assert shop.names() == (["a", "undo"] if policy == "cancel" else ["a"])
    await engine_of(symphony).interrupt()


# -- waiting on oneself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("code_first", [False, True])
async def test_runs_that_wait_for_each_other_are_told_at_once(symphony: Symphony, length: int, code_first: bool) -> None:
    """The one whose wait would close the circle fails with all of them named; the others then fail or end by what it gives them."""
    told: list[DeadlockError] = []
    ids = [f"r{number}" for number in range(length)]

    async def await_run(other: str) -> str:
        try:
            return str(await symphony.workflows.handle(await symphony.workflows.get_run(other)).result())
        except DeadlockError as error:
            told.append(error)
            raise

    async def next_one(context: RunContext) -> str:
        return await await_run(ids[(ids.index(context.run_id) + 1) % length])

    symphony.functions.register("next_one", next_one)

    @symphony.workflow
    async def flow(other: str) -> str:
        await wait_for_signal("go")
        return await step(await_run, other)

    handles = []
    for number, run_id in enumerate(ids):
        if code_first:
            handle = await symphony.workflows.start(flow, {"other": ids[(number + 1) % length]}, run_id=run_id, auto_checkpoint=False)
        else:
            definition = {"name": "w", "steps": [wait("go"), {"kind": "function", "name": "f", "function": "next_one"}]}
            handle = await symphony.workflows.start(definition, run_id=run_id, auto_checkpoint=False)
        handles.append(handle)
    for handle in handles:
        await handle.signal("go")
    async with asyncio.timeout(10):
        ends = [await handle.wait() for handle in handles]
    assert {run.status for run in ends} == {"failed"}
    assert len(told) == 1
    circle = told[0].circle
    assert (circle[0], sorted(circle[:-1])) == (circle[-1], sorted(ids))
    assert " waits for ".join(circle) in str(told[0])
    assert [run.error is not None and run.error["type"] for run in ends].count("DeadlockError") == 1


@pytest.mark.parametrize("whom", ["parent", "grandparent"])
async def test_a_child_run_that_waits_for_what_waits_for_it_is_told(symphony: Symphony, whom: str) -> None:
    """A parent waits for its child run, whoever wrote the wait down."""

    async def look(context: RunContext) -> Any:
        return await symphony.workflows.handle(await symphony.workflows.get_run("r" if whom == "grandparent" else "r/kid")).result()

    symphony.functions.register("look", look)
    deepest = child("deep", {"kind": "function", "name": "look", "function": "look"})
    async with asyncio.timeout(10):
        run = await symphony.workflows.execute_workflow({"name": "w", "steps": [child("kid", deepest)]}, run_id="r", auto_checkpoint=False)
    assert run.status == "failed"
    found = await symphony.workflows.get_run("r/kid/deep")
    assert found.error is not None
    assert (found.error["type"], "r/kid/deep waits for r" in found.error["message"]) == ("DeadlockError", True)


async def test_a_wait_that_can_end_is_none_of_a_circle(symphony: Symphony) -> None:
    """Others may be waited for, also one that had waited for oneself before; one's own events can be looked at."""
    seen: list[str] = []

    async def first(context: RunContext) -> Any:
        return await symphony.workflows.handle(await symphony.workflows.get_run("b")).result()

    async def second(context: RunContext) -> str:
        async for event in symphony.workflows.handle(await symphony.workflows.get_run("b")).events():
            seen.append(event.name)
            if event.name == "WorkflowStepStarted":
                break
        with pytest.raises(TimeoutError):
            await symphony.workflows.handle(await symphony.workflows.get_run("c")).result(timeout_s=0.01)
        return "b"

    async def third(context: RunContext) -> Any:
        return await symphony.workflows.handle(await symphony.workflows.get_run("a")).result()

    for body in (first, second, third):
        symphony.functions.register(body.__name__, body)

    async def start(run_id: str, function: str, *before: dict[str, Any]) -> Any:
        steps = [*before, {"kind": "function", "name": "f", "function": function}]
        return await symphony.workflows.start({"name": "w", "steps": steps}, run_id=run_id, auto_checkpoint=False)

    late = await start("c", "third", wait("go"))
    handles = [await start("b", "second"), await start("a", "first")]
    async with asyncio.timeout(10):
        assert [await handle.result() for handle in handles] == ["b", "b"]
        await late.signal("go")
        assert await late.result() == "b"
    assert seen == ["WorkflowCreated", "WorkflowStarted", "WorkflowStepStarted"]


@pytest.mark.parametrize("ends", ["close", "resume"])
async def test_no_run_begins_while_all_are_being_stopped(reopen: Opener, ends: str) -> None:
    """A step that is cut off may ask for another run: it is refused, and nothing of it is on record or goes on."""
    symphony = await reopen()
    refused: list[BaseException] = []
    reached = asyncio.Event()

    async def asks_at_its_end(context: Any) -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await symphony.workflows.start({"name": "late", "steps": [{"kind": "wait", "name": "w", "signal": "go"}]}, run_id="late")
            except RunInterruptedError as error:
                refused.append(error)

    symphony.functions.register("asks_at_its_end", asks_at_its_end)
    await symphony.workflows.start({"name": "w", "steps": [{"kind": "function", "name": "a", "function": "asks_at_its_end"}]}, run_id="r")
    await reached.wait()
    if ends == "close":
        await symphony.close()
        symphony = await reopen(resume="latest")
    else:
        await symphony.resume(stop_runs=True)
    assert len(refused) == 1
    assert "is under way" in str(refused[0])
    assert symphony.entities.find("Workflow:late") is None
    assert (await symphony.workflows.start({"name": "late", "steps": []}, run_id="late")).id == "late"


@pytest.mark.parametrize("how", ["interrupted", "rewound"])
async def test_a_child_run_that_is_paused_after_an_interruption_is_waited_for(symphony: Symphony, how: str) -> None:
    """Its parent goes on and waits, until somebody resumes the child run; it does not fail of the interruption of before."""
    inner = {"name": "inner", "steps": [{"kind": "wait", "name": "go", "signal": "go"}]}
    outer = {"name": "outer", "steps": [{"kind": "workflow", "name": "kid", "definition": inner}]}
    workflows = symphony.workflows
    await workflows.start(outer, run_id="r", auto_checkpoint=False)
    async for events in symphony.log.follow():
        if any(event.metadata.step == "go" for event in events):
            break
    if how == "rewound":
        await symphony.rewind(symphony.log.head, stop_runs=True)
    else:
        await symphony.registry.get("workflow_engine").interrupt()
    await workflows.pause("r/kid")
    await workflows.recover(False, wait=False)
    seen = [0, symphony.log.head]
    while seen[-1] != seen[-2]:  # until nothing more comes
        for _ in range(5):
            await symphony.flush()
            await asyncio.sleep(0)
        seen.append(symphony.log.head)
    assert [str((await workflows.get_run(run_id)).status) for run_id in ("r", "r/kid")] == ["running", "paused"]
    await workflows.start(await workflows.get_run("r/kid"), auto_checkpoint=False)
    await workflows.signal("r/kid", "go")
    assert (await workflows.handle(await workflows.get_run("r")).wait()).status == "completed"


@pytest.mark.parametrize("again", ["a retry", "a resume"])
async def test_another_attempt_at_a_step_gives_its_child_run_all_of_its_time(symphony: Symphony, again: str) -> None:
    """What has failed by its deadline would fail of it at once, as often as it is tried: the attempts would be for nothing."""
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    begun: list[int] = []
    symphony.functions.register("work", lambda context: begun.append(context.attempt))
    work: dict[str, Any] = {"kind": "function", "name": "work", "function": "work"}
    kid = {"name": "kid", "steps": [work, wait("go")], "deadline_s": 60}
    retry = {"max_attempts": 2 if again == "a retry" else 1, "delay_s": 0}
    parent = {"name": "parent", "steps": [{"kind": "workflow", "name": "sub", "definition": kid, "retry": retry}]}
    handle = await symphony.workflows.start(parent, run_id="p", auto_checkpoint=False)
    await waiting(symphony, "p/sub", "go")
    child, first = handle.run.children["sub"], handle.run.children["sub"].deadline
    clock.advance(61)
    if again == "a resume":
        assert (await handle.wait()).status == "failed"
        handle = await symphony.workflows.start(handle.run)
    await until(lambda: child.deadline != first and child.status == "running")
    clock.advance(59)
    await symphony.workflows.signal(child, "go")
    run = await handle.wait()
    assert (run.status, child.status, begun) == ("completed", "completed", [1])
