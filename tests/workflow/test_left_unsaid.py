"""What a process leaves unsaid when it dies: a step has failed for good, or a run has let go of its child run, and nothing follows yet."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext, WorkflowDefinition, run_workflow
from symphony_es.workflow.runs.thawing import thaw
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
    "child run that is tried again": {
        "kind": "workflow",
        "retry": {"max_attempts": 3, "delay_s": 0},
        "definition": {"name": "child", "steps": [FINE, BAD]},
    },
}


def definition(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition of steps."""
    return {"id": "unsaid", "name": "unsaid", "steps": [{"name": "around", **step} for step in steps], **more}


async def times_failed(symphony: Mortal) -> int:
    """How often the run has failed."""
    pages = [page async for page in symphony.log.read(names=["WorkflowFailed"])]
    return sum(event.entity_key == "Workflow:r" for page in pages for event in page)


async def everywhere(defined: Any, *, pauses: bool = False, resumes: int = 0) -> list[Disk]:
    """What is left where a process dies before each of its commits, and another one goes on; first, where none dies.

    Args:
        defined: a definition, or a function that gives a code-first workflow.
        pauses: the other one pauses the run before it goes on with it.
        resumes: how often the run is resumed after it has failed.
    """

    async def work(symphony: Mortal) -> None:
        async def bad(context: RunContext) -> None:
            symphony.notes.append(context.idempotency_key)
            raise ValueError("no")

        async def fine(context: RunContext) -> str:
            return context.step

        symphony.functions.register("bad", bad)
        symphony.functions.register("fine", fine)
        await symphony.resume()
        what: Any = defined(symphony) if callable(defined) else defined
        for run in await symphony.workflows.get_all_runs() if pauses else ():
            if run.id == "r" and run.status == "running":
                await symphony.workflows.pause(run)
                await symphony.workflows.start(run, auto_checkpoint=False)
        await symphony.workflows.recover(False, wait=False)
        handle = await symphony.workflows.start(what, auto_checkpoint=False, run_id="r", if_exists="return")
        await handle.wait()
        while await times_failed(symphony) < 1 + resumes and resumes:
            await symphony.workflows.resume(await symphony.workflows.get_run("r"), False)
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


def failures_on(disk: Disk) -> int:
    """How many failed attempts are on record."""
    return Counter(row[3] for row in disk.rows)["WorkflowStepFailed"]


@pytest.mark.parametrize("pauses", [False, True], ids=["goes on", "pauses first"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_step_that_has_failed_for_good_is_not_called_again_by_the_next_process(shape: str, pauses: bool) -> None:
    """Wherever it stands, and wherever the process dies: one call in flight may be made again, one that has failed on record is not."""
    failures = [failures_on(disk) for disk in await everywhere(definition(SHAPES[shape]), pauses=pauses)]
    assert set(failures) == {failures[0]}


CLEANED: dict[str, dict[str, Any]] = {
    name: SHAPES[name] for name in ("parallel", "branch of steps", "map", "loop", "condition", "child run")
}


@pytest.mark.parametrize("shape", CLEANED)
async def test_nor_is_one_of_a_clean_up(shape: str) -> None:
    """The same of steps inside of a clean-up step: a run that has failed cleans up, and its clean-up fails."""
    cleaned = {"cleanup": [{"name": "tidy", **CLEANED[shape]}], "cleanup_on": ["failure"]}
    failures = [failures_on(disk) for disk in await everywhere(definition({**BAD, "name": "main"}, **cleaned))]
    assert set(failures) == {failures[0]}


async def test_nor_is_one_of_an_undo() -> None:
    """An undo by a child run, a step of which fails for good."""
    undone = {**FINE, "name": "made", "undo": {"kind": "workflow", "definition": {"name": "u", "steps": [FINE, BAD]}}}
    failures = [failures_on(disk) for disk in await everywhere(definition(undone, {**BAD, "name": "main"}, cleanup_on=["failure"]))]
    assert set(failures) == {failures[0]}


@pytest.mark.parametrize("resumes", [0, 1])
async def test_a_failed_child_run_of_code_is_tried_again_when_its_parent_is_resumed_and_not_before(resumes: int) -> None:
    """Whoever dies between its failure and that of its step: each resume of the failed parent is one attempt more at it."""

    def coded(symphony: Mortal) -> Any:
        @symphony.workflow
        async def parent() -> Any:
            return await run_workflow(WorkflowDefinition(id="child", name="child", steps=[FINE, BAD]), name="sub")

        return parent

    assert {failures_on(disk) for disk in await everywhere(coded, resumes=resumes)} == {2 * (1 + resumes)}


async def test_a_failed_child_run_that_is_collected_says_so_after_a_resume_too() -> None:
    """Its parent has failed before the child run's step could say so: in the resumed parent, what is collected is the step's own error."""
    child = {"kind": "workflow", "name": "sub", "definition": {"id": "child", "name": "child", "steps": [BAD]}}
    collected = {"kind": "parallel", "name": "all", "on_error": "collect", "branches": [child]}
    around = {"kind": "parallel", "name": "around", "branches": [collected, {**FINE, "function": "once"}]}
    failed_at_once = asyncio.Event()

    async def once(context: RunContext) -> None:
        if not failed_at_once.is_set():
            async for events in context.symphony.log.follow():
                if any(event.name == "WorkflowFailed" for event in events):
                    failed_at_once.set()
                    raise OSError("once")

    async def bad(context: RunContext) -> None:
        raise ValueError("no")

    found = []
    for commits in range(60):
        failed_at_once.clear()
        first = Mortal(commits=commits)

        async def begin(symphony: Mortal) -> None:
            symphony.functions.register("once", once)
            symphony.functions.register("bad", bad)
            await symphony.resume()
            await symphony.workflows.recover(False, wait=False)
            await (await symphony.workflows.start(definition(around), auto_checkpoint=False, run_id="r", if_exists="return")).wait()
            run = await symphony.workflows.get_run("r")
            run = run if run.status == "completed" else await symphony.workflows.resume(run, False)
            found.append(thaw(run.outputs["around/all"])["sub"]["error"]["type"])

        if await first.live(begin):
            break
        await Mortal(first.left()).live(begin)
    assert len(found) > 5
    assert set(found) == {"RunFailedError"}


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


@pytest.mark.parametrize(("event", "key"), [("WorkflowStepRetried", "Workflow:r"), ("WorkflowFailed", "Workflow:r/around")])
async def test_after_a_rewind_a_child_run_has_failed_in_the_attempt_that_holds(symphony: Symphony, event: str, key: str) -> None:
    """What a rewind has taken back, a later failure of the child run, is not taken for one of the attempt that goes on.

    Right after the second attempt at the step began, the child run still stands as it failed in the first: it is tried again. Right
    after its first failure, the step has failed with it, and the second attempt tries it again.
    """
    calls: list[str] = []
    heals = False

    async def bad(context: RunContext) -> None:
        calls.append(context.step)
        if not heals:
            raise ValueError("no")

    symphony.functions.register("bad", bad)
    twice = {"max_attempts": 2, "delay_s": 0}
    defined = definition({"kind": "workflow", "definition": {"name": "child", "steps": [BAD]}, "retry": twice})
    run = await symphony.workflows.execute_workflow(defined, run_id="r", auto_checkpoint=False)
    assert (run.status.value, len(calls)) == ("failed", 2)
    events = [found async for page in symphony.log.read(names=[event]) for found in page]
    heals = True
    await symphony.rewind(next(found.position for found in events if found.entity_key == key))
    (run,) = await symphony.workflows.recover(False)
    assert (run.status.value, len(calls)) == ("completed", 3)
