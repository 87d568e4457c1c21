"""The statuses of a run, and the one table that says which request may follow which.

The table is the specification: `next_status` only reads it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from symphony_es.core.objects.restorers import restore_manager
from symphony_es.errors import IllegalTransitionError

__all__ = ["ENDED", "TAKEN_UP", "TRANSITIONS", "UNFINISHED", "Request", "WorkflowStatus", "next_status"]


class WorkflowStatus(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


setattr(WorkflowStatus, "_symphony_kind", None)  # noqa: B010  it is asked for often, and what an enum lacks takes long to find out

# Registered before the entity that names it: an application may well have a WorkflowStatus of its own.
restore_manager.types.register(WorkflowStatus, "symphony.WorkflowStatus")

Request = Literal["resume", "queue", "pause", "cancel", "retry", "signal", "complete", "fail", "block", "clean_up", "end_cancelled"]
"""What is asked of a run: by its users the first six, by the engine the last five."""

_S = WorkflowStatus

TRANSITIONS: Mapping[Request, Mapping[WorkflowStatus, WorkflowStatus]] = MappingProxyType(
    {
        # Running again is what happens to a run that a crash or an interruption left running; cancelling goes on cancelling.
        "resume": {
            _S.PENDING: _S.RUNNING,
            _S.QUEUED: _S.RUNNING,
            _S.RUNNING: _S.RUNNING,
            _S.PAUSED: _S.RUNNING,
            _S.FAILED: _S.RUNNING,
            _S.BLOCKED: _S.RUNNING,
            _S.CANCELLING: _S.CANCELLING,
        },
        # Where no place is free; one that is on record as running was interrupted, or has been taken back.
        "queue": {_S.PENDING: _S.QUEUED, _S.RUNNING: _S.QUEUED, _S.PAUSED: _S.QUEUED, _S.FAILED: _S.QUEUED, _S.BLOCKED: _S.QUEUED},
        "pause": {_S.RUNNING: _S.PAUSED, _S.QUEUED: _S.PAUSED},
        "cancel": {
            _S.PENDING: _S.CANCELLING,
            _S.QUEUED: _S.CANCELLING,
            _S.RUNNING: _S.CANCELLING,
            _S.PAUSED: _S.CANCELLING,
            _S.FAILED: _S.CANCELLING,
            _S.BLOCKED: _S.CANCELLING,
        },
        "retry": {
            _S.RUNNING: _S.RUNNING,
            _S.PAUSED: _S.RUNNING,
            _S.FAILED: _S.RUNNING,
            _S.COMPLETED: _S.RUNNING,
            _S.CANCELLED: _S.RUNNING,
            _S.BLOCKED: _S.RUNNING,
        },
        # A signal changes no status; a run that has ended for good takes none. Clean-up steps may wait for one.
        "signal": {status: status for status in (_S.PENDING, _S.QUEUED, _S.RUNNING, _S.PAUSED, _S.CANCELLING, _S.FAILED, _S.BLOCKED)},
        "complete": {_S.RUNNING: _S.COMPLETED},
        # A step that was under way when the run was paused may fail afterwards. A run that cleans up because it has failed ends so.
        "fail": {_S.RUNNING: _S.FAILED, _S.PAUSED: _S.FAILED, _S.CANCELLING: _S.FAILED},
        # What is on record of it contradicts the code, or cannot be made into values.
        "block": {_S.RUNNING: _S.BLOCKED, _S.PAUSED: _S.BLOCKED},
        # The clean-up begins without a cancellation, or goes on after it has failed.
        "clean_up": {
            _S.RUNNING: _S.CANCELLING,
            _S.PAUSED: _S.CANCELLING,
            _S.FAILED: _S.CANCELLING,
            _S.COMPLETED: _S.CANCELLING,
            _S.CANCELLED: _S.CANCELLING,
        },
        "end_cancelled": {_S.CANCELLING: _S.CANCELLED},
    }
)
"""Request -> status it may be made in -> status it leads to."""

_LEADS_TO: Mapping[Request, WorkflowStatus] = MappingProxyType(
    {
        "resume": _S.RUNNING,
        "queue": _S.QUEUED,
        "pause": _S.PAUSED,
        "cancel": _S.CANCELLED,
        "retry": _S.RUNNING,
        "complete": _S.COMPLETED,
        "fail": _S.FAILED,
        "block": _S.BLOCKED,
        "clean_up": _S.CANCELLING,
        "end_cancelled": _S.CANCELLED,
    }
)

_AGAIN = "retry_from(run, step) does that step and what came after it again"
_WHY: Mapping[Request, Mapping[WorkflowStatus, str]] = MappingProxyType(
    {
        "resume": {_S.COMPLETED: _AGAIN, _S.CANCELLED: _AGAIN},
        "pause": {_S.PENDING: "it has not begun", _S.FAILED: "it does not run, and resume(run) lets it go on"},
        "cancel": {_S.COMPLETED: "it has ended"},
        "retry": {
            _S.PENDING: "it has not begun: start(run) does that",
            _S.QUEUED: "it waits for its place, and goes on by itself",
            _S.CANCELLING: "wait for the end of its clean-up",
        },
        "signal": {_S.COMPLETED: "it has ended", _S.CANCELLED: "it has ended"},
    }
)
"""Why some requests are refused, or what does what they are meant for."""

UNFINISHED = frozenset({_S.QUEUED, _S.RUNNING, _S.CANCELLING})
"""What `recover` goes on with. A paused or failed run waits for someone who knows why, a pending one for its start."""

TAKEN_UP = UNFINISHED | {_S.BLOCKED}
"""What `recover` looks at: it tries a blocked run again where the code is another."""

ENDED = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})
"""Nothing happens to such a run by itself."""


def next_status(run_id: str, status: WorkflowStatus, request: Request) -> WorkflowStatus:
    """Return the status that a request leads to.

    Raises:
        IllegalTransitionError: the request may not be made now; both statuses are named.
    """
    following = TRANSITIONS[request].get(status)
    if following is None:
        raise IllegalTransitionError(run_id, status, _LEADS_TO.get(request, request), why=_WHY.get(request, {}).get(status, ""))
    return following
