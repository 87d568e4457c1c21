"""`drain`: a graceful stop. No run begins, those that execute stop at their next boundary, and the next `recover` goes on with them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, DrainingError, RunInterruptedError, RunsInProgressError
from symphony_es.workflow import step


class Work:
    """Counts what steps do; each waits until it is let go on."""

    def __init__(self, symphony: Symphony) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.go = asyncio.Event()
        self.symphony = symphony
        symphony.functions.register("slow", self.slow)
        symphony.functions.register("quick", self.quick)
        symphony.functions.register("begin", self.begin)

        @symphony.workflow
        async def by_code(n: int = 3) -> str:
            for _ in range(n):
                await step(self.slow_by_code)
            return "done"

        self.by_code = by_code

    async def slow(self, context: Any) -> str:
        self.begun.append(f"{context.run_id}:{context.step}")
        await self.go.wait()
        self.ended.append(f"{context.run_id}:{context.step}")
        return "done"

    async def slow_by_code(self) -> None:
        self.begun.append("code")
        await self.go.wait()
        self.ended.append("code")

    async def quick(self, context: Any) -> str:
        self.ended.append(f"{context.run_id}:{context.step}")
        return "done"

    async def begin(self, context: Any) -> str:
        self.begun.append("begin")
        await self.go.wait()
        handle = await self.symphony.workflows.start(TWO, run_id="inner")
        return str(await handle.result()) if context.get("waits") else "begun"

    async def until(self, number: int) -> None:
        while len(self.begun) < number:
            await asyncio.sleep(0)


def function(name: str, called: str) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": called}


TWO = {"name": "two", "steps": [function("a", "slow"), function("b", "quick")]}
SHAPES: dict[str, Any] = {
    "two": TWO,
    "map": {"name": "map", "steps": [{"kind": "map", "name": "m", "over": [1, 2, 3], "max_concurrency": 2, "step": function("a", "slow")}]},
    "parallel": {
        "name": "p",
        "steps": [{"kind": "parallel", "name": "p", "branches": [function("a", "slow"), function("b", "slow")]}, function("c", "quick")],
    },
    "loop": {"name": "loop", "steps": [{"kind": "loop", "name": "l", "max_iterations": 3, "steps": [function("a", "slow")]}]},
    "child": {"name": "outer", "steps": [{"kind": "workflow", "name": "sub", "definition": TWO}]},
    "code": "by_code",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("in_time", [True, False], ids=["in time", "cut off"])
async def test_the_next_process_goes_on(reopen: Any, shape: str, in_time: bool) -> None:
    """Steps under way come to their end in time, or are cut off; nothing fails, nothing is recorded of it, and all completes later."""
    symphony = await reopen()
    work = Work(symphony)
    handle = await symphony.workflows.start(SHAPES[shape], run_id="r")
    await work.until(1)
    for _ in range(5):
        await asyncio.sleep(0)
    if in_time:
        asyncio.get_running_loop().call_later(0.01, work.go.set)
    report = await symphony.workflows.drain(10 if in_time else 0)
    stopped, others = (report.stopped, report.interrupted) if in_time else (report.interrupted, report.stopped)
    assert "r" in [each.run_id for each in stopped]
    assert not others
    assert not report.hung
    assert len(work.ended) == (len(work.begun) if in_time else 0)
    assert {each.status for each in stopped} == {"running"}
    with pytest.raises(RunInterruptedError):
        await handle.result()
    names = [event.name for event in await symphony.log.read_entity("Workflow:r")]
    assert not {"WorkflowPaused", "WorkflowStepFailed", "WorkflowFailed", "WorkflowCompleted"} & set(names)
    done_before = set(work.ended)
    symphony = await reopen()
    work = Work(symphony)
    work.go.set()
    for run in await symphony.workflows.recover():
        assert run.status == "completed", run.error
    if shape != "code":
        assert not done_before & set(work.ended)


async def test_where_runs_have_stopped(symphony: Symphony) -> None:
    """The report names what was under way, and tells what had ended from what waits."""
    work = Work(symphony)
    symphony.workflows.max_concurrent_runs = 3
    await symphony.workflows.start(TWO, run_id="slow")
    ending = await symphony.workflows.start({"name": "one", "steps": [function("a", "slow")]}, run_id="ending")
    waiting = {"name": "w", "steps": [function("q", "quick"), {"kind": "wait", "name": "paid", "signal": "paid"}]}
    waits = await symphony.workflows.start(waiting, run_id="waiting")
    while not waits.run.attempts.get("paid"):
        await asyncio.sleep(0)
    await symphony.workflows.start(TWO, run_id="queued")
    await work.until(2)
    asyncio.get_running_loop().call_later(0.01, work.go.set)
    report = await symphony.workflows.drain(10)
    assert {each.run_id: (each.status.value, each.steps, each.completed_steps) for each in report.stopped} == {
        "slow": ("running", (), 1),
        "waiting": ("running", ("paid",), 1),
        "queued": ("queued", (), 0),
    }
    assert [(each.run_id, each.status.value) for each in report.ended] == [("ending", "completed")]
    assert await ending.result() == "done"
    again = await symphony.workflows.drain(0)
    assert (again.stopped, again.interrupted, again.ended) == ([], [], [])


async def test_nothing_begins_any_more(symphony: Symphony) -> None:
    """Calls that would begin a run, or go on with one, say so and record nothing; signals and requests are still recorded."""
    Work(symphony)
    failed = await symphony.workflows.start({"name": "w", "steps": [{"kind": "wait", "name": "paid", "signal": "paid"}]})
    await failed.pause()
    await failed.wait("paused")
    await symphony.workflows.drain()
    workflows = symphony.workflows
    for call in (
        lambda: workflows.start(TWO),
        lambda: workflows.start(failed.run),
        lambda: workflows.execute_workflow(TWO),
        lambda: workflows.resume(failed.run),
        lambda: workflows.retry_from(failed.run, "paid"),
        lambda: workflows.recover(),
        lambda: workflows.recover(wait=False),
    ):
        await symphony.flush()
        head = symphony.log.head
        with pytest.raises(DrainingError, match="drained"):
            await call()
        assert symphony.log.head == head
    await failed.signal("paid")
    assert failed.run.signals == {"paid": [None]}


@pytest.mark.parametrize("waits", [True, False])
async def test_a_step_that_starts_a_run_meanwhile(reopen: Any, waits: bool) -> None:
    """The run is on record, and begins in the next process; the step that waits for it does not fail."""
    symphony = await reopen()
    work = Work(symphony)
    outer = {"name": "outer", "steps": [function("begin", "begin")], "context": {"waits": waits}}
    await symphony.workflows.start(outer, run_id="outer")
    await work.until(1)
    asyncio.get_running_loop().call_later(0.01, work.go.set)
    report = await symphony.workflows.drain(0.3 if waits else 10)
    assert "inner" in [each.run_id for each in report.stopped]
    assert [each.run_id for each in (report.interrupted if waits else report.ended)] == ["outer"]
    assert "WorkflowStepFailed" not in [event.name for event in await symphony.log.read_entity("Workflow:outer")]
    symphony = await reopen()
    Work(symphony).go.set()
    await symphony.workflows.recover(wait=False)
    inner = symphony.workflows.handle("inner")
    assert await inner.result() == "done"


async def test_a_clean_up_stops_between_its_steps(reopen: Any) -> None:
    """It goes on in the next process, and its steps that have completed are not repeated."""
    symphony = await reopen()
    work = Work(symphony)
    definition = {**TWO, "cleanup": [function("c1", "slow"), function("c2", "quick")]}
    handle = await symphony.workflows.start(definition, run_id="r")
    await work.until(1)
    cancelling = asyncio.create_task(handle.cancel(grace_s=0))
    await work.until(2)
    asyncio.get_running_loop().call_later(0.01, work.go.set)
    report = await symphony.workflows.drain(10)
    assert [(each.run_id, each.status.value) for each in report.stopped] == [("r", "cancelling")]
    with pytest.raises(RunInterruptedError):
        await cancelling
    symphony = await reopen()
    after = Work(symphony)
    (run,) = await symphony.workflows.recover()
    assert (run.status, after.ended) == ("cancelled", ["r:cleanup/c2"])


async def test_a_pause_that_is_taken_back_meanwhile(symphony: Symphony) -> None:
    """The run stays as the last request left it, and stops."""
    work = Work(symphony)
    handle = await symphony.workflows.start(TWO, run_id="r")
    await work.until(1)
    await handle.pause()
    await symphony.workflows.start(handle.run)
    asyncio.get_running_loop().call_later(0.01, work.go.set)
    report = await symphony.workflows.drain(10)
    assert [(each.run_id, each.status.value) for each in report.stopped] == [("r", "running")]


async def test_a_thread_that_hangs(symphony: Symphony) -> None:
    """It is cut off from its run, which the next process goes on with, and the report says that it runs on; the call returns."""
    entered, leave = threading.Event(), threading.Event()

    def hang(context: Any) -> None:
        entered.set()
        leave.wait(20)

    symphony.functions.register("hang", hang)
    await symphony.workflows.start({"name": "h", "steps": [function("h", "hang")]}, run_id="r")
    while not entered.is_set():
        await asyncio.sleep(0)
    report = await symphony.workflows.drain(0)
    leave.set()
    assert [(each.run_id, each.steps) for each in report.interrupted] == [("r", ("h",))]
    assert report.hung == report.interrupted


async def test_wrong_calls(symphony: Symphony) -> None:
    """A time that is no number; and a step, which cannot wait for its own end: nothing is stopped."""
    for wrong in (-1, None, "3", True):
        with pytest.raises(ConfigurationError, match="timeout_s"):
            await symphony.workflows.drain(wrong)  # type: ignore[arg-type]

    async def stop(context: Any) -> None:
        with pytest.raises(RunsInProgressError):
            await symphony.workflows.drain()

    symphony.functions.register("stop", stop)
    run = await symphony.workflows.execute_workflow({"name": "s", "steps": [function("s", "stop")]})
    assert run.status == "completed", run.error


async def test_after_closing_it_is_over(reopen: Any) -> None:
    """The same Symphony, set up again, goes on with what was drained."""
    symphony = await reopen()
    Work(symphony)
    await symphony.workflows.start({"name": "w", "steps": [{"kind": "wait", "name": "paid", "signal": "paid"}]}, run_id="r")
    await symphony.workflows.drain()
    directory = symphony.state_dir
    await symphony.close()
    await symphony.setup(directory, recover=True)
    await symphony.workflows.handle("r").signal("paid", 1)
    assert await symphony.workflows.handle("r").result() == 1
