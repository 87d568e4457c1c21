"""How far a run has come, made of its state: nothing is kept for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from symphony_es.events.readable import readable
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.nesting import step_at
from symphony_es.workflow.kinds.loop import LoopStep
from symphony_es.workflow.kinds.map import MapStep
from symphony_es.workflow.kinds.parallel import ParallelStep
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import WorkflowStatus
from symphony_es.workflow.runs.under_way import innermost, steps_under_way

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.steps import Step

__all__ = ["PartProgress", "RunProgress", "progress_of"]

MAX_CURRENT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProgress:
    """How far a loop, map or parallel under way has come.

    Attributes:
        done: iterations, items or branches that are done with; of a map that collects failures, failed ones too.
        known: how many there are; None for a loop, which a condition may end.
        limit: of a loop, how many iterations it has at the most; else None.
    """

    done: int
    known: int | None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a run has come: a copy, as of the moment it was asked for.

    Attributes:
        status: where the run stands.
        done: steps of the definition's first level that have completed; of a code-first run, its completed steps.
        known: how many the first level has; None for a code-first run, whose function decides that.
        completed_steps: all that have completed, nested ones included.
        current: addresses of the innermost steps that have begun and not ended, 50 at the most.
        parts: by address, how far the loops, maps and parallels under way have come.
        queue_position: where a queued run stands, from 1; else None.
        notes: by address, what the steps under way have noted of themselves; kinds of your own note what they like.
    """

    status: WorkflowStatus
    done: int
    known: int | None
    completed_steps: int
    current: tuple[str, ...] = ()
    parts: Mapping[str, PartProgress] = field(default_factory=dict)
    queue_position: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fraction(self) -> float | None:
        """`done` of `known`, between 0 and 1; None where that is not known."""
        if self.known is None:
            return None
        return self.done / self.known if self.known else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take, by the names of the attributes, and `fraction`."""
        told: dict[str, Any] = readable(
            {
                "status": self.status,
                "done": self.done,
                "known": self.known,
                "fraction": self.fraction,
                "completed_steps": self.completed_steps,
                "current": self.current,
                "parts": {address: {"done": each.done, "known": each.known, "limit": each.limit} for address, each in self.parts.items()},
                "queue_position": self.queue_position,
                "notes": self.notes,
            }
        )
        return told


def progress_of(run: Workflow, queue_position: int | None) -> RunProgress:
    """Return how far a run has come; costs what has begun in it."""
    plan = run.definition.plan
    code = run.definition.code is not None
    under_way = steps_under_way(run)
    parts = {}
    for address in under_way:
        part = _part(run, step_at(plan, address), address)
        if part is not None:
            parts[address] = part
    return RunProgress(
        status=run.status,
        done=run.completed_steps if code else sum(run.is_completed(step.id) for step in plan),
        known=None if code else len(plan),
        completed_steps=run.completed_steps,
        current=tuple(innermost(under_way)[:MAX_CURRENT]),
        parts=parts,
        queue_position=queue_position,
        notes=thaw(run.progress),
    )


def _part(run: Workflow, step: Step | None, address: str) -> PartProgress | None:
    noted = run.progress.get(address)
    if isinstance(step, LoopStep):
        return PartProgress(done=noted["iteration"] if noted else 0, known=None, limit=step.max_iterations)
    if isinstance(step, MapStep):
        known = len(noted["items"]) if noted else None
        return PartProgress(done=sum(_is_settled(run, f"{address}/{index}") for index in range(known or 0)), known=known)
    if isinstance(step, ParallelStep):
        (branches,) = step.children().values()
        return PartProgress(done=sum(_is_settled(run, f"{address}/{branch.id}") for branch in branches), known=len(branches))
    return None


def _is_settled(run: Workflow, address: str) -> bool:
    if run.is_completed(address):
        return True
    return run.step_status(address) == "failed" and "retry_at" not in run.failures[address]
