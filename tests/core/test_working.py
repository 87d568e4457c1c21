"""Work that must not be left half done: whoever waits for it is cancelled when it has ended, however often he is cancelled before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es.core.resume.resuming import Resumption
from symphony_es.errors import EntityBusyError
from symphony_es.files.working import to_the_end
from symphony_es.workflow.engine.past import AT_ONCE, aside
from symphony_es.workflow.runs.pruning import Pruning
from tests.conftest import Opener


async def cancelled_again_and_again(task: asyncio.Task[Any], work: Callable[[], Awaitable[None]]) -> None:
    """Cancel a task that is in its work, again and again; it ends when the work does."""
    for _ in range(3):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
    await work()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("raises", [False, True])
async def test_each_cancellation_is_held_back(raises: bool) -> None:
    """The work is told of each, and what it raises in the end is taken note of."""
    goes_on, told, ended = asyncio.Event(), [], []
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def work() -> int:
        await goes_on.wait()
        ended.append(True)
        if raises:
            raise ValueError("nobody is told")
        return 5

    task = asyncio.ensure_future(to_the_end(work(), lambda: told.append(True)))
    await asyncio.sleep(0)

    async def let_go() -> None:
        goes_on.set()

    await cancelled_again_and_again(task, let_go)
    assert (len(told), ended, complaints) == (3, [True], [])


async def test_without_a_cancellation_it_is_an_await() -> None:
    """What the work returns or raises; also where it is cancelled itself."""

    async def raising(error: BaseException) -> None:
        raise error

    assert await to_the_end(asyncio.sleep(0, 5)) == 5
    with pytest.raises(ValueError, match="why"):
        await to_the_end(raising(ValueError("why")))
    with pytest.raises(asyncio.CancelledError):
        await to_the_end(raising(asyncio.CancelledError()))


async def test_a_resume_is_not_left_half_done(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the new world is put in place nothing else may change anything; then it is there, whole."""
    symphony = await reopen()
    agent = await symphony.agents.create_agent(name="before", role="r")
    await symphony.create_checkpoint("c")
    agent.config["name"] = "after"
    await symphony.flush()
    reached, goes_on = asyncio.Event(), asyncio.Event()
    real = Resumption._replace

    async def slow(*arguments: Any) -> None:
        reached.set()
        await goes_on.wait()
        await real(*arguments)

    monkeypatch.setattr(Resumption, "_replace", slow)
    task = asyncio.ensure_future(symphony.resume_from_checkpoint("c"))
    await reached.wait()

    async def end() -> None:
        with pytest.raises(EntityBusyError):
            agent.config["name"] = "meanwhile"
        goes_on.set()

    await cancelled_again_and_again(task, end)
    there = symphony.entities.get("Agent", agent.id)
    assert there.name == "before"
    there.config["name"] = "goes on"
    await symphony.flush()


async def test_a_prune_is_not_left_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transaction has ended when its caller goes on."""
    reached, goes_on = asyncio.Event(), asyncio.Event()

    class Roomy:
        def has_room(self) -> bool:
            return True

    async def slow(self: Pruning, events: Any) -> int:
        reached.set()
        await goes_on.wait()
        return 7

    pruning = Pruning.__new__(Pruning)
    pruning._log = Roomy()  # type: ignore[assignment]
    monkeypatch.setattr(Pruning, "_submit", slow)
    task = asyncio.ensure_future(pruning._append([]))
    await reached.wait()

    async def end() -> None:
        goes_on.set()

    await cancelled_again_and_again(task, end)


async def test_what_is_done_aside_is_waited_for() -> None:
    """Its thread has ended when its caller goes on."""
    reached, goes_on = threading.Event(), threading.Event()
    done = []

    def work() -> None:
        reached.set()
        goes_on.wait(20)
        done.append(True)

    task = asyncio.ensure_future(aside(work, AT_ONCE + 1))
    await asyncio.to_thread(reached.wait, 20)

    async def end() -> None:
        assert done == []
        goes_on.set()

    await cancelled_again_and_again(task, end)
    assert done == [True]
