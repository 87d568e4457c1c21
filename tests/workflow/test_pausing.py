"""A request to pause is on record when the call returns, and can be taken back until the run has stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, IllegalTransitionError
from symphony_es.workflow import RunContext, RunMoment, WorkflowHook, step


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
KID = {"name": "kid", "steps": [{"kind": "wait", "name": "s", "signal": "go"}]}
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
