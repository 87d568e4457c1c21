"""Whether a run can be tried again as things stand on record: asked by who is about to do it, and by who only wants to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.errors import ConfigurationError
from symphony_es.events.identifiers import DEFINITION_PREFIX
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Tagged
from symphony_es.workflow.engine.past import CLEANUP_STEP, not_begun
from symphony_es.workflow.engine.retrying import steps_asked_for
from symphony_es.workflow.runs.cleanup import in_cleanup, is_of_cleanup
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.past.time_travel import TimeTravel
    from symphony_es.events.fold import EntityState

__all__ = ["check_retry", "check_retry_on_record"]

_AS_THEY_ARE = ("attempts", "failures", "calls", "cleanup", "error", "on_parent_end")


def check_retry(run: Workflow) -> None:
    """Look whether a run can be tried again where it failed.

    Raises:
        ConfigurationError: no step of it has failed.
        IllegalTransitionError: its clean-up has run.
    """
    if run.status not in (WorkflowStatus.FAILED, WorkflowStatus.BLOCKED):
        raise ConfigurationError(f"run {run.id} is {run.status}, and no step of it has failed: name the step to begin at, or resume it")
    run.check("resume")


async def check_retry_on_record(past: TimeTravel, run_id: str, step: str | Sequence[str] | None) -> None:
    """Check a run that stands in a log which is only read; with `step`, whether it can be taken back to there.

    What the process that has the log open lacks, and whether it executes the run at this moment, is not on record.

    Raises:
        ConfigurationError: no step of it has failed, or it has not begun the step.
        IllegalTransitionError: its status does not allow it.
        EntityNotFoundError: there is no such run.
    """
    state = await past.state_of(f"Workflow:{run_id}")
    run = await _as_recorded(past, state, None)
    if step is None:
        check_retry(run)
        return
    steps = steps_asked_for(run, step)
    if is_of_cleanup(run, steps[0]):
        if run.status is not WorkflowStatus.CANCELLING:
            run.check("retry")
            run.check("clean_up")
        what, begun = CLEANUP_STEP, [address for address in run.attempts if in_cleanup(address)]
    else:
        run.check("retry")
        what, begun = "step", list(run.attempts)
    known = await _ids(past, state)
    for one in steps:
        if known.get(one, one) not in run.attempts:
            raise not_begun(run_id, one, begun, what)


async def _as_recorded(past: TimeTravel, state: EntityState, parent: Workflow | None) -> Workflow:
    """Return what is on record of a run's steps and of its end; of its child runs where these belong to its clean-up."""
    data: dict[str, Any] = state.data or {}
    status = data.get("status")
    run = Workflow(
        id=state.entity_id,
        status=WorkflowStatus[status.data] if isinstance(status, Tagged) else WorkflowStatus.PENDING,
        outputs=dict.fromkeys(data.get("outputs") or ()),
        parent=parent,
        **{name: data[name] for name in _AS_THEY_ARE if data.get(name) is not None},
    )
    if run.cleanup is not None:
        for address, child in (data.get("children") or {}).items():
            told = await past.state_of(child) if isinstance(child, EntityReference) else None
            if told is not None and (told.data or {}).get("parent") == EntityReference.parse(state.key):
                run.children[address] = await _as_recorded(past, told, run)
    return run


async def _ids(past: TimeTravel, state: EntityState) -> dict[str, str]:
    """Return the ids of the definition's first level by name; empty for code, whose steps are given by address."""
    definition = await past.state_of(f"{DEFINITION_PREFIX}{(state.data or {}).get('definition_hash')}")
    steps = (definition.data or {}).get("steps") or ()
    return {step["name"]: step["id"] for step in steps if step.get("id") and step.get("name")}
