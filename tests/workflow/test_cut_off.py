"""A process that stops cuts its runs off. Whatever their code makes of that is no failure and no result: the next one does it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RetryPolicy, gather, run_workflow, step, step_context, wait_for_signal
from tests.conftest import Opener

Stop = Callable[[Symphony], Awaitable[Any]]
ENDS = {"WorkflowCompleted", "WorkflowFailed", "WorkflowStepFailed", "WorkflowBlocked"}


class LostError(Exception):
    """What a driver makes of being cancelled."""


class Program:
    """What is registered in each process, and what it did."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.stays = True

    async def long(self, *_: Any) -> str:
        """Waits until it is cut off, in the first process."""
        self.begun.append("long")
        if self.stays:
            await asyncio.Event().wait()
        return "whole"

    async def loses(self, *_: Any) -> str:
        """Makes an error of its own of being cut off."""
        self.begun.append("loses")
        try:
            return await self.long()
        except asyncio.CancelledError as error:
            raise LostError("connection lost") from error

    async def note(self, what: str) -> str:
        self.begun.append(what)
        return what

    def declare(self, symphony: Symphony) -> dict[str, Any]:
        """The workflows by name."""
        symphony.functions.register("loses", self.loses)

        @symphony.workflow
        async def kid() -> str:
            return await step(self.long)

        @symphony.workflow
        async def other() -> str:
            return await step(self.note, "other")

        async def cut_off(what: str) -> Any:
            if what == "wait":
                return await wait_for_signal("go", within_s=None if self.stays else 0, default="whole")
            if what == "child":
                return await run_workflow(kid)
            if what == "gather":
                return (await gather(step(self.long), step(self.loses, name="beside")))[0]
            if what == "own":
                return await self.long()
            return await step(self.long)

        async def goes_on() -> list[Any]:
            made: list[Any] = []
            calls = (
                lambda: step(self.note, "after"),
                lambda: run_workflow(other, name="after in a child"),
                lambda: gather(step(self.note, "beside", name="n"), run_workflow(other), name="after in strands"),
            )
            for call in calls:
                try:
                    made.append(await call())
                except BaseException as error:
                    made.append(type(error).__name__)
            return made

        @symphony.workflow
        async def catches(what: str) -> Any:
            try:
                return await cut_off(what)
            except BaseException:
                return await goes_on()

        @symphony.workflow
        async def raises(what: str) -> Any:
            try:
                return await cut_off(what)
            except BaseException as error:
                raise LostError("of its own") from error

        @symphony.workflow
        async def tidies(what: str) -> Any:
            try:
                return await cut_off(what)
            finally:
                if self.stays:
                    await goes_on()

        @symphony.workflow
        async def tries() -> Any:
            return await step(self.loses, retry=RetryPolicy(max_attempts=2, delay_s=3600))

        function = {"kind": "function", "name": "loses", "function": "loses"}
        return {
            **{f"{named.name} {what}": (named, {"what": what}) for named in (catches, raises, tidies) for what in WHERE},
            "a step that is tried again": (tries, {}),
            "declared": ({"name": "declared", "steps": [function]}, {}),
            "atomic": ({"name": "atomic", "steps": [{**function, "atomic": True}]}, {}),
            "branches": ({"name": "b", "steps": [{"kind": "map", "name": "m", "over": [1, 2], "step": function}], "output": "whole"}, {}),
        }


WHERE = ("wait", "step", "child", "gather", "own")
KINDS = [f"{made} {what}" for made in ("catches", "raises", "tidies") for what in WHERE]
KINDS += ["a step that is tried again", "declared", "atomic", "branches"]


async def close(symphony: Symphony) -> None:
    """As a server that stops."""
    await symphony.close()


async def drain(symphony: Symphony) -> None:
    """As a server that gives its runs no time."""
    await symphony.workflows.drain(timeout_s=0)
    await symphony.close()


async def rewind(symphony: Symphony) -> None:
    """Back to the moment that it is: the runs are stopped."""
    await symphony.flush()
    await symphony.resume_from_checkpoint(await symphony.create_checkpoint("now"), stop_runs=True)


async def until(condition: Callable[[], Any]) -> None:
    """Returns when a condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("stop", [close, drain, rewind])
async def test_being_cut_off_is_neither_a_failure_nor_a_result(reopen: Opener, stop: Stop) -> None:
    """No step and no run fails or completes of it, nothing else of the run begins, and the next process has the result of the whole."""
    symphony, program = await reopen(), Program()
    kinds = program.declare(symphony)
    handles = {kind: await symphony.workflows.start(kinds[kind][0], kinds[kind][1], run_id=kind, auto_checkpoint=False) for kind in KINDS}
    waiting = {kind: "wait go" if kind.endswith("wait") else "" for kind in KINDS}
    await until(lambda: all(not step or step in handles[kind].run.attempts for kind, step in waiting.items()))
    await until(lambda: program.begun.count("long") == 20)
    before = list(program.begun)
    await stop(symphony)
    assert program.begun == before
    symphony = await reopen()
    program.stays = False
    program.declare(symphony)
    for kind in KINDS:
        names = [event.name for event in await symphony.log.read_entity(f"Workflow:{kind}")]
        assert not ENDS & set(names), (kind, names)
    ended = {run.id: (run.status, run.result) for run in await symphony.workflows.recover()}
    assert {kind: ended[kind] for kind in KINDS} == dict.fromkeys(KINDS, ("completed", "whole"))


@pytest.mark.parametrize("call", ["start", "execute_workflow", "resume", "retry_from", "wait", "wait by code", "child"])
async def test_a_step_is_cut_off_before_it_is_told_that_all_runs_stop(reopen: Opener, call: str) -> None:
    """What it asks of another run while its process stops would fail, which is no failure of the step: the next process does it."""
    first = True

    def declare(symphony: Symphony) -> Any:
        workflows = symphony.workflows
        active = symphony.registry.get("workflow_engine").active

        async def ask() -> str:
            if first:
                active.stopped_for = "a test"  # as at the moment when all are about to be cut off
            if call == "start":
                await workflows.start(short, run_id="short", if_exists="return")
            elif call == "execute_workflow":
                await workflows.execute_workflow(short)
            elif call == "retry_from" and first:
                await workflows.retry_from("ended", "one")
            elif call == "resume" and first:
                await workflows.resume("failed")
            elif call == "wait":
                return str(await workflows.handle("waits").result())
            return "done"

        @symphony.workflow
        async def short() -> str:
            return await step(lambda: "done", name="one")

        @symphony.workflow
        async def waits() -> str:
            return await wait_for_signal("go", within_s=None if first else 0, default="done")

        @symphony.workflow
        async def fails() -> str:
            return await step(lambda: 1 // 0, name="one")

        @symphony.workflow
        async def asks() -> Any:
            if call == "wait by code":
                return str(await workflows.handle("waits").result())
            if call == "child" and first:
                active.stopped_for = "a test"
            return await run_workflow(short) if call == "child" else await step(ask)

        return short, waits, fails, asks

    symphony = await reopen()
    short, waits, fails, asks = declare(symphony)
    engine = symphony.registry.get("workflow_engine")
    await symphony.workflows.execute_workflow(short, run_id="ended", auto_checkpoint=False)
    await symphony.workflows.execute_workflow(fails, run_id="failed", auto_checkpoint=False)
    await symphony.workflows.start(waits, run_id="waits", auto_checkpoint=False)
    handle = await symphony.workflows.start(asks, run_id="asks", auto_checkpoint=False)
    if call == "wait by code":
        for _ in range(20):
            await asyncio.sleep(0)
        engine.active.stopped_for = "a test"
    await until(lambda: engine.active.stopped_for is not None)
    await engine.interrupt(["waits"])
    for _ in range(50):
        await asyncio.sleep(0)
    assert (handle.status, dict(handle.run.failures)) == ("running", {})
    symphony = await reopen(resume="latest")
    first = False
    declare(symphony)
    await symphony.workflows.recover()
    run = await symphony.workflows.get_run("asks")
    assert (run.status, run.result, dict(run.failures)) == ("completed", "done", {})


async def test_what_is_left_of_a_step_is_told_when_all_have_stopped(reopen: Opener) -> None:
    """A task that the step has started and nobody awaits is not cancelled: it is told of the other run in the end, and hangs nowhere."""
    symphony, told = await reopen(), asyncio.Queue[str]()
    tasks: list[asyncio.Task[None]] = []

    @symphony.workflow
    async def short() -> None:
        await asyncio.Event().wait()

    async def beside() -> None:
        try:
            await step_context().symphony.workflows.execute_workflow(short, run_id="short")
        except Exception as error:
            told.put_nowait(type(error).__name__)

    async def begin() -> None:
        tasks.append(asyncio.ensure_future(beside()))
        await asyncio.Event().wait()

    @symphony.workflow
    async def leaves() -> None:
        await step(begin)

    await symphony.workflows.start(leaves, run_id="leaves", auto_checkpoint=False)
    await until(lambda: "short" in symphony.registry.get("workflow_engine").active_runs)
    await symphony.close()
    async with asyncio.timeout(30):
        assert await told.get() == "RunInterruptedError"
    await asyncio.wait(tasks)
