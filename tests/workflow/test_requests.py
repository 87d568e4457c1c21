"""What is asked of runs while they execute: pausing, cancelling, deadlines; and following them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import (
    ConfigurationError,
    EntityExistsError,
    EntityNotFoundError,
    IllegalTransitionError,
    RunCancelledError,
    RunFailedError,
)
from symphony_es.testing import ManualClock
from symphony_es.workflow import RunContext, RunHandle, StepList, WorkflowDefinition

TURNS = 20_000


async def until(condition: Callable[[], Any]) -> None:
    """Lets the event loop go on until something holds; a bound keeps a broken test from hanging."""
    for _ in range(TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)  # a commit takes as long as the disk takes
    raise AssertionError("it never came to that")


def clock_of(symphony: Symphony) -> ManualClock:
    """A clock that stands still, in place of the engine's."""
    clock = ManualClock()
    symphony.registry.get("workflow_engine").clock = clock
    return clock


class Gate:
    """A function step that waits until it is let go, and notes how it ended."""

    def __init__(self, symphony: Symphony, name: str = "gate") -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.ended: list[str] = []
        symphony.functions.register(name, self.body())
        symphony.functions.register("after", lambda context: self.ended.append("after"), replace=True)
        symphony.functions.register("tidy", lambda context: self.ended.append("tidy") or "tidied", replace=True)

    def body(self) -> Callable[[RunContext], Any]:
        async def gate(context: RunContext) -> str:
            self.entered.set()
            try:
                while not self.open.is_set():
                    if context.stop_requested:
                        self.ended.append("stopped by itself")
                        return "cut short"
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("went through")
            return "done"

        return gate


def definition(*, cleanup: bool = True, **options: Any) -> WorkflowDefinition:
    """A gate, and a step after it."""
    steps = StepList().add_function("gate", "gate").add_function("after", "after")
    tidying = StepList().add_function("tidy", "tidy").to_dicts() if cleanup else []
    return WorkflowDefinition(name="gated", steps=steps.to_dicts(), cleanup=tidying, **options)


async def test_pausing_lets_the_step_end_and_begins_no_other(symphony: Symphony) -> None:
    """The call returns when that is on record, `wait` when the step has ended; resuming goes on with the next step."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(definition())
    await gate.entered.wait()
    await handle.pause()
    assert handle.status == "paused"
    waiting = asyncio.create_task(handle.wait("paused"))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.open.set()
    assert await waiting is handle.run
    assert (gate.ended, handle.run.outputs) == (["went through"], {"gate": "done"})
    assert await symphony.workflows.recover() == [], "a paused run waits for someone who knows why"
    assert (await handle.resume()).status == "completed"
    assert gate.ended == ["went through", "after"]
    names = [event.name for event in await symphony.log.read_entity(f"Workflow:{handle.id}")]
    assert names.index("WorkflowPaused") < names.index("WorkflowStepCompleted") < names.index("WorkflowResumed")


@pytest.mark.parametrize("waiting", ["sleep", "wait", "backoff", "child"])
async def test_pausing_ends_the_waits_of_the_engine_at_once(symphony: Symphony, waiting: str) -> None:
    """A timer, a signal, the delay before another attempt, a child run: all that they wait for is in the log."""
    clock = clock_of(symphony)
    failed: list[int] = []

    def once(context: RunContext) -> str:
        if not failed:
            failed.append(context.attempt)
            raise ValueError("once")
        return "done"

    symphony.functions.register("once", once)
    inner = WorkflowDefinition(name="inner", steps=[{"kind": "sleep", "name": "long", "seconds": 60}])
    steps = {
        "sleep": StepList().add_sleep("s", 60),
        "wait": StepList().add_wait("s", within_s=60, default=None),
        "backoff": StepList().add_function("s", "once", retry={"delay_s": 60, "jitter": 0}),
        "child": StepList().add_workflow("s", inner),
    }[waiting]
    handle = await symphony.workflows.start(WorkflowDefinition(name="x", steps=steps.to_dicts()))
    await until(lambda: clock.sleepers)
    moment = clock.sleepers
    assert moment == [clock.now() + timedelta(seconds=60)]
    await handle.pause()
    await handle.wait("paused")
    assert clock.sleepers == []
    assert {run.status for run in await symphony.workflows.get_all_runs()} == {"paused"}
    clock.advance(30)
    going = asyncio.create_task(handle.resume())
    await until(lambda: clock.sleepers)
    assert clock.sleepers == moment, "a pause does not lengthen the wait"
    clock.advance(30)
    assert (await going).status == "completed"
    assert {run.status for run in await symphony.workflows.get_all_runs()} == {"completed"}


async def test_a_run_can_pause_and_cancel_itself(symphony: Symphony) -> None:
    """From inside a step the call returns at once, and the run stops after that step."""

    async def pauses(context: RunContext) -> str:
        await context.symphony.workflows.pause(context.run_id)
        return "paused itself"

    async def cancels(context: RunContext) -> str:
        await context.symphony.workflows.cancel(context.run_id)
        return "cancelled itself"

    Gate(symphony)
    symphony.functions.register("pauses", pauses)
    symphony.functions.register("cancels", cancels)
    steps = StepList().add_function("pauses", "pauses").add_function("cancels", "cancels").add_function("after", "after")
    run = await symphony.workflows.execute_workflow(WorkflowDefinition(name="x", steps=steps.to_dicts()))
    assert (run.status, run.outputs) == ("paused", {"pauses": "paused itself"})
    await symphony.workflows.resume(run)
    assert (run.status, list(run.outputs)) == ("cancelled", ["pauses", "cancels"])


async def test_cancelling_is_cooperative_first(symphony: Symphony) -> None:
    """A step that looks at `stop_requested` ends by itself; its output is kept, the next step does not begin, clean-up runs."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(definition())
    await gate.entered.wait()
    await handle.cancel()
    assert (handle.status, gate.ended) == ("cancelled", ["stopped by itself", "tidy"])
    assert handle.run.outputs == {"gate": "cut short", "cleanup/tidy": "tidied"}
    with pytest.raises(RunCancelledError, match=handle.id):
        await handle.result()
    with pytest.raises(IllegalTransitionError, match="is cancelled and cannot become cancelled again"):
        await handle.cancel()


async def test_cancelling_is_forced_after_the_grace(symphony: Symphony) -> None:
    """A step that does not look is cancelled when its time is up; it stays without an output."""
    ended: list[str] = []

    async def deaf(context: RunContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    gate = Gate(symphony)
    symphony.functions.register("deaf", deaf)
    steps = StepList().add_parallel("both", StepList().add_function("deaf", "deaf").add_wait("never"))
    plan = WorkflowDefinition(name="x", steps=steps.to_dicts(), cleanup=StepList().add_function("tidy", "tidy").to_dicts())
    handle = await symphony.workflows.start(plan)
    await until(lambda: "both/never" in handle.run.attempts)
    await handle.cancel(grace_s=0.01)
    assert (handle.status, ended, gate.ended) == ("cancelled", ["cancelled"], ["tidy"])
    assert list(handle.run.outputs) == ["cleanup/tidy"]


@pytest.mark.parametrize("status", ["paused", "failed", "pending", "interrupted"])
async def test_runs_that_do_not_execute_can_be_cancelled(symphony: Symphony, status: str) -> None:
    """Their clean-up steps run all the same."""
    gate = Gate(symphony)
    gate.open.set()
    if status == "failed":
        symphony.functions.register("after", lambda context: 1 / 0, replace=True)
    handle = await symphony.workflows.start(definition())
    await handle.wait()
    run = handle.run
    if status in ("pending", "paused", "interrupted"):
        run = await symphony.workflows.fork(run, "after")
    if status in ("paused", "interrupted"):
        gate.open.clear()
        gate.entered.clear()
        run = await symphony.workflows.fork(run, "gate")
        going = asyncio.create_task(symphony.workflows.resume(run))
        await gate.entered.wait()
        if status == "interrupted":
            await symphony.registry.get("workflow_engine").interrupt([run.id])
            await asyncio.gather(going, return_exceptions=True)
        else:
            pausing = asyncio.create_task(symphony.workflows.pause(run))
            await until(lambda: run.status == "paused")
            gate.open.set()
            await asyncio.gather(pausing, going)
    gate.ended.clear()
    await symphony.workflows.cancel(run)
    assert (run.status, gate.ended) == ("cancelled", ["tidy"])


async def test_a_failing_clean_up_step_does_not_keep_the_others_from_running(symphony: Symphony) -> None:
    """The run is cancelled, its error is that of the first clean-up step that failed."""
    gate = Gate(symphony)
    symphony.functions.register("bad", lambda context: 1 / 0)
    tidying = StepList().add_function("bad", "bad").add_function("tidy", "tidy")
    plan = WorkflowDefinition(name="x", steps=StepList().add_function("gate", "gate").to_dicts(), cleanup=tidying.to_dicts())
    handle = await symphony.workflows.start(plan)
    await gate.entered.wait()
    await handle.cancel()
    assert (handle.status, gate.ended) == ("cancelled", ["stopped by itself", "tidy"])
    assert handle.run.error is not None
    assert (handle.run.error["type"], handle.run.error["step"]) == ("ZeroDivisionError", "cleanup/bad")


async def test_clean_up_goes_on_after_a_crash(symphony: Symphony, reopen: Any) -> None:
    """A run that was being cancelled does not run on: the next process cleans up what is left."""
    gate = Gate(symphony)
    entered = asyncio.Event()

    async def hangs(context: RunContext) -> None:
        entered.set()
        await asyncio.Event().wait()

    symphony.functions.register("hangs", hangs)
    tidying = StepList().add_function("tidy", "tidy").add_function("last", "hangs")
    plan = WorkflowDefinition(name="x", steps=StepList().add_function("gate", "gate").to_dicts(), cleanup=tidying.to_dicts())
    handle = await symphony.workflows.start(plan)
    await gate.entered.wait()
    cancelling = asyncio.create_task(handle.cancel())
    await entered.wait()
    again = await reopen()
    await asyncio.gather(cancelling, return_exceptions=True)
    await again.resume()
    later = Gate(again)
    again.functions.register("hangs", lambda context: "did not hang")
    (run,) = await again.workflows.recover()
    assert (run.status, run.outputs["cleanup/last"], later.ended) == ("cancelled", "did not hang", [])


async def test_a_deadline_fails_a_run(symphony: Symphony) -> None:
    """When it has passed, the step under way is cancelled; a new deadline lets the run go on."""
    clock = clock_of(symphony)
    gate = Gate(symphony)
    handle = await symphony.workflows.start(definition(deadline_s=60))
    await gate.entered.wait()
    assert handle.run.deadline == clock.now() + timedelta(seconds=60)
    clock.advance(61)
    with pytest.raises(RunFailedError, match=r"DeadlineExceededError.*resume it with a new one"):
        await handle.result()
    assert (await symphony.workflows.resume(handle.run)).status == "failed", "the deadline has passed"
    gate.open.set()
    assert (await symphony.workflows.resume(handle.run, deadline_s=10)).status == "completed"


async def test_a_handle_follows_a_run(symphony: Symphony) -> None:
    """Its events come as they become durable, each once, and end with the run; `after` leaves out what is known."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start(definition(cleanup=False))
    seen: list[Any] = []
    middle = asyncio.Event()

    async def follow() -> None:
        async for event in handle.events():
            seen.append(event)
            if event.name == "WorkflowStepStarted":
                middle.set()

    following = asyncio.create_task(follow())
    await middle.wait()
    assert [event.name for event in seen] == ["WorkflowCreated", "WorkflowStarted", "WorkflowStepStarted"]
    gate.open.set()
    await following
    assert await handle.result() is None
    events = await symphony.log.read_entity(f"Workflow:{handle.id}")
    ids = [event.event_id for event in events if event.name != "WorkflowHooksTold"]
    assert [event.event_id for event in seen] == ids
    rest = [event async for event in handle.events(after=seen[3].position)]
    assert [event.event_id for event in rest] == ids[4:]
    assert (await symphony.workflows.handle(handle.id).wait()) is handle.run


async def test_an_illegal_request_names_both_states_and_appends_nothing(symphony: Symphony) -> None:
    """Of a run that has completed."""
    gate = Gate(symphony)
    gate.open.set()
    run = await symphony.workflows.execute_workflow(definition())
    head = symphony.log.head
    for request, wanted in (
        (symphony.workflows.pause(run), "paused"),
        (symphony.workflows.resume(run), "running"),
        (symphony.workflows.cancel(run), "cancelled"),
        (symphony.workflows.signal(run, "s"), "cannot take a signal"),
        (symphony.workflows.start(run), "running"),
    ):
        with pytest.raises(IllegalTransitionError, match=f"is completed and cannot become {wanted}|is completed and .*{wanted}"):
            await request
    assert symphony.log.head == head


async def test_a_run_that_executes_cannot_be_started_again(symphony: Symphony) -> None:
    """Nor taken back; a run id that is taken is refused."""
    gate = Gate(symphony)
    handle: RunHandle = await symphony.workflows.start(definition(), run_id="one")
    await gate.entered.wait()
    with pytest.raises(IllegalTransitionError, match="running in this process"):
        await symphony.workflows.start(handle.run)
    with pytest.raises(IllegalTransitionError, match="running in this process"):
        await symphony.workflows.retry_from("one", "gate")
    with pytest.raises(EntityExistsError, match="Workflow:one exists already"):
        await symphony.workflows.execute_workflow(definition(), run_id="one")
    gate.open.set()
    await handle.result()


async def test_runs_are_listed_by_filters_and_pages(symphony: Symphony) -> None:
    """Status, name, definition, parent and creation; newest first, a page after the last run of the one before."""
    clock = clock_of(symphony)
    gate = Gate(symphony)
    gate.open.set()
    runs = []
    for number in range(5):
        clock.advance(60)
        runs.append(await symphony.workflows.execute_workflow(definition(), run_id=f"r{number}"))
    inner = WorkflowDefinition(id="inner", name="inner", steps=StepList().add_function("after", "after").to_dicts())
    parent = await symphony.workflows.execute_workflow(
        WorkflowDefinition(name="outer", steps=StepList().add_workflow("child", inner).to_dicts()), run_id="p"
    )
    fork = await symphony.workflows.fork(runs[0], "after", run_id="f")
    listed = symphony.workflows.list_runs
    assert [run.id for run in await listed(limit=3)] == ["f", "p/child", "p"]
    assert [run.id for run in await listed(limit=3, after="p")] == ["r4", "r3", "r2"]
    assert [run.id for run in await listed(newest_first=False, limit=2)] == ["r0", "r1"]
    assert [await summary.load() for summary in await listed(status="pending")] == [fork]
    assert [run.id for run in await listed(status=["pending", "completed"], name="gated")] == ["f", "r4", "r3", "r2", "r1", "r0"]
    assert [run.id for run in await listed(parent=parent)] == ["p/child"]
    assert [run.id for run in await listed(definition_id="inner")] == ["p/child"]
    between = {"created_after": runs[1].created_at, "created_before": runs[4].created_at}
    assert [run.id for run in await listed(**between)] == ["r3", "r2"]
    with pytest.raises(ConfigurationError, match="statuses are pending"):
        await listed(status="done")
    with pytest.raises(ConfigurationError, match="at least one"):
        await listed(limit=0)
    with pytest.raises(EntityNotFoundError):
        await listed(after="nobody")


async def _asking(symphony: Symphony, *more: Any) -> Any:
    definition = {"name": "w", "steps": [{"kind": "wait", "name": "ask", "signal": "go"}, *more]}
    return await symphony.workflows.start(definition, run_id="asking", auto_checkpoint=False)


@pytest.mark.parametrize("when", ["waiting", "taken", "ended", "at once", "another process", "rolled back"])
async def test_a_signal_that_is_sent_twice_under_one_id_is_had_once(symphony: Symphony, reopen: Any, when: str) -> None:
    """Whatever has become of the first one; another id is another signal, and no id at all is always one."""
    handle = await _asking(symphony, *([] if when == "ended" else [{"kind": "wait", "name": "more", "signal": "more"}]))
    if when == "waiting":
        await handle.pause()
        await handle.wait("paused")
    if when == "rolled back":
        with pytest.raises(ValueError, match="undone"):
            async with symphony.transaction("Asked"):
                await handle.signal("go", 1, signal_id="a")
                raise ValueError("undone")
    await asyncio.gather(*(handle.signal("go", 1, signal_id="a") for _ in range(3 if when == "at once" else 1)))
    if when != "waiting":
        async with asyncio.timeout(5):
            while "ask" not in handle.run.outputs or (when == "ended" and handle.status != "completed"):
                await asyncio.sleep(0)
    if when == "another process":
        symphony = await reopen(resume="latest")
    await symphony.workflows.signal("asking", "go", 1, signal_id="a")
    run = await symphony.workflows.get_run("asking")
    assert [list(kept) for kept in run.signals.values()] == ([[1]] if when == "waiting" else [])
    events = await symphony.log.read_entity("Workflow:asking")
    assert [event.data for event in events if event.name == "WorkflowSignalReceived"] == [{"name": "go", "id": "a"}]
    if when == "ended":
        with pytest.raises(IllegalTransitionError):
            await symphony.workflows.signal("asking", "go", 1, signal_id="b")
    else:
        await symphony.workflows.signal("asking", "go", 2, signal_id="b")
        await symphony.workflows.signal("asking", "go", 2)
        assert list(run.signals["go"]) == ([1, 2, 2] if when == "waiting" else [2, 2])


@pytest.mark.parametrize("signal_id", ["", 7, b"a"])
async def test_a_signals_id_is_a_text(symphony: Symphony, signal_id: Any) -> None:
    """Anything else is refused; nothing has been appended."""
    handle = await _asking(symphony)
    head = symphony.log.head
    with pytest.raises(ConfigurationError, match="a signal's id is a text"):
        await handle.signal("go", signal_id=signal_id)
    assert symphony.log.head == head
