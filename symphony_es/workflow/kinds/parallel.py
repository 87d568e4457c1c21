"""Parallel steps: branches beside each other, each with a key space of its own. All outputs are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, StepLike, read_steps, register_step_kind, written
from symphony_es.workflow.engine.execution import Branch
from symphony_es.workflow.runs.parts import PartOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["ON_ERROR", "ParallelStep"]

ON_ERROR = ("fail_fast", "collect")
"""What a failing branch does: it cancels the others and fails the step, or its error is among the outputs."""


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class ParallelStep(Step):
    """Runs its branches beside each other; the output has each branch's output by its id.

    What a branch writes to the context stays in its own key space: the branch reads it, and later steps as
    `step.<name>.contexts`. With `collect`, the output of a failed branch is `{"error": {"type", "message"}}`.

    Attributes:
        branches: one step each, at `<address>/<id>`; a sequence step is a branch of several.
        max_concurrency: how many run at once; None for all.
        on_error: `fail_fast` or `collect`.
    """

    kind: ClassVar[str] = "parallel"
    reentrant: ClassVar[bool] = True
    nested_keys: ClassVar[tuple[str, ...]] = ("branches",)
    together: ClassVar[bool] = True

    branches: Sequence[StepLike]
    max_concurrency: int | None = None
    on_error: str = "fail_fast"

    def children(self) -> dict[str, tuple[Step, ...]]:
        """Return the branches, at no part."""
        return {"": tuple(step for step in self.branches if isinstance(step, Step))}

    def data(self) -> dict[str, Any]:
        """Return the branches, and how they run."""
        return {
            "branches": written(self.branches),
            **({"max_concurrency": self.max_concurrency} if self.max_concurrency is not None else {}),
            **({"on_error": self.on_error} if self.on_error != ON_ERROR[0] else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `branches`, `max_concurrency` and `on_error`."""
        return cls(
            **common,
            branches=read_steps(reader.sequence("branches"), reader.at("branches"), least=1),
            max_concurrency=reader.whole("max_concurrency", 1),
            on_error=reader.choice("on_error", ON_ERROR),
        )

    async def perform(self, execution: StepExecution) -> Any:
        """Run the branches."""
        branches = [Branch(part=step.id, step=step) for step in self.children()[""]]
        await execution.runner.run_parts(execution, branches, self.max_concurrency, collect=self.on_error == "collect")
        return PartOutputs(tuple(branch.part for branch in branches))
