"""A run is its starter's: actor, reason and cause of what it does stay the same across crashes, whoever goes on with it."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.workflow import step


@entity(type="StarterNote")
class Note:
    id: str = ""
    text: str = ""


TWO = {
    "name": "two",
    "steps": [
        {"kind": "function", "name": "first", "function": "write"},
        {"kind": "wait", "name": "go", "signal": "go"},
        {"kind": "function", "name": "second", "function": "write"},
    ],
}


def register(symphony: Symphony) -> None:
    async def write(context: Any) -> None:
        symphony.entities.add(Note(id=f"{context.run_id}-{context.step}-{context.attempt}"))

    symphony.functions.register("write", write)

    @symphony.workflow
    async def two() -> None:
        from symphony_es.workflow import wait_for_signal

        await step(write_by_code)
        await wait_for_signal("go")
        await step(write_by_code)

    async def write_by_code() -> None:
        symphony.entities.add(Note())


async def by_acting(symphony: Symphony, what: Any) -> str:
    with symphony.acting_as("ann", reason="phone call", ticket=7):
        return (await symphony.workflows.start(what, run_id="r")).id


async def by_a_transaction(symphony: Symphony, what: Any) -> str:
    async with symphony.transaction("OrderPlaced", actor="ann", reason="phone call", ticket=7):
        return (await symphony.workflows.start(what, run_id="r")).id


async def by_both(symphony: Symphony, what: Any) -> str:
    with symphony.acting_as("ann", reason="phone call", ticket=7):
        async with symphony.transaction("OrderPlaced"):
            return (await symphony.workflows.start(what, run_id="r")).id


async def recovered_by_nobody(symphony: Symphony) -> None:
    await symphony.workflows.recover(wait=False)


async def recovered_by_another(symphony: Symphony) -> None:
    with symphony.acting_as("bob", reason="restart"):
        await symphony.workflows.recover(wait=False)


async def started_by_another(symphony: Symphony) -> None:
    with symphony.acting_as("bob", reason="restart"):
        await symphony.workflows.start("Workflow:r")


@pytest.mark.parametrize("what", [TWO, "two"], ids=["declared", "code"])
@pytest.mark.parametrize("start", [by_acting, by_a_transaction, by_both])
@pytest.mark.parametrize("go_on", [recovered_by_nobody, recovered_by_another, started_by_another])
async def test_what_a_run_does_is_its_starters(reopen: Any, what: Any, start: Any, go_on: Any) -> None:
    """Before a crash and after it, of the run and of what its steps change; who goes on with it has the event that says so alone."""
    symphony = await reopen()
    register(symphony)
    await start(symphony, what)
    async for event in symphony.workflows.handle("r").events():
        if event.metadata.step in ("go", "wait go"):
            break
    symphony = await reopen()
    register(symphony)
    await symphony.resume()
    await go_on(symphony)
    handle = symphony.workflows.handle("r")
    with symphony.acting_as("eve", reason="mail"):
        await handle.signal("go")
    await handle.wait()
    await symphony.flush()
    others = {"WorkflowSignalReceived": ("eve", "mail")}
    if go_on is not recovered_by_nobody:
        others["WorkflowResumed"] = ("bob", "restart")
    booked = [event async for page in symphony.log.read() for event in page if event.entity_key.startswith(("Workflow:", "StarterNote:"))]
    assert sum(event.entity_key.startswith("StarterNote:") for event in booked) == 2
    for event in booked:
        expected = others.get(event.name, ("ann", "phone call"))
        assert (event.metadata.actor, event.metadata.reason) == expected, event.name
        assert event.name in others or (event.metadata.user or {})["ticket"] == 7


async def test_the_cause_of_a_run_that_a_step_starts(reopen: Any) -> None:
    """The start of that step led to it: its own beginning, and what it does after a crash, say so."""
    symphony = await reopen()

    def register_outer(symphony: Symphony) -> None:
        register(symphony)

        async def begin(context: Any) -> None:
            await symphony.workflows.start(TWO, run_id="inner")

        symphony.functions.register("begin", begin)

    register_outer(symphony)
    with symphony.acting_as("ann"):
        await symphony.workflows.execute_workflow(
            {"name": "outer", "steps": [{"kind": "function", "name": "begin", "function": "begin"}]}, run_id="outer"
        )
    symphony = await reopen()
    register_outer(symphony)
    await symphony.workflows.recover(wait=False)
    await symphony.workflows.signal("inner", "go")
    await symphony.workflows.handle("inner").wait()
    outer = await symphony.log.read_entity("Workflow:outer")
    begun = next(event for event in outer if event.name == "WorkflowStepStarted")
    own = ("WorkflowCreated", "WorkflowStarted", "WorkflowResumed", "WorkflowStepStarted", "WorkflowStepCompleted", "WorkflowCompleted")
    inner = [event for event in await symphony.log.read_entity("Workflow:inner") if event.name in own]
    assert {event.name for event in inner} == set(own)
    for event in inner:
        assert (event.metadata.actor, event.metadata.cause) == ("ann", begun.event_id), event.name


async def test_a_run_that_nobody_starts_is_nobodys(symphony: Symphony) -> None:
    """Nothing is kept for it, and who goes on with it does not become its starter."""
    register(symphony)
    handle = await symphony.workflows.start(TWO)
    await handle.pause()
    await handle.wait("paused")
    with symphony.acting_as("bob"):
        await symphony.workflows.start(handle.run)
    await handle.signal("go")
    await handle.wait()
    assert "starter" not in handle.run.options
    actors = {event.name: event.metadata.actor for event in await symphony.log.read_entity(f"Workflow:{handle.id}")}
    assert (actors["WorkflowResumed"], actors["WorkflowStepCompleted"], actors["WorkflowCompleted"]) == ("bob", None, None)
