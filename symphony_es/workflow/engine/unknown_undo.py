"""Stands for the undo of a step of which nothing in this process says how it is undone: a step that fails, so that the run says it."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.errors import CleanupUnfinishedError, ConfigurationError
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import Step
from symphony_es.workflow.engine.execution import idempotency_key

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.reading import DataReader
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["NOT_CALLED", "UnknownUndo"]

NOT_CALLED = "the code does not make this call any more as it was made then"


@dataclass(frozen=True, kw_only=True)
class UnknownUndo(Step):
    """The undo of an execution that nobody knows how to undo; never part of a definition.

    Attributes:
        address: of the step that is not undone. generation: of the execution. why: nobody knows how, in words.
    """

    kind: ClassVar[str] = "unknown undo"

    name: str = "unknown undo"
    retry: RetryPolicy | None = field(default_factory=lambda: RetryPolicy(max_attempts=1))
    address: str
    generation: int
    why: str

    def data(self) -> dict[str, Any]:
        """Refuse: there is nothing that could be stored."""
        raise ConfigurationError("an undo that nobody knows is no part of a definition")

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Refuse: nothing was stored."""
        raise ConfigurationError("an undo that nobody knows is no part of a definition")

    async def perform(self, execution: StepExecution) -> Any:
        """Fail, naming what is not undone.

        Raises:
            CleanupUnfinishedError: always.
        """
        run_id = execution.run_id
        raise CleanupUnfinishedError(
            run_id,
            f"{self.address} of generation {self.generation}, {idempotency_key(run_id, self.address, self.generation)}, is not undone: "
            f"{self.why}",
            f"what it did stays readable, as symphony.history('Workflow:{run_id}'), and is to be undone by hand",
        )
