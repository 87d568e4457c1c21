"""`@entity`, `@part` and `@value`: declaring classes whose changes record themselves.

* An `@entity` is a dataclass with an id. Assigning an attribute, and changing a list, dict or set it holds, is recorded once
  the object was added to a Symphony.
* A `@part` is a dataclass that changes in place and belongs to one place in one entity, like a list does.
* A `@value` is a frozen dataclass of immutable data that is replaced whole.

Attributes whose names start with `_` are the application's own (a client, a cache): they are no part of the state.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

from symphony_es.core.objects.annotations import local_classes
from symphony_es.core.objects.copying import install_copying
from symphony_es.core.objects.declaring import as_dataclass, complete_init
from symphony_es.core.objects.hooks import find_hook
from symphony_es.core.objects.mutation import Mutation, put_back
from symphony_es.core.objects.places import Move, own_new
from symphony_es.core.objects.plain import ATOMS, BUILDERS, MISSING, UNOWNED, admit, attributes_of
from symphony_es.core.objects.restorers import restore_manager
from symphony_es.errors import EntityTypeError, UnstorableValueError
from symphony_es.events.changes import SET
from symphony_es.events.identifiers import check_entity_id, check_own_type, text_id, uuid7
from symphony_es.events.showing import keep_secret
from symphony_es.shown import quoted, shown

__all__ = ["ClassSpec", "entity", "new_id", "part", "value"]

T = TypeVar("T")
Upcast = Callable[[dict[str, Any], int], dict[str, Any]]


def new_id() -> str:
    """Return a new id: 26 characters whose order is the order of their making."""
    return text_id(uuid7(time.time_ns(), os.urandom(16)))


class ClassSpec:
    """What the decorators know of a class.

    Attributes:
        kind: `entity`, `part` or `value`.
        name: the registered name: an entity's type, a tagged value's name.
        fields: names of the fields that make up the state, in order.
        field_set: the same, for comparisons.
        state_version: version of the state's shape.
        upcast: turns a state of an older version into one of this version.
        secret: names of the fields whose values are not shown: those with `field(metadata={"secret": True})`.
        hook: what is called on an object that has been restored, or None; see `hooks`.
    """

    __slots__ = ("field_set", "fields", "hook", "kind", "name", "secret", "state_version", "upcast")

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        fields: tuple[str, ...],
        state_version: int,
        upcast: Upcast | None,
        hook: Callable[[Any], None] | None,
        secret: frozenset[str],
    ) -> None:
        self.kind = kind
        self.name = name
        self.fields = fields
        self.field_set = frozenset(fields)
        self.state_version = state_version
        self.upcast = upcast
        self.hook = hook
        self.secret = secret


@overload
def entity(cls: type[T], /) -> type[T]: ...
@overload
def entity(*, type: str | None = None, state_version: int = 1, upcast: Upcast | None = None) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(eq_default=False, field_specifiers=(dataclasses.field,))
def entity(cls: type[T] | None = None, /, *, type: str | None = None, state_version: int = 1, upcast: Upcast | None = None) -> Any:  # noqa: A002  the documented name
    """Declare an entity class: a dataclass with a field `id: str` that is made when left empty.

    Objects compare and hash by identity. A restorer that rebuilds every field is registered for the type; an explicitly
    registered one wins.

    Args:
        type: the entity type; the class's name when left out.
        state_version: raise it when the fields change shape, and give `upcast`.
        upcast: `upcast(data, from_version) -> data`, called when an older state is restored.

    Raises:
        EntityTypeError: the class declares no usable fields, or another class has the type.
    """

    surroundings = local_classes(1)

    def declare(target: Any) -> Any:
        own_init = "__init__" in getattr(target, "__dict__", ())
        made = as_dataclass(target, "entity")
        chosen = check_own_type(type or made.__name__)
        made._symphony_names = surroundings
        spec = _spec_of(made, "entity", chosen, state_version, upcast)
        _install(made, spec, _make_entity_setter(spec))
        _default_the_id(made, own_init=own_init)
        from symphony_es.core.objects.declared_restorer import DeclaredEntityRestorer  # it needs this module's ClassSpec

        restore_manager.register_default(DeclaredEntityRestorer(made))
        return made

    return declare if cls is None else declare(cls)


@overload
def part(cls: type[T], /) -> type[T]: ...
@overload
def part(*, name: str | None = None, state_version: int = 1, upcast: Upcast | None = None) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(eq_default=True, field_specifiers=(dataclasses.field,))
def part(cls: type[T] | None = None, /, *, name: str | None = None, state_version: int = 1, upcast: Upcast | None = None) -> Any:
    """Declare a part: a dataclass that changes in place and is owned by one place in one entity.

    A class that derives from a part is a part when it is decorated itself, and is refused as a value otherwise.

    Args:
        name: what it is stored under; `module:qualname` when left out.
        state_version: raise it when the fields change shape, and give `upcast`.
        upcast: `upcast(fields, from_version) -> fields`, called when a part of an older version is restored.

    Raises:
        EntityTypeError: the class declares no usable fields, or another class has the name.
    """
    surroundings = local_classes(1)

    def declare(target: Any) -> Any:
        own_init = "__init__" in getattr(target, "__dict__", ())
        made = as_dataclass(target, "part")
        made._symphony_names = surroundings
        spec = _spec_of(made, "part", restore_manager.types.register(made, name), state_version, upcast)
        restore_manager.types.learn(made)
        _install(made, spec, _make_part_setter(spec))
        made.__init__ = complete_init(made, own_init=own_init)
        made._symphony_owner = None
        return made

    return declare if cls is None else declare(cls)


@overload
def value(cls: type[T], /) -> type[T]: ...
@overload
def value(*, name: str | None = None, state_version: int = 1, upcast: Upcast | None = None) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def value(cls: type[T] | None = None, /, *, name: str | None = None, state_version: int = 1, upcast: Upcast | None = None) -> Any:
    """Declare a value: a frozen dataclass of immutable data, replaced whole.

    A class that derives from a value is a value when it is decorated itself, and is refused as a value otherwise.

    Args:
        name: what it is stored under; `module:qualname` when left out.
        state_version: raise it when the fields change shape, and give `upcast`.
        upcast: `upcast(fields, from_version) -> fields`, called when a value of an older version is restored.

    Raises:
        EntityTypeError: the class declares no usable fields, or another class has the name.
    """
    surroundings = local_classes(1)

    def declare(target: Any) -> Any:
        made = as_dataclass(target, "value")
        made._symphony_names = surroundings
        spec = _spec_of(made, "value", restore_manager.types.register(made, name), state_version, upcast)
        restore_manager.types.learn(made)
        made._symphony_kind = spec.kind
        made._symphony_spec = spec
        return made

    return declare if cls is None else declare(cls)


def _spec_of(cls: type, kind: str, name: str, state_version: int, upcast: Upcast | None) -> ClassSpec:
    if type(state_version) is not int or state_version < 1:
        raise EntityTypeError(f"the state_version of {cls.__qualname__} is a whole number from 1, not {shown(state_version)}")
    declared: Any = cls
    fields = tuple(field.name for field in dataclasses.fields(declared))
    secret = frozenset(field.name for field in dataclasses.fields(declared) if field.metadata.get("secret"))
    keep_secret(secret)
    return ClassSpec(kind=kind, name=name, fields=fields, state_version=state_version, upcast=upcast, hook=find_hook(cls), secret=secret)


def _install(cls: Any, spec: ClassSpec, setter: Any) -> None:
    cls._symphony_kind = spec.kind
    cls._symphony_spec = spec
    cls._symphony_at_boundary = getattr(cls, "_symphony_at_boundary", False)  # asked for at each change: found at once where it is set
    cls.__setattr__ = setter
    cls.__delattr__ = _refuse_delete
    install_copying(cls)
    cls._symphony_key_of = _key_of
    cls._symphony_undo = _undo


def _default_the_id(cls: Any, *, own_init: bool) -> None:
    """Let the id be left out, and make it when it is empty; an `__init__` of the user's own is handed none."""
    made_init = complete_init(cls, own_init=own_init)
    names = [field.name for field in dataclasses.fields(cls) if field.init and not field.kw_only]
    place = names.index("id") if "id" in names else sys.maxsize

    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        if not own_init and len(arguments) <= place and not named.get("id"):
            named["id"] = new_id()
        made_init(self, *arguments, **named)
        if not self.id:
            self.id = new_id()

    cls.__init__ = functools.wraps(made_init)(__init__)


def _make_entity_setter(spec: ClassSpec) -> Any:
    """Return `__setattr__` of an entity class: the hot path of change tracking, so the common case is written out.

    That is a value without a place of its own which replaces another one. Everything else goes through a `Mutation`.
    """
    paths = {name: (name,) for name in spec.fields if name != "id"}

    def __setattr__(self: Any, name: str, new: Any) -> None:
        if name in paths and (type(new) in ATOMS or (type(new) is str and new.isascii())):
            held = self.__dict__
            record = held.get("_symphony_record")
            if record is None:
                if type(held.get(name)) in UNOWNED:
                    attributes_of(self)[name] = new
                    if "_symphony_record" not in self.__dict__:
                        return
                    # It has been added by another thread meanwhile, perhaps with the value before: so it is assigned once more.
            else:
                lock = record.world.lock
                lock.acquire()  # `with` takes twice as long
                try:
                    try:
                        old = held[name]
                    except KeyError:  # somebody has taken it out of `__dict__`
                        old = MISSING
                    if type(old) in UNOWNED:
                        sink = record.sink()
                        held[name] = new
                        sink.keep((SET, paths[name], new), (_put_back, self, name, old))
                        return
                finally:
                    lock.release()
        if name in paths:
            _set_node_field(self, name, new)
        elif name == "id":
            _set_id(self, new)
        else:
            _set_other(self, name, new)

    return __setattr__


def _make_part_setter(spec: ClassSpec) -> Any:
    fields = frozenset(spec.fields)

    def __setattr__(self: Any, name: str, new: Any) -> None:
        if name in fields:
            _set_node_field(self, name, new)
        else:
            _set_other(self, name, new)

    return __setattr__


def _set_node_field(node: Any, name: str, new: Any) -> None:
    held = attributes_of(node)
    if name not in held and type(new) in BUILDERS and "_symphony_record" not in held and getattr(node, "_symphony_owner", None) is None:
        # It is being made: nobody else has it, and nothing is replaced or recorded.
        try:
            live = admit(new, None)
        except UnstorableValueError as error:
            raise error.within(None, (name,)) from None
        own_new(live, node, name)
        held[name] = live
        return
    with Mutation(node) as mutation:
        old = held.get(name, MISSING)
        if new is old and mutation.is_in_place(old, name):
            return
        live, plain = mutation.convert(new, name)
        changes = mutation.changes_at(name, old, live, plain)
        mutation.replace((old,), [live])
        held[name] = live
        mutation.settle([(name, live)])
        mutation.keep(changes, (node._symphony_undo, mutation.moves, name, old))
        mutation.bring(live)


def _set_id(node: Any, new: Any) -> None:
    record = node.__dict__.get("_symphony_record")
    if record is not None:
        if type(new) is str and new == attributes_of(node).get("id"):
            return  # it is what it was
        raise AttributeError(f"the id of {quoted(record.key)} cannot change: remove the entity and add a new one")
    if new != "":
        check_entity_id(new)
    _set_node_field(node, "id", new)


def _set_other(node: Any, name: str, new: Any) -> None:
    if not name.startswith("_"):
        found = inspect.getattr_static(type(node), name, MISSING)
        if found is MISSING:
            raise AttributeError(
                f"{type(node).__name__} has no field {quoted(name)}: declare it, or start its name with '_' if it is no part of the state"
            )
        declared = "_symphony_kind" in type(node).__dict__  # objects of other classes are refused when they are added
        if declared and not (hasattr(found, "__get__") or hasattr(found, "__set__")):
            raise AttributeError(
                f"{quoted(name)} is an attribute of the class {type(node).__name__}, not a field: annotate it to have it stored, "
                f"or assign {type(node).__name__}.{name:.200} for all objects"
            )
    object.__setattr__(node, name, new)


def _put_back(node: Any, name: str, old: Any) -> None:
    """Undo an assignment that took nothing out of any place."""
    node.__dict__[name] = old


def _undo(self: Any, moves: list[Move], name: str, old: Any) -> None:
    """Put a field back."""
    left = self.__dict__.get(name)
    if old is MISSING:
        self.__dict__.pop(name, None)
    else:
        self.__dict__[name] = old
    put_back(self, moves, [left], [] if old is MISSING else [(name, old)])


def _key_of(self: Any, child: Any) -> Any:
    key = child._symphony_key
    return key if self.__dict__.get(key) is child else MISSING


def _refuse_delete(self: Any, name: str) -> None:
    if name in type(self)._symphony_spec.fields:
        raise AttributeError(f"the field {quoted(name)} of {type(self).__name__} cannot be deleted; set it to None")
    object.__delattr__(self, name)
