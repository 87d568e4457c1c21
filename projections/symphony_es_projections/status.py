"""What a runner tells of its projections."""

from __future__ import annotations

from typing import Literal, TypeAlias

from symphony_es.late_dataclasses import dataclass

__all__ = ["ParkedEvent", "ProjectionState", "ProjectionStatus", "Stage"]

ProjectionState: TypeAlias = Literal["idle", "following", "catching up", "rebuilding", "failed"]
Stage: TypeAlias = Literal["apply", "after_commit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedEvent:
    """An event that a projection could not take in, and has passed over.

    Attributes:
        position: its place in the log.
        event_name: what happened. entity_key: to which entity.
        error_type: name of the error's class. message: its message, shortened to 2,000 characters.
        attempts: how often it was tried.
        stage: what failed: `apply` (its data is missing), or `after_commit` (its data is there, its side effects are not).
    """

    position: int
    event_name: str
    entity_key: str
    error_type: str
    message: str
    attempts: int
    stage: Stage = "apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionStatus:
    """How far a projection is.

    Attributes:
        position: the last position it has taken in; during a first build, the build's.
        lag_events: how many positions of the log it is behind. lag_s: for how many seconds it has been behind, as
            far as anybody has looked; 0 when it is not.
        state: what it does: nothing, following the log, catching up with it, building, or nothing because it has failed.
        parked: how many events it has passed over.
        error: why it has failed; None when it has not.
    """

    name: str
    version: int
    position: int
    lag_events: int
    lag_s: float
    state: ProjectionState
    parked: int
    error: str | None = None
