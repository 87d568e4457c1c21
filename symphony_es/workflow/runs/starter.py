"""On whose behalf a run runs: who started it, why, what led to it. That stays the same across crashes and whoever goes on with the run."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import Attribution
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["STARTER", "keep_starter", "starter_of"]

STARTER = "starter"
"""Under which of `Workflow.options` it stands."""

_KEPT = ("actor", "reason", "cause", "correlation_id", "user")


def keep_starter(run: Workflow, caller: Attribution) -> None:
    """Put on record who starts a run, where anybody says who; called in the recording of its beginning, which is its first."""
    said: dict[str, Any] = {name: value for name in _KEPT if (value := getattr(caller, name))}
    if said:
        if caller.user:
            said["user"] = thaw(caller.user)
        run.options[STARTER] = said


def starter_of(run: Workflow) -> Attribution:
    """Return what the run's events and changes are booked on."""
    said = thaw(run.options.get(STARTER)) or {}
    user = said.get("user")
    return Attribution(
        actor=said.get("actor"),
        reason=said.get("reason"),
        run_id=run.id,
        cause=said.get("cause"),
        correlation_id=said.get("correlation_id"),
        user=MappingProxyType(user) if user else None,
    )
