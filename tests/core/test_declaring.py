"""What can be declared, with which features of classes, and what is refused at the decorator with a way out."""

# ruff: noqa: E501  a case a line is easier to compare
from __future__ import annotations

import abc
import copy
import functools
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity, part, value
from symphony_es.core.state import EntityRestorer, restore_manager
from symphony_es.errors import EntityTypeError, InvalidIdentifierError, UnstorableValueError
from symphony_es.testing import check_restores

DECORATORS = {"entity": entity, "part": part, "value": value}
PRELUDE = """
import abc, enum, functools
from collections.abc import MutableMapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypedDict, TypeVar
import attrs, pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
T = TypeVar("T")
"""


def build(name: str, source: str, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """A module of its own, so that names of classes are found in it."""
    module = types.ModuleType("declared_here")  # one name, so that a class takes the place of the last one of its name
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__dict__.update(names)
    exec(compile(PRELUDE + source, str(Path(__file__).with_name(f"{name}.py")), "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


REFUSED = {
    "an enum": ("@declare\nclass A(enum.Enum):\n    X = 1", "members of enums are stored as they are"),
    "an int enum": ("@declare\nclass A(enum.IntEnum):\n    X = 1", "members of enums are stored as they are"),
    "a named tuple": ("@declare\nclass A(NamedTuple):\n    x: int", "with @value"),
    "a typed dict": ("@declare\nclass A(TypedDict):\n    x: int", "with @part"),
    "an exception": ("@declare\nclass A(ValueError):\n    x: int = 0", "an exception; keep what it says in fields"),
    "a list": ("@declare\nclass A(list):\n    x: int = 0", "hold the list in a field"),
    "a dict": ("@declare\nclass A(dict):\n    x: int = 0", "hold the dict in a field"),
    "a set": ("@declare\nclass A(set):\n    x: int = 0", "hold the set in a field"),
    "text": ("@declare\nclass A(str):\n    x: int = 0", "hold the str in a field"),
    "a number": ("@declare\nclass A(int):\n    x: int = 0", "hold the int in a field"),
    "a protocol": ("@declare\nclass A(Protocol):\n    x: int = 0", "declare the classes that implement it"),
    "a pydantic model": ("@declare\nclass A(pydantic.BaseModel):\n    x: int = 0", "pydantic model.*restorer"),
    "under a pydantic model": ("class B(pydantic.BaseModel):\n    y: int\n@declare\nclass A(B):\n    x: int = 0", "pydantic model"),
    "a pydantic dataclass": ("@declare\n@pydantic_dataclass\nclass A:\n    x: int = 0", "pydantic model"),
    "an attrs class": ("@declare\n@attrs.define(slots=False)\nclass A:\n    x: int = 0", "attrs class.*restorer"),
    "an attrs class with slots": ("@declare\n@attrs.define\nclass A:\n    x: int = 0", "attrs class.*restorer"),
    "a mapped class": (
        "class Base(DeclarativeBase): pass\n@declare\nclass A(Base):\n    __tablename__ = 'a'\n    x: Mapped[int] = mapped_column(primary_key=True)",
        "mapped SQLAlchemy class.*restorer",
    ),
    "slots": ("@declare\nclass A:\n    __slots__ = ('x',)\n    x: int", "leave __slots__"),
    "a dataclass with slots": ("@declare\n@dataclass(slots=True)\nclass A:\n    x: int = 0", "leave __slots__"),
    "a dataclass": ("@declare\n@dataclass\nclass A:\n    x: int = 0", "leave @dataclass out"),
    "a frozen dataclass": ("@declare\n@dataclass(frozen=True)\nclass A:\n    x: int = 0", "leave @dataclass out"),
    "a field that is a slot of a base": ("class B:\n    __slots__ = ('x',)\n@declare\nclass A(B):\n    x: int", "field and a member_descriptor"),
    "setattr": ("@declare\nclass A:\n    x: int = 0\n    def __setattr__(self, name, item): ...", "A defines __setattr__.*property"),
    "setattr of a base": ("class B:\n    def __setattr__(self, name, item): ...\n@declare\nclass A(B):\n    x: int = 0", "B defines __setattr__"),
    "delattr": ("@declare\nclass A:\n    x: int = 0\n    def __delattr__(self, name): ...", "A defines __delattr__"),
    "a property as a field": ("@declare\nclass A:\n    x: int\n    @property\n    def x(self): return 1", "a field and a property"),
    "a cached property as a field": ("@declare\nclass A:\n    x: int\n    @functools.cached_property\n    def x(self): return 1", "a cached_property"),
    "a mutable default": ("@declare\nclass A:\n    x: list[int] = []", "use default_factory"),
    "a default before none": ("@declare\nclass A:\n    x: int = 0\n    y: int", "non-default argument 'y' follows"),
    "a hidden field": ("@declare\nclass A:\n    _x: int = 0", "names that start with '_' are not part of a state"),
    "declared twice": ("@declare\n@declare\nclass A:\n    x: int = 0", "keep one of the decorators"),
    "a function": ("@declare\ndef A(): ...", "it is a function, not a class"),
    "an object": ("declare(5)", "it is a int, not a class"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DECORATORS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tracked_is_refused_at_the_decorator(case: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EntityTypeError that says why and what to do, before any object is made."""
    source, says = REFUSED[case]
    with pytest.raises(EntityTypeError, match=says):
        build("refused", source, monkeypatch, declare=DECORATORS[kind])


@pytest.mark.parametrize(("under", "over"), [(a, b) for a in DECORATORS for b in DECORATORS if a != b])
@pytest.mark.parametrize(
    "source", ["@over\n@under\nclass A:\n    x: int = 0", "@under\nclass B:\n    y: int = 0\n@over\nclass A(B):\n    x: int = 0"]
)
def test_a_class_is_of_one_kind(under: str, over: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two decorators on a class, or one on a class and another on its base, are refused."""
    with pytest.raises(EntityTypeError, match=f"@{under}"):
        build("mixed", source, monkeypatch, over=DECORATORS[over], under=DECORATORS[under])


@pytest.mark.parametrize(("kind", "frozen"), [("entity", True), ("part", True), ("value", False)])
def test_a_dataclass_as_base_must_fit(kind: str, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes does not derive from what is frozen, and the other way round."""
    source = f"@dataclass(frozen={frozen})\nclass B:\n    y: int = 0\n@declare\nclass A(B):\n    x: int = 0"
    with pytest.raises(EntityTypeError, match="derives from the dataclass B"):
        build("bases", source, monkeypatch, declare=DECORATORS[kind])


def test_an_id_is_text() -> None:
    """A default of another type is refused where it is written."""
    with pytest.raises(EntityTypeError, match="id is text"):

        @entity
        class Numbered:
            id: int = 0


@pytest.mark.parametrize("source", ["id: ClassVar[str] = 'x'", "id: 'ClassVar[str]' = 'x'\n    x: int = 0", "id: ClassVar[int] = 3"])
def test_an_id_is_each_object_s_own(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that belongs to the class is refused where it is written, and not by the first object."""
    with pytest.raises(EntityTypeError, match="each object has its own"):
        build("class_ids", f"@entity\nclass A:\n    {source}", monkeypatch, entity=entity)


@pytest.mark.parametrize("name", ["symphony.Mine", "symphony.Checkpoint", "symphony.x.y"])
async def test_the_library_s_own_types_are_nobody_else_s(name: str, symphony: Symphony) -> None:
    """A resume and a rewind leave them out: declaring, registering and adding one is refused, by every way there is."""

    class Foreign:
        def __init__(self) -> None:
            self.id = "1"

    class Restores(EntityRestorer):
        entity_type = name

        async def restore(self, entity_id: str, data: Any, context: Any) -> Any:
            return Foreign()

    with pytest.raises(InvalidIdentifierError, match="the library's own"):
        entity(type=name)(type("Mine", (), {}))
    with pytest.raises(InvalidIdentifierError, match="the library's own"):
        restore_manager.register_restorer(Restores())
    with pytest.raises(InvalidIdentifierError, match="the library's own"):
        symphony.entities.add(Foreign(), name)
    await symphony.flush()
    assert symphony.log.head == 0


ACCEPTED = {
    "a plain class": ("@declare\nclass A:\n    x: int = 0\n    y: int = 0", {"x": 1, "y": 2}),
    "keyword only": ("@declare\nclass A:\n    x: int = 0\n    _: KW_ONLY\n    y: int = 0", {"x": 1, "y": 2}),
    "a class variable": ("@declare\nclass A:\n    k: ClassVar[list[int]] = [1]\n    x: int = 0", {"x": 1}),
    "a factory": ("@declare\nclass A:\n    x: int = field(default_factory=lambda: 7)", {}),
    "no init, a default": ("@declare\nclass A:\n    x: int = field(init=False, default=7)", {}),
    "no init, a factory": ("@declare\nclass A:\n    x: int = field(init=False, default_factory=lambda: 7)", {}),
    "no init, made after": (
        ("@declare\nclass A:\n    x: int = 1\n    y: int = field(init=False)\n    def __post_init__(self): object.__setattr__(self, 'y', self.x + 1) "
        "if kind == 'value' else setattr(self, 'y', self.x + 1)"), {"x": 4},
    ),
    "an init variable": (
        ("@declare\nclass A:\n    x: int = 1\n    z: InitVar[int] = 3\n    def __post_init__(self, z):\n        if kind == 'value': object.__setattr__(self, 'x', z)\n"
        "        else: self.x = z"), {"z": 9},
    ),
    "an init of its own": (
        ("@declare\nclass A:\n    x: int = 1\n    y: int = 5\n    z: list[int] | int = field(default_factory=lambda: 6)\n    def __init__(self, start):\n"
        "        if kind == 'value':\n            for name, item in (('x', start), ('y', 5), ('z', 6)): object.__setattr__(self, name, item)\n        else: self.x = start"), {"start": 9},
    ),
    "generic": ("@declare\nclass A(Generic[T]):\n    x: T | None = None", {"x": 3}),
    "a generic made concrete": ("@declare\nclass B(Generic[T]):\n    x: T | None = None\n@declare\nclass A(B[int]):\n    y: int = 0", {"x": 3, "y": 4}),
    "a declared base": ("@declare\nclass B:\n    x: int = 0\n@declare\nclass A(B):\n    y: int = 0", {"x": 3, "y": 4}),
    "two declared bases": ("@declare\nclass B:\n    x: int = 0\n@declare\nclass C:\n    z: int = 0\n@declare\nclass A(B, C):\n    y: int = 0", {"x": 3, "y": 4, "z": 5}),
    "a dataclass as base": ("@dataclass(frozen=kind == 'value')\nclass B:\n    x: int = 0\n@declare\nclass A(B):\n    y: int = 0", {"x": 3, "y": 4}),
    "mixins": ("class M:\n    def twice(self): return 2 * self.x\nclass N: ...\n@declare\nclass A(M, N):\n    x: int = 0", {"x": 3}),
    "a base with slots": ("class M:\n    __slots__ = ()\n@declare\nclass A(M):\n    x: int = 0", {"x": 3}),
    "an abstract base": (
        "class B(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n@declare\nclass A(B):\n    x: int = 0\n    def f(self): return 1", {"x": 3},
    ),
    "an abstract declared base": (
        "@declare\nclass B(abc.ABC):\n    x: int = 0\n    @abc.abstractmethod\n    def f(self): ...\n@declare\nclass A(B):\n    y: int = 0\n    def f(self): return 1",
        {"x": 3, "y": 5},
    ),
    "a protocol as base": ("class P(Protocol):\n    def f(self) -> int: ...\n@declare\nclass A(P):\n    x: int = 0\n    def f(self): return 1", {"x": 3}),
    "a metaclass": ("class M(type): ...\n@declare\nclass A(metaclass=M):\n    x: int = 0", {"x": 3}),
    "init_subclass": ("class B:\n    def __init_subclass__(cls): cls.R = 1\n@declare\nclass A(B):\n    x: int = 0", {"x": 3}),
    "properties": (
        "@declare\nclass A:\n    x: int = 0\n    @property\n    def double(self): return 2 * self.x\n    @functools.cached_property\n    def costly(self): return [self.x]",
        {"x": 3},
    ),
    "methods": ("@declare\nclass A:\n    x: int = 0\n    @classmethod\n    def of(cls, x): return cls(x=x)\n    @staticmethod\n    def g(): return 1", {"x": 3}),
    "getattr of its own": ("@declare\nclass A:\n    x: int = 0\n    def __getattr__(self, name):\n        if name.startswith('_'): raise AttributeError(name)\n        return name", {"x": 3}),
    "equality of its own": ("@declare\nclass A:\n    x: int = 0\n    def __eq__(self, other): return True", {"x": 3}),
    "a hash of its own": ("@declare\nclass A:\n    x: int = 0\n    def __eq__(self, other): return True\n    def __hash__(self): return 1", {"x": 3}),
    "order": ("@declare\n@functools.total_ordering\nclass A:\n    x: int = 0\n    def __eq__(self, other): return self.x == other.x\n    def __lt__(self, other): return self.x < other.x", {"x": 3}),
    "a length that is nothing": ("@declare\nclass A:\n    x: int = 0\n    def __len__(self): return 0", {"x": 3}),
    "no fields": ("@declare\nclass A: ...", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", DECORATORS)
@pytest.mark.parametrize("case", ACCEPTED)
async def test_what_classes_can_do_is_kept_by_declared_ones(
    case: str, kind: str, symphony: Symphony, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object is recorded with all fields, changed, put back, and comes back from the log as it was."""
    source, given = ACCEPTED[case]
    made = build("accepted", source, monkeypatch, declare=DECORATORS[kind], kind=kind)["A"](**given)
    names = [name for name in type(made)._symphony_spec.fields if name != "id"]
    expected = {name: getattr(made, name) for name in names}

    @entity
    class Holder:
        held: Any = None

    holder = symphony.entities.add(made if kind == "entity" else Holder(id="h", held=made))
    key = f"{type(holder).__name__}:{holder.id}"
    if kind != "value" and names:
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction():
                setattr(made, names[0], 100)
                raise ZeroDivisionError
        assert getattr(made, names[0]) == expected[names[0]]
        setattr(made, names[0], 50)
        expected[names[0]] = 50
    await symphony.flush()
    await symphony.resume()
    again = symphony.entities.get(key)
    found = again if kind == "entity" else again.held
    assert type(found) is type(made)
    assert {name: getattr(found, name) for name in names} == expected
    assert all(f"{name}={expected[name]!r}" in repr(found) for name in names)


@pytest.mark.parametrize("kind", ["entity", "part"])
async def test_a_property_that_assigns_a_field_is_recorded(kind: str, symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its setter runs, and what it assigns is a change of the field."""
    source = (
        "@declare\nclass A:\n    x: int = 0\n    @property\n    def y(self): return self.x\n    @y.setter\n    def y(self, new): self.x = new\n"
        "class D:\n    def __get__(self, obj, cls=None): return self if obj is None else obj.x\n    def __set__(self, obj, new): obj.x = new\nA.z = D()"
    )
    made = build("properties", source, monkeypatch, declare=DECORATORS[kind])["A"]()

    @entity
    class Frame:
        held: Any = None

    frame = symphony.entities.add(Frame(id="f", held=made))
    made.y = 4
    made.z = 5
    await symphony.flush()
    prefix = "A" if kind == "entity" else "Frame:f"
    key = f"A:{made.id}" if kind == "entity" else prefix
    changes = [change for event in await symphony.log.read_entity(key) for change in event.changes]
    where = ("x",) if kind == "entity" else ("held", "x")
    assert changes[1:] == [(0, where, 4), (0, where, 5)]
    assert frame.held.z == 5


@pytest.mark.parametrize("kind", ["entity", "part"])
@pytest.mark.parametrize("declared", ["k: ClassVar[int] = 1", "k = 1", "k = None", "k = (1, 2)", "k = 'text'"])
def test_what_is_the_class_s_is_not_assigned_in_silence(kind: str, declared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute of the class is no field: assigning it on an object would be lost, so that is an error that says so."""
    made = build("variables", f"@declare\nclass A:\n    x: int = 0\n    {declared}", monkeypatch, declare=DECORATORS[kind])["A"]()
    with pytest.raises(AttributeError, match="'k' is an attribute of the class A, not a field: annotate it"):
        made.k = 2
    with pytest.raises(AttributeError, match="has no field 'other'"):
        made.other = 1


@dataclass
class Plain:
    y: int = 2


@entity
class OverPlain(Plain):
    x: int = 0


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> int: ...


@entity
class Square(Shape):
    side: int = 1

    def area(self) -> int:
        return self.side**2

    @functools.cached_property
    def label(self) -> str:
        return f"{self.side} by {self.side}"


def test_entities_are_equal_to_themselves_only() -> None:
    """Also where a base that is a plain dataclass compares by value, which would make them unhashable."""
    one, other = OverPlain(id="1"), OverPlain(id="1")
    assert one != other
    assert one in {one}
    assert other not in {one}


def test_an_abstract_entity_has_no_objects() -> None:
    """Python's own error, as for any abstract class."""

    @entity
    class Unfinished(Shape):
        side: int = 1

    with pytest.raises(TypeError, match="abstract"):
        Unfinished()


async def test_a_cached_property_is_not_state(symphony: Symphony) -> None:
    """It is kept on the object, recorded nowhere, and computed anew on the object that comes back."""
    square = symphony.entities.add(Square(id="s", side=2))
    assert square.label == "2 by 2"
    square.side = 3
    assert square.label == "2 by 2"
    await symphony.flush()
    await symphony.resume()
    assert symphony.entities.get(Square, "s").label == "3 by 3"
    assert [sorted(event.changes[0][-1]) for event in (await symphony.log.read_entity("Square:s"))[:1]] == [["id", "side"]]


@pytest.mark.parametrize("kind", ["entity", "part", "value"])
async def test_a_field_that_was_never_set_is_named(kind: str, symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that lacks a field is refused when it is added, by the name of the field; nothing is recorded."""
    made = build("unset", "@declare\nclass A:\n    x: int = field(init=False)", monkeypatch, declare=DECORATORS[kind])["A"]()

    @entity
    class Keeper:
        held: Any = None

    with pytest.raises((EntityTypeError, UnstorableValueError), match=r"\bx\b.*set every field"):
        symphony.entities.add(made if kind == "entity" else Keeper(id="k", held=made))
    assert symphony.entities.all() == []


@pytest.mark.parametrize("kind", ["entity", "part"])
async def test_what_a_class_says_about_pickling_is_kept(kind: str, symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """`__getstate__` and `__setstate__` of the user's are called; what belongs to the Symphony is left out all the same."""
    source = (
        "@declare\nclass A:\n    x: list = field(default_factory=list)\n    def __getstate__(self):\n        state = dict(self.__dict__)\n        state['seen'] = True\n"
        "        return state\n    def __setstate__(self, state):\n        self._seen = state.pop('seen')\n        self.__dict__.update(state)"
    )
    made = build("pickling", source, monkeypatch, declare=DECORATORS[kind])["A"](x=[[1]])

    @entity
    class Pot:
        held: Any = None

    symphony.entities.add(Pot(id="p", held=made))
    twin = copy.copy(made)
    assert twin._seen
    assert not [name for name in vars(twin) if name in ("_symphony_record", "_symphony_owner")]
    twin.x[0].append(2)
    assert (made.x, twin.x) == ([[1]], [[1, 2]])


COPIERS = {
    "by its attributes": "def __copy__(self):\n        made = type(self).__new__(type(self))\n        made.__dict__.update(self.__dict__)\n        return made",
    "by its class": "def __copy__(self):\n        return type(self)(x=self.x)",
    "deep, by its attributes": "def __deepcopy__(self, memo):\n        made = type(self).__new__(type(self))\n        made.__dict__.update(self.__dict__)\n        return made",
}


@pytest.mark.parametrize("kind", ["entity", "part"])
@pytest.mark.parametrize("copier", COPIERS)
async def test_a_copier_of_the_user_s_makes_objects_of_no_symphony(
    copier: str, kind: str, symphony: Symphony, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it takes over all attributes: what the copy does is nobody's, and the original goes on being recorded."""
    source = f"@declare\nclass A:\n    x: list = field(default_factory=list)\n    {COPIERS[copier]}"
    made = build("copiers", source, monkeypatch, declare=DECORATORS[kind])["A"](x=[1])

    @entity
    class Shelf:
        held: Any = None

    symphony.entities.add(Shelf(id="s", held=made))
    await symphony.flush()
    before = symphony.log.head
    twin = (copy.deepcopy if "deep" in copier else copy.copy)(made)
    twin.x.append(2)
    twin.x = [3]
    await symphony.flush()
    assert (symphony.log.head, made.x, twin.x) == (before, [1], [3])
    made.x.append(4)
    await symphony.flush()
    assert symphony.log.head == before + 1
    await check_restores(symphony, in_process=True)
