"""The objects that a function has in hand before it begins: its arguments, and what it names itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

__all__ = ["objects_in_hand"]


def objects_in_hand(function: Callable[..., Any] | None, arguments: Iterable[Any]) -> Iterator[Any]:
    """Yield the arguments and what lists, tuples, sets and dicts among them hold; the defaults, closure and globals that the function
    names.

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
        if isinstance(found, partial):
            yield from _items((*found.args, *found.keywords.values()))
            functions.append(found.func)
        elif isinstance(found, MethodType):
            yield found.__self__
            functions.append(found.__func__)
        elif isinstance(found, FunctionType):
            enclosed = list(_enclosed(found))
            yield from enclosed
            yield from _items((*(found.__defaults__ or ()), *(found.__kwdefaults__ or {}).values()))
            yield from (found.__globals__[name] for name in _names(found.__code__) if name in found.__globals__)
            functions += enclosed


def _items(values: Iterable[Any]) -> Iterator[Any]:
    waiting, seen = list(values), set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple | set | frozenset | Mapping):
            if id(value) not in seen:
                seen.add(id(value))
                waiting += value.values() if isinstance(value, Mapping) else value
        else:
            yield value


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
