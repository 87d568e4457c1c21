"""No stored form ever stands where the application's code expects an object, whichever way an entity comes back."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from symphony_es import entity, part, value
from symphony_es.core.state import EntityRestorer, UnrestoredEntity
from symphony_es.errors import EntityOutOfStepError, RestorationError
from symphony_es.events import Tagged

from ..conftest import Opener


def same(data: dict[str, Any], _: int) -> dict[str, Any]:
    """An upcast that has nothing to do."""
    return data


called: list[Any] = []
"""What the hooks of parts were called on."""

Upcast = Callable[[dict[str, Any], int], dict[str, Any]]


def versions(name: str, upcasts: Mapping[str, Upcast]) -> dict[str, Any]:
    """The options of a class that has an upcast in the second release."""
    return {"state_version": 2, "upcast": upcasts[name]} if name in upcasts else {}


def values(release: int) -> tuple[Any, Any, Any]:
    """Values that the second release cannot make: a field without a default is new, a member is gone, the version is an older one."""
    if release == 1:

        @value(name="stored-forms.money")
        class Money:
            amount: int = 3

        class Kind(enum.Enum):
            OLD = "old"

    else:

        @value(name="stored-forms.money")
        class Money:  # type: ignore[no-redef]
            cents: int

        class Kind(enum.Enum):  # type: ignore[no-redef]
            NEW = "new"

    @value(name="stored-forms.newer", state_version=3 if release == 1 else 1)
    class Newer:
        amount: int = 3

    return Money, Kind, Newer


def declare(release: int, upcasts: Mapping[str, Upcast] = MappingProxyType({})) -> tuple[Any, Any, Any, list[Any]]:
    """The classes of a release; `upcasts` are those of the Entity, the Part, and the Value."""
    money, kind, newer = values(release)

    @value(name="stored-forms.box", **versions("V", upcasts))
    class Box:
        held: Any = None

    def fuller(cls: Any) -> Any:
        """Release 0 has two fields more."""
        if release == 0:
            cls.__annotations__ |= {"gone": int, "taken": int}
            cls.gone = cls.taken = 1
        return cls

    @part(name="stored-forms.line", **versions("P", upcasts))
    @fuller
    class Line:
        price: Any = None

        def __restored__(self) -> None:
            called.append(self.price)

    @entity(type="StoredFormsOrder", **versions("E", upcasts))
    @fuller
    class Order:
        id: str = ""
        name: str = "n"
        lines: Any = None

    return Order, Line, Box, [money, kind, newer]


KINDS = {"a new field": 0, "a member that is gone": 1, "a newer version": 2}
NESTS: dict[str, Any] = {
    "in a part": lambda line, box, bad: line(bad),
    "in a part in a list": lambda line, box, bad: [line(bad)],
    "in a part in a dict": lambda line, box, bad: {"k": [line(1), line({"k": [bad]})]},
    "in a value in a tuple": lambda line, box, bad: (1, box(bad)),
    "in a value in a part": lambda line, box, bad: line(box((bad, 1))),
    "in a part in a part": lambda line, box, bad: line(line(bad)),
    "in a value in a set": lambda line, box, bad: {box(bad)},
    "itself": lambda line, box, bad: bad,
}


def bad_of(kind: str, made: list[Any]) -> Any:
    """The value that the second release cannot make."""
    cls = made[KINDS[kind]]
    return cls.OLD if issubclass(cls, enum.Enum) else cls()


@pytest.mark.parametrize("upcasts", ["", "E", "P", "V", "EPV"])
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_entity_is_kept_whole(kind: str, nest: str, upcasts: str, reopen: Opener) -> None:
    """Resume, load, the objects of a view, a rewind and a refresh ask one place."""
    order, line, box, made = declare(1)
    symphony = await reopen()
    symphony.entities.add(order(id="1", lines=NESTS[nest](line, box, bad_of(kind, made))))
    await symphony.flush()
    checkpoint = await symphony.create_checkpoint("written")
    symphony = await reopen()
    *_, made = declare(2, dict.fromkeys(upcasts, same))
    symphony.types.register(made[1])
    for report in (await symphony.resume(), await symphony.resume_from_checkpoint(checkpoint) and symphony.last_resume):
        assert report is not None
        assert list(report.unrestored) == ["StoredFormsOrder:1"]
        assert not report.complete
        assert isinstance(symphony.entities.get("StoredFormsOrder:1"), UnrestoredEntity)
    await symphony.flush()
    assert [version.event.name for version in await symphony.history("StoredFormsOrder:1")] == ["StoredFormsOrderCreated"]
    past = await (await symphony.at(checkpoint)).objects()
    assert isinstance(past.get("StoredFormsOrder:1"), UnrestoredEntity)
    other = await reopen()
    other.types.register(made[1])
    assert isinstance(await other.entities.load("StoredFormsOrder:1"), UnrestoredEntity)


@pytest.mark.parametrize("upcasts", ["E", "P", "EP"])
async def test_a_refresh_makes_no_object_of_a_stored_form(upcasts: str, reopen: Opener) -> None:
    """The object that is put back keeps what it has where the log's state cannot be made."""
    order, line, _, made = declare(1)
    symphony = await reopen()
    live = symphony.entities.add(order(id="1", lines=[line(made[0]())]))
    await symphony.flush()
    declare(2, dict.fromkeys(upcasts, same))
    with pytest.raises(RestorationError, match="has no 'cents'"):
        await symphony.refresh(live)
    assert not isinstance(live.lines[0].price, Tagged)
    with pytest.raises(EntityOutOfStepError, match="and refresh again"):
        await symphony.flush()
    declare(1)
    assert await symphony.refresh(live) == []


@dataclasses.dataclass
class Around:
    """A class that is not declared."""

    price: Any


class AdoptedRestorer(EntityRestorer):
    """Of a release that makes another class of the state."""

    entity_type = "StoredFormsOrder"
    state_version = 2

    async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> Any:
        """What cannot be made does not get here."""
        raise AssertionError(data)

    def upcast(self, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Put what there is into an object."""
        return {**data, "lines": [Around(data["lines"])]}


@pytest.mark.parametrize("around", ["part", "dataclass", "dataclass of a restorer"])
async def test_what_an_upcast_puts_into_an_object_is_looked_for_there(around: str, reopen: Opener) -> None:
    """The stored form stands in an object that the upcast has made."""
    order, _, _, made = declare(1)
    symphony = await reopen()
    symphony.entities.add(order(id="1", lines=made[0]()))
    await symphony.flush()
    symphony = await reopen()
    _, line, _, _ = declare(2)
    wrapped = line if around == "part" else Around
    declare(2, {"E": lambda data, _: {**data, "lines": [wrapped(data["lines"])]}})
    if around == "dataclass of a restorer":
        symphony.restore_manager.register_restorer(AdoptedRestorer())
    report = await symphony.resume()
    assert "has no 'cents'" in report.unrestored["StoredFormsOrder:1"]
    assert report.unknown_values == {"StoredFormsOrder:1": ["stored-forms.money"]}


async def test_an_upcast_may_replace_what_cannot_be_made(reopen: Opener) -> None:
    """It gets a copy of the stored form: the entity comes back without it, and the log's state is as it was."""
    order, line, _, made = declare(1)
    symphony = await reopen()
    symphony.entities.add(order(id="1", lines=[line(made[1].OLD), line(made[0]())]))
    await symphony.flush()
    symphony = await reopen()
    got: list[Any] = []

    def replace(data: dict[str, Any], _: int) -> dict[str, Any]:
        got.append(price := data["price"])
        if price.kind == "value":
            price.data["cents"] = price.data.pop("amount")
            return data
        return {**data, "price": price.value}

    symphony.types.register(declare(2, {"P": replace})[3][1])
    report = await symphony.resume()
    assert report.unrestored == {}
    one, two = symphony.entities.get("StoredFormsOrder:1").lines
    assert one.price == "old"
    assert two.price.cents == 3
    assert all(isinstance(item, Tagged) for item in got)
    states = await (await symphony.at(symphony.log.head)).objects()
    assert [item.price for item in states.get("StoredFormsOrder:1").lines] == ["old", two.price]  # the log's state is as it was


@pytest.mark.parametrize("answer", [KeyError("sku"), None, [1]])
@pytest.mark.parametrize("place", ["P", "V"])
@pytest.mark.parametrize("around", ["", "E"])
async def test_an_upcast_of_what_stands_inside_costs_its_entity_only(answer: Any, place: str, around: str, reopen: Opener) -> None:
    """It raises, or returns no dict: the others come back."""
    order, line, box, _ = declare(1)
    symphony = await reopen()
    symphony.entities.add(order(id="1", lines=line(1) if place == "P" else box(1)))
    symphony.entities.add(order(id="2"))
    await symphony.flush()
    symphony = await reopen()

    def fail(data: dict[str, Any], _: int) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    declare(2, {place: fail, **dict.fromkeys(around, same)})
    report = await symphony.resume()
    assert list(report.unrestored) == ["StoredFormsOrder:1"]
    words = "from version 1 to 2 failed: KeyError('sku')" if isinstance(answer, Exception) else f"returned {type(answer).__name__}"
    assert words in report.unrestored["StoredFormsOrder:1"]
    assert symphony.entities.get("StoredFormsOrder:2").name == "n"


async def test_an_upcast_that_fails_for_a_stored_form_says_why_it_got_one(reopen: Opener) -> None:
    """It is the class's matter, not the upcast's."""
    order, line, _, made = declare(1)
    symphony = await reopen()
    symphony.entities.add(order(id="1", lines=line(made[0]())))
    await symphony.flush()
    symphony = await reopen()
    declare(2, {"P": lambda data, _: {"price": data["price"].cents}})
    reason = (await symphony.resume()).unrestored["StoredFormsOrder:1"]
    assert "AttributeError" in reason
    assert "has no 'cents': give the field a default" in reason


@pytest.mark.parametrize("upcasts", ["", "E", "P", "EP"])
async def test_the_hooks_of_parts_are_called_with_an_upcast_around_them(upcasts: str, reopen: Opener) -> None:
    """Once, for each that the upcast has kept."""
    order, line, _, _ = declare(1)
    symphony = await reopen()
    symphony.entities.add(order(id="1", lines=[line("kept"), line("dropped")]))
    await symphony.flush()
    symphony = await reopen()
    called.clear()
    kept = {**dict.fromkeys(upcasts, same), **({"E": lambda data, _: {**data, "lines": data["lines"][:1]}} if "E" in upcasts else {})}
    declare(2, kept)
    await symphony.resume()
    assert called == ["kept", "dropped"][: 1 if "E" in upcasts else 2]


@pytest.mark.parametrize("upcasts", ["", "E", "P", "EP"])
async def test_what_a_class_has_no_more_is_named_also_where_an_upcast_has_passed_it_on(upcasts: str, reopen: Opener) -> None:
    """At the entity and in a part; what an upcast has taken out itself is none of it."""
    symphony = await reopen()
    order, line, *_ = declare(0)
    symphony.entities.add(order(id="1", lines=[line()]))
    await symphony.flush()
    symphony = await reopen()

    def take(data: dict[str, Any], _: int) -> dict[str, Any]:
        return {name: item for name, item in data.items() if name != "taken"}

    declare(2, dict.fromkeys(upcasts, take))
    report = await symphony.resume()
    expected = [("gone",), ("lines", 0, "gone")]
    expected += [] if "E" in upcasts else [("taken",)]
    expected += [] if "P" in upcasts else [("lines", 0, "taken")]
    assert sorted(map(str, report.removed_fields["StoredFormsOrder:1"])) == sorted(map(str, expected))
