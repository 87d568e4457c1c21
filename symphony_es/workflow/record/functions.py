"""A digest of the code of one function: 8 bytes that are the same in each process, and others when the code is another.

Module, qualified name, bytecode, names and constants count, also those of what the function wraps and closes over. Of values that it closes
over, or has as defaults, those count that cannot change: texts, numbers, tuples, members of enums, times, and so on. Lists, dicts, sets and
other objects count by their class: what is in them changes while the program runs. What a function calls by name does not count: that has
digests of its own, or none.
"""

from __future__ import annotations

import enum
import functools
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from symphony_es.events.codec import pack
from symphony_es.events.values import Tagged
from symphony_es.naming import stored_name

__all__ = ["CODE_DIGEST_BYTES", "Parameters", "closed_over", "constant_of", "function_digest", "parameters_of"]

CODE_DIGEST_BYTES = 8
MAX_WRAPPED = 32
"""So many functions that wrap each other, or that a function closes over, are looked at."""

_VARARGS = 0x04
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_TOLD_BY_REPR = frozenset({"datetime", "decimal", "fractions", "re", "uuid", "zoneinfo"})
"""Modules of the standard library whose values do not change, and are written by `repr` in the same way in each process."""


class Parameters(NamedTuple):
    """What is known of a function.

    Attributes:
        code: whose these are.
        digest: of the code.
        names: of the parameters that positional arguments fill, in order.
    """

    code: CodeType
    digest: bytes
    names: tuple[str, ...]


_known: WeakKeyDictionary[FunctionType, Parameters] = WeakKeyDictionary()
"""By function; one whose code was replaced in place, as reloading does it, is looked at again."""


def parameters_of(function: FunctionType) -> Parameters:
    """Return what is known of a function; looked at once."""
    known = _known.get(function)
    if known is None or known.code is not function.__code__:
        code = function.__code__
        wrapped = function.__dict__.get("__wrapped__")
        names = parameters_of(wrapped).names if type(wrapped) is FunctionType else code.co_varnames[: code.co_argcount]
        known = _known[function] = Parameters(code, _digest([_function(function, [])]), names)
    return known


def function_digest(fn: Any) -> bytes:
    """Return the digest of a function, method, partial, class, or callable object; of what has no code of its own, that of its name."""
    if type(fn) is FunctionType:
        return parameters_of(fn).digest
    return _digest(_parts(fn, []))


def _digest(parts: Any) -> bytes:
    try:
        packed = pack(parts)
    except UnicodeEncodeError:
        packed = repr(parts).encode("utf-8", "backslashreplace")
    return blake2b(packed, digest_size=CODE_DIGEST_BYTES).digest()


def _parts(fn: Any, seen: list[Any]) -> Any:
    if any(fn is other for other in seen) or len(seen) >= MAX_WRAPPED:
        return None
    if type(fn) is FunctionType:
        return _function(fn, seen)
    seen.append(fn)
    if isinstance(fn, functools.partial):
        return ["partial", _parts(fn.func, seen)]
    if isinstance(fn, MethodType):
        return ["method", _name(type(fn.__self__)), _parts(fn.__func__, seen)]
    if isinstance(fn, (staticmethod, classmethod)):
        return _parts(fn.__func__, seen)
    if isinstance(fn, type):
        methods = {name: _parts(_plain(item), seen) for name, item in vars(fn).items() if type(_plain(item)) is FunctionType}
        return ["class", _name(fn), dict(sorted(methods.items()))]
    if isinstance(fn, BuiltinFunctionType):
        return ["builtin", _name(fn)]
    wrapped = _attribute(fn, "__wrapped__") or _attribute(fn, "function")
    call = getattr(type(fn), "__call__", None)  # noqa: B004 - the function of the class
    inner = _parts(wrapped, seen) if callable(wrapped) else None
    return ["object", _name(type(fn)), _parts(call, seen) if type(call) is FunctionType else None, inner]


def _attribute(item: Any, name: str) -> Any:
    try:
        return object.__getattribute__(item, "__dict__").get(name)
    except AttributeError:
        return None


def _plain(item: Any) -> Any:
    return item.__func__ if isinstance(item, (staticmethod, classmethod)) else item.fget if isinstance(item, property) else item


def _function(function: FunctionType, seen: list[Any]) -> Any:
    seen.append(function)
    wrapped = function.__dict__.get("__wrapped__")
    around = [_closed_over(content, seen) for content in closed_over(function)]
    return [
        _name(function),
        _code(function.__code__),
        [_constant(value) for value in function.__defaults__ or ()],
        {str(name): _constant(value) for name, value in sorted((function.__kwdefaults__ or {}).items())},
        around,
        _parts(wrapped, seen) if callable(wrapped) else None,
    ]


def closed_over(function: FunctionType) -> list[Any]:
    """Return what a function closes over, in the order of the names; not the class that `super()` means, whose other methods are others."""
    contents = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:  # empty as yet
            content = None
        if name != "__class__":
            contents.append(content)
    return contents


def constant_of(value: Any) -> Any:
    """Return what stands for a value that code holds: the value itself where it cannot change, else its class."""
    return _constant(value)


def _closed_over(content: Any, seen: list[Any]) -> Any:
    if isinstance(content, functools.partial):
        keywords = {str(name): _constant(value) for name, value in sorted(content.keywords.items())}
        return [_parts(content, seen), [_constant(value) for value in content.args], keywords]
    if isinstance(content, (FunctionType, MethodType, BuiltinFunctionType, type)):
        return _parts(content, seen)
    return _constant(content)


def _code(code: CodeType) -> list[Any]:
    return [code.co_code, list(code.co_names), [_constant(value) for value in code.co_consts]]


def _constant(value: Any) -> Any:
    """Return what stands for a constant or a default: its value where that is one in each process, else its class."""
    if type(value) in _SCALARS:
        return value if value == value else "nan"
    if type(value) is CodeType:
        return _code(value)
    if type(value) is tuple:
        return tuple(_constant(item) for item in value)
    if type(value) is frozenset:
        return Tagged("value", "frozenset", sorted(pack(_constant(item)) for item in value))
    if type(value) is complex:
        return [value.real, value.imag]
    if type(value) is FunctionType:
        return _name(value)
    if isinstance(value, enum.Enum):
        return Tagged("value", "enum", [_name(type(value)), value.name])
    if type(value) is range or type(value).__module__ in _TOLD_BY_REPR:
        return Tagged("value", "text", [_name(type(value)), repr(value)])
    return Tagged("value", "object", _name(type(value)))


def _name(item: Any) -> str:
    return stored_name(item) if type(getattr(item, "__qualname__", None)) is str else stored_name(type(item))
