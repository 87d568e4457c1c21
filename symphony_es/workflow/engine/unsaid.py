"""Failures that a process left unsaid: a step had failed for good, and the process died before what is around it, or the run, could say so.

Such a step has had all of its attempts. Whoever takes the run up goes on from the failure, as the dead process would have done, and does
not call the step again. What somebody asks for anew (a resume of a failed run, `retry_from`, another attempt at a composite) forgives it.
"""

from __future__ import annotations

from symphony_es.errors import StepFailedError
from symphony_es.workflow.engine.bodies import StepFailure
from symphony_es.workflow.engine.generations import prefixes
from symphony_es.workflow.runs.assigning import assign
from symphony_es.workflow.runs.cleanup import failed_for_good
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import WorkflowStatus

__all__ = ["failed_inside", "forgive_all", "left_unsaid", "unsaid"]


def left_unsaid(run: Workflow) -> frozenset[str]:
    """Return the addresses of the steps that have failed for good, of a run that has not ended."""
    return frozenset(address for address in run.failures if failed_for_good(run, address))


def unsaid(run: Workflow, address: str) -> StepFailure:
    """Return the failure of a step as it is on record; of a composite, that of the step inside of it that it has failed of."""
    failure = run.failures[address]
    same = [other for other, held in run.failures.items() if all(held[key] == failure[key] for key in ("type", "message"))]
    inner = max((other for other in same if f"{other}/".startswith(f"{address}/")), key=len)
    description = {"type": failure["type"], "message": failure["message"], "traceback": "", "step": inner}
    return StepFailure(description, StepFailedError(inner, failure["type"], failure["message"]))


def failed_inside(run: Workflow, address: str) -> list[str]:
    """Return the addresses inside of a composite that have failed: another attempt at it gives them all of theirs."""
    return [other for other, failure in run.failures.items() if failure["count"] and other.startswith(f"{address}/")]


def forgive_all(run: Workflow) -> None:
    """Give the failed steps that a run will meet again all of their attempts; called while it is recorded.

    A child run that failed beside the step which ended its parent is failed on record, though its step is not: that step is marked, so
    that nobody takes the child run's failure for one that was left unsaid.
    """
    again = [address for address in run.failures if not any(run.is_completed(above) for above in prefixes(address))]
    for address in again:
        if run.failures[address]["count"]:
            run.failures[address]["count"] = 0
    for address, child in run.children.items():
        has_failed = isinstance(child, Workflow) and child.status is WorkflowStatus.FAILED
        if has_failed and not run.is_completed(address) and address not in run.failures:
            assign(run, run.failure(address, child.error or {"type": "", "message": ""}, 0, None))
