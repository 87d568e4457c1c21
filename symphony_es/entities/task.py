"""Task: one piece of work, who does it, and what came of it.

The legal changes of status are one table; everything that changes a status goes through `move_to`, which reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NoReturn

from symphony_es.core.objects.entity import entity
from symphony_es.core.objects.restorers import restore_manager
from symphony_es.entities.agent import Agent
from symphony_es.errors import ConfigurationError, IllegalTransitionError, near_misses
from symphony_es.events.references import EntityReference
from symphony_es.shown import shown

__all__ = ["TRANSITIONS", "Task", "TaskPriority", "TaskStatus"]


class _Named(StrEnum):
    """One of some names; a value that is none of them is a `ConfigurationError`, which says which there are."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        near = near_misses(value.strip().lower(), list(cls)) if isinstance(value, str) else []
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigurationError(f"{shown(value)} is not a valid {cls.__name__}: {hint}there are {', '.join(cls)}")


class TaskStatus(_Named):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class TaskPriority(_Named):
    """How urgent a task is; the library does not order by it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


# Registered before the entity that names them: an application may well have a TaskStatus of its own.
restore_manager.types.register(TaskStatus, "symphony.TaskStatus")
restore_manager.types.register(TaskPriority, "symphony.TaskPriority")

TRANSITIONS: Mapping[TaskStatus, frozenset[TaskStatus]] = MappingProxyType(
    {
        TaskStatus.PENDING: frozenset({TaskStatus.RUNNING, TaskStatus.COMPLETED, TaskStatus.FAILED}),
        # Running again is what happens to a task that a crash left running.
        TaskStatus.RUNNING: frozenset({TaskStatus.RUNNING, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.PENDING}),
        TaskStatus.FAILED: frozenset({TaskStatus.RUNNING, TaskStatus.PENDING}),
        TaskStatus.COMPLETED: frozenset(),
    }
)
"""Which status may follow which."""


@entity(type="Task")
class Task:
    """One piece of work.

    Attributes:
        id: made when left empty.
        name: what people call it.
        description: what is to be done; the prompt when `input_data` has no `query`.
        status: see `TRANSITIONS`.
        created_at: UTC.
        started_at: when it last began to run, UTC; None before.
        completed_at: when it completed or failed, UTC; None before.
        input_data: plain data; `query` is the prompt.
        output_data: `{"result": …}` of a completed task, else None.
        error: what went wrong, as text; None unless it failed.
        tags: the application's own words.
        agent: who performs it, or None. Where the agent could not be restored, an EntityReference to it.
        priority: how urgent it is.
        deadline: UTC, or None; the library does not enforce it.
        parent_task_id: id of the task this is a part of, or None.
        workflow_id: id of the run it belongs to, or None.
        metadata: the application's own.
    """

    id: str = ""
    name: str = ""
    description: str = ""
    status: TaskStatus = TaskStatus.PENDING
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    completed_at: datetime | None = None
    input_data: dict[str, Any] = field(default_factory=dict)
    output_data: dict[str, Any] | None = None
    error: str | None = None
    tags: list[str] = field(default_factory=list)
    agent: Agent | EntityReference | None = None
    priority: TaskPriority = TaskPriority.MEDIUM
    deadline: datetime | None = None
    parent_task_id: str | None = None
    workflow_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def agent_id(self) -> str | None:
        """The agent's id, or None."""
        if isinstance(self.agent, EntityReference):
            return self.agent.entity_id
        return None if self.agent is None else self.agent.id

    @property
    def result(self) -> Any:
        """What a completed task came to, or None."""
        return None if self.output_data is None else self.output_data.get("result")

    @property
    def prompt(self) -> str:
        """What is asked: `input_data["query"]`, else the description, else the name."""
        query = self.input_data.get("query")
        return str(query) if query is not None else self.description or self.name

    def move_to(self, status: TaskStatus | str, *, result: Any = None, error: str | None = None) -> None:
        """Change the status and what goes with it: times, result, error.

        Raises:
            IllegalTransitionError: the table does not allow it; nothing has been changed.
            ConfigurationError: `status` is none of TaskStatus; nothing has been changed.
        """
        target = TaskStatus(status)
        if target not in TRANSITIONS[self.status]:
            raise IllegalTransitionError(self.id, self.status, target, kind="task")
        now = datetime.now(UTC)
        if target is TaskStatus.COMPLETED:
            self.output_data = {"result": result}
        if target is TaskStatus.RUNNING:
            self.started_at = now
        if self.error != error:
            self.error = error
        ended = now if target in (TaskStatus.COMPLETED, TaskStatus.FAILED) else None
        if self.completed_at != ended:
            self.completed_at = ended
        self.status = target
