"""Restoring: in a process that shares nothing with the one that wrote, everything comes back or is reported."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony
from symphony_es.core.past.snapshots import snapshotter
from symphony_es.core.state import EntityRestorer, RestorationContext, UnrestoredEntity
from symphony_es.errors import (
    DetachedEntityError,
    EntityExistsError,
    EntityNotFoundError,
    PositionInsideTransactionError,
    PositionNotFoundError,
    RestorationError,
    RestorerConflictError,
    UnresolvedReferenceError,
)
from symphony_es.log.log import EventLog
from tests.application import Customer, Invoice, Line, Money, Priority, Thermometer
from tests.conftest import Opener


class Gadget:
    """A class of the application whose constructor takes its state."""

    def __init__(self, **data: Any) -> None:
        self.__dict__.update(data)


class GadgetRestorer(EntityRestorer):
    @property
    def entity_type(self) -> str:
        return "Gadget"

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return Gadget(**data)


class ForgetfulRestorer(GadgetRestorer):
    """Leaves the field `colour` out."""

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return Gadget(**{name: item for name, item in data.items() if name != "colour"})


async def test_cycles_self_references_and_references_in_containers_are_connected(reopen: Opener) -> None:
    """After a resume the graph is the same graph: identity, not equality."""
    symphony = await reopen()
    a, b = Customer(id="a"), Customer(id="b")
    a.boss, b.boss = b, a
    a.friends = [a, b, [b]]
    a.notes = {"deputy": b, "pair": (a, b), "set": {a}, 7: {"deep": [b]}}
    symphony.entities.add(a)
    symphony = await reopen()
    report = await symphony.resume()
    assert report.complete, report.as_dict()
    a, b = symphony.entities.get("Customer:a"), symphony.entities.get("Customer:b")
    assert a.boss is b
    assert b.boss is a
    assert a.friends[0] is a
    assert a.friends[2][0] is b
    assert a.notes["pair"] == (a, b)
    assert a.notes["set"] == {a}
    assert a.notes[7]["deep"][0] is b
    a.friends[2].append(a)  # what was connected is tracked
    await symphony.flush()
    assert (await symphony.at(symphony.log.head)).get(a)["friends"][2] == [
        EntityReference("Customer", "b"),
        EntityReference("Customer", "a"),
    ]


async def test_every_kind_of_value_comes_back_as_its_class(reopen: Opener) -> None:
    """Parts, values, enums and containers are live again and go on recording."""
    symphony = await reopen()
    symphony.entities.add(Invoice(id="1", lines=[Line("a", Money(3), ["x"])], priority=Priority.HIGH, labels={"l"}, extra={1: (1, "2")}))
    symphony = await reopen(resume="latest")
    invoice = symphony.entities.get("Invoice:1")
    assert invoice.lines == [Line("a", Money(3), ["x"])]
    assert invoice.priority is Priority.HIGH
    assert invoice.labels == {"l"}
    assert invoice.extra == {1: (1, "2")}
    invoice.lines[0].tags.append("y")
    invoice.priority = Priority.LOW
    symphony = await reopen(resume="latest")
    assert symphony.entities.get("Invoice:1").lines[0].tags == ["x", "y"]


async def test_a_missing_target_keeps_the_reference_and_is_reported(reopen: Opener) -> None:
    """strict=True raises instead, and the old world stays."""
    symphony = await reopen()
    boss = Customer(id="boss")
    symphony.entities.add(Customer(id="c", boss=boss, friends=[boss]))
    symphony.entities.remove(boss)
    symphony = await reopen()
    report = await symphony.resume()
    assert [(item.entity, item.path, item.target.key) for item in report.unresolved] == [
        ("Customer:c", ("friends", 0), "Customer:boss"),
        ("Customer:c", ("boss",), "Customer:boss"),
    ]
    assert symphony.entities.get("Customer:c").boss == EntityReference("Customer", "boss")
    before = symphony.entities.get("Customer:c")
    with pytest.raises(UnresolvedReferenceError, match="boss -> Customer:boss"):
        await symphony.resume(strict=True)
    assert symphony.entities.get("Customer:c") is before
    before.name = "still mine"
    await symphony.flush()


async def test_a_type_without_a_restorer_is_kept_whole(reopen: Opener) -> None:
    """Its state is intact, references to it hold, it is reported; nothing is lost by checkpoints and rewinds."""
    symphony = await reopen()
    thermometer = symphony.entities.add(Thermometer("t", 20.0))
    symphony.entities.add(Customer(id="c", notes={"device": thermometer}))
    symphony = await reopen()
    report = await symphony.resume()
    assert list(report.unrestored) == ["Thermometer:t"]
    kept = symphony.entities.get("Thermometer:t")
    assert isinstance(kept, UnrestoredEntity)
    assert kept.state == {"id": "t", "degrees": 20.0, "readings": []}
    assert symphony.entities.get("Customer:c").notes["device"] is kept
    checkpoint = await symphony.create_checkpoint()
    symphony.entities.get("Customer:c").name = "x"
    await symphony.resume_from_checkpoint(checkpoint)
    assert symphony.entities.get("Thermometer:t").state == kept.state


async def test_a_custom_restorer_as_in_the_seed_works(reopen: Opener) -> None:
    """What it returns is registered for it, and references to it and from it are connected."""
    symphony = await reopen()
    customer = symphony.entities.add(Customer(id="c"))
    gadget = symphony.entities.add(Gadget(id="g", owner=customer, colour="red", parts=[1, {"k": (customer,)}]), "Gadget")
    customer.notes["gadget"] = gadget
    await symphony.flush()
    symphony = await reopen()
    symphony.restore_manager.register_restorer(GadgetRestorer())
    report = await symphony.resume()
    assert report.complete, report.as_dict()
    gadget, customer = symphony.entities.get("Gadget:g"), symphony.entities.get("Customer:c")
    assert isinstance(gadget, Gadget)
    assert gadget.owner is customer
    assert gadget.parts[1]["k"][0] is customer
    assert customer.notes["gadget"] is gadget
    gadget.colour = "blue"
    symphony.entities.record(gadget)
    await symphony.flush()
    assert (await symphony.log.read_entity("Gadget:g"))[-1].changes == ((0, ("colour",), "blue"),)


async def test_a_field_that_a_restorer_leaves_out_is_reported_and_adopted(reopen: Opener) -> None:
    """The difference is appended as StateAdopted before the first change, so log and object agree."""
    symphony = await reopen()
    symphony.entities.add(Gadget(id="g", size=1, colour="red"), "Gadget")
    symphony = await reopen()
    symphony.restore_manager.register_restorer(ForgetfulRestorer())
    report = await symphony.resume()
    assert [(item.entity, item.paths) for item in report.different] == [("Gadget:g", (("colour",),))]
    head = symphony.log.head
    gadget = symphony.entities.get("Gadget:g")
    await symphony.create_checkpoint()
    assert symphony.log.head == head + 1  # nothing is adopted before the entity changes
    gadget.size = 2
    symphony.entities.record(gadget)
    await symphony.flush()
    assert [event.name for event in await symphony.log.read_entity("Gadget:g")] == ["GadgetCreated", "StateAdopted", "GadgetChanged"]
    assert (await symphony.at(symphony.log.head)).get("Gadget:g") == {"id": "g", "size": 2}


async def test_a_restorer_that_fails_leaves_the_old_world(reopen: Opener) -> None:
    """All or nothing, and the error names restorer and entity; None is no object."""

    class Failing(GadgetRestorer):
        result: Any = None

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            if isinstance(self.result, Exception):
                raise self.result
            return self.result

    symphony = await reopen()
    gadget = symphony.entities.add(Gadget(id="g", size=1), "Gadget")
    checkpoint = await symphony.create_checkpoint()
    gadget.size = 2
    symphony.entities.record(gadget)
    await symphony.flush()
    head = symphony.log.head
    restorer = Failing()
    symphony.restore_manager.register_restorer(restorer)
    for restorer.result, words in ((None, "returned None for Gadget:g"), (ValueError("broken"), "could not restore Gadget:g")):
        with pytest.raises(RestorationError, match=words):
            await symphony.resume_from_checkpoint(checkpoint, strict=True)
        assert symphony.entities.get("Gadget:g") is gadget
        assert symphony.log.head == head
    gadget.size = 3
    symphony.entities.record(gadget)
    await symphony.flush()


async def test_one_restorer_per_type() -> None:
    """Two explicit ones are an error, wherever they are registered; an explicit one wins over that of @entity."""
    symphony = Symphony()
    symphony.restore_manager.register_restorer(GadgetRestorer())
    with pytest.raises(RestorerConflictError, match="ForgetfulRestorer"):
        symphony.restore_manager.register_restorer(ForgetfulRestorer())
    symphony.restore_manager.register_restorer(ForgetfulRestorer(), replace=True)

    class CustomerRestorer(GadgetRestorer):
        entity_type = "Customer"  # type: ignore[assignment]

    symphony.restore_manager.register_restorer(CustomerRestorer())
    assert isinstance(symphony.restore_manager.restorer_for("Customer"), CustomerRestorer)
    assert not isinstance(Symphony().restore_manager.restorer_for("Customer"), CustomerRestorer)


async def test_going_back_appends_and_detaches(reopen: Opener) -> None:
    """The state is as at the checkpoint; what was undone stays on record; objects of the old world refuse changes."""
    symphony = await reopen()
    kept, changed, removed = (symphony.entities.add(Customer(id=name, name=name)) for name in ("kept", "changed", "removed"))
    checkpoint = await symphony.create_checkpoint("before", {"why": "test"})
    changed.name = "other"
    changed.friends.append(kept)
    symphony.entities.remove(removed)
    symphony.entities.add(Customer(id="new"))
    await symphony.flush()
    head = symphony.log.head
    await symphony.resume_from_checkpoint("before")
    report = symphony.last_resume
    assert report is not None
    assert report.rewound == ["Customer:changed", "Customer:new", "Customer:removed"]
    assert {obj.id: obj.name for obj in symphony.entities.all()} == {"kept": "kept", "changed": "changed", "removed": "removed"}
    assert symphony.log.head == head + 3
    event = (await symphony.log.read_entity("Customer:changed"))[-1]
    assert event.name == "Rewound"
    assert event.metadata.generation == 1
    created = (await symphony.log.read_entity(f"symphony.Checkpoint:{checkpoint}"))[0]
    assert event.metadata.cause == created.event_id
    for old in (kept, changed):
        with pytest.raises(DetachedEntityError, match="resume"):
            old.name = "x"
    with pytest.raises(DetachedEntityError):
        changed.friends.append(1)
    symphony.entities.get("Customer:changed").name = "again"
    with pytest.raises(EntityExistsError):
        symphony.entities.add(Customer(id="removed"))
    symphony.entities.add(Customer(id="new", name="newer"))
    await symphony.flush()
    assert [item["name"] for item in await symphony.list_checkpoints()] == ["before"]
    symphony = await reopen(resume="latest")
    assert symphony.entities.get("Customer:changed").name == "again"
    assert symphony.world.generation("Customer:changed") == 1


async def test_a_resume_brings_back_what_no_checkpoint_named(reopen: Opener) -> None:
    """resume_latest_checkpoint recovers everything logged; replay_until chooses another end; without a checkpoint it returns None."""
    symphony = await reopen()
    customer = symphony.entities.add(Customer(id="c", name="1"))
    assert await symphony.resume_latest_checkpoint() is None
    assert symphony.entities.get("Customer:c") is customer
    first = await symphony.create_checkpoint("first")
    customer.name = "2"
    second = await symphony.create_checkpoint("second")
    customer.name = "3"
    symphony = await reopen()
    assert await symphony.resume_latest_checkpoint() == second
    assert symphony.entities.get("Customer:c").name == "3"
    assert await symphony.resume_latest_checkpoint(replay_until="checkpoint") == second
    assert symphony.entities.get("Customer:c").name == "2"
    assert await symphony.resume_from_checkpoint(first, replay_until="latest") == first
    assert symphony.entities.get("Customer:c").name == "2"
    await symphony.resume(replay_until=1)
    assert symphony.entities.get("Customer:c").name == "1"
    with pytest.raises(PositionNotFoundError):
        await symphony.resume(replay_until=10_000)


async def test_a_position_inside_a_transaction_can_be_looked_at_but_not_gone_back_to(reopen: Opener) -> None:
    """The error names the transaction's first and last position."""
    symphony = await reopen()
    a, b = symphony.entities.add(Customer(id="a")), symphony.entities.add(Customer(id="b"))
    await symphony.flush()
    async with symphony.transaction("Both"):
        a.name = b.name = "x"
    first = symphony.log.head - 1
    assert (await symphony.at(first)).get(a)["name"] == "x"
    assert (await symphony.at(first)).get(b)["name"] == ""
    with pytest.raises(PositionInsideTransactionError) as caught:
        await symphony.resume(replay_until=first)
    assert (caught.value.first, caught.value.last) == (first, first + 1)


async def test_an_opened_log_restores_nothing_by_itself(reopen: Opener) -> None:
    """What is not found is reported with a hint; its ids are taken; deleted ids are free and count on."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="c"))
    symphony.entities.remove(symphony.entities.add(Customer(id="gone")))
    symphony = await reopen()
    with pytest.raises(
        EntityNotFoundError, match=r"waits in the log: await symphony.entities.load\('Customer:c'\), or symphony.resume\(\)"
    ):
        symphony.entities.get("Customer:c")
    with pytest.raises(EntityNotFoundError, match=r"no entity Customer:gone$"):
        symphony.entities.get("Customer:gone")
    symphony.entities.add(Customer(id="c"))
    symphony.entities.add(Customer(id="gone", name="back"))
    with pytest.raises(EntityExistsError, match="has not been restored"):
        await symphony.flush()
    await symphony.flush()
    assert [event.version for event in await symphony.log.read_entity("Customer:gone")] == [1, 2, 3]
    await symphony.create_checkpoint("here")
    assert (await symphony.list_checkpoints())[0]["entity_count"] == 2


async def test_clients_are_reconnected_by_callbacks(reopen: Opener) -> None:
    """Callbacks run after every resume, plain or awaitable."""
    symphony = await reopen()
    calls: list[str] = []

    @symphony.on_restore
    def plain(restored: Symphony) -> None:
        calls.append("plain")

    @symphony.on_restore
    async def awaited(restored: Symphony) -> None:
        calls.append("awaited")

    await symphony.resume()
    assert calls == ["plain", "awaited"]


async def test_refresh_puts_an_object_back_and_returns_what_it_drops(reopen: Opener) -> None:
    """After a conflict the entity is out of step; nothing of it is appended until it is refreshed."""
    from symphony_es.errors import EntityOutOfStepError
    from symphony_es.events.event import EventMetadata, NewEvent

    symphony = await reopen()
    customer = symphony.entities.add(Customer(id="c", name="1"))
    other = symphony.entities.add(Customer(id="other"))
    await symphony.flush()
    foreign = NewEvent(
        entity_key="Customer:c",
        version=2,
        name="Intruded",
        changes=[(0, ("name",), "theirs")],
        metadata=EventMetadata(),
        event_id=b"x" * 16,
    )
    await symphony.log.append([foreign])
    customer.name = "mine"
    other.name = "also waits"
    with pytest.raises(EntityOutOfStepError, match="refresh"):
        await symphony.flush()
    customer.name = "queued"
    with pytest.raises(EntityOutOfStepError):
        await symphony.create_checkpoint()
    dropped = await symphony.refresh(customer)
    assert [change[2] for change in dropped] == ["mine", "queued"]
    assert customer.name == "theirs"
    customer.name = "after"
    await symphony.refresh(other)
    await symphony.flush()
    assert (await symphony.at(symphony.log.head)).get(customer)["name"] == "after"


async def test_without_checkpoints_a_resume_costs_the_state_not_the_log(reopen: Opener) -> None:
    """Overdue snapshots come by themselves; what replays after the newest one stays in proportion to it."""
    symphony = await reopen()
    customer = symphony.entities.add(Customer(id="c"))
    for number in range(400):
        customer.name = str(number) * 500
        await symphony.flush()
    symphony = await reopen()
    assert symphony._opened is not None
    assert symphony._opened.snapshotter is not None
    newest = symphony._opened.snapshotter.store.list()[0]
    assert newest.position > 100
    assert await symphony.log.weight(newest.position) < 5 * 64 * 1024
    await symphony.resume()
    assert symphony.entities.get("Customer:c").name == "399" * 500


WRITING = """
import asyncio, sys
from symphony_es import Symphony
from tests.application import Customer, Invoice, Line, Thermometer
async def main():
    async with Symphony({"state_dir": sys.argv[1]}, persistence_enabled=True) as symphony:
        a, b, gone = Customer(id="a"), Customer(id="b"), Customer(id="gone")
        a.boss, b.boss = b, b
        a.friends, a.notes = [b, [a]], {"t": (a, b), "device": symphony.entities.add(Thermometer("t", 1.5))}
        b.friends = [gone]
        symphony.entities.add(a)
        symphony.entities.add(Invoice(id="i", customer=a, lines=[Line("x")]))
        symphony.entities.remove(gone)
        await symphony.create_checkpoint("there")
asyncio.run(main())
"""


def weighing_waits(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have a log weigh its events only once the event that is returned is set."""
    weigh, known = EventLog.weight, asyncio.Event()

    async def weigh_late(log: EventLog, after: int, until: int | None = None) -> int:
        await known.wait()
        return await weigh(log, after, until)

    monkeypatch.setattr(EventLog, "weight", weigh_late)
    return known


async def test_the_first_checkpoint_after_opening_brings_the_snapshot_that_is_due(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was appended before is weighed behind the application; the decision waits for it, and so does closing."""
    symphony = await reopen()
    for number in range(3):  # no one of them makes a snapshot due
        symphony.entities.add(Customer(id=str(number), name="n" * (snapshotter.FLOOR_BYTES // 2)))
    await symphony.close()
    known = weighing_waits(monkeypatch)
    symphony = await reopen()
    await symphony.create_checkpoint()
    known.set()
    symphony = await reopen()
    assert symphony._opened is not None
    assert symphony._opened.snapshotter is not None
    (newest,) = symphony._opened.snapshotter.store.list()
    assert (newest.position, newest.entity_count) == (3, 3)


async def test_what_is_appended_during_the_first_weighing_counts(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after it brings the snapshot that these events make due."""
    known = weighing_waits(monkeypatch)
    symphony = await reopen()
    for number in range(3):
        symphony.entities.add(Customer(id=str(number), name="n" * (snapshotter.FLOOR_BYTES // 2)))
        await symphony.flush()
    known.set()
    await asyncio.sleep(0)
    await symphony.create_checkpoint()
    symphony = await reopen()
    assert symphony._opened is not None
    assert symphony._opened.snapshotter is not None
    assert [info.entity_count for info in symphony._opened.snapshotter.store.list()] == [3]


async def test_another_process_restores_everything(reopen: Opener, tmp_path: Path) -> None:
    """Cycles, self-references, references in containers and to what is gone, a type without a restorer: as one process wrote them."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WRITING, str(tmp_path / "state")]
    await asyncio.to_thread(subprocess.run, command, check=True, env={**os.environ, "PYTHONPATH": str(root)})
    symphony = await reopen()
    await symphony.resume_from_checkpoint("there")
    report = symphony.last_resume
    assert report is not None
    a, b = symphony.entities.get("Customer:a"), symphony.entities.get("Customer:b")
    assert a.boss is b.boss is b
    assert a.friends[0] is b
    assert a.friends[1][0] is a
    assert a.notes["t"] == (a, b)
    assert a.notes["device"].state["degrees"] == 1.5
    assert symphony.entities.get("Invoice:i").customer is a
    assert [item.target.key for item in report.unresolved] == ["Customer:gone"]
    assert list(report.unrestored) == ["Thermometer:t"]


async def test_objects_are_listed_in_one_order_whatever_they_were_read_from(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a resume by their ids, from a snapshot as from events alone; those added since come after them."""
    monkeypatch.setattr(snapshotter, "FLOOR_BYTES", 0)
    symphony = await reopen()
    for name in ("m", "a", "z"):
        symphony.entities.add(Customer(id=name))
    await symphony.flush()
    listed = {}
    for way in ("events", "snapshot"):
        symphony = await reopen()
        await symphony.resume()
        listed[way] = [customer.id for customer in symphony.entities.all("Customer")]
        await symphony.create_checkpoint("brings a snapshot")
    assert listed == {"events": ["a", "m", "z"], "snapshot": ["a", "m", "z"]}
    symphony.entities.add(Customer(id="b"))
    assert [customer.id for customer in symphony.entities.all("Customer")] == ["a", "m", "z", "b"]


def test_one_loop_opens_another_makes_the_snapshot_that_is_due_and_a_third_closes(tmp_path: Path) -> None:
    """What the first loop was weighing when it ended counts all the same."""
    directory = tmp_path / "state"

    async def fill() -> None:
        async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
            symphony.entities.add(Customer(id="large", name="n" * (2 * snapshotter.FLOOR_BYTES)))

    asyncio.run(fill())
    symphony = Symphony({"state_dir": directory}, persistence_enabled=True)
    asyncio.run(symphony.setup())

    async def check() -> None:
        await symphony.create_checkpoint()
        assert symphony._opened is not None
        assert symphony._opened.snapshotter is not None
        await symphony._opened.snapshotter.close()
        assert [info.entity_count for info in symphony._opened.snapshotter.store.list()] == [1]

    asyncio.run(check())
    asyncio.run(symphony.close())


async def test_a_snapshot_that_was_removed_in_order_is_no_damage(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer removes one between a reader's list and its reading: the reader goes on with what there is."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="a", name="x"))
    await symphony.flush()
    assert symphony._opened is not None
    assert symphony._opened.snapshotter is not None
    await symphony._opened.snapshotter.take(symphony.log.head)
    store, history = symphony._opened.snapshotter.store, symphony.state_history
    read_some = store.read_some

    def racing(info: Any, keys: Any) -> Any:
        store.delete(info)
        return read_some(info, keys)

    monkeypatch.setattr(store, "read_some", racing)
    assert (await symphony.at("latest")).get("Customer:a")["name"] == "x"
    assert (await history.entity_at("Customer:a", symphony.log.head)) is not None
    assert not history.damaged
    assert not store.damaged
