"""Plain functions have threads of their own: what does not return holds up nobody, and is told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, ThreadsExhaustedError
from symphony_es.threads import ThreadPool, TimeLimit, current_limit
from symphony_es.workflow import RetryPolicy, gather, step, step_context
from tests.interrupts import heed_interrupts


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets functions go that do not return; set at the test's end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Symphony]:
    """A Symphony whose plain functions run two at once."""
    async with Symphony({"threads": 2}) as symphony:
        yield symphony


def pool_of(symphony: Symphony) -> ThreadPool:
    pool: ThreadPool = symphony.registry.get("workflow_engine").threads
    return pool


def definition(name: str, function: str, **step: Any) -> dict[str, Any]:
    return {"name": name, "steps": [{"kind": "function", "name": "a", "function": function, **step}]}


async def until(what: Callable[[], object]) -> None:
    """Returns when something holds."""
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.001)


async def test_functions_that_hang_are_replaced_named_and_counted(small: Symphony, release: threading.Event) -> None:
    """Innocent runs go on with other threads; when the functions return, the pool is as before."""
    small.functions.register("stuck", lambda context: release.wait())
    small.functions.register("quick", lambda context: threading.current_thread().name)
    while len(pool_of(small).hung) < 2:  # one whose time is over before a thread takes it has not begun
        run = await small.workflows.execute_workflow(definition("bad", "stuck", timeout_s=0.05))
        assert run.error is not None
        assert run.error["type"] == "StepTimeoutError"
    run = await small.workflows.execute_workflow(definition("good", "quick", timeout_s=20))
    assert run.status == "completed"
    pool = pool_of(small)
    hung = pool.hung
    assert [one.function for one in hung] == ["test_functions_that_hang_are_replaced_named_and_counted.<locals>.<lambda>"] * 2
    assert len({one.thread for one in hung}) == 2
    assert all(one.step.endswith(":a") for one in hung)
    release.set()
    await until(lambda: not pool.hung)


async def test_beyond_the_bound_calls_are_refused_by_name(small: Symphony, release: threading.Event) -> None:
    """As many threads as the pool has are replaced once; then a call fails at once, as does one that waits, and can be tried again."""
    small.functions.register("stuck", lambda context: release.wait())
    small.functions.register("quick", lambda context: "ran")
    runs = [small.workflows.execute_workflow(definition(f"bad {n}", "stuck", timeout_s=0.05)) for n in range(5)]
    errors = [run.error for run in await asyncio.gather(*runs)]
    assert sorted(error["type"] for error in errors if error is not None) == ["StepTimeoutError"] * 4 + ["ThreadsExhaustedError"]
    run = await small.workflows.execute_workflow(definition("good", "quick"))
    assert run.error is not None
    assert run.error["type"] == "ThreadsExhaustedError"
    assert "all 4 threads" in run.error["message"]
    assert "<lambda>" in run.error["message"]
    release.set()
    await until(lambda: not pool_of(small).hung)
    await small.workflows.resume(run)
    assert (run.status, run.result) == ("completed", "ran")


@pytest.mark.parametrize("where", ["declared", "code"])
async def test_waiting_for_a_thread_is_no_part_of_a_step_s_time(small: Symphony, release: threading.Event, where: str) -> None:
    """A step whose time is far shorter than the wait for a thread completes; so does each item of a map with more items than threads."""
    entered = threading.Semaphore(0)

    def holds(context: Any) -> None:
        entered.release()
        release.wait()

    small.functions.register("holds", holds)
    small.functions.register("quick", lambda context: "ran")
    holding = [await small.workflows.start(definition(f"h{n}", "holds")) for n in range(2)]
    await until(lambda: entered._value == 2)
    if where == "code":
        from symphony_es.workflow import step

        @small.workflow
        async def quick() -> str:
            return await step(lambda: "ran", timeout_s=0.1)

        handle = await small.workflows.start(quick)
    else:
        handle = await small.workflows.start(definition("q", "quick", timeout_s=0.1))
    await until(lambda: pool_of(small).waiting)
    await asyncio.sleep(0.3)  # longer than its time, which must not run
    release.set()
    assert await handle.result() == "ran"
    for held in holding:
        await held.result()


async def test_a_call_that_is_given_up_while_it_waits_is_never_made(small: Symphony, release: threading.Event) -> None:
    """It leaves the queue, and its thread is nobody's."""
    pool, called = ThreadPool(1), []
    first = asyncio.ensure_future(pool.run(release.wait, "first"))
    second = asyncio.ensure_future(pool.run(lambda: called.append(1), "second"))
    await until(lambda: pool.waiting == 1)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (pool.waiting, pool.hung) == (0, [])
    release.set()
    await first
    assert await pool.run(lambda: "third", "third") == "third"
    assert called == []


async def test_a_time_limit_keeps_what_was_left_of_it(release: threading.Event) -> None:
    """It stands still while its call waits for a thread, and goes on from where it was."""
    pool = ThreadPool(1)
    first = asyncio.ensure_future(pool.run(release.wait, "first"))
    async with asyncio.timeout(1_000) as timeout:
        before = timeout.when()
        current_limit.set(TimeLimit(timeout))
        second = asyncio.ensure_future(pool.run(lambda: "ran", "second"))
        await until(lambda: pool.waiting == 1)
        assert timeout.when() is None
        release.set()
        assert await second == "ran"
        after = timeout.when()
    await first
    assert before is not None
    assert after is not None
    assert after >= before


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1), ValueError("v")])
async def test_whatever_a_function_raises_comes_back(error: BaseException) -> None:
    """And the thread goes on to serve others."""
    pool = ThreadPool(1)

    def bad() -> None:
        raise error

    future = asyncio.ensure_future(_kept(pool, bad))
    told = await future
    assert isinstance(told, type(error)) or isinstance(told.__cause__, type(error)) or isinstance(error, StopIteration)
    assert await pool.run(lambda: 1, "one") == 1


async def _kept(pool: ThreadPool, fn: Callable[[], Any]) -> BaseException:
    from symphony_es.registry import invoke
    from symphony_es.threads import current_pool

    current_pool.set(pool)
    try:
        await invoke(fn)
    except BaseException as raised:
        return raised
    raise AssertionError("nothing was raised")


async def test_a_thousand_calls_share_the_threads(small: Symphony) -> None:
    """Never more at once than there are, and none is lost."""
    pool, lock, now, most = ThreadPool(7), threading.Lock(), 0, 0

    def call(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return number

    found = await asyncio.gather(*(pool.run(lambda number=number: call(number), "call") for number in range(1_000)))
    assert found == list(range(1_000))
    assert most <= 7
    assert (pool.waiting, pool.hung) == (0, [])


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
async def test_a_number_of_threads_that_makes_no_sense_is_refused(threads: Any) -> None:
    """Before anything is opened for good."""
    with pytest.raises(ConfigurationError, match="threads"):
        await Symphony({"threads": threads}).setup()


def test_the_error_names_what_hangs() -> None:
    """And what to do."""
    error = ThreadsExhaustedError(3, ["fetch (r:a)"])
    assert (error.hung, error.functions) == (3, ["fetch (r:a)"])
    assert "fetch (r:a)" in str(error)


ENDS = """
import asyncio, os, signal, sys, threading, time
from symphony_es import Symphony

def plain(context):
    print("called", flush=True)
    threading.Event().wait()

async def main(how):
    async with Symphony() as s:
        s.functions.register("plain", plain)
        step = {"kind": "function", "name": "a", "function": "plain"}
        if how == "timeout":
            step["timeout_s"] = 0.1
        run = await s.workflows.execute_workflow({"name": "w", "steps": [step]})
        print(run.status, flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("how", ["timeout", "interrupt"])
def test_the_program_ends_though_a_function_does_not_return(how: str) -> None:
    """After a timeout, and at Ctrl-C: neither `asyncio.run` nor the interpreter waits for the thread."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDS, how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        preexec_fn=heed_interrupts,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "called"
        if how == "interrupt":
            process.send_signal(2)
        try:
            process.wait(60)
        finally:
            process.kill()
        assert process.returncode != -9
        assert process.stdout.read().strip() == ("failed" if how == "timeout" else "")


@pytest.mark.parametrize("cut_off", ["its time is up", "its sibling fails", "it is interrupted"])
@pytest.mark.parametrize("by_code", [False, True], ids=["declared", "by code"])
async def test_a_function_that_runs_on_is_told(symphony: Symphony, release: threading.Event, cut_off: str, by_code: bool) -> None:
    """`stop_requested` is true for it as soon as its attempt is over, for whatever reason, so that it can end by itself."""
    entered, told = threading.Event(), threading.Event()

    def run_on(context: Any = None) -> None:
        asked = step_context() if context is None else context
        if told.is_set():
            raise ValueError("told")
        entered.set()
        while not asked.stop_requested:
            if release.wait(0.001):
                return
        told.set()

    async def fail(context: Any = None) -> None:
        while not entered.is_set():
            await asyncio.sleep(0)
        raise ValueError("sibling")

    timed: dict[str, Any] = {}
    if cut_off == "its time is up":  # again where it was up before the thread had begun
        timed = {"timeout_s": 0.05, "retry": RetryPolicy(max_attempts=100, delay_s=0, on=("StepTimeoutError",))}
    if by_code:

        @symphony.workflow
        async def code() -> None:
            beside = [step(fail)] if cut_off == "its sibling fails" else []
            await gather(step(run_on, **timed), *beside)

        handle = await symphony.workflows.start(code)
    else:
        symphony.functions.register("run_on", run_on)
        symphony.functions.register("fail", fail)
        names = ["run_on", "fail"] if cut_off == "its sibling fails" else ["run_on"]
        branches: list[dict[str, Any]] = [{"kind": "function", "name": name, "function": name} for name in names]
        branches[0] |= timed
        handle = await symphony.workflows.start({"name": "w", "steps": [{"kind": "parallel", "name": "p", "branches": branches}]})
    await until(entered.is_set)
    if cut_off == "it is interrupted":
        await symphony.workflows.drain(0)
    else:
        assert (await handle.wait()).status == "failed"
    await until(told.is_set)
