"""A rewind or a resume with `stop_runs=True`: what the stopped runs were at is waited for, and they go on where nothing comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import PositionNotFoundError, RestorationError
from symphony_es.workflow import RunMoment, WorkflowHook, step


@entity
class TalliedWhileStopped:
    id: str = ""
    count: int = 0


GOING_BACK: dict[str, Callable[[Symphony], Awaitable[Any]]] = {
    "rewind": lambda symphony: symphony.rewind("start", stop_runs=True),
    "resume": lambda symphony: symphony.resume(stop_runs=True),
    "resume_from_checkpoint": lambda symphony: symphony.resume_from_checkpoint("start", stop_runs=True),
}


@pytest.mark.parametrize("call", GOING_BACK)
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "its own"])
async def test_a_transaction_of_a_step_that_commits_is_no_reason_to_refuse(
    call: str, atomic: bool, symphony: Symphony, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is stopped while it waits for its commit: that is waited for, and the world is replaced then."""

    async def count_up() -> None:
        symphony.entities.get("TalliedWhileStopped:t").count += 1

    async def commit() -> None:
        while True:
            async with symphony.transaction("Tallied"):
                await count_up()

    @symphony.workflow
    async def tallying() -> None:
        if not atomic:
            await step(commit)
        for _ in range(1000):
            await step(count_up, atomic=True)

    symphony.entities.add(TalliedWhileStopped(id="t"))
    await symphony.flush()
    await symphony.create_checkpoint("start")
    old, append = symphony.world, symphony.log._recorder.append_groups

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.05)  # in the writer's thread
        return append(*args, **options)

    await symphony.workflows.start(tallying, run_id="r", auto_checkpoint=False)
    monkeypatch.setattr(symphony.log._recorder, "append_groups", slow)
    async with asyncio.timeout(10):
        while not any(transaction.submitted for transaction in old.open_transactions):
            await asyncio.sleep(0)
        await GOING_BACK[call](symphony)
    assert symphony.world is not old
    assert not old.open_transactions
    assert (symphony.entities.get("TalliedWhileStopped:t").count == 0) == (call != "resume")


@pytest.mark.parametrize("why", ["no such position", "a transaction is open"])
async def test_runs_go_on_where_a_rewind_that_has_stopped_them_is_refused(why: str, symphony: Symphony) -> None:
    """All of them, with their hooks; a child run is taken up by its parent, once."""
    told: list[str] = []

    class Told(WorkflowHook):
        async def run_completed(self, moment: RunMoment) -> None:
            told.append(moment.run.id)

    wait = {"name": "inner", "steps": [{"kind": "wait", "name": "s", "signal": "go"}]}
    outer = {"name": "outer", "steps": [{"kind": "workflow", "name": "kid", "definition": wait}]}
    workflows = symphony.workflows
    await workflows.start(outer, run_id="r", auto_checkpoint=False, hooks=[Told()])
    await workflows.start(wait, run_id="paused", auto_checkpoint=False)
    async for _ in symphony.log.follow():
        if {"r", "r/kid", "paused"} <= {*symphony.registry.get("workflow_engine").active_runs}:
            break
    await workflows.pause("paused")
    if why == "a transaction is open":
        entered, leave = asyncio.Event(), asyncio.Event()

        async def other() -> None:
            async with symphony.transaction("Other"):
                entered.set()
                await leave.wait()

        task = asyncio.create_task(other())
        await entered.wait()
        with pytest.raises(RestorationError, match="transactions are open"):
            await symphony.resume(stop_runs=True)
        leave.set()
        await task
    else:
        with pytest.raises(PositionNotFoundError):
            await symphony.rewind(symphony.log.head + 100, stop_runs=True)
    async with asyncio.timeout(5):
        while "r/kid" not in symphony.registry.get("workflow_engine").active_runs:
            await asyncio.sleep(0)
        await workflows.signal("r/kid", "go")
        assert (await workflows.handle("r").wait()).status == "completed"
    assert told == ["r/kid", "r"]
    assert (await workflows.get_run("paused")).status == "paused"
