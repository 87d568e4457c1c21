"""Loading: some entities become live, with what they refer to, and the rest of the log is not read."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity
from symphony_es.core.past.snapshots.reading import SnapshotReader
from symphony_es.core.state import EntityRestorer, RestorationContext, UnrestoredEntity
from symphony_es.errors import (
    ConfigurationError,
    DetachedEntityError,
    EntityBusyError,
    EntityExistsError,
    EntityNotFoundError,
    RestorationError,
    UnresolvedReferenceError,
)
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite_reading import SQLiteLogReader
from symphony_es.workflow.runs.context import RunContext
from tests.application import Customer, Invoice, Line, Money, Thermometer
from tests.conftest import Opener


class Gadget:
    """A class of the application whose constructor takes its state."""

    def __init__(self, **data: Any) -> None:
        self.__dict__.update(data)


class GadgetRestorer(EntityRestorer):
    """Waits in the middle of restoring, when it is told to; has the customer of an `owner_id` connected."""

    entity_type = "Gadget"  # type: ignore[assignment]

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.made = 0

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        self.begun.set()
        await self.go_on.wait()
        self.made += 1
        made = Gadget(**data)
        if "owner_id" in data:
            context.add_pending_reference(made, "_owner", EntityReference("Customer", data["owner_id"]))
        return made

    def hold(self) -> None:
        """From now on wait until `go_on` is set."""
        self.begun.clear()
        self.go_on.clear()


async def names_of(symphony: Symphony, key: str) -> list[str]:
    return [event.name for event in await symphony.log.read_entity(key)]


class TestWhatComes:
    async def test_one_entity_or_several_without_the_others(self, reopen: Opener) -> None:
        """The object itself, or for some a list in the order asked for; a second call gives the same objects; the rest waits on."""
        symphony = await reopen()
        for name in "abc":
            symphony.entities.add(Customer(id=name, name=name.upper()))
        symphony = await reopen()
        a = await symphony.entities.load("Customer:a")
        assert (a.name, symphony.entities.all()) == ("A", [a])
        assert symphony.entities.get("Customer:a") is a
        assert await symphony.entities.load_all(["Customer:b", EntityReference("Customer", "a"), "Customer:b"]) == [
            b := symphony.entities.get("Customer:b"), a, b,
        ]  # fmt: skip
        assert b.name == "B"
        assert await symphony.entities.load_all(iter(["Customer:a"])) == [a]
        assert await symphony.entities.load_all([]) == []
        assert symphony.last_load is not None
        assert (symphony.last_load.restored, symphony.last_load.complete, symphony.last_load.position) == (1, True, symphony.log.head)
        with pytest.raises(EntityNotFoundError, match="waits in the log"):
            symphony.entities.get("Customer:c")

    async def test_everything_it_refers_to_comes_along_as_one_graph(self, reopen: Opener) -> None:
        """Through others, through containers, in cycles; what is live is connected to, and not made again."""
        symphony = await reopen()
        a, b, c, alone = (Customer(id=name) for name in ("a", "b", "c", "alone"))
        a.boss, b.boss, c.friends = b, a, [a, {"deep": (b, c)}]
        symphony.entities.add(c)
        symphony.entities.add(alone)
        symphony.entities.add(Invoice(id="7", customer=c, lines=[Line("x", Money(1), ["t"])]))
        symphony = await reopen()
        b = await symphony.entities.load("Customer:b")
        a = symphony.entities.get("Customer:a")
        assert (a.boss, b.boss) == (b, a)
        b.notes["mark"] = 1  # not flushed yet
        invoice = await symphony.entities.load("Invoice:7")
        c = symphony.entities.get("Customer:c")
        assert invoice.customer is c
        assert c.friends[0] is a
        assert c.friends[1]["deep"] == (b, c)
        assert b.notes == {"mark": 1}
        assert symphony.last_load is not None
        assert symphony.last_load.restored == 2
        assert symphony.entities.find("Customer:alone") is None

    async def test_states_come_from_the_snapshot_and_their_own_later_events(self, reopen: Opener) -> None:
        """Changed, created and deleted after the snapshot; a damaged snapshot is passed over and reported."""
        symphony = await reopen()
        old = symphony.entities.add(Customer(id="old", name="1" * 100_000))
        gone = symphony.entities.add(Customer(id="gone"))
        await symphony.create_checkpoint()
        old.name = "2"
        old.boss = Customer(id="new", name="n")
        symphony.entities.remove(gone)
        symphony = await reopen()
        assert symphony.state_history.snapshots is not None
        (info,) = symphony.state_history.snapshots.list()
        assert info.position == 2
        old = await symphony.entities.load("Customer:old")
        assert (old.name, old.boss.name) == ("2", "n")
        with pytest.raises(EntityNotFoundError):
            await symphony.entities.load("Customer:gone")
        symphony = await reopen()
        path = symphony.state_history.snapshots.directory / info.name  # type: ignore[union-attr]
        path.write_bytes(path.read_bytes()[:200] + b"damage" + path.read_bytes()[206:])
        assert (await symphony.entities.load("Customer:old")).name == "2"
        assert symphony.last_load is not None
        assert [name for name, _ in symphony.last_load.damaged_snapshots] == [info.name]

    async def test_a_missing_target_keeps_the_reference_and_is_reported(self, reopen: Opener) -> None:
        """strict=True raises instead, and nothing is loaded."""
        symphony = await reopen()
        boss = Customer(id="boss")
        symphony.entities.add(Customer(id="c", boss=boss, friends=[Customer(id="friend")]))
        symphony.entities.remove(boss)
        symphony = await reopen()
        with pytest.raises(UnresolvedReferenceError, match="boss -> Customer:boss"):
            await symphony.entities.load("Customer:c", strict=True)
        assert symphony.entities.all() == []
        customer = await symphony.entities.load("Customer:c")
        assert customer.boss == EntityReference("Customer", "boss")
        assert symphony.last_load is not None
        assert [(item.entity, item.target.key) for item in symphony.last_load.unresolved] == [("Customer:c", "Customer:boss")]

    async def test_what_is_not_there_is_refused_and_nothing_is_loaded(self, reopen: Opener) -> None:
        """Never was, deleted, being deleted, the library's own, no key: all or nothing."""
        symphony = await reopen()
        symphony.entities.add(Customer(id="c"))
        symphony.entities.remove(symphony.entities.add(Customer(id="gone")))
        checkpoint = await symphony.create_checkpoint()
        symphony = await reopen()
        for key in ("Customer:nobody", "Customer:gone", f"symphony.Checkpoint:{checkpoint}"):
            with pytest.raises(EntityNotFoundError, match=key):
                await symphony.entities.load_all(["Customer:c", key])
        with pytest.raises(ConfigurationError, match="an id is missing"):
            await symphony.entities.load("Customer")
        assert symphony.entities.all() == []
        customer = await symphony.entities.load("Customer:c")
        symphony.entities.remove(customer)
        with pytest.raises(EntityNotFoundError, match="removed"):
            await symphony.entities.load("Customer:c")  # its deletion is not in the log yet
        again = symphony.entities.add(Customer(id="c", name="again"))
        assert await symphony.entities.load("Customer:c") is again
        await symphony.flush()
        assert [event.version for event in await symphony.log.read_entity("Customer:c")] == [1, 2, 3]

    async def test_in_memory_everything_is_live(self) -> None:
        """What is there is returned, and nothing else waits."""
        async with Symphony({"memory_events": 4}) as symphony:
            customer = symphony.entities.add(Customer(id="c"))
            for number in range(20):
                customer.name = str(number)
                await symphony.flush()
            assert await symphony.entities.load("Customer:c") is customer
            with pytest.raises(EntityNotFoundError, match="the log has none"):
                await symphony.entities.load("Customer:d")


class TestRestorers:
    async def test_a_type_without_a_restorer_is_kept_whole_and_reported(self, reopen: Opener) -> None:
        """As after a resume; references to it hold."""
        symphony = await reopen()
        thermometer = symphony.entities.add(Thermometer("t", 20.0))
        symphony.entities.add(Customer(id="c", notes={"device": thermometer}))
        symphony = await reopen()
        kept = await symphony.entities.load("Thermometer:t")
        assert isinstance(kept, UnrestoredEntity)
        assert kept.state["degrees"] == 20.0
        assert symphony.last_load is not None
        assert list(symphony.last_load.unrestored) == ["Thermometer:t"]
        customer = await symphony.entities.load("Customer:c")
        assert customer.notes["device"] is kept
        assert symphony.last_load.complete
        customer.name = "x"
        await symphony.create_checkpoint()
        assert (await symphony.at("latest")).get("Customer:c")["notes"] == {"device": EntityReference("Thermometer", "t")}

    async def test_foreign_objects_are_compared_and_connected_to_live_ones(self, reopen: Opener) -> None:
        """A live foreign object is a target like any other; afterwards changes are found by comparison."""
        symphony = await reopen()
        owner = symphony.entities.add(Gadget(id="owner", size=1), "Gadget")
        symphony.entities.add(Gadget(id="owned", owner=owner, all=[owner]), "Gadget")
        symphony.entities.add(Customer(id="c", notes={"owner": owner}))
        symphony = await reopen()
        symphony.restore_manager.register_restorer(GadgetRestorer())
        owner = await symphony.entities.load("Gadget:owner")
        owned, customer = await symphony.entities.load_all(["Gadget:owned", "Customer:c"])
        assert owned.owner is owned.all[0] is customer.notes["owner"] is owner
        assert symphony.last_load is not None
        assert symphony.last_load.complete
        head = symphony.log.head
        async with symphony.transaction("Turned", claim=[owned, owner]):
            owned.owner, owner.size = None, 2
        assert symphony.log.head == head + 2
        assert (await symphony.at("latest")).get("Gadget:owned") == {
            "id": "owned", "owner": None, "all": [EntityReference("Gadget", "owner")],
        }  # fmt: skip

    async def test_what_a_restorer_leaves_out_is_adopted_before_the_first_change(self, reopen: Opener) -> None:
        """The difference is reported, and appended as StateAdopted, in a transaction as outside of one."""

        class Forgetful(GadgetRestorer):
            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                return Gadget(**{name: item for name, item in data.items() if name != "colour"})

        symphony = await reopen()
        for name in ("g", "h"):
            symphony.entities.add(Gadget(id=name, size=1, colour="red"), "Gadget")
        symphony = await reopen()
        symphony.restore_manager.register_restorer(Forgetful())
        g, h = await symphony.entities.load_all(["Gadget:g", "Gadget:h"])
        assert symphony.last_load is not None
        assert [(item.entity, item.paths) for item in symphony.last_load.different] == [
            ("Gadget:g", (("colour",),)), ("Gadget:h", (("colour",),)),
        ]  # fmt: skip
        g.size = 2
        symphony.entities.record(g)
        async with symphony.transaction("Grown", claim=[h]):
            h.size = 2
        await symphony.flush()
        assert await names_of(symphony, "Gadget:g") == ["GadgetCreated", "StateAdopted", "GadgetChanged"]
        assert await names_of(symphony, "Gadget:h") == ["GadgetCreated", "StateAdopted", "Grown"]
        assert (await symphony.at("latest")).get("Gadget:g") == {"id": "g", "size": 2}

    async def test_states_of_older_shapes_are_upcast(self, reopen: Opener) -> None:
        """The new shape is adopted with the first change, versions go on."""

        @entity(type="LoadedShape")
        class Shape:
            id: str = ""
            full_name: str = ""

        symphony = await reopen()
        symphony.entities.add(Shape(id="s", full_name="Ada Lovelace"))
        symphony = await reopen()

        def upcast(data: dict[str, Any], from_version: int) -> dict[str, Any]:
            first, _, last = data.pop("full_name").partition(" ")
            return {**data, "first": first, "last": last}

        @entity(type="LoadedShape", state_version=2, upcast=upcast)
        class Shape:  # type: ignore[no-redef]
            id: str = ""
            first: str = ""
            last: str = ""

        shape = await symphony.entities.load("LoadedShape:s")
        assert (shape.first, shape.last) == ("Ada", "Lovelace")
        shape.first = "A."
        await symphony.flush()
        events = await symphony.log.read_entity("LoadedShape:s")
        assert [(event.version, event.name) for event in events] == [
            (1, "LoadedShapeCreated"), (2, "StateAdopted"), (3, "LoadedShapeChanged"),
        ]  # fmt: skip
        assert events[1].metadata.state_version == 2

    async def test_references_that_only_a_restorer_knows_come_along(self, reopen: Opener) -> None:
        """What it asks to have connected is loaded, too, with all that hangs on it."""
        symphony = await reopen()
        symphony.entities.add(Customer(id="c", boss=Customer(id="boss")))
        symphony.entities.add(Gadget(id="g", owner_id="c"), "Gadget")
        symphony.entities.add(Gadget(id="h", owner_id="nobody"), "Gadget")
        symphony = await reopen()
        symphony.restore_manager.register_restorer(GadgetRestorer())
        g = await symphony.entities.load("Gadget:g")
        assert g._owner is symphony.entities.get("Customer:c")
        assert g._owner.boss is symphony.entities.get("Customer:boss")
        assert (await symphony.entities.load("Gadget:h"))._owner == EntityReference("Customer", "nobody")

    async def test_what_a_restorer_changes_in_a_live_object_is_a_change(self, reopen: Opener) -> None:
        """A load appends nothing of its own, and takes nothing back: the live world is not under construction."""

        class Changing(GadgetRestorer):
            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                symphony.entities.get("Customer:c").name = "changed"
                return await super().restore(entity_id, data, context)

        symphony = await reopen()
        symphony.entities.add(Gadget(id="g"), "Gadget")
        symphony.entities.add(Customer(id="c"))
        symphony = await reopen()
        symphony.restore_manager.register_restorer(Changing())
        await symphony.entities.load("Customer:c")
        await symphony.entities.load("Gadget:g")
        await symphony.flush()
        assert await names_of(symphony, "Customer:c") == ["CustomerCreated", "CustomerChanged"]

    async def test_a_restorer_that_fails_leaves_everything_as_it_was(self, reopen: Opener) -> None:
        """All or nothing, the error names restorer and entity; the same call works when the cause is gone."""

        class Failing(GadgetRestorer):
            failing = True

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                if self.failing:
                    raise ValueError("broken")
                return Gadget(**data)

        symphony = await reopen()
        symphony.entities.add(Customer(id="c", notes={"g": symphony.entities.add(Gadget(id="g"), "Gadget")}))
        symphony = await reopen()
        restorer = Failing()
        symphony.restore_manager.register_restorer(restorer)
        with pytest.raises(RestorationError, match="Failing could not restore Gadget:g"):
            await symphony.entities.load("Customer:c")
        assert symphony.entities.all() == []
        restorer.failing = False
        customer = await symphony.entities.load("Customer:c")
        assert isinstance(customer.notes["g"], Gadget)

    async def test_an_object_may_keep_the_symphony_its_restorer_saw(self, reopen: Opener) -> None:
        """Afterwards that is the application's, as after a resume: it finds, adds, loads, waits until durable, and rolls back."""

        class Keeping(GadgetRestorer):
            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                return Gadget(**data, _symphony=context.symphony)

        symphony = await reopen()
        symphony.entities.add(Gadget(id="g"), "Gadget")
        symphony.entities.add(Customer(id="c", name="1"))
        symphony = await reopen()
        symphony.restore_manager.register_restorer(Keeping())
        seen = (await symphony.entities.load("Gadget:g"))._symphony
        customer = await seen.entities.load("Customer:c")
        assert customer is symphony.entities.get("Customer:c")
        added = seen.entities.add(Customer(id="new"))
        assert symphony.entities.get("Customer:new") is added
        await seen.flush()
        assert await names_of(symphony, "Customer:new") == ["CustomerCreated"]
        with pytest.raises(ZeroDivisionError):
            async with seen.transaction("Undone"):
                customer.name = "2"
                raise ZeroDivisionError
        assert customer.name == "1"

    async def test_what_was_made_by_a_load_that_failed_cannot_be_changed(self, reopen: Opener) -> None:
        """An object that a restorer kept would lose what is changed in it; what was live before is live."""
        kept: list[Any] = []

        class Failing(GadgetRestorer):
            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                kept.append(context.get_entity("Customer", "c"))
                raise ValueError("broken")

        symphony = await reopen()
        gadget = symphony.entities.add(Gadget(id="g"), "Gadget")
        symphony.entities.add(Customer(id="c", boss=Customer(id="boss"), notes={"g": gadget}))
        symphony = await reopen()
        symphony.restore_manager.register_restorer(Failing())
        boss = await symphony.entities.load("Customer:boss")
        with pytest.raises(RestorationError):
            await symphony.entities.load("Customer:c")
        with pytest.raises(DetachedEntityError, match="made by a load that failed"):
            kept[0].name = "lost"
        boss.name = "changed"
        await symphony.flush()
        assert await names_of(symphony, "Customer:boss") == ["CustomerCreated", "CustomerChanged"]

    async def test_a_restorer_cannot_load_or_resume(self, reopen: Opener) -> None:
        """It would wait for its own end: it is refused, through its context, the application's Symphony, and tasks that it begins."""

        class Loading(GadgetRestorer):
            looking = False

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                with pytest.raises(RestorationError, match="asks for a load"):
                    await context.symphony.entities.load("Customer:c")
                if not self.looking:
                    with pytest.raises(RestorationError, match="asks for a load"):
                        await symphony.entities.load("Customer:c")
                    with pytest.raises(RestorationError, match="asks for a resume"):
                        await symphony.resume()
                    tasks = asyncio.gather(symphony.entities.load("Customer:c"), symphony.resume(), return_exceptions=True)
                    done = await asyncio.wait_for(tasks, 10)
                    assert [type(error) for error in done] == [RestorationError, RestorationError]
                return Gadget(**data, symphony_seen=context.symphony)

            def capture(self, entity: Any) -> dict[str, Any]:
                return {"id": entity.id}

        symphony = await reopen()
        symphony.entities.add(Gadget(id="g"), "Gadget")
        symphony.entities.add(Customer(id="c"))
        symphony = await reopen()
        restorer = Loading()
        symphony.restore_manager.register_restorer(restorer)
        await symphony.entities.load("Gadget:g")
        await symphony.resume()
        restorer.looking = True
        await (await symphony.at("latest")).objects()
        assert symphony.entities.get("Gadget:g").symphony_seen.entities.get("Customer:c") is symphony.entities.get("Customer:c")
        assert await symphony.entities.get("Gadget:g").symphony_seen.entities.load("Customer:c") is symphony.entities.get("Customer:c")

    async def test_what_a_restorer_begins_may_load_when_the_load_is_done(self, reopen: Opener) -> None:
        """A task that outlives the load it was begun in waits for its turn, like any other, also while another load is under way."""
        tasks: list[asyncio.Task[Any]] = []

        class Beginning(GadgetRestorer):
            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                if not tasks:
                    tasks.append(asyncio.create_task(self.later()))
                return await super().restore(entity_id, data, context)

            async def later(self) -> Any:
                await again.wait()
                return await symphony.entities.load("Customer:c")

        symphony = await reopen()
        symphony.entities.add(Gadget(id="g"), "Gadget")
        symphony.entities.add(Gadget(id="h"), "Gadget")
        symphony.entities.add(Customer(id="c"))
        symphony = await reopen()
        restorer, again = Beginning(), asyncio.Event()
        symphony.restore_manager.register_restorer(restorer)
        await symphony.entities.load("Gadget:g")
        restorer.hold()
        second = asyncio.create_task(symphony.entities.load("Gadget:h"))
        await restorer.begun.wait()
        again.set()
        await asyncio.sleep(0)
        restorer.go_on.set()
        await second
        assert await tasks[0] is symphony.entities.get("Customer:c")


class TestAfterwards:
    async def test_changes_go_on_with_the_right_versions(self, reopen: Opener) -> None:
        """Outside and inside transactions, rolled back ones too; another process sees what was appended."""
        symphony = await reopen()
        customer = symphony.entities.add(Customer(id="c", name="1"))
        for number in range(2, 5):
            await symphony.flush()
            customer.name = str(number)
        symphony = await reopen()
        customer = await symphony.entities.load("Customer:c")
        customer.name = "5"
        await symphony.flush()
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Undone"):
                customer.name = "6"
                raise ZeroDivisionError
        assert customer.name == "5"
        async with symphony.transaction("Named"):
            customer.name = "7"
        events = await symphony.log.read_entity("Customer:c")
        assert [event.version for event in events] == [1, 2, 3, 4, 5, 6]
        assert (events[-2].name, events[-1].name) == ("CustomerChanged", "Named")
        symphony = await reopen(resume="latest")
        assert symphony.entities.get("Customer:c").name == "7"

    async def test_inside_a_transaction(self, reopen: Opener) -> None:
        """What is loaded there belongs to it once it is touched, and stays live when it is rolled back."""
        symphony = await reopen()
        symphony.entities.add(Customer(id="c", name="1", boss=Customer(id="boss")))
        symphony = await reopen()
        head = symphony.log.head
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Undone"):
                added = symphony.entities.add(Customer(id="added"))
                customer = await symphony.entities.load("Customer:c")
                customer.boss, customer.boss.name = added, "2"
                with pytest.raises(EntityBusyError):
                    await asyncio.create_task(self.change(customer), context=Context())
                raise ZeroDivisionError
        assert symphony.entities.get("Customer:c") is customer
        assert customer.boss is symphony.entities.get("Customer:boss")
        assert (customer.boss.name, symphony.log.head) == ("", head)
        async with symphony.transaction("Done"):
            (await symphony.entities.load("Customer:c")).name = "3"
        assert await names_of(symphony, "Customer:c") == ["CustomerCreated", "Done"]

    @staticmethod
    async def change(customer: Any) -> None:
        customer.name = "from outside"

    async def test_a_checkpoint_and_a_resume_after_it_know_all_entities(self, reopen: Opener) -> None:
        """A checkpoint counts what waits, a resume brings everything and detaches what was loaded."""
        symphony = await reopen()
        for name in "abc":
            symphony.entities.add(Customer(id=name, name="1"))
        symphony = await reopen()
        a = await symphony.entities.load("Customer:a")
        a.name = "2"
        symphony.entities.remove(await symphony.entities.load("Customer:b"))
        symphony.entities.add(Customer(id="d", boss=a))
        await symphony.create_checkpoint("here")
        await symphony.create_checkpoint("here as well")
        assert [entry["entity_count"] for entry in await symphony.list_checkpoints()] == [3, 3]
        report = await symphony.resume()
        assert (report.restored, report.complete) == (3, True)
        assert symphony.entities.get("Customer:d").boss is symphony.entities.get("Customer:a") is not a
        with pytest.raises(DetachedEntityError):
            a.name = "3"
        assert await symphony.entities.load("Customer:a") is symphony.entities.get("Customer:a")
        await symphony.rewind(3)
        assert sorted(customer.id for customer in symphony.entities.all()) == ["a", "b", "c"]


class TestConcurrency:
    async def loaded_slowly(self, reopen: Opener) -> tuple[Symphony, GadgetRestorer]:
        symphony = await reopen()
        gadget = symphony.entities.add(Gadget(id="g", size=1), "Gadget")
        symphony.entities.add(Customer(id="c", notes={"gadget": gadget}))
        symphony.entities.add(Customer(id="other"))
        symphony = await reopen()
        restorer = GadgetRestorer()
        symphony.restore_manager.register_restorer(restorer)
        restorer.hold()
        return symphony, restorer

    async def test_loads_of_one_entity_at_once_give_one_object(self, reopen: Opener) -> None:
        """Whoever asks first has it made; by way of another entity, too."""
        symphony, restorer = await self.loaded_slowly(reopen)
        async with asyncio.TaskGroup() as group:
            loads = [group.create_task(symphony.entities.load(key)) for key in ("Gadget:g", "Gadget:g", "Customer:c")]
            await restorer.begun.wait()
            restorer.go_on.set()
        first, second, customer = (load.result() for load in loads)
        assert first is second is customer.notes["gadget"]
        assert restorer.made == 1

    async def test_meanwhile_others_append_and_the_key_is_taken(self, reopen: Opener) -> None:
        """Events of other entities do not matter; the entity itself cannot be added; a live one is given at once."""
        symphony, restorer = await self.loaded_slowly(reopen)
        other = await symphony.entities.load("Customer:other")
        load = asyncio.create_task(symphony.entities.load("Gadget:g"))
        await restorer.begun.wait()
        with pytest.raises(EntityExistsError, match="has not been restored"):
            symphony.entities.add(Gadget(id="g"), "Gadget")
        assert await symphony.entities.load("Customer:other") is other
        other.name = "changed"
        symphony.entities.add(Customer(id="new"))
        await symphony.flush()
        restorer.go_on.set()
        gadget = await load
        gadget.size = 2
        symphony.entities.record(gadget)
        await symphony.flush()
        assert [event.version for event in await symphony.log.read_entity("Gadget:g")] == [1, 2]

    async def test_what_is_removed_meanwhile_stays_removed(self, reopen: Opener) -> None:
        """Although it was live when the load began, and a restorer asks for it when its removal is in the log."""
        symphony = await reopen()
        symphony.entities.add(Customer(id="other"))
        symphony.entities.add(Gadget(id="g", owner_id="other"), "Gadget")
        symphony = await reopen()
        restorer = GadgetRestorer()
        symphony.restore_manager.register_restorer(restorer)
        other = await symphony.entities.load("Customer:other")
        restorer.hold()
        load = asyncio.create_task(symphony.entities.load("Gadget:g"))
        await restorer.begun.wait()
        symphony.entities.remove(other)
        await symphony.flush()
        restorer.go_on.set()
        gadget = await load
        assert gadget._owner == EntityReference("Customer", "other")
        assert symphony.entities.all() == [gadget]
        assert symphony.last_load is not None
        assert symphony.last_load.position == symphony.log.head

    async def test_what_an_open_transaction_has_removed_is_connected_to(self, reopen: Opener) -> None:
        """The removal may be rolled back, as here; asked for by itself it is not there, and then nothing is loaded."""
        symphony = await reopen()
        symphony.entities.add(Customer(id="c", boss=Customer(id="boss")))
        symphony.entities.add(Customer(id="other"))
        symphony = await reopen()
        boss = await symphony.entities.load("Customer:boss")
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Undone"):
                symphony.entities.remove(boss)
                with pytest.raises(EntityNotFoundError, match="Customer:boss"):
                    await symphony.entities.load_all(["Customer:other", "Customer:boss"])
                assert symphony.entities.all() == []
                customer = await symphony.entities.load("Customer:c")
                raise ZeroDivisionError
        assert customer.boss is boss is symphony.entities.get("Customer:boss")
        assert symphony.last_load is not None
        assert symphony.last_load.complete
        boss.name = "still here"
        await symphony.flush()
        assert await names_of(symphony, "Customer:boss") == ["CustomerCreated", "CustomerChanged"]

    async def test_a_resume_waits_for_a_load_and_a_load_for_a_resume(self, reopen: Opener) -> None:
        """In either order the object returned is the one that is live."""
        symphony, restorer = await self.loaded_slowly(reopen)
        load = asyncio.create_task(symphony.entities.load("Gadget:g"))
        await restorer.begun.wait()
        resume = asyncio.create_task(symphony.resume())
        await asyncio.sleep(0)
        restorer.go_on.set()
        gadget = await load
        await resume
        assert symphony.entities.get("Gadget:g") is not gadget
        restorer.hold()
        resume = asyncio.create_task(symphony.resume())
        await restorer.begun.wait()
        load = asyncio.create_task(symphony.entities.load("Gadget:g"))
        await asyncio.sleep(0)
        restorer.go_on.set()
        await resume
        assert await load is symphony.entities.get("Gadget:g")

    async def test_a_load_that_is_cancelled_or_outlived_loads_nothing(self, reopen: Opener) -> None:
        """It can be made again; one that is under way when the Symphony is closed ends with an error."""
        symphony, restorer = await self.loaded_slowly(reopen)
        load = asyncio.create_task(symphony.entities.load("Customer:c"))
        await restorer.begun.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        assert symphony.entities.all() == []
        restorer.begun.clear()
        load = asyncio.create_task(symphony.entities.load("Customer:c"))
        await restorer.begun.wait()
        world = symphony.world
        await symphony.close()
        restorer.go_on.set()
        with pytest.raises(EntityBusyError, match="closing the Symphony"):
            await load
        assert not world.records


class TestRuns:
    async def test_a_run_goes_on_without_a_resume_of_all(self, reopen: Opener) -> None:
        """Its parent, its child runs and what its context holds come along; the others do not."""
        symphony = await reopen()
        failing = True

        def work(context: RunContext) -> str:
            if failing:
                raise ValueError("not yet")
            context["customer"].name = "served"
            return "done"

        symphony.functions.register("work", work)
        inner = symphony.build_workflow().create("inner").add_processing_step("work", "", "work").build()
        outer = symphony.build_workflow().create("outer").add_workflow("call", inner, {"customer": "{{ customer }}"}).build()
        other = symphony.build_workflow().create("other").add_processing_step("work", "", "work").build()
        customer = symphony.entities.add(Customer(id="c"))
        run = await symphony.workflows.execute_workflow(outer, {"customer": customer})
        await symphony.workflows.execute_workflow(other, run_id="another")
        assert run.status == "failed"
        (child,) = run.children.values()
        failing = False
        symphony = await reopen()
        symphony.functions.register("work", work)
        with pytest.raises(EntityNotFoundError, match=r"entities\.load"):
            symphony.entities.get(f"Workflow:{run.id}")
        assert symphony.workflows.handle(run.id).id == run.id
        loaded = await symphony.entities.load(f"Workflow:{child.id}")
        assert loaded.parent.id == run.id
        assert {f"{type(each).__name__}:{each.id}" for each in symphony.entities.all()} == {
            f"Workflow:{run.id}", f"Workflow:{child.id}", "Customer:c",
        }  # fmt: skip
        finished = await symphony.workflows.resume(run.id)
        assert finished.status == "completed", finished.error
        assert loaded.status == "completed"
        assert symphony.entities.get("Customer:c").name == "served"


class Reads:
    """Counts what is read of snapshots and of the log, and the calls of the log's reader thread in which entities are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks = self.rows = self.calls = 0
        read_block, read, read_entity = SnapshotReader.read_block, SQLiteLogReader.read, SQLiteLogReader.read_entity
        replay_some = EventLog._replay_some_entities

        def block(*arguments: Any) -> Any:
            self.blocks += 1
            return read_block(*arguments)

        def rows(*arguments: Any, **named: Any) -> Any:
            found = read(*arguments, **named)
            self.rows += len(found)
            return found

        def entity_rows(*arguments: Any, **named: Any) -> Any:
            found = read_entity(*arguments, **named)
            self.rows += len(found)
            return found

        def entities(*arguments: Any) -> Any:
            self.calls += 1
            return replay_some(*arguments)

        def everything(*arguments: Any) -> Any:
            raise AssertionError("a snapshot is read as a whole")

        monkeypatch.setattr(SnapshotReader, "read_block", block)
        monkeypatch.setattr(SnapshotReader, "read_all", everything)
        monkeypatch.setattr(SQLiteLogReader, "read", rows)
        monkeypatch.setattr(SQLiteLogReader, "read_entity", entity_rows)
        monkeypatch.setattr(EventLog, "_replay_some_entities", entities)


@pytest.mark.exhaustive
@pytest.mark.parametrize("entities", [200, 2000])
async def test_the_cost_is_that_of_what_is_loaded(reopen: Opener, monkeypatch: pytest.MonkeyPatch, entities: int) -> None:
    """A block of the snapshot and its own later events for each entity, opening included, however many entities and events there are."""
    symphony = await reopen()
    customers = [symphony.entities.add(Customer(id=f"{number:05d}", name="n" * 1000)) for number in range(entities)]
    await symphony.flush()
    await symphony._opened.snapshotter.close()  # type: ignore[union-attr]
    await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
    for customer in customers:
        customer.name = "changed"
    symphony.entities.add(Customer(id="later", boss=customers[entities // 2]))
    await symphony.flush()
    await symphony.close()
    reads = Reads(monkeypatch)
    symphony = await reopen()
    later = await symphony.entities.load("Customer:later")
    assert later.boss.name == "changed"
    assert (reads.blocks, reads.rows) == (2, 2 + 2)  # opening reads the newest row and the snapshot's


async def test_what_an_entity_refers_to_is_read_together(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hop to the log's thread costs more than reading an entity: there is one for the entity and one for all that it refers to."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="hub", friends=[Customer(id=str(number)) for number in range(200)]))
    symphony = await reopen()
    reads = Reads(monkeypatch)
    hub = await symphony.entities.load("Customer:hub")
    assert [friend.id for friend in hub.friends] == [str(number) for number in range(200)]
    assert (reads.calls, reads.rows) == (2, 201)
