"""What callers name entities and types by: objects, references, `"Type:id"`, type and id, and a type by its class or name.

One place decides what such an argument means and whether anything could ever be meant by it, so that every question about the present
and the past takes the same arguments and answers a misspelt name in the same way. A type is known when a class or restorer of this
process has it, when an entity of it is live, or when the log has an event of it; asked for a type that is not, the answer is an error
that names what is written like it, never an empty list. Whether the log has one is looked up only where nothing else has been found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.restore import upcast_state
from symphony_es.core.state.tracking.capture import field_names, plain_state
from symphony_es.core.state.tracking.live import kind_of
from symphony_es.core.state.tracking.making import Making
from symphony_es.errors import ConfigurationError, EntityNotFoundError, EntityTypeError, UnknownTypeError
from symphony_es.events.identifiers import SYSTEM_PREFIX, entity_key, split_key
from symphony_es.events.references import EntityReference
from symphony_es.events.values import copy_plain
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.state.restore import RestoreManager
    from symphony_es.core.state.world import World
    from symphony_es.events.comparison import ValueChange
    from symphony_es.events.fold import EntityState
    from symphony_es.log.log import EventLog

__all__ = ["Names", "key_of", "named_entities"]


class Names:
    """Tells which entity or type an argument means.

    Args:
        log: where types may be on record.
        restorers: the process's classes and restorers; None where a log is read without them.
        world: gives the live objects; None where there are none.
    """

    def __init__(self, log: EventLog, restorers: RestoreManager | None = None, world: Callable[[], World | None] = lambda: None) -> None:
        self._log = log
        self._restorers = restorers
        self._world = world

    # -- types --------------------------------------------------------------------------------------------------------

    def type_of(self, given: str | type) -> str:
        """Return the type that a class or a name means.

        Raises:
            UnknownTypeError: nothing has a type of that name.
            EntityTypeError: a class whose objects are no entities, or neither class nor text.
        """
        if isinstance(given, type):
            return self._type_of_class(given)
        if not isinstance(given, str):
            raise EntityTypeError(f"a type is given by its class or its name, not by {type(given).__name__} {shown(given)}")
        self.check_known(given)
        return given

    def _type_of_class(self, cls: type) -> str:
        spec = cls.__dict__.get("_symphony_spec")
        kind = getattr(cls, "_symphony_kind", None)
        if kind == "entity" and spec is not None:
            return str(spec.name)
        if kind is not None or cls.__module__ == "builtins":
            raise EntityTypeError(f"{cls.__qualname__} is no class of entities: its objects stand inside of one")
        if self._restorers is None:
            return cls.__name__
        for name in self._restorers:
            restorer = self._restorers.restorer_for(name)
            if restorer is not None and restorer.restored_class is cls:
                return name
        world = self._world()
        live = next((record.entity_type for record in world.records.values() if type(record.obj) is cls), None) if world else None
        return live or (world.given_type(cls) if world is not None else None) or cls.__name__

    def check_known(self, entity_type: str, entity: str | None = None, among: Iterable[str] = ()) -> None:
        """Refuse a type that nothing has.

        Args:
            entity_type: the name.
            entity: the key that was asked for, for the message.
            among: further types that are known.

        Raises:
            UnknownTypeError: no class, restorer, live entity or event is of it; near misses are named.
        """
        if entity_type.startswith(SYSTEM_PREFIX) or (self._restorers is not None and self._restorers.restorer_for(entity_type)):
            return
        known = {*among, *self._live_types()}
        if entity_type in known:
            return
        known.update(self._log.entity_types_now())
        if entity_type not in known:
            known.update(self._restorers or ())
            raise UnknownTypeError(entity_type, [name for name in known if not name.startswith(SYSTEM_PREFIX)], entity)

    def check_not_misspelt(self, entity_type: str, entity: str) -> None:
        """Check like `check_known`, but only where some type there is, is written almost like it."""
        try:
            self.check_known(entity_type, entity)
        except UnknownTypeError as error:
            if error.near:
                raise

    def _live_types(self) -> set[str]:
        world = self._world()
        return {key.partition(":")[0] for key in (*world.records, *world.removed)} if world is not None else set()

    # -- entities -----------------------------------------------------------------------------------------------------

    def key(self, entity: Any, entity_id: str | None = None) -> str:
        """Return `Type:id` of what an entity is given by; whether there is one is not asked.

        Args:
            entity: an object, an `EntityReference`, or `"Type:id"`; or with `entity_id`, its class or type.
            entity_id: its id, where the first argument is a class or type.

        Raises:
            ConfigurationError: a type without an id, or an id beside what names an entity already.
            EntityTypeError: it names no entity.
            InvalidIdentifierError: the text is no key.
        """
        if isinstance(entity, type):
            name = self._type_of_class(entity)
            if entity_id is None:
                raise ConfigurationError(f"{entity.__qualname__} names a type: give the id too, as second argument or as '{name}:id'")
            return entity_key(name, entity_id)
        if entity_id is not None:
            if not isinstance(entity, str):
                raise ConfigurationError(f"an id beside a {type(entity).__name__}, which names an entity already")
            return entity_key(entity, entity_id)
        world = None if isinstance(entity, str | EntityReference) else self._world()
        record = world.record_of(entity) if world is not None else None
        return record.key if record is not None else key_of(entity)

    @contextmanager
    def explaining(self, key: str, among: Iterable[str] = ()) -> Iterator[None]:
        """Make the error of an entity that was not found say so where there is no such type at all.

        Raises:
            UnknownTypeError: nothing has the type of the key.
        """
        try:
            yield
        except EntityNotFoundError:
            self.check_known(key.partition(":")[0], key, among)
            raise

    def declared_fields(self, entity_type: str) -> tuple[str, ...]:
        """Return the fields that the class of a type declares; none where no class is known, or it declares none."""
        restorer = self._restorers.restorer_for(entity_type) if self._restorers is not None else None
        cls = restorer.restored_class if restorer is not None else None
        if cls is None:
            return ()
        spec = cls.__dict__.get("_symphony_spec")
        return tuple(spec.fields) if spec is not None else tuple(field_names(cls) or ())

    def state_version(self, entity_type: str) -> int:
        """Return the version of the state's shape that this process works with; 1 where no class is known."""
        restorer = self._restorers.restorer_for(entity_type) if self._restorers is not None else None
        return restorer.state_version if restorer is not None else 1

    def pending_upcast(self, state: EntityState | None) -> list[ValueChange]:
        """Return what the class of an entity makes of a state of an older shape, and no event says yet."""
        if state is None or state.data is None:
            return []
        entity_type = state.entity_type
        if self._restorers is None:
            return []
        restorer = self._restorers.restorer_for(entity_type)
        if restorer is None or restorer.state_version == state.state_version:
            return []
        try:
            current = upcast_state(restorer, copy_plain(state.data), state.state_version, Making(self._restorers.types))
            from symphony_es.events.comparison import compare_states  # late: only a declared migration asks for it

            return compare_states(state.data, plain_state(current, world) if (world := self._world()) is not None else current)
        except Exception:  # noqa: BLE001  the application's code; a question about the past is answered without it
            return []


def named_entities(given: Any, world: World) -> list[Any]:
    """Return what names several entities, as a list.

    What names one is one of one, also where it can be iterated, as pydantic models can.
    """
    if isinstance(given, str | type | EntityReference) or not isinstance(given, Iterable) or world.record_of(given) is not None:
        return [given]
    return list(given)


def key_of(entity: Any) -> str:
    """Return `Type:id` of an `@entity` object, an `EntityReference` or that text itself.

    Raises:
        ConfigurationError: a text without an id.
        EntityNotFoundError: an object that was never added.
        EntityTypeError: it is none of them.
        InvalidIdentifierError: the text is no key.
    """
    if isinstance(entity, str):
        if ":" not in entity:
            raise ConfigurationError(f"{shown(entity)} names no entity: an id is missing; give 'Type:id', or ('Type', 'id')")
        return ":".join(split_key(entity))
    if isinstance(entity, EntityReference):
        return entity.key
    spec = getattr(type(entity), "_symphony_spec", None)
    if spec is None or kind_of(entity) != "entity":
        due = "give an object that was added, an EntityReference or 'Type:id'"
        if type(entity).__module__ == "builtins":
            raise EntityTypeError(f"{shown(entity)} names no entity: {due}")
        raise EntityNotFoundError(f"of this {type(entity).__name__} object", f"it was never added, or not here; {due}")
    return EntityReference(spec.name, entity.id).key
