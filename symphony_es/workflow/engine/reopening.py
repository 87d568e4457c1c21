"""Takes up a clean-up that has ended: one step of it is done again, and what has not completed is tried again.

A clean-up step that has completed, and is not the one that is asked for, keeps its output: what it has undone is not undone twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from symphony_es.errors import IllegalTransitionError
from symphony_es.workflow.engine.generations import prefixes
from symphony_es.workflow.engine.past import CLEANUP_STEP, not_begun
from symphony_es.workflow.engine.timeline import RETRY_EVENT
from symphony_es.workflow.runs.assigning import assign
from symphony_es.workflow.runs.cleanup import in_cleanup
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["forget_cancelled_children", "retry_cleanup"]


async def retry_cleanup(symphony: Host, run: Workflow, steps: Sequence[str], now: datetime) -> None:
    """Drop steps of a run's clean-up and have the clean-up go on; the main line is left alone. Nobody else drives the run meanwhile.

    Raises:
        ConfigurationError: the run has not begun one of the steps. Nothing has been appended.
        IllegalTransitionError: no clean-up of the run is under way, nor has ended since its main line went on. Nothing has been appended.
    """
    world = symphony.world
    await world.claim(run)
    if run.status is not WorkflowStatus.CANCELLING:
        run.check("clean_up")
    for address in steps:
        if address not in run.attempts:
            raise not_begun(run.id, address, [other for other in run.attempts if in_cleanup(other)], CLEANUP_STEP)
    if run.status is not WorkflowStatus.CANCELLING and run.cleanup is None:
        # What is left of the clean-up of before a `retry_from` is done with the next one: alone it would undo all of the run.
        why = "it has gone on since its clean-up, and what that has left is tried again when the run is cleaned up once more"
        raise IllegalTransitionError(run.id, run.status, WorkflowStatus.CANCELLING, why=why)
    asked = set(steps)
    dropped = [other for other in run.attempts if other in asked or not asked.isdisjoint(prefixes(other))]
    several = {"steps": list(steps)} if len(steps) > 1 else {}
    with world.recording(RETRY_EVENT, {"step": steps[0], **several, "dropped": dropped}, entity=run):
        world.raise_generation(run)
        _drop(run, dropped)
        for around in dict.fromkeys(above for address in steps for above in prefixes(address)):
            run.recorded_outputs.pop(around, None)
            run.failures.pop(around, None)
        again = run.cleanup_reopened()
        if run.status is not WorkflowStatus.CANCELLING:
            run.move("clean_up", now)
        assign(run, again)
    await world.flush(run)


def forget_cancelled_children(symphony: Host, run: Workflow) -> None:
    """Take back the steps of a clean-up whose child run was cancelled with it: such a run does not go on, a new one begins.

    Called with the recording of what takes the clean-up up again.
    """
    lost = [
        address
        for address, child in run.children.items()
        if in_cleanup(address)
        and not any(run.is_completed(part) for part in (address, *prefixes(address)))  # one that is collected stays what it is
        and getattr(child, "status", None) is WorkflowStatus.CANCELLED
    ]
    if lost:
        with symphony.world.recording(RETRY_EVENT, {"step": lost[0], "dropped": lost}, entity=run):
            symphony.world.raise_generation(run)
            _drop(run, lost)


def _drop(run: Workflow, addresses: Iterable[str]) -> None:
    for address in addresses:
        for held in (run.attempts, run.recorded_outputs, run.failures, run.progress, run.children, run.scopes, run.appended):
            held.pop(address, None)
