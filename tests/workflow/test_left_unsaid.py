"""What a process leaves unsaid when it dies: a step has failed for good, or a run has let go of its child run, and nothing follows yet."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from symphony_es.workflow import RunContext
from tests.mortal import EMPTY, Disk, Mortal

BAD: dict[str, Any] = {"kind": "function", "name": "bad", "function": "bad"}
FINE: dict[str, Any] = {"kind": "function", "name": "fine", "function": "fine"}
SHAPES: dict[str, dict[str, Any]] = {
    "first level": BAD,
    "parallel": {"kind": "parallel", "branches": [FINE, BAD]},
    "branch of steps": {"kind": "parallel", "branches": [{"kind": "sequence", "name": "inside", "steps": [FINE, BAD]}]},
    "map": {"kind": "map", "over": [1, 2], "max_concurrency": 1, "step": BAD},
    "loop": {"kind": "loop", "max_iterations": 2, "steps": [FINE, BAD]},
    "condition": {"kind": "conditional", "condition": "True", "then": [BAD]},
    "parallel in a map": {"kind": "map", "over": [1], "step": {"kind": "parallel", "name": "each", "branches": [BAD, FINE]}},
    "collected around": {"kind": "parallel", "on_error": "collect", "branches": [{"kind": "sequence", "name": "inside", "steps": [BAD]}]},
    "child run": {
        "kind": "workflow",
        "definition": {"name": "child", "steps": [FINE, {"kind": "parallel", "name": "fan", "branches": [BAD]}]},
    },
}


def definition(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition of steps."""
    return {"id": "unsaid", "name": "unsaid", "steps": [{"name": "around", **step} for step in steps], **more}


async def everywhere(defined: dict[str, Any]) -> list[Disk]:
    """What is left where a process dies before each of its commits, and another one goes on; first, where none dies."""

    async def work(symphony: Mortal) -> None:
        async def bad(context: RunContext) -> None:
            symphony.notes.append(context.idempotency_key)
            raise ValueError("no")

        async def fine(context: RunContext) -> str:
            return context.step

        symphony.functions.register("bad", bad)
        symphony.functions.register("fine", fine)
        await symphony.resume()
        await symphony.workflows.recover(False, wait=False)
        handle = await symphony.workflows.start(defined, auto_checkpoint=False, run_id="r", if_exists="return")
        await handle.wait()
        if "r/around/kid" in {run.id for run in await symphony.workflows.get_all_runs()}:
            child = await symphony.workflows.get_run("r/around/kid")
            if child.status == "running":
                await symphony.workflows.signal(child, "free", signal_id="free")
            await symphony.workflows.handle(child).wait()

    whole = Mortal(EMPTY)
    await whole.live(work)
    left = [whole.left()]
    for commits in range(1, whole.commits):
        following = Mortal(whole.left(commits))
        await following.live(work)
        left.append(following.left())
    return left


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_step_that_has_failed_for_good_is_not_called_again_by_the_next_process(shape: str) -> None:
    """Wherever it stands, and wherever the process dies: one call in flight may be made again, one that has failed on record is not."""
    failures = [Counter(row[3] for row in disk.rows)["WorkflowStepFailed"] for disk in await everywhere(definition(SHAPES[shape]))]
    assert set(failures) == {failures[0]}


async def test_another_attempt_at_a_composite_gives_its_steps_all_of_theirs() -> None:
    """What failed for good in the first attempt is called in the second, whoever dies."""
    twice = {"retry": {"max_attempts": 2, "delay_s": 0}}
    around = {"kind": "parallel", "branches": [{**BAD, **twice}], **twice}
    for disk in await everywhere(definition(around)):
        assert Counter(row[3] for row in disk.rows)["WorkflowStepFailed"] == 2 * 2 + 2


async def test_a_child_run_that_outlives_its_parent_is_driven_whoever_dies() -> None:
    """It is abandoned once, and comes to its end in the process in which its parent has failed."""
    child = {"name": "child", "steps": [{"kind": "wait", "name": "free", "signal": "free"}, FINE]}
    kid = {"kind": "workflow", "name": "kid", "on_parent_end": "abandon", "definition": child}
    late = {"kind": "sequence", "name": "late", "steps": [{"kind": "sleep", "name": "nap", "seconds": 0.01}, BAD]}
    for disk in await everywhere(definition({"kind": "parallel", "name": "around", "branches": [kid, late]})):
        names = Counter(row[3] for row in disk.rows if row[1] != "Workflow:r")
        assert (names["WorkflowAbandoned"], names["WorkflowCompleted"]) == (1, 1)


@pytest.mark.parametrize("turns", range(8))
async def test_an_interruption_during_a_cancellation_holds(turns: int) -> None:
    """Whenever it comes, no clean-up begins after it: the run is left as a crash would leave it, and the caller does not wait."""
    wait = {"kind": "wait", "name": "hold", "signal": "never"}
    async with Mortal() as symphony:
        defined = definition(wait, cleanup=[{"kind": "wait", "name": "agree", "signal": "agree"}])
        handle = await symphony.workflows.start(defined, auto_checkpoint=False, run_id="r")
        async for events in symphony.log.follow():
            if any(event.name == "WorkflowStepStarted" for event in events):
                break
        cancelling = asyncio.ensure_future(handle.cancel(grace_s=0))
        while handle.status != "cancelling":
            await asyncio.sleep(0)
        cancelling.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        engine = symphony.registry.get("workflow_engine")
        await asyncio.wait_for(engine.interrupt(["r"]), 10)
        assert (str(handle.status), engine.active_runs) == ("cancelling", [])
