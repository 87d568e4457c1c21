"""Which entity refers to which, and where: what the connection phase of restoring follows, and impact questions ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from symphony_es.events.event import Event
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.references import EntityReference, Path, find_references
from symphony_es_projections.projection import Projection

__all__ = ["References"]


class References(Projection):
    """Every reference of every entity, in both directions, as of the last event fed.

    It can begin at a position, with the states as they were there.
    """

    name = "references"

    def __init__(self, states: Mapping[str, EntityState] | None = None, position: int = 0) -> None:
        super().__init__()
        self.position = position
        self._fold = Fold(dict(states or {}), position)
        self._out: dict[str, list[tuple[Path, EntityReference]]] = {}
        self._in: dict[str, dict[str, int]] = {}
        for key in self._fold.states:
            self._refresh(key)

    def apply(self, event: Event) -> None:
        """Take one event in."""
        self._fold.apply_event(event)
        self._refresh(event.entity_key)

    def _refresh(self, key: str) -> None:
        for _, reference in self._out.pop(key, ()):
            holders = self._in[reference.key]
            holders[key] -= 1
            if not holders[key]:
                del holders[key]
        state = self._fold.states[key]
        found = [] if state.data is None else list(find_references(state.data))
        if found:
            self._out[key] = found
            for _, reference in found:
                holders = self._in.setdefault(reference.key, {})
                holders[key] = holders.get(key, 0) + 1

    def outgoing(self, key: str) -> list[tuple[Path, EntityReference]]:
        """Where an entity refers to others: (path, target)."""
        return list(self._out.get(key, ()))

    def incoming(self, key: str) -> list[str]:
        """Keys of the entities that refer to one."""
        return sorted(self._in.get(key, ()))

    def all(self) -> Iterator[tuple[str, Path, EntityReference]]:
        """Every reference: (key of the holder, path, target)."""
        for key, references in self._out.items():
            for path, reference in references:
                yield key, path, reference
