"""What declared classes may be made of, what they show of themselves, and which of them may be put in."""

from __future__ import annotations

import enum
from dataclasses import KW_ONLY, field
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from symphony_es import Symphony, entity, part, value
from symphony_es.core.objects.types import TypeTable
from symphony_es.errors import ConfigurationError, EntityTypeError, UnstorableValueError
from tests.conftest import Opener

T = TypeVar("T")
SECRET = {"secret": True}


@value
class Key:
    """A value with a secret and a cached property."""

    name: str = ""
    token: str = field(default="", metadata=SECRET)

    @cached_property
    def length(self) -> int:
        """Kept in the object, not in the state."""
        return len(self.token)


@part
class Drawer(Generic[T]):
    """A generic part with a secret and a cached property."""

    item: T | None = None
    pin: str = field(default="", metadata=SECRET)
    quiet: str = field(default="", repr=False)

    @cached_property
    def label(self) -> str:
        """Kept in the object, not in the state."""
        return f"<{self.item}>"


@part
class Safe(Drawer[int]):
    """A part that derives from a part."""

    depth: int = 0


@entity(type="DeclaredDesk")
class Desk:
    """Everything that a dataclass may have."""

    limit: ClassVar[int] = 3
    id: str = ""
    _: KW_ONLY
    drawers: list[Drawer[Any]] = field(default_factory=list)
    key: Key = Key()
    password: str = field(default="", metadata=SECRET)
    made: list[int] = field(init=False, default_factory=list)

    @cached_property
    def count(self) -> int:
        """Kept in the object, not in the state."""
        return len(self.drawers)


@entity(type="DeclaredTall")
class Tall(Desk):
    """An entity that derives from one."""

    height: int = 1


async def test_features_of_dataclasses_survive_a_process(reopen: Opener) -> None:
    """Class variables, keyword-only fields, fields without a parameter, cached properties, generics, inheritance."""
    symphony = await reopen()
    tall = symphony.entities.add(Tall(id="1", drawers=[Drawer("x", "1234"), Safe(2, depth=5)], key=Key("k", "abc"), password="p", height=2))
    tall.made.append(1)
    assert (tall.count, tall.drawers[0].label, tall.key.length, Tall.limit) == (2, "<x>", 3, 3)
    await symphony.flush()
    symphony = await reopen()
    assert (await symphony.resume()).complete
    tall = symphony.entities.get("DeclaredTall:1")
    assert (tall.count, tall.drawers[0].label, tall.key.length, tall.made, tall.height) == (2, "<x>", 3, [1], 2)
    assert type(tall.drawers[1]) is Safe
    assert tall.drawers[1].depth == 5


def test_secret_fields_are_not_shown() -> None:
    """By no repr of what holds them; nor is what asks not to be; other fields are, those of a derived class too."""
    tall = Tall(id="1", drawers=[Drawer("x", "1234", "q"), Safe(2, "5678", depth=5)], key=Key("k", "abc"), password="geheim")
    shown = repr([tall, {"key": tall.key}])
    assert not any(secret in shown for secret in ("1234", "5678", "abc", "geheim", "quiet"))
    assert "Drawer(item='x', pin=***)" in shown
    assert "Safe(item=2, pin=***, depth=5)" in shown
    assert "Key(name='k', token=***)" in shown
    assert "height=1" in shown


@pytest.mark.parametrize("declared", [Drawer, Key])
@pytest.mark.parametrize("place", ["field", "list", "dict", "tuple", "new"])
async def test_a_class_that_only_derives_from_a_declared_one_is_refused(declared: Any, place: str, symphony: Symphony) -> None:
    """It would come back as its base, without its own fields; the message says what to do, and nothing has changed."""

    class Derived(declared):  # type: ignore[misc]
        extra = 1

    desk = symphony.entities.add(Desk(id="1"))
    made = Derived()
    values = {"field": made, "list": [made], "dict": {"a": [made]}, "tuple": (made,), "new": [made]}
    kind = declared._symphony_kind
    with pytest.raises(UnstorableValueError, match=rf"decorate it with @{kind}|could change without being recorded"):
        if place == "new":
            symphony.entities.add(Desk(id="2", drawers=values[place]))
        else:
            desk.key = values[place]
    assert desk.key == Key()


def test_an_entity_type_belongs_to_one_class() -> None:
    """Another class of that type is refused at the decorator; the same class, defined anew, takes its place."""

    def make() -> type:
        @entity(type="DeclaredOnce")
        class Once:
            id: str = ""

        return Once

    assert make() is not make()
    with pytest.raises(EntityTypeError, match=r"tests\.core\.test_declared_classes:.*Other.* cannot be the entity type 'DeclaredOnce'"):

        @entity(type="DeclaredOnce")
        class Other:
            id: str = ""


async def test_a_class_that_is_defined_anew_takes_the_place_of_the_old_one(symphony: Symphony) -> None:
    """As when a cell of a notebook is run again: what comes back is of the newest class."""

    def make() -> Any:
        class Colour(enum.Enum):
            RED = 1

        return Colour

    old, new = make(), make()
    symphony.entities.add(Desk(id="1", drawers=[Drawer(old.RED), Drawer(new.RED)]))
    await symphony.flush()
    await symphony.resume()
    assert [drawer.item for drawer in symphony.entities.get("DeclaredDesk:1").drawers] == [new.RED, new.RED]


@pytest.mark.parametrize("version", [0, -1, "2", True])
def test_versions_are_whole_numbers_from_one(version: Any) -> None:
    """Anything else is refused at the decorator."""
    for decorate in (entity, part, value):
        with pytest.raises(EntityTypeError, match="state_version"):
            decorate(state_version=version)(type("Versioned", (), {"__annotations__": {"id": str}, "id": ""}))


def test_aliases_lead_to_classes_and_never_in_a_circle() -> None:
    """Over several steps, with the arguments of a generic model; an alias that would lead back is refused, and changes nothing."""
    table = TypeTable(TypeTable())

    class Box:
        pass

    class BoxOfInts:
        pass

    table.register(Box, "new:Box")
    table.register(BoxOfInts, "new:Box[int]")
    table.alias("old:Box", "middle:Box")
    assert table.class_of("old:Box") is None
    table.alias("middle:Box", "new:Box")
    assert table.class_of("old:Box") is Box
    assert table.class_of("old:Box[int]") is BoxOfInts
    assert table.class_of("old:Box[str]") is None
    for old, new in (("new:Box", "old:Box"), ("middle:Box", "old:Box"), ("x:X", "x:X")):
        with pytest.raises(ConfigurationError, match="leads back"):
            table.alias(old, new)
    table.alias("y:Y", "y:Y[int]")
    assert table.class_of("y:Y") is None
    assert table.names()["old:Box"] is Box
