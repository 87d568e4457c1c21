"""The second phase of a run's life: its clean-up, which begins when the run is cancelled. Pure.

The addresses of clean-up steps begin with `cleanup/`, those of steps that undo others with `undo/`: what undoes an execution of a step that
was taken back stands at `undo/@<generation>/<address of the step>`. `Workflow.cleanup` says that the phase has begun: `{"ends": status}`,
with `"skipped": True` where the rest of it is left for later, with `"tried": ids` of child runs the own clean-ups of which went on with it,
and with `"again": addresses` of failed steps that the code has called to clean up, of which those are tried again that it has not dealt
with. Nothing but `retry_from` at a step of the main line leads out of the
phase: whatever else goes on with such a run goes on with its clean-up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from symphony_es.events.changes import SET, Change
from symphony_es.workflow.definitions.definition import CLEANUP, UNDO
from symphony_es.workflow.definitions.nesting import Paths
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = [
    "CLEANUP",
    "CLEAN_UP_CALL",
    "ON_CALLS",
    "TRIED",
    "UNDO",
    "called_in_cleanup",
    "cleaned_with",
    "failed_for_good",
    "has_cleanup",
    "has_own_undo",
    "has_undo",
    "in_cleanup",
    "is_clean_up_call",
    "is_left_out",
    "is_of_cleanup",
    "is_open",
    "is_root",
    "main_line",
    "own_children",
    "reopened",
    "undo_address",
    "undoes_taken_back",
    "undone",
    "unfinished",
]

_PREFIXES = (f"{CLEANUP}/", f"{UNDO}/")
_OF_TAKEN_BACK = re.compile(rf"{UNDO}/@(\d+)/(.+)", re.DOTALL)
_OVER = (WorkflowStatus.CANCELLED, WorkflowStatus.FAILED)


def in_cleanup(address: str) -> bool:
    """Return whether an address is one of the clean-up, and not of the main line."""
    return address.startswith(_PREFIXES)


def undoes_taken_back(address: str) -> tuple[str, int] | None:
    """Return what undo steps of executions that were taken back undo: a step's address, and the generation of its undo; else None."""
    found = _OF_TAKEN_BACK.fullmatch(address) if address.startswith(f"{UNDO}/@") else None
    return None if found is None else (found[2], int(found[1]))


def undo_address(address: str, generation: int) -> str:
    """Return the address of what undoes an execution of a step that was taken back."""
    return f"{UNDO}/@{generation}/{address}"


def failed_for_good(run: Workflow, address: str) -> bool:
    """Return whether a step has failed, and no attempt follows unless somebody asks for one."""
    failure = run.failures.get(address)
    return failure is not None and "retry_at" not in failure and failure["count"] > 0 and run.step_status(address) == "failed"


def unfinished(run: Workflow) -> list[str]:
    """Return the addresses of the clean-up steps that have begun and not completed."""
    found = [address for address in run.attempts if is_root(address) and address not in run.recorded_outputs]
    failed = _failed_in_code(run)
    return found if failed is None else [*found, failed]


def _failed_in_code(run: Workflow) -> str | None:
    """Return the address of the step that the clean-up of a run's code has failed of, or None."""
    step = run.error["step"] if run.error is not None else None
    if step is None or step not in run.failures or in_cleanup(step):
        return None
    calls = run.calls.get(step.rpartition("/")[0], {})
    return step if any(call[0] == step and is_clean_up_call(call) for call in calls.values()) else None


TRIED = "tried"
"""In `Workflow.cleanup`: child runs with clean-ups of their own that went on with the run's; what has failed in them stays failed."""

CLEAN_UP_CALL = "clean-up"
"""What a call on record ends with that the code of a run has made to clean up."""


ON_CALLS = "calls"
"""In `Workflow.undoable` of a code-first run: each of its calls says whether it has an undo. Runs of before that was stored have True."""


def has_own_undo(call: Any) -> bool:
    """Return whether a call on record has an undo; that of a run with `ON_CALLS` says so."""
    return any(part is True for part in call[2:4])


def is_clean_up_call(call: Any) -> bool:
    """Return whether a call on record was made after its strand had been cut off by a cancellation."""
    return len(call) > 2 and call[-1] == CLEAN_UP_CALL


def called_in_cleanup(run: Workflow) -> list[str]:
    """Return the addresses of the steps that the code of a run has called to clean up; they stand among those of its main line."""
    return [call[0] for calls in run.calls.values() for call in calls.values() if is_clean_up_call(call)]


def is_of_cleanup(run: Workflow, address: str) -> bool:
    """Return whether a step of a run is one of its clean-up, by its address or because the run's code has called it to clean up."""
    return in_cleanup(address) or (run.cleanup is not None and address in called_in_cleanup(run))


def is_root(address: str) -> bool:
    """Return whether an address is of a clean-up step itself, not of a step inside of one, whose failure may have been dealt with."""
    return address.startswith(f"{UNDO}/") or (address.startswith(f"{CLEANUP}/") and address.count("/") == 1)


def is_open(run: Workflow) -> bool:
    """Return whether a run has ended without all of its clean-up, or a child run of it has: then a `resume` goes on with it."""
    if run.cleanup is None or run.status not in _OVER:
        return False
    return bool(run.cleanup.get("skipped")) or bool(unfinished(run)) or any(is_open(child) for child in cleaned_with(run))


def is_left_out(run: Workflow) -> bool:
    """Return whether the clean-up of a run, or of a child run of it, was left out because somebody asked for that: nobody has tried it."""
    return bool((run.cleanup or {}).get("skipped")) or any(is_left_out(child) for child in cleaned_with(run))


def has_undo(run: Workflow) -> bool:
    """Return whether a run has begun a step that has an undo, taken back or not, in itself or in a child run that has completed."""
    own = bool(run.undoable)
    if not own and run.definition.code is None:
        undos = run.definition.undo_plan
        own = bool(undos) and not undos.keys().isdisjoint(Paths(run.definition.plan).of(main_line(run)))
    return own or any(child.status is WorkflowStatus.COMPLETED and has_undo(child) for child in own_children(run))


def has_cleanup(run: Workflow) -> bool:
    """Return whether a run that has begun, and is not cleaned up, leaves something to clean up, in itself or in a child run of it."""
    own = run.cleanup is None and run.started_at is not None and (bool(run.definition.cleanup_plan) or has_undo(run))
    return own or any(child.status is WorkflowStatus.FAILED and has_cleanup(child) for child in cleaned_with(run))


def main_line(run: Workflow) -> list[str]:
    """Return the addresses of the steps of the main line that have begun."""
    return [address for address in run.attempts if not in_cleanup(address)]


def undone(run: Workflow) -> list[str]:
    """Return the addresses of the steps of the main line that hold no longer: they, or the child runs that they began, have been undone."""
    ours = [address[len(UNDO) + 1 :] for address in run.attempts if address.startswith(f"{UNDO}/") and undoes_taken_back(address) is None]
    ended = {id(child) for child in own_children(run) if child.cleanup is not None}
    theirs = [address for address, child in run.children.items() if address in run.recorded_outputs and id(child) in ended]
    return list(dict.fromkeys([*ours, *theirs]))


def own_children(run: Workflow) -> list[Workflow]:
    """Return the child runs of the main line. Those of clean-up steps belong to these; those that a fork names, to the original."""
    kind = type(run)
    children = ((address, child) for address, child in run.children.items() if not in_cleanup(address))
    return [child for _, child in children if isinstance(child, kind) and child.parent is run]


def cleaned_with(run: Workflow) -> list[Workflow]:
    """Return the child runs whose clean-up is part of a run's: those that its end cancels, not those that it cuts off or lets go."""
    return [child for child in own_children(run) if child.on_parent_end in (None, "cancel")]


def reopened(run: Workflow) -> list[Change]:
    """Return what it changes that what failed in the clean-up is tried again, with all attempts that it is allowed."""
    again = [address for address in run.failures if in_cleanup(address)]
    changes: list[Change] = [(SET, ("failures", address, "count"), 0) for address in again]
    held: dict[str, Any] = run.cleanup or {}
    # Only the code knows which of them it has failed of, and which it has dealt with: its clean-up is replayed.
    called = [address for address in called_in_cleanup(run) if not in_cleanup(address) and failed_for_good(run, address)]
    if held and (called or held.keys() - {"ends"}):
        changes.append((SET, ("cleanup",), {"ends": held["ends"], **({"again": called} if called else {})}))
    return changes
