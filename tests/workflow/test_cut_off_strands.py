"""Strands of a `gather` that were cut off by the failure of another one, which the code has caught: they stay cut off, in every process."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, StepFailedError
from symphony_es.workflow import CodeWorkflow, gather, step, wait_for_signal

Coroutine = Callable[[], Awaitable[Any]]


class Work:
    """What the steps do, and what they have done in all processes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.under_way = asyncio.Event()
        self.fails = True

    async def do(self, what: str) -> str:
        self.done.append(what)
        return what

    async def hang(self, what: str) -> None:
        self.done.append(what)
        self.under_way.set()
        if self.fails:
            await asyncio.Event().wait()

    async def fail(self) -> str:
        await self.under_way.wait()
        if self.fails:
            raise ValueError("not today")
        return "fine"


async def _failing(work: Work) -> str:
    return await step(work.fail, retry=1)


async def _raising(work: Work) -> str:
    while not work.under_way.is_set():
        await asyncio.sleep(0)
    raise StepFailedError("none", "ValueError", "the code's own")


def _plain(work: Work, before: int) -> list[Awaitable[Any]]:
    async def other() -> None:
        for number in range(before):
            await step(work.do, f"{number}", name=f"do {number}")
        await step(work.hang, "slow")

    return [_failing(work), other()]


def _first(work: Work, before: int) -> list[Awaitable[Any]]:
    return _plain(work, before)[::-1]


def _by_code(work: Work, before: int) -> list[Awaitable[Any]]:
    failing, other = _plain(work, before)
    failing.close()  # type: ignore[attr-defined]
    return [_raising(work), other]


def _handed_over(work: Work, before: int) -> list[Awaitable[Any]]:
    return [_failing(work), step(work.hang, "slow")]


def _both_handed_over(work: Work, before: int) -> list[Awaitable[Any]]:
    return [step(work.hang, "slow"), step(work.fail, retry=1)]


async def _giving_back(work: Work, before: int) -> None:
    for number in range(before):
        await step(work.do, f"{number}", name=f"do {number}")
    try:
        await step(work.hang, "slow")
    finally:
        await step(work.do, "given back", name="give back")


def _cleans_up(work: Work, before: int) -> list[Awaitable[Any]]:
    return [_failing(work), _giving_back(work, before)]


def _goes_on(work: Work, before: int) -> list[Awaitable[Any]]:
    async def other() -> str:
        for number in range(before):
            await step(work.do, f"{number}", name=f"do {number}")
        try:
            await step(work.hang, "slow")
        except asyncio.CancelledError:
            return await step(work.do, "instead", name="instead")
        return "never"

    return [_failing(work), other()]


def _nested(work: Work, before: int) -> list[Awaitable[Any]]:
    async def inner() -> None:
        await gather(_giving_back(work, before), step(work.do, "beside", name="beside"), name="inner")

    return [_failing(work), inner()]


def _never_begun(work: Work, before: int) -> list[Awaitable[Any]]:
    async def waits() -> None:
        await asyncio.Event().wait()
        await step(work.do, "never", name="never")

    return [_failing(work), step(work.hang, "slow"), waits()]


SHAPES = [_plain, _first, _by_code, _handed_over, _both_handed_over, _cleans_up, _goes_on, _nested, _never_begun]


def _declare(symphony: Symphony, work: Work, shape: Any, before: int, *, waits: bool = True) -> CodeWorkflow[..., Any]:
    @symphony.workflow(name="cut off")
    async def flow() -> str:
        with contextlib.suppress(StepFailedError):
            await gather(*shape(work, before))
        if waits:
            await wait_for_signal("go on")
        await step(work.do, "end", name="end")
        return "ended"

    return flow


async def _until_it_waits(handle: Any) -> None:
    async for event in handle.events():
        if event.metadata.step == "wait go on":
            return


@pytest.mark.parametrize("before", [0, 40])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__.strip("_"))
async def test_the_code_goes_on_in_another_process(tmp_path: Path, shape: Any, before: int) -> None:
    """A strand that was cut off does not begin again, what it did about that is not done again, and the run ends as it would have."""
    work = Work()
    async with Symphony(tmp_path) as symphony:
        handle = await symphony.workflows.start(_declare(symphony, work, shape, before), run_id="r")
        await _until_it_waits(handle)
        await symphony.registry.get("workflow_engine").interrupt()
    done, position = list(work.done), 0
    for _ in range(2):  # the second time after what the first one has recorded
        async with Symphony(tmp_path) as symphony:
            _declare(symphony, work, shape, before)
            await symphony.workflows.recover(wait=False)
            handle = symphony.workflows.handle("r")
            await handle.load()
            position = symphony.log.head
            await asyncio.sleep(0)
            await symphony.registry.get("workflow_engine").interrupt()
    async with Symphony(tmp_path) as symphony:
        _declare(symphony, work, shape, before)
        await symphony.workflows.recover(wait=False)
        handle = symphony.workflows.handle("r")
        await handle.signal("go on")
        run = await handle.wait()
        assert (run.status, run.result, run.error) == ("completed", "ended", None)
        events = await symphony.log.read_entity("Workflow:r")
        begun = [event for event in events if event.position > position and event.name.startswith("WorkflowStep")]
    assert work.done == [*done, "end"]
    assert {event.metadata.step for event in begun} == {"wait go on", "end"}


@pytest.mark.parametrize("shape", SHAPES[:2] + SHAPES[3:-1], ids=lambda shape: shape.__name__.strip("_"))
async def test_it_can_be_taken_back(shape: Any) -> None:
    """What failed is taken back: the strands beside it are cut off no longer, and the `gather` is done to its end."""
    work = Work()
    async with Symphony() as symphony:
        run = await symphony.workflows.execute_workflow(_declare(symphony, work, shape, 2, waits=False), run_id="r")
        assert (run.status, run.result) == ("completed", "ended")
        (failed,) = [address for address in run.failures if address.endswith("fail")]
        (slow,) = [address for address in run.attempts if address.endswith("hang")]
        assert slow not in run.outputs
        work.fails = False
        run = await symphony.workflows.retry_from(run, failed)
        assert (run.status, run.result, run.error) == ("completed", "ended", None)
        assert slow in run.outputs


async def test_a_gather_that_is_open_catches_up_first(tmp_path: Path) -> None:
    """Killed between the failure and what the code did next: the others come to where the record ends, before they are cut off."""
    work = Work()
    reached = asyncio.Event()

    def declare(symphony: Symphony, stops: bool) -> CodeWorkflow[..., Any]:
        @symphony.workflow(name="open")
        async def flow() -> str:
            with contextlib.suppress(StepFailedError):
                await gather(*_cleans_up(work, 40))
            if stops:
                reached.set()
                await asyncio.Event().wait()
            return str(await step(work.do, "end", name="end"))

        return flow

    async with Symphony(tmp_path) as symphony:
        await symphony.workflows.start(declare(symphony, True), run_id="r")
        await reached.wait()
        await symphony.registry.get("workflow_engine").interrupt()
    async with Symphony(tmp_path) as symphony:
        declare(symphony, False)
        (run,) = await symphony.workflows.recover()
        assert (run.status, run.result, run.error) == ("completed", "end", None)
    assert work.done == [*map(str, range(40)), "slow", "end"]


@pytest.mark.parametrize("failing", ["gather/1/bad", "bad"])
async def test_a_retry_from_a_step_that_stays_cut_off_is_refused(symphony: Symphony, failing: str) -> None:
    """The failure that has cut it off would do so again; a retry from the step that failed does both again, as the error says."""
    done: list[str] = []

    async def slow(what: str) -> str:
        done.append(what)
        if done.count(what) == 1:
            await asyncio.Event().wait()
        return what

    async def bad(what: str) -> str:
        done.append(what)
        if done.count(what) == 1:
            while "slow" not in done:
                await asyncio.sleep(0)
            raise ValueError(what)
        return what

    async def first() -> str:
        await step(named, "before", name="before")
        return await step(slow, "slow", name="slow")

    async def second() -> str:
        return await step(bad, "bad", name="bad")

    async def named(what: str) -> str:
        return what

    @symphony.workflow
    async def flow() -> str:
        try:
            return "".join(await gather(first(), second() if "/" in failing else step(bad, "bad", name="bad")))
        except StepFailedError:
            return await step(named, "caught", name="after")

    run = await symphony.workflows.execute_workflow(flow, run_id="r")
    assert run.result == "caught"
    with pytest.raises(ConfigurationError, match=f"retry from '{failing}'"):
        await symphony.workflows.retry_from("r", "gather/0/slow")
    assert (await symphony.workflows.retry_from("r", failing)).result == "slowbad"
