"""Workflows as code: what is recorded is skipped, what contradicts the record is refused, and both are shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, StepFailedError
from symphony_es.workflow import (
    CodeWorkflow,
    StepList,
    Workflow,
    WorkflowDefinition,
    gather,
    patched,
    run_workflow,
    sleep,
    step,
    step_context,
    wait_for_signal,
)

Calls = list[str]


def noting(calls: Calls, name: str, value: Any = None) -> Any:
    """A function that notes that it was called."""

    def call() -> Any:
        calls.append(name)
        return name if value is None else value

    return call


async def interrupted_at_signal(symphony: Symphony, code: CodeWorkflow, run_id: str = "r") -> Workflow:
    """A run of code that has come to its wait for the signal `go`, and whose process ends there."""
    handle = await symphony.workflows.start(code, run_id=run_id, auto_checkpoint=False)
    while "wait go" not in handle.run.attempts:
        await asyncio.sleep(0.001)
        assert handle.status == "running", handle.run.error
    return handle.run


async def go_on(symphony: Symphony, run_id: str = "r") -> Workflow:
    """Sends the signal, and goes on with the run to its end."""
    await symphony.workflows.signal(run_id, "go")
    return await symphony.workflows.resume(run_id, auto_checkpoint=False)


async def test_recorded_steps_are_skipped(symphony: Symphony, reopen: Any) -> None:
    """In another process the function runs again from its beginning, and only what has not completed is done."""
    calls: Calls = []

    def define(where: Symphony) -> CodeWorkflow:
        @where.workflow
        async def flow(topic: str, times: int = 2) -> Any:
            found = [await step(noting(calls, f"find {n}", n), name="find") for n in range(times)]
            both = await asyncio.gather(step(noting(calls, "a"), name="a"), step(noting(calls, "b"), name="b"))
            await wait_for_signal("go")
            return [topic, found, both, await step(noting(calls, "last"), name="last")]

        assert isinstance(flow, CodeWorkflow)
        return flow

    handle = await symphony.workflows.start(define(symphony), {"topic": "rain"}, run_id="r", auto_checkpoint=False)
    while "wait go" not in handle.run.attempts:
        await asyncio.sleep(0.001)
    assert calls == ["find 0", "find 1", "a", "b"]
    again = await reopen()
    await again.resume()
    define(again)
    calls.clear()
    run = await go_on(again)
    assert calls == ["last"]
    assert run.result == ["rain", [0, 1], ["a", "b"], "last"]
    assert list(run.outputs) == ["find", "find#2", "a", "b", "wait go", "last"]


OLD = ("plan", "write", "check")


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (("plan", "rewrite", "check"), "the function called rewrite"),
        (("plan", "extra", "write", "check"), "the function called extra"),
        (("write", "plan", "check"), "the function called write"),
        (("plan", "check"), "the function called check"),
        (("plan", "write"), "the function called wait go"),
    ],
)
async def test_code_that_contradicts_the_record_is_refused(symphony: Symphony, reopen: Any, new: tuple[str, ...], why: str) -> None:
    """Renamed, inserted, reordered or removed steps: the run fails with both sequences and the way out; the old code still goes on."""
    calls: Calls = []

    def define(where: Symphony, names: tuple[str, ...]) -> CodeWorkflow:
        where.flows._callables.clear()

        @where.workflow
        async def flow() -> list[str]:
            done = [await step(noting(calls, name), name=name) for name in names]
            await wait_for_signal("go")
            return done

        assert isinstance(flow, CodeWorkflow)
        return flow

    await interrupted_at_signal(symphony, define(symphony, OLD))
    again = await reopen()
    await again.resume()
    define(again, new)
    calls.clear()
    run = await go_on(again)
    assert run.status == "blocked"
    assert run.error is not None
    assert run.error["type"] == "HistoryMismatchError"
    assert why in run.error["message"]
    assert "on record: plan, write, check, wait go (signal)" in run.error["message"]
    assert "patched" in run.error["message"]
    assert calls == [], "nothing of the contradiction has been done"
    define(again, OLD)
    assert (await again.workflows.resume(run)).result == list(OLD)


async def test_a_function_that_ends_too_early_contradicts_the_record(symphony: Symphony, reopen: Any) -> None:
    """Calls on record that it did not make."""

    def define(where: Symphony, whole: bool) -> CodeWorkflow:
        where.flows._callables.clear()

        @where.workflow
        async def flow() -> str:
            await step(lambda: 1, name="plan")
            if whole:
                await gather(step(lambda: 2, name="inner"), name="fan")
                await wait_for_signal("go")
            return "ended"

        assert isinstance(flow, CodeWorkflow)
        return flow

    await interrupted_at_signal(symphony, define(symphony, True))
    again = await reopen()
    await again.resume()
    define(again, False)
    run = await go_on(again)
    assert run.error is not None
    assert "the function ended" in run.error["message"]


async def test_patched_keeps_old_runs_on_the_old_code(symphony: Symphony, reopen: Any) -> None:
    """New runs take the new code, and stay on it in every later process; runs that had passed the place keep to the old one."""
    calls: Calls = []

    def define(where: Symphony, new: bool) -> CodeWorkflow:
        where.flows._callables.clear()

        @where.workflow
        async def flow() -> list[str]:
            done = [await step(noting(calls, "plan"), name="plan")]
            for number in range(2):
                if new and patched("ask-twice"):
                    done.append(await step(noting(calls, f"ask {number}"), name="ask"))
                else:
                    done.append(await step(noting(calls, f"old {number}"), name="old"))
            await wait_for_signal("go")
            if new and patched("at-the-end"):
                done.append(await step(noting(calls, "end"), name="end"))
            return done

        assert isinstance(flow, CodeWorkflow)
        return flow

    await interrupted_at_signal(symphony, define(symphony, False), "old")
    await interrupted_at_signal(symphony, define(symphony, True), "new")
    for _ in range(2):
        again = await reopen()
        await again.resume()
        define(again, True)
        going = asyncio.create_task(again.workflows.recover())
        for run_id in ("old", "new"):
            run = await again.workflows.get_run(run_id)
            while "WorkflowResumed" not in [event.name for event in await again.log.read_entity(f"Workflow:{run_id}")]:
                await asyncio.sleep(0.001)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
    calls.clear()
    results = {}
    for run_id in ("old", "new"):
        run = await go_on(again, run_id)
        results[run_id] = run.result
    assert results == {"old": ["plan", "old 0", "old 1", "end"], "new": ["plan", "ask 0", "ask 1", "end"]}
    assert calls == ["end", "end"]


async def test_a_failure_that_code_has_dealt_with_stays_one(symphony: Symphony, reopen: Any) -> None:
    """The step that failed is not tried again when the function runs anew: it raises what is on record, and the code does the same."""
    calls: Calls = []

    def define(where: Symphony) -> CodeWorkflow:
        def bad() -> None:
            calls.append("bad")
            raise ValueError("bad luck")

        @where.workflow
        async def flow() -> Any:
            try:
                await step(bad, retry=2)
            except StepFailedError as error:
                caught = [error.step, error.error_type, error.message]
            await wait_for_signal("go")
            return caught

        assert isinstance(flow, CodeWorkflow)
        return flow

    await interrupted_at_signal(symphony, define(symphony))
    assert calls == ["bad", "bad"]
    again = await reopen()
    await again.resume()
    define(again)
    calls.clear()
    assert (await go_on(again)).result == ["bad", "ValueError", "bad luck"]
    assert calls == []


async def test_a_failed_run_tries_the_failed_step_again(symphony: Symphony) -> None:
    """Resumed, what it failed of gets another attempt; steps before it are skipped; the error had the step and its traceback."""
    calls: Calls = []
    broken = True

    def shaky() -> str:
        calls.append("shaky")
        if broken:
            raise ValueError("shaky")
        return "mended"

    @symphony.workflow
    async def flow() -> Any:
        await step(noting(calls, "first"), name="first")
        return await step(shaky)

    run = await symphony.workflows.execute_workflow(flow)
    assert run.error is not None
    assert (run.status, run.error["type"], run.error["step"]) == ("failed", "ValueError", "shaky")
    assert "in shaky" in run.error["traceback"]
    broken = False
    await symphony.workflows.resume(run)
    assert (run.status, run.result, calls) == ("completed", "mended", ["first", "shaky", "shaky"])


async def test_strands_are_matched_each_for_itself(symphony: Symphony, reopen: Any) -> None:
    """Coroutines beside each other may come to their calls in any order; each one's own order counts. A failure cancels the others."""
    calls: Calls = []

    def define(where: Symphony, delays: dict[int, int]) -> CodeWorkflow:
        async def part(number: int) -> list[str]:
            for _ in range(delays[number]):
                await asyncio.sleep(0)
            done = [await step(noting(calls, f"{number} a"), name="a")]
            if number == 1:
                done += await gather(step(noting(calls, "inner"), name="inner"), name="deeper")
            return [*done, await step(noting(calls, f"{number} b"), name="b")]

        @where.workflow
        async def flow() -> Any:
            parts = await gather(*(part(number) for number in range(3)))
            await wait_for_signal("go")
            return parts

        assert isinstance(flow, CodeWorkflow)
        return flow

    run = await interrupted_at_signal(symphony, define(symphony, {0: 0, 1: 3, 2: 7}))
    assert {"gather/1/inner", "gather/2/b"} <= set(run.outputs), "a step belongs to the strand that calls it"
    again = await reopen()
    await again.resume()
    define(again, {0: 9, 1: 2, 2: 0})
    calls.clear()
    assert (await go_on(again)).result == [["0 a", "0 b"], ["1 a", "inner", "1 b"], ["2 a", "2 b"]]
    assert calls == []


async def test_the_first_failure_in_a_gather_cancels_the_others(symphony: Symphony) -> None:
    """Unless exceptions are asked for as results."""
    cancelled: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("waits")

    def bad() -> None:
        raise ValueError("bad")

    @symphony.workflow
    async def fails() -> Any:
        return await gather(step(waits), step(bad))

    @symphony.workflow
    async def collects() -> Any:
        found = await gather(step(lambda: 1, name="one"), step(bad), return_exceptions=True)
        return [found[0], str(found[1])]

    run = await symphony.workflows.execute_workflow(fails)
    assert run.error is not None
    assert (run.status, run.error["type"], cancelled) == ("failed", "ValueError", ["waits"])
    run = await symphony.workflows.execute_workflow(collects)
    assert run.result == [1, "step bad failed: ValueError: bad"]


async def test_timers_children_and_keys_in_code(symphony: Symphony) -> None:
    """Sleeps, signals with a time limit, child runs of both ways, and what a step knows of itself."""
    symphony.functions.register("double", lambda context: context["n"] * 2)
    declared = WorkflowDefinition(name="declared", steps=StepList().add_function("d", "double").to_dicts())

    @symphony.workflow
    async def inner(n: int) -> int:
        return n + await step(lambda: 1, name="one")

    def key() -> str:
        return step_context().idempotency_key

    @symphony.workflow
    async def flow(n: int) -> Any:
        await sleep(0.001)
        late = await wait_for_signal("never", timeout_s=0.001, default="too late")
        return [late, await run_workflow(declared, {"n": n}), await run_workflow(inner, {"n": n}), await step(key)]

    run = await symphony.workflows.execute_workflow(flow, {"n": 4}, run_id="r")
    assert run.result == ["too late", 8, 5, "r:key:0"]
    assert sorted(run.children) == ["declared", "inner"]


async def test_misuse_is_refused(symphony: Symphony) -> None:
    """Arguments that do not fit, a plain function, calls from outside, and from a task that the workflow does not know."""

    @symphony.workflow
    async def flow(topic: str) -> Any:
        async def elsewhere() -> Any:
            return await step(lambda: 1, name="x")

        return await asyncio.create_task(elsewhere())

    head = symphony.log.head
    with pytest.raises(ConfigurationError, match="missing a required argument: 'topic'"):
        await symphony.workflows.execute_workflow(flow)
    with pytest.raises(ConfigurationError, match="unexpected keyword argument 'tpoic'"):
        await symphony.workflows.execute_workflow(flow, {"topic": "x", "tpoic": "x"})
    assert symphony.log.head == head
    run = await symphony.workflows.execute_workflow(flow, {"topic": "x"})
    assert run.error is not None
    assert "symphony_es.workflow.gather" in run.error["message"]
    with pytest.raises(ConfigurationError, match="outside of a code-first workflow"):
        step(lambda: 1, name="x")
    with pytest.raises(ConfigurationError, match="must be an async function"):
        symphony.workflow(lambda: 1)
    with pytest.raises(ConfigurationError, match="step_context"):
        step_context()


async def until_it_waits(run: Workflow) -> None:
    """Returns when a run waits for its signal `go`."""
    async with asyncio.timeout(5):
        while not any("go" in address for address in run.attempts):
            await asyncio.sleep(0.005)


async def test_each_strand_answers_patched_by_its_own_history(symphony: Symphony) -> None:
    """The fast strand decides first, the slow one later; when the function runs again it is the other way round."""

    async def quick(what: str) -> str:
        return what

    async def slow(what: str) -> str:
        await asyncio.sleep(0.02)
        return what

    async def strand(fn: Any) -> str:
        await step(fn, "first", name="first")
        return await step(quick, "new") if patched("change") else await step(quick, "old", name="old")

    @symphony.workflow
    async def two_strands() -> list[Any]:
        both = await gather(strand(slow), strand(quick))
        return [*both, await wait_for_signal("go")]

    handle = await symphony.workflows.start(two_strands, auto_checkpoint=False)
    await until_it_waits(handle.run)
    await handle.pause()
    await handle.wait("paused")
    await handle.signal("go", "gone")
    run = await handle.resume()
    assert (run.status, run.result) == ("completed", ["new", "new", "gone"])


async def test_a_retry_forgets_the_patches_that_were_decided_after_the_step(symphony: Symphony) -> None:
    """The step gives another value, and the code goes a way without them."""
    gives = iter([1, 2])

    async def number() -> int:
        return next(gives)

    async def way(which: str) -> str:
        return which

    @symphony.workflow
    async def two_ways() -> str:
        if await step(number) == 1:
            return await step(way, "patched", name="new") if patched("p") else "old"
        return await step(way, "other", name="other")

    run = await symphony.workflows.execute_workflow(two_ways, auto_checkpoint=False)
    assert run.result == "patched"
    run = await symphony.workflows.retry_from(run, "number", auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", "other")


@pytest.mark.parametrize("swallow", ["gather", "except"])
async def test_a_mismatch_fails_the_run_also_where_the_code_swallows_it(symphony: Symphony, swallow: str) -> None:
    """Going on would mix two histories."""
    name = "before"

    async def body() -> int:
        return 1

    async def strand() -> int:
        return await step(body, name=name)

    @symphony.workflow(name=f"swallows_{swallow}")
    async def swallows() -> str:
        if swallow == "gather":
            await gather(strand(), return_exceptions=True)
        else:
            with contextlib.suppress(Exception):
                await strand()
        await wait_for_signal("go")
        return "swallowed"

    handle = await symphony.workflows.start(swallows, auto_checkpoint=False)
    await until_it_waits(handle.run)
    await handle.pause()
    await handle.wait("paused")
    name = "after"
    await handle.signal("go")
    run = await handle.resume()
    assert (run.status, run.error["type"]) == ("blocked", "HistoryMismatchError")  # type: ignore[index]


async def test_all_strands_that_failed_are_tried_again_together(symphony: Symphony) -> None:
    """One resume is enough, however many of them had failed; a failure that the code has dealt with stays one."""
    up, calls = False, Counter[str]()

    async def call(what: str) -> str:
        calls[what] += 1
        if not up:
            raise OSError("down")
        return what

    async def strand(number: int) -> str:
        return await step(call, str(number), name="call")

    @symphony.workflow
    async def fans_out() -> list[Any]:
        try:
            await step(call, "settled", name="settled")
        except StepFailedError:
            settled = "dealt with"
        return [settled, *await gather(gather(strand(0), strand(1), name="inner"), strand(2), strand(3))]

    run = await symphony.workflows.execute_workflow(fans_out, auto_checkpoint=False)
    assert run.status == "failed"
    up = True
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", ["dealt with", ["0", "1"], "2", "3"])
    assert calls["settled"] == 1


async def test_a_strand_that_cancels_itself_is_a_failure(symphony: Symphony) -> None:
    """Nobody asked it to end."""

    async def cancels_itself() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    @symphony.workflow
    async def odd() -> list[Any]:
        return await gather(cancels_itself())

    run = await symphony.workflows.execute_workflow(odd, auto_checkpoint=False)
    assert (run.status, run.error["type"]) == ("failed", "CancelledError")  # type: ignore[index]


async def test_what_code_gives_to_a_child_run_is_taken_as_it_is(symphony: Symphony) -> None:
    """Braces in it are text: templates are for definitions."""

    @symphony.workflow(name="takes_text")
    async def takes(text: str) -> str:
        return text

    @symphony.workflow(name="gives_text")
    async def gives(text: str) -> str:
        return await run_workflow(takes, {"text": text})

    for text in ("write {{ name }} here", "{{ 1 + 1 }}", "a {{ b"):
        run = await symphony.workflows.execute_workflow(gives, {"text": text}, auto_checkpoint=False)
        assert (run.status, run.result) == ("completed", text)


async def test_a_name_that_looks_like_another_call_has_an_address_of_its_own(symphony: Symphony) -> None:
    """The second call of `read` is not the call that was named so."""

    async def read(value: int) -> int:
        return value

    @symphony.workflow
    async def reads() -> list[int]:
        return [await step(read, 1, name="read#2"), await step(read, 2), await step(read, 3)]

    run = await symphony.workflows.execute_workflow(reads, auto_checkpoint=False)
    assert (run.result, list(run.attempts)) == ([1, 2, 3], ["read#2", "read", "read#3"])
