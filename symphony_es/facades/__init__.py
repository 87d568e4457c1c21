"""What an application calls: agents, tasks, workflows, entities, and the builders."""

from symphony_es.facades.agents import AgentsFacade
from symphony_es.facades.builders import AgentBuilder, TaskBuilder
from symphony_es.facades.entities import EntitiesFacade
from symphony_es.facades.tasks import TasksFacade
from symphony_es.facades.workflows import WorkflowsFacade

__all__ = ["AgentBuilder", "AgentsFacade", "EntitiesFacade", "TaskBuilder", "TasksFacade", "WorkflowsFacade"]
