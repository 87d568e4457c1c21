"""Conditional steps: one branch or the other, by a condition. The choice is on record, and is not made again after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, StepLike, read_steps, register_step_kind, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["ConditionalStep"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class ConditionalStep(Step):
    """Runs the steps of `then` or of `else`; the output is that of the last step that ran, or None.

    Attributes:
        condition: an expression; one that cannot be evaluated fails the step.
        then: run where the condition is true; they execute at `<address>/then/<id>`.
        otherwise: run where it is not, at `<address>/else/<id>`; `else` in the dict form. A conditional in it makes an else-if.
    """

    kind: ClassVar[str] = "conditional"
    reentrant: ClassVar[bool] = True
    nested_keys: ClassVar[tuple[str, ...]] = ("then", "else")

    condition: str
    then: Sequence[StepLike]
    otherwise: Sequence[StepLike] = ()

    def children(self) -> dict[str, tuple[Step, ...]]:
        """Return both branches."""
        branches = {"then": self.then, "else": self.otherwise}
        return {part: tuple(step for step in steps if isinstance(step, Step)) for part, steps in branches.items()}

    def data(self) -> dict[str, Any]:
        """Return the condition and the branches."""
        return {
            "condition": self.condition,
            "then": written(self.then),
            **({"else": written(self.otherwise)} if self.otherwise else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `condition`, `then` and `else`."""
        return cls(
            **common,
            condition=reader.expression("condition", required=True) or "",
            then=read_steps(reader.sequence("then"), reader.at("then"), least=1),
            otherwise=read_steps(reader.sequence("else"), reader.at("else")),
        )

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return the value of the condition."""
        return {"condition": execution.prepare_condition(self.condition)} if execution.progress is None else {}

    async def perform(self, execution: StepExecution) -> Any:
        """Choose, and run the branch.

        Raises:
            ExpressionError: the condition cannot be evaluated; no branch has been chosen.
        """
        chosen = execution.progress
        if chosen is None:
            chosen = {"branch": "then" if execution.evaluate(self.condition) else "else"}
            await execution.note("WorkflowBranchChosen", chosen)
        return await execution.run_in_place(self.children()[chosen["branch"]], chosen["branch"])
