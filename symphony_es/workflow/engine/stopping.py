"""Puts on record that a run is to pause or to be cancelled, with what that means for its child runs; part of the requests to runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony_es.contexts import reset_variable
from symphony_es.core.world.transaction import current_scope
from symphony_es.workflow.engine.children import CANCELLED, CANCELLED_WHILE_PAUSED, PAUSED, is_paused_by_itself
from symphony_es.workflow.engine.within import refuse_inside
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.requests import RunRequests

__all__ = ["pause_run", "request_cancel"]


async def pause_run(engine: RunRequests, symphony: Host, run: Workflow, with_parent: str | None) -> list[Workflow]:
    """Pause a run and the child runs below it that run, in one transaction: a crash leaves none of them running below a paused one.

    It is no part of a transaction around the call, and durable when this returns; all of them stop at their next boundary between steps.

    Args:
        engine: the engine.
        symphony: the Symphony.
        run: the run.
        with_parent: what `Workflow.with_parent` says of it from now on.

    Returns:
        Those child runs.

    Raises:
        IllegalTransitionError: the run is not running. Nothing has been appended.
    """
    run.check("pause")
    world, now = symphony.world, engine.clock.now()
    refuse_inside(world, run, "pause")
    token = current_scope.set(None)
    try:
        await world.claim(run)
        below = await engine.children.claim_running(run)
        run.check("pause")
        with world.recording("WorkflowPaused", entity=run):
            for child in below:
                with world.recording("WorkflowPaused", entity=child, run_id=child.id):
                    child.move("pause", now)
                    child.with_parent = PAUSED
                    _note_pause(engine, child)
            run.move("pause", now)
            _note_pause(engine, run)
            if run.with_parent != with_parent:
                run.with_parent = with_parent
        for each in (run, *below):
            active = engine.active.get(each)
            if active is not None:
                active.drive.control.ask("pause")
        await world.flush(run)
    finally:
        reset_variable(token)
    return below


def _note_pause(engine: RunRequests, run: Workflow) -> None:
    active = engine.active.get(run)
    if active is not None:
        active.drive.note_pause()


async def request_cancel(engine: RunRequests, run: Workflow, *, cleanup: bool, with_parent: bool) -> None:
    """Put the request on record, unless the run is being cancelled in this way already."""
    ends = {"ends": WorkflowStatus.CANCELLED.value, **({} if cleanup else {"skipped": True})}

    def begin() -> None:
        mark = (CANCELLED_WHILE_PAUSED if is_paused_by_itself(run) else CANCELLED) if with_parent else None
        if run.with_parent != mark:
            run.with_parent = mark
        run.move("cancel", engine.clock.now())
        run.cleanup = ends

    def change() -> None:
        run.cleanup = {**thaw(run.cleanup), **ends}

    def check() -> None:
        if run.status is not WorkflowStatus.CANCELLING:  # it has ended by now
            run.check("cancel")

    if run.status is not WorkflowStatus.CANCELLING:
        run.check("cancel")
        await engine.record(run, "WorkflowCancelRequested", begin, lambda: run.check("cancel"), ask="cancel")
    elif not cleanup and run.cleanup is not None and not run.cleanup.get("skipped"):
        await engine.record(run, "WorkflowCleanupSkipped", change, check, ask="cancel")
    elif run.cleanup is not None and run.cleanup["ends"] != ends["ends"]:  # it cleans up because it has failed
        await engine.record(run, "WorkflowCancelRequested", change, check)
