"""Workflow steps: another definition as a run of its own, linked both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, register_step_kind
from symphony_es.workflow.runs.run import ON_PARENT_END
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["SubWorkflowStep"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class SubWorkflowStep(Step):
    """Runs a workflow as a child run; the output is its result. A run that is paused pauses its children.

    Attributes:
        definition: what to run, or its dict; or `workflow_id`.
        workflow_id: id of a saved definition, looked up when the child begins.
        context: values for the child's context; texts in it may be templates.
        on_parent_end: what becomes of a child run that has not ended when its parent completes, fails or is cancelled: `cancel` (its
            clean-up runs), `terminate` (it ends at once, and its clean-up is left out), or `abandon` (it goes on by itself).
    """

    kind: ClassVar[str] = "workflow"
    reentrant: ClassVar[bool] = True

    definition: WorkflowDefinition | Mapping[str, Any] | None = None
    workflow_id: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    on_parent_end: str = ON_PARENT_END[0]

    def inlined(self) -> dict[str, tuple[Step, ...]]:
        """Return the steps of the definition, at no part of the child run's addresses, and its clean-up steps."""
        given = self.definition
        return {"": given.plan, "cleanup": given.cleanup_plan} if isinstance(given, WorkflowDefinition) else {}

    def data(self) -> dict[str, Any]:
        """Return the definition or its id, and the context."""
        given = self.definition
        held = given.to_nested_dict() if isinstance(given, WorkflowDefinition) else given
        return {
            **({"definition": held} if held is not None else {}),
            **({"workflow_id": self.workflow_id} if self.workflow_id is not None else {}),
            **({"context": self.context} if self.context else {}),
            **({"on_parent_end": self.on_parent_end} if self.on_parent_end != ON_PARENT_END[0] else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `definition`, `workflow_id`, `context` and `on_parent_end`."""
        given, workflow_id = reader.value("definition"), reader.optional_text("workflow_id")
        if (given is None) == (workflow_id is None):
            raise reader.fault("definition", "a workflow step has `definition` or `workflow_id`, one of both")
        context = reader.template("context") or {}
        if not isinstance(context, dict) or not all(isinstance(key, str) for key in context):
            raise reader.fault("context", "must be a dict with str keys")
        if isinstance(given, WorkflowDefinition):
            given = given.to_nested_dict()
        if isinstance(given, Mapping):
            # An id of its own would make the same content another version each time it is read.
            given = WorkflowDefinition.from_dict({**given, "id": given.get("id") or given.get("name")}, reader.at("definition"))
        elif given is not None:
            raise reader.fault("definition", f"must be a definition or the dict of one, not {type(given).__name__}")
        chosen = reader.choice("on_parent_end", ON_PARENT_END)
        return cls(**common, definition=given, workflow_id=workflow_id, context=context, on_parent_end=chosen)

    def check(self, symphony: Host) -> None:
        """Look up what the child's steps need.

        Raises:
            NotRegisteredError: this process has it not.
        """
        if isinstance(self.definition, WorkflowDefinition):
            self.definition.check(symphony)

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return the definition's version or id, and the child's context."""
        version = self.definition.version if isinstance(self.definition, WorkflowDefinition) else self.workflow_id
        return {"definition": version, "context": execution.prepare(self.context)}

    async def perform(self, execution: StepExecution) -> Any:
        """Run the child run, or go on with it.

        Raises:
            EntityNotFoundError: there is no saved definition of that id.
            RunFailedError, RunCancelledError: the child run did not complete.
        """
        definition = self.definition
        if not isinstance(definition, WorkflowDefinition):
            definition = await execution.symphony.workflows.get_definition(self.workflow_id)
        child = await execution.run_workflow(definition, execution.render(self.context), on_parent_end=self.on_parent_end)
        return thaw(child.result)
