"""Which classes stand behind the names of tagged values.

A state holds `Tagged("enum", "shop.orders:Priority", "HIGH")`. The table turns a class into its name when a value is recorded, and a name
into its class when a live object is restored; reading a log imports nothing. The table knows the classes that were registered or met,
those that annotations name (of declared classes, of classes that have a restorer, of functions of steps and workflows), and what is defined
in the program's own file or in modules that the application allows. Tables form a chain: each Symphony owns a child of the restore
manager's table.
"""

from __future__ import annotations

import enum
import functools
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from typing import Any, Union, cast
from uuid import UUID

from symphony_es.core.objects.annotations import holds_data, look_into
from symphony_es.core.objects.everyday import everyday_class
from symphony_es.errors import ConfigurationError, EntityTypeError, UnstorableValueError
from symphony_es.events.identifiers import check_class_name
from symphony_es.events.values import Tagged, check_plain, copy_plain
from symphony_es.failures import has_failed
from symphony_es.naming import AllowedModules, is_generic, name_parts, origin_of, stored_name
from symphony_es.shown import quoted, shown

__all__ = ["TypeTable", "member_of"]


Upcast = Callable[[dict[str, Any], int], dict[str, Any]]


_CONTAINERS = (dict, frozenset, list, set, tuple)
_ARGUMENTS: dict[str, Any] = {
    **{cls.__qualname__: cls for cls in (bool, bytes, float, int, object, str, *_CONTAINERS)},
    **{f"{cls.__module__}:{cls.__qualname__}": cls for cls in (date, datetime, Decimal, time, timedelta, UUID)},
    "None": None, "Any": Any, repr(...): ...,
}  # fmt: skip
"""What the arguments of a generic model may be, beside classes that the table knows."""


class TypeTable:
    """Names and classes of tagged values, with a parent that is asked second. Safe to use from several threads."""

    def __init__(self, parent: TypeTable | None = None, allowed: AllowedModules | None = None) -> None:
        self.parent = parent
        self._by_name: dict[str, type] = {}
        self._by_class: dict[type, str] = {}
        self._members: dict[type, dict[str, Tagged]] = {}
        self._aliases: dict[str, str] = {}
        self._versions: dict[type, tuple[int, Upcast | None]] = {}  # of foreign classes; declared ones say it themselves
        self._allowed = AllowedModules(also=allowed)
        self._allowed_then = 0  # how many modules were allowed when names were missed
        self._lock = threading.RLock()
        self._sources: list[Callable[[], Iterable[Any]]] = []
        self._unread: list[Any] = []  # classes and functions whose annotations have not been evaluated completely
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._missed: set[str] = set()
        self._outdated = False  # whether the next name that is asked for is preceded by a look into what was registered since
        self._late: dict[str, str] = {}  # by name the module that registers the class, not imported yet
        self._given: set[str] = set()  # names of classes that the application has registered: what annotations name is no match for these

    # -- what applications call ---------------------------------------------------------------------------------------

    def register(self, cls: type, name: str | None = None, *, state_version: int = 1, upcast: Upcast | None = None) -> str:
        """Register a class, and return the name under which its values are stored; repeating it changes nothing.

        The name is `module:qualname` unless one is given. A class with a given name is still found by `module:qualname`. A class that was
        defined anew (same module and qualified name, as in a notebook) replaces the old one.

        Args:
            cls: an enum, or a class with declared fields (dataclass, pydantic, attrs, named tuple, @part, @value).
            name: what its values are stored under instead.
            state_version: of a class that was not declared here: the version of its fields, from 1. It is stored with its values.
            upcast: `(data, from_version) -> data`, called with the fields of an older version; gives those of today.

        Raises:
            ConfigurationError: this is not a class, or a version that is no whole number from 1. Nothing has been changed.
            EntityTypeError: another class has the given name. Nothing has been changed.
            InvalidIdentifierError: the name cannot be stored. Nothing has been changed.
        """
        given: object = cls
        if not isinstance(given, type):
            raise ConfigurationError(f"types.register takes a class, and then its name, not {shown(given)}")
        if type(state_version) is not int or state_version < 1:
            raise ConfigurationError(f"state_version={shown(state_version)} of {stored_name(cls)}: a whole number from 1")
        with self._lock:
            chosen = self._enter(cls, name)
            self._given.add(stored_name(cls))
            if state_version != 1 or upcast is not None:
                self._versions[cls] = (state_version, upcast)
        return chosen

    def meet(self, cls: type) -> str:
        """Return the name of a class whose object is recorded, registered now if it was not met before."""
        return self.name_of(cls) or self._enter(cls, None)

    def _is_given(self, name: str) -> bool:
        """Return whether the application itself has registered a class of this name."""
        return name in self._given or (self.parent is not None and self.parent._is_given(name))

    def _enter(self, cls: type, name: str | None) -> str:
        own = check_class_name(stored_name(cls))
        with self._lock:
            origin = origin_of(cls)
            if origin is not None and self._registered(stored_name(origin)) is None:
                self._enter(origin, None)  # it may have been stored with other arguments
            chosen = check_class_name(name) if name is not None else self._by_class.get(cls) or own
            other = self._registered(chosen)
            if chosen != own and other is not None and other is not cls and stored_name(other) != own:
                raise EntityTypeError(
                    f"{own} cannot be registered as {quoted(chosen)}: {stored_name(other)} has that name; "
                    "give one of them another: @part(name=...), @value(name=...), types.register(cls, name)"
                )
            self._by_name[own] = self._by_name[chosen] = cls
            self._by_class[cls] = chosen
            self._members.pop(cls, None)
            self._missed.clear()
        return chosen

    def alias(self, old: str, new: type | str) -> None:
        """Have values that were stored under an old name come back as objects of a class that has moved or has been renamed.

        What is stored from then on has the class's present name.

        Args:
            old: the name in the log, as `symphony-es types` and a resume's report give it.
            new: the class, or its present name.

        Raises:
            ConfigurationError: the old name would stand for itself. Nothing has been changed.
            InvalidIdentifierError: one of them cannot be stored. Nothing has been changed.
        """
        check_class_name(old)
        with self._lock:
            target = self.register(new) if isinstance(new, type) else check_class_name(new)
            step: str | None = target
            while step is not None:
                if step == old:
                    raise ConfigurationError(f"{quoted(old)} cannot stand for {quoted(target)}: that name leads back to it")
                step = self._alias_of(step)
            self._aliases[old] = target
            self._missed.clear()

    def allow(self, prefix: str) -> None:
        """Allow the log to name data classes that are defined in a module, or in what lies in it; the module must be loaded by then.

        The program's own file is always allowed, and so is what `symphony.functions.allow` names. This one allows no function.

        Raises:
            ConfigurationError: this is not the name of a module. Nothing has been changed.
        """
        self._allowed.allow(prefix)
        self._missed.clear()

    def declare_late(self, module: str, names: Iterable[str]) -> None:
        """Have a module imported when a name is looked for under which it registers a class; for `RestoreManager.declare_late`."""
        self._late |= dict.fromkeys(names, module)

    def names(self) -> dict[str, type]:
        """Return the classes that are known now, by the names under which they are found."""
        self._missed.clear()
        for name in list(self._late):
            self._bring(name)
        self._study()
        inherited = self.parent.names() if self.parent is not None else {}
        with self._lock:
            known = {**inherited, **self._by_name}
            return {**known, **{old: cls for old in self._aliases if (cls := self._by_alias(old)) is not None}}

    # -- what restoring and recording call ----------------------------------------------------------------------------

    def name_of(self, cls: type) -> str | None:
        """Return the registered name of a class, or None."""
        name = self._by_class.get(cls)
        if name is None and self.parent is not None:
            return self.parent.name_of(cls)
        return name

    def version_of(self, cls: type) -> int:
        """Return the version of a foreign class's fields."""
        return self._version(cls)[0]

    def upcast_of(self, cls: type) -> Upcast | None:
        """Return what turns older fields of a foreign class into those of today, or None."""
        return self._version(cls)[1]

    def _version(self, cls: type) -> tuple[int, Upcast | None]:
        for one in (cls, origin_of(cls)):  # Box[int] is what Box was registered as
            table: TypeTable | None = self
            while table is not None and one is not None:
                if one in table._versions:
                    return table._versions[one]
                table = table.parent
        return 1, None

    def class_of(self, name: str) -> type | None:
        """Return the class behind a name, or None: by registration, alias, annotation or definition in an allowed module, in this order.

        What is not found is not looked for again until `look_again`, a registration or an alias.
        """
        if self._outdated:
            self._study()
        cls = self._registered(name)
        if cls is None and not self._was_missed(name):
            cls = self._search(name)
            if cls is None:
                self._missed.add(name)
        return cls

    def _was_missed(self, name: str) -> bool:
        if self._allowed.count != self._allowed_then:
            self._allowed_then = self._allowed.count
            self._missed.clear()
        return name in self._missed

    def _registered(self, name: str) -> type | None:
        table: TypeTable | None = self
        while table is not None:
            cls = table._by_name.get(name) or table._bring(name)
            if cls is not None:
                return cls
            table = table.parent
        return everyday_class(name)

    def _bring(self, name: str) -> type | None:
        """Return the class of a name whose module is imported only now, or None."""
        module = self._late.get(name)
        if module is None:
            return None
        import_module(module)
        return self._by_name.get(name)

    def _alias_of(self, name: str) -> str | None:
        target = self._aliases.get(name)
        if target is None and name_parts(name) is not None:  # a generic model with arguments moves with the model
            origin, bracket, arguments = name.partition("[")
            moved = self._alias_of(origin)
            target = None if moved is None or bracket in moved else f"{moved}{bracket}{arguments}"
        return self.parent._alias_of(name) if target is None and self.parent is not None else target

    def _by_alias(self, name: str) -> type | None:
        target = self._alias_of(name)
        return self.class_of(target) if target is not None else None

    def _search(self, name: str) -> type | None:
        found = self._by_alias(name)
        if found is None:
            self._study()
            found = self._registered(name) or self._defined(name) or self._with_arguments(name)
        return found

    def _with_arguments(self, name: str) -> type | None:
        """Return the generic model of this name with these arguments.

        The table knows all of them, and nobody need have written it down so.
        """
        if "[" not in name:
            return None
        try:
            made = self._argument(name)
        except Exception:  # noqa: BLE001  a part is unknown, or the model takes no such arguments: whatever it raises says so
            return None
        if not is_generic(made):
            return None
        self._enter(made, None)
        return cast("type", made)

    def _argument(self, name: str) -> Any:
        """Return what a name stands for that is an argument of a generic model, or the model itself.

        LookupError where that is not known.
        """
        parts = name_parts(name)
        if parts is None:
            found = _ARGUMENTS[name] if name in _ARGUMENTS else self.class_of(name)
            if found is None and name != "None":
                raise LookupError(name)
            return found
        arguments = tuple(map(self._argument, parts[1]))
        if parts[0] == "Union":
            return Union[arguments]  # noqa: UP007  it is made at run time
        if parts[0] == "UnionType":
            return functools.reduce(operator.or_, arguments)
        origin: Any = self._argument(parts[0])
        if origin not in _CONTAINERS and not is_generic(origin):
            raise LookupError(name)
        generic: Any = origin
        return generic[arguments]

    def _defined(self, name: str) -> type | None:
        found = self._allowed.find(name)
        if isinstance(found, type) and holds_data(found):
            self._enter(found, None)
            return found
        return self.parent._defined(name) if self.parent is not None else None

    def learn(self, *items: Any) -> None:
        """Have classes and functions looked into for the data classes that their annotations name, when a name is asked for next."""
        with self._lock:
            self._unread += items
            self._missed.clear()

    def learn_from(self, source: Callable[[], Iterable[Any]]) -> None:
        """Ask for classes and functions to look into whenever names are looked up anew."""
        self._sources.append(source)

    def look_again(self) -> None:
        """Look into what has been registered since, and into what could not be evaluated so far, when a name is asked for next.

        Most states hold no tagged value, and bringing them back need not evaluate a program's annotations.
        """
        self._missed.clear()
        self._outdated = True

    def _study(self) -> None:
        if self.parent is not None:
            self.parent._study()
        with self._lock:
            items = [*self._unread, *(item for source in self._sources for item in source())]
            self._unread = []
            for item in items:
                findings = look_into(item, self._seen)
                for cls in findings.classes:
                    name = stored_name(cls)
                    if not self._is_given(name) and (self.name_of(cls) is None or self._registered(name) is None):
                        self._enter(cls, None)
                if not findings.complete:
                    self._unread.append(item)
            for cls, chosen in list(self._by_class.items()):
                newest = _defined_anew(cls)
                if newest is not None and cls not in self._versions and self._by_name.get(chosen) is cls:
                    self._enter(newest, chosen)
            self._outdated = False

    def name_of_enum(self, cls: type[enum.Enum]) -> str:
        """Return the name of an enum class, registered now if it was not met before."""
        return self.meet(cls)

    def tagged_member(self, member: enum.Enum) -> Tagged:
        """Return what is stored of an enum member: class, name, and the value where that is plain data; of flags the number."""
        cls = type(member)
        members = self._members.get(cls)
        if members is None:
            name = self.name_of_enum(cls)
            plain = {} if issubclass(cls, enum.Flag) else {item.name: _tagged(name, item) for item in cls}
            members = self._members[cls] = plain
        found = members.get(member._name_)
        if found is not None and cls._member_map_[member._name_] is member:
            return found
        name = self.name_of_enum(cls)
        return Tagged("enum", name, member.value) if isinstance(member, enum.Flag) else _tagged(name, member)


def _defined_anew(cls: type) -> type | None:
    """Return the class that its module has now under the name of this one, where that is another.

    A cell was run again, a module reloaded.
    """
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)  # nothing is imported, and no code called
    if found is cls or not isinstance(found, type) or stored_name(found) != stored_name(cls) or not holds_data(found):
        return None
    return found


def _tagged(name: str, member: enum.Enum) -> Tagged:
    tagged = Tagged("enum", name, member.name)
    try:
        check_plain(member.value)
        tagged.value = copy_plain(member.value)
        check_plain(tagged)
    except (UnstorableValueError, RecursionError):
        tagged.value = ...
    return tagged


def member_of(cls: type, plain: Tagged) -> enum.Enum | None:
    """Return the member of an enum class that a tagged value means, or None: by name, else by value; flags by their number."""
    if not issubclass(cls, enum.Enum):
        return None
    if type(plain.data) is str:
        found = cls.__members__.get(plain.data)
        if found is not None or plain.value is ...:
            return found
    number_or_value = plain.value if type(plain.data) is str else plain.data
    try:
        made = cls(number_or_value)
    except BaseException as error:  # `_missing_` is code of the application: whatever it raises says that there is no such member
        if not has_failed(error):
            raise
        return None
    if not isinstance(made, cls) or (type(plain.data) is int and made.value != plain.data):
        return None  # flags that drop the bits that they do not know
    return made
