"""Dataclasses whose `__init__` comes late: they are what the standard library makes of the same declaration."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import pickle
import pprint
import sys
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from symphony_es.late_dataclasses import FILLED
from symphony_es.late_dataclasses import dataclass as late

OPTIONS = [
    {"frozen": frozen, "slots": slots, "kw_only": kw_only, **rest}
    for frozen, slots, kw_only in itertools.product((True, False), repeat=3)
    for rest in ({}, {"repr": False}, {"eq": False}, {"repr": False, "eq": False})
]


def _declared(dataclass: Callable[..., Any], options: dict[str, Any]) -> type[Any]:
    class LatelyMade:
        """Fields of every kind."""

        kind: ClassVar[str] = "kind"
        a: int
        b: str = "b"
        c: list[int] = dataclasses.field(default_factory=list, repr=False, compare=not options["frozen"])
        d: int = dataclasses.field(default=1, hash=False)
        e: int = dataclasses.field(default=0, kw_only=True)
        f: int = dataclasses.field(init=False, default=7)

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("a")

    LatelyMade.__qualname__ = "LatelyMade"
    made: type[Any] = dataclass(**options)(LatelyMade)
    return made


def _told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (AttributeError, TypeError, ValueError) as error:
        return type(error), str(error).partition("(")[0]


def _assign(instance: Any, name: str) -> Any:
    setattr(instance, name, 5)
    return getattr(instance, name)


def _facts(cls: type[Any]) -> list[Any]:
    """What a program can see of a class and of its objects."""
    one, same, other = cls(a=1), cls(a=1), cls(a=2, b="x", e=3)
    again = pickle.loads(pickle.dumps(other))
    return [
        [(field.name, field.type, field.init, field.kw_only, field.repr, field.compare) for field in dataclasses.fields(cls)],
        cls.__match_args__,
        cls.__doc__,
        str(inspect.signature(cls)),
        _told(lambda: dataclasses.astuple(cls(1, "2"))),
        _told(lambda: cls()),
        _told(lambda: cls(a=-1)),
        one == same,
        one == other,
        one.__eq__(5),
        _told(lambda: hash(one) == hash(same)),
        _told(lambda: hash(one) == hash(other)),
        repr(one).partition(" at ")[0],
        dataclasses.asdict(one),
        dataclasses.asdict(dataclasses.replace(one, a=4)),
        _told(lambda: dataclasses.replace(one, a=-4)),
        _told(lambda: _assign(cls(a=1), "a")),
        _told(lambda: cls(a=1).__delattr__("a")),
        hasattr(one, "__dict__"),
        dataclasses.asdict(again),
        dataclasses.asdict(copy.copy(one)),
        dataclasses.asdict(copy.deepcopy(one)),
        cls.__init__.__qualname__,
        cls.__init__.__module__,
        typing.get_type_hints(cls.__init__),
        pprint.pformat(cls(a=1, b="b" * 90)).rpartition(" at ")[2] if "__repr__" in vars(cls) else None,
        [getattr(vars(cls).get(name), "__qualname__", None) for name in ("__repr__", "__eq__", "__hash__")],
        getattr(getattr(cls.__eq__, "__code__", None), "co_filename", None),  # by that pytest knows it
        {name: getattr(cls.__dataclass_params__, name) for name in ("init", "repr", "eq", "order", "unsafe_hash", "frozen")},
    ]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_the_standard_library_makes(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """For every set of arguments in use a program sees the same of a class, and of its objects, as of the standard library's."""
    told = []
    for dataclass in (dataclasses.dataclass, late):
        cls = _declared(dataclass, options)
        monkeypatch.setattr(sys.modules[__name__], "LatelyMade", cls, raising=False)  # where pickle looks for it
        told.append(_facts(cls))

    assert told[0] == told[1]


@pytest.mark.parametrize("of", [dataclasses.dataclass, late])
def test_a_frozen_subclass_is_made_of_either_kind(of: Callable[..., Any]) -> None:
    """A class of one kind can be derived from a class of the other, with the fields of both, and is frozen as they are."""

    @late(frozen=True, kw_only=True)
    class Base:
        a: int

        def __post_init__(self) -> None:
            assert self.a

    @of(frozen=True, kw_only=True)
    class Derived(Base):
        b: int = 2

    made = Derived(a=1)
    assert (made, repr(made).rpartition(".")[2]) == (Derived(a=1, b=2), "Derived(a=1, b=2)")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'a'"):
        made.a = 2
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        of()(type("Other", (Base,), {"__annotations__": {}}))


def test_a_subclass_that_is_none_may_have_attributes_of_its_own() -> None:
    """What derives from a frozen class without being a dataclass assigns what is not a field, as with the standard library."""

    @late(frozen=True)
    class Base:
        a: int

    class Derived(Base):
        pass

    made = Derived(1)
    made.more = 3  # type: ignore[attr-defined]
    assert made.more == 3  # type: ignore[attr-defined]
    del made.more  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.a = 2


def test_own_methods_stay() -> None:
    """Methods that the class has written itself are not replaced, and its hash is that of its `__eq__`'s fields as before."""

    @late(frozen=True, slots=True)
    class Own:
        a: int = 1

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __getstate__(self) -> object:
            return [5]

    assert (repr(Own()), Own() == 5, hash(Own()), copy.copy(Own()).a) == ("own", True, hash((1,)), 5)


@pytest.mark.parametrize("ask", [lambda cls: [cls(a=1) for _ in range(FILLED + 1)], inspect.signature, lambda cls: _told(lambda: cls(b=1))])
def test_nothing_is_compiled_for_few_objects(ask: Callable[[type[Any]], Any]) -> None:
    """The first objects compile no `__init__`; it is made once and for all for more, for who asks, and to say what does not fit."""
    cls = _declared(late, {"frozen": True, "slots": True})
    cls(a=1)
    assert not inspect.isfunction(vars(cls)["__init__"])
    ask(cls)
    made = vars(cls)["__init__"]
    assert inspect.isfunction(made)
    assert cls.__init__ is made


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}), ((1, "x"), {}), ((1, "x", [2]), {}), ((1, "x", [2], 3), {}), ((1, "x", [2], 3, 4), {}), ((), {}), ((1,), {"a": 1}),
    ((), {"a": 1, "b": "x", "c": [3], "d": 4, "e": 5}), ((), {"b": "x"}), ((1,), {"f": 1}), ((1,), {"kind": 1}), ((1,), {"other": 1}),
    ((-1,), {}), ((1,), {"e": 1}), ((1,), {"c": None}), ((1, "x"), {"b": "y"}),
]  # fmt: skip


@pytest.mark.parametrize("options", [options for options in OPTIONS if len(options) == 3], ids=str)
def test_the_first_objects_are_what_later_ones_are(options: dict[str, Any]) -> None:
    """An object that is filled has the fields of one that a compiled `__init__` made, and the same error where the arguments do not fit."""
    other = _declared(dataclasses.dataclass, options)
    for args, given in CALLS:
        cls = _declared(late, options)
        told = [_called(kind, args, given) for kind in (cls, other)]
        assert told[0] == told[1]
        assert inspect.isfunction(vars(cls)["__init__"]) == (told[1][0] is TypeError)


def _called(cls: type[Any], args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, Any]:
    try:
        made = cls(*args, **given)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return dataclasses.asdict(made), None if "__slots__" in vars(cls) else sorted(vars(made))


def test_factories_are_called_for_each_object() -> None:
    """Two objects that are filled share no list that a factory makes."""
    cls = _declared(late, {"frozen": False, "slots": False})
    first, second = cls(1), cls(1)
    first.c.append(5)

    assert (first.c, second.c) == ([5], [])


@pytest.mark.parametrize("of", [dataclasses.dataclass, late])
def test_an_own_assignment_is_asked(of: Callable[..., Any]) -> None:
    """A class that is not frozen and has a `__setattr__` of its own gets all that is set by it, as with the standard library."""

    @of()
    class Doubled:
        a: int = 1

        def __setattr__(self, name: str, value: Any) -> None:
            object.__setattr__(self, name, value * 2)

    assert (Doubled().a, Doubled(3).a) == (2, 6)


def _undocumented(dataclass: Callable[..., Any]) -> type[Any]:
    @dataclass(frozen=True, slots=True)
    class Undocumented:
        a: int
        b: str = "b"

    return Undocumented


def test_the_doc_of_a_class_without_one_is_its_signature() -> None:
    """A class that says nothing has the doc that the standard library gives it, and its objects too."""
    late_class, other = _undocumented(late), _undocumented(dataclasses.dataclass)

    assert (late_class.__doc__, late_class(1).__doc__) == (other.__doc__, other(1).__doc__)


def _not_frozen_base(dataclass: Callable[..., Any]) -> None:
    base = dataclass()(type("Base", (), {"__annotations__": {"a": "int"}}))
    dataclass(frozen=True)(type("Derived", (base,), {"__annotations__": {}}))


def _default_before_none(dataclass: Callable[..., Any]) -> None:
    dataclass()(type("Wrong", (), {"__annotations__": {"a": "int", "b": "int"}, "a": 1}))


def _default_that_changes(dataclass: Callable[..., Any]) -> None:
    dataclass()(type("Wrong", (), {"__annotations__": {"a": "list"}, "a": []}))


def _own_slots(dataclass: Callable[..., Any]) -> None:
    dataclass(slots=True)(type("Wrong", (), {"__annotations__": {"a": "int"}, "__slots__": ("a",)}))


@pytest.mark.parametrize("declare", [_not_frozen_base, _default_before_none, _default_that_changes, _own_slots])
def test_what_the_standard_library_refuses_is_refused_alike(declare: Callable[[Callable[..., Any]], None]) -> None:
    """A declaration that the standard library refuses is refused with the same words, and not when the first object is made."""
    said = []
    for dataclass in (dataclasses.dataclass, late):
        with pytest.raises((TypeError, ValueError)) as raised:
            declare(dataclass)
        said.append((raised.type, str(raised.value).removesuffix(" 'a'")))  # since Python 3.12 the default is named, too

    assert said[0] == said[1]


@pytest.mark.parametrize("given", ["init", "order", "unsafe_hash", "match_args", "weakref_slot"])
def test_other_arguments_are_refused(given: str) -> None:
    """An argument that late dataclasses do not know is an error at the declaration."""
    with pytest.raises(TypeError, match=given):
        late(**{given: True})


@pytest.mark.parametrize("annotation", [dataclasses.InitVar[int], "dataclasses.InitVar[int]"])
def test_init_vars_are_refused(annotation: Any) -> None:
    """A class with an InitVar is refused at the declaration, also where a base has it."""
    namespace = {"__annotations__": {"a": annotation}, "__module__": __name__}
    with pytest.raises(TypeError, match="'a' of Wrong is an InitVar"):
        late()(type("Wrong", (), namespace))
    base: Any = dataclasses.dataclass()(type("Base", (), namespace))
    with pytest.raises(TypeError, match="'a' of Wrong is an InitVar"):
        late()(type("Wrong", (base,), {}))
