"""All entities, of built-in and of the application's own types: `symphony.entities`.

Plain calls: what they record is durable after `await symphony.flush()`, or after the next awaited call that depends on state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from symphony_es.core.state.past.view import key_of
from symphony_es.core.state.tracking.live import kind_of
from symphony_es.errors import EntityNotFoundError
from symphony_es.events.identifiers import entity_key
from symphony_es.events.references import EntityReference

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["Entities"]

_T = TypeVar("_T")


class Entities:
    """Adding, finding and removing entities, and recording changes of objects that do not track themselves."""

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony

    def add(
        self,
        obj: _T,
        entity_type: str | None = None,
        entity_id: str | None = None,
        *,
        capture: Literal["auto", "on_record"] = "auto",
    ) -> _T:
        """Makes an object an entity and returns it; entities it refers to are added with it.

        Its complete state is its first event, `<Type>Created`. Adding an object that is added already does nothing.

        Args:
            obj: an `@entity` object, or one of any class whose state can be read off it.
            entity_type: for other classes: its type; the class's name when left out.
            entity_id: for other classes: its id; its attribute `id` when left out.
            capture: when an object of another class is compared with its last known state: `auto` at `record`, at `flush`, a checkpoint
                and `close`, and at the end of the transactions and steps that were handed it; `on_record` at `record` only.

        Raises:
            EntityExistsError: the id is taken.
            EntityOwnershipError: the object belongs to another Symphony.
            UnstorableValueError: its state holds what cannot be stored. In all cases nothing is added.
        """
        world = self._symphony.world
        is_here = world.record_of(obj) is not None
        world.add(obj, entity_type, entity_id, capture=capture)
        world.foreign.hand([obj], compare=is_here)
        return obj

    def get(self, entity_type: str | EntityReference, entity_id: str | None = None) -> Any:
        """The live object of an entity: `get("Invoice", "7")`, `get("Invoice:7")` or `get(reference)`.

        Raises:
            EntityNotFoundError: there is none; the message says so when it waits in the log, for `load` or a resume.
        """
        return self._handed(self._symphony.world.get(_reference(entity_type, entity_id)))

    def _handed(self, obj: Any) -> Any:
        """An object that the running block or step is handed; see `symphony_es.core.state.foreign`."""
        if kind_of(obj) is None and obj is not None:
            self._symphony.world.foreign.hand([obj])
        return obj

    def find(self, entity_type: str | EntityReference, entity_id: str | None = None) -> Any | None:
        """Like `get`, but None when there is none."""
        return self._handed(self._symphony.world.find(_reference(entity_type, entity_id)))

    async def load(self, entity: str | EntityReference, *, strict: bool = False) -> Any:
        """Makes an entity live that waits in the log, with all that it refers to, and returns its object: `load("Invoice:7")`.

        Arguments, errors and what happens are those of `load_all`.
        """
        (obj,) = await self.load_all([entity], strict=strict)
        return obj

    async def load_all(self, entities: Iterable[str | EntityReference], *, strict: bool = False) -> list[Any]:
        """Makes entities live that wait in the log, without a resume of all: these, and whatever they refer to, directly or through others.

        They are as they are at the head of the log. What is live already is not read: its object is returned. `symphony.last_load` is
        the report: what has no restorer, which references have no target, what differs from its state. Calls of `on_restore` are not
        made. Nothing is appended, unless a restorer changes an object that is live already: that is a change like any other. Costs what is
        loaded, however many entities and events the log has.

        Args:
            entities: `"Type:id"` or `EntityReference` of each.
            strict: raise when a reference has no target; otherwise the `EntityReference` stays in place.

        Returns:
            their live objects, in the order given. Where no restorer is registered, the `UnrestoredEntity`, as after a resume.

        Raises:
            EntityNotFoundError: the log has no such entity, or it is deleted.
            RestorationError: a restorer failed, or calls this. In all cases nothing is loaded; a load that is cancelled loads nothing.
        """
        keys = [key_of(entity) for entity in entities]
        world = self._symphony.world
        if world.restoring or world.sealed is not None or not all(key in world.records for key in keys):
            await self._symphony.load_entities(keys, strict=strict)
        return [self._handed(self._symphony.world.get(key)) for key in keys]

    def all(self, entity_type: str | None = None) -> list[Any]:
        """All live objects, or those of one type: those that a resume brought by their ids, then others as they were added or loaded.

        What was removed in a transaction that failed comes last.
        """
        found = self._symphony.world.all(entity_type)
        self._symphony.world.foreign.hand(found)
        return found

    def remove(self, entity: Any) -> None:
        """Removes an entity, given as object, reference or `"Type:id"`; its history stays readable and its id may be used again.

        Raises:
            EntityNotFoundError: there is none.
        """
        self._symphony.world.remove(entity)

    def record(self, entity: Any, event_name: str | None = None, data: Any = None) -> None:
        """Records what changed in an object that does not track itself; or that something happened to an entity.

        Args:
            entity: object, reference or `"Type:id"`.
            event_name: the event's name, in the past tense; with it an event is written even if nothing changed.
            data: what the event says beyond its effect; plain data.

        Raises:
            EntityNotFoundError: there is no such entity.
            UnstorableValueError: its state or `data` holds what cannot be stored; nothing is recorded.
        """
        self._symphony.world.record(entity, event_name, data)


def _reference(entity_type: str | EntityReference, entity_id: str | None) -> EntityReference | str:
    if isinstance(entity_type, EntityReference):
        return entity_type
    if entity_id is not None:
        return entity_key(entity_type, entity_id)
    if ":" not in entity_type:
        raise EntityNotFoundError(entity_type, "an id is missing: get('Type', 'id') or get('Type:id')")
    return entity_type
