"""Task steps: a task that an agent, or a model without an agent, performs.

The step creates a Task entity linked to its run, has it performed through the tasks facade, and gives the task's result as
its output. The task's id is made of the run's id and the step's address, so a step that runs again after a crash finds the
task it made, and a result that was already on record is not asked for twice.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, register_step_kind

if TYPE_CHECKING:
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["TaskStep"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class TaskStep(Step):
    """Has a task performed; the output is the task's result.

    Attributes:
        template: what is asked, a text with `{{ … }}`.
        agent_id: id of the agent that performs it, or None.
        agent_type: without `agent_id`, the first agent (by id) whose config has this `agent_type`.
        model: the model client that performs it, in place of the agent's own; also without any agent.
        inputs: further input data of the task; texts in it may be templates.
    """

    kind: ClassVar[str] = "task"

    template: str
    agent_id: str | None = None
    agent_type: str | None = None
    model: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return the template, who performs it, and the inputs."""
        chosen = {"agent_id": self.agent_id, "agent_type": self.agent_type, "model": self.model}
        return {
            "template": self.template,
            **{key: value for key, value in chosen.items() if value is not None},
            **({"inputs": self.inputs} if self.inputs else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `template`, `agent_id`, `agent_type`, `model` and `inputs`."""
        template = reader.template("template", required=True)
        if not isinstance(template, str):
            raise reader.fault("template", "must be a str")
        inputs = reader.template("inputs") or {}
        if not isinstance(inputs, dict):
            raise reader.fault("inputs", "must be a dict")
        return cls(
            **common,
            template=template,
            agent_id=reader.optional_text("agent_id"),
            agent_type=reader.optional_text("agent_type"),
            model=reader.optional_text("model"),
            inputs=inputs,
        )

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return what is asked, with the inputs, and whom."""
        inputs = {"inputs": execution.prepare(self.inputs)} if self.inputs else {}
        asked = [self.agent_id, self.agent_type, self.model]
        return {"query": execution.prepare(self.template), "asked": asked, **inputs}

    async def perform(self, execution: StepExecution) -> Any:
        """Create the task, or find the one an earlier attempt made, and have it performed.

        Raises:
            TemplateError: the template names what is not there; no task has been created.
            NotRegisteredError: the model client is missing.
        """
        query = execution.render(self.template)
        inputs = {**execution.render(self.inputs), "query": query}
        return await execution.symphony.tasks.perform_for_step(
            task_id=execution.unique_id,
            run_id=execution.run_id,
            name=self.name,
            description=self.description,
            input_data=inputs,
            agent_id=self.agent_id,
            agent_type=self.agent_type,
            model=self.model,
            again=execution.attempt > 1,
        )
