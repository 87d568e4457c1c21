"""Objects of classes that know nothing of the library: their state is read off and compared."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import attrs
import pydantic
import pytest

import tests.application  # noqa: F401  declares Customer
from symphony_es import Symphony
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.errors import ConfigurationError, EntityTypeError, UnstorableValueError
from symphony_es.events.values import Tagged
from symphony_es.testing import check_restores, restorable_report


class Colour(enum.Flag):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@attrs.define
class Wheel:
    size: int
    tags: list[str] = attrs.field(factory=list)


@attrs.frozen
class Badge:
    text: str


class Engine(pydantic.BaseModel):
    power: int
    parts: list[Point] = []


class Slotted:
    __slots__ = ("_hidden", "content", "id")

    def __init__(self, content: Any) -> None:
        self.id = "s"
        self.content = content
        self._hidden = 1


@dataclass
class Car:
    id: str
    at: Point = Point(0)
    wheels: list[Wheel] = field(default_factory=list)
    engine: Engine | None = None
    badge: Badge | None = None
    colours: Colour = Colour.RED
    trailer: Any = None


class CarRestorer(EntityRestorer):
    entity_type = "Car"  # type: ignore[assignment]

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return Car(**data)


async def test_nested_objects_become_tagged_values_and_come_back_as_objects(symphony: Symphony) -> None:
    """Dataclass, attrs, pydantic and enum members, frozen or not, by the name of their class."""
    symphony.restore_manager.register_restorer(CarRestorer())
    trailer = symphony.entities.add(Car("t"))
    car = Car("c", Point(1, 2), [Wheel(3, ["x"])], Engine(power=5, parts=[Point(1)]), Badge("b"), Colour.RED | Colour.BLUE, trailer)
    symphony.entities.add(car)
    await symphony.flush()
    state = (await symphony.at(symphony.log.head)).get("Car:c")
    assert state["at"] == Tagged("value", f"{__name__}:Point", {"x": 1, "y": 2})
    assert state["wheels"][0] == Tagged("part", f"{__name__}:Wheel", {"size": 3, "tags": ["x"]})
    assert state["badge"].kind == "value"
    assert state["engine"].kind == "part"
    assert state["colours"] == Tagged("enum", f"{__name__}:Colour", 3)
    await check_restores(symphony, in_process=True)
    await symphony.resume()
    again = symphony.entities.get("Car:c")
    assert again == Car("c", car.at, car.wheels, car.engine, car.badge, car.colours, symphony.entities.get("Car:t"))
    again.wheels[0].tags.append("y")
    again.engine.power = 6
    symphony.entities.record(again)
    await symphony.flush()
    assert (await symphony.log.read_entity("Car:c"))[-1].changes == ((3, ("wheels", 0, "tags"), "y"), (0, ("engine", "power"), 6))


async def test_the_test_kit_says_what_would_not_come_back(symphony: Symphony) -> None:
    """A type without a restorer is named."""
    symphony.entities.add(Car("c"))
    assert list((await restorable_report(symphony)).unrestored) == ["Car:c"]
    with pytest.raises(AssertionError, match="no restorer is registered for Car"):
        await check_restores(symphony, in_process=True)


async def test_on_record_is_compared_only_when_asked(symphony: Symphony) -> None:
    """capture="on_record" keeps large objects out of every transaction's end."""
    slotted = symphony.entities.add(Slotted([1]), capture="on_record")
    await symphony.flush()
    slotted.content.append(2)
    async with symphony.transaction("Something"):
        pass
    assert len(await symphony.log.read_entity("Slotted:s")) == 1
    symphony.entities.record(slotted, "Noted")
    await symphony.flush()
    event = (await symphony.log.read_entity("Slotted:s"))[-1]
    assert (event.name, event.changes) == ("Noted", ((3, ("content",), 2),))


async def test_what_cannot_be_captured_is_refused(symphony: Symphony) -> None:
    """No attributes, no id, a capture that returns no dict, a cycle, an unknown object inside: each names its way out."""

    class Odd(EntityRestorer):
        entity_type = "Odd"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            return None

        def capture(self, entity: Any) -> Any:
            return [1]

    with pytest.raises(EntityTypeError, match="has no attributes to store"):
        symphony.entities.add(object(), "Thing", "1")
    with pytest.raises(ConfigurationError, match="needs an id"):
        symphony.entities.add(Point(1))
    symphony.restore_manager.register_restorer(Odd())
    with pytest.raises(EntityTypeError, match="must return a dict"):
        symphony.entities.add(Slotted(1), "Odd", "1")
    with pytest.raises(UnstorableValueError, match=r"Slotted:s: the value at content\.a\[0\]"):
        symphony.entities.add(Slotted({"a": [object()]}))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnstorableValueError, match="contains itself"):
        symphony.entities.add(Slotted(loop))
    with pytest.raises(EntityTypeError, match="Customer is the type of Customer"):
        symphony.entities.add(Slotted(1), "Customer")
    for wrong in ("Car:c", 5, [1]):
        with pytest.raises((EntityTypeError, ConfigurationError)):
            symphony.entities.add(wrong)
    await symphony.flush()
    assert symphony.log.head == 0


async def test_two_classes_of_one_bare_name_never_meet(symphony: Symphony) -> None:
    """Each is stored under its module and qualified name; a given name belongs to one of them."""

    def make() -> Any:
        @dataclass
        class Wheel:
            size: int

        return Wheel

    symphony.entities.add(Slotted(Wheel(1)))
    symphony.entities.add(Car("c", badge=make()(1)))
    symphony.types.register(other := make(), "OtherWheel")
    with pytest.raises(EntityTypeError, match="give one of them another"):
        symphony.types.register(Wheel, "OtherWheel")
    symphony.entities.add(Car("d", badge=other(1)))
    await symphony.flush()
    view = await symphony.at(symphony.log.head)
    assert view.get("Slotted:s")["content"].name == f"{__name__}:Wheel"
    assert view.get("Car:c")["badge"].name == f"{__name__}:test_two_classes_of_one_bare_name_never_meet.<locals>.make.<locals>.Wheel"
    assert view.get("Car:d")["badge"].name == "OtherWheel"
