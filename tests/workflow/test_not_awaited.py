"""A call that a code-first function makes and never awaits is told of: its run fails, and the error names the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import CallNotAwaitedError, ConfigurationError, StepFailedError
from symphony_es.workflow import WorkflowDefinition, gather, run_workflow, sleep, sleep_until, step, step_with, wait_for_signal

CHILD = WorkflowDefinition(name="child", steps=[{"kind": "sleep", "name": "one", "seconds": 0}])


async def work() -> str:
    return "done"


async def own() -> str:
    """A coroutine of the application that calls a step."""
    return await step(work)


CALLS: dict[str, Callable[[], Any]] = {
    "work": lambda: step(work),
    "named": lambda: step(work, name="named"),
    "with": lambda: step_with(name="with", retry=2)(work),
    "sleep (sleep)": lambda: sleep(1),
    "until (sleep)": lambda: sleep_until(datetime.now(UTC), name="until"),
    "wait go (signal)": lambda: wait_for_signal("go"),
    "child (workflow)": lambda: run_workflow(CHILD),
    "gather": lambda: gather(name="gather"),
    "gather(name='both')": lambda: gather(name="both"),
}


def shown(run: Any) -> tuple[str, str]:
    """The type of the run's error, and its message."""
    assert run.error is not None, run.status
    return run.error["type"], run.error["message"]


@pytest.mark.parametrize("around", ["body", "strand", "inner strand"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_is_never_awaited_fails_the_run(symphony: Symphony, call: str, around: str) -> None:
    """The error names it and its strand; nothing of the call has begun, and all that was awaited is on record."""

    async def forgets() -> None:
        await step(work, name="before")
        CALLS[call]()
        await step(work, name="after")

    async def nested() -> None:
        await gather(forgets(), name="inner")

    @symphony.workflow
    async def flow() -> str:
        if around == "body":
            await forgets()
        else:
            await gather(forgets() if around == "strand" else nested(), name="outer")
        return "ended"

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    before = {"body": "", "strand": "outer/0/", "inner strand": "outer/0/inner/0/"}[around]
    is_address = "gather" not in call
    expected = f"{before}{call}" if is_address else call
    kind, message = shown(run)
    assert (run.status, kind) == ("failed", "CallNotAwaitedError")
    where = f" in {before[:-1]}" if before else ""
    assert f"awaiting what it called: {expected}{where}. None of these has run" in message
    assert set(run.outputs) == set(run.attempts) == {f"{before}before", f"{before}after"}


async def test_all_calls_left_are_counted(symphony: Symphony) -> None:
    """Ten of many are listed, with how many more there are; a call handed to a `gather` that nobody awaits is one of them."""

    @symphony.workflow
    async def flow() -> None:
        for _ in range(11):
            step(work)
        gather(step(work, name="handed"))

    _, message = shown(await symphony.workflows.execute_workflow(flow, auto_checkpoint=False))
    assert "called: work, work#2, work#3," in message
    assert "work#10 and 3 more. None" in message


async def test_a_resume_after_the_code_is_mended_runs_it(symphony: Symphony, reopen: Any) -> None:
    """What was forgotten runs then, in its place; what was awaited does not run again."""
    done: list[str] = []

    def define(where: Symphony, *, forgets: bool) -> Any:
        @where.workflow
        async def flow() -> int:
            made = step(lambda: done.append("middle"), name="middle")
            if not forgets:
                await made
            await step(lambda: done.append("last"), name="last")
            return len(done)

        return flow

    run = await symphony.workflows.execute_workflow(define(symphony, forgets=True), run_id="r", auto_checkpoint=False)
    assert shown(run)[0] == "CallNotAwaitedError"
    again = await reopen()
    await again.resume()
    define(again, forgets=False)
    run = await again.workflows.resume("r", auto_checkpoint=False)
    assert (run.status, done) == ("completed", ["last", "middle"])


async def test_a_replay_finds_it_too(symphony: Symphony, reopen: Any) -> None:
    """The function is cut off by the end of its process after the call was left behind, and goes on in the next one."""

    def define(where: Symphony) -> Any:
        @where.workflow
        async def flow() -> str:
            await step(work, name="first")
            step(work)
            await wait_for_signal("go")
            return "ended"

        return flow

    handle = await symphony.workflows.start(define(symphony), run_id="r", auto_checkpoint=False)
    while "wait go" not in handle.run.attempts:
        await asyncio.sleep(0)
    again = await reopen()
    await again.resume()
    define(again)
    await again.workflows.signal("r", "go")
    run = await again.workflows.resume("r", auto_checkpoint=False)
    assert shown(run)[0] == "CallNotAwaitedError"
    assert "called: work. None" in shown(run)[1]


async def fails() -> None:
    raise ValueError("boom")


@pytest.mark.parametrize("ending", ["step fails", "own error", "none"])
async def test_an_exception_that_ends_a_strand_counts(symphony: Symphony, ending: str) -> None:
    """What a branch has left behind when it failed is not told of where the code goes on after the failure."""

    async def branch() -> None:
        made = step(work)
        kept.append(made)
        if ending == "step fails":
            await step(fails)
        if ending == "own error":
            raise ValueError("boom")
        made.close()  # taken back on purpose: it is not left behind

    @symphony.workflow
    async def flow() -> list[str]:
        return [type(found).__name__ for found in await gather(branch(), return_exceptions=True)]

    kept: list[Any] = []
    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    kept[0].close()
    expected = {"step fails": StepFailedError, "own error": ValueError, "none": type(None)}[ending]
    assert (run.status, run.result) == ("completed", [expected.__name__])


async def test_the_exception_of_the_function_counts(symphony: Symphony) -> None:
    """A run that fails by an exception fails by that, whatever call was left behind."""

    @symphony.workflow
    async def flow() -> None:
        kept.append(step(work))
        raise ValueError("boom")

    kept: list[Any] = []
    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert shown(run) == ("ValueError", "boom")


async def test_calls_that_gather_took_are_not_left(symphony: Symphony) -> None:
    """The first failure ends those that have not begun; where the code goes on after it, its run completes."""

    @symphony.workflow
    async def flow() -> str:
        try:
            await gather(step(fails), *(step(work) for _ in range(20)))
        except StepFailedError:
            return "went on"
        return "no failure"

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", "went on")


@pytest.mark.parametrize("way", ["task group", "asyncio.gather", "wait_for", "timeout 0", "later"])
async def test_calls_awaited_by_other_means_are_awaited(symphony: Symphony, way: str) -> None:
    """Tasks of asyncio may await calls that the function has made; a time limit of its own that ends one before it begins is told to it."""

    @symphony.workflow
    async def flow() -> list[str]:
        if way == "task group":
            async with asyncio.TaskGroup() as tasks:
                both = [tasks.create_task(step(work)), tasks.create_task(step(work))]
            return [task.result() for task in both]
        if way == "asyncio.gather":
            return list(await asyncio.gather(step(work), step(work)))
        if way == "wait_for":
            return [await asyncio.wait_for(step(work), 60)]
        if way == "later":
            first, second = step(work), step(work)
            return [await second, await first]
        try:
            return [await asyncio.wait_for(step(work), 0)]
        except TimeoutError:
            return ["too late"]

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    expected = {"wait_for": ["done"], "timeout 0": ["too late"]}.get(way, ["done", "done"])
    assert (run.status, run.result) == ("completed", expected), run.error


async def test_a_task_that_has_not_begun_is_ended(symphony: Symphony) -> None:
    """The call of a task that nobody awaits is one that nobody awaits; the task is cancelled, and nothing of it runs later."""

    @symphony.workflow
    async def flow() -> None:
        kept.append(asyncio.ensure_future(step(work)))

    kept: list[asyncio.Future[Any]] = []
    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert shown(run)[0] == "CallNotAwaitedError"
    await asyncio.wait(kept)
    assert kept[0].cancelled()
    assert not run.attempts


@pytest.mark.parametrize("way", ["finally", "except", "strand"])
async def test_a_clean_up_that_is_not_awaited_has_failed(symphony: Symphony, way: str) -> None:
    """A cancelled run whose function forgets to await what cleans up does not end as if it had cleaned up."""

    async def waits() -> None:
        if way == "except":
            try:
                await wait_for_signal("go")
            except asyncio.CancelledError:
                step(work, name="give back")
                raise
        try:
            await wait_for_signal("go")
        finally:
            step(work, name="give back")

    @symphony.workflow
    async def flow() -> None:
        await (gather(waits()) if way == "strand" else waits())

    handle = await symphony.workflows.start(flow, run_id="r", auto_checkpoint=False)
    while not any("wait go" in address for address in handle.run.attempts):
        await asyncio.sleep(0)
    run = await handle.cancel()
    kind, message = shown(run)
    assert kind == "CallNotAwaitedError"
    assert "give back" in message


async def test_a_pause_passes_by_what_was_made(symphony: Symphony) -> None:
    """A run that is paused while a call waits to be awaited goes on with it."""

    @symphony.workflow
    async def flow() -> str:
        made = step(work)
        await wait_for_signal("go")
        return await made

    handle = await symphony.workflows.start(flow, run_id="r", auto_checkpoint=False)
    while "wait go" not in handle.run.attempts:
        await asyncio.sleep(0)
    await handle.pause()
    await handle.signal("go")
    run = await symphony.workflows.resume("r", auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", "done"), run.error


def test_the_error_is_one_of_configuration() -> None:
    """Code that catches what a wrong call raises catches it as well; it names run, calls and strands."""
    error = CallNotAwaitedError("r", [("", "a"), ("gather/0", "gather/0/b")], ["c"])
    assert isinstance(error, ConfigurationError)
    assert (error.run_id, error.calls, error.strands) == ("r", ["a", "gather/0/b"], ["", "gather/0"])
    assert "while c was under way" in str(error)
