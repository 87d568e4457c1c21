"""What callers name entities and types by: objects, references, `"Type:id"`, type and id, and a type by its class or name.

One place decides what such an argument means and whether anything could ever be meant by it, so that every question about the present
and the past takes the same arguments and answers a misspelt name in the same way. A type is known when a class or restorer of this
process has it, when an entity of it is live, or when the log has an event of it; asked for a type that is not, the answer is an error
that names what is written like it, never an empty list. Whether the log has one is looked up only where nothing else has been found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from symphony_es.errors import ConfigurationError, EntityNotFoundError, EntityTypeError, UnknownTypeError
from symphony_es.events.identifiers import SYSTEM_PREFIX, entity_key, split_key
from symphony_es.events.references import EntityReference
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.events.comparison import ValueChange
    from symphony_es.events.fold import EntityState
    from symphony_es.log.log import EventLog

__all__ = ["Names", "Process", "key_of"]


class Process(Protocol):
    """What a process knows of the types of entities, by its classes, its restorers and its live objects."""

    def type_of_class(self, cls: type) -> str | None:
        """Return the type whose objects are of a class; None where nobody has said so."""
        ...

    def has_type(self, entity_type: str) -> bool:
        """Return whether a class or restorer has a type."""
        ...

    def types(self) -> Iterable[str]:
        """Return the types that classes and restorers have."""
        ...

    def live_types(self) -> Iterable[str]:
        """Return the types of the live entities."""
        ...

    def key_of(self, obj: Any) -> str | None:
        """Return `Type:id` of a live object; None of anything else."""
        ...

    def declared_fields(self, entity_type: str) -> tuple[str, ...]:
        """Return the fields that the class of a type declares; none where no class is known, or it declares none."""
        ...

    def state_version(self, entity_type: str) -> int:
        """Return the version of the state's shape that the class has; 1 where no class is known."""
        ...

    def upcast(self, state: EntityState) -> dict[str, Any] | None:
        """Return what the class of an entity makes of a state of an older shape; None for one of today's, and where it fails to."""
        ...


class Names:
    """Tells which entity or type an argument means.

    Args:
        log: where types may be on record.
        process: what this process knows of classes and objects; None where a log is read without it.
    """

    def __init__(self, log: EventLog, process: Process | None = None) -> None:
        self._log = log
        self._process = process

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
        return (self._process.type_of_class(cls) if self._process is not None else None) or cls.__name__

    def check_known(self, entity_type: str, entity: str | None = None, among: Iterable[str] = ()) -> None:
        """Refuse a type that nothing has.

        Args:
            entity_type: the name.
            entity: the key that was asked for, for the message.
            among: further types that are known.

        Raises:
            UnknownTypeError: no class, restorer, live entity or event is of it; near misses are named.
        """
        process = self._process
        if entity_type.startswith(SYSTEM_PREFIX) or (process is not None and process.has_type(entity_type)):
            return
        known = {*among, *(process.live_types() if process is not None else ())}
        if entity_type in known:
            return
        known.update(self._log.entity_types_now())
        if entity_type not in known:
            known.update(process.types() if process is not None else ())
            raise UnknownTypeError(entity_type, [name for name in known if not name.startswith(SYSTEM_PREFIX)], entity)

    def check_not_misspelt(self, entity_type: str, entity: str) -> None:
        """Check like `check_known`, but only where some type there is, is written almost like it."""
        try:
            self.check_known(entity_type, entity)
        except UnknownTypeError as error:
            if error.near:
                raise

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
        known = None if self._process is None or isinstance(entity, str | EntityReference) else self._process.key_of(entity)
        return known or key_of(entity)

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
        return self._process.declared_fields(entity_type) if self._process is not None else ()

    def state_version(self, entity_type: str) -> int:
        """Return the version of the state's shape that this process works with; 1 where no class is known."""
        return self._process.state_version(entity_type) if self._process is not None else 1

    def pending_upcast(self, state: EntityState | None) -> list[ValueChange]:
        """Return what the class of an entity makes of a state of an older shape, and no event says yet."""
        current = self.upcast(state)
        if state is None or current is None:
            return []
        from symphony_es.events.comparison import compare_states  # late: only a declared migration asks for it

        return compare_states(state.data, current)

    def upcast(self, state: EntityState | None) -> dict[str, Any] | None:
        """Return what the class of an entity makes of a state of an older shape; None for a state of today's, and where it fails to."""
        return self._process.upcast(state) if self._process is not None and state is not None else None


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
    if spec is None or getattr(type(entity), "_symphony_kind", None) != "entity":
        due = "give an object that was added, an EntityReference or 'Type:id'"
        if type(entity).__module__ == "builtins":
            raise EntityTypeError(f"{shown(entity)} names no entity: {due}")
        raise EntityNotFoundError(f"of this {type(entity).__name__} object", f"it was never added, or not here; {due}")
    return EntityReference(spec.name, entity.id).key
