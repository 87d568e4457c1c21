"""Which steps are under way: those that have begun and can still come to an end, however they are asked for."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.errors import IllegalTransitionError, StepFailedError
from symphony_es.workflow import RunContext, gather, step, wait_for_signal

Definition = dict[str, Any]


def _map(**more: Any) -> Definition:
    return {"kind": "map", "name": "each", "over": [0, 1, 2], "step": {"kind": "function", "name": "work", "function": "work"}, **more}


def _fail_fast_in_collect() -> list[Definition]:
    return [_map(over=[0], step=_map(name="inner"), on_error="collect")]


def _parallel_in_collect() -> list[Definition]:
    branches = [{"kind": "function", "name": f"work {number}", "function": "work"} for number in range(3)]
    parallel = {"kind": "parallel", "name": "fan", "branches": branches}
    return [_map(over=[0], step=parallel, on_error="collect")]


def _children_in_collect() -> list[Definition]:
    child = {"name": "child", "context": {}, "steps": [{"kind": "function", "name": "work", "function": "work"}]}
    step = {"kind": "workflow", "name": "child", "definition": child}
    return [_map(over=[0], step=_map(name="inner", step=step), on_error="collect")]


CUT_OFF = [_fail_fast_in_collect, _parallel_in_collect, _children_in_collect]


class Work:
    """One of those that work beside each other fails when all others have begun, which never end."""

    def __init__(self, others: int) -> None:
        self.others, self.begun, self.all_begun = others, 0, asyncio.Event()

    async def __call__(self, context: RunContext) -> None:
        if self.begun == self.others:
            self.all_begun.set()
            raise ValueError("no")
        self.begun += 1
        await self.all_begun.wait()
        await asyncio.Event().wait()


async def _until(run: Any, step_address: str) -> None:
    async for event in run.events():
        if event.name == "WorkflowStepStarted" and event.metadata.step == step_address:
            return


@pytest.mark.parametrize("steps", CUT_OFF, ids=lambda steps: steps.__name__.strip("_"))
async def test_a_branch_that_was_cut_off_is_over(tmp_path: Path, steps: Callable[[], list[Definition]], capsys: Any) -> None:
    """A failure has cut branches off, and the run has gone on: it stands where it waits, for handles, a drain and the command line."""
    async with Symphony(tmp_path) as symphony:
        symphony.functions.register("work", Work(2))
        waits = {"kind": "wait", "name": "wait", "signal": "go", "within_s": 3600}
        handle = await symphony.workflows.start({"name": "cut", "steps": [*steps(), waits]}, run_id="r")
        await _until(handle, "wait")
        assert handle.progress.current == ("wait",)
        assert not handle.progress.parts
        (stopped,) = (await symphony.workflows.drain()).stopped
        assert stopped.steps == ("wait",)
    await asyncio.to_thread(main, ["run", "r", "--state-dir", str(tmp_path)])
    assert "under way  wait since" in capsys.readouterr().out


async def test_a_strand_that_was_cut_off_is_over() -> None:
    """The same of coroutines of a `gather`, whose failure the code has caught."""
    async with Symphony() as symphony:

        async def hang() -> None:
            await asyncio.Event().wait()

        async def fail() -> None:
            while len(handle.run.attempts) < 2:
                await asyncio.sleep(0)
            raise ValueError("no")

        @symphony.workflow(name="cut strands")
        async def flow() -> None:
            with contextlib.suppress(StepFailedError):
                await gather(step(fail, retry=1), step(hang))
            await wait_for_signal("go")

        handle = await symphony.workflows.start(flow)
        await _until(handle, "wait go")
        assert handle.progress.current == ("wait go",)


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_nothing_is_under_way_of_a_run_that_has_ended(end: str) -> None:
    """Where a run was cancelled, or its deadline has passed, what it had begun is over; in its clean-up, that alone is under way."""
    async with Symphony() as symphony:
        asked = asyncio.Event()

        async def ask(context: RunContext) -> None:
            asked.set()
            assert symphony.workflows.handle(context.run_id).progress.current == ("cleanup/ask",)

        symphony.functions.register("ask", ask)
        definition = {
            "name": "ends",
            "steps": [{"kind": "wait", "name": "wait", "signal": "go"}],
            "cleanup": [{"kind": "function", "name": "ask", "function": "ask"}],
            "cleanup_on": ["deadline"],
        }
        handle = await symphony.workflows.start(definition, deadline_s=0.01 if end == "failed" else None)
        if end == "cancelled":
            await _until(handle, "wait")
            await handle.cancel()
        run = await handle.wait()
        assert (run.status.value, asked.is_set(), handle.progress.current) == (end, True, ())


async def test_what_a_refused_retry_says_works() -> None:
    """A run that executes cannot be taken back to a step; the error says that it is paused first, and so it can."""
    async with Symphony() as symphony:
        steps = [{"kind": "sleep", "name": "nap", "seconds": 0}, {"kind": "wait", "name": "wait", "signal": "go"}]
        handle = await symphony.workflows.start({"name": "refused", "steps": steps}, run_id="r")
        await _until(handle, "wait")
        with pytest.raises(IllegalTransitionError, match=r"running in this process .* pause it first, or wait for its end"):
            await symphony.workflows.retry_from("r", "nap")
        await handle.pause()
        await handle.wait("paused")
        again = asyncio.create_task(symphony.workflows.retry_from("r", "nap"))
        await handle.signal("go", "done")
        assert (await again).result == "done"
