"""Every Python block of the seed document runs as it stands, with `symphony` read as `symphony_es`, and has its effect."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest

import symphony_es
from symphony_es import Symphony
from symphony_es.core.state import EntityRestorer, RestorationContext, restore_manager
from tests.conftest import Opener

DOCUMENT = Path(__file__).parent / "state_management.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)


async def run(block: str, namespace: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Run one block; only the module's name and the absolute paths are replaced."""
    code = re.sub(r"\bfrom symphony\b", "from symphony_es", block)
    code = re.sub(r'"/(path/to/state|custom/state/directory)"', lambda match: repr(str(tmp_path / match[1])), code)
    compiled = compile(code, "seed", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {**vars(typing), "EntityRestorer": EntityRestorer, "RestorationContext": RestorationContext, **namespace}
    result = eval(compiled, names)
    if inspect.isawaitable(result):
        await result
    return names


def block(words: str) -> str:
    """The block that contains these words."""
    (found,) = [text for text in BLOCKS if words in text]
    return found


def test_there_are_as_many_blocks_as_are_run_here() -> None:
    """A block added to the document needs a test here."""
    assert len(BLOCKS) == 9


async def test_enabling_persistence(tmp_path: Path) -> None:
    """The Symphony is open on the directory."""
    names = await run(block("Enable state persistence"), {}, tmp_path)
    symphony = names["symphony"]
    assert symphony.state_dir == tmp_path / "path/to/state"
    assert (tmp_path / "path/to/state").is_dir()
    await symphony.close()


async def test_creating_a_checkpoint(symphony: Symphony, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is listed under its name, and its id is printed."""
    names = await run(block("Create a named checkpoint"), {"symphony": symphony}, tmp_path)
    (entry,) = await symphony.list_checkpoints()
    assert (entry["id"], entry["name"]) == (names["checkpoint_id"], "after_planning_phase")
    assert capsys.readouterr().out == f"Created checkpoint: {entry['id']}\n"


async def test_resuming(symphony: Symphony, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a checkpoint, then from the latest one; without any the other branch is taken."""
    text = block("Resume from a specific checkpoint")
    agent = await symphony.agents.create_agent(name="Ada", role="planner")
    checkpoint = await symphony.create_checkpoint("here")
    await symphony.agents.update_agent(agent.id, role="changed")
    await run(text, {"symphony": symphony, "checkpoint_id": checkpoint}, tmp_path)
    assert symphony.entities.get(f"Agent:{agent.id}").role == "planner"
    assert capsys.readouterr().out == f"Resumed from checkpoint: {checkpoint}\n"
    await symphony.delete_checkpoint(checkpoint)
    latest_only = text[text.index("# Or resume") :]
    await run(latest_only, {"symphony": symphony}, tmp_path)
    assert capsys.readouterr().out == "No checkpoints available\n"


async def test_listing_and_deleting(symphony: Symphony, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each checkpoint is printed with id, name and time, and the one named is gone afterwards."""
    first, second = await symphony.create_checkpoint("first"), await symphony.create_checkpoint("second")
    await run(block("List all checkpoints"), {"symphony": symphony, "checkpoint_id": first}, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == [second, first]
    assert re.fullmatch(rf"{second} \(second\): created at \d{{4}}-\d\d-\d\dT.*\+00:00", lines[0])
    assert [entry["id"] for entry in await symphony.list_checkpoints()] == [second]


async def test_automatic_checkpoints(symphony: Symphony, tmp_path: Path) -> None:
    """A saved workflow runs by its id, and is checkpointed at its start, every few steps and at its completion."""
    symphony.functions.register("work", lambda context: 1)
    builder = symphony.build_workflow().create("five steps")
    for number in range(5):
        builder.add_processing_step(f"step {number}", "", "work")
    workflow_id = await symphony.workflows.save_workflow(builder.build())
    names = await run(
        block("Execute a workflow with automatic checkpointing"), {"symphony": symphony, "workflow_id": workflow_id}, tmp_path
    )
    result = names["workflow_result"]
    assert result.status == "completed"
    stages = [entry["name"].removeprefix(f"workflow_{result.id}_") for entry in reversed(await symphony.list_checkpoints())]
    assert stages == ["start", "step_3", "complete"]


async def test_a_custom_directory(tmp_path: Path) -> None:
    """setup takes it."""
    symphony = Symphony(persistence_enabled=True)
    await run(block("Custom state directory"), {"symphony": symphony}, tmp_path)
    assert symphony.state_dir == tmp_path / "custom/state/directory"
    await symphony.close()


async def test_without_automatic_checkpoints(symphony: Symphony, tmp_path: Path) -> None:
    """The engine from the registry runs the workflow, and makes no checkpoint."""
    symphony.functions.register("work", lambda context: 1)
    definition = symphony.build_workflow().create("w").add_processing_step("a", "", "work").build()
    await run(block("auto_checkpoint=False"), {"symphony": symphony, "workflow_def": definition}, tmp_path)
    assert [run.status for run in await symphony.workflows.list_runs()] == ["completed"]
    assert await symphony.list_checkpoints() == []


async def test_the_agent_restorer_restores_an_agent_completely(reopen: Opener, tmp_path: Path) -> None:
    """Config, history and memory, which it leaves to be connected; nothing is appended by what it does through the facades."""
    symphony = await reopen()
    memory = await symphony.agents.create_memory("working")
    memory.store("customer", "Ada")
    agent = await symphony.agents.create_agent(
        {"name": "Planner", "role": "plans", "model": "echo", "capabilities": ["plan"], "team": "blue"}, memory=memory
    )
    task = await symphony.tasks.create_task(name="t", description="d", input_data={"query": "plan"}, agent_id=agent.id)
    await symphony.tasks.execute_task(task)
    await symphony.flush()
    expected = (await symphony.at(symphony.log.head)).get(agent)
    assert expected["interaction_history"]
    symphony = await reopen()
    names = await run(block("class AgentRestorer"), {}, tmp_path)
    symphony.restore_manager.register_restorer(names["AgentRestorer"]())
    head = symphony.log.head
    report = await symphony.resume()
    assert report.complete, report.as_dict()
    assert symphony.log.head == head
    restored = symphony.entities.get(f"Agent:{agent.id}")
    assert restored.id == agent.id
    assert (restored.name, restored.config["team"]) == ("Planner", "blue")
    assert restored.memory is symphony.entities.get(f"Memory:{memory.id}")
    restored.config["role"] = "changed"
    await symphony.flush()
    after = (await symphony.at(symphony.log.head)).get(restored)
    assert after == {**expected, "config": {**expected["config"], "role": "changed"}}


class CustomEntity:
    def __init__(self, **data: Any) -> None:
        self.__dict__.update(data)


async def test_the_custom_restorer_is_registered_for_the_process(reopen: Opener, tmp_path: Path) -> None:
    """What it returns is the entity, and references to it resolve."""
    symphony = await reopen()
    custom = symphony.entities.add(CustomEntity(id="c", size=1), "CustomEntity")
    holder = symphony.entities.add(CustomEntity(id="h", held=custom), "CustomEntity")
    assert holder.held is custom
    symphony = await reopen()
    try:
        await run(block("class CustomEntityRestorer"), {"CustomEntity": CustomEntity}, tmp_path)
        report = await symphony.resume()
        assert report.complete, report.as_dict()
        restored = symphony.entities.get("CustomEntity:h")
        assert isinstance(restored, CustomEntity)
        assert restored.held is symphony.entities.get("CustomEntity", "c")
        assert restored.held.size == 1
    finally:
        restore_manager.unregister_restorer("CustomEntity")


def test_the_copy_is_the_seed() -> None:
    """The document speaks of the package by its original name, and nothing in it was changed for the code's sake."""
    assert "from symphony import Symphony" in DOCUMENT.read_text()
    assert symphony_es.Symphony is Symphony
