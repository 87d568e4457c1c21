"""The examples run as they stand, each in a process of its own, show what they say, and leave what they say on record."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.workflow import Workflow

EXAMPLES = Path(__file__).parents[2] / "examples"
LAST_LINES = {"crash_and_resume.py": "Everything is as it should be."}


def run_example(example: Path | str, cwd: Path, *arguments: str) -> list[str]:
    """What it prints; it ends with status 0 and warns of nothing."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    others = [line for line in ended.stderr.splitlines() if not line.startswith("workflow_failed ")]  # a step fails there on purpose
    assert not any("Error" in line or "Traceback" in line for line in others), ended.stderr
    return ended.stdout.splitlines()


async def runs_in(state_dir: Path) -> list[Workflow]:
    """The runs of a log that an example has left behind, oldest first."""
    async with Symphony({"state_dir": str(state_dir), "resume": "latest"}, persistence_enabled=True) as symphony:
        return await symphony.workflows.get_all_runs()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_and_checks_itself(example: Path, tmp_path: Path) -> None:
    """It ends with status 0, warns of nothing, and leaves nothing in the directory it was started in."""
    assert run_example(example, tmp_path)[-1] == LAST_LINES.get(example.name, "done")
    assert list(tmp_path.iterdir()) == []


async def test_a_person_answers_a_process_that_is_gone(tmp_path: Path) -> None:
    """The first process is killed while the run waits, the second one has the answer; nothing runs twice. So again on the same log."""
    expected = [
        "first process: asked for approval of 120",
        "the first process died of signal 9",
        "found a run that waits: expense for 3 people, running at approval",
        "completed: paid 120, approved by Ada",
        "attempts: {'estimate': 1, 'approval': 1, 'decision': 1, 'decision/then/pay': 1}",
        "done",
    ]
    for _ in range(2):
        assert run_example("human_approval.py", tmp_path, "state") == expected
    assert [(run.status, run.result) for run in await runs_in(tmp_path / "state")] == [("completed", "paid 120, approved by Ada")] * 2


async def test_branches_come_together(tmp_path: Path) -> None:
    """All outputs are there in the order of the items, and the failure of a branch is one of them."""
    shown = run_example("fan_out_fan_in.py", tmp_path, "state")
    assert shown[0] == "run: completed, never more than 2 counts at once: True"
    assert [line.strip() for line in shown if line.startswith("  analyses/")] == [
        "analyses/total: completed",
        "analyses/summary: completed",
        "analyses/translation: failed",
    ]
    assert shown[-6:] == [
        "  counts = [4, 1, 6, 3]",
        "  total = 14",
        "  summary = Summarise 4 reports",
        "  translation = {'error': {'type': 'ConnectionError', 'message': 'the translator is away'}}",
        "  longest = north.",
        "done",
    ]
    (run,) = await runs_in(tmp_path / "state")
    assert run.scopes["counts/2"] == {"longest": "west,"}


async def test_a_server_that_fails_twice(tmp_path: Path) -> None:
    """Each attempt is on record with its error, and all requests bore one key."""
    assert run_example("flaky_http.py", tmp_path, "state") == [
        "run: completed with {'city': 'Oslo', 'celsius': -4}",
        "  attempt 1: WorkflowStepStarted",
        "  attempt 1: WorkflowStepFailed ConnectionError: the server answered 503: try again later",
        "  attempt 2: WorkflowStepRetried",
        "  attempt 2: WorkflowStepFailed ConnectionError: the server answered 503: try again later",
        "  attempt 3: WorkflowStepRetried",
        "  attempt 3: WorkflowStepCompleted",
        "the server got 3 requests with 1 idempotency key",
        "done",
    ]
    (run,) = await runs_in(tmp_path / "state")
    assert run.steps == {"fetch": {"status": "completed", "attempts": 3}}


async def test_a_payment_is_made_once(tmp_path: Path) -> None:
    """The process dies between the insert and the record of it; the step runs twice, and one row is there."""
    assert run_example("idempotent_side_effect.py", tmp_path, "bank") == [
        "the first process pays, and is killed before the step's completion is on record:",
        "   attempt 1: paid",
        "the second one goes on with the run:",
        "   attempt 2: had been paid already",
        "run: completed after 2 attempts at the step: paid 30 to Ada",
        "payments of this run: [('Ada', 30)]",
        "done",
    ]
    (run,) = await runs_in(tmp_path / "bank" / "state")
    with closing(sqlite3.connect(tmp_path / "bank" / "bank.db")) as database:
        rows = database.execute("SELECT * FROM payments").fetchall()
    assert rows == [(f"{run.id}:pay:0", "Ada", 30)]


async def test_child_runs_are_linked_both_ways(tmp_path: Path) -> None:
    """The parent knows its children by address, and each child its parent; each has steps of its own."""
    shown = run_example("sub_workflow.py", tmp_path, "state")
    assert shown[:3] == [
        "all invoices: completed",
        "  orders/0 -> run of 'invoice': completed, invoice over 30 to Ada",
        "    its parent: run of 'all invoices' at orders/0; its steps: ['sum', 'send']",
    ]
    parent, *children = await runs_in(tmp_path / "state")
    assert {address: child.id for address, child in parent.children.items()} == {child.parent_step: child.id for child in children}
    assert sorted((child.parent.id, child.parent_step) for child in children) == [(parent.id, "orders/0"), (parent.id, "orders/1")]


async def test_an_agent_as_code(tmp_path: Path) -> None:
    """The old run goes on under new code, does nothing twice and stays on the old way; the new run takes the new one."""
    shown = run_example("code_first_research_agent.py", tmp_path, "state")
    assert shown[:2] == [
        "version 1: gather/1/look_up failed, and is tried again: the archive is busy",
        "version 1: running, 6 calls; the process ends",
    ]
    assert shown[2].startswith("version 2: old run completed, 0 calls: {'findings': ['Say it briefly: What is rain? 42 sources agree.',")
    assert shown[3].startswith("version 2: new run: {'findings': ['Say it briefly: What is snow? 42 sources agree. (checked)',")
    old, new = await runs_in(tmp_path / "state")
    assert set(new.outputs) - set(old.outputs) == {"check", "check#2"}
    assert old.attempts == {**dict.fromkeys(old.outputs, 1), "gather/1/look_up": 2}
    async with Symphony({"state_dir": str(tmp_path / "state"), "resume": "latest"}, persistence_enabled=True) as symphony:
        assert len(await symphony.tasks.get_tasks_by_workflow(old.id)) == 2
