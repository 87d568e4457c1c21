"""Dataclasses whose `__init__` is compiled when many are made.

The standard library writes and compiles up to seven methods for each class while its module is imported: about 4.5 million instructions
for a frozen class of six fields, of 0.1 for the class itself. Most processes make objects of few of these classes. So the first
ones are filled without it, and the other methods are closures that need no compiling. Everything else, `fields`, `replace`, `asdict`,
matching, copying and inheritance, is as the standard library has it; what is not known here is refused at the declaration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from types import FunctionType
from typing import TYPE_CHECKING, Any

from symphony_es.annotated import signature
from symphony_es.shown import message

__all__ = ["dataclass"]

FILLED = 32
"""So many objects of a class are made before its `__init__` is compiled."""


def _dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False, repr: bool = True, eq: bool = True) -> Any:  # noqa: A002
    """Decorate like `dataclasses.dataclass`, with those of its arguments that are used here. A `__setattr__` of the class's own stays.

    Raises:
        TypeError: the class has what is not known here (`InitVar`), or what the standard library refuses.
    """

    def declare(cls: type[Any]) -> Any:
        return _declared(cls, frozen=frozen, slots=slots, kw_only=kw_only, shown=repr, compared=eq)

    return declare


def _declared(cls: type[Any], *, frozen: bool, slots: bool, kw_only: bool, shown: bool, compared: bool) -> Any:
    own = cls.__dict__
    of_frozen = _derives_from_frozen(cls, frozen)
    documented = cls.__doc__
    cls.__doc__ = documented or "-"  # else the signature would be looked at here
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=of_frozen, slots=slots, kw_only=kw_only)(cls)
    if not documented:
        made.__doc__ = _Doc()
    params = made.__dataclass_params__  # a subclass is held against them, and whoever looks is told what the class is like
    params.init, params.repr, params.eq, params.frozen = True, shown, compared, frozen
    fields = dataclasses.fields(made)
    _check(cls, made, fields)
    methods: dict[str, Any] = {"__init__": _Init(made, fields, frozen=frozen, slots=slots)}
    if shown:
        methods["__repr__"] = _repr_of([field.name for field in fields if field.repr])
    if compared:
        methods["__eq__"] = _eq_of([field.name for field in fields if field.compare])
    if frozen and not of_frozen:
        methods["__setattr__"], methods["__delattr__"] = _refusals(made, frozenset(field.name for field in fields))
    if frozen and slots:
        methods["__getstate__"], methods["__setstate__"] = _state_of, _take_state
    for name, method in methods.items():
        if name not in own:
            _give(made, name, method)
    if compared and own.get("__hash__") is None:
        hashed = [field.name for field in fields if (field.compare if field.hash is None else field.hash)]
        _give(made, "__hash__", _hash_of(hashed) if frozen else None)
    return made


def _derives_from_frozen(cls: type[Any], frozen: bool) -> bool:
    bases = [base for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]
    of_frozen = [bool(base.__dict__["__dataclass_params__"].frozen) for base in bases if "__dataclass_params__" in base.__dict__]
    if frozen and not all(of_frozen):
        raise TypeError("cannot inherit frozen dataclass from a non-frozen one")
    return frozen and bool(of_frozen)


def _check(cls: type[Any], made: Any, fields: tuple[dataclasses.Field[Any], ...]) -> None:
    """Refuse what is not known here, and what the standard library would say only when it writes `__init__`."""
    kinds: dict[str, Any] = made.__dataclass_fields__
    for name, field in kinds.items():
        if field._field_type.name == "_FIELD_INITVAR":
            raise TypeError(message(f"the field {name!r} of {cls.__qualname__} is an InitVar: use dataclasses.dataclass"))
    optional = False
    for field in fields:
        if field.init and not field.kw_only:
            if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
                optional = True
            elif optional:
                raise TypeError(message(f"non-default argument {field.name!r} follows default argument"))


def _give(made: Any, name: str, method: Any) -> None:
    if isinstance(method, FunctionType):
        method.__module__, method.__qualname__ = made.__module__, f"{made.__qualname__}.{name}"
    setattr(made, name, method)


class _Doc:
    """The doc of a class that has none: its signature, as the standard library says it, once somebody asks."""

    def __get__(self, instance: object, owner: type[Any]) -> str | None:
        return owner.__name__ + str(signature(owner)).replace(" -> None", "") if vars(owner).get("__doc__") is self else None


class _Init:
    """The place of an `__init__` until it has been compiled.

    The first objects of a class are filled field by field: that costs a seventieth of what compiling does, and a process makes one or two
    objects of most classes. It is compiled for more objects, for arguments that do not fit, and for those who ask for the function.
    """

    def __init__(self, cls: type[Any], fields: tuple[dataclasses.Field[Any], ...], frozen: bool, slots: bool) -> None:
        self._cls = cls
        self._fields = fields
        self._frozen, self._slots = frozen, slots
        self._left = FILLED

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        # For a signature, `inspect` of Python 3.13 and later asks with the class in the place of the object.
        if instance is None or not self._left or isinstance(instance, type):
            return self._compiled().__get__(instance, owner)
        self._left -= 1
        return partial(self._fill, instance)

    def _fill(self, instance: Any, /, *args: Any, **given: Any) -> None:
        values = self._values(args, given)
        if values is None:
            self._compiled()(instance, *args, **given)  # it says what is wrong
            return
        put = object.__setattr__ if self._frozen else setattr
        for name, value in values.items():
            put(instance, name, value)
        if hasattr(self._cls, "__post_init__"):
            instance.__post_init__()

    def _values(self, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any] | None:
        """Return what each field is set to, None where the arguments do not fit."""
        places = [field.name for field in self._fields if field.init and not field.kw_only]
        left = dict(zip(places, args, strict=False))
        if len(args) > len(places) or not left.keys().isdisjoint(given):
            return None
        left.update(given)
        values: dict[str, Any] = {}
        for field in self._fields:
            if field.init and field.name in left:
                values[field.name] = left.pop(field.name)
            elif field.default_factory is not dataclasses.MISSING:
                values[field.name] = field.default_factory()
            elif field.default is not dataclasses.MISSING:
                if field.init or self._slots:  # else the class has it
                    values[field.name] = field.default
            elif field.init:
                return None
        return None if left else values

    def _compiled(self) -> Any:
        cls: Any = self._cls
        namespace: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": "-"}
        namespace["__annotations__"] = {field.name: field.type for field in self._fields}
        namespace.update((field.name, field) for field in self._fields)
        if hasattr(cls, "__post_init__"):
            namespace["__post_init__"] = cls.__post_init__
        plain = type(cls.__name__, (), namespace)
        made: Any = dataclasses.dataclass(repr=False, eq=False, frozen=self._frozen, slots=self._slots)(plain)
        cls.__init__ = made.__init__
        return made.__init__


def _repr_of(names: list[str]) -> Callable[[Any], str]:
    def __repr__(self: Any) -> str:
        return f"{self.__class__.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    __repr__.__qualname__ = "__create_fn__.<locals>.__repr__"  # by that pprint knows that it may show the fields
    told: Any = recursive_repr()(__repr__)
    told.__wrapped__ = __repr__
    return told  # type: ignore[no-any-return]


def _eq_of(names: list[str]) -> Callable[[Any, object], bool]:
    values = _values_of(names)

    def __eq__(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    __eq__.__code__ = __eq__.__code__.replace(co_filename="<string>")  # by that pytest knows that it may compare field by field
    return __eq__


def _hash_of(names: list[str]) -> Callable[[Any], int]:
    values = _values_of(names)

    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __hash__


def _values_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    read: Any = attrgetter(*names)
    return read if len(names) > 1 else lambda instance: (read(instance),)


def _refusals(cls: type[Any], names: frozenset[str]) -> tuple[Any, Any]:
    def __setattr__(self: Any, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return __setattr__, __delattr__


def _state_of(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _take_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass
