"""What the program's log says of what failed: one line of the standard library's logging that tells run, step, attempt and error."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityExistsError
from symphony_es.workflow import step


class Awkward(Exception):
    def __str__(self) -> str:
        raise ValueError


ERRORS = [
    (ValueError("no such card"), "ValueError: no such card"),
    (KeyError("card"), "KeyError: 'card'"),
    (RuntimeError("first line\nsecond line"), "RuntimeError: first line\\nsecond line"),
    (RuntimeError("x" * 100_000), "RuntimeError: xxx"),
    (RuntimeError(""), "RuntimeError: "),
    (RuntimeError("100 % {sure} %s"), "RuntimeError: 100 % {sure} %s"),
    (SystemExit(3), "SystemExit: 3"),
    (ExceptionGroup("two", [ValueError("no such card")]), "ExceptionGroup: two (1 sub-exception)"),
    (Awkward(), "Awkward: "),
]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a handler with the default formatter writes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(("error", "shown"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("code", [True, False], ids=["code", "declared"])
async def test_a_failed_run(symphony: Symphony, lines: io.StringIO, error: BaseException, shown: str, code: bool) -> None:
    """One line, however long, with what one looks for first; the attempt is the last one."""

    async def charge() -> None:
        raise error

    if code:

        @symphony.workflow
        async def order() -> None:
            await step(charge)

        run = await symphony.workflows.execute_workflow(order, run_id="r1")
    else:
        symphony.functions.register("charge", lambda context: charge())
        failing = {"kind": "function", "name": "charge", "function": "charge", "retry": {"max_attempts": 2, "delay_s": 0}}
        run = await symphony.workflows.execute_workflow({"name": "order", "steps": [failing]}, run_id="r1")
    assert run.status == "failed"
    (line,) = [line for line in lines.getvalue().splitlines() if line.startswith("workflow_failed")]
    attempts = 2 if isinstance(error, Exception) and not code else 1
    assert line.startswith(f"workflow_failed run_id=r1 workflow={run.name} step=charge attempt={attempts} error=")
    assert shown.replace("'", "") in line.replace("'", "")
    assert len(line) < 1000


async def test_a_run_that_stops_and_one_that_is_blocked(symphony: Symphony, lines: io.StringIO) -> None:
    """The error, and for the one that stopped the steps that were under way."""

    async def wait(context: Any) -> None:
        del symphony.functions._callables["later"]

    symphony.functions.register("wait", wait)
    symphony.functions.register("later", wait)
    steps = [{"kind": "function", "name": name, "function": name} for name in ("wait", "later")]
    handle = await symphony.workflows.start({"name": "order", "steps": steps}, run_id="r1")
    with pytest.raises(LookupError):
        await handle.wait()
    (line,) = [line for line in lines.getvalue().splitlines() if line.startswith("workflow_run_stopped")]
    assert line.startswith("workflow_run_stopped run_id=r1 workflow=order steps=[] error=")
    assert "NotRegisteredError" in line
    assert "later" in line


async def test_a_failed_task(symphony: Symphony, lines: io.StringIO) -> None:
    """Task, agent and model, and the error."""

    async def model(prompt: str, **_: Any) -> str:
        raise ConnectionError("no answer")

    symphony.models.register("m", model)
    task = await symphony.tasks.create_task("t")
    agent = await symphony.agents.create_agent({"name": "a", "model": "m"})
    await symphony.tasks.execute_task(task, agent)
    (line,) = [line for line in lines.getvalue().splitlines() if line.startswith("task_failed")]
    assert line == f'task_failed task_id={task.id} agent={agent.id} model=m error="ConnectionError: no answer"'


@pytest.mark.parametrize("name", ["name", "args", "msg", "message", "module", "process", "asctime", "levelname", "taskName"])
def test_a_value_may_have_any_name(lines: io.StringIO, name: str) -> None:
    """Also that of an attribute that records of logging have already."""
    get_logger("symphony_es.test").warning("something_failed", **{name: "x"})
    assert lines.getvalue() == f"something_failed {name}=x\n"


async def test_a_start_of_an_id_that_is_taken_stops_no_run(symphony: Symphony, reopen: Any, lines: io.StringIO) -> None:
    """The caller is told; that run has completed, and no line says that it has stopped."""
    definition = {"name": "w", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}
    await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    symphony = await reopen()
    with pytest.raises(EntityExistsError):
        await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    assert "workflow_run_stopped" not in lines.getvalue()
