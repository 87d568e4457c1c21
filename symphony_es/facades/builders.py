"""Fluent builders of agents and tasks: `symphony.build_agent()`, `symphony.build_task()`. Nothing is saved before `save()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from symphony_es.entities.agent import Agent
from symphony_es.entities.memory import Memory
from symphony_es.entities.task import Task, TaskPriority
from symphony_es.events.references import EntityReference
from symphony_es.facades.lookup import get_entity, key_of

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["AgentBuilder", "TaskBuilder"]


class AgentBuilder:
    """An agent in the making; every method but `build` and `save` returns the builder."""

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony
        self._config: dict[str, Any] = {}
        self._tools: list[str] = []
        self._memory: Any = None
        self._memory_kind: str | None = None

    def create(self, name: str, role: str = "", instruction_template: str = "") -> Self:
        """Says who it is, what it is there for, and its instructions."""
        self._config.update(name=name, role=role, instruction_template=instruction_template)
        return self

    def name(self, name: str) -> Self:
        """Names the agent."""
        return self.with_config(name=name)

    def description(self, description: str) -> Self:
        """Describes it for readers."""
        return self.with_config(description=description)

    def with_capability(self, capability: str, kind: str = "expertise") -> Self:
        """Adds one capability."""
        return self.with_capabilities([capability], kind)

    def with_capabilities(self, capabilities: Sequence[str] | Mapping[str, Sequence[str]], kind: str = "expertise") -> Self:
        """Adds capabilities: words of one kind, or lists of words by kind."""
        by_kind = capabilities if isinstance(capabilities, Mapping) else {kind: capabilities}
        held = self._config.setdefault("capabilities", {})
        for each, words in by_kind.items():
            held.setdefault(each, []).extend(words)
        return self

    def with_model(self, model: str) -> Self:
        """Names the model client that it performs tasks through."""
        return self.with_config(model=model)

    def with_agent_type(self, agent_type: str) -> Self:
        """Says what kind of agent it is, for task steps that ask for a kind."""
        return self.with_config(agent_type=agent_type)

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Adds metadata of the application's own, under `config["metadata"]`."""
        self._config.setdefault("metadata", {}).update(metadata)
        return self

    def with_config(self, **config: Any) -> Self:
        """Sets any key of the config."""
        self._config.update(config)
        return self

    def with_tools(self, tools: Sequence[str]) -> Self:
        """Adds names of tools."""
        self._tools.extend(tools)
        return self

    def with_memory(self, memory: Memory | EntityReference | str) -> Self:
        """Gives it a memory that exists, as object, reference or id."""
        self._memory = memory
        return self

    def with_memory_type(self, kind: str) -> Self:
        """Gives it a new memory of a kind; it is saved with the agent."""
        self._memory_kind = kind
        return self

    def build(self) -> Agent:
        """The agent, not saved yet: `symphony.agents.save_agent(agent)` does so.

        Raises:
            EntityNotFoundError: the memory is not there.
        """
        memory = self._memory
        if memory is None and self._memory_kind is not None:
            memory = Memory(kind=self._memory_kind)
        agent: Agent = self._symphony.agents.make_agent({**self._config, "tools": self._tools, "memory": memory})
        return agent

    async def save(self) -> Agent:
        """Builds the agent, saves it, and returns it."""
        agent = self.build()
        await self._symphony.agents.save_agent(agent)
        return agent


class TaskBuilder:
    """A task in the making; every method but `build`, `save` and `execute` returns the builder."""

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony
        self._fields: dict[str, Any] = {}
        self._input: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}

    def create(self, name: str, description: str = "") -> Self:
        """Says what it is called and what is to be done."""
        self._fields.update(name=name, description=description)
        return self

    def with_input(self, key: str, value: Any) -> Self:
        """Adds input data."""
        self._input[key] = value
        return self

    def with_query(self, query: str) -> Self:
        """Says what is asked; without it, the description is."""
        return self.with_input("query", query)

    def for_agent(self, agent: Agent | EntityReference | str) -> Self:
        """Says who performs it, as object, reference or id."""
        self._fields["agent"] = get_entity(self._symphony.world, Agent, "Agent", agent)
        return self

    def with_priority(self, priority: TaskPriority | str) -> Self:
        """Says how urgent it is."""
        self._fields["priority"] = TaskPriority(priority)
        return self

    def with_deadline(self, deadline: datetime) -> Self:
        """Says until when it should be done."""
        self._fields["deadline"] = deadline
        return self

    def with_tags(self, tags: Sequence[str]) -> Self:
        """Adds words of the application's own."""
        self._fields.setdefault("tags", []).extend(tags)
        return self

    def in_workflow(self, run: Any) -> Self:
        """Says which run it belongs to, as object, reference or id."""
        self._fields["workflow_id"] = key_of("Workflow", run).partition(":")[2]
        return self

    def as_subtask_of(self, task: Task | EntityReference | str) -> Self:
        """Says which task it is a part of, as object, reference or id."""
        self._fields["parent_task_id"] = key_of("Task", task).partition(":")[2]
        return self

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Adds metadata of the application's own."""
        self._metadata.update(metadata)
        return self

    def build(self) -> Task:
        """The task, not saved yet: `symphony.tasks.save_task(task)` does so."""
        return Task(**self._fields, input_data=dict(self._input), metadata=dict(self._metadata))

    async def save(self) -> Task:
        """Builds the task, saves it, and returns it."""
        task = self.build()
        await self._symphony.tasks.save_task(task)
        return task

    async def execute(self, *, model: str | None = None) -> Task:
        """Builds the task, saves it, has it performed, and returns it; see `Tasks.execute_task`."""
        task: Task = await self._symphony.tasks.execute_task(self.build(), model=model)
        return task
