"""The objects that a function has in hand before it begins: its arguments, and what it names itself.

Looking at them calls nothing of the application: a mapping of its own may load what it holds, and an object may stand for another one. So
what a value is, its own type says, and what a container holds, the list, tuple, set or dict that it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

__all__ = ["objects_in_hand"]


def objects_in_hand(function: Callable[..., Any] | None, arguments: Iterable[Any]) -> Iterator[Any]:
    """Yield the arguments and what lists, tuples, sets, deques and dicts among them hold; the defaults, closure and globals that it names.

    What a function has by its closure is looked into where it is a function too; nothing else is: an attribute of an object, an item of a
    global list.
    """
    yield from _items(arguments)
    seen: set[int] = set()
    functions: list[Any] = [function]
    while functions:
        found = functions.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        kind = type(found)
        if issubclass(kind, partial):
            yield from _items((*found.args, *found.keywords.values()))
            functions.append(found.func)
        elif kind is MethodType:
            yield found.__self__
            functions.append(found.__func__)
        elif kind is FunctionType:
            enclosed = list(_enclosed(found))
            yield from enclosed
            yield from _items((*(found.__defaults__ or ()), *(found.__kwdefaults__ or {}).values()))
            yield from (found.__globals__[name] for name in _names(found.__code__) if name in found.__globals__)
            functions += enclosed


_CONTAINERS: tuple[tuple[type, Callable[[Any], Iterable[Any]]], ...] = (
    (list, list.__iter__), (tuple, tuple.__iter__), (dict, dict.values), (set, set.__iter__), (frozenset, frozenset.__iter__),
    (deque, deque.__iter__),
)  # fmt: skip
"""Containers of which the items are looked at, and what gives them, whatever a class made of one says."""


def _items(values: Iterable[Any]) -> Iterator[Any]:
    waiting, seen = list(values), set[int]()
    while waiting:
        value = waiting.pop()
        look = next((look for kind, look in _CONTAINERS if issubclass(type(value), kind)), None)
        if look is None:
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += look(value)


def _enclosed(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it has no value yet
            continue


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code, and functions that are defined in it, may look up among the globals."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
