"""Agents, tasks and memories as objects, and performing a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony
from symphony_es.entities import Agent, Memory, Task, TaskPriority, TaskStatus
from symphony_es.entities.task import TRANSITIONS
from symphony_es.errors import ConfigurationError, IllegalTransitionError, NotRegisteredError, UnstorableValueError


def test_an_agent_reads_its_config() -> None:
    """Every property has its key in the config, and a default where the key is missing."""
    agent = Agent(
        config={"name": "Ada", "role": "planner", "agent_type": "p", "instruction_template": "You are {name}, {mood} {x}.", "age": 7}
    )
    assert (agent.name, agent.role, agent.agent_type, agent.description) == ("Ada", "planner", "p", "")
    assert (agent.model, agent.capabilities) == ("echo", {})
    assert agent.system_prompt(mood="calm") == "You are Ada, calm {x}."
    assert Agent(config={"model": None}).model == "echo"
    assert Agent().id != Agent().id


def test_the_older_name_of_the_interaction_history_reads_and_writes_it() -> None:
    """Restorers written for the original library set `_interaction_history`: that is the recorded field."""
    agent = Agent()
    assert hasattr(agent, "_interaction_history")
    agent._interaction_history = [{"prompt": "x"}]
    assert agent.interaction_history == agent._interaction_history == [{"prompt": "x"}]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (["Planning", 7], True),
        (("planning",), True),
        ({"expertise": ["planning"]}, True),
        ({"expertise": "planning"}, True),
        ({"planning": True}, True),
        ({"limitations": ["planning"]}, False),
        ({"planning": False}, False),
        ([], False),
        (None, False),
        ("planning and more", False),
    ],
)
def test_capabilities_are_words_or_lists_of_words(capabilities: Any, expected: bool) -> None:
    """Whatever shape an application gives them; limitations are no capabilities."""
    assert Agent(config={"capabilities": capabilities}).has_capability("planninG") is expected


def test_a_memory_stores_retrieves_searches_and_forgets() -> None:
    """Search looks into keys and values, and puts the best match first."""
    memory = Memory(kind="facts")
    memory.store("sky", "blue and wide")
    memory.store("sea", {"colour": "Blue", "depth": "deep"})
    memory.store("sun", 7)
    assert memory.retrieve("sun") == 7
    assert memory.retrieve("moon") is None
    assert memory.retrieve("moon", "?") == "?"
    assert [key for key, _ in memory.search("deep blue")] == ["sea", "sky"]
    assert [key for key, _ in memory.search("blue", limit=1)] == ["sea"]
    assert memory.search("") == []
    assert memory.forget("sun")
    assert not memory.forget("sun")
    with pytest.raises(UnstorableValueError):
        memory.store("bad", {2.5: "key"})


def test_the_table_of_task_statuses_is_the_rule() -> None:
    """Every pair of statuses is allowed if and only if the table says so, and an illegal one changes nothing."""
    for before in TaskStatus:
        for after in TaskStatus:
            task = Task(name="x", status=before)
            if after in TRANSITIONS[before]:
                task.move_to(after)
                assert task.status is after
            else:
                with pytest.raises(IllegalTransitionError, match=f"task {task.id} is {before} and cannot become {after}"):
                    task.move_to(after)
                assert (task.status, task.completed_at) == (before, None)


def test_a_status_brings_times_result_and_error_with_it() -> None:
    """Running sets the start, an end sets the end; a retry clears the error of the attempt before."""
    task = Task(name="x", description="do it")
    assert (task.prompt, task.result, task.agent_id) == ("do it", None, None)
    task.move_to("running")
    assert task.started_at is not None
    task.move_to("failed", error="broke")
    assert (task.error, task.completed_at is not None) == ("broke", True)
    task.move_to("running")
    assert (task.error, task.completed_at) == (None, None)
    task.move_to("completed", result=[1])
    assert (task.output_data, task.result) == ({"result": [1]}, [1])
    with pytest.raises(ValueError, match="sleeping"):
        task.move_to("sleeping")
    assert Task(name="only a name").prompt == "only a name"
    assert Task(input_data={"query": 7}, description="x").prompt == "7"
    assert Task(agent=EntityReference("Agent", "gone")).agent_id == "gone"
    assert Task(agent=Agent(id="a")).agent_id == "a"
    assert TaskPriority.HIGH == "high"


async def test_performing_a_task_is_on_record(symphony: Symphony) -> None:
    """Started, completed, and the agent's interaction in the same transaction; the later events name the first as cause."""
    agent = await symphony.agents.create_agent(name="Ada")
    task = await symphony.tasks.create_task("greet", "Say hello", agent=agent)
    assert await symphony.tasks.execute_task(task) is task
    assert (task.status, task.result, task.agent) == ("completed", "Say hello", agent)
    assert agent.interaction_history == [{"task_id": task.id, "model": "echo", "prompt": "Say hello", "response": "Say hello"}]
    created, started, completed = await symphony.log.read_entity(f"Task:{task.id}")
    interaction = (await symphony.log.read_entity(f"Agent:{agent.id}"))[-1]
    assert [event.name for event in (created, started, completed, interaction)] == [
        "TaskCreated",
        "TaskStarted",
        "TaskCompleted",
        "InteractionRecorded",
    ]
    assert completed.metadata.cause == interaction.metadata.cause == started.event_id
    assert completed.transaction_id == interaction.transaction_id
    with pytest.raises(IllegalTransitionError, match="completed"):
        await symphony.tasks.execute_task(task.id)


async def test_a_model_client_is_given_what_it_declares(symphony: Symphony) -> None:
    """A client takes the prompt, and of system, model, agent and task what its signature names; plain functions will do."""
    seen: dict[str, Any] = {}

    async def everything(prompt: str, **more: Any) -> str:
        seen.update(more)
        return "a"

    async def some(text: str, *, system: str, task: Task) -> dict[str, Any]:
        return {"system": system, "task": task.name, "text": text}

    def keyword_only(*, prompt: str = "", model: str = "") -> str:
        return model

    class Client:
        async def __call__(self, prompt: str) -> int:
            return len(prompt)

    symphony.models.register("everything", everything)
    symphony.models.register("some", some)
    symphony.models.register("client", Client())
    symphony.models.register("builtin", len)
    symphony.models.register("keyword_only", keyword_only)
    agent = await symphony.agents.create_agent(name="Ada", instruction_template="I am {name}", model="some")

    async def ask(model: str | None, performer: Agent | None = None) -> Task:
        task = await symphony.tasks.create_task("t", "Hello")
        return await symphony.tasks.execute_task(task, performer, model=model)

    assert (await ask(None, agent)).result == {"system": "I am Ada", "task": "t", "text": "Hello"}
    assert (await ask("everything", agent)).result == "a"
    assert (seen["system"], seen["model"], seen["agent"]) == ("I am Ada", "everything", agent)
    assert (await ask("everything")).result == "a"
    assert (seen["system"], seen["agent"]) == ("", None)
    assert (await ask("client")).result == 5
    assert (await ask("builtin")).result == 5
    assert (await ask("keyword_only")).error is not None


async def test_a_missing_client_names_agent_model_and_the_way_out(symphony: Symphony) -> None:
    """External resources are reconnected by the application: nothing is appended before the client is there."""
    agent = await symphony.agents.create_agent(name="Ada", model="gpt")
    task = await symphony.tasks.create_task("t", "Hello", agent_id=agent.id)
    before = symphony.log.head
    with pytest.raises(NotRegisteredError, match=r"'gpt'.*agent 'Ada'.*symphony.models.register"):
        await symphony.tasks.execute_task(task)
    with pytest.raises(NotRegisteredError, match="'other'"):
        await symphony.tasks.execute_task(await symphony.tasks.create_task("u"), model="other")
    assert (task.status, symphony.log.head) == ("pending", before + 1)


@pytest.mark.parametrize(("answer", "told"), [(ConnectionError("down \udcff"), "ConnectionError: down"), (object(), "cannot be stored")])
async def test_a_client_that_fails_leaves_a_failed_task(symphony: Symphony, answer: Any, told: str) -> None:
    """What it raised, or that its answer cannot be stored, is in the task's error; it can be performed again."""
    broken = True

    async def client(prompt: str) -> Any:
        if broken and isinstance(answer, Exception):
            raise answer
        return answer if broken else "fine"

    symphony.models.register("client", client)
    agent = await symphony.agents.create_agent(name="Ada", model="client")
    task = await symphony.tasks.create_task("t", "Hello", agent=agent)
    assert (await symphony.tasks.execute_task(task)).status == "failed"
    assert told in str(task.error)
    assert agent.interaction_history == []
    assert [event.name for event in await symphony.log.read_entity(f"Task:{task.id}")][1:] == ["TaskStarted", "TaskFailed"]
    broken = False
    assert (await symphony.tasks.execute_task(task)).result == "fine"
    assert task.error is None


async def test_a_task_is_performed_once_at_a_time(symphony: Symphony) -> None:
    """A second call while the first is under way is refused; a cancelled one leaves the task running, to be taken up again."""
    under_way = asyncio.Event()

    async def slow(prompt: str) -> str:
        under_way.set()
        await asyncio.Event().wait()
        return "never"

    symphony.models.register("slow", slow)
    task = await symphony.tasks.create_task("t", "Hello")
    performing = asyncio.create_task(symphony.tasks.execute_task(task, model="slow"))
    await under_way.wait()
    with pytest.raises(IllegalTransitionError, match="being performed"):
        await symphony.tasks.execute_task(task)
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    assert task.status == "running"
    assert (await symphony.tasks.execute_task(task)).result == "Hello"


async def test_everything_of_agents_tasks_and_memories_survives(symphony: Symphony, reopen: Any) -> None:
    """A new process has equal states, shared memories are one object again, and references are connected."""
    memory = await symphony.agents.create_memory("facts", {"a": 1})
    one = await symphony.agents.create_agent(name="One", tools=["search"], memory=memory, extra={"deep": [1]})
    two = await symphony.agents.create_agent({"name": "Two", "memory": memory.id})
    task = await symphony.tasks.create_task("t", "Hello", {"n": 1}, agent=one, priority="high", tags=["x"], metadata={"m": 1})
    await symphony.tasks.execute_task(task)
    kept = {name: getattr(task, name) for name in Task.__dataclass_fields__ if name != "agent"}  # type: ignore[attr-defined]

    again = await reopen(resume="latest")
    restored = await again.tasks.get_task(task.id)
    assert {name: getattr(restored, name) for name in kept} == kept
    assert type(restored.status) is TaskStatus
    agent = restored.agent
    assert isinstance(agent, Agent)
    assert (agent.config, agent.tools, agent.interaction_history) == (one.config, ["search"], one.interaction_history)
    assert agent.memory is (await again.agents.get_agent(two.id)).memory
    assert agent.memory.items == {"a": 1}
    assert again.last_resume.complete


@pytest.mark.parametrize("given", ["complete", "RUNING", "", None, 7])
async def test_a_status_or_priority_that_there_is_not(given: Any) -> None:
    """It is the library's own error, says which there are, and changes nothing."""
    async with Symphony() as symphony:
        task = await symphony.tasks.create_task("draft")
        head = symphony.log.head
        for call in (
            lambda: symphony.tasks.get_tasks_by_status(given),
            lambda: symphony.tasks.update_task_status(task, given),
            lambda: symphony.tasks.create_task("other", priority=given),
        ):
            with pytest.raises(ConfigurationError, match="there are"):
                await call()
        with pytest.raises(ConfigurationError, match="did you mean completed"):
            task.move_to("complete")
        assert symphony.log.head == head
