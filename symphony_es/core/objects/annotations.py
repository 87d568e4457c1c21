"""Which classes the annotations of classes and functions name: what a process knows of stored values before it meets one.

Each annotation is evaluated alone, and a name in it that cannot be found (defined later, or only for type checkers) leaves out itself
only. Whoever asks is told that something was left out, so that it can ask again.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import CodeType, FunctionType
from typing import Any

from symphony_es.annotated import UNREADABLE, annotations_of, evaluated

__all__ = ["Findings", "holds_data", "local_classes", "look_into"]

_OF_EVERY_MODEL = frozenset({"pydantic", "pydantic_settings"})
"""Libraries whose own classes stand above the models of every other library: who annotates one of them means none of these."""

CALLS_FOLLOWED = 3
"""How many calls deep the code of a workflow or restorer is followed to the functions that it names."""


def holds_data(cls: type) -> bool:
    """Return whether objects of a class are data: enums, declared classes, dataclasses, pydantic, attrs, named tuples."""
    return (
        issubclass(cls, enum.Enum)
        or "_symphony_spec" in cls.__dict__
        or "__dataclass_fields__" in cls.__dict__
        or "__attrs_attrs__" in cls.__dict__
        or isinstance(cls.__dict__.get("__pydantic_fields__"), dict)
        or (issubclass(cls, tuple) and isinstance(cls.__dict__.get("_fields"), tuple))
    )


class Findings:
    """What was found.

    Attributes:
        classes: the data classes, each once.
        complete: whether every name could be evaluated.
    """

    __slots__ = ("classes", "complete")

    def __init__(self) -> None:
        self.classes: dict[type, None] = {}
        self.complete = True


def look_into(source: Any, seen: Any) -> Findings:
    """Find the data classes that a class or function names in its annotations, at any depth.

    Of a function, the classes and functions that its body names count as well: what a workflow gets from a step seldom stands in an
    annotation of its own.

    Args:
        source: a class, a function or another callable.
        seen: classes and functions that have been looked into before, with `add` and `in`; it gets those that were evaluated completely.
    """
    findings = Findings()
    stack = [(source, 0)]
    begun: set[int] = set()
    while stack:
        item, calls = stack.pop()
        if isinstance(item, type):
            if issubclass(item, enum.Enum):
                findings.classes[item] = None
                continue
            looked_at: type | FunctionType | None = item
            if holds_data(item):
                findings.classes[item] = None
        else:
            looked_at, calls = _function_of(item), calls + 1
        if looked_at is None or calls > CALLS_FOLLOWED or id(looked_at) in begun or looked_at in seen or _is_ordinary(looked_at):
            continue
        begun.add(id(looked_at))
        names = _Names()
        inside = _in_class(looked_at, names) if isinstance(looked_at, type) else _in_function(looked_at, names)
        stack += [(found, calls) for found in inside]
        if names.complete:
            seen.add(looked_at)
        else:
            findings.complete = False
    return findings


def _is_ordinary(item: Any) -> bool:
    module = item.__module__
    root = module.partition(".")[0] if isinstance(module, str) else "builtins"
    return root in sys.stdlib_module_names or (root == "symphony_es" and not isinstance(item, type))


# -- what stands behind names -----------------------------------------------------------------------------------------


class _Unknown(type):
    """The class of what stands for a name that cannot be found: whatever an annotation does with it gives it again."""

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _NotFound(metaclass=_Unknown):
    pass


class _Names(dict[str, Any]):
    """The names that an annotation may use: those put in, then those of its module. One that is nowhere is `_NotFound`."""

    def __init__(self) -> None:
        super().__init__()
        self.module: Mapping[str, Any] = {}
        self.complete = True

    def __missing__(self, name: str) -> Any:
        for namespace in (self.module, _BUILTINS):
            if name in namespace:
                return namespace[name]
        self.complete = False
        return _NotFound

    def __contains__(self, name: object) -> bool:
        return True  # Python 3.14 asks before it takes

    def are_plain(self, text: str) -> bool:
        """Return whether all words of an annotation stand for what is no class of data."""
        module = self.module
        return all(
            word == "None" or id(self.get(word, module.get(word, _BUILTINS.get(word, self)))) in _PLAIN_IDS for word in _WORD.findall(text)
        )


_BUILTINS: Mapping[str, Any] = vars(sys.modules["builtins"])
_WORD = re.compile(r"\w+")
_PLAIN: tuple[Any, ...] = (
    str, int, float, bool, bytes, None, Any, dict, list, tuple, set, frozenset, object, Mapping, Sequence, datetime, timedelta,
)  # fmt: skip
"""Most annotations consist of these alone, and name no class of data: they need no evaluation."""
_PLAIN_IDS = frozenset(map(id, _PLAIN))


# -- what classes and functions name ----------------------------------------------------------------------------------


def _in_class(cls: type, names: _Names) -> Iterator[Any]:
    for base in cls.__mro__:
        if _is_ordinary(base):
            continue
        names.clear()
        names.module = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        names.update(base.__dict__.get("_symphony_names", {}))
        names.update((parameter.__name__, parameter) for parameter in getattr(base, "__type_params__", ()))
        names[base.__name__] = base
        yield from _classes_in(annotations_of(base).values(), names)
        yield from _classes_in(getattr(base, "__orig_bases__", ()), names)
    fields = cls.__dict__.get("__pydantic_fields__")
    if isinstance(fields, dict):
        yield from _classes_in([getattr(field, "annotation", None) for field in fields.values()], names)
    yield from (base for base in cls.__mro__[1:] if not _is_ordinary(base) and holds_data(base))
    if holds_data(cls) and "_symphony_spec" not in cls.__dict__ and cls.__module__.partition(".")[0] not in _OF_EVERY_MODEL:
        yield from type.__subclasses__(cls)  # what stands where the base is annotated


def _function_of(item: Any) -> FunctionType | None:
    while isinstance(item, functools.partial) or inspect.ismethod(item):
        item = item.func if isinstance(item, functools.partial) else item.__func__
    found = inspect.unwrap(item)
    if not isinstance(found, FunctionType):
        found = getattr(type(found), "__call__", None)  # noqa: B004  what a callable object does is a method of its class
    return found if isinstance(found, FunctionType) else None


def _in_function(function: FunctionType, names: _Names) -> Iterator[Any]:
    names.module = function.__globals__
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # it is assigned later
            names.complete = False
    yield from _classes_in(annotations_of(function).values(), names)
    for name in dict.fromkeys(_names_in(function.__code__)):
        found = names.get(name, function.__globals__.get(name))
        if isinstance(found, (FunctionType, functools.partial)) or (isinstance(found, type) and holds_data(found)):
            yield found


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _classes_in(annotations: Iterable[Any], names: _Names) -> Iterator[type]:
    """Yield the classes that annotations consist of, through generics, unions, aliases and texts, which may name themselves (`"JSON"`)."""
    stack = list(annotations)
    named: set[Any] = set()
    while stack:
        hint = stack.pop()
        origin = typing.get_origin(hint)
        if isinstance(hint, (str, typing.TypeVar)) or type(hint).__name__ == "TypeAliasType":
            if hint in named:
                continue
            named.add(hint)
        if isinstance(hint, str):
            stack += () if names.are_plain(hint) else _evaluated(hint, names)
        elif isinstance(hint, typing.ForwardRef):
            stack.append(hint.__forward_arg__)
        elif origin is typing.Literal:
            stack += [type(item) for item in typing.get_args(hint) if isinstance(item, enum.Enum)]
        elif origin is typing.Annotated:
            stack.append(typing.get_args(hint)[0])
        elif origin is not None and origin is not hint:  # `Generic` is its own
            stack += [origin, *typing.get_args(hint)]
        elif isinstance(hint, type):
            yield hint
        elif isinstance(hint, (list, tuple)):  # the parameters of a Callable
            stack += hint
        elif isinstance(hint, typing.TypeVar):
            stack += [hint.__bound__, *hint.__constraints__]
        elif isinstance(hint, typing.NewType):
            stack.append(hint.__supertype__)
        elif isinstance(hint, dataclasses.InitVar):
            stack.append(hint.type)
        elif type(hint).__name__ == "TypeAliasType":
            try:
                stack.append(hint.__value__)
            except UNREADABLE:  # it is evaluated when it is asked for
                names.complete = False


def _evaluated(text: str, names: _Names) -> list[Any]:
    try:
        return [evaluated(text, names)]
    except UNREADABLE:
        names.complete = False
        return []


def local_classes(depth: int) -> dict[str, type]:
    """Return the classes that the function around a decorated class has defined so far: its annotations may name them.

    Args:
        depth: how many calls lie between this one and that function.
    """
    frame = sys._getframe(depth + 1)
    if frame.f_locals is frame.f_globals:
        return {}
    return {name: item for name, item in frame.f_locals.items() if isinstance(item, type)}
