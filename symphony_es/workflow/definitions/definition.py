"""Workflow definitions: what is to be done, as immutable data.

A run copies the definition it starts with, so a definition that is saved anew never changes a run. Its version is a hash of
its content: equal content, equal version, in every process. Making and reading definitions is pure; `stored.py` keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from symphony_es.core.state.tracking.entity import new_id
from symphony_es.errors import DefinitionError
from symphony_es.events.codec import encode_canonical
from symphony_es.events.values import copy_plain
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, read_steps

__all__ = ["WorkflowDefinition"]


@dataclass(frozen=True, kw_only=True)
class WorkflowDefinition:
    """An immutable definition; methods that change something return a new one with the same id.

    Two definitions are equal when their content is, whatever their ids.

    Attributes:
        id: made when left empty.
        name: what people call it.
        description: for readers.
        steps: in order; ids and names are unique among them. Dicts are accepted and read.
        context: what a run's context holds at its start, unless the caller gives another value; plain data.
        metadata: the application's own; plain data, no part of the version.

    Raises:
        DefinitionError: with the path of the fault.
    """

    name: str
    id: str = ""
    description: str = ""
    steps: Sequence[Step | Mapping[str, Any]] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {
            "name": self.name,
            "id": self.id,
            "description": self.description,
            "context": self.context,
            "metadata": self.metadata,
        }
        reader = DataReader({key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()})
        checked = {
            "name": reader.text("name"),
            "id": reader.text("id", default="") or new_id(),
            "description": reader.text("description", default=""),
            "context": reader.mapping("context"),
            "metadata": reader.mapping("metadata"),
            "steps": read_steps(DataReader({"steps": self.steps}).sequence("steps"), "steps"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @cached_property
    def version(self) -> str:
        """SHA-256 (hexadecimal) of the canonical encoding of name, description, steps and context."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("id", "metadata")}
        return hashlib.sha256(encode_canonical(content)).hexdigest()

    @cached_property
    def plan(self) -> tuple[Step, ...]:
        """The steps, typed: `steps` accepts dicts, what it holds afterwards are steps."""
        return tuple(step for step in self.steps if isinstance(step, Step))

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain data of its own; `from_dict` reads it back to an equal one with the same id."""
        written: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "steps": [step.to_dict() for step in self.plan],
            "context": dict(self.context),
            "metadata": dict(self.metadata),
        }
        return dict(copy_plain(written))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkflowDefinition:
        """Read what `to_dict` wrote, or what a person wrote: only `name` must be there.

        Raises:
            DefinitionError: with the path of the fault, for example `steps[2].template`.
        """
        reader = DataReader(data)
        made = cls(
            name=reader.text("name"),
            id=reader.text("id", default=""),
            description=reader.text("description", default=""),
            steps=reader.sequence("steps"),
            context=reader.mapping("context"),
            metadata=reader.mapping("metadata"),
        )
        reader.finish()
        return made

    def add_step(self, step: Step | Mapping[str, Any]) -> WorkflowDefinition:
        """A definition with one more step at its end.

        Raises:
            DefinitionError: the step is faulty, or its name or id is taken.
        """
        return replace(self, steps=[*self.steps, step])

    def get_steps(self) -> list[dict[str, Any]]:
        """The steps as plain dicts."""
        return [step.to_dict() for step in self.plan]

    def step(self, name_or_id: str) -> Step:
        """One step by its name or id.

        Raises:
            DefinitionError: there is none.
        """
        for step in self.plan:
            if name_or_id in (step.id, step.name):
                return step
        raise DefinitionError("steps", f"there is no step {name_or_id!r} (there are: {', '.join(step.name for step in self.plan)})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkflowDefinition) and self.version == other.version

    def __hash__(self) -> int:
        return hash(self.version)
