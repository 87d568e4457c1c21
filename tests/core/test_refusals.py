"""What is refused, and what is passed over: each with its reason, and nothing half done."""

from __future__ import annotations

import asyncio
from dataclasses import field
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.core.world import world as world_module
from symphony_es.errors import (
    EntityBusyError,
    EntityExistsError,
    EntityOutOfStepError,
    EntityTypeError,
    UnstorableValueError,
)
from symphony_es.events.event import EventMetadata, NewEvent
from tests.application import Customer, Invoice, Line, Thermometer
from tests.conftest import Opener


async def intrude(symphony: Symphony, key: str, version: int) -> None:
    event = NewEvent(entity_key=key, version=version, name="Intruded", changes=[], metadata=EventMetadata(), event_id=b"1" * 16)
    await symphony.log.append([event])


async def test_claims_from_outside_wait_and_give_up(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call outside transactions waits for the end of one; one that takes too long is a typed error; removal is refused."""
    customer = symphony.entities.add(Customer(id="c"))
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with symphony.transaction("Held"):
            customer.name = "x"
            inside.set()
            await go_on.wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    with pytest.raises(EntityBusyError, match="removal"):
        symphony.entities.remove(customer)
    with monkeypatch.context() as patch:
        patch.setattr(world_module, "CLAIM_TIMEOUT_S", 0.01)
        with pytest.raises(EntityBusyError, match="waited"):
            await symphony.world.claim(customer)
    waiting = asyncio.create_task(symphony.world.claim(customer))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(task, waiting)
    symphony.entities.remove(customer)


async def test_additions_that_contradict_what_is_known(symphony: Symphony) -> None:
    """Another type or id for the same object, two objects of one id, an addition while the world is sealed or out of step."""
    customer = symphony.entities.add(Customer(id="c"))
    thermometer = symphony.entities.add(Thermometer("t"))
    assert symphony.world.find(thermometer) is thermometer
    assert symphony.world.find(Customer(id="free")) is None
    with pytest.raises(EntityExistsError, match="one entity"):
        symphony.entities.add(thermometer, "Other")
    with pytest.raises(EntityTypeError, match="cannot be added as"):
        symphony.entities.add(Customer(id="n"), "Other")
    with pytest.raises(EntityExistsError, match="two objects"):
        symphony.entities.add(Customer(id="x", boss=Customer(id="x")))
    symphony.world.sealed = "a test"
    with pytest.raises(EntityBusyError, match="a test"):
        symphony.entities.add(Customer(id="y"))
    symphony.world.sealed = None
    symphony.world.add(Customer(id="said"), event_name="Met", data={"where": "here"})
    await symphony.flush()
    assert (await symphony.log.read_entity("Customer:said"))[0].data == {"where": "here"}
    await intrude(symphony, "Customer:c", 2)
    symphony.entities.remove(customer)
    with pytest.raises(EntityOutOfStepError):
        await symphony.flush()
    with pytest.raises(EntityOutOfStepError):
        symphony.entities.add(Customer(id="c"))
    await symphony.refresh("Customer:c")
    await symphony.flush()


async def test_sets_refuse_what_changes_and_what_is_no_set(symphony: Symphony) -> None:
    """Parts and lists are no members; operators need sets; popping works to the end."""
    invoice = symphony.entities.add(Invoice(id="i", labels={"a"}))
    for wrong in (Line("x"), [1]):
        with pytest.raises((UnstorableValueError, TypeError)):
            invoice.labels.add(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unsupported operand"):
        invoice.labels |= ["b"]
    assert invoice.labels.pop() == "a"
    with pytest.raises(KeyError):
        invoice.labels.pop()
    invoice.labels.clear()
    await symphony.flush()
    assert (await symphony.at(symphony.log.head)).get(invoice)["labels"] == set()


async def test_a_rollback_puts_references_of_foreign_objects_back(symphony: Symphony) -> None:
    """To live objects where the target is here; objects compared only on record are left alone."""
    customer = symphony.entities.add(Customer(id="c"))
    thermometer = Thermometer("t")
    thermometer.readings = [customer, EntityReference("Customer", "gone")]  # type: ignore[list-item]
    symphony.entities.add(thermometer)
    manual = symphony.entities.add(Thermometer("m", 1.0), capture="on_record")
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[thermometer, manual]):
            thermometer.readings = []
            manual.degrees = 2.0
            raise ZeroDivisionError
    assert thermometer.readings == [customer, EntityReference("Customer", "gone")]
    assert manual.degrees == 2.0


class Ledger:
    def __init__(self, id: str, **rest: Any) -> None:
        self.id = id
        self.__dict__.update(rest)


class LedgerRestorer(EntityRestorer):
    """Leaves `old` out, and makes its object through the facades."""

    entity_type = "Ledger"  # type: ignore[assignment]

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return context.symphony.entities.add(Ledger(entity_id, size=data["size"]), "Ledger")


async def test_an_adoption_belongs_to_the_transaction_that_causes_it(reopen: Opener) -> None:
    """It comes before the change, is undone with it, and comes again."""
    symphony = await reopen()
    symphony.entities.add(Ledger("l", size=1, old=True), "Ledger")
    symphony = await reopen()
    symphony.restore_manager.register_restorer(LedgerRestorer())
    report = await symphony.resume()
    assert [item.entity for item in report.different] == ["Ledger:l"]
    ledger = symphony.entities.get("Ledger:l")
    for fails in (True, False):
        try:
            async with symphony.transaction("Changed"):
                ledger.size = 2
                symphony.entities.record(ledger)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert ledger.size == 1
    assert [event.name for event in await symphony.log.read_entity("Ledger:l")] == ["LedgerCreated", "StateAdopted", "Changed"]


async def test_missing_fields_are_made_by_their_factories(reopen: Opener) -> None:
    """A class that gained a list gets an empty one, tracked."""

    @entity(type="Sprouting")
    class Sprouting:
        id: str = ""

    symphony = await reopen()
    symphony.entities.add(Sprouting(id="g"))
    await symphony.flush()
    body = {"id": "", "items": field(default_factory=list), "__module__": __name__, "__qualname__": Sprouting.__qualname__}
    entity(type="Sprouting")(type("Sprouting", (), {**body, "__annotations__": {"id": str, "items": list}}))
    symphony = await reopen(resume="latest")
    growing = symphony.entities.get("Sprouting:g")
    growing.items.append(1)
    await symphony.flush()
    assert (await symphony.at(symphony.log.head)).get(growing) == {"id": "g", "items": [1]}


async def test_an_entity_with_thousands_of_events_is_read_in_pages(reopen: Opener) -> None:
    """Its history, its past states, and its present one."""
    symphony = await reopen()
    customer = symphony.entities.add(Customer(id="c"))
    for number in range(2100):
        with symphony.acting_as(str(number)):
            customer.name = str(number)
    await symphony.flush()
    assert len(await symphony.log.read_entity("Customer:c")) == 2101
    state = await symphony.state_history.entity_at("Customer:c", 1500)
    assert state is not None
    assert state.data is not None
    assert (state.version, state.data["name"]) == (1500, "1498")
    await symphony.refresh(customer)
    assert customer.name == "2099"


async def test_a_ticket_has_no_result_before_its_commit(reopen: Opener) -> None:
    """And a memory log whose history was trimmed still knows each entity."""
    symphony = await reopen()
    event = NewEvent(entity_key="A:1", version=1, name="X", changes=[], metadata=EventMetadata(), event_id=b"1" * 16)
    ticket = symphony.log.submit([symphony.log.prepare(event)])
    if not ticket.done():
        with pytest.raises(asyncio.InvalidStateError):
            ticket.result()
    await ticket.wait()
    async with Symphony({"memory_events": 20}) as bounded:
        rare, busy = bounded.entities.add(Customer(id="rare", name="r")), bounded.entities.add(Customer(id="busy"))
        for number in range(100):
            busy.name = str(number)
            await bounded.flush()
        await bounded.refresh(rare)
        await bounded.refresh(busy)
        assert (rare.name, busy.name) == ("r", "99")
        assert await bounded.state_history.count_entities(bounded.log.head) == 2
