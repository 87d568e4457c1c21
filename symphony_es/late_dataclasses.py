"""Dataclasses whose `__init__` is compiled when one is made for the first time.

The standard library writes and compiles up to seven methods for each class while its module is imported: about 4.5 million instructions
for a frozen class of six fields, of 0.1 for the class itself. Most processes make objects of few of these classes. So `__init__` is the
library's own, made at first use, and the other methods are closures that need no compiling. Everything else, `fields`, `replace`, `asdict`,
matching, copying and inheritance, is as the standard library has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]


def _dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False, repr: bool = True, eq: bool = True) -> Any:  # noqa: A002
    """As `dataclasses.dataclass`, with those of its arguments that are used here; `InitVar` is not known."""

    def declare(cls: type[Any]) -> Any:
        return _declared(cls, frozen=frozen, slots=slots, kw_only=kw_only, shown=repr, compared=eq)

    return declare


def _declared(cls: type[Any], *, frozen: bool, slots: bool, kw_only: bool, shown: bool, compared: bool) -> Any:
    own = cls.__dict__
    of_frozen = frozen and any(base.__dict__["__dataclass_params__"].frozen for base in cls.__mro__[1:] if dataclasses.is_dataclass(base))
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=of_frozen, slots=slots, kw_only=kw_only)(cls)
    params = made.__dataclass_params__  # a subclass is held against them, and whoever looks is told what the class is like
    params.init, params.repr, params.eq, params.frozen = True, shown, compared, frozen
    fields = dataclasses.fields(made)
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
            setattr(made, name, method)
    if compared and own.get("__hash__") is None:
        hashed = [field.name for field in fields if (field.compare if field.hash is None else field.hash)]
        made.__hash__ = _hash_of(hashed) if frozen else None
    return made


class _Init:
    """The place of an `__init__` until somebody asks for it."""

    def __init__(self, cls: type[Any], fields: tuple[dataclasses.Field[Any], ...], frozen: bool, slots: bool) -> None:
        self._cls = cls
        self._fields = fields
        self._frozen, self._slots = frozen, slots

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        cls: Any = self._cls
        namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        if hasattr(cls, "__post_init__"):
            namespace["__post_init__"] = cls.__post_init__
        given = [(field.name, field.type, field) for field in self._fields]
        made: Any = dataclasses.make_dataclass(
            cls.__name__, given, namespace=namespace, repr=False, eq=False, frozen=self._frozen, slots=self._slots
        )
        cls.__init__ = made.__init__
        return made.__init__.__get__(instance, owner)


def _repr_of(names: list[str]) -> Callable[[Any], str]:
    @recursive_repr()
    def __repr__(self: Any) -> str:
        return f"{self.__class__.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _eq_of(names: list[str]) -> Callable[[Any, object], bool]:
    values = _values_of(names)

    def __eq__(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

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
