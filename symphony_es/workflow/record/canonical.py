"""Any value as plain data that is equal for equal values, in each process: what digests of inputs are made of.

An input is the application's: it may hold objects of any class, itself, or more than anybody wants to look at. So no code of the
application is asked here but that of time zones. What is equal is written alike whatever order it was built in. Values under the name of a
secret count by the name alone: a key that is changed between two attempts makes no other input, and no digest of a short password is
stored that could be guessed.
"""

from __future__ import annotations

import enum
import functools
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from symphony_es.core.objects.plain import kind_of
from symphony_es.errors import UnstorableValueError
from symphony_es.events.codec import pack
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Encrypted, Redacted, Tagged
from symphony_es.naming import stored_name
from symphony_es.raised import asks_the_program_to_end

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.members import Members
    from symphony_es.workflow.record.redaction import Redaction

__all__ = ["INPUT_DIGEST_BYTES", "SECRET", "VALUE_DIGEST_BYTES", "Canonical", "TooLargeError", "digest"]

INPUT_DIGEST_BYTES = 16
VALUE_DIGEST_BYTES = 8

MAX_DEPTH = 60
MAX_NODES = 1_000_000
"""So many values are looked at; lists that hold each other many times would otherwise never end."""

MAX_STATE_NODES = 100
"""So many values of an object of an ordinary class are looked at; one that holds more is told by its class."""

AS_THEY_ARE = frozenset({type(None), bool, int, str, bytes})
_PLAIN = frozenset({Decimal, UUID, timedelta, date, EntityReference, Redacted, Encrypted})
_MOMENTS = (datetime, time, date)
_TEXT = {str}
SECRET = Redacted("secret")
_NOT_A_SECRET = frozenset({type(None), bool})


class TooLargeError(Exception):
    """There is more than anybody wants to look at."""


def digest(value: Any, size: int = INPUT_DIGEST_BYTES) -> bytes:
    """Return the digest of what `Canonical` has made."""
    try:
        packed = pack(value)
    except UnicodeEncodeError:
        packed = pack(_writable(value))
    return blake2b(packed, digest_size=size).digest()


class Canonical:
    """Makes plain data of values; for one input.

    Args:
        world: whose entities count by their keys.
        redaction: says which names are those of secrets.
        with_state: also what objects of ordinary classes hold, where that is little and plain; without, they count by their class. What
            they hold is another thing once they have worked, and a replay does not let them work again.

    Attributes:
        entities: the records of the entities that were met, by key.
        has_objects: whether an object of an ordinary class was met.
        complete: whether everything could be looked at.
    """

    __slots__ = ("_around", "_left", "_redaction", "_with_state", "_world", "complete", "entities", "has_objects")

    def __init__(self, world: Members | None, redaction: Redaction, *, with_state: bool = True) -> None:
        self.entities: dict[str, EntityRecord | None] = {}
        self.has_objects = False
        self.complete = True
        self._world = world
        self._redaction = redaction
        self._with_state = with_state
        self._around: list[int] = []
        self._left = MAX_NODES

    def of(self, value: Any) -> Any:
        """Return the plain data of a value.

        Raises:
            TooLargeError: it holds more than `MAX_NODES` values.
        """
        cls = type(value)
        if cls in AS_THEY_ARE:
            if (cls is str or cls is bytes) and len(value) > 64:
                self._left -= len(value) >> 6
            return value
        if cls is float:
            return value if value == value else float("nan")
        if cls in _PLAIN:
            return value
        if cls is datetime or cls is time:
            return self._moment(value, cls)
        if len(self._around) >= MAX_DEPTH:
            self.complete = False
            return _tagged("deep", _name_of(cls))
        if id(value) in self._around:
            return _tagged("cycle", len(self._around) - self._around.index(id(value)))
        self._left -= 1
        if self._left < 0:
            raise TooLargeError
        self._around.append(id(value))
        try:
            return self._of_many(value, cls)
        finally:
            self._around.pop()

    def fields(self, given: dict[Any, Any]) -> Any:
        """Return the plain data of a dict; keys in order."""
        self._count(given)
        try:
            keys = sorted(given)
        except TypeError:
            keys = []
        if not given or {*map(type, keys)} == _TEXT:
            return {key: SECRET if self.hides(key, given[key]) else self.of(given[key]) for key in keys}
        pairs = [[digest(self.of(key)), self.of(item)] for key, item in given.items()]
        return _tagged("dict", sorted(pairs, key=lambda pair: pair[0]))

    def hides(self, name: str, value: Any) -> bool:
        """Return whether a value counts by the name of a secret alone."""
        return self._redaction.is_secret(name) and type(value) not in _NOT_A_SECRET

    @staticmethod
    def is_entity(made: Any) -> bool:
        """Return whether what `of` has made stands for an entity."""
        return type(made) is EntityReference

    @property
    def size(self) -> int:
        """How many values were looked at, and how many pieces of 64 characters of text."""
        return MAX_NODES - self._left

    def _count(self, held: Any) -> None:
        self._left -= len(held)
        if self._left < 0:
            raise TooLargeError

    def _items(self, held: Any) -> list[Any]:
        self._count(held)
        if AS_THEY_ARE.issuperset(map(type, held)):
            return list(held)
        return [self.of(item) for item in held]

    def _of_many(self, value: Any, cls: type) -> Any:
        if cls is list:
            return self._items(value)
        if cls is dict:
            return self.fields(value)
        if cls is tuple:
            return tuple(self._items(value))
        kind = kind_of(value)
        if kind == "container":
            return self._of_container(value, cls)
        if kind == "entity":
            return self._entity(value)
        if kind in ("part", "value"):
            spec = cls._symphony_spec  # type: ignore[attr-defined]
            held = _held(value, cls)
            return _tagged(spec.name, self.fields({name: held.get(name) for name in spec.fields}))
        if issubclass(cls, enum.Enum):
            return Tagged("enum", _name_of(cls), str(value._name_) if value._name_ is not None else int(value._value_))
        if cls in (set, frozenset):
            return _tagged("set", sorted(digest(item) for item in self._items(value)))
        if cls is Tagged:
            return _tagged(value.name, [value.kind, self.of(value.data)])
        return self._of_other(value, cls)

    def _of_container(self, value: Any, cls: type) -> Any:
        if issubclass(cls, dict):
            return self.fields(dict(value))
        if issubclass(cls, list):
            return self._items(list(value))
        return _tagged("set", sorted(digest(item) for item in self._items(set(value))))

    def _entity(self, value: Any) -> EntityReference:
        record = self._world.record_of(value) if self._world is not None else None
        reference = record.reference if record is not None else EntityReference(type(value)._symphony_spec.name, str(value.id))
        self.entities[reference.key] = record
        return reference

    def _of_other(self, value: Any, cls: type) -> Any:
        """Return what is neither plain data nor declared: first what has a form that everybody knows, then by class and what it holds."""
        if issubclass(cls, _MOMENTS):
            return _tagged(_name_of(cls), self._moment(value, next(base for base in _MOMENTS if issubclass(cls, base))))
        for base, make in _KNOWN.items():
            if issubclass(cls, base):
                found = make(value)
                inner = found if cls is base else [found, self._state(value, cls)]
                return _tagged(_name_of(cls), self._items(inner) if type(inner) is list else self.of(inner))
        if issubclass(cls, _CALLABLES):
            return self._callable(value)
        record = self._world.record_of(value) if self._world is not None else None
        if record is not None:
            self.entities[record.key] = record
            return record.reference
        buffer = _buffer(value)
        if buffer is not None:
            return _tagged(_name_of(cls), buffer)
        names = _field_names(cls)
        if names is not None:
            held = _held(value, cls)
            return _tagged(_name_of(cls), self.fields({name: held[name] for name in names if name in held}))
        return self._object(value, cls)

    def _moment(self, value: Any, cls: type) -> Any:
        try:
            if type(value) is cls:
                with suppress(UnstorableValueError):  # a time zone that no event could hold
                    pack(value)
                    return value
            text = cls.isoformat(value)  # type: ignore[attr-defined]
        except BaseException as error:  # a time zone is the application's code
            if asks_the_program_to_end(error):
                raise
            self.complete = False
            text = _name_of(type(value))
        return _tagged(_name_of(cls), text)

    def _callable(self, value: Any) -> Any:
        """Count a function by its name, and by its code where objects count by what they hold."""
        from symphony_es.workflow.record.functions import function_digest  # it needs this module

        if isinstance(value, functools.partial):
            return _tagged("partial", [self.of(value.func), self._items(list(value.args)), self.fields(value.keywords)])
        if isinstance(value, MethodType):
            return _tagged("method", [self.of(value.__func__), self.of(value.__self__)])
        code = None
        if isinstance(value, (FunctionType, type)):
            self.has_objects = True  # the code of one differs from version to version of Python, and a run outlives them
            code = function_digest(value) if self._with_state else None
        return _tagged("name", [_name_of(value), code])

    def _object(self, value: Any, cls: type) -> Any:
        self.has_objects = True
        held = self._state(value, cls) if self._with_state else None
        if held is None or not held:
            self.complete = False
        return _tagged(_name_of(cls), held)

    def _state(self, value: Any, cls: type) -> Any:
        """Return what an object holds, where that is plain and little; else None."""
        if not self._with_state:
            return None
        held = _held(value, cls)
        if len(held) > MAX_STATE_NODES or not all(type(item) in AS_THEY_ARE or type(item) is float for item in held.values()):
            return None
        return self.fields(held)


def _tagged(name: str, data: Any) -> Tagged:
    return Tagged("value", name, data)


def _name_of(item: Any) -> str:
    """Return the stored name of a class or function; of what has none, its class's."""
    if isinstance(item, ModuleType):
        return str(item.__name__)
    if type(getattr(item, "__qualname__", None)) is not str:
        item = type(item)
    return stored_name(item)


def _held(value: Any, cls: type) -> dict[str, Any]:
    """Return the attributes of an object, in its dict and its slots, without asking code of its class."""
    held: dict[str, Any] = {}
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            mangled = f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            member: Any = vars(base).get(mangled)
            if type(member) is _MEMBER:
                try:
                    held[str(name)] = member.__get__(value)
                except AttributeError:  # not set
                    continue
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return held
    if isinstance(own, dict):
        held.update((key, item) for key, item in own.items() if type(key) is str)
    return held


def _field_names(cls: type) -> list[str] | None:
    """Return the fields of a dataclass, a pydantic or an attrs class; None of any other."""
    fields = cls.__dict__.get("__dataclass_fields__") or getattr(cls, "__dataclass_fields__", None)
    if isinstance(fields, dict):
        return [str(name) for name in fields]
    for name in ("__pydantic_fields__", "model_fields"):
        declared = vars(cls).get(name)
        if isinstance(declared, dict):
            return [str(field) for field in declared]
    attrs = getattr(cls, "__attrs_attrs__", None)
    return [str(attribute.name) for attribute in attrs] if isinstance(attrs, tuple) else None


def _buffer(value: Any) -> list[Any] | None:
    """Return form and bytes of an array; None of what is none, or holds addresses."""
    try:
        view = memoryview(value)
        return None if "O" in view.format or "P" in view.format else [view.format, list(view.shape or ()), view.tobytes()]
    except (TypeError, ValueError, BufferError, NotImplementedError):
        return None


class _Slots:
    __slots__ = ("one",)


_MEMBER: Any = type(vars(_Slots)["one"])
_CALLABLES = (FunctionType, BuiltinFunctionType, MethodType, functools.partial, type, ModuleType, type(str.join))
_KNOWN: dict[type, Callable[[Any], Any]] = {
    PurePath: str,
    str: lambda value: str.__str__(value),
    int: lambda value: int.__int__(value),
    float: lambda value: float.__float__(value),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    bytearray: bytes,
    complex: lambda value: [value.real, value.imag],
    range: lambda value: [value.start, value.stop, value.step],
    slice: lambda value: [value.start, value.stop, value.step],
    re.Pattern: lambda value: [value.pattern, value.flags],
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list.__getitem__(value, slice(None)),
    tuple: lambda value: list(tuple.__iter__(value)),
    deque: lambda value: list(deque.__iter__(value)),
    MappingProxyType: dict,
    Decimal: lambda value: str(Decimal(value)),
    UUID: lambda value: int(value.int).to_bytes(16, "big"),
    timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: set(frozenset.__iter__(value)),
    type(Ellipsis): str,
}


def _writable(value: Any) -> Any:
    """Return the same, with text that cannot be encoded as the bytes that stand for it."""
    if type(value) is str:
        return value if value.isascii() else _tagged("str", value.encode("utf-8", "surrogatepass"))
    if type(value) is list:
        return [_writable(item) for item in value]
    if type(value) is tuple:
        return tuple(_writable(item) for item in value)
    if type(value) is dict:
        return _tagged("dict", [[_writable(key), _writable(item)] for key, item in value.items()])
    if type(value) is Tagged:
        return _tagged(value.name.encode("ascii", "backslashreplace").decode(), [value.kind, _writable(value.data)])
    return value
