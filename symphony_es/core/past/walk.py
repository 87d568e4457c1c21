"""Following one entity through its events: its state from one to the next, and what each of them changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony_es.events.changes import apply_changes
from symphony_es.events.comparison import ValueChange, trace_changes
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.values import copy_plain

if TYPE_CHECKING:
    from symphony_es.events.event import Event

__all__ = ["Walk"]


class Walk:
    """One entity's state from event to event, beside a fold that says whether each of them fits.

    Attributes:
        state: after the last event; the last good one of a damaged entity.
        damage: the mark that the entity has after the last event.
    """

    def __init__(self, start: EntityState | None) -> None:
        self._fold = Fold() if start is None else Fold({start.key: start.copy()}, start.position)
        self.state = copy_plain(start.data) if start is not None else None
        self.damage = start.damage if start is not None else None

    def standing(self, key: str) -> EntityState | None:
        """Return a copy of the entity's state after the last event, to begin another walk with."""
        state = self._fold.states.get(key)
        return state.copy() if state is not None else None

    def take(self, event: Event, *, tell: bool = False) -> list[ValueChange] | None:
        """Take an event; return what it changed, where that is to be told, and None of one that is not applied."""
        return self.apply(event, tell=tell) if self.fits(event) else None

    def fits(self, event: Event) -> bool:
        """Return whether the next event is applied to the state; `apply` does it."""
        self._fold.apply_event(event)
        self.damage = self._fold.states[event.entity_key].damage
        return self.damage is None

    def apply(self, event: Event, *, tell: bool = False) -> list[ValueChange]:
        """Apply an event that fits; return what it changed, where that is to be told."""
        if not tell:
            self.state = apply_changes(self.state, event.changes)
            return []
        self.state, told = trace_changes(self.state, event.changes)
        return told
