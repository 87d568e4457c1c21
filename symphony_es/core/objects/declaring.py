"""Which classes can be declared, and how one becomes the dataclass that is tracked.

A declared object keeps its fields in its `__dict__`, and only the library's `__setattr__` writes them. A class that keeps its fields
elsewhere, or writes them itself, is refused at the decorator, with what to do instead.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from symphony_es.annotated import add_annotation, annotations_of
from symphony_es.core.objects.plain import MISSING, kind_of
from symphony_es.errors import EntityTypeError
from symphony_es.shown import quoted

__all__ = ["as_dataclass", "complete_init", "declared_repr"]

_HEAP_TYPE = 1 << 9
"""The flag of classes that Python code has made; builtin ones have a layout of their own."""

_FOREIGN = {
    "__pydantic_fields__": "a pydantic model",
    "model_fields": "a pydantic model",
    "__attrs_attrs__": "an attrs class",
    "__struct_fields__": "a msgspec struct",
    "__mapper__": "a mapped SQLAlchemy class",
}
"""What gives away a class whose attributes another library manages -> what it is."""


_GENERATED_FILE = "<string>"
"""Where the code of the methods that `dataclasses` writes says that it comes from."""


def as_dataclass(cls: Any, kind: str) -> Any:
    """Make a class the dataclass that its declaration says; a dataclass's own mistakes are reported as ours.

    Raises:
        EntityTypeError: it cannot be declared.
    """
    for why in _hindrances(cls, kind):
        raise EntityTypeError(f"{getattr(cls, '__qualname__', cls)} cannot be declared with @{kind}: {why}")
    entity = kind == "entity"
    if entity and not any("id" in annotations_of(base) for base in cls.__mro__):
        add_annotation(cls, "id", "str")
        cls.id = dataclasses.field(default="", kw_only=True)
    keeps_repr = cls.__repr__ not in (object.__repr__, declared_repr) and not _is_generated(cls, "__repr__")
    by_identity = entity and _is_generated(cls, "__eq__")
    try:
        made = dataclasses.dataclass(cls, frozen=kind == "value", eq=not entity, repr=False)
    except (TypeError, ValueError) as error:
        raise EntityTypeError(f"{cls.__qualname__} cannot be declared with @{kind}: {error}") from error
    if not keeps_repr:
        made.__repr__ = declared_repr
    if by_identity:  # a base that is a plain dataclass compares by value, and cannot be hashed
        made.__eq__ = object.__eq__
        made.__hash__ = object.__hash__
    _check_fields(made, entity)
    return made


def _hindrances(cls: Any, kind: str) -> Iterator[str]:
    """Yield why a class cannot be declared, and what to do about it."""
    if not isinstance(cls, type):
        yield f"it is a {type(cls).__name__}, not a class"
        return
    known = getattr(cls, "_symphony_kind", None)
    if "_symphony_kind" in cls.__dict__:
        yield f"it is declared with @{known} already; keep one of the decorators"
    elif known is not None and known != kind:
        base = next(base for base in cls.__mro__ if "_symphony_kind" in base.__dict__)
        yield f"it derives from {base.__qualname__}, which is a @{known}; derive from what both have in common instead"
    yield from _foreign(cls)
    if "__slots__" in cls.__dict__:
        yield "it has __slots__, and tracked attributes are kept in its __dict__; leave __slots__ (or slots=True) out"
    if "__dataclass_params__" in cls.__dict__:
        yield f"it is a dataclass already; leave @dataclass out, @{kind} makes it one"
    yield from _writers(cls, kind)


def _foreign(cls: Any) -> Iterator[str]:
    if isinstance(cls, enum.EnumMeta):
        yield "it is an Enum; members of enums are stored as they are, so leave the decorator out"
    if cls.__dict__.get("_is_protocol"):
        yield "it is a Protocol, which has no objects; declare the classes that implement it"
    for mark, what in _FOREIGN.items():
        if hasattr(cls, mark):
            yield f"it is {what}, which manages its attributes itself; add its objects as they are, with a restorer for the class"
    for base in cls.__mro__:
        if base is object or base.__flags__ & _HEAP_TYPE:
            continue
        if issubclass(base, tuple):
            yield "it is a tuple; declare a class with these fields with @value"
        elif issubclass(base, BaseException):
            yield "it is an exception; keep what it says in fields of a class of your own"
        elif issubclass(base, dict) and not hasattr(cls, "__orig_bases__"):
            yield "it is a dict; hold the dict in a field"
        elif issubclass(base, dict):
            yield "it is a dict; hold the dict in a field, or declare a class with these fields with @part"
        elif base.__module__ != "typing":
            yield f"it derives from {base.__name__}; hold the {base.__name__} in a field"


def _writers(cls: Any, kind: str) -> Iterator[str]:
    for base in cls.__mro__[:-1]:
        params = base.__dict__.get("__dataclass_params__")
        if params is not None and params.frozen != (kind == "value") and "_symphony_kind" not in base.__dict__:
            other = "frozen" if params.frozen else "not frozen"
            yield f"it derives from the dataclass {base.__qualname__}, which is {other}; derive from a class without fields instead"
        if "_symphony_kind" in base.__dict__ or (params is not None and params.frozen):
            continue
        for name in ("__setattr__", "__delattr__"):
            if name in base.__dict__:
                yield f"{base.__qualname__} defines {name}, and assignments are tracked; use a property, or a method"


def _is_generated(cls: Any, name: str) -> bool:
    """Return whether a method that a class has, or inherits, is one that `dataclasses` wrote."""
    found = getattr(cls, name, None)
    code = getattr(getattr(found, "__wrapped__", found), "__code__", None)
    if code is None or code.co_filename != _GENERATED_FILE:
        return False
    return any(base.__dict__.get(name) is found and "__dataclass_fields__" in base.__dict__ for base in cls.__mro__)


def _check_fields(cls: Any, entity: bool) -> None:
    if entity and "id" not in [field.name for field in dataclasses.fields(cls)]:
        raise EntityTypeError(f"{cls.__qualname__}.id belongs to the class: each object has its own, declare `id: str = ''`")
    for field in dataclasses.fields(cls):
        if field.name.startswith("_"):
            raise EntityTypeError(
                f"{cls.__qualname__}.{field.name}: names that start with '_' are not part of a state; declare no field for it"
            )
        held = inspect.getattr_static(cls, field.name, None)
        if hasattr(type(held), "__set__") or isinstance(held, functools.cached_property):
            raise EntityTypeError(
                f"{cls.__qualname__}.{field.name} is a field and a {type(held).__name__}: give the field another name, "
                f"or leave out the annotation of the {type(held).__name__}"
            )
        if entity and field.name == "id" and field.default is not dataclasses.MISSING and not isinstance(field.default, str):
            raise EntityTypeError(f"{cls.__qualname__}.id is text, not {quoted(field.default)}: declare `id: str = ''`")


def complete_init(cls: Any, *, own_init: bool) -> Callable[..., None]:
    """Return `__init__` of a class, after which each field that has a default is set.

    `dataclasses` leaves the default of a field with `init=False` on the class, where tracking would not see it, and an `__init__` of
    the user's own need not set anything.
    """
    made_init: Callable[..., None] = cls.__init__
    late = [
        (field.name, make)
        for field in dataclasses.fields(cls)
        if (make := _default_of(field)) is not None and (own_init or (not field.init and field.default is not dataclasses.MISSING))
    ]
    if not late:
        return made_init

    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        made_init(self, *arguments, **named)
        for name, make in late:
            if name not in self.__dict__:
                setattr(self, name, make())

    return functools.wraps(made_init)(__init__)


def _default_of(field: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    if field.default is not dataclasses.MISSING:
        return lambda: field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory


def declared_repr(self: Any) -> str:
    """Return the fields of an object; entities that it refers to by their keys, fields that are secret as `***`."""
    cls, shown = type(self), []
    for field in dataclasses.fields(cls):
        item = getattr(self, field.name, MISSING)
        if field.name in cls._symphony_spec.secret:
            shown.append(f"{field.name}=***")
        elif kind_of(item) == "entity":
            shown.append(f"{field.name}=<{type(item)._symphony_spec.name}:{item.id}>")
        elif field.repr:
            shown.append(f"{field.name}={item!r}")
    return f"{cls.__name__ if cls._symphony_spec.kind == 'entity' else cls.__qualname__}({', '.join(shown)})"
