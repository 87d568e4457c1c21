"""A read-only look at all states as they were at one position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.history import live_states
from symphony_es.errors import EntityNotFoundError, NotReadyError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.references import EntityReference, Path
from symphony_es.events.values import copy_plain
from symphony_es_projections.references import References

if TYPE_CHECKING:
    from symphony_es.core.state.report import ResumeReport
    from symphony_es.core.state.world import World

__all__ = ["PastObjects", "StateView", "key_of"]


class StateView:
    """All entities as they were right after one event.

    Attributes:
        position: the position looked at.
    """

    def __init__(self, fold: Fold, position: int, restore: Callable[[Fold], Awaitable[PastObjects]] | None = None) -> None:
        self.position = position
        self._fold = fold
        self._restore = restore
        self._states = live_states(fold)

    def __contains__(self, entity: object) -> bool:
        return key_of(entity) in self._states

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[EntityReference]:
        return iter([state.reference for state in self._states.values()])

    def state(self, entity: Any) -> EntityState:
        """A copy of one entity's state, with its version and position.

        Raises:
            EntityNotFoundError: it did not exist then.
        """
        return self._state(entity).copy()

    def _state(self, entity: Any) -> EntityState:
        key = key_of(entity)
        found = self._states.get(key)
        if found is None:
            raise EntityNotFoundError(key, f"it did not exist at position {self.position}")
        return found

    def get(self, entity: Any) -> dict[str, Any]:
        """A copy of one entity's data then: plain data, references as `EntityReference`.

        Args:
            entity: an `@entity` object, an `EntityReference` or `"Type:id"`.

        Raises:
            EntityNotFoundError: it did not exist then.
        """
        copied: dict[str, Any] = copy_plain(self._state(entity).data)
        return copied

    def all(self, entity_type: str | None = None) -> list[EntityReference]:
        """Which entities existed then, of all types or of one, in the order of their keys."""
        return [reference for reference in self if entity_type in (None, reference.entity_type)]

    @cached_property
    def _references(self) -> References:
        return References(self._states, self.position)

    def references(self, entity: Any) -> list[tuple[Path, EntityReference]]:
        """What an entity referred to then: (path in its state, target). Targets that did not exist are among them.

        Raises:
            EntityNotFoundError: the entity did not exist then.
        """
        return self._references.outgoing(self._state(entity).key)

    def referrers(self, entity: Any) -> list[EntityReference]:
        """Which entities referred to one then, in the order of their keys; it need not have existed."""
        return [EntityReference.parse(key) for key in self._references.incoming(key_of(entity))]

    async def objects(self) -> PastObjects:
        """Live objects as they were then, made by the restorers, with their references connected. They cannot be changed.

        Raises:
            NotReadyError: this view was made without the application's restorers.
            RestorationError: a restorer failed.
        """
        if self._restore is None:
            raise NotReadyError("this view was made from the log alone: objects need a Symphony, whose at() knows the restorers")
        return await self._restore(self._fold)


class PastObjects:
    """Live objects of a view, in a world of their own: what they are changed to is refused, and nothing is ever appended.

    Attributes:
        report: what could not be restored or connected.
    """

    def __init__(self, world: World, report: ResumeReport) -> None:
        self.report = report
        self._world = world

    def get(self, entity: Any) -> Any:
        """One object.

        Args:
            entity: an `@entity` object of the present, an `EntityReference` or `"Type:id"`.

        Raises:
            EntityNotFoundError: it did not exist then.
        """
        return self._world.get(key_of(entity))

    def all(self, entity_type: str) -> list[Any]:
        """All objects of a type."""
        return list(self._world.all(entity_type))


def key_of(entity: Any) -> str:
    """`Type:id` of an `@entity` object, an `EntityReference` or that text itself.

    Raises:
        EntityNotFoundError: it is none of them.
        InvalidIdentifierError: the text is no key.
    """
    if isinstance(entity, str):
        return EntityReference.parse(entity).key
    if isinstance(entity, EntityReference):
        return entity.key
    spec = getattr(type(entity), "_symphony_spec", None)
    if spec is None:
        raise EntityNotFoundError(repr(entity)[:80], "give an @entity object, an EntityReference or 'Type:id'")
    return EntityReference(spec.name, entity.id).key
