"""All entity states as of the last event fed: the fold, as a projection."""

from __future__ import annotations

from symphony_es.events.event import Event
from symphony_es.events.fold import EntityState, Fold
from symphony_es_projections.projection import Projection

__all__ = ["EntityStates"]


class EntityStates(Projection):
    """The state of every entity, by key."""

    name = "entity_states"

    def __init__(self) -> None:
        super().__init__()
        self._fold = Fold()

    def apply(self, event: Event) -> None:
        """Take one event in."""
        self._fold.apply_event(event)

    def get(self, key: str) -> EntityState | None:
        """Return one entity's state, deleted or not; None when it never existed."""
        return self._fold.states.get(key)

    def of_type(self, entity_type: str) -> list[EntityState]:
        """Return the states of all entities of a type that are not deleted."""
        prefix = f"{entity_type}:"
        return [state for key, state in self._fold.states.items() if key.startswith(prefix) and not state.deleted]
