"""Between plain data and live values: what an entity's fields may hold, and how a change finds its way to its entity.

A *node* is a live value that can change in place: an entity, a part, a tracked list, dict or set. Each node but the entity has
one owner and the key it stands under, so that a change knows its path. `admit` turns what a user assigns into live values
(containers become tracked copies), `plain_of` turns live values into the plain data that is recorded.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from symphony_es.core.objects.types import TypeTable
from symphony_es.errors import UnrecordedChangeError, UnstorableValueError
from symphony_es.events.references import EntityReference, Path
from symphony_es.events.values import Encrypted, Redacted, Tagged, check_plain

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorded, Recorder

__all__ = ["ATOMS", "MISSING", "UNOWNED", "admit", "attributes_of", "kind_of", "locate", "objects_in", "own", "plain_of"]

_T = TypeVar("_T")

ATOMS = frozenset({type(None), bool, int, float, bytes, Decimal, UUID, date, timedelta, EntityReference, Redacted, Encrypted})
"""Types whose every value can be stored as it is; text and moments are looked at first."""

_LOOKED_AT = frozenset({str, datetime, time})
UNOWNED = ATOMS | _LOOKED_AT
"""Types whose values have no place of their own, so that replacing one takes nothing out of anywhere."""

MAX_DEPTH = 64
MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()

BUILDERS: dict[type, Callable[[Any, Recorder | None, int], Any]] = {}
"""Plain container type -> what makes its tracked copy; filled by the modules of the tracked ones."""

PLAIN_COPIES: dict[type, Callable[[Any, Recorder | None], Any]] = {}
"""Tracked container type -> what makes its plain copy; filled by the modules of the tracked ones."""


def kind_of(value: Any) -> str | None:
    """Return `entity`, `part`, `value`, `container`, or None for anything that was not declared."""
    kind = getattr(type(value), "_symphony_kind", None)
    return kind if type(kind) is str else None


def attributes_of(node: Any) -> dict[str, Any]:
    """Return the attributes of an entity or a part, as the dict that is written to.

    A new object gets a dict of its own. The one that CPython makes when it is asked for `__dict__` shares its keys with other objects
    of the class, and each attribute of the object then takes twice as long to read.
    """
    held: dict[str, Any] = node.__dict__
    if not held:
        held = {}
        object.__setattr__(node, "__dict__", held)
    return held


def admit(value: Any, world: Recorder | None, depth: int = 0) -> Any:
    """Return the live form of a value that a user assigns: itself, a tracked copy, or a refusal.

    Raises:
        UnstorableValueError: with a path relative to the value. Nothing has changed.
    """
    cls: Any = type(value)
    if cls in ATOMS or (cls is str and value.isascii()):
        return value
    if depth > MAX_DEPTH:
        raise UnstorableValueError((), f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if cls in _LOOKED_AT:
        check_plain(value)
        return value
    builder = BUILDERS.get(cls)
    if builder is not None:
        return builder(value, world, depth)
    kind = kind_of(value)
    if kind == "entity":
        return value
    if kind in ("part", "container"):
        return _admit_node(value, world)
    if cls is tuple:
        return tuple(_admit_fixed(item, world, depth, index, "a tuple") for index, item in enumerate(value))
    if kind == "value":
        declared: Any = _declared(cls)
        for name in declared._symphony_spec.fields:
            item = getattr(value, name, MISSING)
            if item is MISSING:
                raise UnstorableValueError((name,), _UNSET)
            _admit_fixed(item, world, depth, name, f"the @value {cls.__name__}")
        return value
    if isinstance(value, enum.Enum):
        return value
    if cls is Tagged:
        check_plain(value)
        return value
    if world is not None and world.takes_objects:
        boundary: Any = world
        kept = boundary.keep(value)
        if kept is not None:
            return kept
    if world is None or world.record_of(value) is not None:
        return value  # an object of a foreign class: looked up when its holder is added to a Symphony
    raise UnstorableValueError((), _way_out(value))


def _admit_node(value: Any, world: Recorder | None) -> Any:
    """Return a part or a tracked container: itself, or a copy where it belongs to an entity and cannot be taken from it.

    That is so for what is outside of the Symphony, and while the entity is another transaction's. What a run begins with is copied always.
    """
    _declared(type(value))
    from symphony_es.core.objects.places import clone  # it needs this module

    if value._symphony_owner is None:
        track(value)
        return clone(value) if world is not None and world.copies_parts else value
    record = record_above(value)
    if world is not None and world.copies_parts:
        return clone(value)
    return value if record is None or (world is not None and world.may_take(record)) else clone(value)


def track(node: Any) -> None:
    """Have plain containers tracked that were written into the `__dict__` of a new entity or part, as pydantic does when it makes one."""
    if kind_of(node) == "container":
        return
    for name in type(node)._symphony_spec.fields:
        item = node.__dict__.get(name)
        if type(item) in UNOWNED:
            continue
        if type(item) in BUILDERS:
            setattr(node, name, item)
        elif kind_of(item) == "part" and item._symphony_owner is None:
            track(item)


def _declared(cls: Any) -> Any:
    """Return a class as it is; one that only derives from a declared class is refused, as its own fields would be lost.

    Raises:
        UnstorableValueError: it is not declared itself.
    """
    if "_symphony_kind" in cls.__dict__:
        return cls
    base = next(base for base in cls.__mro__ if "_symphony_kind" in base.__dict__)
    kind = base._symphony_kind
    if kind == "container":
        raise UnstorableValueError((), f"{cls.__qualname__} is a subclass of {base.__name__} and would come back as one; convert it")
    raise UnstorableValueError(
        (),
        f"{cls.__qualname__} derives from the @{kind} {base.__qualname__} and is not declared itself: its own fields would be lost; "
        f"decorate it with @{kind}",
    )


def _admit_fixed(item: Any, world: Recorder | None, depth: int, key: str | int, holder: str) -> Any:
    """Return a member of something immutable: it must not be able to change in place, or its changes would go unrecorded."""
    may_change = world is None or not world.takes_objects  # what a step hands over does not change any more
    try:
        if may_change and (type(item) in BUILDERS or kind_of(item) in ("part", "container")):
            raise UnstorableValueError(
                (),
                f"a {type(item).__name__} inside {holder} could change without being recorded; use a tuple, or hold it in a list or @part",
            )
        return admit(item, world, depth + 1)
    except UnstorableValueError as error:
        raise error.within(None, (key,)) from None


_UNSET = "it has no value yet: set every field before the object is put anywhere"


def _way_out(value: Any) -> str:
    cls = type(value)
    for base in (dict, list, tuple, set, str, int, float, bytes, datetime):
        if isinstance(value, base):
            return (
                f"{cls.__qualname__} is a subclass of {base.__name__} and would come back as a plain {base.__name__}; "
                f"convert it with {base.__name__}(...), or declare a @value"
            )
    if cls is frozenset:
        return "a frozenset is not stored; use a set"
    return (
        f"{cls.__module__}.{cls.__qualname__} is no plain data; declare the class with @part (changes in place), @value (frozen) or "
        "@entity, add the object with symphony.entities.add(obj), or store plain data that describes it"
    )


def plain_of(live: Any, world: Recorder | None) -> Any:
    """Return the plain data of a live value: containers copied, entities as references, declared classes as tagged values."""
    cls: Any = type(live)
    if cls in ATOMS or cls in _LOOKED_AT:
        return live
    copier = PLAIN_COPIES.get(cls)
    if copier is not None:
        return copier(live, world)
    kind = kind_of(live)
    if kind == "entity":
        return EntityReference(cls._symphony_spec.name, live.id)
    if kind == "part":
        held = live.__dict__
        spec = cls._symphony_spec
        try:
            fields = {n: plain_at(held[n], world, n) for n in spec.fields}
        except KeyError:
            raise UnstorableValueError((next(n for n in spec.fields if n not in held),), _UNSET) from None
        return Tagged("part", spec.name, fields, state_version=spec.state_version)
    if kind == "value":
        spec = cls._symphony_spec
        return Tagged("value", spec.name, {n: plain_at(getattr(live, n), world, n) for n in spec.fields}, state_version=spec.state_version)
    if cls is tuple:
        return tuple(plain_at(item, world, index) for index, item in enumerate(live))
    if isinstance(live, enum.Enum):
        return plain_enum(live, world.types if world is not None else None)
    if cls is Tagged:
        return live
    record = world.record_of(live) if world is not None else None
    if record is None and world is not None and world.takes_objects:
        boundary: Any = world
        return boundary.plain(live)
    if record is None:
        raise UnstorableValueError((), _way_out(live))
    return record.reference


def plain_enum(member: enum.Enum, types: TypeTable | None) -> Tagged:
    """Return an enum member as it is stored; what belongs to no Symphony is looked at by a table of its own."""
    return (types or TypeTable()).tagged_member(member)


def plain_at(item: Any, world: Recorder | None, key: str | int) -> Any:
    """Return `plain_of`, with the key added to the path of a refusal."""
    cls = type(item)
    if cls in ATOMS or cls in _LOOKED_AT:
        return item
    try:
        return plain_of(item, world)
    except UnstorableValueError as error:
        raise error.within(None, (key,)) from None


def own(live: Any, owner: Any, key: str | int | None) -> None:
    """Make something the owner of a node that stands there; what cannot change in place has no owner."""
    if type(live) not in UNOWNED and kind_of(live) in ("part", "container"):
        live._symphony_owner = owner
        live._symphony_key = key + owner._symphony_base if isinstance(owner, list) else key  # type: ignore[attr-defined]


def locate(node: Any) -> tuple[Recorded | None, Path]:
    """Return the record of the entity a node belongs to and the node's path in it; (None, ...) while it belongs to none.

    Raises:
        UnrecordedChangeError: the node is not where it was put: something has written past the methods of what held it.
    """
    path: list[Any] = []
    start = node
    while True:
        if type(node)._symphony_kind == "entity":
            path.reverse()
            record: Recorded | None = node.__dict__.get("_symphony_record")
            if record is not None and MISSING in path:
                shown = path[: path.index(MISSING)]
                raise UnrecordedChangeError(record.key, shown, f"a {type(start).__name__} was taken out there")
            return record, tuple(path)
        owner = node._symphony_owner
        if owner is None or owner._symphony_kind == "detached":
            return None, ()
        path.append(owner._symphony_key_of(node))
        node = owner


def refuse_cycle(node: Any, live: Any) -> None:
    """Refuse a value that holds the node it is to be put into: parts and containers form a tree.

    Raises:
        UnstorableValueError: it does. Nothing has changed.
    """
    if type(node)._symphony_kind != "entity" and any(item is node for item in _walk(live)):
        raise UnstorableValueError((), "a part or container cannot contain itself; refer to entities, or copy it")


def _walk(live: Any) -> Iterator[Any]:
    """Yield everything a live value holds, itself first; entities are not entered."""
    stack = [live]
    nodes: set[int] | None = None
    while stack:
        item = stack.pop()
        cls: Any = type(item)
        if cls in ATOMS or cls in _LOOKED_AT:
            continue
        kind = kind_of(item)
        if kind in ("part", "container"):  # past its methods, one may have been put into itself
            if nodes is None:
                nodes = {id(item)}
            elif id(item) in nodes:
                continue
            nodes.add(id(item))
        yield item
        if kind in ("part", "value"):
            stack.extend(getattr(item, name) for name in cls._symphony_spec.fields)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            stack.extend(item)


def record_above(node: Any) -> Recorded | None:
    """Return the record of the entity a node belongs to right now, looked up without a lock."""
    while node is not None:
        if type(node)._symphony_kind == "entity":
            record: Recorded | None = node.__dict__.get("_symphony_record")
            return record
        node = node._symphony_owner
    return None


def objects_in(live: Any, cls: type[_T]) -> list[_T]:
    """Return the objects of exactly a class that a live value holds, at any depth; entities are not entered."""
    return [item for item in _walk(live) if type(item) is cls]


def entities_in(live: Any) -> list[Any]:
    """Return the live entities that a live value holds, at any depth; what a new entity brings with it."""
    return [item for item in _walk(live) if kind_of(item) == "entity"]
