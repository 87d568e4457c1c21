"""Stopping runs: cancellations, pauses, timeouts and failing hooks leave nothing behind that runs on, or waits for ever."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, EntityNotFoundError, RunInterruptedError
from symphony_es.workflow import RunContext, RunMoment, WorkflowHook


def function(name: str, body: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": body or name, **more}


def child(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "workflow", "name": name, "definition": {"name": name, "steps": list(steps)}, **more}


def parallel(*branches: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "parallel", "name": "fan", "branches": list(branches), **more}


WAIT: dict[str, Any] = {"kind": "wait", "name": "wait", "signal": "go"}
NAP: dict[str, Any] = {"kind": "sleep", "name": "nap", "seconds": 0}


async def until(condition: Any) -> None:
    """Returns when a condition holds; fails after five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


class Bodies:
    """Functions of steps, and what they did."""

    def __init__(self, symphony: Symphony) -> None:
        self.done: list[str] = []
        for name in ("stubborn", "slow_to_end", "note", "long", "short"):
            symphony.functions.register(name, getattr(self, name))

    async def stubborn(self, context: RunContext) -> str:
        """Catches its cancellation, and returns."""
        self.done.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "partial"
        return "whole"

    async def slow_to_end(self, context: RunContext) -> None:
        """Takes a while to end after its cancellation."""
        self.done.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            self.done.append("ended")

    async def note(self, context: RunContext) -> None:
        self.done.append(context.step)

    async def long(self, context: RunContext) -> None:
        await asyncio.sleep(0.3)

    async def short(self, context: RunContext) -> None:
        self.done.append(context.step)
        await asyncio.sleep(0.01)


@pytest.fixture
def bodies(symphony: Symphony) -> Bodies:
    """The functions, registered."""
    return Bodies(symphony)


def engine_of(symphony: Symphony) -> Any:
    return symphony.registry.get("workflow_engine")


async def test_two_interruptions_wait_for_the_same_step(symphony: Symphony, bodies: Bodies) -> None:
    """The second one does not return before the step has ended either: the run could be started beside it."""
    handle = await symphony.workflows.start({"name": "w", "steps": [function("slow_to_end")]}, auto_checkpoint=False)
    await until(lambda: bodies.done)
    first = asyncio.ensure_future(engine_of(symphony).interrupt())
    await asyncio.sleep(0.02)
    await engine_of(symphony).interrupt()
    assert bodies.done == ["begun", "ended"]
    await first
    assert (handle.status, engine_of(symphony).active_runs) == ("running", [])


async def test_branches_that_end_slowly_are_waited_for_by_every_cancellation(symphony: Symphony, bodies: Bodies) -> None:
    """A timeout is ending the branches when the call is cancelled, too."""
    definition = {"name": "w", "steps": [parallel(function("a", "slow_to_end"), function("b", "slow_to_end"), timeout_s=0.5)]}
    call = asyncio.ensure_future(symphony.workflows.execute_workflow(definition, auto_checkpoint=False))
    await until(lambda: len(bodies.done) == 2)
    await asyncio.sleep(0.55)
    call.cancel()
    await asyncio.wait({call})
    assert sorted(bodies.done) == ["begun", "begun", "ended", "ended"]


async def test_a_step_that_swallows_its_cancellation_does_not_switch_off_a_timeout(symphony: Symphony, bodies: Bodies) -> None:
    """The steps after it do not begin; the timeout is on record."""
    steps = [function("stubborn"), *[function(f"n{number}", "note") for number in range(3)]]
    run = await symphony.workflows.execute_workflow(
        {"name": "w", "steps": [{"kind": "sequence", "name": "all", "timeout_s": 0.5, "steps": steps}]}, auto_checkpoint=False
    )
    assert (run.status, run.error["type"]) == ("failed", "StepTimeoutError")  # type: ignore[index]
    assert bodies.done == ["begun"]
    assert run.outputs["all/stubborn"] == "partial"


async def test_a_step_that_swallows_its_cancellation_does_not_switch_off_an_interruption(symphony: Symphony, bodies: Bodies) -> None:
    """What it gave is on record, and no other step begins."""
    steps = [function("stubborn"), *[function(f"n{number}", "note") for number in range(3)]]
    handle = await symphony.workflows.start({"name": "w", "steps": steps}, auto_checkpoint=False)
    await until(lambda: bodies.done)
    await engine_of(symphony).interrupt()
    assert (bodies.done, handle.status, dict(handle.run.outputs)) == (["begun"], "running", {"stubborn": "partial"})
    await symphony.workflows.resume(handle.run, auto_checkpoint=False)
    assert bodies.done == ["begun", "n0", "n1", "n2"]


@pytest.mark.parametrize("request_", ["pause", "cancel"])
async def test_child_runs_are_told_at_once(symphony: Symphony, bodies: Bodies, request_: str) -> None:
    """While a step of the parent is still under way, its child run begins no other step."""
    steps = [function(f"s{number}", "short") for number in range(60)]
    definition = {"name": "w", "steps": [parallel(function("long"), child("kid", *steps), child("other", function("long")))]}
    handle = await symphony.workflows.start(definition, auto_checkpoint=False)
    await until(lambda: len(bodies.done) > 2)
    begun = len(bodies.done)
    await getattr(handle, request_)()
    assert len(bodies.done) <= begun + 1
    assert (
        {run.status for run in handle.run.children.values()} == {handle.status} == {f"{request_}d" if request_ == "pause" else "cancelled"}
    )


async def test_the_grace_of_a_cancellation_is_that_of_its_child_runs(symphony: Symphony, bodies: Bodies) -> None:
    """A child's step that does not look at `stop_requested` is cancelled as soon as one of the run's own."""
    handle = await symphony.workflows.start({"name": "w", "steps": [child("kid", function("slow_to_end"))]}, auto_checkpoint=False)
    await until(lambda: bodies.done)
    began = time.monotonic()
    await handle.cancel(grace_s=0.05)
    assert time.monotonic() - began < 5
    assert (handle.status, handle.run.children["kid"].status) == ("cancelled", "cancelled")


async def test_a_child_run_that_was_given_up_is_cancelled_when_its_parent_completes(symphony: Symphony) -> None:
    """Its time was up and the parent went on: nobody would ever take it up again."""
    definition = {"name": "w", "steps": [parallel(child("kid", WAIT, timeout_s=0.05), on_error="collect")]}
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.status, run.children["fan/kid"].status) == ("completed", "cancelled")


async def test_a_child_run_whose_parent_has_ended_is_recovered_by_itself(symphony: Symphony) -> None:
    """It was retried after its parent had completed, and interrupted."""
    handle = await symphony.workflows.start({"name": "w", "steps": [child("kid", WAIT)]}, auto_checkpoint=False)
    await until(lambda: "kid" in handle.run.children)
    kid = handle.run.children["kid"]
    await symphony.workflows.signal(kid, "go")
    await handle.wait()
    retried = asyncio.ensure_future(symphony.workflows.retry_from(kid, "wait", auto_checkpoint=False))
    await until(lambda: kid.status == "running" and "wait" in kid.attempts)
    await engine_of(symphony).interrupt()
    with pytest.raises(RunInterruptedError):
        await retried
    recovered = asyncio.ensure_future(symphony.workflows.recover(auto_checkpoint=False))
    await symphony.workflows.signal(kid, "go")
    assert [found.id for found in await asyncio.wait_for(recovered, 5)] == [kid.id]
    assert (handle.status, kid.status) == ("completed", "completed")


@pytest.mark.parametrize("request_", ["pause", "cancel"])
async def test_requests_are_no_part_of_a_transaction(symphony: Symphony, bodies: Bodies, request_: str) -> None:
    """Asked inside a block they do not wait for its end; what the block rolls back does not take them back."""
    handle = await symphony.workflows.start({"name": "w", "steps": [WAIT]}, auto_checkpoint=False)
    with pytest.raises(ValueError, match="rolled back"):
        async with asyncio.timeout(5), symphony.transaction("Block"):
            await getattr(handle, request_)()
            await handle.wait()
            raise ValueError("rolled back")
    assert (handle.status, engine_of(symphony).active_runs) == ("paused" if request_ == "pause" else "cancelled", [])


@pytest.mark.parametrize(("request_", "ended"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_an_atomic_step_that_asks_and_fails_leaves_a_run_that_stands_somewhere(symphony: Symphony, request_: str, ended: str) -> None:
    """Its changes are rolled back, the request is not; nobody waits for ever."""

    async def ask(context: RunContext) -> None:
        await getattr(symphony.workflows, request_)(context.run_id)
        raise OSError("down")

    symphony.functions.register("ask", ask)
    handle = await symphony.workflows.start(
        {"name": "w", "steps": [function("ask", atomic=True, retry={"max_attempts": 3, "delay_s": 0})]}, auto_checkpoint=False
    )
    async with asyncio.timeout(5):
        await handle.wait()
    assert (handle.status, engine_of(symphony).active_runs, handle.run.attempts["ask"]) == (ended, [], 1)


async def test_a_cancellation_that_comes_with_the_last_words_of_a_pause_is_carried_out(symphony: Symphony) -> None:
    """A failing hook makes the pause write once more; whatever turn the cancellation comes at, the clean-up runs."""

    class Fails(WorkflowHook):
        async def run_paused(self, moment: RunMoment) -> None:
            raise OSError("down")

    async def undo(context: RunContext) -> int:
        return 1

    symphony.functions.register("undo", undo)
    for turns in range(1, 40):
        handle = await symphony.workflows.start(
            {"name": "w", "steps": [WAIT], "cleanup": [function("undo")]}, hooks=[Fails()], auto_checkpoint=False
        )
        pausing = asyncio.ensure_future(handle.pause())
        for _ in range(turns):
            await asyncio.sleep(0)
        await handle.cancel()
        await asyncio.wait({pausing})
        assert (handle.status, handle.run.outputs["cleanup/undo"]) == ("cancelled", 1), turns


class Stops(WorkflowHook):
    """Fails after every step, and declares that this stops the run."""

    stops_run = True

    async def step_completed(self, moment: RunMoment) -> None:
        raise OSError("disk full")


async def test_a_stopping_hook_does_not_keep_clean_up_steps_from_running(symphony: Symphony, bodies: Bodies) -> None:
    """Each of them runs; what stopped is on record."""
    definition = {"name": "w", "steps": [WAIT], "cleanup": [function("one", "note"), function("two", "note")]}
    engine_of(symphony).hooks.append(Stops())
    handle = await symphony.workflows.start(definition, auto_checkpoint=False)
    await handle.cancel()
    assert (bodies.done, handle.status) == (["cleanup/one", "cleanup/two"], "cancelled")
    assert "disk full" in handle.run.error["message"]  # type: ignore[index]


async def test_a_stopping_hook_ends_the_waits_beside_it(symphony: Symphony, bodies: Bodies) -> None:
    """A branch that waits for a signal does not keep a run that has failed from ending."""
    handle = await symphony.workflows.start(
        {"name": "w", "steps": [parallel(function("note"), WAIT, on_error="collect")]}, hooks=[Stops()], auto_checkpoint=False
    )
    async with asyncio.timeout(5):
        await handle.wait()
    assert (handle.status, handle.run.error["type"]) == ("failed", "HookFailedError")  # type: ignore[index]


async def test_whoever_waits_for_a_paused_run_learns_of_its_interruption_and_of_the_end(symphony: Symphony) -> None:
    """A result that was asked for before or during the pause does not wait for ever."""
    handle = await symphony.workflows.start({"name": "w", "steps": [WAIT]}, auto_checkpoint=False)
    before = asyncio.ensure_future(handle.result())
    await handle.pause()
    await handle.wait("paused")
    during = asyncio.ensure_future(handle.result())
    resumed = asyncio.ensure_future(handle.resume())
    await until(lambda: handle.status == "running")
    await engine_of(symphony).interrupt()
    for waiting in (before, during, resumed):
        with pytest.raises(RunInterruptedError):
            await asyncio.wait_for(waiting, 5)
    paused = await symphony.workflows.start({"name": "w", "steps": [WAIT]}, auto_checkpoint=False)
    await paused.pause()
    await paused.wait("paused")
    waiting = asyncio.ensure_future(paused.result())
    await asyncio.sleep(0.01)
    await symphony.close()
    with pytest.raises(RunInterruptedError):
        await asyncio.wait_for(waiting, 5)


async def test_each_attempt_at_a_wait_waits_as_long(symphony: Symphony) -> None:
    """The moment of the failed attempt is not that of the next."""
    definition = {"name": "w", "steps": [{**WAIT, "within_s": 0.05, "retry": {"max_attempts": 3, "delay_s": 0}}]}
    began = time.monotonic()
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.attempts["wait"], run.error["type"]) == (3, "SignalTimeoutError")  # type: ignore[index]
    assert time.monotonic() - began >= 0.15


async def test_a_run_is_started_by_its_id_with_a_new_deadline(symphony: Symphony, bodies: Bodies) -> None:
    """What a run has already is refused."""
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [function("long")]}, deadline_s=0.05, auto_checkpoint=False)
    assert run.error["type"] == "DeadlineExceededError"  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="goes on with what it has"):
        await symphony.workflows.start(run, {"x": 1})
    for name in (run.id, f"Workflow:{run.id}"):
        handle = await symphony.workflows.start(name, auto_checkpoint=False, deadline_s=60)
        await handle.wait()
        assert run.status == "completed"
        await asyncio.gather(symphony.workflows.retry_from(run, "long", auto_checkpoint=False, deadline_s=0.05))


async def test_a_page_goes_on_after_a_run_of_an_earlier_world(reopen: Any) -> None:
    """A rewind has replaced the objects; the page is found by the id, and one that is gone says so."""
    symphony = await reopen()
    for _ in range(3):
        await symphony.workflows.execute_workflow({"name": "w", "steps": [NAP]}, auto_checkpoint=False)
    before = symphony.log.head
    page = await symphony.workflows.list_runs(limit=1)
    late = await symphony.workflows.execute_workflow({"name": "late", "steps": [NAP]}, auto_checkpoint=False)
    await symphony.rewind(before)
    assert len(await symphony.workflows.list_runs(limit=5, after=page[-1])) == 2
    with pytest.raises(EntityNotFoundError, match="first page"):
        await symphony.workflows.list_runs(after=late)
