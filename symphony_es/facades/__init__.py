"""What an application calls: agents, tasks, workflows, entities, and the builders."""

from symphony_es.facades.agents import Agents
from symphony_es.facades.builders import AgentBuilder, TaskBuilder
from symphony_es.facades.entities import Entities
from symphony_es.facades.tasks import Tasks
from symphony_es.facades.workflows import Workflows

__all__ = ["AgentBuilder", "Agents", "Entities", "TaskBuilder", "Tasks", "Workflows"]
