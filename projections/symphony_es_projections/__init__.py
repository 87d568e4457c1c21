"""Read models fed by events: each can be dropped and rebuilt at any time."""

from typing import TYPE_CHECKING

from symphony_es.lazy import lazy_names

if TYPE_CHECKING:
    from symphony_es_projections.audit_trail import AuditFilter, AuditTrail
    from symphony_es_projections.checkpoints import CheckpointEntry, CheckpointList
    from symphony_es_projections.durable import ReadAccess, SQLiteProjection
    from symphony_es_projections.entity_states import EntityStates
    from symphony_es_projections.files import ProjectionReader, open_current
    from symphony_es_projections.projection import Projection
    from symphony_es_projections.references import References
    from symphony_es_projections.runner import ProjectionRunner
    from symphony_es_projections.runs import RunEntry, Runs
    from symphony_es_projections.status import ParkedEvent, ProjectionStatus

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

_HOMES = {
    "AuditFilter": "symphony_es_projections.audit_trail",
    "AuditTrail": "symphony_es_projections.audit_trail",
    "CheckpointEntry": "symphony_es_projections.checkpoints",
    "CheckpointList": "symphony_es_projections.checkpoints",
    "EntityStates": "symphony_es_projections.entity_states",
    "ParkedEvent": "symphony_es_projections.status",
    "Projection": "symphony_es_projections.projection",
    "ProjectionReader": "symphony_es_projections.files",
    "ProjectionRunner": "symphony_es_projections.runner",
    "ProjectionStatus": "symphony_es_projections.status",
    "ReadAccess": "symphony_es_projections.durable",
    "References": "symphony_es_projections.references",
    "RunEntry": "symphony_es_projections.runs",
    "Runs": "symphony_es_projections.runs",
    "SQLiteProjection": "symphony_es_projections.durable",
    "open_current": "symphony_es_projections.files",
}
if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
    __getattr__ = lazy_names(__name__, _HOMES, globals())
