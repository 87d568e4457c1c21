"""Reads the definition that a run went by once as far as this process can: a step that it cannot read stands there as it is stored.

For clean-ups alone: one step whose kind is gone does not keep the others from being undone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.core.objects.frozen import copied
from symphony_es.errors import ConfigurationError, DefinitionError
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.nesting import extent_of
from symphony_es.workflow.definitions.steps import Step, nested_keys_of

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.reading import DataReader
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["UnreadStep", "read_as_far_as_known"]


@dataclass(frozen=True, kw_only=True)
class UnreadStep(Step):
    """A step of which this process cannot read what it is; its undo may be one that it can.

    Attributes:
        given: what is stored of it. why: it cannot be read, in words.
    """

    kind: ClassVar[str] = "unread"

    given: Mapping[str, Any] = field(repr=False)
    why: str

    @property
    def undoable_inside(self) -> list[Mapping[str, Any]]:
        """What is stored of the steps inside of it that have an undo."""
        return [step for step in _undoable_in(self.given) if step is not self.given]

    def may_undo(self, address: str) -> bool:
        """Tell whether the step at an address inside of it has an undo, by its id. Where that is an item's number, any may be meant."""
        last = address.rpartition("/")[2]
        return any(last.isdecimal() or last == step.get("id") for step in self.undoable_inside)

    def data(self) -> dict[str, Any]:
        """Refuse: it has nothing beyond what is stored."""
        raise ConfigurationError("a step that cannot be read has no data of its own")

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Refuse: it is nothing that a definition says."""
        raise ConfigurationError("a step that cannot be read is part of no new definition")

    def to_dict(self) -> dict[str, Any]:
        """Return the step as it is stored."""
        written: dict[str, Any] = copied(self.given)
        return written

    async def perform(self, execution: StepExecution) -> Any:
        """Refuse: no run has such a step in its own definition."""
        raise ConfigurationError("a step that cannot be read does not run")


def read_as_far_as_known(stored: Mapping[str, Any]) -> WorkflowDefinition:
    """Read a definition, with an `UnreadStep` for each step that cannot be read.

    Raises:
        DefinitionError: what is stored is no definition at all.
    """
    return WorkflowDefinition.from_dict({**stored, **{key: list(map(_read, stored.get(key) or ())) for key in ("steps", "cleanup")}})


def _read(stored: Any) -> Any:
    if not isinstance(stored, Mapping):
        return stored
    given = dict(stored)
    for key in nested_keys_of(given.get("kind")):
        held = given.get(key)
        given[key] = list(map(_read, held)) if isinstance(held, (list, tuple)) else _read(held)
    if isinstance(given.get("undo"), Mapping):
        given["undo"] = _read(given["undo"])
    try:
        return Step.from_dict(given)
    except DefinitionError as error:
        undo = given.get("undo")
        step = UnreadStep(
            name=str(given.get("name")),
            id=str(given.get("id", "")),
            atomic=given.get("atomic") is True,
            undo=undo if isinstance(undo, Step) else None,
            given=stored,
            why=error.why,
        )
        object.__setattr__(step, "_extent", extent_of(step))  # it counts as checked
        return step


def _undoable_in(stored: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every dict inside of what is stored that says how it is undone."""
    if isinstance(stored, Mapping):
        if stored.get("undo") is not None:
            yield stored
        for held in stored.values():
            yield from _undoable_in(held)
    elif isinstance(stored, (list, tuple)):
        for held in stored:
            yield from _undoable_in(held)
