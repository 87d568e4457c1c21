"""A run that stopped anywhere goes on in a new process: completed steps are skipped, the outcome is the same."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import NotRegisteredError
from symphony_es.workflow import RunContext, WorkflowDefinition

NAMES = ["a", "b", "c", "d"]


def register(symphony: Symphony, calls: list[tuple[str, str, int]]) -> WorkflowDefinition:
    """Four steps that use each other's outputs and write the context; each call is noted outside of the log."""

    async def step(context: RunContext) -> list[str]:
        calls.append((context.step, context.idempotency_key, context.attempt))
        context["seen"] = [*context.get("seen", []), context.step]
        return [*(list(context.outputs.values())[-1] if context.outputs else []), context.step]

    symphony.functions.register("step", step)
    return WorkflowDefinition(name="flow", steps=[{"kind": "function", "name": name, "function": "step"} for name in NAMES])


async def test_from_every_position_a_run_ends_the_same(symphony: Symphony, tmp_path: Path) -> None:
    """Whatever event was the last: no completed step runs again, the one under way does, and outputs and context are equal."""
    run = await symphony.workflows.execute_workflow(register(symphony, []), {"topic": "rain"})
    events = await symphony.log.read_entity(f"Workflow:{run.id}")
    expected = (dict(run.outputs), dict(run.context))
    await symphony.close()

    assert [event.name for event in events[:2]] == ["WorkflowCreated", "WorkflowStarted"], (
        "one transaction: nothing can go back between them"
    )
    end = [event.name for event in events].index("WorkflowCompleted")
    for event in events[1:end]:
        directory = tmp_path / f"at-{event.position}"
        shutil.copytree(tmp_path / "state", directory)
        async with Symphony({"state_dir": str(directory)}, persistence_enabled=True) as again:
            calls: list[tuple[str, str, int]] = []
            register(again, calls)
            await again.resume(replay_until=event.position)
            (resumed,) = await again.workflows.recover()
            completed = {one.metadata.step for one in events if one.position <= event.position and one.name == "WorkflowStepCompleted"}
            begun = {one.metadata.step for one in events if one.position <= event.position and one.name == "WorkflowStepStarted"}
            assert resumed.status == "completed", resumed.error
            assert (resumed.outputs, resumed.context) == expected
            assert [step for step, _, _ in calls] == [name for name in NAMES if name not in completed]
            for step, key, attempt in calls:
                assert attempt == (2 if step in begun else 1)
                assert key == f"{run.id}:{step}:1", "a rewind raises the generation"
            assert await again.workflows.recover() == []


async def test_an_interrupted_run_goes_on_with_the_key_it_had(symphony: Symphony, reopen: Any) -> None:
    """Without a rewind the generation stays: the second attempt has the idempotency key of the first."""
    calls: list[tuple[str, str, int]] = []
    definition = register(symphony, calls)
    engine = symphony.registry.get("workflow_engine")

    under_way = asyncio.Event()

    async def hang(context: RunContext) -> None:
        calls.append((context.step, context.idempotency_key, context.attempt))
        under_way.set()
        await asyncio.Event().wait()

    class HangAfterTwo:
        async def step_completed(self, moment: Any) -> None:
            if moment.completed_steps == 2:
                moment.symphony.functions.register("step", hang, replace=True)

    caller = asyncio.create_task(engine.execute_workflow(definition, {"topic": "rain"}, hooks=[HangAfterTwo()]))
    await under_way.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    again = await reopen(resume="latest")
    register(again, calls)
    (run,) = await again.workflows.recover()
    assert run.status == "completed"
    assert [step for step, _, _ in calls] == ["a", "b", "c", "c", "d"]
    assert calls[2][1] == calls[3][1] == f"{run.id}:c:0"
    assert [attempt for _, _, attempt in calls] == [1, 1, 1, 2, 1]
    names = [event.name for event in await again.log.read_entity(f"Workflow:{run.id}")]
    assert names.count("WorkflowResumed") == 1


async def test_a_function_nobody_registered_again_is_named_and_nothing_is_appended(symphony: Symphony, reopen: Any) -> None:
    """External resources are the application's to reconnect: the call names it, and nothing is appended until it is there."""
    symphony.functions.register("step", lambda context: 1 / 0)
    definition = WorkflowDefinition(name="flow", steps=[{"kind": "function", "name": "a", "function": "step"}])
    run = await symphony.workflows.execute_workflow(definition)
    again = await reopen(resume="latest")
    head = again.log.head
    with pytest.raises(NotRegisteredError, match=r"'step'.*register"):
        await again.workflows.execute_workflow_by_id(run.id)
    assert (again.log.head, (await again.workflows.get_run(run.id)).error["type"]) == (head, "ZeroDivisionError")
    again.functions.register("step", lambda context: "fine")
    assert (await again.workflows.execute_workflow_by_id(f"Workflow:{run.id}")).outputs == {"a": "fine"}


PROGRAM = """
import asyncio, os, signal, sys
from symphony_es import Symphony

def work(context):
    with open(sys.argv[2], "a") as ledger:
        ledger.write(context.step + " ")
    if context.step == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(context.outputs)

async def main():
    async with Symphony({"state_dir": sys.argv[1], "resume": "latest"}, persistence_enabled=True) as symphony:
        symphony.functions.register("work", work)
        runs = await symphony.workflows.recover() or [
            await symphony.workflows.execute_workflow(
                {"name": "x", "steps": [{"kind": "function", "name": name, "function": "work"} for name in "abcde"]}
            )
        ]
        print(runs[0].status, list(runs[0].outputs.values()))

asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_no_completed_step(tmp_path: Path) -> None:
    """kill -9 in the middle of a step, twice: each new process goes on exactly there."""

    def run(killed_in: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "state"), str(tmp_path / "ledger"), killed_in]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert run("b").returncode == -9
    assert run("d").returncode == -9
    ended = run("none")
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["completed [0, 1, 2, 3, 4]"]), ended.stderr
    assert (tmp_path / "ledger").read_text().split() == ["a", "b", "b", "c", "d", "d", "e"]
