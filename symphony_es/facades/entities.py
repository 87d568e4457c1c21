"""All entities, of built-in and of the application's own types: `symphony.entities`.

Plain calls: what they record is durable after `await symphony.flush()`, or after the next awaited call that depends on state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from symphony_es.core.objects.plain import kind_of
from symphony_es.core.world.known_types import named_entities
from symphony_es.errors import ConfigurationError, EntityBusyError, EntityNotFoundError
from symphony_es.events.paths import parse_path
from symphony_es.events.references import EntityReference
from symphony_es.guesses import pointing_out

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.past.moment_texts import Moment
    from symphony_es.core.world.live_entity import EntityRecord

__all__ = ["Entities"]

_T = TypeVar("_T")


class Entities:
    """Adding, finding and removing entities, and recording changes of objects that do not track themselves.

    `entities["Invoice:7"]`, `"Invoice:7" in entities`, `len(entities)` and iterating over it mean the live objects.

    Threads: the calls that are awaited belong to the event loop of the `Symphony`, others may be made in any thread; see there.
    """

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
        """Make an object an entity and return it; entities it refers to are added with it.

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

    @overload
    def get(self, entity: type[_T], entity_id: str) -> _T: ...
    @overload
    def get(self, entity: Any, entity_id: str | None = None) -> Any: ...

    def get(self, entity: Any, entity_id: str | None = None) -> Any:
        """Return the live object of an entity: `get(Invoice, "7")`, `get("Invoice", "7")`, `get("Invoice:7")` or `get(reference)`.

        An object of an entity will do as well, also one of a world that a resume has replaced.

        Raises:
            EntityNotFoundError: there is none; the message says so when it waits in the log, for `load` or a resume.
            UnknownTypeError: nothing has such a type; near misses are named.
            ConfigurationError: a class or type without an id.
        """
        world = self._symphony.world
        if type(entity) is type(entity_id) is str and ":" not in entity:
            key = f"{entity}:{entity_id}"  # what `names.key` says; no entity has a key that it refuses, and `world.get` refuses it then
        else:
            key = self._symphony.names.key(entity, entity_id)
        try:
            found = world.get(key)
        except EntityNotFoundError:
            self._symphony.names.check_known(key.partition(":")[0], key)
            raise
        return found if kind_of(found) is not None else self._handed(found)

    def _handed(self, obj: Any) -> Any:
        """Return an object that the running block or step is handed; see `symphony_es.core.world.foreign`."""
        if kind_of(obj) is None and obj is not None:
            self._symphony.world.foreign.hand([obj])
        return obj

    @overload
    def find(self, entity: type[_T], entity_id: str) -> _T | None: ...
    @overload
    def find(self, entity: Any, entity_id: str | None = None) -> Any | None: ...

    def find(self, entity: Any, entity_id: str | None = None) -> Any | None:
        """Return the live object of an entity, named as for `get`, or None when there is none.

        Looking for the first entity of a type that nothing has yet, before adding it, is no mistake; a type written almost like one
        that there is, is one.

        Raises:
            UnknownTypeError: nothing has such a type, and something has one that is written like it.
        """
        names = self._symphony.names
        key = names.key(entity, entity_id)
        found = self._symphony.world.find(key)
        if found is None:
            names.check_not_misspelt(key.partition(":")[0], key)
        return self._handed(found)

    def __getitem__(self, entity: Any) -> Any:
        return self.get(*entity) if isinstance(entity, tuple) else self.get(entity)

    def __contains__(self, entity: object) -> bool:
        names = self._symphony.names
        key = names.key(*entity) if isinstance(entity, tuple) else names.key(entity)
        return self._symphony.world.find(key) is not None

    def __len__(self) -> int:
        return len(self._symphony.world.records)

    def __bool__(self) -> bool:
        return True  # it is there, however many entities are

    def __iter__(self) -> Iterator[Any]:
        return iter(self.all())

    @overload
    async def load(self, entity: type[_T], entity_id: str, *, strict: bool = False) -> _T: ...
    @overload
    async def load(self, entity: Any, entity_id: str | None = None, *, strict: bool = False) -> Any: ...

    async def load(self, entity: Any, entity_id: str | None = None, *, strict: bool = False) -> Any:
        """Make an entity live that waits in the log, with all that it refers to, and return its object: `load(Invoice, "7")`.

        It is named as for `get`. Errors and what happens are those of `load_all`.
        """
        (obj,) = await self.load_all([self._symphony.names.key(entity, entity_id)], strict=strict)
        return obj

    async def load_all(self, entities: Iterable[Any], *, strict: bool = False) -> list[Any]:
        """Make entities live that wait in the log, without a resume of all: these, and whatever they refer to, directly or through others.

        They are as they are at the head of the log. What is live already is not read: its object is returned. `symphony.last_load` is
        the report: what has no restorer, which references have no target, what differs from its state. Calls of `on_restore` are not
        made. Nothing is appended, unless a restorer changes an object that is live already: that is a change like any other. Costs what is
        loaded, however many entities and events the log has.

        Args:
            entities: `"Type:id"`, `EntityReference`, object, or (class or type, id) of each.
            strict: raise when a reference has no target; otherwise the `EntityReference` stays in place.

        Returns:
            their live objects, in the order given. Where no restorer is registered, the `UnrestoredEntity`, as after a resume.

        Raises:
            EntityNotFoundError: the log has no such entity, or it is deleted; UnknownTypeError where nothing has such a type.
            RestorationError: a restorer failed, or calls this. In all cases nothing is loaded; a load that is cancelled loads nothing.
        """
        names, world = self._symphony.names, self._symphony.world
        keys = [names.key(*entity) if isinstance(entity, tuple) else names.key(entity) for entity in named_entities(entities, world)]
        if world.restoring or world.sealed is not None or not all(key in world.records for key in keys):
            try:
                await self._symphony.load_entities(keys, strict=strict)
            except EntityNotFoundError as error:
                names.check_known(error.entity.partition(":")[0], error.entity)
                raise
        return [self._handed(self._symphony.world.get(key)) for key in keys]

    async def repair(self, entity: Any, state: dict[str, Any] | None = None, *, to: Moment | None = None) -> Any:
        """Repair an entity that an event of the log does not fit, and return its live object.

        Its whole state is appended as an event named `EntityRepaired`, with the attribution in force; versions go on counting. Objects
        that hold the `UnrestoredEntity` get the live object in its place. Costs the entity's own events, and a look at what is live.

        Args:
            entity: object, reference or `"Type:id"`.
            state: the state it is to have: plain data. Left out: its last good state.
            to: the state it had then: a version of the entity as a whole number; or a datetime or a text, as for `Symphony.at` (`"#42"` is
                a position, and `"42"` is refused, as it could be either).

        Raises:
            EntityNotFoundError: there is no such entity, or it has no such state.
            ConfigurationError: it is not damaged, or both `state` and `to` are given.
            EntityDamagedError: it is what an eventsourcing application has recorded, which has events and no state.
            UnstorableValueError: the state is no plain data.
            ConcurrencyError: somebody else appended meanwhile. In all cases nothing is appended.
            RestorationError: inside a transaction; or the restorer failed: then the entity is repaired, and `load` makes it live.
        """
        from symphony_es.core.resume.repair import repair  # late: few programs ever repair

        return await repair(self._symphony, self._symphony.names.key(entity), state, to)

    @overload
    def all(self, entity_type: type[_T]) -> list[_T]: ...
    @overload
    def all(self, entity_type: str | None = None) -> list[Any]: ...

    def all(self, entity_type: str | type | None = None) -> list[Any]:
        """Return all live objects, or those of one type: those that a resume brought by their ids, then others as they came.

        What was removed in a transaction that failed comes last.

        Args:
            entity_type: a class, or a type's name.

        Raises:
            UnknownTypeError: no class, restorer or event has such a type; near misses are named.
        """
        names = self._symphony.names
        found = self._symphony.world.all(names.type_of(entity_type) if entity_type is not None else None)
        self._symphony.world.foreign.hand(found)
        return found

    async def ids(self, entity_type: str | type) -> list[str]:
        """Return the ids of all entities of a type that the log has, live or not, sorted.

        Nothing is folded or made live: it costs the newest event of each.

        Raises:
            UnknownTypeError: nothing has such a type.
            EntityOutOfStepError: changes of an entity could not be appended.
        """
        name = self._symphony.names.type_of(entity_type)
        await self._symphony.world.flush()
        return [key.partition(":")[2] for key in await self._symphony.log.alive_keys(name)]

    def remove(self, entity: Any, entity_id: str | None = None) -> None:
        """Remove an entity, named as for `get`; its history stays readable and its id may be used again.

        Raises:
            EntityNotFoundError: there is none; UnknownTypeError where nothing has such a type.
            EntityBusyError: a transaction claims it, or it is a run that executes: cancel it first.
            UnrecordedChangeError: it was changed past the methods of a container, as by `heapq`. In all cases nothing is removed.
        """
        symphony = self._symphony
        if not isinstance(entity, str | type | EntityReference):
            record = symphony.world.record_of(entity)
            if record is not None:
                self._refuse_executing(record, "a removal")
            symphony.world.remove(entity)
            return
        key = symphony.names.key(entity, entity_id)
        with symphony.names.explaining(key):
            self._refuse_executing(symphony.world.record_for(key), "a removal")
            symphony.world.remove(key)

    def _refuse_executing(self, record: EntityRecord, what: str) -> None:
        """Refuse what would take a run away from the engine that drives it."""
        engine = self._symphony.registry.made("workflow_engine")
        if engine is not None and record.entity_type == "Workflow" and engine.active.get(record.obj) is not None:
            raise EntityBusyError.during(record.key, "its execution", what)

    async def unload(self, entity: Any, entity_id: str | None = None) -> None:
        """Let go of the live object of an entity, named as for `get`: it stays in the log, and `load` makes a new object of it.

        What has been changed is durable first. The object in hand can no longer be changed. Live entities that refer to it keep that
        object, so unload what nothing live refers to.

        Raises:
            EntityNotFoundError: there is none that is live.
            EntityBusyError: a transaction claims it, or it is a run that executes.
            EntityOutOfStepError: changes of it could not be appended.
            UnrecordedChangeError: it was changed past the methods of its list, dict or set (`heapq`). In all cases it stays live.
        """
        symphony = self._symphony
        key = symphony.names.key(entity, entity_id)
        with symphony.names.explaining(key):
            record = symphony.world.record_for(key)
        self._refuse_executing(record, "an unloading")
        await symphony.world.unload(record)

    def delete(self, entity: Any, entity_id: str | None = None) -> None:
        """Remove an entity; see `remove`."""
        self.remove(entity, entity_id)

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(
            {
                "query": "[obj for obj in entities.all(cls) if ...]; of the past, (await symphony.at(moment)).all(cls)",
                "filter": "[obj for obj in entities.all(cls) if ...]",
                "list": "entities.all(cls), or await entities.ids(cls) for what is not live",
                "create": "entities.add(cls(...))",
                "save": "entities.add(obj) once; its changes are recorded as they are made, and durable after await symphony.flush()",
                "update": "attributes of the object: its changes are recorded as they are made",
                "count": "len(entities.all(cls))",
                "exists": "'Type:id' in entities",
                "items": "entities.all()",
                "keys": "await entities.ids(cls)",
            }
        )

    async def record_when_free(self, entity: Any, event_name: str | None = None, data: Any = None) -> None:
        """Do what `record` does, once no other transaction claims the entity: those who wait are served in the order they came.

        The entity is not claimed meanwhile. What is recorded is durable when this returns.

        Raises:
            EntityBusyError: one transaction held it for 60 s meanwhile, or the wait would close a circle. Nothing is recorded.
        """
        world = self._symphony.world
        await world.claim(entity)
        world.record(entity, event_name, data)
        if world.record_for(entity).holder is None:
            await world.flush(entity)

    def extend(self, entity: Any, path: str | Sequence[str | int], tail: str | bytes) -> None:
        """Put text at the end of a text, or bytes at the end of bytes, of an entity; only the new end is stored.

        What grows by assignment (`note.text += more`) is stored like this by itself once it has 1,024 characters or bytes.

        Args:
            entity: object, reference or `"Type:id"`.
            path: where the text or bytes stand: `"parts[0].text"`, or `("parts", 0, "text")`.
            tail: what comes at the end.

        Raises:
            EntityNotFoundError: there is no such entity.
            ConfigurationError: there is nothing at the path that `tail` could extend.
            UnstorableValueError: `tail` holds a lone surrogate. In all cases nothing has changed.
        """
        if not isinstance(path, Sequence):
            raise ConfigurationError(f"a path is text or a sequence of keys and indexes, not {type(path).__name__}")
        where = parse_path(path) if isinstance(path, str) else tuple(path)
        world = self._symphony.world
        if not isinstance(entity, str | EntityReference):
            world.extend(entity, where, tail)
            return
        key = self._symphony.names.key(entity)
        with self._symphony.names.explaining(key):
            world.extend(key, where, tail)

    def record(self, entity: Any, event_name: str | None = None, data: Any = None) -> None:
        """Record what changed in an object that does not track itself; or that something happened to an entity.

        Args:
            entity: object, reference or `"Type:id"`.
            event_name: the event's name, in the past tense; with it an event is written even if nothing changed.
            data: what the event says beyond its effect; plain data.

        Raises:
            EntityNotFoundError: there is no such entity.
            UnstorableValueError: its state or `data` holds what cannot be stored; nothing is recorded.
        """
        self._symphony.world.record(entity, event_name, data)
