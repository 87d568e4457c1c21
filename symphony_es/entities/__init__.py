"""What a Symphony is about: agents, tasks and memories, each an `@entity` whose restorer restores every field."""

from symphony_es.entities.agent import Agent
from symphony_es.entities.memory import Memory
from symphony_es.entities.task import Task, TaskPriority, TaskStatus

__all__ = ["Agent", "Memory", "Task", "TaskPriority", "TaskStatus"]
