"""Making the objects of foreign classes that stand inside a foreign object's state, as entities and parts are made.

A field that the stored state lacks takes its default or factory, one that the class lacks is left out (the report says so, as the object
differs from its state), an older version passes through the `upcast` that the class was registered with. What is stored stays as it is:
validators run so that what is not stored comes back (private attributes, `model_post_init`, `__post_init__`), and what they do to a
stored field is undone. A class's `__restored__(self)` is called instead of its `__post_init__` where it has one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from symphony_es.core.objects.capture import GIVEN, field_names
from symphony_es.core.objects.everyday import Everyday, everyday_named
from symphony_es.core.objects.hooks import find_hook
from symphony_es.core.objects.making import Making, how_to_name, loosen, own_form
from symphony_es.core.objects.plain import ATOMS
from symphony_es.core.objects.types import TypeTable
from symphony_es.core.objects.upcasting import brought_up
from symphony_es.errors import RestorationError, UnknownValueError
from symphony_es.events.values import Tagged
from symphony_es.failures import has_failed
from symphony_es.shown import quoted

__all__ = ["rebuilt", "revive", "revive_with", "revived_apart"]


def revive(plain: Any, types: TypeTable) -> Any:
    """Return a copy of plain data in which tagged values are live objects; references stay references.

    Raises:
        UnknownValueError: a value cannot be made: its class is not known, or has changed too far.
    """
    making = Making(types)
    live = revive_with(plain, making)
    if making.unmade:
        raise UnknownValueError(making.unmade)
    return live


def revive_with(plain: Any, making: Making) -> Any:
    """Return the same; what cannot be made stays as it is stored, and is noted."""
    cls = type(plain)
    if cls in ATOMS:
        return plain
    if cls in (list, tuple, set):
        return cls(revive_with(item, making) for item in plain)
    if cls is dict:
        return {key: revive_with(item, making) for key, item in plain.items()}
    if cls is not Tagged:
        return plain
    known = making.types.class_of(plain.name)
    if known is None:
        return making.cannot(plain, how_to_name(plain))
    if plain.kind == "enum":
        return making.member(plain, known)
    if "_symphony_spec" in known.__dict__:
        return loosen(plain, making)
    return rebuilt(plain, known, making)


def revived_apart(plain: Any, making: Making) -> Any:
    """Return the same for an `upcast`: what cannot be made is a copy of its own."""
    cls = type(plain)
    if cls in (list, tuple, set):
        return cls(revived_apart(item, making) for item in plain)
    if cls is dict:
        return {key: revived_apart(item, making) for key, item in plain.items()}
    return own_form(revive_with(plain, making))


def _everyday(plain: Tagged, how: Everyday, making: Making) -> Any:
    failures = making.failures
    fields = revive_with(plain.data, making)
    if making.failures != failures:
        return plain
    try:
        return how.make(fields)
    except BaseException as error:  # whatever the class says of what is stored
        if not has_failed(error):
            raise
        return making.cannot(plain, f"no {plain.name} can be made of what is stored: {quoted(error, 200)}")


def rebuilt(plain: Tagged, cls: Any, making: Making) -> Any:
    """Return the object of a tagged value of a foreign class; what cannot be made stays as it is stored, and is noted."""
    how = everyday_named(plain.name)
    if how is not None:
        return _everyday(plain, how, making)
    if field_names(cls) is None:
        return making.cannot(
            plain, f"{cls.__qualname__} has no declared fields any more: give {quoted(plain.name)} an alias, or upcast the entity"
        )
    making.changed = True  # code of the application makes it: whether it is what is stored is seen when it is compared
    data, version, failures = plain.data, making.types.version_of(cls), making.failures
    if plain.state_version != version:
        upcast = making.types.upcast_of(cls)
        if upcast is None or plain.state_version > version:
            return making.cannot(
                plain,
                f"its version is {plain.state_version}, and {cls.__qualname__} has version {version}: call symphony.types.register("
                f"{cls.__name__}, state_version=..., upcast=...) with what turns (data, {plain.state_version}) into the fields of today",
            )
        try:
            data = brought_up(plain.name, upcast, data, (plain.state_version, version), making, revived_apart)
        except RestorationError as error:
            return making.cannot(plain, str(error))
    fields = {name: revive_with(item, making) for name, item in data.items()}
    if making.failures != failures:  # no object has a stored form inside
        return plain
    try:
        return _maker_of(cls)(cls, fields)
    except _MissingFieldError as error:
        return making.cannot(
            plain,
            f"what is stored of a {cls.__qualname__} has no {error}: give the field a default, or register the class with a state_version "
            "and an upcast",
        )
    except BaseException as error:  # it is code of the application: its entity is kept as it is stored, and says why
        if not has_failed(error):
            raise
        return making.cannot(
            plain, f"a {cls.__qualname__} could not be made ({quoted(error, 300)}): mend the class, or register it with an upcast"
        )


class _MissingFieldError(Exception):
    """A field has neither a stored value nor a default; the text is its name."""


def _maker_of(cls: Any) -> Callable[[Any, dict[str, Any]], Any]:
    if dataclasses.is_dataclass(cls):
        return _dataclass
    if hasattr(cls, "__attrs_attrs__"):
        return _attrs
    return _named_tuple if issubclass(cls, tuple) else _model


def _named_tuple(cls: Any, fields: dict[str, Any]) -> Any:
    defaults = cls._field_defaults
    return cls._make(_value(name, fields, defaults.get(name, _NOTHING)) for name in cls._fields)


def _value(name: str, fields: dict[str, Any], default: Any) -> Any:
    found = fields.get(name, default)
    if found is _NOTHING:
        raise _MissingFieldError(repr(name))
    return found


def _dataclass(cls: Any, fields: dict[str, Any]) -> Any:
    made, held = cls.__new__(cls), {}
    for field in dataclasses.fields(cls):
        if field.name in fields:
            held[field.name] = fields[field.name]
        elif field.default is not dataclasses.MISSING:
            held[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            held[field.name] = field.default_factory()
        elif field.init:
            raise _MissingFieldError(repr(field.name))  # any other is set by __post_init__
    return _wake(made, held, fields, find_hook(cls))


def _attrs(cls: Any, fields: dict[str, Any]) -> Any:
    nothing = sys.modules["attr"].NOTHING  # its class has been made: the library is loaded
    made, held = cls.__new__(cls), {}
    for attribute in cls.__attrs_attrs__:
        name, default = attribute.name, attribute.default
        if name in fields:
            held[name] = fields[name]
        elif hasattr(default, "factory") and hasattr(default, "takes_self"):
            _set_all(made, held)
            held[name] = default.factory(made) if default.takes_self else default.factory()
        elif default is not nothing:
            held[name] = default
        elif attribute.init:
            raise _MissingFieldError(repr(name))
    return _wake(made, held, fields, getattr(cls, "__restored__", None) or getattr(cls, "__attrs_post_init__", None))


def _wake(made: Any, held: dict[str, Any], stored: dict[str, Any], hook: Callable[[Any], None] | None) -> Any:
    """Set the fields and call the hook; a stored field has afterwards what is stored."""
    _set_all(made, held)
    if hook is not None:
        hook(made)
        _set_all(made, {name: item for name, item in held.items() if name in stored})
    return made


def _set_all(made: Any, held: dict[str, Any]) -> None:
    for name, item in held.items():
        object.__setattr__(made, name, item)


def _model(cls: Any, fields: dict[str, Any]) -> Any:
    """Return a pydantic model: validated by the names of its fields, and without validation where what is stored would not pass it."""
    declared = cls.__pydantic_fields__
    was_given = None if GIVEN in declared else fields.get(GIVEN)
    if was_given is not None:
        fields = {name: item for name, item in fields.items() if name != GIVEN}
    for name, field in declared.items():
        if name not in fields and field.is_required():
            raise _MissingFieldError(repr(name))
    is_open = cls.model_config.get("extra") == "allow"
    given = {name: item for name, item in fields.items() if is_open or name in declared}
    made = _validated(cls, given)
    if made is None:
        made = cls.model_construct(**{(field.alias or name): given[name] for name, field in declared.items() if name in given})
        if is_open:
            object.__setattr__(made, "__pydantic_extra__", {name: item for name, item in given.items() if name not in declared})
    made.__dict__.update({name: given[name] for name in declared if name in given})
    hook = getattr(cls, "__restored__", None)
    if hook is not None:
        hook(made)
        made.__dict__.update({name: given[name] for name in declared if name in given})
    object.__setattr__(made, "__pydantic_fields_set__", set(given) if was_given is None else {*was_given, *(given.keys() - declared)})
    return made


def _validated(cls: Any, given: dict[str, Any]) -> Any | None:
    root = getattr(cls, "__pydantic_root_model__", False)
    try:
        return cls.__pydantic_validator__.validate_python(given["root"] if root else given, by_alias=False, by_name=True)
    except (ValueError, TypeError, AttributeError, LookupError, AssertionError):
        # A ValidationError is a ValueError. What was stored was in an object, validated or not.
        return None


_NOTHING: Any = object()
