"""Failures that a process left unsaid: a step had failed for good, and the process died before what is around it, or the run, could say so.

Such a step has had all of its attempts. Whoever takes the run up goes on from the failure, as the dead process would have done, and does
not call the step again. What somebody asks for anew (a resume of a failed run, `retry_from`, another attempt at a composite) forgives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony_es.errors import StepFailedError
from symphony_es.events.event import Event
from symphony_es.events.fold import REPAIR_EVENT, REWIND_EVENT
from symphony_es.events.identifiers import entity_key
from symphony_es.events.rows import decode_row
from symphony_es.workflow.engine.bodies import StepFailure
from symphony_es.workflow.engine.generations import prefixes
from symphony_es.workflow.engine.timeline import STARTS
from symphony_es.workflow.runs.assigning import assign
from symphony_es.workflow.runs.cleanup import failed_for_good
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["again_with_children", "failed_inside", "forgive_all", "has_failed_in", "left_unsaid", "unsaid"]


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
    """Give the failed steps that a run will meet again all of their attempts; called while it is recorded."""
    again = [address for address in run.failures if not any(run.is_completed(above) for above in prefixes(address))]
    for address in again:
        if run.failures[address]["count"]:
            run.failures[address]["count"] = 0
    again_with_children(run)


def again_with_children(run: Workflow) -> None:
    """Mark the steps whose child runs have failed and that have not said so: another attempt is due; called while the run is recorded.

    Such a child run failed beside the step that ended its parent. Without the mark, its failure would be taken for one of this attempt.
    """
    for address, child in run.children.items():
        has_failed = isinstance(child, Workflow) and child.status is WorkflowStatus.FAILED
        if has_failed and not run.is_completed(address) and address not in run.failures:
            assign(run, run.failure(address, child.error or {"type": "", "message": ""}, 0, child.ended_at))


async def has_failed_in(symphony: Host, execution: StepExecution, child: Workflow) -> bool:
    """Return whether a child run that has failed has done so in this attempt at its step: then the step has failed with it.

    Only an attempt that was left on the way can find it so. That one's start stands before the child run's last failure in the log.
    """
    if not execution.entered_again:
        return False
    log, parent = symphony.log, entity_key("Workflow", execution.run_id)
    await symphony.world.flush(execution.run)
    failed: list[int] = []
    async for rows in log.entity_pages(entity_key("Workflow", child.id)):
        for event in map(decode_row, rows):
            if event.name == "WorkflowFailed":
                failed.append(event.position)
            failed = _still_there(failed, event)
    begun: list[int] = []
    async for page in log.read(after=failed[-1] if failed else 0, names=(*STARTS, REWIND_EVENT, REPAIR_EVENT)):
        for event in page:
            if event.entity_key == parent:
                begun = _still_there(begun, event)
                if event.name in STARTS and event.metadata.step == execution.address:
                    begun.append(event.position)
    return not begun


def _still_there(positions: list[int], event: Event) -> list[int]:
    """Return which of some positions hold after an event: a rewind takes back what came after the moment that it goes to."""
    if event.name not in (REWIND_EVENT, REPAIR_EVENT) or not isinstance(event.data, dict) or "to" not in event.data:
        return positions
    return [position for position in positions if position <= event.data["to"]]
