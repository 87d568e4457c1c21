"""One attempt at one step: what a step kind gets to work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from symphony_es.workflow.language.templates import render
from symphony_es.workflow.runs.context import RunContext, TemplateScope, thaw

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["StepExecution", "idempotency_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExecution:
    """Handed to `Step.perform`.

    Attributes:
        symphony: the Symphony that the run belongs to.
        run: the run; a step reads it, and writes through `context` only.
        address: the step's address in the run.
        attempt: number of this attempt, from 1.
        context: the context as this attempt sees it; what is written there is recorded when the step completes.
    """

    symphony: Host
    run: Workflow
    address: str
    attempt: int
    context: RunContext

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.run.id

    def render(self, template: Any) -> Any:
        """The template with its expressions replaced, as a copy of its own.

        Raises:
            TemplateError: it names what is not there.
        """
        return thaw(render(template, TemplateScope(self.run)))


def idempotency_key(run_id: str, address: str, generation: int) -> str:
    """The key of one step execution: a crash keeps it, a rewind raises the generation, a fork has another run."""
    return f"{run_id}:{address}:{generation}"
