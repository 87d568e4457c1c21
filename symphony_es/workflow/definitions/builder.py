"""Builds a definition step by step, as a chain of calls.

The builder is the mutable front of an immutable thing: nothing is checked twice, `build()` makes the definition and names the
path of every fault. `save()` and `execute()` need the Symphony that `symphony.build_workflow()` gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from symphony_es.core.objects.frozen import copied
from symphony_es.errors import ConfigurationError, DefinitionError
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.step_list import NestedSteps, StepList, as_dicts
from symphony_es.workflow.definitions.steps import Step, nested_keys_of

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["WorkflowBuilder"]


class WorkflowBuilder(StepList):
    """A definition in the making: the steps of a `StepList`, and what belongs to the definition as a whole.

    Every method but the last three returns the builder.

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
        super().__init__(symphony)
        self._name = ""
        self._id = ""
        self._description = ""
        self._metadata: dict[str, Any] = {}
        self._context: dict[str, Any] = {}
        self._options: dict[str, Any] = {}
        self._cleanup: list[dict[str, Any]] = []
        self._models: dict[str, str] = {}
        self._default_model: str | None = None

    def create(self, name: str, description: str = "", metadata: Mapping[str, Any] | None = None, *, definition_id: str = "") -> Self:
        """Return names the definition; `definition_id` is made when left empty."""
        self._name, self._description, self._id = name, description, definition_id
        self._metadata.update(copied(dict(metadata or {})))
        return self

    def with_context(self, context: Mapping[str, Any]) -> Self:
        """Add values that a run's context holds at its start; the ones given at execution win."""
        self._context.update(copied(dict(context)))
        return self

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Add metadata of the application's own."""
        self._metadata.update(copied(dict(metadata)))
        return self

    def with_retry(self, policy: RetryPolicy | Mapping[str, Any] | int | None = None, **fields: Any) -> Self:
        """Say how failed attempts are repeated, of steps that say nothing of their own.

        Args:
            policy: a policy, its dict, or a number of attempts.
            **fields: in its place, the fields of a `RetryPolicy`; those left out have their default.
        """
        if policy is not None and fields:
            raise DefinitionError("retry", "give a policy or the fields of one, not both")
        self._options["retry"] = fields if policy is None else copied(policy)
        return self

    def with_timeout(self, seconds: float) -> Self:
        """Say how long an attempt may take, of steps that say nothing of their own."""
        self._options["timeout_s"] = seconds
        return self

    def with_deadline(self, seconds: float) -> Self:
        """Say how long a run may take; then it fails by itself."""
        self._options["deadline_s"] = seconds
        return self

    def with_output(self, template: Any) -> Self:
        """Say what the result of a run is: a template, or a value whose texts may be templates."""
        self._options["output"] = copied(template)
        return self

    def add_cleanup(self, *steps: NestedSteps) -> Self:
        """Add steps that run when a run is cancelled."""
        self._cleanup.extend(copied(step) for given in steps for step in as_dicts(given))
        return self

    def cleanup_on(self, *reasons: str) -> Self:
        """Say when else than on a cancellation a run undoes its steps and runs its clean-up: `failure`, `deadline`, or both."""
        self._options["cleanup_on"] = reasons
        return self

    def default_model(self, model: str) -> Self:
        """Return names the model client of task steps that say no model and no agent; an agent type's own assignment wins."""
        self._default_model = model
        return self

    def model_assignments(self, assignments: Mapping[str, str]) -> Self:
        """Return names model clients by agent type, for task steps that say no model."""
        self._models.update(assignments)
        return self

    def build(self) -> WorkflowDefinition:
        """Return the definition.

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
            cleanup=[self._with_model(step) for step in self._cleanup],
            **self._options,
        )

    async def save(self) -> WorkflowDefinition:
        """Build the definition, save it, and return it; its id is durable then.

        Raises:
            DefinitionError: nothing has been saved.
        """
        definition = self.build()
        await self._host().workflows.save_workflow(definition)
        return definition

    async def execute(
        self, context: Mapping[str, Any] | None = None, auto_checkpoint: bool | AutoCheckpoint = True, **options: Any
    ) -> Workflow:
        """Build the definition, execute it, and return the run; see `WorkflowEngine.execute_workflow`."""
        run: Workflow = await self._host().workflows.execute_workflow(self.build(), context, auto_checkpoint, **options)
        return run

    def _with_model(self, given: Any) -> Any:
        """Return the step, and the steps inside of it, with the model clients that the builder names; what is no step stays as it is."""
        if not isinstance(given, (Step, Mapping)):
            return given
        step = given.to_dict() if isinstance(given, Step) else dict(given)
        for key in (*nested_keys_of(step.get("kind")), "undo"):
            inner = step.get(key)
            if isinstance(inner, (list, tuple)):
                step[key] = [self._with_model(one) for one in inner]
            elif inner is not None:
                step[key] = self._with_model(inner)
        if step.get("kind") != "task" or "model" in step or "agent_id" in step:
            return step
        model = self._models.get(step.get("agent_type", ""), self._default_model)
        return step if model is None else {**step, "model": model}

    def _host(self) -> Host:
        if self._symphony is None:
            raise ConfigurationError("this builder belongs to no Symphony: get one with symphony.build_workflow()")
        return self._symphony
