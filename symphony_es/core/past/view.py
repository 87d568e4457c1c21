"""A read-only look at all states as they were at one position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sized
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from symphony_es.core.past.names import key_of
from symphony_es.core.past.states import live_states
from symphony_es.errors import EntityNotFoundError, NotReadyError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.foreign import why_without_state
from symphony_es.events.identifiers import entity_key
from symphony_es.events.readable import readable
from symphony_es.events.references import EntityReference, Path
from symphony_es.events.showing import html_table
from symphony_es.events.values import copy_plain
from symphony_es_projections.references import References

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.report import ResumeReport

__all__ = ["PastObjects", "StateView"]

_T = TypeVar("_T")


def as_recorded(key: str, state: Any) -> Any:
    """Return a state as the log has it."""
    return state


class StateView:
    """All entities as they were right after one event: `view["Invoice:1"]`, `view.get(Invoice, "1")`, `len(view)`, `"Invoice:1" in view`.

    An entity is named by its object, an `EntityReference`, `"Type:id"`, or class (or type) and id.

    Attributes:
        position: the position looked at.
    """

    def __init__(
        self,
        fold: Fold,
        position: int,
        restore: Callable[[Fold], Awaitable[PastObjects]] | None = None,
        names: Names | None = None,
        composed: Callable[[str, Any], Any] | None = None,
    ) -> None:
        self.position = position
        self._composed = composed or as_recorded
        self._names = names
        self._fold = fold
        self._restore = restore
        self._states = live_states(fold)

    def __repr__(self) -> str:
        counted = Counter(key.partition(":")[0] for key in self._states)
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
        return f"<StateView at position {self.position}: {kinds or 'no entities'}>"

    def _repr_html_(self) -> str:
        return html_table(("entity", "version", "position"), [(key, state.version, state.position) for key, state in self._states.items()])

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: `{"position", "entities"}`, the data of each entity by its key."""
        return {"position": self.position, "entities": {key: readable(self._data(key, state)) for key, state in self._states.items()}}

    def _data(self, key: str, state: EntityState) -> Any:
        return self._composed(key, state.data)

    def _key(self, entity: Any, entity_id: str | None = None) -> str:
        if self._names is not None:
            return self._names.key(entity, entity_id)
        return key_of(entity) if entity_id is None else entity_key(entity, entity_id)

    @property
    def _types(self) -> set[str]:
        return {key.partition(":")[0] for key in self._fold.states}

    def __contains__(self, entity: object) -> bool:
        return self._key(entity) in self._states

    def __getitem__(self, entity: Any) -> dict[str, Any]:
        return self.get(entity)

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[EntityReference]:
        return iter([state.reference for state in self._states.values()])

    def state(self, entity: Any, entity_id: str | None = None) -> EntityState:
        """Return a copy of one entity's state, with its version and position.

        Raises:
            EntityNotFoundError: it did not exist then; UnknownTypeError where nothing has such a type.
        """
        found = self._state(self._key(entity, entity_id))
        shown = copy(found)
        shown.data = self._data(found.key, found)
        return shown.copy()

    def _state(self, key: str) -> EntityState:
        found = self._states.get(key)
        if found is None:
            if self._names is not None:
                self._names.check_known(key.partition(":")[0], key, self._types)
            raise EntityNotFoundError(key, why_without_state(key) or f"it did not exist at position {self.position}")
        return found

    def get(self, entity: Any, entity_id: str | None = None) -> dict[str, Any]:
        """Return a copy of one entity's data then: plain data, references as `EntityReference`.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`; or with `entity_id`, its class or type.
            entity_id: its id.

        Raises:
            EntityNotFoundError: it did not exist then; UnknownTypeError where nothing has such a type.
        """
        key = self._key(entity, entity_id)
        copied: dict[str, Any] = copy_plain(self._data(key, self._state(key)))
        return copied

    def find(self, entity: Any, entity_id: str | None = None) -> dict[str, Any] | None:
        """Return what `get` does, but None when it did not exist then."""
        key = self._key(entity, entity_id)
        if key not in self._states and self._names is not None:
            self._names.check_known(key.partition(":")[0], key, self._types)
        return self.get(key) if key in self._states else None

    def all(self, entity_type: str | type | None = None) -> list[EntityReference]:
        """Return which entities existed then, of all types or of one, in the order of their keys.

        Raises:
            UnknownTypeError: nothing has such a type.
        """
        wanted = entity_type
        is_there = isinstance(entity_type, str) and entity_type in self._types
        if entity_type is not None and self._names is not None and not is_there:
            wanted = self._names.type_of(entity_type)
        return [reference for reference in self if wanted in (None, reference.entity_type)]

    @cached_property
    def _references(self) -> References:
        return References(self._states, self.position)

    def references(self, entity: Any, entity_id: str | None = None) -> list[tuple[Path, EntityReference]]:
        """Return what an entity referred to then: (path in its state, target). Targets that did not exist are among them.

        Raises:
            EntityNotFoundError: the entity did not exist then.
        """
        return self._references.outgoing(self._state(self._key(entity, entity_id)).key)

    def referrers(self, entity: Any, entity_id: str | None = None) -> list[EntityReference]:
        """Return which entities referred to one then, in the order of their keys; it need not have existed."""
        return [EntityReference.parse(key) for key in self._references.incoming(self._key(entity, entity_id))]

    async def objects(self) -> PastObjects:
        """Return live objects as they were then, made by the restorers, with their references connected. They cannot be changed.

        Raises:
            NotReadyError: this view was made without the application's restorers.
            RestorationError: a restorer failed.
        """
        if self._restore is None:
            raise NotReadyError("this view was made from the log alone: objects need a Symphony, whose at() knows the restorers")
        return await self._restore(self._fold)


class LiveObjects(Protocol):
    """Where objects of a view are."""

    @property
    def records(self) -> Sized:
        """All of them."""
        ...

    def get(self, entity: str) -> Any:
        """Return the object of a key.

        Raises:
            EntityNotFoundError: there is none.
        """
        ...

    def all(self, entity_type: str | None) -> Iterable[Any]:
        """Return all objects, or those of a type."""
        ...


class PastObjects:
    """Live objects of a view, in a world of their own: what they are changed to is refused, and nothing is ever appended.

    Attributes:
        report: what could not be restored or connected.
    """

    def __init__(self, world: LiveObjects, report: ResumeReport, names: Names | None = None) -> None:
        self.report = report
        self._world = world
        self._names = names

    def __repr__(self) -> str:
        return f"<PastObjects at position {self.report.position}: {len(self._world.records)} objects>"

    @overload
    def get(self, entity: type[_T], entity_id: str) -> _T: ...
    @overload
    def get(self, entity: Any, entity_id: str | None = None) -> Any: ...

    def get(self, entity: Any, entity_id: str | None = None) -> Any:
        """Return one object.

        Args:
            entity: an object of the present, an `EntityReference` or `"Type:id"`; or with `entity_id`, its class or type.
            entity_id: its id.

        Raises:
            EntityNotFoundError: it did not exist then; UnknownTypeError where nothing has such a type.
        """
        if self._names is None:
            return self._world.get(key_of(entity) if entity_id is None else entity_key(entity, entity_id))
        key = self._names.key(entity, entity_id)
        with self._names.explaining(key):
            return self._world.get(key)

    @overload
    def all(self, entity_type: type[_T]) -> list[_T]: ...
    @overload
    def all(self, entity_type: str | None = None) -> list[Any]: ...

    def all(self, entity_type: str | type | None = None) -> list[Any]:
        """Return all objects, or those of a type.

        Raises:
            UnknownTypeError: nothing has such a type.
        """
        name = self._names.type_of(entity_type) if self._names is not None and entity_type is not None else entity_type
        return list(self._world.all(name if isinstance(name, str) else None))
