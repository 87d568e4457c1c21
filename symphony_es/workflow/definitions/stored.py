"""Saved definitions: the entity type `WorkflowDefinition`.

A definition is immutable; what is stored under its id is not, since it can be saved anew. So the entity is a record of its
own, and every reader is given a definition made from it. Runs are not affected: they name the definition they started with by its content.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from symphony_es.core.objects.entity import entity
from symphony_es.events.values import plain_equal
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.runs.thawing import thaw

__all__ = ["StoredDefinition"]

_FIELDS = (
    *("name", "description", "steps", "context", "metadata", "retry", "timeout_s", "deadline_s"),
    *("cleanup", "cleanup_on", "output", "code"),
)


@entity(type="WorkflowDefinition")
class StoredDefinition:
    """What is saved under a definition's id; the fields are those of `WorkflowDefinition.to_dict`.

    Attributes:
        id: the definition's.
        name: what people call it.
        description: for readers.
        steps: the steps as plain dicts, in order.
        context: what a run's context holds at its start.
        metadata: the application's own.
        retry, timeout_s, deadline_s, output, code: as there; None where the definition says nothing.
        cleanup: the clean-up steps as plain dicts.
        cleanup_on: when they run beside a cancellation.
    """

    id: str = ""
    name: str = ""
    description: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    retry: dict[str, Any] | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    cleanup: list[dict[str, Any]] = field(default_factory=list)
    cleanup_on: list[str] = field(default_factory=list)
    output: Any = None
    code: str | None = None

    @classmethod
    def of(cls, definition: WorkflowDefinition) -> StoredDefinition:
        """Return a new record of a definition, not added to a Symphony yet."""
        return cls(**definition.to_dict())

    @property
    def definition(self) -> WorkflowDefinition:
        """The definition as it is saved now."""
        return WorkflowDefinition.from_dict({"id": self.id, **self._content()})

    def replace_by(self, definition: WorkflowDefinition) -> None:
        """Save another definition under the same id; fields that are equal are not touched."""
        held, wanted = self._content(), {"retry": None, "cleanup": [], "cleanup_on": [], **definition.to_dict()}
        for name in _FIELDS:
            if not plain_equal(held[name], wanted.get(name)):
                setattr(self, name, wanted.get(name))

    def _content(self) -> dict[str, Any]:
        return {name: thaw(getattr(self, name)) for name in _FIELDS}
