"""Hooks that must not miss anything are told at least once; none of them holds up a run for ever."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import AutoCheckpoint, RunMoment, WorkflowHook

STAGES = (
    "run_started",
    "step_started",
    "step_completed",
    "step_failed",
    "step_retried",
    "run_completed",
    "run_failed",
    "run_paused",
    "run_cancelled",
)


class Told(WorkflowHook):
    """Notes what it is told; each stage by the same method."""

    durable = True

    def __init__(self) -> None:
        self.moments: list[RunMoment] = []

    def wants(self, moment: RunMoment) -> bool:
        return True

    async def tell(self, moment: RunMoment) -> None:
        self.moments.append(moment)

    run_started = run_resumed = step_started = step_completed = step_failed = step_retried = tell
    run_paused = run_completed = run_failed = run_blocked = run_cancelled = tell

    @property
    def ids(self) -> dict[str, tuple[str, str | None]]:
        return {moment.id: (moment.stage, moment.step) for moment in self.moments}


class Copying(Told):
    """Copies the directory at each moment, before it notes it: as a process that is killed then would leave it."""

    def __init__(self, directory: Path, copies: Path) -> None:
        super().__init__()
        self.directory, self.copies = directory, copies

    async def tell(self, moment: RunMoment) -> None:
        shutil.copytree(self.directory, self.copies / str(len(self.moments)))
        await super().tell(moment)

    run_started = run_resumed = step_started = step_completed = step_failed = step_retried = tell
    run_paused = run_completed = run_failed = run_blocked = run_cancelled = tell


class Stopping(Told):
    durable = False
    stops_run = True


def definition(symphony: Symphony, how: str) -> dict[str, Any]:
    attempts: list[int] = []

    def shaky(context: Any) -> str:
        attempts.append(1)
        if how == "fails" or (how == "retries" and len(attempts) == 1):
            raise OSError("down")
        return "done"

    symphony.functions.register("shaky", shaky, replace=True)
    steps: list[dict[str, Any]] = [{"kind": "function", "name": "a", "function": "shaky", "retry": {"max_attempts": 2, "delay_s": 0}}]
    if how in ("pauses", "cancelled"):
        steps.append({"kind": "wait", "name": "b", "signal": "go"})
    return {"name": "w", "steps": steps}


async def bring_to_its_end(symphony: Symphony, how: str, hook: Any) -> None:
    handle = await symphony.workflows.start(definition(symphony, how), run_id="r", auto_checkpoint=False, hooks=[hook])
    if how in ("pauses", "cancelled"):
        async with asyncio.timeout(20):
            while "b" not in handle.run.attempts:
                await asyncio.sleep(0.001)
        await (handle.pause() if how == "pauses" else handle.cancel())
    await handle.wait()


@pytest.mark.parametrize("how", ["completes", "retries", "fails", "pauses", "cancelled"])
@pytest.mark.parametrize("kind", [Told, Stopping])
async def test_what_a_crash_leaves_untold_is_told_again(tmp_path: Path, how: str, kind: type[Told]) -> None:
    """Killed while a hook is told of any moment of a run: the next process tells it, under the same id, and no moment twice after that."""
    async with Symphony(tmp_path / "state") as symphony:
        copying = Copying(tmp_path / "state", tmp_path)
        await bring_to_its_end(symphony, how, copying)
    assert len(copying.moments) >= 3
    for number, moment in enumerate(copying.moments):
        told = kind()
        async with Symphony(tmp_path / str(number)) as again:
            await again.resume()
            definition(again, "completes")
            await again.workflows.recover(wait=False, hooks=[told])
            async with asyncio.timeout(20):
                while moment.id not in told.ids:
                    await asyncio.sleep(0.001)
            assert told.ids[moment.id] == (moment.stage, moment.step), number
            assert [one.again for one in told.moments if one.id == moment.id] == [True]
            run, engine = await again.workflows.get_run("r"), again.registry.get("workflow_engine")
            async with asyncio.timeout(20):
                while engine.active_runs and run.step_status("b") != "running":
                    await asyncio.sleep(0.001)
            if engine.active_runs:
                await engine.interrupt()
                continue
            await again.flush()
            assert run.untold == {}
            later = kind()
            await again.workflows.recover(hooks=[later])
            assert later.moments == []


async def test_hooks_that_may_miss_it_are_not_told_again(tmp_path: Path) -> None:
    """They are told of what happens from then on."""

    class Loose(Told):
        durable = False

    async with Symphony(tmp_path / "state") as symphony:
        copying = Copying(tmp_path / "state", tmp_path)
        await bring_to_its_end(symphony, "completes", copying)
    async with Symphony(tmp_path / "1") as again:
        await again.resume()
        definition(again, "completes")
        loose = Loose()
        await again.workflows.recover(hooks=[loose])
        assert not any(moment.again for moment in loose.moments)
        assert loose.moments[-1].stage == "run_completed"


async def test_a_run_without_such_hooks_keeps_nothing(symphony: Symphony) -> None:
    """Neither in its state nor as an event."""

    class Loose(Told):
        durable = False

    loose = Loose()
    await bring_to_its_end(symphony, "retries", loose)
    names = [event.name for event in await symphony.log.read_entity("Workflow:r")]
    assert "WorkflowHooksTold" not in names
    assert len({moment.id for moment in loose.moments}) == len(loose.moments) > 3
    assert (await symphony.workflows.get_run("r")).untold == {}


async def test_a_step_costs_no_event_more(symphony: Symphony) -> None:
    """What has been told goes off the record with the next event of the run; at its end with one of its own."""
    symphony.functions.register("one", lambda context: 1)
    steps = [{"kind": "function", "name": f"s{number}", "function": "one"} for number in range(10)]
    await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, auto_checkpoint=False, hooks=[Told()], run_id="r")
    await symphony.flush()
    names = [event.name for event in await symphony.log.read_entity("Workflow:r")]
    assert names == [
        "WorkflowCreated",
        "WorkflowStarted",
        *["WorkflowStepStarted", "WorkflowStepCompleted"] * 10,
        "WorkflowCompleted",
        "WorkflowHooksTold",
    ]


async def test_a_checkpoint_of_a_moment_is_made_once(tmp_path: Path) -> None:
    """Killed before it is made, it is made by the next process; killed after it, it is not made again."""
    async with Symphony(tmp_path / "state") as symphony:
        copying = Copying(tmp_path / "state", tmp_path)
        definition(symphony, "completes")
        engine = symphony.registry.get("workflow_engine")
        engine.hooks.append(copying)
        steps = [{"kind": "function", "name": f"s{number}", "function": "shaky"} for number in range(3)]
        await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, run_id="r")
    for number in range(len(copying.moments)):
        async with Symphony(tmp_path / str(number)) as again:
            await again.resume()
            definition(again, "completes")
            await again.workflows.recover()
            names = [entry["name"] for entry in reversed(await again.list_checkpoints())]
            assert names == ["workflow_r_start", "workflow_r_step_3", "workflow_r_complete"], number


@pytest.mark.parametrize(("given", "names"), [(False, []), (AutoCheckpoint(every=2, at_start=False), ["step_2", "step_4", "complete"])])
async def test_options_of_the_call_hold_in_later_processes(tmp_path: Path, given: Any, names: list[str]) -> None:
    """The policy that the run began with, unless the call that goes on with it says another."""
    async with Symphony(tmp_path / "state") as symphony:
        symphony.functions.register("one", lambda context: 1)
        steps: list[dict[str, Any]] = [{"kind": "wait", "name": "w", "signal": "go"}]
        steps += [{"kind": "function", "name": f"s{number}", "function": "one"} for number in range(3)]
        await symphony.workflows.start({"name": "w", "steps": steps}, auto_checkpoint=given, run_id="r")
    async with Symphony(tmp_path / "state") as again:
        await again.resume()
        again.functions.register("one", lambda context: 1)
        await again.workflows.signal("r", "go")
        [run] = await again.workflows.recover()
        assert run.status == "completed"
        assert [entry["name"] for entry in reversed(await again.list_checkpoints())] == [f"workflow_r_{name}" for name in names]


class Hanging(WorkflowHook):
    """Does not return, and does not let itself be cancelled."""

    timeout_s = 0.05

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.release = asyncio.Event()

    def wants(self, moment: RunMoment) -> bool:
        return moment.stage == self.stage

    async def tell(self, moment: RunMoment) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue

    run_started = step_started = step_completed = step_failed = run_completed = run_failed = run_cancelled = run_paused = tell


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks that do not let themselves be cancelled are given up sooner."""
    monkeypatch.setattr("symphony_es.workflow.engine.hooks.GRACE_S", 0.02)
    monkeypatch.setattr("symphony_es.workflow.engine.hooks.END_PATIENCE_S", 0.02)


@pytest.mark.parametrize("stops_run", [False, True])
@pytest.mark.parametrize("stage", ["run_started", "step_started", "step_completed", "run_completed"])
async def test_a_hook_that_hangs_is_a_failure_of_it(symphony: Symphony, stage: str, stops_run: bool) -> None:
    """On record, after its time; the run goes on, or fails where the hook stops it, and is awaited."""
    hook = Hanging(stage)
    hook.stops_run = stops_run
    async with asyncio.timeout(20):
        run = await symphony.workflows.execute_workflow(definition(symphony, "completes"), auto_checkpoint=False, hooks=[hook], run_id="r")
        assert run.status == ("failed" if stops_run and stage != "run_completed" else "completed")
        while True:
            failed = [event for event in await symphony.log.read_entity("Workflow:r") if event.name == "WorkflowHookFailed"]
            if failed:
                break
            await asyncio.sleep(0.01)
            await symphony.flush()
    assert failed[0].data["stage"] == stage
    assert "has not returned within 0.05 s" in failed[0].data["message"]
    hook.release.set()


@pytest.mark.parametrize("how", ["cancel", "interrupt", "close"])
@pytest.mark.parametrize("stage", ["run_started", "step_completed"])
async def test_a_run_in_a_hook_that_hangs_can_be_stopped(symphony: Symphony, stage: str, how: str) -> None:
    """Whatever its time limit is."""
    hook = Hanging(stage)
    hook.timeout_s = 1_000
    handle = await symphony.workflows.start(definition(symphony, "cancelled"), auto_checkpoint=False, hooks=[hook])
    async with asyncio.timeout(20):
        while stage == "step_completed" and "a" not in handle.run.outputs:
            await asyncio.sleep(0.001)
        if how == "cancel":
            assert (await handle.cancel(grace_s=0.01)).status == "cancelled"
        elif how == "interrupt":
            await symphony.registry.get("workflow_engine").interrupt()
        else:
            await symphony.close()
    hook.release.set()


async def test_the_end_of_a_run_is_not_held_up(symphony: Symphony) -> None:
    """A hook that hangs at the end, for longer than anybody waits: the result is there, and the Symphony closes."""
    hook = Hanging("run_completed")
    hook.timeout_s = 1_000
    async with asyncio.timeout(20):
        handle = await symphony.workflows.start(definition(symphony, "completes"), auto_checkpoint=False, hooks=[hook])
        assert await handle.result() == "done"
        await symphony.close()
    hook.release.set()


@pytest.mark.parametrize("auto_checkpoint", [False, True])
@pytest.mark.parametrize("stages", [(), ("run_completed",), ("run_started", "step_failed")])
async def test_a_hook_that_waits_for_other_moments_costs_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...], auto_checkpoint: bool
) -> None:
    """Between a step's end and the next one's start no random bytes are asked for: that lets go of the interpreter's lock, and the writer
    thread commits the end alone."""

    class Waiting(Told):
        def wants(self, moment: RunMoment) -> bool:
            return moment.stage in stages

    steps = 64
    asked: list[int] = []

    def counted(size: int) -> bytes:
        asked.append(size)
        return system(size)

    system = os.urandom
    async with Symphony(tmp_path) as symphony:
        symphony.functions.register("work", lambda context: None)
        names = [f"s{number}" for number in range(steps)]
        definition = {"name": "long", "context": {}, "steps": [{"kind": "function", "name": name, "function": "work"} for name in names]}
        monkeypatch.setattr("os.urandom", counted)
        monkeypatch.setattr("random._urandom", counted)
        run = await symphony.workflows.execute_workflow(definition, hooks=[Waiting()], auto_checkpoint=auto_checkpoint)
        monkeypatch.undo()
    assert run.status == "completed"
    assert len(asked) <= steps // 4
