"""`handle.progress`: how far a run has come, of every shape, while it executes and after it has ended."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import step
from symphony_es.workflow.engine import progress


class Gate:
    """Steps wait here until so many have been let through."""

    def __init__(self, symphony: Symphony) -> None:
        self.open, self.waiting, self.moved = 0, 0, asyncio.Condition()
        symphony.functions.register("work", self.work)

    async def work(self, context: Any = None) -> int:
        async with self.moved:
            self.waiting += 1
            self.moved.notify_all()
            mine = self.waiting
            await self.moved.wait_for(lambda: self.open >= mine)
        return mine

    async def let(self, through: int, waiting: int) -> None:
        async with self.moved:
            self.open = through
            self.moved.notify_all()
            await self.moved.wait_for(lambda: self.waiting >= waiting)


def work(name: str) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": "work"}


def map_of(items: list[int], at_once: int, of: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "map", "name": "m", "over": items, "max_concurrency": at_once, "step": of}


def loop(limit: int) -> dict[str, Any]:
    return {"kind": "loop", "name": "l", "max_iterations": limit, "steps": [work("s")]}


CASES: list[Any] = [
    ([work("a"), work("b"), work("c")], 1, 2, (1, 3), ("b",), {}),
    ([map_of([1, 2, 3, 4], 2, work("s"))], 2, 4, (0, 1), ("m/2", "m/3"), {"m": (2, 4, None)}),
    ([loop(5)], 2, 3, (0, 1), ("l/2/s",), {"l": (2, None, 5)}),
    ([work("z"), {"kind": "parallel", "name": "p", "branches": [work("a"), work("b")]}], 2, 3, (1, 2), None, {"p": (1, 2, None)}),
    ([{"kind": "sequence", "name": "q", "steps": [work("a"), work("b")]}, work("z")], 1, 2, (0, 2), ("q/b",), {}),
    (
        [map_of([1, 2], 1, loop(3))],
        4,
        5,
        (0, 1),
        ("m/1/1/s",),
        {"m": (1, 2, None), "m/1": (1, None, 3)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "through", "waiting", "counts", "current", "parts"), CASES)
async def test_a_declared_run(
    symphony: Symphony, steps: Any, through: int, waiting: int, counts: Any, current: Any, parts: dict[str, Any]
) -> None:
    """Steps of the first level done and known, the innermost ones under way, and what is known of loops, maps and parallels."""
    gate = Gate(symphony)
    handle = await symphony.workflows.start({"name": "shape", "steps": steps})
    await gate.let(through, waiting)
    for _ in range(20):
        await asyncio.sleep(0)
    progress = handle.progress
    assert (progress.status, progress.done, progress.known) == ("running", *counts)
    assert current is None or progress.current == current
    assert {address: (part.done, part.known, part.limit) for address, part in progress.parts.items()} == parts
    assert progress.completed_steps == handle.run.completed_steps
    assert progress.fraction == counts[0] / counts[1]
    await gate.let(10_000, 0)
    await handle.wait()
    ended = handle.progress
    assert (ended.status, ended.done, ended.known, ended.fraction, ended.current, ended.parts) == (
        "completed",
        len(steps),
        len(steps),
        1.0,
        (),
        {},
    )


async def test_a_code_first_run(symphony: Symphony) -> None:
    """How many there will be is not known; what has completed and what is under way is."""
    gate = Gate(symphony)

    async def work_by_code() -> int:
        return await gate.work()

    @symphony.workflow
    async def flow() -> None:
        for _ in range(3):
            await step(work_by_code)

    handle = await symphony.workflows.start(flow)
    await gate.let(2, 3)
    progress = handle.progress
    assert (progress.done, progress.known, progress.fraction, len(progress.current)) == (2, None, None, 1)
    await gate.let(3, 3)
    await handle.wait()
    assert handle.progress.done == 3


async def test_changes_can_be_awaited(symphony: Symphony) -> None:
    """Each is another one than before; they begin with what holds now and end with the run."""
    Gate(symphony).open = 10_000
    handle = await symphony.workflows.start({"name": "shape", "steps": [work("a"), work("b"), work("c")]})
    seen = [progress async for progress in handle.progress_changes()]
    assert seen[-1].fraction == 1.0
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert all(one != other for one, other in pairwise(seen))
    assert [progress.status async for progress in handle.progress_changes()] == ["completed"]


@pytest.mark.parametrize("steps", [1, 40])
async def test_a_look_is_not_made_for_each_event(symphony: Symphony, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs what has begun: of a run that has ended there is one, and none is made for what another run does."""
    looks: list[str] = []
    progress_of = progress.progress_of
    monkeypatch.setattr(progress, "progress_of", lambda run, position: looks.append(run.id) or progress_of(run, position))
    Gate(symphony).open = 10_000
    definition = {"name": "shape", "steps": [work(f"s{number}") for number in range(steps)]}
    ended = await symphony.workflows.start(definition, run_id="ended")
    await ended.wait()
    assert [one.done async for one in ended.progress_changes()] == [steps]
    assert looks == ["ended"]

    waiting = await symphony.workflows.start({"name": "waits", "steps": [{"kind": "wait", "name": "w", "signal": "s"}]}, run_id="waits")
    changes = waiting.progress_changes()
    while not (await anext(changes)).current:
        pass
    following = asyncio.ensure_future(anext(changes))
    await symphony.flush()
    looks.clear()
    await symphony.workflows.execute_workflow(definition)
    assert looks == []
    await waiting.signal("s")
    seen = [await following, *[one async for one in changes]]
    assert seen[-1].status == "completed"


async def test_a_failed_run(symphony: Symphony) -> None:
    """Nothing is under way, and what has completed is what holds; a copy does not change any more."""

    async def fail(context: Any) -> None:
        raise ValueError("no")

    symphony.functions.register("fail", fail)
    Gate(symphony).open = 10_000
    steps = [work("a"), {"kind": "function", "name": "f", "function": "fail"}]
    run = await symphony.workflows.execute_workflow({"name": "fails", "steps": steps})
    progress = symphony.workflows.handle(run).progress
    assert (progress.status, progress.done, progress.known, progress.current, progress.parts) == ("failed", 1, 2, (), {})
