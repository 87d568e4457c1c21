"""The restorer that `@entity` registers: it rebuilds every field of the class from the state, without running the constructor."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

from symphony_es.core.state.restore import EntityRestorer, RestorationContext
from symphony_es.core.state.tracking.capture import make_instance, revive_enum
from symphony_es.core.state.tracking.entity import ClassSpec, named_types
from symphony_es.core.state.tracking.live import UNOWNED, admit, attributes_of, kind_of, own
from symphony_es.core.state.tracking.places import detach
from symphony_es.core.state.tracking.tracked_dict import TrackedDict
from symphony_es.core.state.tracking.tracked_list import TrackedList
from symphony_es.core.state.tracking.tracked_set import TrackedSet
from symphony_es.core.state.tracking.types import TypeTable
from symphony_es.errors import RestorationError
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Tagged

__all__ = ["FLAT", "DeclaredEntityRestorer", "unknown_names"]

FLAT = UNOWNED - {EntityReference}
"""Types whose values are live as they are stored, and refer to nothing: a state that holds only these needs no second look."""


class DeclaredEntityRestorer(EntityRestorer):
    """Makes objects of one `@entity` class. Fields the state lacks get their default; what the class lacks is reported."""

    wants_plain = True
    restored_class: Any

    def __init__(self, cls: Any) -> None:
        self.restored_class = cls
        self.spec: ClassSpec = cls._symphony_spec
        self._names = frozenset(self.spec.fields)
        self.state_version = self.spec.state_version
        self._registered_in: weakref.WeakSet[TypeTable] = weakref.WeakSet()

    @property
    def entity_type(self) -> str:
        """The entity type of the class."""
        return self.spec.name

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """Make the object from plain data; references stay in place until they are connected."""
        types = context.symphony.restore_manager.types
        self.register_named_types(types)
        made = make_instance(self.restored_class, {})
        self.fill(made, data, types)
        made.__dict__["id"] = entity_id
        return made

    @property
    def is_exact(self) -> bool:
        """Whether it does what this class says, not what a subclass of it says: then what it makes need not be compared."""
        return type(self) is DeclaredEntityRestorer

    def make(self, entity_id: str, data: dict[str, Any], types: TypeTable, unknown: set[str], *, flat: bool = False) -> Any | None:
        """What `restore` makes of a state, when it has exactly the declared fields; None when it has others.

        The object equals its state by construction: each field is the stored value, or the live form of it. `register_named_types`
        comes first.

        Args:
            unknown: gets the names of tagged values that no class is known for.
            flat: the state holds values of `FLAT` types only.
        """
        if tuple(data) == self.spec.fields:
            held = dict(data)
        elif data.keys() == self._names:
            held = {name: data[name] for name in self.spec.fields}
        else:
            return None
        made = _new(self.restored_class)
        if not flat:
            for name, plain in held.items():
                maker = _MAKERS.get(type(plain))
                if maker is not None:
                    held[name] = live = maker(plain, types, unknown)
                    own(live, made, name)
        held["id"] = entity_id
        _set_attributes(made, "__dict__", held)
        return made

    def fill(self, obj: Any, data: dict[str, Any], types: TypeTable) -> None:
        """Set every field from plain data, unrecorded.

        Raises:
            RestorationError: a field has neither a stored value nor a default.
        """
        held = attributes_of(obj)
        for field in dataclasses.fields(self.restored_class):
            name = field.name
            live = enliven(data[name], types, set()) if name in data else self._default(field)
            detach(held.get(name), f"{self.entity_type}:{held.get('id')}")
            held[name] = live
            own(live, obj, name)

    def _default(self, field: dataclasses.Field[Any]) -> Any:
        if field.default is not dataclasses.MISSING:
            return admit(field.default, None)
        if field.default_factory is not dataclasses.MISSING:
            return admit(field.default_factory(), None)
        raise RestorationError(
            f"a stored {self.entity_type} has no {field.name!r}: give the field of {self.restored_class.__qualname__} a default, "
            "or raise state_version and write an upcast"
        )

    def register_named_types(self, types: TypeTable) -> None:
        """Register the enums that the class's annotations name, so that members come back as members."""
        if types not in self._registered_in:
            for cls in named_types(self.restored_class):
                types.register(cls)
            self._registered_in.add(types)

    def capture(self, entity: Any) -> dict[str, Any]:
        """The live values of the fields."""
        return {name: entity.__dict__[name] for name in self.spec.fields}

    def upcast(self, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Apply the class's `upcast`."""
        if self.spec.upcast is None or from_version > self.state_version:
            return super().upcast(data, from_version)
        return self.spec.upcast(data, from_version)


def enliven(plain: Any, types: TypeTable, unknown: set[str]) -> Any:
    """The live form of stored plain data: tracked containers, objects for the tagged values whose class is known.

    Args:
        unknown: gets the names of tagged values that stay as they are stored.
    """
    maker = _MAKERS.get(type(plain))
    return plain if maker is None else maker(plain, types, unknown)


def _list(plain: list[Any], types: TypeTable, unknown: set[str]) -> TrackedList:
    made = list.__new__(TrackedList)
    made._symphony_owner = made._symphony_key = None
    made._symphony_base = 0
    list.extend(made, plain)
    if not UNOWNED.issuperset(map(type, plain)):
        for index, item in enumerate(plain):
            maker = _MAKERS.get(type(item))
            if maker is not None:
                live = maker(item, types, unknown)
                list.__setitem__(made, index, live)
                own(live, made, index)
    return made


def _dict(plain: dict[Any, Any], types: TypeTable, unknown: set[str]) -> TrackedDict:
    made = dict.__new__(TrackedDict)
    made._symphony_owner = made._symphony_key = None
    dict.update(made, plain)
    if not UNOWNED.issuperset(map(type, plain.values())):
        for key, item in plain.items():
            maker = _MAKERS.get(type(item))
            if maker is not None:
                live = maker(item, types, unknown)
                dict.__setitem__(made, key, live)
                own(live, made, key)
    return made


def _set(plain: set[Any], types: TypeTable, unknown: set[str]) -> TrackedSet:
    made = TrackedSet()
    for item in plain:
        set.add(made, enliven(item, types, unknown))
    return made


def _tuple(plain: tuple[Any, ...], types: TypeTable, unknown: set[str]) -> tuple[Any, ...]:
    return tuple(enliven(item, types, unknown) for item in plain)


def _tagged(plain: Tagged, types: TypeTable, unknown: set[str]) -> Any:
    live = _untagged(plain, types, unknown)
    if live is plain:
        unknown.add(plain.name)
    return live


def _untagged(plain: Tagged, types: TypeTable, unknown: set[str]) -> Any:
    """The object of a tagged value; itself where no class of that name and shape is known."""
    cls = types.class_of(plain.name)
    if cls is None:
        return plain
    if plain.kind == "enum":
        return revive_enum(cls, plain)
    spec = getattr(cls, "_symphony_spec", None)
    if spec is None or set(spec.fields) != set(plain.data):
        return plain  # the class has changed: kept as stored, and reported
    made = make_instance(cls, {})
    held = attributes_of(made)
    for name, item in plain.data.items():
        live = enliven(item, types, unknown)
        held[name] = live
        own(live, made, name)
    return made


_new: Any = object.__new__
_set_attributes = object.__setattr__

_MAKERS: dict[type, Callable[[Any, TypeTable, set[str]], Any]] = {list: _list, dict: _dict, set: _set, tuple: _tuple, Tagged: _tagged}


def unknown_names(live: Any) -> set[str]:
    """Names of tagged values in a live value that no class was known for."""
    found: set[str] = set()
    stack = [live]
    while stack:
        item = stack.pop()
        if type(item) is Tagged:
            found.add(item.name)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            stack.extend(item)
        elif kind_of(item) in ("part", "value"):
            stack.extend(getattr(item, name) for name in type(item)._symphony_spec.fields)
    return found
