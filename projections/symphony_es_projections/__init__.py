"""Read models fed by events: each can be dropped and rebuilt at any time."""

from symphony_es_projections.checkpoints import CheckpointEntry, CheckpointList
from symphony_es_projections.entity_states import EntityStates
from symphony_es_projections.projection import Projection
from symphony_es_projections.references import References
from symphony_es_projections.runs import RunEntry, Runs

__all__ = ["CheckpointEntry", "CheckpointList", "EntityStates", "Projection", "References", "RunEntry", "Runs"]
