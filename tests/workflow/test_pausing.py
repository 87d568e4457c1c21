"""A request to pause is on record when the call returns, and can be taken back until the run has stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, DeadlockError, IllegalTransitionError, RunsInProgressError
from symphony_es.workflow import RunContext, RunMoment, WorkflowHook, step
from symphony_es.workflow.engine.drive import A_BEGINNING
from symphony_es.workflow.engine.turns import Turns
from tests.conftest import Opener


class Gate:
    """A step that stands still until it is let through, and what has been called."""

    def __init__(self, symphony: Symphony) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()
        self.called: list[str] = []
        for name in ("gate", "after", "beside"):
            symphony.functions.register(name, getattr(self, name))

    async def gate(self, context: RunContext) -> str:
        """Waits."""
        self.called.append("gate")
        self.entered.set()
        await self.open.wait()
        return "through"

    async def after(self, context: RunContext) -> str:
        """Comes next."""
        self.called.append("after")
        return "after"

    async def beside(self, context: RunContext) -> str:
        """Stands beside it."""
        self.called.append("beside")
        return "beside"


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": name, **more}


PLAIN = {"name": "w", "steps": [function("gate"), function("after")]}
CHILD = {"name": "w", "steps": [{"kind": "workflow", "name": "kid", "definition": PLAIN}]}
KID: dict[str, Any] = {"name": "kid", "steps": [{"kind": "wait", "name": "s", "signal": "go"}]}
PARENT = {"name": "w", "steps": [{"kind": "workflow", "name": "kid", "definition": KID}]}
BESIDE = {
    "name": "w",
    "steps": [
        {
            "kind": "parallel",
            "name": "fan",
            "branches": [
                function("gate"),
                {"kind": "sequence", "name": "timed", "steps": [{"kind": "sleep", "name": "nap", "seconds": 0.001}, function("beside")]},
                {"kind": "workflow", "name": "kid", "definition": KID},
            ],
        },
        function("after"),
    ],
}


@pytest.mark.parametrize("definition", [PLAIN, BESIDE, CHILD], ids=["alone", "beside waits", "in a child run"])
async def test_a_request_that_is_taken_back_costs_no_step_anything(symphony: Symphony, definition: dict[str, Any]) -> None:
    """The step under way ends once, waits that the pause has ended are taken up again, and whoever waits gets the end."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(definition, auto_checkpoint=False)
    result = asyncio.create_task(handle.result())
    await gate.entered.wait()
    await handle.pause()
    assert handle.status == "paused"
    going = asyncio.create_task(handle.resume())
    while handle.status != "running":
        await asyncio.sleep(0)
    assert not going.done()
    run = handle.run
    gate.open.set()
    if definition is BESIDE:
        while not (kids := [child for child in run.children.values() if child.status == "running"]):
            await asyncio.sleep(0.001)
        await symphony.workflows.signal(kids[0], "go")
    assert (await going).status == "completed"
    await result
    assert gate.called == (["gate", "beside", "after"] if definition is BESIDE else ["gate", "after"])


@pytest.mark.parametrize("definition", [PLAIN, CHILD], ids=["alone", "in a child run"])
async def test_taking_back_at_any_turn_leaves_no_run_that_nobody_drives(symphony: Symphony, definition: dict[str, Any]) -> None:
    """A pause and a resume that many turns apart; the run completes, and each step is done once."""

    class Slow(WorkflowHook):
        async def run_paused(self, moment: RunMoment) -> None:
            for _ in range(5):
                await asyncio.sleep(0)

    gate = Gate(symphony)
    for turns in range(60):
        gate.open.clear()
        gate.entered.clear()
        gate.called.clear()
        handle = await symphony.workflows.start(definition, hooks=[Slow()], auto_checkpoint=False)
        await gate.entered.wait()
        await handle.pause()
        asyncio.get_running_loop().call_soon(gate.open.set)
        for _ in range(turns):
            await asyncio.sleep(0)
        run = await asyncio.wait_for(handle.resume(), 10)
        assert (run.status, gate.called) == ("completed", ["gate", "after"]), turns


@pytest.mark.parametrize("turns", range(12))
async def test_start_takes_it_back_as_well(symphony: Symphony, turns: int) -> None:
    """In the background; also while the run stops, and where it has."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(PLAIN, auto_checkpoint=False)
    await gate.entered.wait()
    await handle.pause()
    asyncio.get_running_loop().call_soon(gate.open.set)
    for _ in range(turns):
        await asyncio.sleep(0)
    again = await symphony.workflows.start(handle.run)
    assert (await asyncio.wait_for(again.wait(), 10)).status == "completed"
    assert gate.called == ["gate", "after"]


async def test_a_step_may_ask_for_both(symphony: Symphony) -> None:
    """From inside the run neither waits for the run's end."""
    called: list[str] = []

    async def both(context: RunContext) -> None:
        called.append("both")
        await symphony.workflows.pause(context.run_id)
        await symphony.workflows.resume(context.run_id)

    async def after(context: RunContext) -> None:
        called.append("after")

    symphony.functions.register("both", both)
    symphony.functions.register("after", after)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [function("both"), function("after")]}, auto_checkpoint=False)
    assert (run.status, called) == ("completed", ["both", "after"])


async def test_code_goes_on_as_well(symphony: Symphony) -> None:
    """A function is run again over what is on record; its step under way ends once."""
    gate, called = asyncio.Event(), list[str]()

    async def stand() -> str:
        called.append("stand")
        await gate.wait()
        return "stood"

    @symphony.workflow
    async def code() -> str:
        return await step(stand)

    handle = await symphony.workflows.start(code, auto_checkpoint=False)
    while not called:
        await asyncio.sleep(0)
    await handle.pause()
    going = asyncio.create_task(handle.resume())
    while handle.status != "running":
        await asyncio.sleep(0)
    gate.set()
    assert (await going).status == "completed"
    assert (called, handle.run.result) == (["stand"], "stood")


@pytest.mark.parametrize("later", ["cancel", "pause"])
async def test_what_is_asked_last_counts(symphony: Symphony, later: str) -> None:
    """A request after the one that was taken back is carried out."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(PLAIN, auto_checkpoint=False)
    await gate.entered.wait()
    await handle.pause()
    going = asyncio.create_task(handle.resume())
    while handle.status != "running":
        await asyncio.sleep(0)
    asking = asyncio.create_task(getattr(handle, later)())
    while handle.status == "running":
        await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(asking, going, return_exceptions=True)
    await handle.wait()
    assert handle.status == ("cancelled" if later == "cancel" else "paused")
    assert "after" not in gate.called


async def test_what_needs_the_run_to_stand_still_waits_for_that(symphony: Symphony) -> None:
    """`retry_from` and a resume that changes something come after the step under way; other requests say what to wait for."""
    gate = Gate(symphony)
    for number, request in enumerate(("retry_from", "resume with a hook", "resume with a definition")):
        gate.open.clear()
        gate.entered.clear()
        handle = await symphony.workflows.start(PLAIN, run_id=f"r{number}", auto_checkpoint=False)
        await gate.entered.wait()
        await handle.pause()
        if request == "retry_from":
            asked = asyncio.create_task(symphony.workflows.retry_from(handle.run, "gate", auto_checkpoint=False))
        elif request == "resume with a hook":
            asked = asyncio.create_task(symphony.workflows.resume(handle.run, hooks=[WorkflowHook()]))
        else:
            asked = asyncio.create_task(symphony.workflows.resume(handle.run, definition=PLAIN))
        for _ in range(5):
            await asyncio.sleep(0)
        assert handle.status == "paused"
        gate.open.set()
        assert (await asked).status == "completed"


@pytest.mark.parametrize("other", ["resume", "cancel", "resume, then pause"])
@pytest.mark.parametrize("request_", ["retry_from", "resume with a hook"])
async def test_what_waits_for_a_stop_that_no_longer_comes_is_refused(symphony: Symphony, request_: str, other: str) -> None:
    """At once, and is not carried out when the run has ended, on its own or by the cancellation: what was asked last counts."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(PLAIN, run_id="r", auto_checkpoint=False)
    await gate.entered.wait()
    await handle.pause()
    if request_ == "retry_from":
        asked = asyncio.create_task(symphony.workflows.retry_from(handle.run, "gate", auto_checkpoint=False))
    else:
        asked = asyncio.create_task(symphony.workflows.resume(handle.run, hooks=[WorkflowHook()]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asked.done()
    going = asyncio.create_task(handle.cancel() if other == "cancel" else handle.resume())
    async with asyncio.timeout(5):
        with pytest.raises(IllegalTransitionError, match="another request came"):
            await asked
    if other == "resume, then pause":
        await handle.pause()
        asked = asyncio.create_task(symphony.workflows.resume(handle.run, hooks=[WorkflowHook()]))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.done(), "this one waits for the second pause"
    gate.open.set()
    await asyncio.gather(going, *([asked] if other == "resume, then pause" else []))
    await handle.wait()
    assert handle.status == ("cancelled" if other == "cancel" else "completed")
    assert gate.called.count("gate") == 1


async def test_statuses_that_there_are_not_are_refused(symphony: Symphony) -> None:
    """`wait` names those that there are; a run that has ended is not waited for."""
    gate = Gate(symphony)
    gate.open.set()
    handle = await symphony.workflows.start(PLAIN, auto_checkpoint=False)
    with pytest.raises(ConfigurationError, match="paused"):
        await handle.wait("pausd")
    assert (await handle.wait("paused")).status == "completed"
    with pytest.raises(IllegalTransitionError):
        await handle.pause()


async def interrupted(reopen: Opener, *definitions: dict[str, Any]) -> Symphony:
    """A process that has resumed and recovered nothing yet; the one before has left a run of each definition that waits for `go`."""
    symphony = await reopen()
    for number, definition in enumerate(definitions):
        await symphony.workflows.start(definition, run_id=f"r{number}", auto_checkpoint=False)
    await waiting(symphony)
    return await reopen(resume="latest")


async def waiting(symphony: Symphony) -> None:
    """A run waits for its signal."""
    async for events in symphony.log.follow():
        if any(event.metadata.step == "s" for event in events):
            return


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("limit", [None, 1], ids=["", "queued"])
async def test_a_run_that_is_paused_before_it_goes_on_stays_paused(turns: int, limit: int | None, reopen: Opener) -> None:
    """`recover` has decided by then that they go on, and has not begun to drive them; `resume` does so afterwards."""
    symphony = await interrupted(reopen, KID, KID)
    workflows = symphony.workflows
    workflows.max_concurrent_runs = limit
    report = await workflows.recover(wait=False)
    for _ in range(turns):
        await asyncio.sleep(0)
    for handle in report.handles:
        await handle.pause()
    async with asyncio.timeout(5):
        assert [(await handle.wait("paused")).status for handle in report.handles] == ["paused", "paused"]
        workflows.max_concurrent_runs = None
        for handle in report.handles:
            await handle.signal("go")
            assert (await handle.resume()).status == "completed"


@pytest.mark.parametrize("limit", [None, 1], ids=["", "queued"])
async def test_a_pause_before_a_run_goes_on_can_be_taken_back(limit: int | None, reopen: Opener) -> None:
    """Before anything drives it: it goes on then, and a second pause holds as well."""
    symphony = await interrupted(reopen, KID, KID)
    symphony.workflows.max_concurrent_runs = limit
    first, second = (await symphony.workflows.recover(wait=False)).handles
    await second.pause()
    await symphony.workflows.start(second.run)
    await second.pause()
    async with asyncio.timeout(5):
        assert (await second.wait("paused")).status == "paused"
        await symphony.workflows.start(second.run)
        for handle in (first, second):
            await handle.signal("go")
            assert (await handle.wait()).status == "completed"


async def test_a_drained_run_that_is_paused_before_it_goes_on_stays_paused(reopen: Opener) -> None:
    """The request to stop for the next process is the earlier one, and hides that to pause from the run; what is on record counts."""
    symphony = await interrupted(reopen, KID)
    (handle,) = (await symphony.workflows.recover(wait=False)).handles
    (active,) = symphony.registry.get("workflow_engine").active.all()
    active.drive.stop_at_boundary()  # as a drain in another thread does
    await handle.pause()
    await symphony.workflows.drain()
    assert handle.status == "paused"


async def test_hooks_are_told_of_a_pause_before_the_run_goes_on(reopen: Opener) -> None:
    """Once, and not that it goes on."""
    told: list[str] = []

    class Told(WorkflowHook):
        async def run_resumed(self, moment: RunMoment) -> None:
            told.append(moment.stage)

        async def run_paused(self, moment: RunMoment) -> None:
            told.append(moment.stage)

    symphony = await interrupted(reopen, KID)
    (handle,) = (await symphony.workflows.recover(wait=False, hooks=[Told()])).handles
    await handle.pause()
    await handle.wait("paused")
    assert told == ["run_paused"]


async def test_a_parent_that_is_paused_before_it_goes_on_leaves_no_child_run_behind(reopen: Opener) -> None:
    """Both are paused, and both go on by a resume of the parent."""
    symphony = await interrupted(reopen, PARENT)
    (handle,) = (await symphony.workflows.recover(wait=False)).handles
    await handle.pause()
    async with asyncio.timeout(5):
        await handle.wait("paused")
        assert [(await symphony.workflows.get_run(run_id)).status for run_id in ("r0", "r0/kid")] == ["paused", "paused"]
        await symphony.workflows.signal("r0/kid", "go")
        assert (await handle.resume()).status == "completed"


@pytest.mark.parametrize("child", ["new", "paused with it", "failed"])
async def test_a_child_run_that_is_about_to_begin_does_not_below_a_paused_parent(
    child: str, symphony: Symphony, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for its turn while its parent is paused; it begins when that goes on. That it was held back is no failure of it."""
    workflows, engine = symphony.workflows, symphony.registry.get("workflow_engine")
    fails = [OSError("once")] if child == "failed" else []
    waits, turn = asyncio.Event(), asyncio.Event()

    def frail(context: RunContext) -> None:
        if fails:
            raise fails.pop()

    symphony.functions.register("frail", frail)
    kid = {"name": "kid", "steps": [function("frail"), *KID["steps"]]}
    retried = {"kind": "workflow", "name": "kid", "definition": kid, "retry": {"max_attempts": 2}}
    definition = {"name": "w", "steps": [retried]}
    take, beginnings = Turns.take, 0

    async def late(self: Turns, portions: int = 1) -> None:
        nonlocal beginnings
        beginnings += portions == A_BEGINNING
        if portions == A_BEGINNING and beginnings == {"new": 2, "paused with it": 2, "failed": 3}[child]:
            waits.set()
            await turn.wait()
        await take(self, portions)

    if child == "paused with it":
        handle = await workflows.start(definition, run_id="r", auto_checkpoint=False)
        await waiting(symphony)
        await handle.pause()
        await handle.wait("paused")
        monkeypatch.setattr(Turns, "take", late)
        await workflows.start(handle.run)
    else:
        monkeypatch.setattr(Turns, "take", late)
        handle = await workflows.start(definition, run_id="r", auto_checkpoint=False)
    async with asyncio.timeout(5):
        await waits.wait()
        await handle.pause()
        for _ in range(20):
            await asyncio.sleep(0)
        turn.set()
        await handle.wait("paused")
        await symphony.flush()
        assert engine.active_runs == []
        assert [run.status for run in await workflows.list_runs(parent="r")] not in (["running"], ["pending"])
        going = asyncio.create_task(handle.resume())
        while not [run for run in await workflows.list_runs(parent="r") if run.status == "running"]:
            await asyncio.sleep(0)
        await workflows.signal("r/kid", "go")
        assert (await going).status == "completed"
    assert "workflow_run_stopped" not in caplog.text


async def test_a_run_that_is_paused_while_it_is_taken_back_stays_paused(symphony: Symphony) -> None:
    """The taking back is on record, and being made durable: what is acknowledged from then on holds, and the call returns."""
    workflows = symphony.workflows
    handle = await workflows.start(KID, run_id="r", auto_checkpoint=False)
    await handle.pause()
    await handle.wait("paused")
    retried = asyncio.create_task(workflows.retry_from("r", "s", deadline_s=60))
    while handle.status != "running":
        await asyncio.sleep(0)
    assert not symphony.registry.get("workflow_engine").active_runs
    await handle.pause()
    async with asyncio.timeout(5):
        assert (await retried).status == "paused"
        assert handle.run.deadline is not None
        await handle.signal("go")
        assert (await handle.resume()).status == "completed"


async def test_a_run_that_is_paused_while_its_definition_changes_stays_paused(reopen: Opener) -> None:
    """As while it is taken back: the change is on record, and being made durable."""
    symphony = await interrupted(reopen, KID)
    handle = symphony.workflows.handle("r0")
    changed = {**KID, "steps": [*KID["steps"], {"kind": "wait", "name": "more", "signal": "go"}]}
    resumed = asyncio.create_task(symphony.workflows.resume("r0", definition=changed, deadline_s=60))
    while len(handle.run.definition.plan) == 1:
        await asyncio.sleep(0)
    await handle.pause()
    async with asyncio.timeout(5):
        assert (await resumed).status == "paused"
    assert handle.run.deadline is not None


async def test_a_run_that_is_cancelled_before_it_is_queued_is_cancelled(symphony: Symphony) -> None:
    """Whoever has started it again is not told that something went wrong inside."""
    workflows = symphony.workflows
    workflows.max_concurrent_runs = 1
    handle = await workflows.start(KID, auto_checkpoint=False)
    await handle.pause()
    await handle.wait("paused")
    other = await workflows.start(KID, auto_checkpoint=False)
    started = asyncio.create_task(workflows.start(handle.run))
    await asyncio.sleep(0)
    assert handle.run.id in symphony.registry.get("workflow_engine").active_runs
    async with asyncio.timeout(5):
        assert (await handle.cancel()).status == "cancelled"
        await started
    await other.cancel()


OWN: dict[str, tuple[Any, type[Exception], str]] = {
    "close": (lambda symphony, handle: symphony.close(), RunsInProgressError, "make it from outside"),
    "leave the block": (lambda symphony, handle: symphony.__aexit__(None, None, None), RunsInProgressError, "make it from outside"),
    "rewind": (lambda symphony, handle: symphony.resume(), RunsInProgressError, "make it from outside"),
    "wait": (lambda symphony, handle: handle.wait("paused"), DeadlockError, "return, and wait for it from outside"),
    "resume": (lambda symphony, handle: handle.resume(), IllegalTransitionError, "make it from outside"),
    "retry": (lambda symphony, handle: symphony.workflows.retry_from(handle.run, "ask"), IllegalTransitionError, "make it from outside"),
}


@pytest.mark.parametrize("by", ["step", "code", "hook"])
@pytest.mark.parametrize("asks", OWN)
async def test_what_needs_the_end_of_a_run_is_refused_inside_of_it(symphony: Symphony, asks: str, by: str) -> None:
    """At once, by an error that says what to do; nothing has been done, and the run comes to its end."""
    call, kind, said = OWN[asks]
    told: list[Exception] = []

    async def ask() -> str:
        try:
            await call(symphony, symphony.workflows.handle("r"))
        except (RunsInProgressError, DeadlockError, IllegalTransitionError) as error:
            told.append(error)
        return "asked"

    class Asks(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            await ask()

    async def nothing() -> str:
        return "asked"

    @symphony.workflow(name="asks")
    async def asking() -> str:
        if by == "code":
            await ask()
        return await step(ask if by == "step" else nothing, name="ask")

    hooks = [Asks()] if by == "hook" else []
    handle = await symphony.workflows.start(asking, run_id="r", auto_checkpoint=False, hooks=hooks)
    async with asyncio.timeout(10):
        assert await handle.result() == "asked"
    assert [type(error) for error in told] == [kind]
    assert said in str(told[0])


async def test_a_step_pauses_its_own_run(symphony: Symphony) -> None:
    """The call returns, the step comes to its end, and the run stops behind it."""

    async def ask() -> None:
        await symphony.workflows.pause("r")

    async def last() -> str:
        return "gone on"

    @symphony.workflow(name="pauses")
    async def pauses() -> str:
        await step(ask)
        return await step(last)

    handle = await symphony.workflows.start(pauses, run_id="r", auto_checkpoint=False)
    async with asyncio.timeout(10):
        await handle.wait("paused")
        assert list(handle.run.outputs) == ["ask"]
        await handle.resume()
        assert await handle.result() == "gone on"
