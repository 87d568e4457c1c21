"""The shipped projections, under the name that applications import."""

from symphony_es_projections import CheckpointEntry, CheckpointList, EntityStates, Projection, References, RunEntry, Runs

__all__ = ["CheckpointEntry", "CheckpointList", "EntityStates", "Projection", "References", "RunEntry", "Runs"]
