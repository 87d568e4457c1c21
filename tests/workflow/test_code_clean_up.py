"""Code that cleans up when its run is cancelled: `except` and `finally` may call steps, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, StepFailedError
from symphony_es.workflow import CodeWorkflow, Workflow, gather, patched, sleep, step, step_context, wait_for_signal

Calls = list[str]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that waits for something of its own is cut off sooner."""
    monkeypatch.setattr("symphony_es.workflow.code.flow.IDLE_S", 0.05)


def noting(calls: Calls, name: str) -> Callable[[], str]:
    """A function that notes that it was called."""

    def call() -> str:
        calls.append(name)
        return name

    return call


class Ways:
    """Functions with a clean-up, each of which comes to a wait for the signal `go`; and what their clean-up calls."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def do(self, name: str) -> Any:
        return await step(noting(self.calls, name), name=name)

    async def wait(self) -> Any:
        return await wait_for_signal("go")

    async def finally_(self) -> None:
        await self.do("reserve")
        try:
            await self.wait()
        finally:
            await self.do("undo 1")
            await self.do("undo 2")

    async def except_(self) -> None:
        await self.do("reserve")
        try:
            await self.wait()
        except asyncio.CancelledError:
            await self.do("undo 1")
            await self.do("undo 2")
            raise

    async def swallowed(self) -> str:
        await self.do("reserve")
        try:
            await self.wait()
        except asyncio.CancelledError:
            await self.do("undo 1")
        await self.do("undo 2")
        return "swallowed"

    async def translated(self) -> None:
        await self.do("reserve")
        try:
            await self.wait()
        except asyncio.CancelledError as error:
            await gather(self.do("undo 1"), self.do("undo 2"), name="undoing")
            raise LookupError("cancelled") from error

    async def nested(self) -> None:
        try:
            await self.do("reserve")
            try:
                await gather(self.wait(), self.do("beside"))
            finally:
                await self.do("undo 1")
        finally:
            await sleep(0)
            await self.do("undo 2")

    async def in_strands(self) -> None:
        async def strand(number: int) -> None:
            try:
                await self.do(f"part {number}")
                await (self.wait() if number == 1 else wait_for_signal(f"never {number}"))
            finally:
                await self.do(f"undo {number}")

        await self.do("reserve")
        await gather(strand(1), strand(2))

    async def handed(self) -> None:
        await self.do("reserve")
        try:
            await gather(step(noting(self.calls, "a"), name="a"), wait_for_signal("never"), wait_for_signal("go"))
        finally:
            await gather(self.do("undo 1"), self.do("undo 2"))

    async def handed_for_all_results(self) -> None:
        await self.do("reserve")
        try:
            await gather(wait_for_signal("never"), self.wait(), return_exceptions=True)
            await self.do("never")
        finally:
            await self.do("undo 1")
            await self.do("undo 2")

    async def handed_in_a_strand(self) -> None:
        async def strand(number: int) -> None:
            try:
                await gather(wait_for_signal("never"), wait_for_signal("go"), name="within")
            finally:
                await self.do(f"undo {number}")

        await self.do("reserve")
        await gather(strand(1), strand(2))

    async def beside(self) -> None:
        await self.do("reserve")
        try:
            await asyncio.gather(step(noting(self.calls, "a"), name="a"), wait_for_signal("never"), wait_for_signal("go"))
        finally:
            if patched("another"):
                await self.do("undo 1")
            await self.do("undo 2")

    async def own_wait(self) -> None:
        await self.do("reserve")
        try:
            await self.do("go")
            await asyncio.Event().wait()
        finally:
            await self.do("undo 1")
            await self.do("undo 2")

    async def own_wait_in_a_strand(self) -> None:
        async def strand(number: int) -> None:
            try:
                await self.do(f"go {number}")
                await (asyncio.Event().wait() if number == 1 else self.wait())
            finally:
                await self.do(f"undo {number}")

        await self.do("reserve")
        await gather(strand(1), strand(2))


WAYS = [name for name, member in vars(Ways).items() if callable(member) and name not in ("__init__", "do", "wait")]


async def until_it_waits(run: Workflow) -> None:
    """Returns when a run has come to its wait, and no other step of it is under way."""

    def waits() -> bool:
        names = [address.rpartition("/")[2] for address in run.attempts]
        under_way = [address for address in run.attempts if run.step_status(address) == "running"]
        return any("go" in name for name in names) and all("wait" in address for address in under_way)

    async with asyncio.timeout(20):
        while not waits():
            assert run.status == "running", run.error
            await asyncio.sleep(0.001)


def define(symphony: Symphony, calls: Calls, way: str) -> CodeWorkflow:
    @symphony.workflow(name="flow")
    async def flow() -> Any:
        return await getattr(Ways(calls), way)()

    assert isinstance(flow, CodeWorkflow)
    return flow


@pytest.mark.parametrize("way", WAYS)
async def test_the_clean_up_of_cancelled_code_runs(symphony: Symphony, way: str) -> None:
    """Once, after the cancellation, also in strands and where it is swallowed; nothing of the main line runs again or goes on."""
    calls: Calls = []
    handle = await symphony.workflows.start(define(symphony, calls, way), auto_checkpoint=False)
    await until_it_waits(handle.run)
    before = list(calls)
    assert "undo 1" not in before
    run = await handle.cancel(grace_s=0.05)
    assert run.status == "cancelled"
    assert sorted(calls[len(before) :]) == ["undo 1", "undo 2"]
    assert run.error is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", ["undo 1", "undo 2"])
async def test_the_clean_up_survives_crashes(symphony: Symphony, reopen: Any, way: str, cut: str) -> None:
    """The process ends while a step of the clean-up is under way; the next one goes on with it, and repeats nothing."""
    calls: Calls = []
    hanging = asyncio.Event()

    class Hangs(Ways):
        async def do(self, name: str) -> Any:
            if name != cut:
                return await super().do(name)

            async def hang() -> None:
                hanging.set()
                await asyncio.Event().wait()

            return await step(hang, name=name)

    def define_hanging(where: Symphony, ways: type[Ways]) -> CodeWorkflow:
        @where.workflow(name="flow")
        async def flow() -> Any:
            return await getattr(ways(calls), way)()

        assert isinstance(flow, CodeWorkflow)
        return flow

    handle = await symphony.workflows.start(define_hanging(symphony, Hangs), run_id="r", auto_checkpoint=False)
    await until_it_waits(handle.run)
    cancelling = asyncio.ensure_future(handle.cancel(grace_s=0.05))
    async with asyncio.timeout(20):
        await hanging.wait()
        while any(handle.run.step_status(other) == "running" for other in handle.run.attempts if "undo" in other and cut not in other):
            await asyncio.sleep(0.001)
    again = await reopen()
    await asyncio.gather(cancelling, return_exceptions=True)
    await again.resume()
    define_hanging(again, Ways)
    done = list(calls)
    [run] = await again.workflows.recover()
    assert run.status == "cancelled"
    assert sorted(calls) == sorted({*calls}), "nothing has been done twice"
    assert {"undo 1", "undo 2"} == {name for name in calls if name.startswith("undo")}
    assert cut in calls[len(done) :]


async def test_a_step_of_the_clean_up_that_fails_is_on_record(symphony: Symphony) -> None:
    """The other strands clean up all the same, and the run has the error."""
    calls: Calls = []

    def bad() -> None:
        raise ValueError("bad luck")

    @symphony.workflow
    async def flow() -> None:
        async def strand(number: int) -> None:
            try:
                await wait_for_signal("go")
            finally:
                await step(bad if number == 0 else noting(calls, f"undo {number}"), name="undo")

        await gather(strand(0), strand(1))

    handle = await symphony.workflows.start(flow, auto_checkpoint=False)
    await until_it_waits(handle.run)
    run = await handle.cancel()
    assert run.error is not None
    assert (run.error["type"], run.error["step"]) == ("ValueError", "gather/0/undo")
    assert calls == ["undo 1"]


async def test_a_clean_up_that_has_failed_can_be_tried_again(symphony: Symphony) -> None:
    """A resume makes another attempt at the step, goes on with what comes after it, and nothing of the main line runs."""
    calls: Calls = []
    broken = True

    def undo() -> None:
        calls.append("undo")
        if broken:
            raise ValueError("bad luck")

    @symphony.workflow
    async def flow() -> None:
        await step(noting(calls, "reserve"), name="reserve")
        try:
            await wait_for_signal("go")
            await step(noting(calls, "ship"), name="ship")
        finally:
            await step(undo)
            await step(noting(calls, "last"), name="last")

    handle = await symphony.workflows.start(flow, auto_checkpoint=False)
    await until_it_waits(handle.run)
    run = await handle.cancel()
    assert (run.status, calls) == ("cancelled", ["reserve", "undo"])
    broken = False
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.error, calls) == ("cancelled", None, ["reserve", "undo", "undo", "last"])


@pytest.mark.parametrize("strands", [1, 3])
@pytest.mark.parametrize("asked", ["resume", "recover"])
async def test_a_clean_up_that_a_crash_has_left_is_tried_again_where_somebody_asks(
    symphony: Symphony, reopen: Any, strands: int, asked: str
) -> None:
    """What the code's clean-up has failed of is done then, and what comes after it; what the code has dealt with is replayed as it was."""
    calls: Calls = []
    hanging = asyncio.Event()
    broken = True

    def fails(name: str) -> Callable[[], str]:
        def call() -> str:
            calls.append(name)
            if broken:
                raise ValueError(f"{name} is down")
            return name

        return call

    async def release() -> None:
        hanging.set()
        if broken:
            await asyncio.Event().wait()

    def define_it(where: Symphony) -> CodeWorkflow:
        @where.workflow(name="flow")
        async def flow() -> None:
            async def strand(number: int) -> None:
                try:
                    await wait_for_signal("go")
                finally:
                    with suppress(StepFailedError):
                        await step(fails(f"tolerated {number}"), name="tolerated")
                    await step(fails(f"undo {number}"), name="undo")
                    await step(noting(calls, f"last {number}"), name="last")

            await step(noting(calls, "reserve"), name="reserve", undo=release)
            await gather(*(strand(number) for number in range(strands)))

        assert isinstance(flow, CodeWorkflow)
        return flow

    handle = await symphony.workflows.start(define_it(symphony), run_id="r", auto_checkpoint=False)
    await until_it_waits(handle.run)
    cancelling = asyncio.ensure_future(handle.cancel())
    async with asyncio.timeout(20):
        await hanging.wait()
    again = await reopen(resume="latest")
    await asyncio.gather(cancelling, return_exceptions=True)
    define_it(again)
    broken = False
    before = len(calls)
    run = await again.workflows.get_run("r")
    await (again.workflows.resume(run, auto_checkpoint=False) if asked == "resume" else again.workflows.recover(auto_checkpoint=False))
    done = [f"{name} {number}" for name in ("last", "undo") for number in range(strands)]
    assert sorted(calls[before:]) == (done if asked == "resume" else [])
    assert run.status == "cancelled"
    assert (run.error and run.error["message"]) == (None if asked == "resume" else "undo 0 is down")


async def test_a_failure_that_code_has_dealt_with_is_replayed_in_the_clean_up(symphony: Symphony) -> None:
    """Code that is to clean up meets the same failures, and takes the same way, as before."""
    calls: Calls = []

    def bad() -> None:
        calls.append("bad")
        raise ValueError("bad luck")

    @symphony.workflow
    async def flow() -> None:
        try:
            await step(bad)
        except StepFailedError:
            await step(noting(calls, "instead"), name="instead")
        try:
            await wait_for_signal("go")
        finally:
            await step(noting(calls, "undo"), name="undo")

    handle = await symphony.workflows.start(flow, auto_checkpoint=False)
    await until_it_waits(handle.run)
    run = await handle.cancel()
    assert (run.status, calls) == ("cancelled", ["bad", "instead", "undo"])


async def test_a_run_that_is_paused_does_not_clean_up(symphony: Symphony) -> None:
    """A pause is not the end: `finally` calls nothing, and the run goes on where it was."""
    calls: Calls = []
    flow = define(symphony, calls, "finally_")
    handle = await symphony.workflows.start(flow, auto_checkpoint=False)
    await until_it_waits(handle.run)
    await handle.pause()
    await handle.wait("paused")
    assert calls == ["reserve"]
    await handle.signal("go")
    run = await handle.resume()
    assert (run.status, calls) == ("completed", ["reserve", "undo 1", "undo 2"])


async def test_a_failed_run_that_is_cancelled_has_cleaned_up_already(symphony: Symphony) -> None:
    """Its `finally` ran when it failed, and does not run again."""
    calls: Calls = []

    def bad() -> None:
        raise ValueError("bad luck")

    @symphony.workflow
    async def flow() -> None:
        try:
            await step(bad)
        finally:
            await step(noting(calls, "undo"), name="undo")

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.status, calls) == ("failed", ["undo"])
    await symphony.workflows.cancel(run)
    assert (run.status, calls) == ("cancelled", ["undo"])


@pytest.mark.parametrize("way", ["finally_", "except_", "in_strands"])
async def test_a_step_of_the_clean_up_of_code_is_done_again_in_the_clean_up(symphony: Symphony, way: str) -> None:
    """`retry_from` at it never leads to the main line, and `fork` at it is refused."""
    calls: Calls = []
    handle = await symphony.workflows.start(define(symphony, calls, way), auto_checkpoint=False)
    await until_it_waits(handle.run)
    run = await handle.cancel()
    [address] = [address for address in run.attempts if address.endswith("undo 2")]
    calls.clear()
    run = await symphony.workflows.retry_from(run, address, auto_checkpoint=False)
    assert (run.status, calls) == ("cancelled", ["undo 2"])
    with pytest.raises(ConfigurationError, match="clean-up"):
        await symphony.workflows.fork(run, address)


@pytest.mark.parametrize("how", ["retry_from", "fork", "fork at the head"])
async def test_the_main_line_of_a_cancelled_run_begins_without_its_clean_up(symphony: Symphony, how: str) -> None:
    """Taken back to a step of one strand, or forked after its clean-up: what other strands did to clean up is no part of it."""
    calls: Calls = []
    handle = await symphony.workflows.start(define(symphony, calls, "in_strands"), auto_checkpoint=False)
    await until_it_waits(handle.run)
    run = await handle.cancel()
    calls.clear()
    if how == "retry_from":
        going = asyncio.ensure_future(symphony.workflows.retry_from(run, "gather/0/part 1", auto_checkpoint=False))
        await asyncio.sleep(0)
    else:
        at: Any = "gather/0/part 1" if how == "fork" else symphony.log.head
        run = await symphony.workflows.fork(run, at)
        going = asyncio.ensure_future(symphony.workflows.resume(run, auto_checkpoint=False))
    async with asyncio.timeout(20):
        while run.status != "running":
            await asyncio.sleep(0.001)
    await symphony.workflows.signal(run, "go")
    await symphony.workflows.signal(run, "never 2")
    async with asyncio.timeout(20):
        run = await going
    assert (run.status, run.error) == ("completed", None)
    assert sorted(name for name in calls if name.startswith("undo")) == ["undo 1", "undo 2"]


async def test_a_fork_is_called_with_what_its_original_began_with(symphony: Symphony) -> None:
    """Or with what the fork says instead; what a step wrote to the context is the context's."""

    def write() -> None:
        step_context()["topic"] = "other"
        step_context()["note"] = "seen"

    @symphony.workflow
    async def flow(topic: str) -> list[Any]:
        await step(write)
        return [topic, await step(lambda: dict(step_context()), name="look")]

    run = await symphony.workflows.execute_workflow(flow, {"topic": "rain"}, auto_checkpoint=False)
    fork = await symphony.workflows.fork(run, "look")
    fork = await symphony.workflows.resume(fork, auto_checkpoint=False)
    assert fork.result == ["rain", {"topic": "other", "note": "seen"}]
    fork = await symphony.workflows.fork(run, "look", {"topic": "snow", "note": "new"})
    fork = await symphony.workflows.resume(fork, auto_checkpoint=False)
    assert fork.result == ["snow", {"topic": "snow", "note": "new"}]
