"""Who uses no runs waits for nothing of them: the engine and all that belongs to it come when something asks for them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from symphony_es import Symphony, WorkflowStatus, entity

IN_MEMORY = """
import asyncio, sys
from symphony_es import Symphony, entity

@entity
class Note:
    id: str
    text: str = ""

def one(context):
    return 1

async def main():
    symphony = Symphony()
    for _ in range(2):
        async with symphony:
            symphony.entities.add(Note(id="1"))
            await symphony.flush()
            assert "workflow_engine" in symphony.registry and symphony.registry.names() == ["workflow_engine"]
            assert not {"symphony_es.workflow.runs.run", "symphony_es.workflow.engine.engine"} & set(sys.modules)
    async with symphony:
        assert type(symphony.registry.get("workflow_engine")).__name__ == "WorkflowEngine"
        assert await symphony.workflows.get_all_runs() == []
    async with symphony:
        symphony.functions.register("one", one)
        assert (await symphony.build_workflow("w").add_function("f", "one").execute()).status.name == "COMPLETED"

asyncio.run(main())
"""
READING = """
import asyncio, json, sys
from symphony_es import Symphony, entity

@entity
class Kept:
    id: str
    value: object = None

async def main():
    async with Symphony(sys.argv[1], read_only=True) as symphony:
        late = "symphony_es.workflow.runs.run" not in sys.modules
        found = await symphony.entities.load(sys.argv[2])
        print(json.dumps([late, type(found).__qualname__, repr(getattr(found, "value", None) or getattr(found, "status", None))]))

asyncio.run(main())
"""
RECOVERING = """
import asyncio, sys
from symphony_es import Symphony

async def main():
    async with Symphony(sys.argv[1]) as symphony:
        symphony.functions.register("one", lambda context: 1)
        (run,) = await symphony.workflows.recover()
        assert run.status == "completed", run.error
    engine = "symphony_es.workflow.engine."
    others = {engine + name for name in ("retrying", "retriable", "dropping", "past", "forking", "undoing", "reopening")}
    others |= {f"symphony_es.workflow.kinds.{name}" for name in ("sub_workflow", "task")}
    assert not others & set(sys.modules), others & set(sys.modules)

asyncio.run(main())
"""
TAKEN = """
import symphony_es.app
from symphony_es import entity
from symphony_es.errors import EntityTypeError

try:
    @entity(type={name!r})
    class Mine:
        id: str = ""
except EntityTypeError as error:
    print(error)
"""


@entity
class Kept:
    """Holds any value."""

    id: str
    value: object = None


def _ended(program: str, *arguments: str) -> str:
    """What a program prints that ends well."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_without_runs_imports_no_engine() -> None:
    """Neither opening, adding, flushing nor closing asks for it; it is there by name, and a later use of the same Symphony has it."""
    _ended(IN_MEMORY)


async def test_what_runs_have_left_is_read_without_asking_for_the_engine_first(tmp_path: Path) -> None:
    """A run, a definition and a status in an entity of an application come back as objects of their classes in a new process."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.functions.register("one", lambda context: 1)
        builder = symphony.build_workflow("w").add_function("f", "one")
        run = await symphony.workflows.execute_workflow(builder.build(), run_id="r")
        saved = await symphony.workflows.create_workflow("saved")
        symphony.entities.add(Kept(id="k", value=WorkflowStatus.PAUSED))
    read = [json.loads(_ended(READING, str(tmp_path / "log"), key)) for key in ("Workflow:r", f"WorkflowDefinition:{saved.id}", "Kept:k")]
    assert read == [[True, "Workflow", repr(run.status)], [True, "StoredDefinition", "None"], [True, "Kept", repr(WorkflowStatus.PAUSED)]]


async def test_taking_up_a_run_of_functions_imports_no_way_back(tmp_path: Path) -> None:
    """What goes back in a run, and the kinds of steps that it has not, are not waited for by the first step after a crash."""
    async with Symphony(tmp_path / "log") as symphony:
        begun = asyncio.Event()

        async def waits(context: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        symphony.functions.register("one", waits)
        await symphony.workflows.start(symphony.build_workflow("w").add_function("f", "one").build())
        await begun.wait()
    _ended(RECOVERING, str(tmp_path / "log"))


@pytest.mark.parametrize("name", ["Workflow", "WorkflowDefinition", "Task"])
def test_a_class_cannot_take_the_name_of_a_type_that_was_not_needed_so_far(name: str) -> None:
    """It is refused as it is where the type has been met: two classes of one type would bring each other's states back."""
    assert f"cannot be the entity type '{name}'" in _ended(TAKEN.format(name=name))
