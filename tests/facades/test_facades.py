"""What an application calls: finding by object, reference, key and id; durable when it returns; nothing half done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.entities import Agent, Task
from symphony_es.errors import (
    ConfigurationError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTypeError,
    IllegalTransitionError,
    NotRegisteredError,
    UnstorableValueError,
)
from symphony_es.workflow import Workflow, WorkflowDefinition


@entity(type="test_facades.Box")
class Box:
    label: str = ""


async def test_create_agent_takes_a_config_or_fields_and_saves(symphony: Symphony) -> None:
    """One event has the complete state; defaults are filled in, extra keys are kept, the agent's own fields are told apart."""
    agent = await symphony.agents.create_agent({"name": "Ada", "role": None, "colour": "red"}, model="big", tools=["search"], id="ada")
    assert agent.config == {
        "name": "Ada",
        "role": "",
        "description": "",
        "instruction_template": "",
        "capabilities": {},
        "model": "big",
        "agent_type": "",
        "colour": "red",
    }
    assert (agent.id, agent.tools) == ("ada", ["search"])
    (created,) = await symphony.log.read_entity("Agent:ada")
    assert created.name == "AgentCreated"
    assert await symphony.agents.save_agent(agent) == "ada"
    with pytest.raises(EntityExistsError, match="Agent:ada"):
        await symphony.agents.create_agent(id="ada")
    with pytest.raises(ConfigurationError, match="names of tools"):
        await symphony.agents.create_agent(tools=[print])
    with pytest.raises(UnstorableValueError, match="client"):
        await symphony.agents.create_agent(client=object())
    with pytest.raises(EntityNotFoundError):
        await symphony.agents.create_agent(memory="nowhere")
    assert symphony.log.head == created.position


async def test_an_entity_is_found_by_object_reference_key_and_id(symphony: Symphony) -> None:
    """All four lead to the one live object; another type, or nothing, is told apart by the error."""
    agent = await symphony.agents.create_agent(name="Ada")
    for given in (agent, agent.id, f"Agent:{agent.id}", EntityReference("Agent", agent.id)):
        assert await symphony.agents.get_agent(given) is agent
    with pytest.raises(EntityNotFoundError, match="Agent:nobody"):
        await symphony.agents.get_agent("nobody")
    with pytest.raises(EntityTypeError, match="Task:x is no Agent"):
        await symphony.agents.get_agent(EntityReference("Task", "x"))
    with pytest.raises(EntityTypeError, match="not int"):
        await symphony.agents.get_agent(7)  # type: ignore[arg-type]


async def test_agents_are_found_changed_and_deleted(symphony: Symphony) -> None:
    """An update is one event with what differs; a deletion leaves the history and frees the id."""
    memory = await symphony.agents.create_memory()
    ada = await symphony.agents.create_agent(name="Ada", capabilities=["planning"])
    bob = await symphony.agents.create_agent(name="Bob", capabilities={"tools": ["search"]})
    assert await symphony.agents.get_all_agents() == [ada, bob]
    assert await symphony.agents.get_agents_by_capability("SEARCH") == [bob]
    updated = await symphony.agents.update_agent(ada.id, {"role": "boss", "name": "Ada"}, memory=memory.id, tools=["x"])
    assert updated is ada
    assert (ada.role, ada.memory, ada.tools) == ("boss", memory, ["x"])
    event = (await symphony.log.read_entity(f"Agent:{ada.id}"))[-1]
    assert event.name == "AgentUpdated"
    assert {tuple(change[1]) for change in event.changes} == {("config", "role"), ("memory",), ("tools",)}
    assert (await symphony.agents.update_agent(ada, memory=None)).memory is None
    with pytest.raises(ConfigurationError, match="id cannot be changed"):
        await symphony.agents.update_agent(ada, id="other")
    assert await symphony.agents.get_memory(f"Memory:{memory.id}") is memory

    assert await symphony.agents.delete_agent(bob)
    assert not await symphony.agents.delete_agent(bob.id)
    assert await symphony.agents.get_all_agents() == [ada]
    assert (await symphony.log.read_entity(f"Agent:{bob.id}"))[-1].name == "AgentDeleted"


async def test_tasks_are_created_found_and_moved(symphony: Symphony) -> None:
    """Fields arrive where they belong; lists by status, agent and run; a status outside the table is refused."""
    ada = await symphony.agents.create_agent(name="Ada")
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    task = await symphony.tasks.create_task("t", "d", {"q": 1}, ada.id, "low", deadline, "parent", "run", {"m": 1}, tags=["x"])
    other = await symphony.tasks.create_task("u")
    assert (task.agent, task.priority, task.deadline, task.parent_task_id, task.workflow_id) == (ada, "low", deadline, "parent", "run")
    assert await symphony.tasks.get_task(f"Task:{task.id}") is task
    assert await symphony.tasks.get_tasks_by_status("pending") == [task, other]
    assert await symphony.tasks.get_tasks_by_agent(ada) == [task]
    assert await symphony.tasks.get_tasks_by_workflow("run") == [task]
    assert (await symphony.tasks.update_task_status(task.id, "running")).status == "running"
    assert (await symphony.tasks.update_task_status(task, "completed", result=7)).result == 7
    await symphony.tasks.update_task_status(other, "failed", error="why")
    await symphony.tasks.update_task_status(other, "pending")
    assert [event.name for event in await symphony.log.read_entity(f"Task:{task.id}")] == ["TaskCreated", "TaskStarted", "TaskCompleted"]
    assert [event.name for event in await symphony.log.read_entity(f"Task:{other.id}")][1:] == ["TaskFailed", "TaskReset"]
    before = symphony.log.head
    with pytest.raises(IllegalTransitionError, match="completed and cannot become running"):
        await symphony.tasks.update_task_status(task, "running")
    with pytest.raises(EntityNotFoundError):
        await symphony.tasks.create_task("v", agent_id="nobody")
    with pytest.raises(ValueError, match="urgent"):
        await symphony.tasks.create_task("v", priority="urgent")
    await symphony.flush()
    assert symphony.log.head == before


async def test_entities_are_plain_calls(symphony: Symphony) -> None:
    """Added, found, listed, recorded and removed without an await; durable after a flush."""
    box = symphony.entities.add(Box(id="b", label="x"))
    for given in (("test_facades.Box", "b"), ("test_facades.Box:b",), (EntityReference("test_facades.Box", "b"),)):
        assert symphony.entities.get(*given) is box
        assert symphony.entities.find(*given) is box
    assert symphony.entities.find("test_facades.Box", "c") is None
    assert symphony.entities.all("test_facades.Box") == symphony.entities.all() == [box]
    symphony.entities.record(box, "BoxOpened", {"by": "ada"})
    with pytest.raises(ConfigurationError, match="an id is missing"):
        symphony.entities.get("Box")
    with pytest.raises(EntityNotFoundError):
        symphony.entities.get("Box", "nowhere")
    symphony.entities.remove("test_facades.Box:b")
    await symphony.flush()
    assert symphony.entities.all() == []
    names = [event.name for event in await symphony.log.read_entity("test_facades.Box:b")]
    assert names[:2] == ["test_facades.BoxCreated", "BoxOpened"] or names[1] == "BoxOpened"
    assert len(names) == 3


async def test_definitions_are_saved_and_saved_anew(symphony: Symphony, reopen: Any) -> None:
    """A definition is found by id, key and reference, also in a new process; saving it anew records what differs."""
    symphony.functions.register("one", lambda context: 1)
    step = {"kind": "function", "name": "one", "function": "one"}
    definition = await symphony.workflows.create_workflow("flow", "about", [step], {"m": 1}, {"topic": "rain"})
    key = f"WorkflowDefinition:{definition.id}"
    for given in (definition.id, key, EntityReference.parse(key), definition, definition.to_dict(), symphony.entities.get(key)):
        found = await symphony.workflows.get_workflow(given)
        assert (found, found.id) == (definition, definition.id)
    run = await symphony.workflows.execute_workflow_by_id(key)
    longer = definition.add_step({**step, "name": "two"})
    assert await symphony.workflows.save_workflow(longer.to_dict()) == definition.id
    assert await symphony.workflows.get_workflow(definition.id) == longer
    assert run.definition == definition
    saved = (await symphony.log.read_entity(key))[-1]
    assert saved.name == "WorkflowDefinitionSaved"
    assert {change[1][0] for change in saved.changes} == {"steps"}

    again = await reopen(resume="latest")
    again.functions.register("one", lambda context: 1)
    assert await again.workflows.get_all_workflows() == [longer]
    restored = await again.workflows.get_workflow(run.id)
    assert isinstance(restored, Workflow)
    assert await again.workflows.get_workflow(restored) is restored
    assert restored.definition == definition
    assert restored.definition_id == definition.id
    assert (await again.workflows.execute_workflow(longer.id)).outputs == {"one": 1, "two": 1}
    assert len(await again.workflows.get_all_runs()) == 2


async def test_results_are_plain_data_of_the_callers_own(symphony: Symphony) -> None:
    """Every step of the definition is listed, also those that have not begun; changing the result changes nothing."""
    symphony.functions.register("one", lambda context: {"n": [1]})
    symphony.functions.register("bad", lambda context: 1 / 0)
    names = ("one", "bad", "never")
    symphony.functions.register("never", lambda context: 1)
    definition = WorkflowDefinition(name="x", steps=[{"kind": "function", "name": name, "function": name} for name in names])
    run = await symphony.workflows.execute_workflow(definition)
    results = await symphony.workflows.get_workflow_results(run.id)
    assert results["status"] == "failed"
    assert results["error"]["type"] == "ZeroDivisionError"
    assert results["steps"] == {
        "one": {"name": "one", "status": "completed", "attempts": 1, "output": {"n": [1]}},
        "bad": {"name": "bad", "status": "failed", "attempts": 1, "output": None},
        "never": {"name": "never", "status": "pending", "attempts": 0, "output": None},
    }
    results["outputs"]["one"]["n"].append(2)
    assert run.outputs["one"] == {"n": [1]}


async def test_what_is_neither_a_definition_nor_a_run_is_not_found(symphony: Symphony) -> None:
    """The error names what was looked for; a run that exists takes no new context."""
    with pytest.raises(EntityNotFoundError, match="WorkflowDefinition:nothing"):
        await symphony.workflows.execute_workflow_by_id("nothing")
    with pytest.raises(EntityNotFoundError, match="Workflow:nothing"):
        await symphony.workflows.execute_workflow_by_id("Workflow:nothing")
    with pytest.raises(EntityNotFoundError, match="Workflow:nothing"):
        await symphony.workflows.get_run("nothing")
    symphony.functions.register("bad", lambda context: 1 / 0)
    run = await symphony.build_workflow().create("x").add_function("bad", "bad").execute()
    with pytest.raises(ConfigurationError, match="a context is for a new run"):
        await symphony.workflows.execute_workflow_by_id(run.id, {"x": 1})


async def test_a_task_step_is_performed_by_whom_it_names(symphony: Symphony) -> None:
    """By id, by type (the first by id), or by a model alone; the task is linked to the run and the result is the output."""

    async def shout(prompt: str) -> str:
        return prompt.upper()

    symphony.models.register("shout", shout)
    second = await symphony.agents.create_agent(id="b", name="B", agent_type="writer")
    first = await symphony.agents.create_agent(id="a", name="A", agent_type="writer", model="shout")
    run = await (
        symphony.build_workflow()
        .create("x")
        .add_task("plan", "", "Plan {{ topic }}", agent=second, output_key="plan")
        .add_task("write", "", "Write {{ step.plan.result }}", agent_type="writer", inputs={"size": "{{ size }}"})
        .add_task("edit", "", "Edit {{ plan }}", model="shout")
        .add_task("copy", "", "Copy {{ step.edit.result }}")
        .execute({"topic": "rain", "size": 3})
    )
    assert run.status == "completed", run.error
    assert run.outputs == {
        "plan": "Plan rain",
        "write": "WRITE PLAN RAIN",
        "edit": "EDIT PLAN RAIN",
        "copy": "Copy EDIT PLAN RAIN",
    }
    tasks = await symphony.tasks.get_tasks_by_workflow(run)
    assert [(task.name, task.agent) for task in tasks] == [("plan", second), ("write", first), ("edit", None), ("copy", None)]
    assert tasks[1].input_data == {"size": 3, "query": "Write Plan rain"}
    assert first.interaction_history[0]["prompt"] == "Write Plan rain"


async def test_a_task_step_without_a_performer_fails_and_says_what_to_do(symphony: Symphony) -> None:
    """No agent of the type and no model; an agent that is gone; a client that is missing: the run fails, resumable."""
    for step, error_type in (
        ({"agent_type": "nobody"}, NotRegisteredError),
        ({"agent_id": "gone"}, EntityNotFoundError),
        ({"model": "missing"}, NotRegisteredError),
    ):
        run = await symphony.workflows.execute_workflow({"name": "x", "steps": [{"kind": "task", "name": "t", "template": "t", **step}]})
        assert run.error is not None
        assert run.error["type"] == error_type.__name__
        assert run.status == "failed"


async def test_a_task_step_that_runs_again_takes_up_its_task(symphony: Symphony) -> None:
    """A failed task is performed again; a completed one with the same question is not; another question gets another task."""
    asked: list[str] = []

    async def client(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 1:
            raise ConnectionError
        return prompt

    symphony.models.register("client", client)
    run = await symphony.build_workflow().create("x").add_task("t", "", "Ask {{ what }}", model="client").execute({"what": "a"})
    assert run.status == "failed"
    run = await symphony.workflows.execute_workflow_by_id(run.id)
    assert (run.status, asked) == ("completed", ["Ask a", "Ask a"])

    async def perform(query: str) -> Any:
        who = {"agent_id": None, "agent_type": None, "model": "client"}
        what = {"name": "t", "description": "", "input_data": {"query": query}}
        return await symphony.tasks.perform_for_step(task_id=f"{run.id}/t", run_id=run.id, **what, **who, again=True)

    assert await perform("Ask a") == "Ask a"
    assert len(asked) == 2
    assert await perform("Ask b") == "Ask b"
    assert [task.id for task in await symphony.tasks.get_tasks_by_workflow(run)] == [f"{run.id}/t", f"{run.id}/t#2"]
    left = await symphony.tasks.get_task(f"{run.id}/t#2")
    assert isinstance(left, Task)
    assert await perform("Ask b") == "Ask b"
    assert len(asked) == 3


async def test_an_unrestored_agent_is_told_apart_from_a_missing_one(symphony: Symphony, reopen: Any) -> None:
    """Before a resume the error says that it waits in the log."""
    agent = await symphony.agents.create_agent(name="Ada")
    again = await reopen()
    with pytest.raises(EntityNotFoundError, match="waits in the log"):
        await again.agents.get_agent(agent.id)
    await again.resume()
    assert isinstance(await again.agents.get_agent(agent.id), Agent)


async def test_what_stands_under_an_id_is_told_apart(symphony: Symphony, reopen: Any) -> None:
    """An object of another class under the type, or a state nobody could restore, is not handed out as an agent."""

    class Impostor:
        pass

    memory = await symphony.agents.create_memory(id="facts")
    agent = Agent(id="ada")
    with pytest.raises(EntityNotFoundError):
        await symphony.agents.get_agent("ada")
    await symphony.agents.save_agent(agent)

    again = await reopen()

    class Picky(EntityRestorer):
        @property
        def entity_type(self) -> str:
            return "Agent"

        async def can_restore(self, data: dict[str, Any]) -> bool:
            return False

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            raise NotImplementedError

    class ImpostorRestorer(Picky):
        entity_type = "Memory"  # type: ignore[assignment]

        async def can_restore(self, data: dict[str, Any]) -> bool:
            return True

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            return Impostor()

        def capture(self, entity: Any) -> dict[str, Any]:
            return {}

    again.restore_manager.register_restorer(Picky())
    again.restore_manager.register_restorer(ImpostorRestorer())
    await again.resume()
    with pytest.raises(EntityNotFoundError, match=r"Agent:ada.*could not be restored.*Picky"):
        await again.agents.get_agent("ada")
    with pytest.raises(EntityTypeError, match="Memory:facts is a Impostor, not a Memory"):
        await again.agents.get_memory(memory.id)


async def test_a_restorer_may_create_through_the_facades(symphony: Symphony, reopen: Any) -> None:
    """What is created while restoring takes the id at hand, appends nothing, and its references are connected afterwards."""
    memory = await symphony.agents.create_memory("facts")
    agent = await symphony.agents.create_agent(name="Ada", memory=memory)
    task = await symphony.tasks.create_task("t", agent=agent)
    head = symphony.log.head
    again = await reopen()

    class TaskRestorer(EntityRestorer):
        entity_type = "Task"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            return await context.symphony.tasks.create_task(data["name"], agent_id=data["agent"].entity_id)

    class AgentRestorer(EntityRestorer):
        entity_type = "Agent"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            return await context.symphony.agents.create_agent(data["config"], memory=data["memory"])

    again.restore_manager.register_restorer(TaskRestorer())
    again.restore_manager.register_restorer(AgentRestorer())
    await again.resume()
    restored = await again.tasks.get_task(task.id)
    assert restored.agent is await again.agents.get_agent(agent.id)
    assert restored.agent.memory is await again.agents.get_memory(memory.id)
    assert again.log.head == head
