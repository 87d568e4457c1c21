"""Transactions: together or not at all, in an order that a fold can follow, and each change attributed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.attribution import attributed
from symphony_es.errors import (
    DetachedEntityError,
    EntityBusyError,
    EntityExistsError,
    EntityNotFoundError,
    LimitExceededError,
    TransactionEndedError,
    UnstorableValueError,
)
from symphony_es.events.event import Event
from tests.application import Customer, Invoice, Line, Money, Thermometer


async def events(symphony: Symphony, key: str) -> list[Event]:
    await symphony.flush()
    return await symphony.log.read_entity(key)


async def test_a_transaction_appends_one_named_event_per_entity(symphony: Symphony) -> None:
    """Several entities, one transaction id, positions in a row, actor, reason and the user's own keys."""
    one, two = symphony.entities.add(Customer(id="1")), symphony.entities.add(Customer(id="2"))
    async with symphony.transaction("NamesAgreed", actor="alice", reason="meeting", ticket="T-1"):
        one.name = "A"
        two.name = "B"
        one.friends.append(two)
    first, second = (await events(symphony, "Customer:1"))[-1], (await events(symphony, "Customer:2"))[-1]
    assert first.name == second.name == "NamesAgreed"
    assert first.transaction_id == second.transaction_id == first.event_id
    assert second.position == first.position + 1
    assert (first.metadata.actor, first.metadata.reason, first.metadata.user) == ("alice", "meeting", {"ticket": "T-1"})
    assert len(first.changes) == 2


async def test_an_exception_appends_nothing_and_puts_everything_back(symphony: Symphony) -> None:
    """Attributes, containers, parts, added and removed entities: all as they were."""
    customer = symphony.entities.add(Customer(id="c", name="old", friends=[1, 2], notes={"a": [1], "b": 2}))
    invoice = symphony.entities.add(Invoice(id="i", lines=[Line("a"), Line("b")], labels={"x"}))
    await symphony.flush()
    head, before = symphony.log.head, (repr(customer), repr(invoice))
    line = invoice.lines[0]
    with pytest.raises(RuntimeError, match="stop"):
        async with symphony.transaction("Tried"):
            customer.name = "new"
            customer.friends.append(3)
            customer.friends.sort(reverse=True)
            del customer.friends[0]
            customer.notes["a"].extend([2, 3])
            del customer.notes["b"]
            customer.notes.clear()
            invoice.lines[0].price = Money(9)
            invoice.lines.reverse()
            invoice.lines.pop()
            invoice.labels ^= {"x", "z"}
            invoice.paid = True
            symphony.entities.add(Customer(id="new"))
            symphony.entities.remove(invoice)
            raise RuntimeError("stop")
    assert (repr(customer), repr(invoice)) == before
    assert symphony.entities.find("Customer:new") is None
    assert symphony.entities.get("Invoice:i") is invoice
    await symphony.flush()
    assert symphony.log.head == head
    line.text = "tracked again"
    assert (await events(symphony, "Invoice:i"))[-1].changes[0][1] == ("lines", 0, "text")


async def test_a_block_in_a_block_joins_and_can_be_undone_alone(symphony: Symphony) -> None:
    """The inner block's events have its name; when it fails and is caught, the rest is committed."""
    customer = symphony.entities.add(Customer(id="c"))
    async with symphony.transaction("Outer"):
        customer.name = "outer"
        with pytest.raises(ValueError, match="inner"):
            async with symphony.transaction("Inner"):
                customer.name = "inner"
                raise ValueError("inner")
        assert customer.name == "outer"
        async with symphony.transaction("Second", actor="bob"):
            customer.friends.append(1)
        customer.friends.append(2)
    tail = (await events(symphony, "Customer:c"))[1:]
    assert [event.name for event in tail] == ["Outer", "Second", "Outer"]
    assert len({event.transaction_id for event in tail}) == 1
    assert [event.metadata.actor for event in tail] == [None, "bob", None]


async def test_a_plain_assignment_from_outside_to_a_claimed_entity_is_refused(symphony: Symphony) -> None:
    """EntityBusyError names the entity and the transaction; the object is as the transaction has it."""
    customer = symphony.entities.add(Customer(id="c", name="before"))
    inside, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with symphony.transaction("Held"):
            customer.name = "inside"
            inside.set()
            await done.wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    with pytest.raises(EntityBusyError, match="Held") as caught:
        customer.name = "outside"
    assert caught.value.entity == "Customer:c"
    with pytest.raises(EntityBusyError, match="Other"):
        async with symphony.transaction("Other"):
            customer.name = "other"
    done.set()
    await task
    assert customer.name == "inside"
    customer.name = "after"
    assert [event.name for event in await events(symphony, "Customer:c")] == ["CustomerCreated", "Held", "CustomerChanged"]


async def test_claims_wait_for_each_other_and_circles_fail_at_once(symphony: Symphony) -> None:
    """A second transaction waits in awaited calls; a wait that would close a circle is refused."""
    a, b = symphony.entities.add(Customer(id="a")), symphony.entities.add(Customer(id="b"))
    await symphony.flush()
    first_has, second_has = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with symphony.transaction("First", claim=[a]):
            first_has.set()
            await second_has.wait()
            await symphony.world.claim(b)
            b.name += "first"

    async def second() -> None:
        await first_has.wait()
        async with symphony.transaction("Second", claim=[b]):
            second_has.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(EntityBusyError, match=r"what it waits for: have each claim all its entities when it begins"):
                await symphony.world.claim(a)
            b.name += "second"

    async with asyncio.timeout(5):
        await asyncio.gather(first(), second())
    assert b.name == "secondfirst"


async def test_tasks_and_threads_of_a_transaction_belong_to_it_until_its_end(symphony: Symphony) -> None:
    """Changes from a task and a thread started inside are part of it; after its end they are refused."""
    customer = symphony.entities.add(Customer(id="c"))
    late = asyncio.Event()

    async def later() -> None:
        await late.wait()
        with pytest.raises(TransactionEndedError):
            customer.name = "late"

    async with symphony.transaction("Shared"):
        await asyncio.to_thread(setattr, customer, "name", "from a thread")
        task = asyncio.create_task(later())
    late.set()
    await task
    tail = (await events(symphony, "Customer:c"))[1:]
    assert [(event.name, event.changes[0][2]) for event in tail] == [("Shared", "from a thread")]


async def test_changes_from_many_threads_are_all_recorded(symphony: Symphony) -> None:
    """Without a transaction, threads change entities freely, and the fold agrees with the object."""
    customer = symphony.entities.add(Customer(id="c"))

    def work(name: str) -> None:
        for number in range(200):
            customer.friends.append(f"{name}{number}")

    await asyncio.gather(*(asyncio.to_thread(work, name) for name in "abcd"))
    await symphony.flush()
    assert (await symphony.at(symphony.log.head)).get(customer)["friends"] == list(customer.friends)
    assert len(customer.friends) == 800


async def test_each_change_is_attributed_to_whoever_made_it(symphony: Symphony) -> None:
    """Outside transactions as well: one event per attribution, in order."""
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    with symphony.acting_as("alice"):
        customer.name = "by alice"
    with symphony.acting_as("bob", reason="typo"), attributed(step="s"):
        customer.name = "by bob"
    customer.name = "by nobody"
    tail = (await events(symphony, "Customer:c"))[1:]
    assert [(e.metadata.actor, e.metadata.reason, e.metadata.step) for e in tail] == [
        ("alice", None, None),
        ("bob", "typo", "s"),
        (None, None, None),
    ]


async def test_deletion_leaves_a_tombstone_and_the_id_can_be_used_again(symphony: Symphony) -> None:
    """Versions go on counting; the removed object is detached; history stays readable."""
    customer = symphony.entities.add(Customer(id="c", name="first"))
    symphony.entities.remove(customer)
    with pytest.raises(DetachedEntityError, match="removed"):
        customer.name = "x"
    with pytest.raises(EntityNotFoundError):
        symphony.entities.get("Customer:c")
    again = symphony.entities.add(Customer(id="c", name="second"))
    with pytest.raises(EntityExistsError):
        symphony.entities.add(Customer(id="c"))
    history = await events(symphony, "Customer:c")
    assert [(event.name, event.version) for event in history] == [("CustomerCreated", 1), ("CustomerDeleted", 2), ("CustomerCreated", 3)]
    assert "Customer:c" not in await symphony.at(history[1].position)
    assert (await symphony.at(symphony.log.head)).get(again)["name"] == "second"


async def test_objects_of_foreign_classes_are_compared_at_the_end_and_put_back(symphony: Symphony) -> None:
    """Their changes are found by comparison; a rollback sets their attributes back."""
    thermometer = symphony.entities.add(Thermometer("t", 20.0))
    await symphony.flush()
    thermometer.degrees = 21.0
    symphony.entities.record(thermometer)
    async with symphony.transaction("Measured", claim=[thermometer]):
        thermometer.readings.append(22.5)
    with pytest.raises(RuntimeError):
        async with symphony.transaction("Failed", claim=[thermometer]):
            thermometer.degrees = 99.0
            thermometer.readings.append(object())  # type: ignore[arg-type]
            raise RuntimeError
    assert (thermometer.degrees, thermometer.readings) == (21.0, [22.5])
    history = await events(symphony, "Thermometer:t")
    assert [event.name for event in history] == ["ThermometerCreated", "ThermometerChanged", "Measured"]
    assert history[-1].changes == ((3, ("readings",), 22.5),)


async def test_a_foreign_object_that_cannot_be_stored_fails_its_transaction(symphony: Symphony) -> None:
    """The error names the path, nothing is appended, the object is put back."""
    thermometer = symphony.entities.add(Thermometer("t", 20.0))
    await symphony.flush()
    head = symphony.log.head
    with pytest.raises(UnstorableValueError, match=r"Thermometer:t: the value at readings\[0\]"):
        async with symphony.transaction("Bad", claim=[thermometer]):
            thermometer.readings.append(object())  # type: ignore[arg-type]
    assert thermometer.readings == []
    assert symphony.log.head == head


async def test_something_can_be_recorded_that_changed_nothing(symphony: Symphony) -> None:
    """An event may say what happened in the world outside, with data and no changes."""
    customer = symphony.entities.add(Customer(id="c"))
    symphony.entities.record(customer, "MailSent", {"to": "x@example.org"})
    event = (await events(symphony, "Customer:c"))[-1]
    assert (event.name, event.changes, event.data) == ("MailSent", (), {"to": "x@example.org"})


async def test_a_transaction_beyond_the_limit_names_its_largest_paths(symphony: Symphony) -> None:
    """It is refused whole; the same amount as plain assignments is split into several events."""
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    head, megabyte = symphony.log.head, "x" * 1_000_000
    with pytest.raises(LimitExceededError, match=r"notes\.big"):
        async with symphony.transaction("TooMuch"):
            customer.notes["small"] = 1
            customer.notes["big"] = megabyte * 17
    assert customer.notes == {}
    assert symphony.log.head == head
    for number in range(20):
        customer.notes[number] = megabyte
    await symphony.flush()
    assert symphony.log.head == head + 2
    assert (await symphony.at(symphony.log.head)).get(customer)["notes"] == dict(customer.notes)


def test_changes_outside_a_running_loop_wait_for_the_next_one() -> None:
    """Synchronous code may change entities before, between and after event loops."""
    symphony = Symphony()
    asyncio.run(_settle(symphony.setup()))
    customer = symphony.entities.add(Customer(id="c"))
    customer.name = "no loop"
    asyncio.run(_settle(symphony.flush()))
    customer.name = "still none"

    async def look() -> Any:
        return [event.changes[-1][-1] for event in await events(symphony, "Customer:c")]

    assert asyncio.run(look()) == ["no loop", "still none"]
    asyncio.run(symphony.close())


async def _settle(awaitable: Any) -> None:
    await awaitable
