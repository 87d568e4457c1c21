"""Objects of classes that do not track themselves: their state is read off, and compared with the last known one.

Reading is by declared fields where there are any (dataclass, pydantic, attrs), by public attributes otherwise. Nested objects of classes
with declared fields become tagged values under their class's name, which is registered as it is met; `rebuilding` makes objects of them.
"""

from __future__ import annotations

import dataclasses
import enum
from functools import cached_property
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.everyday import Everyday, everyday_of
from symphony_es.core.objects.mapped import is_mapped, mapped_names, read_mapped
from symphony_es.core.objects.plain import ATOMS, MAX_DEPTH, kind_of, plain_enum, plain_of
from symphony_es.errors import EntityTypeError, UnstorableValueError
from symphony_es.events.values import Tagged, check_member, check_plain
from symphony_es.shown import quoted, type_shown

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorder

__all__ = [
    "GIVEN",
    "assign_attributes",
    "capture_object",
    "captured_fields",
    "field_names",
    "given_fields",
    "is_frozen",
    "plain_state",
    "plain_value",
    "set_attribute",
    "take_away",
]


def field_names(cls: Any) -> tuple[str, ...] | None:
    """Return the declared fields of a dataclass, attrs or pydantic class or a named tuple in order, or None for any other class."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    attributes = getattr(cls, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes)
    fields = getattr(cls, "__pydantic_fields__", None)
    if isinstance(fields, dict):
        return tuple(fields)
    named = getattr(cls, "_fields", None) if issubclass(cls, tuple) else None
    return tuple(named) if named is not None else None


def capture_object(obj: Any) -> dict[str, Any]:
    """Return the state of an object: its mapped columns, its declared fields, or its public attributes.

    Raises:
        EntityTypeError: it has none of them, so there is nothing that could be stored; or its class derives from one with declared fields,
            and attributes of its own would be lost.
        UnstorableValueError: its mapper cannot load a column.
    """
    cls = type(obj)
    columns = mapped_names(cls)
    if columns is not None:
        return read_mapped(obj, columns)
    fields = captured_fields(obj)
    if fields is not None:
        return fields
    slots = _slots(cls)
    held = [name for name in (*slots, *getattr(obj, "__dict__", ()), *_descriptors(cls)) if not name.startswith("_")]
    held = [name for name in held if not isinstance(getattr(cls, name, None), cached_property)]
    if not hasattr(obj, "__dict__") and not slots:
        raise EntityTypeError(
            f"{cls.__module__}.{cls.__qualname__} has no attributes to store: write a restorer whose capture(obj) returns its state"
        )
    return {name: getattr(obj, name) for name in held if hasattr(obj, name)}


GIVEN = "model_fields_set"
"""Stands among the fields of a pydantic model where not all of them were given a value: the names of those that were, in order.

What the code makes of a model may depend on that (`model_dump(exclude_unset=True)`). It is what every model calls it.
"""


def given_fields(obj: Any) -> list[str] | None:
    """Return the names of the declared fields of a pydantic model that were given a value.

    None where all were, and for any other object.
    """
    declared = getattr(type(obj), "__pydantic_fields__", None)
    given = getattr(obj, "__pydantic_fields_set__", None) if isinstance(declared, dict) else None
    if declared is None or given is None or declared.keys() <= given or GIVEN in declared:
        return None
    return [name for name in declared if name in given]


def captured_fields(obj: Any) -> dict[str, Any] | None:
    """Return the declared fields of an object, with the extras of an open pydantic model; None for any other class.

    Raises:
        AttributeError: a field has never been set.
        EntityTypeError: its class derives from a declared one, and its own attributes would be lost.
    """
    names = field_names(type(obj))
    return None if names is None else {**{name: getattr(obj, name) for name in names}, **_extras(obj, names)}


def _slots(cls: type) -> list[str]:
    slots: list[str] = []
    for base in cls.__mro__:
        declared: Any = base.__dict__.get("__slots__", ())
        slots.extend([declared] if isinstance(declared, str) else declared)
    return slots


def _descriptors(cls: type) -> list[str]:
    """Return attributes that descriptors of the class keep in a place of their own.

    Properties are computed, and slots are looked at apart.
    """
    return [
        name
        for base in cls.__mro__
        for name, item in base.__dict__.items()
        if hasattr(type(item), "__set__") and hasattr(type(item), "__get__") and not isinstance(item, _NO_STATE)
    ]


_NO_STATE = (property, MemberDescriptorType, GetSetDescriptorType)


def _extras(obj: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what an object has beside its declared fields, where that is part of it: the extras of an open pydantic model."""
    extras = getattr(obj, "__pydantic_extra__", None)
    if extras is not None:
        if GIVEN in extras:
            raise EntityTypeError(
                f"an extra of a {type(obj).__qualname__} has the name {quoted(GIVEN)}, which every model has: give it another one"
            )
        return dict(extras)
    cls: Any = type(obj)
    own = {"__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__"}
    if own.isdisjoint(cls.__dict__) and not issubclass(cls, tuple):
        beside = [name for name in (*_slots(cls), *getattr(obj, "__dict__", ())) if not name.startswith("_") and name not in names]
        if beside:
            raise EntityTypeError(
                f"{cls.__module__}.{cls.__qualname__} derives from a class with declared fields and is not declared itself: "
                f"its {quoted(beside[0])} would be lost; decorate it as its base is (@dataclass, @attrs.define)"
            )
    return {}


def plain_state(captured: Any, world: Recorder) -> dict[str, Any]:
    """Return the plain data of a captured state.

    Raises:
        EntityTypeError: `capture` returned no dict with text keys.
        UnstorableValueError: a value that is no plain data, with its path.
    """
    if type(captured) is not dict or any(type(key) is not str for key in captured):
        raise EntityTypeError(f"capture must return a dict with str keys, not {type_shown(captured)}")
    return {name: _plain(item, world, (name,), 0, whole=False) for name, item in captured.items()}


def plain_value(value: Any, world: Recorder) -> Any:
    """Return the plain data of any value that a foreign object may hold, and which fields of a pydantic model were given a value.

    Raises:
        UnstorableValueError: a value that is no plain data, with its path.
    """
    return _plain(value, world, (), 0, whole=True)


def _plain(value: Any, world: Recorder, path: tuple[Any, ...], depth: int, *, whole: bool) -> Any:
    cls = type(value)
    if cls in ATOMS:
        return value
    if depth > MAX_DEPTH:
        raise UnstorableValueError(path, f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
    record = world.record_of(value)
    if record is not None:
        return record.reference
    if cls in (list, tuple):
        return cls(_plain(item, world, (*path, index), depth + 1, whole=whole) for index, item in enumerate(value))
    if cls is dict:
        for key in value:
            check_plain({key: None}, path)
        return {key: _plain(item, world, (*path, key), depth + 1, whole=whole) for key, item in value.items()}
    if cls is set:
        return {_member(item, world, path, depth + 1, whole=whole) for item in value}
    if isinstance(value, enum.Enum):
        return plain_enum(value, world.types)
    if kind_of(value) is not None:
        return plain_of(value, world)
    names = field_names(cls)
    if names is None or is_mapped(cls):
        how = everyday_of(cls)
        if how is not None:
            return _everyday(value, how, world, path, depth, whole=whole)
        if cls is not Tagged:
            _check(value, path, world)
        return value
    try:
        held = captured_fields(value)
    except (AttributeError, EntityTypeError) as error:
        raise UnstorableValueError(path, str(error)) from error
    fields = {name: _plain(item, world, (*path, name), depth + 1, whole=whole) for name, item in (held or {}).items()}
    given = given_fields(value) if whole else None
    if given is not None:
        fields[GIVEN] = given
    name = world.types.meet(cls)
    return Tagged("value" if is_frozen(cls) else "part", name, fields, state_version=world.types.version_of(cls))


def _everyday(value: Any, how: Everyday, world: Recorder, path: tuple[Any, ...], depth: int, *, whole: bool) -> Tagged:
    try:
        held = how.read(value)
    except ValueError as error:
        raise UnstorableValueError(path, str(error)) from error
    return Tagged("value", how.name, {name: _plain(item, world, path, depth + 1, whole=whole) for name, item in held.items()})


def _member(item: Any, world: Recorder, path: tuple[Any, ...], depth: int, *, whole: bool) -> Any:
    plain = _plain(item, world, path, depth, whole=whole)
    if type(plain) is Tagged and plain.kind == "part":
        cls = type(item)
        raise UnstorableValueError(
            path, f"a {cls.__qualname__} can change in place and cannot be a member of a set: make the class frozen, or use a list"
        )
    check_member(plain, path)
    return plain


def _check(value: Any, path: tuple[Any, ...], world: Recorder) -> None:
    if is_mapped(type(value)):
        raise UnstorableValueError(
            path,
            f"{type(value).__qualname__} is an object of a mapper: add it as an entity of its own, or write a restorer whose capture(obj) "
            "says what is stored of it",
        )
    try:
        check_plain(value, path)
    except UnstorableValueError:
        plain_of(value, world) if not path else None
        raise


def is_frozen(cls: type) -> bool:
    """Return whether objects of a class with declared fields cannot change in place."""
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None:
        return bool(parameters.frozen)
    if issubclass(cls, tuple):
        return True
    config = getattr(cls, "model_config", None)
    if isinstance(config, dict):
        return bool(config.get("frozen", False))
    return "__attrs_attrs__" in cls.__dict__ and "frozen" in getattr(cls.__setattr__, "__name__", "")  # attrs keeps no other sign


def assign_attributes(obj: Any, state: dict[str, Any], *, exact: bool = False) -> None:
    """Put an object's captured attributes back.

    Args:
        obj: the object.
        state: its attributes.
        exact: take away what the state does not name: the state is all that `capture_object` reads.

    Raises:
        AttributeError: the object refuses an assignment.
    """
    if exact:
        take_away(obj, state)
    for name, item in state.items():
        set_attribute(obj, name, item)


def take_away(obj: Any, state: dict[str, Any]) -> None:
    """Take away what an object has and a state does not name; a declared field or mapped column is always part of it."""
    extras = getattr(obj, "__pydantic_extra__", None)
    if extras is not None:
        for name in [name for name in extras if name not in state]:
            del extras[name]
    elif field_names(type(obj)) is None and mapped_names(type(obj)) is None:
        for name in [name for name in capture_object(obj) if name not in state]:
            delattr(obj, name)
    for name in [name for name in getattr(obj, "__dict__", ()) if isinstance(getattr(type(obj), name, None), cached_property)]:
        del obj.__dict__[name]


def set_attribute(obj: Any, name: str, value: Any) -> None:
    """Put one attribute back; also of a frozen object, or past a validation that its present state would not pass."""
    if getattr(obj, name, _MISSING) is value:
        return
    extras = getattr(obj, "__pydantic_extra__", None)
    if extras is not None and name not in type(obj).__pydantic_fields__:
        extras[name] = value
    elif field_names(type(obj)) is not None and mapped_names(type(obj)) is None:
        held = getattr(obj, "__dict__", None)
        if held is not None and (name in held or hasattr(obj, "__pydantic_fields__")):
            held[name] = value
        else:
            object.__setattr__(obj, name, value)
    else:
        setattr(obj, name, value)


_MISSING: Any = object()
