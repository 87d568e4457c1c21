"""Restorers: per entity type, what turns a state into a live object and back.

Restoring has two phases, so that references may form cycles. Creation: the restorer of each type makes the object, which is
registered in the `RestorationContext`. Connection: every reference is set on the live object that holds it. The module-level
`restore_manager` is where applications register restorers; each Symphony owns a child of it.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from symphony_es.core.objects.capture import assign_attributes, capture_object
from symphony_es.core.objects.making import Making, Passed, loosen
from symphony_es.core.objects.rebuilding import revive_with, revived_apart
from symphony_es.core.objects.types import TypeTable
from symphony_es.core.objects.upcasting import brought_up
from symphony_es.errors import (
    ConfigurationError,
    EntityExistsError,
    EntityTypeError,
    RestorationError,
    RestorerConflictError,
    UnknownValueError,
)
from symphony_es.events.identifiers import check_own_type, entity_key
from symphony_es.events.references import EntityReference
from symphony_es.failures import is_failure
from symphony_es.naming import stored_name
from symphony_es.shown import quoted, shown

if TYPE_CHECKING:
    from symphony_es.naming import AllowedModules
    from symphony_es.registry import NamedCallables, ServiceRegistry

__all__ = [
    "EntityRestorer",
    "RestorationContext",
    "RestoreManager",
    "Restoring",
    "UnrestoredEntity",
    "register_entity_restorer",
    "restore_manager",
]


class EntityRestorer(ABC):
    """Makes live objects of one entity type from their states, and states from live objects.

    Subclasses say `entity_type` and `restore`. `capture` finds the state of an object whose class does not track itself.
    """

    state_version: int = 1
    """Version of the state's shape; states of older versions pass through `upcast` first."""

    restored_class: type | None = None
    """The class of its objects, where they are all of one: adding an object of another under the type is refused."""

    wants_plain: bool = False
    """Whether `restore` takes plain data as it is stored (tagged values included) and makes live values of it itself."""

    @property
    @abstractmethod
    def entity_type(self) -> str:
        """The type this restorer is for."""

    async def can_restore(self, data: dict[str, Any]) -> bool:
        """Return whether this state can be restored; False keeps it as an `UnrestoredEntity`, which the report lists."""
        return True

    @abstractmethod
    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """Make the live object.

        In a load of some entities, others are live already: what is changed in one of these is a change like any other. It is appended,
        and stays when the load fails.

        Args:
            entity_id: the id it has.
            data: its state: a copy of the restorer's own. Enums and declared classes are live; references to other entities are
                `EntityReference`s, which are set to the live targets afterwards wherever the object holds them.
            context: the world under construction.

        Raises:
            Exception: anything raised. A resume keeps this entity as an `UnrestoredEntity` and goes on; with `strict=True`, and in a load,
                it is a `RestorationError`, and the old world stays in place.
        """

    def capture(self, entity: Any) -> dict[str, Any]:
        """Return the state of a live object: its dataclass, pydantic or attrs fields, or its public attributes."""
        return capture_object(entity)

    def upcast(self, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Turn a state of an older version into one of `state_version`.

        Raises:
            RestorationError: this restorer knows no way from that version.
        """
        raise RestorationError(
            f"a state of {self.entity_type} has version {from_version} and its restorer {type(self).__name__} expects "
            f"version {self.state_version}: "
            + ("newer code has written it: run that, or define upcast" if from_version > self.state_version else "define upcast")
            + "(data, from_version) on it"
        )

    def reset(self, entity: Any, data: dict[str, Any]) -> None:
        """Put an object back into an earlier state, in place: after a rolled-back transaction, or by `symphony.refresh`.

        Where `capture` is the library's, so is the state: attributes that it does not name are taken away.

        Args:
            entity: the live object.
            data: the state, with live objects where references stand.
        """
        assign_attributes(entity, data, exact=type(self).capture is EntityRestorer.capture)


def upcast_state(restorer: EntityRestorer, data: dict[str, Any], version: int, making: Making) -> dict[str, Any]:
    """Bring a stored state to the version of its restorer: `upcast` gets plain containers, with objects of the classes that are known.

    Raises:
        RestorationError: the restorer knows no way from that version, its `upcast` raised, or returned no dict.
        UnknownValueError: an object in what it returned holds a value that cannot be made.
    """
    loose = loosen if restorer.wants_plain else revived_apart
    made = brought_up(restorer.entity_type, restorer.upcast, data, (version, restorer.state_version), making, loose)
    if making.unmade:
        raise UnknownValueError(making.unmade)
    return made


class PlainRestorer(EntityRestorer):
    """Captures objects of a type that nobody registered a restorer for; their states restore as `UnrestoredEntity`."""

    def __init__(self, entity_type: str) -> None:
        self._entity_type = entity_type

    @property
    def entity_type(self) -> str:
        """The type this restorer is for."""
        return self._entity_type

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """Refuse: there is no class to make an object of."""
        raise RestorationError(f"no restorer is registered for {self._entity_type}")


class UnrestoredEntity:
    """A state that no restorer made an object of: kept intact, and still a target for references.

    Attributes:
        reference: which entity it is.
        state: its state, plain data.
        reason: why there is no object.
        missing: names of classes in the log that are not known here, or have changed too far, with what mends it.
    """

    __slots__ = ("__weakref__", "missing", "reason", "reference", "state")

    def __init__(self, reference: EntityReference, state: dict[str, Any], reason: str, missing: Mapping[str, str] | None = None) -> None:
        self.reference = reference
        self.state = state
        self.reason = reason
        self.missing = dict(missing or {})

    def __repr__(self) -> str:
        return f"UnrestoredEntity({self.reference.key}, {self.reason!r})"


class Restoring(Protocol):
    """The part of a Symphony that restorers may rely on while it resumes."""

    @property
    def registry(self) -> ServiceRegistry:
        """Services by name."""
        ...

    @property
    def restore_manager(self) -> RestoreManager:
        """The restorers."""
        ...

    @property
    def models(self) -> NamedCallables:
        """Model clients by name."""
        ...

    @property
    def functions(self) -> NamedCallables:
        """Functions of function steps by name."""
        ...

    @property
    def tools(self) -> NamedCallables:
        """Tools by name."""
        ...

    @property
    def agents(self) -> Any:
        """The facade of agents."""
        ...

    @property
    def tasks(self) -> Any:
        """The facade of tasks."""
        ...

    @property
    def workflows(self) -> Any:
        """The facade of workflows."""
        ...

    @property
    def entities(self) -> Any:
        """The facade of all entities."""
        ...


class RestorationContext:
    """The world under construction, as restorers see it.

    Attributes:
        symphony: the Symphony whose facades create into the new world: nothing they do is appended, and what they create takes
            the id that is being restored. An object may keep it: when all are live, it works on what is live.
        registry: the Symphony's services.
        entities: the objects made so far, by `Type:id`.
        hooked: declared objects with a hook, which is called when all references are connected; inner ones first.
        passed: which stored fields upcasts have passed on; see `Making`.
        pending_references: (target object, attribute, reference) that restorers asked to have connected.
    """

    def __init__(self, symphony: Restoring) -> None:
        self.symphony = symphony
        self.registry: ServiceRegistry = symphony.registry
        self.entities: dict[str, Any] = {}
        self.pending_references: list[tuple[Any, str, EntityReference]] = []
        self.hooked: list[Any] = []
        self.passed: Passed = {}

    def register_entity(self, entity_type: str, entity_id: str, entity: Any) -> None:
        """Make an object known under its type and id.

        Raises:
            EntityExistsError: another object is registered there.
        """
        key = entity_key(entity_type, entity_id)
        if self.entities.setdefault(key, entity) is not entity:
            raise EntityExistsError(key, "a restorer registered another object for it")

    def get_entity(self, entity_type: str, entity_id: str) -> Any | None:
        """Return the object registered under a type and id, or None."""
        return self.entities.get(entity_key(entity_type, entity_id))

    def add_pending_reference(self, target: Any, attribute: str, reference: EntityReference) -> None:
        """Have `target.attribute` set to the entity that `reference` names, once all objects exist."""
        self.pending_references.append((target, attribute, reference))

    async def resolve_references(self) -> list[tuple[Any, str, EntityReference]]:
        """Connect all pending references and return those whose target is missing; they keep the reference in place."""
        missing = []
        for target, attribute, reference in self.pending_references:
            found = self.entities.get(reference.key)
            if found is None:
                missing.append((target, attribute, reference))
            setattr(target, attribute, reference if found is None else found)
        self.pending_references.clear()
        return missing


class RestoreManager:
    """The restorers and named value types of a process or of one Symphony; a child asks its parent second.

    Explicitly registered restorers win over the ones that `@entity` registers.

    Args:
        parent: asked second.
        allowed: modules whose classes of data the log may name, beside those that `types.allow` names.
    """

    def __init__(self, parent: RestoreManager | None = None, allowed: AllowedModules | None = None) -> None:
        self.parent = parent
        self.types: TypeTable = TypeTable(parent.types if parent is not None else None, allowed)
        self._explicit: dict[str, EntityRestorer] = {}
        self._default: dict[str, EntityRestorer] = {}
        self._late: dict[str, str] = {}

    def declare_late(self, module: str, *, entities: Iterable[str] = (), values: Iterable[str] = ()) -> None:
        """Have a module imported when one of the types that it declares is looked for: who meets none of them does not wait for it.

        Args:
            module: its name.
            entities: the entity types that it declares.
            values: the names under which it registers classes of values.
        """
        if module not in sys.modules:
            self._late |= dict.fromkeys(entities, module)
            self.types.declare_late(module, values)

    def register_restorer(self, restorer: EntityRestorer, *, replace: bool = False) -> None:
        """Register the restorer of a type.

        Args:
            replace: take the place of one that is registered already.

        Raises:
            ConfigurationError: this is not a restorer.
            RestorerConflictError: another one is registered explicitly, here or above.
        """
        _check_restorer(restorer)
        entity_type = check_own_type(restorer.entity_type)
        other = self._find(entity_type, explicit=True)
        if other is not None and not replace:
            raise RestorerConflictError(
                f"{type(other).__name__} and {type(restorer).__name__} both restore {entity_type}: "
                "register one of them, or pass replace=True"
            )
        self._explicit[entity_type] = restorer
        code = type(restorer)
        self.types.learn(*filter(None, (restorer.restored_class, code.restore, code.capture)))

    def unregister_restorer(self, entity_type: str) -> bool:
        """Forget the explicit restorer of a type; False when there is none here."""
        _check_type(entity_type)
        return self._explicit.pop(entity_type, None) is not None

    def register_default(self, restorer: EntityRestorer) -> None:
        """Register what `@entity` made for its class; a class defined anew under the same name replaces the old one.

        Raises:
            ConfigurationError: this is not a restorer.
            EntityTypeError: another class has the type.
        """
        _check_restorer(restorer)
        cls = restorer.restored_class or object
        if cls.__module__ != self._late.get(restorer.entity_type):
            self._bring(restorer.entity_type)
        known = self._default.get(restorer.entity_type)
        other = known.restored_class if known is not None else None
        if other is not None and stored_name(other) != stored_name(cls):
            raise EntityTypeError(
                f"{stored_name(cls)} cannot be the entity type {quoted(restorer.entity_type)}: {stored_name(other)} has that name; "
                "give one of them another: @entity(type=...)"
            )
        self._default[restorer.entity_type] = restorer
        self.types.learn(cls)

    def restorer_for(self, entity_type: str) -> EntityRestorer | None:
        """Return the restorer of a type: an explicit one, else the one that `@entity` made, else None."""
        _check_type(entity_type)
        return self._find(entity_type, explicit=True) or self._find(entity_type, explicit=False)

    def _bring(self, entity_type: str) -> None:
        """Import the module that declares a type, where that was put off."""
        module = self._late.get(entity_type)
        if module is not None:
            import_module(module)
            self._late.pop(entity_type, None)

    def _find(self, entity_type: str, *, explicit: bool) -> EntityRestorer | None:
        if not explicit and entity_type in self._late:
            self._bring(entity_type)
        found = (self._explicit if explicit else self._default).get(entity_type)
        if found is None and self.parent is not None:
            return self.parent._find(entity_type, explicit=explicit)
        return found

    async def restore_entity(
        self, reference: EntityReference, data: dict[str, Any], version: int, context: RestorationContext, *, keep_failed: bool = False
    ) -> Any:
        """Make one object from its state and register it; an `UnrestoredEntity` where that is not possible.

        Args:
            keep_failed: also where the application's code fails: one object that cannot be made is no reason to have none.

        Raises:
            RestorationError: not `keep_failed`, and the restorer or its upcast failed or returned nothing.
        """
        restorer = self.restorer_for(reference.entity_type)
        if restorer is None:
            return self.keep(reference, data, f"no restorer is registered for {reference.entity_type}", context)
        try:
            return await self._make(restorer, reference, data, version, context)
        except RestorationError as error:
            if not keep_failed:
                raise
            context.entities.pop(reference.key, None)  # what it may have made before it failed
            return self.keep(reference, data, str(error), context)

    async def _make(
        self, restorer: EntityRestorer, reference: EntityReference, data: dict[str, Any], version: int, context: RestorationContext
    ) -> Any:
        task = asyncio.current_task()
        stored, making, hooked_before = data, Making(self.types, context.passed), len(context.hooked)
        try:
            if version != restorer.state_version:
                data = upcast_state(restorer, data, version, making)
            if not restorer.wants_plain:
                data = revive_with(data, making)
                if making.unmade:
                    raise UnknownValueError(making.unmade)
            if not await restorer.can_restore(data):
                return self.keep(reference, stored, f"{type(restorer).__name__}.can_restore said no", context)
            made = await restorer.restore(reference.entity_id, data, context)
        except UnknownValueError as error:
            return self.keep(reference, stored, str(error), context, error.classes)
        except RestorationError:
            raise
        except BaseException as error:
            if not is_failure(error, task):
                raise
            raise RestorationError(f"{type(restorer).__name__} could not restore {reference.key}: {quoted(error)}") from error
        if made is None:
            raise RestorationError(f"{type(restorer).__name__}.restore returned None for {reference.key}: it must return the object")
        context.register_entity(reference.entity_type, reference.entity_id, made)
        context.hooked[hooked_before:hooked_before] = making.hooked  # inner ones first
        return made

    @staticmethod
    def keep(
        reference: EntityReference, data: dict[str, Any], reason: str, context: RestorationContext, missing: Mapping[str, str] | None = None
    ) -> UnrestoredEntity:
        """Register a state that no object is made of."""
        kept = UnrestoredEntity(reference, data, reason, missing)
        context.register_entity(reference.entity_type, reference.entity_id, kept)
        return kept

    def __iter__(self) -> Iterator[str]:
        names = {*self._explicit, *self._default, *self._late, *(self.parent or ())}
        return iter(sorted(names))


restore_manager = RestoreManager()
"""Where applications register restorers; every Symphony made afterwards or before sees them."""


def register_entity_restorer(restorer: EntityRestorer) -> None:
    """Register a restorer for every Symphony of this process: `restore_manager.register_restorer`."""
    restore_manager.register_restorer(restorer)


def _check_restorer(given: object) -> None:
    if not isinstance(given, EntityRestorer):
        raise ConfigurationError(f"a restorer is an object of a subclass of EntityRestorer, not {shown(given)}")


def _check_type(given: object) -> None:
    if not isinstance(given, str):
        raise ConfigurationError(f"a restorer is found by its entity type, a text, not by {shown(given)}")
