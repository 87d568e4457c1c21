"""`symphony-es retry --dry-run` says of each run what `retry` would do, also where it would be refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import SymphonyError
from symphony_es.workflow import WorkflowDefinition
from symphony_es.workflow.engine.inbox import RequestTaker
from tests.cli.document import answer


def fails(context: Any) -> None:
    raise ValueError("boom")


def passes(context: Any) -> str:
    return "done"


def definitions() -> dict[str, WorkflowDefinition]:
    """Each fails in another way."""
    first: Any = {"kind": "function", "name": "first", "id": "one", "function": "passes"}
    bad: Any = {"kind": "function", "name": "bad", "function": "fails"}
    good: Any = {"kind": "function", "name": "good", "function": "passes"}
    return {
        "plain": WorkflowDefinition(name="plain", steps=[first, bad]),
        "cleaned": WorkflowDefinition(name="cleaned", steps=[first, bad], cleanup=[good], cleanup_on=["failure"]),
        "half": WorkflowDefinition(name="half", steps=[first, bad], cleanup=[good, bad], cleanup_on=["failure"]),
        "well": WorkflowDefinition(name="well", steps=[first, good]),
        "waits": WorkflowDefinition(name="waits", steps=[first, {"kind": "wait", "name": "go", "signal": "go"}]),
    }


async def fill(directory: Path) -> None:
    """One run of each kind, and others that have been paused, cancelled, or never begun."""
    async with Symphony(directory) as symphony:
        register(symphony)
        for name, definition in definitions().items():
            if name != "waits":
                await symphony.workflows.execute_workflow(definition, run_id=name, auto_checkpoint=False)
        for name in ("paused", "cancelled"):
            handle = await symphony.workflows.start(definitions()["waits"], run_id=name, auto_checkpoint=False)
            while len(handle.run.attempts) < 2:
                await asyncio.sleep(0)
            await (handle.pause() if name == "paused" else handle.cancel())
        await symphony.workflows.fork("plain", "bad", run_id="pending")


def register(symphony: Symphony) -> None:
    """What the runs call."""
    symphony.functions.register("fails", fails)
    symphony.functions.register("passes", passes)


async def really(directory: Path, step: str | None) -> dict[str, str | None]:
    """What the owner of the log says to each run: None where it takes the run up."""
    said: dict[str, str | None] = {}
    async with Symphony(directory) as symphony:
        register(symphony)
        await symphony.resume()
        engine: Any = symphony.registry.get("workflow_engine")
        for summary in await symphony.workflows.list_runs(limit=100):
            try:
                await RequestTaker._retry(engine, await summary.load(), step)
                said[summary.id] = None
            except SymphonyError as error:
                said[summary.id] = str(error)
            await engine.interrupt()
    return said


STATUSES = ("failed", "completed", "paused", "cancelled", "pending")


@pytest.mark.parametrize("step", [None, "first", "one", "bad", "cleanup/good", "cleanup/bad", "good", "nowhere"])
def test_it_says_what_the_real_one_does(tmp_path: Path, step: str | None) -> None:
    """The same runs are taken up, and the others are refused in the same words."""
    asyncio.run(fill(tmp_path / "state"))
    command = "retry --dry-run --json" + "".join(f" --status {status}" for status in STATUSES) + (f" --step {step}" if step else "")
    text, code = answer(command, tmp_path)
    foretold = {told["run"]: told["refused"] for told in map(json.loads, text.splitlines())}
    done = asyncio.run(really(tmp_path / "state", step))
    assert len(done) == 7
    assert foretold == done
    assert code == 6


def test_child_runs_take_no_place_of_a_limit(tmp_path: Path) -> None:
    """A child run goes on with the run that started it, so the newest one is that, though the child run was made later."""

    async def fail() -> None:
        async with Symphony(tmp_path / "state") as symphony:
            register(symphony)
            sub: Any = {"kind": "workflow", "name": "sub", "definition": definitions()["plain"]}
            await symphony.workflows.execute_workflow(WorkflowDefinition(name="outer", steps=[sub]), run_id="outer", auto_checkpoint=False)

    asyncio.run(fail())
    text, code = answer("retry --dry-run --status failed --limit 1 --json", tmp_path)
    assert [json.loads(line)["run"] for line in text.splitlines()] == ["outer"]
    assert code == 0


def test_people_read_which_and_why(tmp_path: Path) -> None:
    """Those that would be refused stand in no table; each has a line with the reason."""
    asyncio.run(fill(tmp_path / "state"))
    text, code = answer("retry --dry-run --status failed", tmp_path)
    assert code == 6
    assert "retry cleaned: would be refused: " in text
    assert "its clean-up has run" in text
    assert text.splitlines()[-1] == "2 runs would be tried again, 1 refused"
    assert answer("retry --dry-run --status failed --name plain", tmp_path)[1] == 0
