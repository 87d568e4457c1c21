"""What an upcast returns is the state as the log will hold it: a tree of values, with references where other entities are meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity, part, value
from symphony_es.core.objects.places import is_node, members
from symphony_es.core.state import UnrestoredEntity
from symphony_es.errors import RestorationError, UnresolvedReferenceError

from ..conftest import Opener

AWAKE: list[str] = []


@entity
class UpGuest:
    """What is referred to."""

    id: str = ""
    name: str = ""


def release(upcast: Callable[..., Any] | None = None, part_upcast: Callable[..., Any] | None = None) -> tuple[Any, Any]:
    """The classes of one release: a bill with lines, which hold lines."""

    @part(state_version=2 if part_upcast else 1, upcast=part_upcast)
    class UpLine:
        text: str = ""
        guest: Any = None
        subs: list[Any] = field(default_factory=list)
        kept: Any = None

        def __restored__(self) -> None:
            AWAKE.append(self.text)

    @entity(type="UpBill", state_version=2 if upcast else 1, upcast=upcast)
    class UpBill:
        id: str = ""
        guest: Any = None
        lines: list[UpLine] = field(default_factory=list)
        main: Any = None
        more: Any = None
        by: dict[str, Any] = field(default_factory=dict)

    return UpBill, UpLine


def changed(**fields: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    """An upcast that sets fields."""

    def upcast(data: dict[str, Any], version: int) -> dict[str, Any]:
        return data | {name: make(data) for name, make in fields.items()}

    return upcast


def held_by_another(data: dict[str, Any], version: int) -> dict[str, Any]:
    """One part inside another one, past what would copy it there."""
    list.append(data["lines"][1].subs, data["lines"][0])
    return data


def kept_by_another(data: dict[str, Any], version: int) -> dict[str, Any]:
    """The same in a field of the other one."""
    data["lines"][1].__dict__["kept"] = data["lines"][0]
    return data


SHARED: dict[str, dict[str, Callable[..., Any]]] = {
    "a part in a field": {"upcast": changed(main=lambda data: data["lines"][0])},
    "a part twice in a list": {"upcast": changed(lines=lambda data: [*data["lines"], data["lines"][0]])},
    "a part in a dict": {"upcast": changed(by=lambda data: {"first": data["lines"][0], "again": data["lines"][0]})},
    "a part of a part": {"upcast": changed(main=lambda data: data["lines"][0].subs[0])},
    "a container of a part": {"upcast": changed(more=lambda data: data["lines"][0].subs)},
    "a plain container": {"upcast": changed(more=lambda data: data["lines"])},
    "a part in a part": {"upcast": held_by_another},
    "a part in a field of a part": {"upcast": kept_by_another},
    "in the upcast of a part": {"part_upcast": changed(kept=lambda data: data["subs"])},
}


def parts_of(live: Any) -> list[Any]:
    """All parts and containers in an object, each place for itself."""
    found = [item for _, item in members(live) if is_node(item)]
    return [*found, *(deeper for item in found for deeper in parts_of(item))]


async def written(symphony: Symphony) -> None:
    """A bill of the first release, and two guests."""
    bill, line = release()
    symphony.entities.add(UpGuest(id="ann"))
    symphony.entities.add(bill(id="1", guest="ann", lines=[line("tea", "ann", [line("sugar")]), line("milk")]))
    await symphony.flush()


@pytest.mark.parametrize("then", ["resume", "refresh"])
@pytest.mark.parametrize("kind", SHARED)
async def test_two_places_hold_two_parts(kind: str, then: str, reopen: Opener) -> None:
    """A part at a second place is a copy there, with its hook called; a change of one reaches the log where it was made."""
    symphony = await reopen()
    await written(symphony)
    symphony = await reopen()
    release(**SHARED[kind])
    AWAKE.clear()
    await symphony.resume(strict=True)
    bill = symphony.entities.get("UpBill:1")
    if then == "refresh":
        AWAKE.clear()
        await symphony.refresh(bill)
    found = parts_of(bill)
    assert len({id(item) for item in found}) == len(found)
    lines = [item for item in found if type(item).__name__ == "UpLine"]
    assert sorted(AWAKE) == sorted(line.text for line in lines)
    for number, line in enumerate(lines):
        line.text = f"line {number}"
        await symphony.flush()
        reference = symphony.world.record_for(bill).reference
        assert (await symphony.at("latest")).get(bill) == symphony.world.capture(bill, reference)
    await symphony.create_checkpoint("nothing differs")


CYCLES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a dict": lambda data: data.update(by={"me": data}),
    "a list": lambda data: data["lines"].append(data["lines"]),
    "a part": lambda data: list.append(data["lines"][0].subs, data["lines"][0]),
}


@pytest.mark.parametrize("kind", CYCLES)
async def test_what_holds_itself_is_refused(kind: str, reopen: Opener) -> None:
    """No state can be so; it costs this entity only."""
    symphony = await reopen()
    await written(symphony)
    symphony = await reopen()

    def upcast(data: dict[str, Any], version: int) -> dict[str, Any]:
        CYCLES[kind](data)
        return data

    release(upcast)
    report = await symphony.resume()
    assert "is to be a tree" in report.unrestored["UpBill:1"]
    assert isinstance(symphony.entities.get("UpGuest:ann"), UpGuest)


@value
class UpWire:
    """A value that refers to something."""

    to: Any


NEW: dict[str, dict[str, Callable[..., Any]]] = {
    "in a field": {"upcast": changed(guest=lambda data: UpGuest(id="bob"))},
    "in a value": {"upcast": changed(guest=lambda data: UpWire(UpGuest(id="bob")))},
    "in a list": {"upcast": changed(more=lambda data: [UpGuest(id="bob")])},
    "in a part": {"part_upcast": changed(kept=lambda data: UpGuest(id="bob"))},
}


@pytest.mark.parametrize("kind", NEW)
async def test_an_upcast_adds_no_entity(kind: str, reopen: Opener) -> None:
    """The log would refer to what it does not have: the message says what to put there instead."""
    symphony = await reopen()
    await written(symphony)
    symphony = await reopen()
    release(**NEW[kind])
    with pytest.raises(RestorationError, match=r"put EntityReference\('UpGuest', id\) there"):
        await symphony.resume(strict=True)
    report = await symphony.resume()
    assert "UpGuest" in report.unrestored["UpBill:1"]
    assert isinstance(symphony.entities.get("UpBill:1"), UnrestoredEntity)


def ref(data: dict[str, Any], name: str = "ann") -> EntityReference:
    """What an upcast makes of an id."""
    return EntityReference("UpGuest", name)


REFERRING: dict[str, tuple[dict[str, Callable[..., Any]], Callable[[Any], Any]]] = {
    "in a field": ({"upcast": changed(guest=ref)}, lambda bill: bill.guest),
    "in a list": ({"upcast": changed(more=lambda data: [1, ref(data)])}, lambda bill: bill.more[1]),
    "in a value": ({"upcast": changed(more=lambda data: UpWire(ref(data)))}, lambda bill: bill.more.to),
    "in a part": ({"part_upcast": changed(guest=ref)}, lambda bill: bill.lines[0].guest),
}


@pytest.mark.parametrize("then", ["resume", "load", "refresh"])
@pytest.mark.parametrize("kind", REFERRING)
async def test_what_an_upcast_refers_to_is_connected(kind: str, then: str, reopen: Opener) -> None:
    """As what is stored: the code gets the object, in this process and in the next one."""
    code, held = REFERRING[kind]
    symphony = await reopen()
    await written(symphony)
    symphony = await reopen()
    release(**code)
    if then == "load":
        await symphony.entities.load("UpBill:1", strict=True)
    else:
        await symphony.resume(strict=True)
    if then == "refresh":
        await symphony.refresh("UpBill:1")
    bill = symphony.entities.get("UpBill:1")
    assert held(bill) is symphony.entities.get("UpGuest:ann")
    bill.by = {"changed": 1}
    symphony = await reopen()
    await symphony.resume(strict=True)
    assert held(symphony.entities.get("UpBill:1")) is symphony.entities.get("UpGuest:ann")


async def test_what_an_upcast_refers_to_and_is_not_there_is_reported(reopen: Opener) -> None:
    """As for stored references: a resume reports it, strict raises."""
    symphony = await reopen()
    await written(symphony)
    symphony = await reopen()
    release(changed(guest=lambda data: ref(data, "nobody")))
    with pytest.raises(UnresolvedReferenceError, match="UpBill:1 at guest -> UpGuest:nobody"):
        await symphony.resume(strict=True)
    report = await symphony.resume()
    assert [(item.entity, item.path, item.target.key) for item in report.unresolved] == [("UpBill:1", ("guest",), "UpGuest:nobody")]
