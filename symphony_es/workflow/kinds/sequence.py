"""Sequence steps: several steps in the place of one, for example as a branch of a parallel or as what a map does to each item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, StepLike, read_steps, register_step_kind, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["SequenceStep"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class SequenceStep(Step):
    """Runs steps one after the other; the output is that of the last one.

    Attributes:
        steps: in order; at least one. They execute at `<address>/<id>`.
    """

    kind: ClassVar[str] = "sequence"
    reentrant: ClassVar[bool] = True
    nested_keys: ClassVar[tuple[str, ...]] = ("steps",)

    steps: Sequence[StepLike]

    def children(self) -> dict[str, tuple[Step, ...]]:
        """Return the steps, at no part."""
        return {"": tuple(step for step in self.steps if isinstance(step, Step))}

    def data(self) -> dict[str, Any]:
        """Return the steps."""
        return {"steps": written(self.steps)}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `steps`."""
        return cls(**common, steps=read_steps(reader.sequence("steps"), reader.at("steps"), least=1))

    async def perform(self, execution: StepExecution) -> Any:
        """Run the steps."""
        return await execution.run_in_place(self.children()[""])
