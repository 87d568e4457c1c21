"""What the page on living with code changes shows works as it stands."""

from __future__ import annotations

import ast
import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import DefinitionChangedError, NotRegisteredError
from symphony_es.workflow import WorkflowDefinition, step

DOCUMENT = Path(__file__).parents[2] / "docs" / "living-with-code-changes.md"
TEXT = DOCUMENT.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


async def execute(block: str, names: dict[str, Any]) -> None:
    """Runs a block with the names that the document leaves to the reader."""
    outcome = eval(compile(block, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if asyncio.iscoroutine(outcome):
        await outcome


def functions(symphony: Symphony) -> dict[str, int]:
    """gather, write and check; write fails the first time."""
    calls = {"gather": 0, "write": 0, "check": 0}

    def make(name: str) -> Any:
        def body(context: Any) -> str:
            calls[name] += 1
            if name == "write" and calls[name] == 1:
                raise ValueError("not yet")
            return name

        return body

    for name in calls:
        symphony.functions.register(name, make(name))
    return calls


def flow(*steps: Any) -> WorkflowDefinition:
    return WorkflowDefinition(
        name="report", steps=[s if isinstance(s, dict) else {"kind": "function", "name": s, "function": s} for s in steps]
    )


async def test_going_on_with_another_definition(symphony: Symphony) -> None:
    """The first block resumes with a compatible one; the refusal reads as it is shown; force takes it."""
    functions(symphony)
    run = await symphony.workflows.execute_workflow(flow("gather", "write"))
    new = flow("gather", "check", "write", {"kind": "function", "name": "publish", "function": "gather", "retry": 3})
    with pytest.raises(DefinitionChangedError) as caught:
        await symphony.workflows.resume(run, definition=new)
    assert str(caught.value).splitlines()[1:] == [
        "  contradiction: check is added before write, which has begun",
        "  added: check",
        "  added: publish",
        "force=True takes it all the same",
    ]
    names: dict[str, Any] = {"symphony": symphony, "run": run, "new": new}
    await execute(BLOCKS[1], names)
    assert list(names["run"].outputs) == ["gather", "check", "write", "publish"]

    run = await symphony.workflows.execute_workflow(flow("gather", "write"), hooks=[])
    # the renamed one, of BLOCKS[2], with BLOCKS[0]
    symphony.functions.register("write", lambda context: 1 / 0, replace=True)
    run = await symphony.workflows.execute_workflow(flow("gather", "write"))
    assert run.status == "failed"
    symphony.functions.register("write", lambda context: context.outputs["gather"], replace=True)
    names = {"symphony": symphony, "run": run, "WorkflowDefinition": WorkflowDefinition}
    await execute(BLOCKS[2], names)
    await execute(BLOCKS[0], names)
    assert names["run"].status == "completed", names["run"].error
    assert names["run"].definition.step("gather").name == "Collect the facts"


async def make(name: str, value: Any) -> Any:
    return value


async def test_patches(symphony: Symphony, reopen: Any) -> None:
    """An old run stays on the old code, a new one takes the new code, and goes on when the branch is removed."""
    state = {"fail": True}

    async def gather(topic: str) -> list[str]:
        return [topic]

    async def check(facts: list[str]) -> list[str]:
        return [*facts, "checked"]

    async def write(facts: list[str]) -> str:
        if state["fail"]:
            raise ValueError("not yet")
        return " ".join(facts)

    names: dict[str, Any] = {"gather": gather, "check": check, "write": write, "step": step}

    async def report(topic: str) -> str:
        return await step(write, await step(gather, topic))

    old = await symphony.workflows.execute_workflow(symphony.workflow(report), {"topic": "rain"})
    assert old.status == "failed"

    async def wrong(topic: str) -> str:
        return await step(write, await step(check, await step(gather, topic)))

    again = await reopen()
    await again.resume()
    again.workflow(wrong, name="report")
    old = await again.workflows.resume(old.id)
    assert old.error["type"] == "HistoryMismatchError"
    shown = re.search(r"```text\n(run 01k84…: its history.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    assert old.error["message"].splitlines()[1:] == shown[1].splitlines()[1:]
    assert old.error["message"].splitlines()[0].partition(":")[2] == shown[1].splitlines()[0].partition(":")[2]

    again = await reopen()
    await again.resume()
    names["symphony"] = again
    await execute(BLOCKS[3], names)
    between = await again.workflows.execute_workflow(names["report"], {"topic": "snow"})
    assert between.status == "failed"
    state["fail"] = False
    old = await again.workflows.resume(old.id)
    assert (old.status, old.result) == ("completed", "rain")
    names["deployed_at"] = datetime.now(UTC)
    await execute(BLOCKS[4], names)
    assert names["waiting"] == [between] or [r.id for r in names["waiting"]] == [between.id]

    again = await reopen()
    await again.resume()
    names["symphony"] = again
    await execute(BLOCKS[5], names)
    between = await again.workflows.resume(between.id)
    assert (between.status, between.result) == ("completed", "snow checked")


async def test_upcast(symphony: Symphony, reopen: Any) -> None:
    """A state of version 1 comes back with the fields of version 2."""
    from symphony_es import entity

    old: dict[str, Any] = {}
    exec(
        compile("@entity(type='Author')\nclass Author:\n    id: str = ''\n    name: str = ''\n", "x", "exec"),
        {"entity": entity, "__name__": __name__},
        old,
    )
    author = old["Author"](id="a", name="Ada Lovelace")
    symphony.entities.add(author)
    await symphony.world.flush()
    names: dict[str, Any] = {"__name__": __name__}
    await execute(BLOCKS[6], names)
    again = await reopen()
    await again.resume()
    (found,) = again.world.all("Author")
    assert (found.first_name, found.last_name) == ("Ada", "Lovelace")


async def test_a_function_that_is_gone(symphony: Symphony, reopen: Any) -> None:
    functions(symphony)
    run = await symphony.workflows.execute_workflow(flow("gather", "write"))
    again = await reopen()
    await again.resume()
    with pytest.raises(NotRegisteredError, match="'write'"):
        await again.workflows.resume(run.id)
