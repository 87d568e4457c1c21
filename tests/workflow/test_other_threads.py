"""What a thread asks by a portal, which has a loop of its own, of a run that executes in the program's loop is done there, at once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import RunCancelledError, RunInterruptedError
from symphony_es.workflow import RunHandle
from symphony_es.workflow.engine.loops import in_loop

RUN = {"name": "waiting", "steps": [{"kind": "wait", "name": "word", "signal": "word"}]}
PATIENCE_S = 10


@pytest.fixture
async def symphony(tmp_path: Path) -> AsyncIterator[Symphony]:
    """A Symphony in a loop that refuses what another thread does to its tasks and events: it would not hear of it while it sleeps."""
    asyncio.get_running_loop().set_debug(True)
    async with Symphony(tmp_path) as symphony:
        yield symphony


async def waiting(symphony: Symphony) -> RunHandle[Any]:
    """A run that waits for a signal, and nothing else happens in the loop."""
    handle = await symphony.workflows.start(RUN, auto_checkpoint=False)
    while "word" not in handle.run.attempts:
        await asyncio.sleep(0)
    return handle


async def by_portal(symphony: Symphony, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Have a thread call a function by a portal; what comes of it."""
    loop, outcome = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            with symphony.portal() as portal:
                found = portal.call(function, *args)
        except BaseException as error:
            loop.call_soon_threadsafe(outcome.set_exception, error)
        else:
            loop.call_soon_threadsafe(outcome.set_result, found)

    threading.Thread(target=call, daemon=True).start()
    return outcome


async def test_a_signal_is_taken(symphony: Symphony) -> None:
    """The wait in the program's loop is woken, though nothing else happens there."""
    handle = await waiting(symphony)
    sent = await by_portal(symphony, symphony.workflows.signal, handle.id, "word", "go")
    assert await handle.result(timeout_s=PATIENCE_S) == "go"
    assert await sent is None


@pytest.mark.parametrize(("request_name", "status"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_request_is_carried_out(symphony: Symphony, request_name: str, status: str) -> None:
    """The run stops where it waits."""
    handle = await waiting(symphony)
    asked = await by_portal(symphony, getattr(symphony.workflows, request_name), handle.id)
    assert (await asyncio.wait_for(handle.wait(), PATIENCE_S)).status == status
    assert (await asked).status == status


async def test_its_end_is_waited_for(symphony: Symphony) -> None:
    """A thread is given the result, or is told why there is none."""
    for end in ("completed", "cancelled"):
        handle = await waiting(symphony)
        outcome = await by_portal(symphony, symphony.workflows.handle(handle.id).result)
        await (handle.signal("word", "go") if end == "completed" else handle.cancel())
        if end == "completed":
            assert await asyncio.wait_for(outcome, PATIENCE_S) == "go"
        else:
            with pytest.raises(RunCancelledError):
                await asyncio.wait_for(outcome, PATIENCE_S)


@pytest.mark.parametrize("how", ["close", "drain", "interrupt"])
async def test_all_runs_are_stopped(symphony: Symphony, how: str) -> None:
    """A thread may close or drain what executes in the program's loop."""
    handle = await waiting(symphony)
    ended = asyncio.ensure_future(handle.wait("failed"))
    engine = symphony.registry.get("workflow_engine")
    stop = {"close": symphony.close, "drain": symphony.workflows.drain, "interrupt": engine.interrupt}[how]
    stopped = await by_portal(symphony, stop)
    done, _ = await asyncio.wait({ended}, timeout=PATIENCE_S)
    await stopped
    assert [type(each.exception()).__name__ for each in done] == ["RunInterruptedError"]
    assert engine.active.ids == []


@pytest.mark.parametrize("first", ["the program", "a thread"])
async def test_runs_of_several_loops_are_drained(symphony: Symphony, first: str) -> None:
    """Each is stopped in its own loop, whoever asks and whichever began first: none is cut off, and none waited for in vain."""
    begun, over = threading.Event(), threading.Event()

    def live() -> None:
        with symphony.portal() as portal:
            portal.call(symphony.workflows.start, {**RUN, "name": "beside"})
            begun.set()
            over.wait(6 * PATIENCE_S)

    thread = threading.Thread(target=live)
    if first == "the program":
        await waiting(symphony)
    thread.start()
    await asyncio.to_thread(begun.wait)
    if first == "a thread":
        await waiting(symphony)
    report = await asyncio.wait_for(symphony.workflows.drain(timeout_s=6 * PATIENCE_S), PATIENCE_S)
    over.set()
    await asyncio.to_thread(thread.join)
    assert sorted(run.name for run in report.stopped) == ["beside", "waiting"]
    assert not report.interrupted
    assert not report.hung


async def test_a_loop_that_ends_in_the_middle_of_a_call_leaves_nobody_waiting() -> None:
    """What is left in it comes to no end of its own; whoever has asked for it is told."""
    other = asyncio.new_event_loop()
    never = other.create_future()

    async def ends_its_loop() -> None:
        other.stop()
        await never

    def live() -> None:
        other.run_forever()
        other.close()

    thread = threading.Thread(target=live)
    thread.start()
    while not other.is_running():
        await asyncio.sleep(0)
    with pytest.raises(RunInterruptedError, match="event loop that executes the run has ended"):
        await asyncio.wait_for(in_loop(other, ends_its_loop), PATIENCE_S)
    await asyncio.to_thread(thread.join)


async def test_a_run_that_is_stopped_before_it_has_begun_is_told_as_such(symphony: Symphony) -> None:
    """Whoever starts it is not cancelled with it."""
    starting = asyncio.create_task(symphony.workflows.start(RUN, run_id="early"))
    engine = symphony.service("workflow_engine")
    while engine.active.of_id("early") is None:
        await asyncio.sleep(0)
    assert await engine.interrupt() == ["early"]
    with pytest.raises(RunInterruptedError, match="early was interrupted"):
        await starting
