"""The stories of the enumerated kills: a workflow, and what is asked of its run while it is under way.

Each process of a story goes on where the record is: it makes a request only where the record does not have it. So a story is the same
however many processes it takes: runs are cancelled, cleaned up and cleaned up again, taken back, rewound and forked in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from symphony_es import Symphony
from symphony_es.workflow import StepList, WorkflowDefinition, WorkflowHook, gather, run_workflow, step, step_context, wait_for_signal
from tests.acceptance.every_workflow import (
    RUN,
    Bodies,
    Counter,
    JumpClock,
    coded_resumed,
    coded_small,
    coded_undone,
    declared_all,
    declared_small,
    declared_undone,
    function,
    undoable,
)

__all__ = ["STORIES", "Asking", "Story", "go_on"]


class Asking:
    """The one who makes requests: it reads what is on record, and waits until something is."""

    def __init__(self, symphony: Symphony) -> None:
        self.symphony = symphony
        self.workflows = symphony.workflows

    async def events(self, run_id: str = RUN) -> list[Any]:
        """What is on record of a run."""
        return await self.symphony.log.read_entity(f"Workflow:{run_id}")

    async def has(self, name: str, run_id: str = RUN, step: str | None = None, *, since: str = "") -> int:
        """How many events of that name a run has; where `since` is given, after the last event of that name."""
        events = await self.events(run_id)
        first = max((number for number, event in enumerate(events) if event.name == since), default=0)
        return sum(event.name == name and step in (None, event.metadata.step) for event in events[first:])

    async def stopped(self, run: Any) -> None:
        """Wait until a run that has been asked to pause has stopped."""
        if run.status == "paused":
            await self.workflows.handle(run).wait("paused")

    async def taken_back(self, times: int) -> None:
        """Wait until the run has been taken back so often."""
        key = f"Workflow:{RUN}"
        async for events in self.symphony.log.follow():
            times -= sum(event.entity_key == key and event.name == "WorkflowRetryRequested" for event in events)
            if times <= 0:
                return

    async def begun(self, step: str, name: str = "", *, run_id: str = RUN, since: str = "") -> None:
        """Wait until a step has begun, or has an event of a name; where `since` is given, after the last event of that name."""
        key, found = f"Workflow:{run_id}", False
        async for events in self.symphony.log.follow():
            for event in events:
                if event.entity_key == key and (event.name == since or (event.metadata.step == step and name in ("", event.name))):
                    found = event.name != since
            if found:
                return

    async def begun_again(self, step: str, since: str) -> None:
        """Wait until a step has begun after the last event of a name, which is on record."""
        left, found = await self.has(since), False
        async for events in self.symphony.log.follow():
            for event in events:
                if event.entity_key == f"Workflow:{RUN}" and (event.name == since or event.metadata.step == step):
                    left, found = left - (event.name == since), event.name != since
            if found and left <= 0:
                return

    async def signal(self, name: str, payload: Any = None, run_id: str = RUN) -> None:
        """Send a signal, unless the run has got it or needs none any more."""
        run = await self.workflows.get_run(run_id)
        if run.status not in ("completed", "cancelled"):
            await self.workflows.signal(run, name, payload, signal_id=f"{name} of {run_id}")

    async def mend(self, *names: str) -> None:
        """From now on these steps do not fail any more; that is on record."""
        mended = self.symphony.entities.get("EveryEventCounter:c").mended
        mended += [name for name in names if name not in mended]
        await self.symphony.flush()

    async def recover(self) -> None:
        """Go on with what is unfinished; what executes already is left alone."""
        await self.symphony.registry.get("workflow_engine").recover(False, wait=False)

    async def ended(self, run_id: str = RUN) -> Any:
        """Wait for the end of a run."""
        return await self.workflows.handle(await self.workflows.get_run(run_id)).wait()


async def only_late(asking: Asking) -> None:
    """The signal `late`, when the step that waits for it has begun."""
    await asking.begun("late")
    await asking.signal("late", {"n": 7})


async def early_and_late(asking: Asking) -> None:
    """A signal before anybody waits for it, and one after."""
    await asking.signal("early", "bird")
    await only_late(asking)


async def nothing(asking: Asking) -> None:
    """The run ends by itself."""


def declared_cancelled(*_: Any) -> WorkflowDefinition:
    """A run that is cancelled while three child runs wait: one is cleaned up, one is stopped, one goes on by itself."""
    kid = WorkflowDefinition(
        id="kid",
        name="kid",
        steps=[undoable("reserve"), {"kind": "wait", "name": "for ever", "signal": "never"}],
        cleanup=[function("sweep", "echo")],
    )
    loose = WorkflowDefinition(
        id="loose",
        name="loose",
        steps=[function("first", "echo"), {"kind": "wait", "name": "free", "signal": "free"}, function("second", "echo")],
    )
    fan = StepList().add_workflow("kid", kid).add_workflow("stopped", kid, on_parent_end="terminate")
    fan.add_workflow("loose", loose, on_parent_end="abandon").add_wait("hold", "never")
    cleanup = StepList().add_function("refund", "flaky", retry=3).add_sleep("rest", 60)
    cleanup.add_map("tell", [1, 2], StepList().add_function("one", "echo"), max_concurrency=1).add_wait("agree").add_function(
        "sweep", "echo"
    )
    return WorkflowDefinition(
        id="cancelled",
        name="cancelled",
        steps=StepList()
        .add_step(undoable("book"))
        .add_map("each", [1, 2], {"kind": "sequence", "name": "both", "steps": [undoable("one", "item")]}, max_concurrency=1)
        .add_parallel("fan", fan)
        .to_dicts(),
        cleanup=cleanup.to_dicts(),
    )


async def cancels(asking: Asking) -> None:
    """Cancels it when all of them wait; agrees to the clean-up; frees the child run that goes on by itself."""
    await asking.begun("fan/hold")
    for kid, waits in (("kid", "for ever"), ("stopped", "for ever"), ("loose", "free")):
        await asking.begun(f"fan/{kid}")
        await asking.begun(waits, run_id=f"{RUN}/fan/{kid}")
    if not await asking.has("WorkflowCancelRequested"):
        cancelling = asyncio.ensure_future(asking.workflows.cancel(RUN, grace_s=0))
    else:
        cancelling = asyncio.ensure_future(asking.ended())
    try:
        await asking.begun("cleanup/agree")
        await asking.signal("agree", "so be it")
        await cancelling
    finally:
        cancelling.cancel()
    await asking.signal("free", None, f"{RUN}/fan/loose")
    await asking.ended(f"{RUN}/fan/loose")


def declared_refunded(*_: Any) -> WorkflowDefinition:
    """A run whose clean-up fails, and is tried again."""
    return WorkflowDefinition(
        id="refunded",
        name="refunded",
        steps=[undoable("pay"), undoable("pack"), {"kind": "wait", "name": "hold", "signal": "never"}, function("ship", "echo")],
        cleanup=[function("refund", "second"), function("tidy", "echo")],
    )


async def cleans_up_again(asking: Asking) -> None:
    """Cancels the run, and tries the step of its clean-up again that has failed."""
    await asking.begun("hold")
    if not await asking.has("WorkflowCancelRequested"):
        await asking.workflows.cancel(RUN, grace_s=0)
    run = await asking.ended()
    if run.error is not None:
        await asking.workflows.retry_from(run, "cleanup/refund", False)


def declared_resumed(*_: Any) -> WorkflowDefinition:
    """A run whose undo and clean-up fail until somebody has mended what they call."""
    return WorkflowDefinition(
        id="resumed",
        name="resumed",
        steps=StepList()
        .add_step(function("pay", "echo", undo="mended"))
        .add_step(undoable("pack"))
        .add_map("each", [1], {"kind": "sequence", "name": "both", "steps": [function("one", "item", undo="mended")]})
        .add_wait("hold", "never")
        .to_dicts(),
        cleanup=[
            function("refund", "mended"),
            {"kind": "wait", "name": "agree", "signal": "agree"},
            function("tell", "mended"),
            function("tidy", "echo"),
        ],
    )


async def resumes(asking: Asking) -> None:
    """Cancels the run; resumes its clean-up in the middle, when one half of it is mended, and after its end, when the other half is."""
    workflows, cancelled = asking.workflows, "WorkflowCancelRequested"
    if not await asking.has(cancelled):
        await asking.begun("hold")
        going = asyncio.ensure_future(workflows.cancel(RUN, grace_s=0))
    else:
        going = asyncio.ensure_future(asking.ended())
    try:
        await asking.begun("cleanup/agree")
        if not await asking.has("WorkflowResumed", since=cancelled):
            await asking.mend("pay", "refund")
            await asking.symphony.registry.get("workflow_engine").interrupt([RUN])
            await workflows.start(await workflows.get_run(RUN), auto_checkpoint=False)
        await asking.signal("agree")
        await asking.ended()
    finally:
        going.cancel()
        await asyncio.wait([going])
    if (await workflows.get_run(RUN)).error is not None:
        await asking.mend("one", "tell")
        await workflows.resume(await workflows.get_run(RUN), False)


def declared_retaken(*_: Any) -> WorkflowDefinition:
    """A run that fails twice and is taken back twice: beside a step that stays, and into the middle of a loop with child runs."""
    inner = WorkflowDefinition(id="inner", name="inner", steps=[function("first", "echo"), function("second", "echo")])
    review = StepList().add_function("charge", "echo").add_workflow("sub", inner).add_function("check", "echo")
    fan = StepList().add_function("beside", "echo").add_function("left", "second")
    return WorkflowDefinition(
        id="retaken",
        name="retaken",
        steps=StepList()
        .add_function("before", "echo")
        .add_loop("again", review, 3)
        .add_map("each", [1, 2], StepList().add_function("one", "item").add_function("two", "written"), max_concurrency=1)
        .add_parallel("fan", fan, max_concurrency=1)
        .add_function("gate", "second")
        .add_function("last", "echo")
        .to_dicts(),
    )


def takes_back(*steps: str) -> Callable[[Asking], Awaitable[None]]:
    """Takes the run back to these steps, one after the other, when it has failed."""

    async def ask(asking: Asking) -> None:
        for number, address in enumerate(steps):
            run = await asking.ended()
            if await asking.has("WorkflowRetryRequested") == number:
                await asking.workflows.retry_from(run, address, False)
            elif run.status == "failed" and number == len(steps) - 1:
                await asking.recover()

    return ask


def coded_retaken(symphony: Symphony, bodies: Bodies) -> Any:
    """The same as code."""
    inner = WorkflowDefinition(id="inner", name="inner", steps=[function("first", "echo"), function("second", "echo")])

    async def noted(name: str) -> Any:
        bodies.note(step_context())
        return await bodies.do_second(step_context()) if name in ("left", "gate") else name

    async def call(name: str) -> Any:
        return await step(noted, name, name=name)

    @symphony.workflow
    async def retaken() -> Any:
        done = [await call("before")]
        for _ in range(3):
            done += [await call("charge"), await run_workflow(inner, name="sub"), await call("check")]
        done += [await call("beside"), await gather(call("left"))]
        return [*done, await call("gate"), await call("last")]

    return retaken


def declared_rewound(*_: Any) -> WorkflowDefinition:
    """A run that is taken back in time while a child run is under way, forked, and taken back to a step."""
    inner = WorkflowDefinition(
        id="inner",
        name="inner",
        steps=[function("reserve", "echo"), {"kind": "wait", "name": "go", "signal": "go"}, function("charge", "echo")],
    )
    beside = [{"kind": "wait", "name": "reserved", "signal": "reserved"}, function("b", "echo")]
    fan = StepList().add_workflow("sub", inner).add_step({"kind": "sequence", "name": "beside", "steps": beside})
    return WorkflowDefinition(
        id="rewound",
        name="rewound",
        steps=StepList()
        .add_function("a", "echo")
        .add_parallel("fan", fan)
        .add_function("count", "count", atomic=True)
        .add_wait("late")
        .add_function("c", "echo")
        .to_dicts(),
    )


async def rewinds(asking: Asking) -> None:
    """Goes back to where the child run had reserved; forks the run at a later step; takes it back to that."""
    sub = f"{RUN}/fan/sub"
    await asking.begun("fan/beside/reserved")
    await asking.begun("go", run_id=sub)
    if not await asking.has("Rewound"):
        await asking.signal("reserved")
        await asking.begun("fan/beside/b")
        await asking.begun("fan/beside/b", "WorkflowStepCompleted")
        waits = next(event for event in await asking.events(sub) if event.metadata.step == "go")
        asked = next(event for event in await asking.events() if event.metadata.step == "fan/beside/reserved")
        await asking.symphony.rewind(max(waits.position, asked.position), stop_runs=True)
        await asking.recover()
    await asking.signal("reserved")
    await asking.signal("go", None, sub)
    await asking.begun("late", since="Rewound")
    if not await asking.events("forked"):
        await asking.workflows.fork(RUN, "late", run_id="forked")
    fork = await asking.workflows.get_run("forked")
    if fork.status == "pending":
        await asking.workflows.start(fork, auto_checkpoint=False)
    await asking.signal("late", "for the fork", "forked")
    await asking.signal("late", "for the run")
    await asking.ended("forked")
    run = await asking.ended()
    if not await asking.has("WorkflowRetryRequested"):
        await asking.workflows.retry_from(run, "c", False)


def declared_reclaimed(*_: Any) -> WorkflowDefinition:
    """A run that is undone, taken back, taken back once more without that, and undone again: in a map, a loop and a child run, too."""
    inner = WorkflowDefinition(id="inner", name="inner", steps=[undoable("first"), function("second", "echo")])
    return WorkflowDefinition(
        id="reclaimed",
        name="reclaimed",
        steps=StepList()
        .add_step(undoable("pay"))
        .add_step(undoable("pack"))
        .add_map("each", [1, 2], {"kind": "sequence", "name": "both", "steps": [undoable("one", "item")]}, max_concurrency=1)
        .add_loop("again", [undoable("turned")], 1)
        .add_workflow("sub", inner)
        .add_wait("hold", "never")
        .to_dicts(),
    )


async def reclaims(asking: Asking) -> None:
    """Cancels it, takes it back to a step that was undone, then to one that was not, and cancels it again."""
    workflows = asking.workflows
    if not await asking.has("WorkflowRetryRequested"):
        if not await asking.has("WorkflowCancelRequested"):
            await asking.begun("hold")
            await workflows.cancel(RUN, grace_s=0)
        run = await asking.ended()
        going = asyncio.ensure_future(workflows.retry_from(run, "pack", False))
    else:
        going = asyncio.ensure_future(asking.ended())
    try:
        await asking.taken_back(1)
        if await asking.has("WorkflowRetryRequested") < 2:
            await asking.begun_again("hold", since="WorkflowRetryRequested")
            run = await workflows.get_run(RUN)
            if run.status == "running":
                await workflows.pause(run)
            await asking.stopped(run)
            if await asking.has("WorkflowRetryRequested") < 2:
                going.cancel()
                going = asyncio.ensure_future(workflows.retry_from(run, "each", False))
                await asking.taken_back(2)
        await asking.begun_again("hold", since="WorkflowRetryRequested")
        if await asking.has("WorkflowCancelRequested") < 2:
            await workflows.cancel(RUN, grace_s=0)
        await asking.ended()
    finally:
        going.cancel()


def declared_reversed(*_: Any) -> WorkflowDefinition:
    """A run whose clean-up is cut by a rewind while the second of three undos is under way."""
    waits = {"kind": "wait", "signal": "refunded"}
    return WorkflowDefinition(
        id="reversed",
        name="reversed",
        steps=[
            undoable("order"),
            {**function("pay", "echo"), "undo": waits},
            undoable("pack"),
            {"kind": "wait", "name": "hold", "signal": "never"},
        ],
        cleanup=[function("tidy", "echo")],
    )


async def reverses(asking: Asking) -> None:
    """Goes back in time to before the cancellation, and cancels the run once more."""
    await asking.begun("hold")
    if not await asking.has("Rewound"):
        if not await asking.has("WorkflowCancelRequested"):
            cancelling = asyncio.ensure_future(asking.workflows.cancel(RUN, grace_s=0))
        else:
            cancelling = asyncio.ensure_future(asking.ended())
        await asking.begun("undo/pay")
        waited = next(event for event in await asking.events() if event.metadata.step == "hold")
        await asking.symphony.rewind(waited.position, stop_runs=True)
        cancelling.cancel()
        await asyncio.wait([cancelling])
        await asking.recover()
    if not await asking.has("WorkflowCancelRequested", since="Rewound"):
        cancelling = asyncio.ensure_future(asking.workflows.cancel(RUN, grace_s=0))
    else:
        cancelling = asyncio.ensure_future(asking.ended())
    try:
        await asking.begun_again("undo/pay", since="Rewound")
        await asking.signal("refunded")
        await cancelling
    finally:
        cancelling.cancel()


def coded_rewound(symphony: Symphony, bodies: Bodies) -> Any:
    """A function that charges beside something else, waits, and ships."""

    async def noted(name: str) -> Any:
        bodies.note(step_context())
        return name

    async def back(name: str) -> Any:
        bodies.note(step_context())
        undone = step_context().undoes
        assert undone is not None
        return [name, undone.status, undone.output]

    async def strand(name: str) -> Any:
        return await step(noted, name, name=name, undo=back)

    @symphony.workflow
    async def coded() -> Any:
        await step(noted, "order", name="order", undo=back)
        await gather(strand("charge"), name="both")
        await wait_for_signal("go", name="hold")
        return await step(noted, "ship", name="ship")

    return coded


async def rewinds_code(asking: Asking) -> None:
    """Goes back to before the charge, forks the run where it waits, lets the fork come to its end, and cancels the run."""
    charge, workflows = "both/0/charge", asking.workflows
    if not await asking.has("Rewound"):
        await asking.begun("hold")
        start = next(event for event in await asking.events() if event.metadata.step == charge)
        await asking.symphony.rewind(start.position - 1, stop_runs=True)
        await asking.recover()
    await asking.begun_again("hold", since="Rewound")
    if not await asking.events("forked"):
        await workflows.fork(RUN, "hold", run_id="forked")
    fork = await workflows.get_run("forked")
    if fork.status == "pending":
        await workflows.start(fork, auto_checkpoint=False)
    await asking.signal("go", None, "forked")
    await asking.ended("forked")
    if not await asking.has("WorkflowCancelRequested"):
        await workflows.cancel(RUN, grace_s=0)


class Ledger(WorkflowHook):
    """A hook that must not miss anything: it notes what it is told."""

    durable = True

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    async def _told(self, moment: Any) -> None:
        self._note(f"hook {moment.id} {moment.stage} {moment.step}")

    run_started = step_completed = step_failed = step_retried = run_completed = run_failed = run_cancelled = _told


@dataclass(frozen=True)
class Story:
    """What is told in the processes of an enumeration.

    Attributes:
        define: makes the workflow.
        ask: makes the requests.
        hooked: whether a hook is told.
    """

    define: Callable[[Symphony, Bodies], Any]
    ask: Callable[[Asking], Awaitable[None]] = nothing
    hooked: bool = False


def _plain(define: Callable[[], WorkflowDefinition]) -> Callable[..., WorkflowDefinition]:
    return lambda *_: define()


STORIES = {
    "all": Story(_plain(declared_all), early_and_late),
    "declared": Story(_plain(declared_small), only_late),
    "coded": Story(coded_small, only_late),
    "undone": Story(_plain(declared_undone)),
    "undone-code": Story(coded_undone),
    "cancelled": Story(declared_cancelled, cancels),
    "refunded": Story(declared_refunded, cleans_up_again),
    "resumed": Story(declared_resumed, resumes),
    "resumed-code": Story(coded_resumed, resumes),
    "retaken": Story(declared_retaken, takes_back("fan/left", "again/1/charge")),
    "retaken-code": Story(coded_retaken, takes_back("gather/0/left", "charge#2")),
    "rewound": Story(declared_rewound, rewinds),
    "hooked": Story(_plain(declared_small), only_late, hooked=True),
    "hooked-undone": Story(_plain(declared_undone), hooked=True),
    "reclaimed": Story(declared_reclaimed, reclaims, hooked=True),
    "reversed": Story(declared_reversed, reverses),
    "rewound-code": Story(coded_rewound, rewinds_code),
}


async def go_on(symphony: Symphony, name: str, note: Callable[[str], None]) -> None:
    """One process: goes on with a story where the record is, or begins it, and comes to its end."""
    story = STORIES[name]
    await symphony.resume()
    bodies = Bodies(symphony, note)
    bodies.register()
    engine = symphony.registry.get("workflow_engine")
    engine.clock = JumpClock()
    if story.hooked:
        engine.hooks.append(Ledger(note))
    if symphony.entities.find("EveryEventCounter:c") is None:
        symphony.entities.add(Counter(id="c"))
        await symphony.flush()
    definition = story.define(symphony, bodies)
    asking = Asking(symphony)
    await asking.recover()
    await symphony.workflows.start(definition, auto_checkpoint=False, run_id=RUN, if_exists="return")
    await story.ask(asking)
    await asking.ended()
    await symphony.flush()
