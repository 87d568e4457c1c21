"""Objects of classes that do not track themselves: their state is read off, and compared with the last known one.

Reading is by declared fields where there are any (dataclass, pydantic, attrs), by public attributes otherwise. Nested objects of
such classes become tagged values under their class's name, which is registered as it is met, so that they come back as objects.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.tracking.live import ATOMS, MAX_DEPTH, kind_of, plain_enum, plain_of
from symphony_es.errors import EntityTypeError, UnstorableValueError
from symphony_es.events.values import Tagged, check_plain

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership
    from symphony_es.core.state.tracking.types import TypeTable

__all__ = ["assign_attributes", "capture_object", "field_names", "plain_state", "revive"]


def field_names(cls: type) -> tuple[str, ...] | None:
    """The declared fields of a dataclass, attrs or pydantic class in order, or None for any other class."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    attributes = getattr(cls, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes)
    fields = getattr(cls, "__pydantic_fields__", None)
    return tuple(fields) if isinstance(fields, dict) else None


def capture_object(obj: Any) -> dict[str, Any]:
    """The state of an object: its declared fields, or its public attributes.

    Raises:
        EntityTypeError: it has neither, so there is nothing that could be stored.
    """
    names = field_names(type(obj))
    if names is not None:
        return {name: getattr(obj, name) for name in names}
    slots: list[str] = []
    for base in type(obj).__mro__:
        declared: Any = base.__dict__.get("__slots__", ())
        slots.extend([declared] if isinstance(declared, str) else declared)
    held = [name for name in (*slots, *getattr(obj, "__dict__", ())) if not name.startswith("_")]
    if not hasattr(obj, "__dict__") and not slots:
        raise EntityTypeError(
            f"{type(obj).__module__}.{type(obj).__qualname__} has no attributes to store: "
            "write a restorer whose capture(obj) returns its state"
        )
    return {name: getattr(obj, name) for name in held if hasattr(obj, name)}


def plain_state(captured: Any, world: Membership) -> dict[str, Any]:
    """The plain data of a captured state.

    Raises:
        EntityTypeError: `capture` returned no dict with text keys.
        UnstorableValueError: a value that is no plain data, with its path.
    """
    if type(captured) is not dict or any(type(key) is not str for key in captured):
        raise EntityTypeError(f"capture must return a dict with str keys, not {captured!r:.80}")
    return {name: _plain(item, world, (name,), 0) for name, item in captured.items()}


def _plain(value: Any, world: Membership, path: tuple[Any, ...], depth: int) -> Any:
    cls = type(value)
    if cls in ATOMS:
        return value
    if depth > MAX_DEPTH:
        raise UnstorableValueError(path, f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
    record = world.record_of(value)
    if record is not None:
        return record.reference
    if cls in (list, tuple):
        return cls(_plain(item, world, (*path, index), depth + 1) for index, item in enumerate(value))
    if cls is dict:
        for key in value:
            check_plain({key: None}, path)
        return {key: _plain(item, world, (*path, key), depth + 1) for key, item in value.items()}
    if cls is set:
        return {_plain(item, world, path, depth + 1) for item in value}
    if isinstance(value, enum.Enum):
        return plain_enum(value, world.types)
    if kind_of(value) is not None:
        return plain_of(value, world)
    names = field_names(cls)
    if names is None:
        if cls is not Tagged:
            _check(value, path, world)
        return value
    fields = {name: _plain(getattr(value, name), world, (*path, name), depth + 1) for name in names}
    return Tagged("value" if _is_frozen(cls) else "part", world.types.register(cls), fields)


def _check(value: Any, path: tuple[Any, ...], world: Membership) -> None:
    try:
        check_plain(value, path)
    except UnstorableValueError:
        plain_of(value, world) if not path else None
        raise


def _is_frozen(cls: type) -> bool:
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None:
        return bool(parameters.frozen)
    config = getattr(cls, "model_config", None)
    if isinstance(config, dict):
        return bool(config.get("frozen", False))
    return "__attrs_attrs__" in cls.__dict__ and "frozen" in getattr(cls.__setattr__, "__name__", "")  # attrs keeps no other sign


def revive(plain: Any, types: TypeTable, make: Callable[[type, dict[str, Any]], Any] | None = None) -> Any:
    """A copy of plain data in which tagged values are live objects; names nobody knows stay `Tagged`, references stay references."""
    cls = type(plain)
    if cls in ATOMS:
        return plain
    if cls in (list, tuple, set):
        return cls(revive(item, types, make) for item in plain)
    if cls is dict:
        return {key: revive(item, types, make) for key, item in plain.items()}
    if cls is not Tagged:
        return plain
    known = types.class_of(plain.name)
    if known is None:
        return plain
    if plain.kind == "enum":
        return revive_enum(known, plain)
    fields = {name: revive(item, types, make) for name, item in plain.data.items()}
    return (make or make_instance)(known, fields)


def revive_enum(cls: Any, plain: Tagged) -> Any:
    """The enum member that a tagged value names; itself when the class has no such member any more."""
    if isinstance(plain.data, str):
        return cls.__members__.get(plain.data, plain)
    try:
        return cls(plain.data)
    except ValueError:
        return plain


def make_instance(cls: Any, fields: dict[str, Any]) -> Any:
    """An object with these fields, without running its constructor: the state is complete as it was stored."""
    made = cls.__new__(cls)
    if hasattr(cls, "__pydantic_fields__"):
        object.__setattr__(made, "__dict__", dict(fields))
        object.__setattr__(made, "__pydantic_fields_set__", set(fields))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made
    setter = object.__setattr__ if kind_of(made) != "part" else setattr
    for name, item in fields.items():
        setter(made, name, item)
    return made


def assign_attributes(obj: Any, state: dict[str, Any]) -> None:
    """Put an object's captured attributes back; what the state does not name is left alone.

    Raises:
        AttributeError: the object refuses an assignment.
    """
    for name, item in state.items():
        setattr(obj, name, item)
