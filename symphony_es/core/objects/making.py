"""Making live values of stored plain data: tracked containers, enum members, parts and values.

What a state holds of a declared class is rebuilt as an entity is: fields that it lacks take their defaults, what the class lacks is left
out, older versions pass through the class's `upcast`. A value that cannot be made is noted with the reason and the call that mends it:
whoever asked keeps the whole state as it is, so that no stored form ever stands where an object is expected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

from symphony_es.core.objects.plain import UNOWNED, admit, attributes_of, own
from symphony_es.core.objects.tracked_dict import TrackedDict
from symphony_es.core.objects.tracked_list import TrackedList
from symphony_es.core.objects.tracked_set import TrackedSet
from symphony_es.core.objects.types import TypeTable, member_of
from symphony_es.core.objects.upcasting import brought_up
from symphony_es.errors import RestorationError, UnknownValueError, UnstorableValueError
from symphony_es.events.values import Tagged, copy_plain, plain_equal
from symphony_es.failures import has_failed
from symphony_es.shown import quoted

__all__ = [
    "MAKERS",
    "Making",
    "Passed",
    "default_of",
    "enliven",
    "hook_failed",
    "how_to_name",
    "left_out",
    "loosen",
    "lost_fields",
    "made_of",
    "new_object",
    "own_form",
]

new_object: Any = object.__new__

Passed = dict[int, tuple[dict[str, Any], Collection[str]]]


class Making:
    """The making of live values for one entity after the other.

    Attributes:
        types: the table that knows the classes.
        unmade: names of classes whose values could not be made, with the reason and what to do.
        changed: whether a value may differ from what is stored: a field was added or left out, a member has another value, or code of the
            application has made it.
        rebuild: makes objects of foreign classes, where the entity at hand may hold them as values.
        hooked: parts that have a hook, in the order of their making, inner ones first.
        failures: how often a value could not be made: what has grown while an object's fields were made says that it can be none.
        passed: by the identity of stored fields that went through an upcast, these, and the names of those that it passed on.
    """

    __slots__ = ("_members", "changed", "failures", "hooked", "passed", "rebuild", "types", "unmade")

    def __init__(self, types: TypeTable, passed: Passed | None = None) -> None:
        self.types = types
        self.failures = 0
        self.passed: Passed = {} if passed is None else passed
        self.rebuild: Callable[[Tagged, Any, Making], Any] | None = None
        self.unmade: dict[str, str] = {}
        self.changed = False
        self.hooked: list[Any] = []
        self._members: dict[tuple[str, str | int], tuple[Any, Any]] = {}

    def begin(self) -> None:
        """Forget what was noted of the entity before."""
        if self.unmade:
            self.unmade = {}
        if self.hooked:
            self.hooked = []
        self.changed = False

    def apart(self) -> Making:
        """Return the making of what an upcast gets: what that throws away is no matter of the entity's."""
        inner = Making(self.types, self.passed)
        inner.rebuild = self.rebuild
        return inner

    def cannot(self, plain: Tagged, why: str) -> Tagged:
        """Note that a value cannot be made."""
        self.failures += 1
        self.unmade.setdefault(plain.name, why)
        return plain

    def member(self, plain: Tagged, cls: type) -> Any:
        """Return the enum member of a tagged value."""
        member = member_of(cls, plain)
        if member is None:
            value = "" if plain.value is ... else f" (value {quoted(plain.value, 40)})"
            return self.cannot(plain, f"{plain.name} has no member {quoted(plain.data, 40)}{value}: add it, or an alias of that name")
        now = self.types.tagged_member(member)
        if plain_equal(now, plain):
            self._members[plain.name, plain.data] = (member, plain.value)
        else:
            self.changed = True
        return member

    def known_member(self, plain: Tagged) -> Any | None:
        """Return the enum member of a tagged value, where one that was equal to it has been made."""
        found = self._members.get((plain.name, plain.data))
        return found[0] if found is not None and (found[1] is plain.value or plain_equal(found[1], plain.value)) else None


def enliven(plain: Any, making: Making) -> Any:
    """Return the live form of stored plain data; what cannot be made stays as it is stored, and is noted."""
    maker = MAKERS.get(type(plain))
    return plain if maker is None else maker(plain, making)


def made_of(plain: Any, types: TypeTable) -> Any:
    """Return the live form of plain data that belongs nowhere yet.

    Raises:
        UnknownValueError: a value in it cannot be made.
    """
    making = Making(types)
    live = enliven(plain, making)
    if making.unmade:
        raise UnknownValueError(making.unmade)
    return live


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the live default of a field, or `dataclasses.MISSING` where it has none."""
    if field.default is not dataclasses.MISSING:
        return admit(field.default, None)
    if field.default_factory is not dataclasses.MISSING:
        return admit(field.default_factory(), None)
    return dataclasses.MISSING


def _list(plain: list[Any], making: Making) -> TrackedList:
    made = list.__new__(TrackedList)
    made._symphony_owner = made._symphony_key = None
    made._symphony_base = 0
    list.extend(made, plain)
    if not UNOWNED.issuperset(map(type, plain)):
        for index, item in enumerate(plain):
            maker = MAKERS.get(type(item))
            if type(item) not in UNOWNED:
                live = maker(item, making) if maker is not None else admit(item, None)  # an upcast has made it
                list.__setitem__(made, index, live)
                own(live, made, index)
    return made


def _dict(plain: dict[Any, Any], making: Making) -> TrackedDict:
    made = dict.__new__(TrackedDict)
    made._symphony_owner = made._symphony_key = None
    dict.update(made, plain)
    if not UNOWNED.issuperset(map(type, plain.values())):
        for key, item in plain.items():
            maker = MAKERS.get(type(item))
            if type(item) not in UNOWNED:
                live = maker(item, making) if maker is not None else admit(item, None)  # an upcast has made it
                dict.__setitem__(made, key, live)
                own(live, made, key)
    return made


def _set(plain: set[Any], making: Making) -> TrackedSet:
    made = TrackedSet._symphony_make()
    for item in plain:
        set.add(made, enliven(item, making))
    return made


def _tuple(plain: tuple[Any, ...], making: Making) -> tuple[Any, ...]:
    return tuple(enliven(item, making) for item in plain)


def _tagged(plain: Tagged, making: Making) -> Any:
    if plain.kind == "enum":
        member = making.known_member(plain)
        if member is not None:
            return member
    cls = making.types.class_of(plain.name)
    if cls is None:
        return making.cannot(plain, how_to_name(plain))
    return making.member(plain, cls) if plain.kind == "enum" else _declared(plain, cls, making)


def how_to_name(plain: Tagged) -> str:
    """Return what to do about a class that is not known."""
    name = plain.name.rpartition(":")[2].rpartition(".")[2]
    called = name if name.isidentifier() else "the_class"
    given = "" if ":" in plain.name else f", {quoted(plain.name)}"
    what = "enum" if plain.kind == "enum" else f"@{plain.kind}"
    return (
        f"no class is known for the {what} {quoted(plain.name)}: import the module that defines it and call "
        f"symphony.types.register({called}{given}) or symphony.types.allow(module), or, if it has moved, "
        f"symphony.types.alias({quoted(plain.name)}, {called}); then resume again"
    )


def _declared(plain: Tagged, cls: Any, making: Making) -> Any:
    """Return the part or value of a tagged value, rebuilt field by field."""
    spec = cls.__dict__.get("_symphony_spec")
    if spec is None and making.rebuild is not None:
        return making.rebuild(plain, cls, making)
    if spec is None or spec.kind not in ("part", "value"):
        return making.cannot(plain, f"{plain.name} is not declared with @{plain.kind} any more: declare it, or give that name an alias")
    data, failures = plain.data, making.failures
    if plain.state_version != spec.state_version:
        if spec.upcast is None or plain.state_version > spec.state_version:
            return making.cannot(
                plain,
                f"a stored {plain.name} has version {plain.state_version}, the class has version {spec.state_version}: "
                f"give the class upcast=..., which turns (data, {plain.state_version}) into the fields of today",
            )
        try:
            data = brought_up(plain.name, spec.upcast, data, (plain.state_version, spec.state_version), making, loosen)
        except RestorationError as error:
            return making.cannot(plain, str(error))
    held = _fields_of(plain, cls, spec, data, making)
    if held is None or making.failures != failures:  # no object has a stored form inside
        return plain
    made = new_object(cls)
    if spec.kind == "value":
        for name, live in held.items():
            object.__setattr__(made, name, live)
    else:
        attributes = attributes_of(made)
        for name, live in held.items():
            attributes[name] = live
            own(live, made, name)
    if spec.hook is not None:
        return _awake(plain, made, spec, making, {name: live for name, live in held.items() if name in data})
    return made


def _awake(plain: Tagged, made: Any, spec: Any, making: Making, stored: dict[str, Any]) -> Any:
    """Call a value at once, as it is replaced whole wherever references are connected; a part when that has been done."""
    if spec.kind == "part":
        making.hooked.append(made)
        return made
    try:
        spec.hook(made)
    except BaseException as error:  # it is code of the application: its entity is kept as it is stored, and says why
        if not has_failed(error):
            raise
        return making.cannot(plain, hook_failed(made, error))
    for name, live in stored.items():  # what the log holds wins
        object.__setattr__(made, name, live)
    return made


def hook_failed(made: Any, error: BaseException) -> str:
    """Return what to say of a hook that raised."""
    return f"the hook of {type(made).__qualname__} raised {quoted(error, 200)}: mend its __restored__ or __post_init__, and resume again"


def left_out(plain: Any, types: TypeTable, passed: Passed, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of stored fields of parts and values that their classes do not have any more.

    Not of those that an upcast has taken.
    """
    if type(plain) is Tagged and plain.kind != "enum":
        spec = getattr(types.class_of(plain.name), "_symphony_spec", None)
        yield from lost_fields(plain.data, None if spec is None else spec.field_set, types, passed, path)
    elif isinstance(plain, dict):
        for key, item in plain.items():
            yield from left_out(item, types, passed, (*path, key))
    elif isinstance(plain, (list, tuple)):
        for index, item in enumerate(plain):
            yield from left_out(item, types, passed, (*path, index))


def lost_fields(
    data: dict[str, Any], declared: Collection[str] | None, types: TypeTable, passed: Passed, path: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """Yield the same of the stored fields of one object, and of what they hold; `declared` are those that its class has, None of any."""
    found = passed.get(id(data))
    kept = [name for name in data if found is None or name in found[1]]
    if declared is not None:
        yield from ((*path, name) for name in kept if name not in declared)
    for name in kept:
        yield from left_out(data[name], types, passed, (*path, name))


def _fields_of(plain: Tagged, cls: Any, spec: Any, data: dict[str, Any], making: Making) -> dict[str, Any] | None:
    """Return the live fields, in the order of the class; None, and a note, where one cannot be made."""
    if plain.kind != spec.kind or plain.name != spec.name or data.keys() != spec.field_set:
        making.changed = True
    held = {}
    for name in spec.fields:
        if name in data:
            live = enliven(data[name], making)
        else:
            live = default_of(cls.__dataclass_fields__[name])
            if live is dataclasses.MISSING:
                making.cannot(
                    plain,
                    f"a stored {plain.name} has no {quoted(name)}: give the field a default, or raise state_version and write an upcast",
                )
                return None
        held[name] = live
    if plain.kind != spec.kind:
        return _of_other_kind(plain, cls, held, making)
    return held


def _of_other_kind(plain: Tagged, cls: Any, held: dict[str, Any], making: Making) -> dict[str, Any] | None:
    """Return what is held by a part that is a value now, or by a value that is a part.

    None where a value cannot hold it, which is noted.
    """
    if cls._symphony_kind == "value":
        try:
            admit(tuple(held.values()), None)
        except UnstorableValueError as error:
            making.cannot(plain, f"a stored {plain.name} was a part, and the @value cannot hold what it holds: {error}")
            return None
    return held


def loosen(plain: Any, making: Making) -> Any:
    """Return a copy of stored plain data for an `upcast`: plain containers, in which what can be an object is one."""
    cls = type(plain)
    if cls is dict:
        return {key: loosen(item, making) for key, item in plain.items()}
    if cls in (list, tuple, set):
        return cls(loosen(item, making) for item in plain)
    return own_form(_tagged(plain, making)) if cls is Tagged else plain


def own_form(made: Any) -> Any:
    """Return what has been made, or a copy of the stored form where nothing has: an upcast may change it, and the log's state is not its
    own.
    """
    return copy_plain(made) if type(made) is Tagged else made


MAKERS: dict[type, Callable[[Any, Making], Any]] = {list: _list, dict: _dict, set: _set, tuple: _tuple, Tagged: _tagged}
