"""Automatic checkpoints: which are taken, which are kept, and what a policy holds in memory."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import AutoCheckpoint, RunMoment, Workflow, WorkflowDefinition
from symphony_es.workflow.engine.hooks import HookChain, Stage


def flow(symphony: Symphony, steps: int, fails_at: int | None = None) -> WorkflowDefinition:
    """So many steps; one may fail as long as it has not been asked twice."""
    asked: list[int] = []

    def body(number: int) -> Callable[[Any], int]:
        def run(context: Any) -> int:
            asked.append(number)
            if number == fails_at and asked.count(number) == 1:
                raise ValueError("not yet")
            return number

        return run

    for number in range(1, steps + 1):
        symphony.functions.register(f"f{number}", body(number), replace=True)
    return WorkflowDefinition(name="flow", steps=[{"kind": "function", "name": f"s{n}", "function": f"f{n}"} for n in range(1, steps + 1)])


async def names(symphony: Symphony, run_id: str) -> list[str]:
    """What the checkpoints of a run are called, oldest first, without its id."""
    return [entry["name"].removeprefix(f"workflow_{run_id}_") for entry in reversed(await symphony.list_checkpoints())]


def moment(symphony: Symphony, run: Workflow, completed_steps: int, stage: Stage = "step_completed") -> RunMoment:
    """What a hook is told."""
    return RunMoment(stage=stage, symphony=symphony, run=run, step="s1", completed_steps=completed_steps)


async def test_only_the_newest_step_checkpoints_are_kept(symphony: Symphony) -> None:
    """`keep_last=2` leaves two of a run's step checkpoints; start and completion are no step checkpoints."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 7), auto_checkpoint=AutoCheckpoint(every=1, keep_last=2))
    assert await names(symphony, run.id) == ["start", "step_6", "step_7", "complete"]


async def test_step_checkpoints_of_an_earlier_process_count(symphony: Symphony, reopen: Any) -> None:
    """A run that goes on in another process has its older checkpoints deleted there, and nobody else's."""
    policy = AutoCheckpoint(every=1, keep_last=2)
    other = await symphony.workflows.execute_workflow(flow(symphony, 2), auto_checkpoint=AutoCheckpoint(every=1), run_id="r_step_1")
    run = await symphony.workflows.execute_workflow(flow(symphony, 6, fails_at=4), auto_checkpoint=policy, run_id="r")
    assert run.status == "failed"
    await symphony.create_checkpoint("before the repair", {"run_id": run.id, "stage": "step"})
    again = await reopen()
    await again.resume()
    flow(again, 6)
    assert (await again.workflows.resume(run.id, AutoCheckpoint(every=1, keep_last=2))).status == "completed"
    left = [f"{other.id}_{stage}" for stage in ("start", "step_1", "step_2", "complete")]
    left += [f"r_{stage}" for stage in ("start", "error", "step_5", "step_6", "complete")]
    left.insert(6, "before the repair")
    assert [entry["name"].removeprefix("workflow_") for entry in reversed(await again.list_checkpoints())] == left


async def test_step_checkpoints_keep_their_distance(symphony: Symphony) -> None:
    """With `min_interval_s=10` a step checkpoint is left out that comes sooner than 10 s after the last one; start and end never are."""
    now = 0.0

    class Slow:
        async def step_started(self, moment: Any) -> None:
            nonlocal now
            now += 4

    policy = AutoCheckpoint(every=1, min_interval_s=10, monotonic=lambda: now)
    run = await symphony.workflows.execute_workflow(flow(symphony, 7), auto_checkpoint=policy, hooks=[Slow()])
    assert await names(symphony, run.id) == ["start", "step_3", "step_6", "complete"]


class SlowList(Symphony):
    """Takes longer to list its checkpoints from call to call, in turns of the event loop."""

    turns = 0

    async def list_checkpoints(self, **wanted: Any) -> list[dict[str, Any]]:
        found = await super().list_checkpoints(**wanted)
        self.turns += 50
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return found


async def test_branches_that_complete_at_once_keep_the_newest(tmp_path: Path) -> None:
    """Their calls are under way together: each checkpoint is counted once, whoever looks up the older ones."""
    async with SlowList({"state_dir": str(tmp_path)}, persistence_enabled=True) as symphony:
        await keep_the_newest(symphony)


async def keep_the_newest(symphony: Symphony) -> None:
    """Three times four branches, then two steps in a row."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 1), auto_checkpoint=False)
    policy = AutoCheckpoint(every=1, keep_last=3)
    for first in (1, 5, 9):
        await asyncio.gather(*(policy.step_completed(moment(symphony, run, number)) for number in range(first, first + 4)))
        assert len(await names(symphony, run.id)) == 3
    await policy.step_completed(moment(symphony, run, 13))
    await policy.step_completed(moment(symphony, run, 14))
    left = await names(symphony, run.id)
    assert left[1:] == ["step_13", "step_14"]
    assert left[0] in {f"step_{number}" for number in range(9, 13)}


async def test_branches_that_complete_at_once_keep_their_distance(symphony: Symphony) -> None:
    """While one branch's checkpoint is being taken, it is not time for another's."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 1), auto_checkpoint=False)
    chain = HookChain([AutoCheckpoint(every=1, min_interval_s=10, monotonic=lambda: 100.0)])
    await asyncio.gather(*(chain.call(moment(symphony, run, number)) for number in range(1, 5)))
    assert await names(symphony, run.id) == ["step_1"]


async def test_a_policy_forgets_a_run_at_its_end(symphony: Symphony) -> None:
    """One policy serves any number of runs; nothing of them stays in memory when they have ended, whatever it takes at the end."""
    policy = AutoCheckpoint(every=1, keep_last=1, min_interval_s=0.001, on_error=False, at_completion=False)
    symphony.registry.get("workflow_engine").auto_checkpoint = policy
    assert (await symphony.workflows.execute_workflow(flow(symphony, 3))).status == "completed"
    assert (await symphony.workflows.execute_workflow(flow(symphony, 3, fails_at=2))).status == "failed"
    assert len(policy._runs) == 0


async def test_a_policy_forgets_a_run_that_never_ends_with_its_world(symphony: Symphony) -> None:
    """An interrupted run calls no hook; what a policy knows of it does not outlive the run object."""
    policy = AutoCheckpoint(every=1, min_interval_s=10)
    run: Any = Workflow.of(flow(symphony, 1), {}, datetime.now(UTC), id="r")
    await policy.run_started(moment(symphony, run, 0, "run_started"))
    assert len(policy._runs) == 1
    del run
    gc.collect()
    assert len(policy._runs) == 0


async def test_a_run_that_fails_twice_has_two_error_checkpoints(symphony: Symphony) -> None:
    """Names may repeat: the name leads to the newest. A cancelled run has none of its end."""
    symphony.functions.register("bad", lambda context: 1 / 0)
    definition = WorkflowDefinition(name="bad", steps=[{"kind": "function", "name": "bad", "function": "bad"}])
    run = await symphony.workflows.execute_workflow(definition)
    await symphony.workflows.resume(run)
    await symphony.workflows.cancel(run)
    assert await names(symphony, run.id) == ["start", "error", "error"]
    newest = (await symphony.list_checkpoints())[0]
    seen = await symphony.at(f"workflow_{run.id}_error")
    assert seen.position == newest["position"]


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"every": 2.5},
        {"every": True},
        {"keep_last": 0},
        {"min_interval_s": 0},
        {"min_interval_s": -1},
        {"min_interval_s": math.nan},
    ],
)
def test_policies_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """When they are made, not when a run needs them."""
    with pytest.raises(ConfigurationError):
        AutoCheckpoint(**options)


@pytest.mark.parametrize("times", [1, 2])
async def test_no_two_checkpoints_of_a_run_have_one_name(symphony: Symphony, times: int) -> None:
    """A run that was taken back goes by the same numbers of steps again: its checkpoints say how often it was."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 7))
    for _ in range(times):
        await symphony.workflows.retry_from(run, "s3")
    found = await names(symphony, run.id)
    assert len(found) == len(set(found)), found
    again = {f"{name}@{number}" for number in range(1, times + 1) for name in ("step_3", "complete")}
    assert {"start", "step_3", "step_6", "complete", *again} <= set(found)


@pytest.mark.parametrize(
    ("step", "taken"),
    [
        ({"kind": "map", "over": [1, 2, 3, 4, 5], "max_concurrency": 1, "step": {"kind": "sleep", "name": "i", "seconds": 0}}, [3, 6]),
        ({"kind": "loop", "max_iterations": 2, "steps": [{"kind": "sleep", "name": "i", "seconds": 0}]}, [3]),
        ({"kind": "sequence", "steps": [{"kind": "sleep", "name": name, "seconds": 0} for name in "abcde"]}, [3, 6]),
    ],
    ids=["map", "loop", "sequence"],
)
async def test_what_is_inside_of_a_step_counts(symphony: Symphony, step: dict[str, Any], taken: list[int]) -> None:
    """Items, iterations and steps of a sequence are steps that complete, and so is the step around them, as docs/runs.md says."""
    run = await symphony.workflows.execute_workflow(
        {"name": "w", "steps": [{"name": "around", **step}]}, auto_checkpoint=AutoCheckpoint(every=3)
    )
    assert await names(symphony, run.id) == ["start", *(f"step_{number}" for number in taken), "complete"]
