"""Runs that refer to an entity of which this process can make no object: no code is handed a placeholder, and nothing fails of it."""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.state import UnrestoredEntity
from symphony_es.errors import UnknownValueError
from symphony_es.workflow import RunContext, run_workflow, step, wait_for_signal
from tests.conftest import Opener


class Urgency(enum.Enum):
    LOW = "low"
    HIGH = "high"


@entity(type="UnmadeTicket")
class UnmadeTicket:
    id: str = ""
    urgency: Any = None
    seen: int = 0


async def find(context: RunContext) -> Any:
    return {"found": [context.symphony.entities.get("UnmadeTicket:1")]}


async def look(context: RunContext) -> str:
    """Use the ticket wherever it has come from."""
    for found in (context.get("ticket"), context.get("deep"), context.inputs.get("ticket"), context.inputs.get("asked")):
        while isinstance(found, (list, dict)):
            found = found[0] if isinstance(found, list) else found["ticket"]
        if found is not None:
            found.seen += 1
    if "find" in context.outputs:
        context.outputs["find"]["found"][0].seen += 1
    return "looked"


async def look_together(context: RunContext) -> str:
    """The same, in tasks of its own: what one of them raises comes out as a group, in a group."""
    async with asyncio.TaskGroup() as outer:

        async def inside() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(look(context))
                group.create_task(asyncio.sleep(0))

        outer.create_task(inside())
    return "looked"


async def look_at(ticket: Any) -> str:
    ticket.seen += 1
    return "looked"


async def fetch() -> Any:
    return TICKETS[-1]


TICKETS: list[Any] = []


def define(symphony: Symphony) -> dict[str, Any]:
    """Runs that have the ticket by the time that they wait for `go`, and use it after that."""
    for function in (find, look, look_together):
        symphony.functions.register(function.__name__, function)

    def waits(*, first: bool = False, **inputs: Any) -> Any:
        builder = symphony.build_workflow("unmade")
        if first:
            builder.add_function("find", "find")
        return builder.add_wait("go").add_function("look", "look", inputs=inputs).build()

    together = symphony.build_workflow("unmade").add_function("find", "find").add_wait("go").add_function("look", "look_together").build()

    @symphony.workflow(name="unmade-argument")
    async def argument(ticket: Any) -> str:
        await wait_for_signal("go")
        return await step(look_at, ticket)

    @symphony.workflow(name="unmade-output")
    async def output() -> str:
        ticket = await step(fetch)
        await wait_for_signal("go")
        return await step(look_at, ticket)

    @symphony.workflow(name="unmade-signal")
    async def signal() -> str:
        await wait_for_signal("go")
        return await step(look_at, (await wait_for_signal("ticket"))["ticket"])

    @symphony.workflow(name="unmade-parent")
    async def parent(ticket: Any) -> str:
        return await run_workflow(argument, {"ticket": ticket})

    return {
        "context": waits(), "deep": waits(), "template": waits(ticket="{{ticket}}"), "earlier": waits(first=True), "together": together,
        "argument": argument, "output": output, "signal": signal, "child": parent,
    }  # fmt: skip


GIVEN = {"context": "ticket", "template": "ticket", "argument": "ticket", "child": "ticket", "deep": "deep"}


async def open_again(reopen: Opener, *, knows: bool = False) -> tuple[Symphony, dict[str, Any]]:
    symphony = await reopen()
    if knows:
        symphony.types.alias("gone.module:Urgency", Urgency)
    flows = define(symphony)
    await symphony.resume()
    return symphony, flows


async def begin(kind: str, reopen: Opener) -> str:
    """A run that waits; returns the id of the one that waits for `go`."""
    symphony = await reopen()
    symphony.types.register(Urgency, "gone.module:Urgency")
    flows = define(symphony)
    ticket = symphony.entities.add(UnmadeTicket(id="1", urgency=Urgency.LOW))
    TICKETS.append(ticket)
    value = [{"ticket": ticket}] if kind == "deep" else ticket
    handle = await symphony.workflows.start(flows[kind], {GIVEN[kind]: value} if kind in GIVEN else None, run_id="r")
    if kind == "signal":
        await symphony.workflows.signal("r", "ticket", {"ticket": ticket})
    waiting = None
    while waiting is None:
        await asyncio.sleep(0)
        waiting = next((run for run in symphony.workflows._engine.runs() if any("go" in at for at in run.attempts)), None)
    await symphony.flush()
    del handle
    return waiting.id


@pytest.mark.parametrize("kind", ["context", "deep", "template", "earlier", "argument", "output", "signal", "child"])
async def test_a_run_waits_for_who_knows_the_class(kind: str, reopen: Opener, caplog: pytest.LogCaptureFixture) -> None:
    waiting = await begin(kind, reopen)
    symphony, _ = await open_again(reopen)
    assert isinstance(symphony.entities.get("UnmadeTicket:1"), UnrestoredEntity)
    head = symphony.log.head
    with caplog.at_level(logging.WARNING):
        report = await symphony.workflows.recover(wait=False)
    assert {left.run_id: left.missing for left in report.missing} == {"r": ("class gone.module:Urgency",)}
    assert "symphony.types.alias('gone.module:Urgency', Urgency)" in report.missing[0].reason
    assert (report.handles, report.blocked) == ([], [])
    assert "run_needs_what_is_missing" in caplog.text
    for ask in (symphony.workflows.resume, symphony.workflows.start):
        with pytest.raises(UnknownValueError, match=r"symphony\.types\.alias\('gone\.module:Urgency', Urgency\)"):
            await ask(symphony.entities.get("Workflow:r"))
    assert symphony.log.head == head, "it is nobody's event"
    await symphony.workflows.signal(waiting, "go")
    await asyncio.sleep(0.05)
    assert (await symphony.workflows.get_run("r")).status == "running"
    symphony, _ = await open_again(reopen, knows=True)
    await symphony.workflows.recover()
    assert (await symphony.workflows.get_run("r")).result == "looked"
    assert symphony.entities.get("UnmadeTicket:1").seen >= 1


async def test_a_run_is_not_begun_with_a_placeholder(reopen: Opener) -> None:
    await begin("signal", reopen)
    symphony, flows = await open_again(reopen)
    head = symphony.log.head
    kept = symphony.entities.get("UnmadeTicket:1")
    with pytest.raises(UnknownValueError, match="gone"):
        await symphony.workflows.start(flows["context"], {"ticket": kept})
    assert symphony.log.head == head


@pytest.mark.parametrize("kind", ["earlier", "together", "output"])
async def test_what_a_step_has_asked_for_itself_is_handed_to_no_other(kind: str, reopen: Opener) -> None:
    """`entities.get` gives it to whoever asks; the run stops in front of the code that did not ask."""
    await begin("signal", reopen)
    symphony, flows = await open_again(reopen)
    TICKETS.append(symphony.entities.get("UnmadeTicket:1"))
    handle = await symphony.workflows.start(flows[kind], run_id="asks")
    with pytest.raises(UnknownValueError, match=r"symphony\.types\.alias"):
        await symphony.workflows.signal("asks", "go")
        await handle.result()
    assert (await symphony.workflows.get_run("asks")).status == "running"
    del handle
    symphony, _ = await open_again(reopen, knows=True)
    report = await symphony.workflows.recover(wait=False)
    assert await next(handle for handle in report.handles if handle.run_id == "asks").result() == "looked"


async def test_what_nothing_of_a_run_refers_to_stops_no_run(reopen: Opener) -> None:
    symphony = await reopen()
    symphony.types.register(Urgency, "gone.module:Urgency")
    symphony.entities.add(UnmadeTicket(id="1", urgency=Urgency.LOW))
    await symphony.workflows.start(define(symphony)["context"], run_id="r")
    await symphony.flush()
    symphony, _ = await open_again(reopen)
    await symphony.workflows.signal("r", "go")
    report = await symphony.workflows.recover(wait=False)
    assert not report.missing
    for handle in report.handles:
        assert await handle.result() == "looked"
