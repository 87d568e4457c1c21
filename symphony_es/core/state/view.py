"""A read-only look at all states as they were at one position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from symphony_es.core.state.history import is_system
from symphony_es.errors import EntityNotFoundError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.references import EntityReference
from symphony_es.events.values import copy_plain

__all__ = ["StateView"]


class StateView:
    """All entities as they were right after one event.

    Attributes:
        position: the position looked at.
    """

    def __init__(self, fold: Fold) -> None:
        self.position = fold.position
        self._states = {key: state for key, state in fold.states.items() if not state.deleted and not is_system(key)}

    def __contains__(self, entity: object) -> bool:
        return _key(entity) in self._states

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[EntityReference]:
        return iter([state.reference for _, state in sorted(self._states.items())])

    def state(self, entity: Any) -> EntityState:
        """One entity's state with its version.

        Raises:
            EntityNotFoundError: it did not exist then.
        """
        key = _key(entity)
        found = self._states.get(key)
        if found is None:
            raise EntityNotFoundError(key, f"it did not exist at position {self.position}")
        return found

    def get(self, entity: Any) -> dict[str, Any]:
        """A copy of one entity's data then: plain data, references as `EntityReference`.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`.

        Raises:
            EntityNotFoundError: it did not exist then.
        """
        copied: dict[str, Any] = copy_plain(self.state(entity).data)
        return copied

    def all(self, entity_type: str | None = None) -> list[EntityReference]:
        """Which entities existed then, of all types or of one, in the order of their keys."""
        return [reference for reference in self if entity_type in (None, reference.entity_type)]


def _key(entity: Any) -> str:
    if isinstance(entity, str):
        return EntityReference.parse(entity).key
    if isinstance(entity, EntityReference):
        return entity.key
    spec = getattr(type(entity), "_symphony_spec", None)
    if spec is None:
        raise EntityNotFoundError(repr(entity)[:80], "give an @entity object, an EntityReference or 'Type:id'")
    return EntityReference(spec.name, entity.id).key
