"""Branches beside each other: they cost their number, however many fail, and the loop has its turns between them."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow.engine import branches as branches_module
from symphony_es.workflow.engine import runner as runner_module
from symphony_es.workflow.engine.bodies import StepsTask
from symphony_es.workflow.engine.branches import run_branches
from symphony_es.workflow.engine.execution import Branch
from symphony_es.workflow.kinds.map import MapStep


class Counted(StepsTask):
    """A task that counts what is attached to it."""

    attached = 0

    def add_done_callback(self, *arguments: Any, **options: Any) -> None:
        Counted.attached += 1
        super().add_done_callback(*arguments, **options)


@pytest.mark.parametrize("number", [50, 500])
@pytest.mark.parametrize("room", [None, 1, 7, 1000])
@pytest.mark.parametrize("fails", ["all", "every second", "none"])
async def test_each_branch_is_waited_for_once(number: int, room: int | None, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that is tolerated wakes nobody who waits for the others."""
    monkeypatch.setattr(branches_module, "StepsTask", Counted)
    monkeypatch.setattr(Counted, "attached", 0)
    ran: list[int] = []
    beside = most = 0

    async def run(branch: int) -> None:
        nonlocal beside, most
        beside += 1
        most = max(most, beside)
        await asyncio.sleep(0)
        beside -= 1
        ran.append(branch)
        if fails == "all" or (fails == "every second" and branch % 2):
            raise ValueError(branch)

    stopped = await run_branches({str(branch): branch for branch in range(number)}, run, room, tolerate=ValueError)
    assert (stopped.failure, stopped.cancelled) == (None, [])
    assert sorted(ran) == list(range(number))
    assert most <= (room or number)
    assert Counted.attached <= 2 * number


@pytest.mark.parametrize("room", [None, 3])
async def test_the_first_failure_ends_the_others(room: int | None) -> None:
    """Those under way are cancelled, and those that wait for room never begin; both are named, in their order."""
    begun: list[int] = []
    ended: list[int] = []

    async def run(branch: int) -> None:
        begun.append(branch)
        try:
            if branch == 0:
                return
            await asyncio.sleep(0)
            if branch == 2:
                raise ValueError("two")
            await asyncio.Event().wait()
        finally:
            ended.append(branch)

    stopped = await run_branches({str(branch): branch for branch in range(6)}, run, room)
    assert isinstance(stopped.failure, ValueError)
    assert stopped.cancelled == ["1", "3", "4", "5"]
    assert sorted(begun) == sorted(ended)
    if room == 3:
        assert len(begun) <= 4


@pytest.mark.parametrize("room", [None, 3])
async def test_who_waits_can_be_cancelled(room: int | None) -> None:
    """All branches have ended by the time that the cancellation takes effect; none is told twice."""
    ended: list[int] = []

    async def run(branch: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(branch)

    waiting = asyncio.create_task(run_branches({str(branch): branch for branch in range(5)}, run, room))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(ended) == (5 if room is None else 3)


async def test_others_have_their_turns_while_many_begin() -> None:
    """Thousands of branches begin in many turns of the loop."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())

    async def run(branch: int) -> None:
        pass

    await run_branches({str(branch): branch for branch in range(3000)}, run, None)
    counting.cancel()
    assert turns >= 25


async def test_the_context_of_one_branch_is_read_without_the_others(symphony: Symphony) -> None:
    """`step.m.contexts['7']` looks one key space up; the whole is a dict; a branch that wrote nothing is an error with those that did."""

    async def write(context: Any) -> None:
        if context["index"] != 3:
            context["k"] = [context["index"]]

    async def give(context: Any) -> Any:
        return context.inputs["v"]

    symphony.functions.register("write", write)
    symphony.functions.register("give", give)
    each = {"kind": "map", "name": "m", "over": list(range(5)), "step": {"kind": "function", "name": "a", "function": "write"}}

    async def asked(template: Any) -> Any:
        definition = {"name": "w", "steps": [each, {"kind": "function", "name": "g", "function": "give", "inputs": {"v": template}}]}
        run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
        return run.error["message"] if run.error else run.outputs["g"]

    assert await asked("{{ step.m.contexts['2'].k }}") == [2]
    assert await asked("{{ step.m.contexts }}") == {str(index): {"k": [index]} for index in (0, 1, 2, 4)}
    assert await asked("{{ len(step.m.contexts) }} {{ step.m.contexts['0'] }}") == "4 {'k': [0]}"
    assert await asked("{{ '4' in step.m.contexts }}") is True
    assert "available: 0, 1, 2, 4" in await asked("{{ step.m.contexts['3'] }}")
    assert "there is no 3" in await asked("{{ step.m.contexts[3] }}")


@pytest.mark.parametrize("phase", ["before any begins", "after all have ended"])
async def test_others_have_their_turns_while_many_items_are_looked_at(
    symphony: Symphony, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two turns of the loop only so many items of a map are looked at, however many there are."""
    monkeypatch.setattr(runner_module, "AT_ONCE", 5)
    name = "_settled" if phase == "before any begins" else "_outcome"
    looked_at, most = 0, 0
    original = getattr(runner_module.Runner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal looked_at, most
        looked_at += 1
        most = max(most, looked_at)
        return original(*arguments, **options)

    monkeypatch.setattr(runner_module.Runner, name, counted)

    async def tick() -> None:
        nonlocal looked_at
        while True:
            looked_at = 0
            await asyncio.sleep(0)

    async def work(context: Any) -> int:
        return 1

    async def together(step: MapStep, execution: Any) -> Any:
        (each,) = step.children()["*"]
        return await execution.run_together([Branch(part=str(number), step=each) for number in range(40)])

    if phase != "before any begins":  # a kind of step that is handed the outputs, as those of applications may be
        monkeypatch.setattr(MapStep, "perform", together)
    symphony.functions.register("work", work)
    ticking = asyncio.create_task(tick())
    step = {"kind": "function", "name": "work", "function": "work"}
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "map", "name": "m", "over": [0] * 40, "step": step}]})
    ticking.cancel()
    await asyncio.wait([ticking])
    assert run.status == "completed"
    assert 1 <= most <= 5


async def test_what_is_cancelled_before_its_first_turn_leaves_nothing_unawaited() -> None:
    """A program that cancels all its tasks cancels some that have not begun: no coroutine is left behind, which Python would warn of."""
    begun: list[str] = []

    async def run(branch: str) -> None:
        begun.append(branch)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        known = asyncio.all_tasks()
        whole = asyncio.create_task(run_branches({"a": "a", "b": "b"}, run, None))
        while not (tasks := asyncio.all_tasks() - known - {whole}):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert (await whole).failure is None
        del task, tasks, whole
        gc.collect()
    assert (begun, [str(warning.message) for warning in told]) == ([], [])
