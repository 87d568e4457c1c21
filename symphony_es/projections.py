"""The shipped projections, and what runs them and one's own, under the name that applications import."""

from symphony_es_projections import (
    AuditFilter,
    AuditTrail,
    CheckpointEntry,
    CheckpointList,
    EntityStates,
    ParkedEvent,
    Projection,
    ProjectionReader,
    ProjectionRunner,
    ProjectionStatus,
    ReadAccess,
    References,
    RunEntry,
    Runs,
    SQLiteProjection,
    open_current,
)

__all__ = [
    "AuditFilter",
    "AuditTrail",
    "CheckpointEntry",
    "CheckpointList",
    "EntityStates",
    "ParkedEvent",
    "Projection",
    "ProjectionReader",
    "ProjectionRunner",
    "ProjectionStatus",
    "ReadAccess",
    "References",
    "RunEntry",
    "Runs",
    "SQLiteProjection",
    "open_current",
]
