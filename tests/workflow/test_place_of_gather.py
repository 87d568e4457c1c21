"""Code in which a `gather` stands in another place than on record contradicts it, and nothing of the contradiction is done."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import gather, patched, step, wait_for_signal


class Code:
    """Old and new code of a workflow, whose steps note what they do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def do(self, what: str) -> str:
        self.done.append(what)
        return what

    async def call(self, what: str) -> str:
        return await step(self.do, what, name=what)

    async def ask(self) -> None:
        await self.call("mail")
        await wait_for_signal("answer")
        await self.call("thank")

    async def plain(self) -> None:
        await self.call("a")
        await gather(self.ask(), self.call("beside"))
        await wait_for_signal("end")

    async def with_a_call_before(self) -> None:
        await self.call("a")
        await self.call("check")
        await gather(self.ask(), self.call("beside"))
        await wait_for_signal("end")

    async def with_a_patch_before(self) -> None:
        await self.call("a")
        if patched("checks"):
            await self.call("check")
        await gather(self.ask(), self.call("beside"))
        await wait_for_signal("end")

    async def without(self) -> None:
        await self.call("a")
        await self.call("check")
        await wait_for_signal("end")

    async def with_one_before_the_rest(self) -> None:
        await self.call("a")
        await gather(self.ask(), self.call("beside"))
        await self.call("check")
        await wait_for_signal("end")

    async def with_a_call_behind(self) -> None:
        await self.call("a")
        await gather(self.ask(), self.call("beside"))
        await wait_for_signal("end")
        await self.call("late")

    async def removed_and_a_call_behind(self) -> None:
        await self.call("a")
        await wait_for_signal("end")
        await self.call("late")

    async def another_one_instead(self) -> None:
        await self.call("a")
        await gather(self.call("other"), name="others")
        await wait_for_signal("end")

    async def one_coroutine(self) -> None:
        await self.call("a")
        await self.call("beside")
        await gather(self.call("new"))
        await wait_for_signal("end")

    async def deep(self) -> None:
        async def inner() -> None:
            await gather(self.ask(), name="inner")
            await self.call("after inner")

        await self.call("a")
        await gather(inner(), self.call("beside"))
        await wait_for_signal("end")

    async def deep_removed(self) -> None:
        async def inner() -> None:
            await self.call("after inner")

        await self.call("a")
        await gather(inner(), self.call("beside"))
        await wait_for_signal("end")

    async def two(self) -> None:
        await self.call("a")
        await gather(self.ask(), self.ask())
        await wait_for_signal("end")
        await self.call("late")

    async def one_of_two(self) -> None:
        await self.call("a")
        await gather(self.ask())
        await wait_for_signal("end")
        await self.call("late")


@pytest.mark.parametrize(
    ("old", "new", "waits"),
    [
        ("with_a_call_before", "plain", "gather/0/wait answer"),
        ("with_a_patch_before", "plain", "gather/0/wait answer"),
        ("without", "with_one_before_the_rest", "wait end"),
    ],
)
async def test_a_gather_in_another_place(tmp_path: Path, old: str, new: str, waits: str) -> None:
    """The run is blocked before a coroutine of the `gather` does anything; the old code goes on with it."""
    code = Code()

    def declare(symphony: Symphony, name: str) -> Any:
        return symphony.workflow(getattr(code, name), name="place")

    async with Symphony(tmp_path) as symphony:
        handle = await symphony.workflows.start(declare(symphony, old), run_id="r")
        async for event in handle.events():
            if event.name == "WorkflowStepStarted" and event.metadata.step == waits:
                break
        await handle.signal("answer")
        if waits != "wait end":
            await symphony.registry.get("workflow_engine").interrupt()
    done = list(code.done)
    async with Symphony(tmp_path) as symphony:
        declare(symphony, new)
        (run,) = await symphony.workflows.recover()
        assert run.error is not None
        assert (run.status, run.error["type"]) == ("blocked", "HistoryMismatchError")
        assert code.done == done
    async with Symphony(tmp_path) as symphony:
        declare(symphony, old)
        await symphony.workflows.recover(wait=False)
        handle = symphony.workflows.handle("r")
        await handle.signal("end")
        run = await handle.wait()
        assert (run.status, run.error) == ("completed", None)


async def test_a_gather_whose_calls_were_taken_back(tmp_path: Path) -> None:
    """Clean-up has undone its calls, and not one behind it: `retry_from` makes them again, and they hold in the next process too."""
    done: list[str] = []
    broken = True

    async def do(what: str) -> None:
        done.append(what)
        if what == "fails" and broken:
            raise OSError("down")

    async def undo(what: str) -> None:
        done.append(f"undo {what}")

    def declare(symphony: Symphony) -> Any:
        async def call(what: str) -> None:
            await step(do, what, name=what, undo=undo)

        @symphony.workflow(name="taken back", cleanup_on="failure")
        async def flow() -> None:
            await gather(call("l"), call("m"))
            await step(do, "plain", name="plain")
            await call("fails")
            await wait_for_signal("end")

        return flow

    async with Symphony(tmp_path) as symphony:
        assert (await symphony.workflows.execute_workflow(declare(symphony), run_id="r")).status == "failed"
        broken = False
        retrying = asyncio.ensure_future(symphony.workflows.retry_from("r", "fails"))
        handle = symphony.workflows.handle("r")
        while "wait end" not in handle.run.attempts:
            await asyncio.sleep(0)
        await symphony.registry.get("workflow_engine").interrupt()
        await asyncio.gather(retrying, return_exceptions=True)
    assert done.count("l") == 2
    async with Symphony(tmp_path) as symphony:
        declare(symphony)
        await symphony.workflows.recover(wait=False)
        handle = symphony.workflows.handle("r")
        await handle.signal("end")
        run = await handle.wait()
        assert (run.status, run.error) == ("completed", None)
    assert (done.count("l"), done.count("plain")) == (2, 1)


@pytest.mark.parametrize(
    ("old", "new", "answers"),
    [
        ("with_a_call_behind", "removed_and_a_call_behind", 1),
        ("plain", "another_one_instead", 1),
        ("plain", "one_coroutine", 1),
        ("deep", "deep_removed", 1),
        ("two", "one_of_two", 2),
    ],
)
async def test_a_gather_that_is_not_made_any_more(tmp_path: Path, old: str, new: str, answers: int) -> None:
    """The run is blocked before the new code does anything that is not on record, and the old code goes on with it."""
    code = Code()

    def declare(symphony: Symphony, name: str) -> Any:
        return symphony.workflow(getattr(code, name), name="place")

    async with Symphony(tmp_path) as symphony:
        handle = await symphony.workflows.start(declare(symphony, old), run_id="r")
        for _ in range(answers):
            await handle.signal("answer")
        while "wait end" not in handle.run.attempts:
            await asyncio.sleep(0)
    done = list(code.done)
    async with Symphony(tmp_path) as symphony:
        declare(symphony, new)
        await symphony.workflows.signal("r", "end")
        (run,) = await symphony.workflows.recover()
        assert run.error is not None
        assert (run.status, run.error["type"]) == ("blocked", "HistoryMismatchError")
        assert code.done == done
    async with Symphony(tmp_path) as symphony:
        declare(symphony, old)
        (run,) = await symphony.workflows.recover()
        assert (run.status, run.error) == ("completed", None)
        assert code.done[: len(done)] == done
        assert set(code.done[len(done) :]) <= {"late"}
