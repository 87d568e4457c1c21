"""Builds a definition step by step, as a chain of calls.

The builder is the mutable front of an immutable thing: nothing is checked twice, `build()` makes the definition and names the
path of every fault. `save()` and `execute()` need the Symphony that `symphony.build_workflow()` gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from symphony_es.errors import ConfigurationError
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.steps import Step
from symphony_es.workflow.kinds.function import name_function

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["WorkflowBuilder"]


class WorkflowBuilder:
    """A definition in the making; every method but the last three returns the builder.

    Example:
        >>> definition = (
        ...     WorkflowBuilder()
        ...     .create("report", "Plan, then write")
        ...     .add_task("plan", "Make a plan", "Plan a report on {{ topic }}", agent_type="planner")
        ...     .add_task("write", "Write it", "Write: {{ step.plan.result }}")
        ...     .default_model("echo")
        ...     .with_context({"topic": "rain"})
        ...     .build()
        ... )
        >>> [step.id for step in definition.plan]
        ['plan', 'write']
    """

    def __init__(self, symphony: Host | None = None) -> None:
        self._symphony = symphony
        self._name = ""
        self._id = ""
        self._description = ""
        self._metadata: dict[str, Any] = {}
        self._context: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._models: dict[str, str] = {}
        self._default_model: str | None = None

    def create(self, name: str, description: str = "", metadata: Mapping[str, Any] | None = None, *, definition_id: str = "") -> Self:
        """Names the definition; `definition_id` is made when left empty."""
        self._name, self._description, self._id = name, description, definition_id
        self._metadata.update(metadata or {})
        return self

    def add_task(
        self,
        name: str,
        description: str = "",
        task_template: str = "",
        agent_id: str | None = None,
        *,
        agent: Any = None,
        agent_type: str | None = None,
        model: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        output_key: str | None = None,
    ) -> Self:
        """Adds a task step.

        Args:
            name: unique in the definition.
            description: for readers; also what is asked when there is no template.
            task_template: what is asked, with `{{ … }}`.
            agent_id: who performs it.
            agent: the same, as an Agent or an EntityReference.
            agent_type: any agent whose config has this `agent_type`.
            model: model client to use in place of the agent's own.
            inputs: further input data of the task; texts in it may be templates.
            output_key: key of the run's context that the result is written to as well.
        """
        data = {
            "kind": "task",
            "name": name,
            "description": description,
            "template": task_template or description,
            "agent_id": agent_id if agent is None else _id_of(agent),
            "agent_type": agent_type,
            "model": model,
            "inputs": dict(inputs or {}),
            "output_key": output_key,
        }
        return self._add(data)

    def add_function(
        self,
        name: str,
        function: str | Callable[..., Any],
        description: str = "",
        *,
        inputs: Mapping[str, Any] | None = None,
        output_key: str | None = None,
    ) -> Self:
        """Adds a function step.

        Args:
            name: unique in the definition.
            function: registered name, `module:qualname`, or a function that has either.
            description: for readers.
            inputs: handed to the function as `context.inputs`; texts in it may be templates.
            output_key: key of the run's context that the output is written to as well.

        Raises:
            DefinitionError: a lambda, closure or method that no other process could find by name.
        """
        functions = self._symphony.functions if self._symphony is not None else None
        data = {
            "kind": "function",
            "name": name,
            "description": description,
            "function": name_function(function, functions, f"steps[{len(self._steps)}].function"),
            "inputs": dict(inputs or {}),
            "output_key": output_key,
        }
        return self._add(data)

    def add_processing_step(
        self,
        name: str,
        description: str = "",
        processing_function: str | Callable[..., Any] = "",
        context_data: Mapping[str, Any] | None = None,
    ) -> Self:
        """`add_function`, in the order of arguments that the original library has."""
        return self.add_function(name, processing_function, description, inputs=context_data)

    def add_step(self, step: Step | Mapping[str, Any]) -> Self:
        """Adds a step of any kind, as an object or as the dict of one."""
        return self._add(step.to_dict() if isinstance(step, Step) else dict(step))

    def with_context(self, context: Mapping[str, Any]) -> Self:
        """Adds values that a run's context holds at its start; the ones given at execution win."""
        self._context.update(context)
        return self

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Adds metadata of the application's own."""
        self._metadata.update(metadata)
        return self

    def default_model(self, model: str) -> Self:
        """Names the model client of task steps that say no model and no agent; an agent type's own assignment wins."""
        self._default_model = model
        return self

    def model_assignments(self, assignments: Mapping[str, str]) -> Self:
        """Names model clients by agent type, for task steps that say no model."""
        self._models.update(assignments)
        return self

    def build(self) -> WorkflowDefinition:
        """The definition.

        Raises:
            DefinitionError: with the path of the fault.
        """
        return WorkflowDefinition(
            id=self._id,
            name=self._name,
            description=self._description,
            steps=[self._with_model(step) for step in self._steps],
            context=self._context,
            metadata=self._metadata,
        )

    async def save(self) -> WorkflowDefinition:
        """Builds the definition, saves it, and returns it; its id is durable then.

        Raises:
            DefinitionError: nothing has been saved.
        """
        definition = self.build()
        await self._host().workflows.save_workflow(definition)
        return definition

    async def execute(self, context: Mapping[str, Any] | None = None, auto_checkpoint: bool | AutoCheckpoint = True) -> Workflow:
        """Builds the definition, executes it, and returns the run; see `WorkflowEngine.execute_workflow`."""
        run: Workflow = await self._host().workflows.execute_workflow(self.build(), context, auto_checkpoint)
        return run

    def _add(self, data: dict[str, Any]) -> Self:
        self._steps.append({key: value for key, value in data.items() if value not in (None, "", {})})
        return self

    def _with_model(self, step: dict[str, Any]) -> dict[str, Any]:
        if step.get("kind") != "task" or "model" in step or "agent_id" in step:
            return step
        model = self._models.get(step.get("agent_type", ""), self._default_model)
        return step if model is None else {**step, "model": model}

    def _host(self) -> Host:
        if self._symphony is None:
            raise ConfigurationError("this builder belongs to no Symphony: get one with symphony.build_workflow()")
        return self._symphony


def _id_of(agent: Any) -> str:
    return str(getattr(agent, "entity_id", None) or agent.id)
