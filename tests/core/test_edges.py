"""The edges of tracking, transactions and restoring: what happens where things end, overlap or are missing."""

from __future__ import annotations

import asyncio
import copy
import enum
import pickle
import sys
import threading
import time
import types
from typing import Any, ClassVar

import pytest

from symphony_es import EntityReference, Symphony, entity, part, value
from symphony_es.attribution import attributed, current_attribution
from symphony_es.core.objects.connect import connect
from symphony_es.core.past.snapshots import snapshotter
from symphony_es.core.state import (
    EntityRestorer,
    RestorationContext,
    UnrestoredEntity,
    register_entity_restorer,
    restore_manager,
)
from symphony_es.errors import (
    DetachedEntityError,
    EntityBusyError,
    EntityExistsError,
    EntityNotFoundError,
    EntityOutOfStepError,
    EntityOwnershipError,
    EntityTypeError,
    InvalidIdentifierError,
    RestorationError,
    StorageUnavailableError,
    TransactionEndedError,
    UnstorableValueError,
)
from symphony_es.events.event import EventMetadata, NewEvent
from tests.application import Customer, Invoice, Line, Money, Thermometer
from tests.conftest import Opener


async def names_of(symphony: Symphony, key: str) -> list[str]:
    await symphony.flush()
    return [event.name for event in await symphony.log.read_entity(key)]


class TestBlocks:
    async def test_a_synchronous_block_names_its_events_and_can_be_rolled_back(self, symphony: Symphony) -> None:
        """Its events leave together; an exception in it undoes it; inside a transaction it joins that."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        with symphony.world.recording("Renamed", {"by": "test"}, actor="alice") as recording:
            customer.name = "a"
        with pytest.raises(ValueError, match="stop"), symphony.world.recording("Undone"):
            customer.name = "b"
            raise ValueError("stop")
        async with symphony.transaction("Outer"):
            with pytest.raises(ValueError, match="stop"), symphony.world.recording("AlsoUndone"):
                customer.name = "c"
                raise ValueError("stop")
            with symphony.world.recording("Inner"):
                customer.name = "d"
        assert await names_of(symphony, "Customer:c") == ["CustomerCreated", "Renamed", "Inner"]
        event = (await symphony.log.read_entity("Customer:c"))[1]
        assert (event.event_id, event.data, event.metadata.actor) == (recording.event_ids["Customer:c"], {"by": "test"}, "alice")
        assert customer.name == "d"

    async def test_a_block_that_changes_nothing_appends_nothing(self, symphony: Symphony) -> None:
        """Neither kind."""
        symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        with symphony.world.recording("Nothing"):
            pass
        async with symphony.transaction("Nothing"):
            pass
        assert symphony.log.head == 1

    async def test_names_are_checked_before_a_block_begins(self, symphony: Symphony) -> None:
        """A name that cannot be stored is refused, and the lock is free afterwards."""
        for wrong in ("", "not a name", "x" * 128):
            with pytest.raises(InvalidIdentifierError):
                symphony.transaction(wrong)
            with pytest.raises(InvalidIdentifierError), symphony.world.recording(wrong):
                pass
        with pytest.raises(UnstorableValueError):
            async with symphony.transaction("Fine", key=object()):
                pass
        symphony.entities.add(Customer(id="c")).name = "x"
        await symphony.flush()

    async def test_a_cancelled_transaction_is_rolled_back(self, symphony: Symphony) -> None:
        """Cancelled inside its block: nothing is appended, and its entities are free."""
        customer = symphony.entities.add(Customer(id="c", name="before"))
        inside = asyncio.Event()

        async def work() -> None:
            async with symphony.transaction("Cancelled"):
                customer.name = "inside"
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert customer.name == "before"
        customer.name = "after"
        assert await names_of(symphony, "Customer:c") == ["CustomerCreated", "CustomerChanged"]

    async def test_a_transaction_cancelled_at_any_point_is_whole_or_absent(self, reopen: Opener) -> None:
        """One run per suspension point: object and log agree afterwards, and the entities are free."""
        symphony = await reopen()
        for point in range(1, 12):
            one, two = (symphony.entities.add(Customer(id=f"{name}{point}")) for name in "ab")
            await symphony.flush()

            async def work(one: Customer = one, two: Customer = two) -> None:
                async with symphony.transaction("Both", claim=[one]):
                    one.name = "x"
                    await asyncio.sleep(0)
                    two.name = "x"

            finished = await cancelled_at(work, point)
            await symphony.flush()
            await asyncio.sleep(0.01)
            view = await symphony.at(symphony.log.head)
            assert view.get(one)["name"] == view.get(two)["name"] == one.name == two.name
            one.name = "free"
            await symphony.flush()
            if finished:
                return
        raise AssertionError("there are more suspension points than expected")

    async def test_many_transactions_on_one_entity_take_their_turns(self, symphony: Symphony) -> None:
        """Each waits in its claim; the log has them one after the other."""
        customer = symphony.entities.add(Customer(id="c"))

        async def work(number: int) -> None:
            async with symphony.transaction(f"T{number}", claim=[customer]):
                customer.friends.append(number)
                await asyncio.sleep(0)
                customer.friends.append(number)

        await asyncio.gather(*(work(number) for number in range(20)))
        assert customer.friends == [number for number in range(20) for _ in range(2)]
        assert await names_of(symphony, "Customer:c") == ["CustomerCreated", *(f"T{number}" for number in range(20))]

    async def test_a_claim_of_what_is_not_here_begins_nothing(self, symphony: Symphony) -> None:
        """The error is that of a look-up, and the block is not entered."""
        with pytest.raises(EntityNotFoundError):
            async with symphony.transaction("Nothing", claim=["Customer:none"]):
                raise AssertionError("entered")
        with pytest.raises(EntityOwnershipError, match="belongs to no entity"):
            async with symphony.transaction("Nothing", claim=[Customer(id="free")]):
                raise AssertionError("entered")
        symphony.entities.add(Customer(id="c"))

    async def test_an_entity_out_of_step_cannot_join_a_transaction(self, symphony: Symphony) -> None:
        """It has to be refreshed first."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        await symphony.log.append(
            [NewEvent(entity_key="Customer:c", version=2, name="X", changes=[], metadata=EventMetadata(), event_id=b"1" * 16)]
        )
        customer.name = "lost"
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
        with pytest.raises(EntityOutOfStepError):
            async with symphony.transaction("T"):
                customer.name = "x"
        await symphony.refresh(customer)
        async with symphony.transaction("T"):
            customer.name = "x"
        assert (await names_of(symphony, "Customer:c"))[-1] == "T"

    async def test_a_creation_that_is_rolled_back_leaves_the_removal_before_it(self, symphony: Symphony) -> None:
        """Its version is not forgotten while it is not in the log yet, also when what was created is removed again."""
        for removed_again in (False, True):
            customer = symphony.entities.find("Customer:c") or symphony.entities.add(Customer(id="c"))
            await symphony.flush()
            symphony.entities.remove(customer)
            with pytest.raises(ZeroDivisionError):
                async with symphony.transaction("Undone"):
                    again = symphony.entities.add(Customer(id="c"))
                    if removed_again:
                        symphony.entities.remove(again)
                    raise ZeroDivisionError
            symphony.entities.add(Customer(id="c", name="again"))
            await symphony.flush()
            assert not symphony.world.removed
        assert [event.version for event in await symphony.log.read_entity("Customer:c")] == [1, 2, 3, 4, 5]

    async def test_removal_and_creation_in_one_transaction(self, symphony: Symphony) -> None:
        """An id removed in a transaction is free after its end; a removed one comes back with a rollback."""
        customer = symphony.entities.add(Customer(id="c", name="1"))
        async with symphony.transaction("Replaced"):
            symphony.entities.remove(customer)
            with pytest.raises(EntityExistsError, match="removed in a transaction that has not ended"):
                symphony.entities.add(Customer(id="c"))
        again = symphony.entities.add(Customer(id="c", name="2"))
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Undone"):
                symphony.entities.remove(again)
                raise ZeroDivisionError
        again.name = "3"
        await symphony.flush()
        assert (await symphony.at(symphony.log.head)).get("Customer:c")["name"] == "3"
        thermometer = symphony.entities.add(Thermometer("t", 1.0))
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Undone"):
                symphony.entities.remove(thermometer)
                raise ZeroDivisionError
        thermometer.degrees = 2.0
        symphony.entities.record(thermometer)
        assert await names_of(symphony, "Thermometer:t") == ["ThermometerCreated", "ThermometerChanged"]


async def cancelled_at(make: Any, point: int) -> bool:
    """Run a coroutine and throw CancelledError in at its n-th suspension; whether it finished before."""

    class Cut:
        def __await__(self) -> Any:
            iterator, count = make().__await__(), 0
            result: Any = None
            while True:
                try:
                    yielded = iterator.send(result)
                except StopIteration:
                    return True
                count += 1
                if count == point:
                    with pytest.raises(asyncio.CancelledError):
                        iterator.throw(asyncio.CancelledError())
                    return False
                result = yield yielded

    return bool(await Cut())


class TestDeclaring:
    def test_what_cannot_be_declared(self) -> None:
        """Slots, private fields, an own __setattr__, a type that another class has."""
        with pytest.raises(EntityTypeError, match="__slots__"):

            @entity
            class Slots:
                __slots__ = ("id",)

        with pytest.raises(EntityTypeError, match="start with '_'"):

            @entity
            class Private:
                id: str = ""
                _hidden: int = 0

        with pytest.raises(EntityTypeError, match="__setattr__"):

            @part
            class Setter:
                x: int = 0

                def __setattr__(self, name: str, new: Any) -> None: ...

        with pytest.raises(EntityTypeError, match="has that name"):

            @entity(type="Customer")
            class Other:
                id: str = ""

        with pytest.raises(InvalidIdentifierError):
            entity(type="not a type")(type("X", (), {}))

    async def test_dataclass_features_work(self, symphony: Symphony) -> None:
        """Class variables, properties with setters, __post_init__, an own repr, inheritance."""

        @entity(type="BaseThing")
        class BaseThing:
            count: ClassVar[int] = 7
            id: str = ""
            size: int = 0

            def __post_init__(self) -> None:
                self.size += 1

            @property
            def double(self) -> int:
                return 2 * self.size

            @double.setter
            def double(self, new: int) -> None:
                self.size = new // 2

            def __repr__(self) -> str:
                return "own"

        @entity(type="DerivedThing")
        class DerivedThing(BaseThing):
            colour: str = "red"

        thing = symphony.entities.add(DerivedThing(id="d", size=1, colour="blue"))
        thing.double = 8
        await symphony.flush()
        assert repr(thing) == "own"
        assert (await symphony.at(symphony.log.head)).get(thing) == {"id": "d", "size": 4, "colour": "blue"}
        assert [obj.id for obj in symphony.entities.all("DerivedThing")] == ["d"]
        await symphony.resume()
        assert symphony.entities.get("DerivedThing:d").size == 4, "restoring runs no __post_init__"

    async def test_copies_belong_to_nothing(self, symphony: Symphony) -> None:
        """Copied and pickled entities and containers are free of their Symphony; a copy has the same id and cannot be added."""
        customer = symphony.entities.add(Customer(id="c", friends=[1], notes={"a": [1]}))
        for twin in (copy.copy(customer), copy.deepcopy(customer), pickle.loads(pickle.dumps(customer))):
            twin.friends.append(2)
            twin.name = "twin"
            with pytest.raises(EntityExistsError):
                symphony.entities.add(twin)
        assert type(copy.copy(customer.friends)) is list
        assert type(copy.deepcopy(customer.notes)) is dict
        assert pickle.loads(pickle.dumps(symphony.entities.add(Invoice(id="i", labels={"x"})).labels)) == {"x"}
        assert customer.friends == [1]
        assert repr(Customer(id="x", boss=customer)) == "Customer(id='x', name='', friends=[], boss=<Customer:c>, notes={})"
        assert await names_of(symphony, "Customer:c") == ["CustomerCreated"]

    async def test_a_class_that_lost_or_gained_a_field(self, reopen: Opener) -> None:
        """A default fills what is missing; what is left over is reported; a field without a default is an error that names it."""

        @entity(type="Shape")
        class First:
            id: str = ""
            old: int = 1

        symphony = await reopen()
        symphony.entities.add(First(id="s"))
        await symphony.flush()

        def redeclare(body: dict[str, Any], annotations: dict[str, Any]) -> None:
            made = type("First", (), {**body, "__annotations__": annotations, "__module__": __name__, "__qualname__": First.__qualname__})
            entity(type="Shape")(made)

        redeclare({"id": "", "new": 5}, {"id": str, "new": int})
        symphony = await reopen()
        report = await symphony.resume()
        assert [(item.entity, sorted(item.paths)) for item in report.different] == [("Shape:s", [("new",), ("old",)])]
        shape = symphony.entities.get("Shape:s")
        shape.new = 6
        await symphony.flush()
        assert (await symphony.at(symphony.log.head)).get(shape) == {"id": "s", "new": 6}
        redeclare({"id": ""}, {"required": int, "id": str})
        symphony = await reopen()
        with pytest.raises(RestorationError, match="has no 'required'"):
            await symphony.resume(strict=True)

    async def test_a_value_whose_class_is_unknown_keeps_its_entity_whole(self, reopen: Opener) -> None:
        """No object with a hole: the entity is an `UnrestoredEntity`, says what to do, and is live again when that has been done."""

        class Vanishing(enum.Enum):
            X = 1

        symphony = await reopen()
        symphony.types.register(Vanishing, "Vanishing")
        symphony.entities.add(Customer(id="c", notes={"v": Vanishing.X, "l": [(Vanishing.X,)]}))
        await symphony.flush()
        before = (await symphony.at(symphony.log.head)).get("Customer:c")
        symphony = await reopen()
        with pytest.raises(RestorationError, match=r"1 entity cannot be made: Customer:c: .*Vanishing"):
            await symphony.resume(strict=True)
        report = await symphony.resume()
        assert report.unknown_values == {"Customer:c": ["Vanishing"]}
        assert "symphony.types.register(Vanishing, 'Vanishing')" in report.unrestored["Customer:c"]
        kept = symphony.entities.get("Customer:c")
        assert isinstance(kept, UnrestoredEntity)
        assert kept.state == before
        symphony.types.register(Vanishing, "Vanishing")
        assert (await symphony.resume()).complete
        assert symphony.entities.get("Customer:c").notes == {"v": Vanishing.X, "l": [(Vanishing.X,)]}


class TestRestoring:
    async def test_restorers_can_ask_for_references_and_say_no(self, reopen: Opener) -> None:
        """add_pending_reference, get_entity, can_restore; what a restorer may not do is refused."""

        class Laid:
            def __init__(self, id: str, link: Any = None) -> None:
                self.id = id
                self._link = link

        class LaidRestorer(EntityRestorer):
            entity_type = "Laid"  # type: ignore[assignment]

            def capture(self, entity: Any) -> dict[str, Any]:
                return {"id": entity.id, "target": entity._link}

            async def can_restore(self, data: dict[str, Any]) -> bool:
                return data["id"] != "refused"

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                made = Laid(data["id"])
                assert context.get_entity("Laid", "nobody") is None
                assert context.registry is context.symphony.registry
                if data["target"] is not None:
                    context.add_pending_reference(made, "_link", data["target"])
                return made

        symphony = await reopen()
        symphony.restore_manager.register_restorer(LaidRestorer())
        first = symphony.entities.add(Laid("1"), "Laid")
        symphony.entities.add(Laid("2", first), "Laid")
        symphony.entities.add(Laid("refused"), "Laid")
        symphony = await reopen()
        symphony.restore_manager.register_restorer(LaidRestorer())
        report = await symphony.resume()
        assert symphony.entities.get("Laid:2")._link is symphony.entities.get("Laid:1")
        assert report.unrestored == {"Laid:refused": "LaidRestorer.can_restore said no"}
        assert "Laid:refused" in repr(symphony.entities.get("Laid:refused"))
        assert not report.different
        with pytest.raises(EntityTypeError):
            symphony.entities.add(UnrestoredEntity(EntityReference("Laid", "x"), {}, ""))

    async def test_what_restorers_change_afterwards_is_compared_and_not_appended(self, reopen: Opener) -> None:
        """A reference that is connected is no event, another's change is a difference, and a look at the past appends nothing."""

        class CustomerRestorer(EntityRestorer):
            entity_type = "Customer"  # type: ignore[assignment]

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                made = Customer(id=entity_id, name=data["name"])
                if data["boss"] is not None:
                    context.add_pending_reference(made, "boss", data["boss"])
                    with context.symphony.world.recording("Greeted"):
                        context.get_entity("Customer", "a").friends.append("greeted")  # type: ignore[union-attr]
                return made

        class ThermometerRestorer(EntityRestorer):
            entity_type = "Thermometer"  # type: ignore[assignment]

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                invoice = context.get_entity("Invoice", "i")  # which the library's own restorer made
                if invoice is not None:
                    invoice.labels.add("measured")
                return Thermometer(**data)

        symphony = await reopen()
        symphony.entities.add(Customer(id="b", boss=Customer(id="a")))
        symphony.entities.add(Invoice(id="i", extra={"by": symphony.entities.add(Thermometer("t"))}))
        symphony = await reopen()
        symphony.restore_manager.register_restorer(CustomerRestorer())
        symphony.restore_manager.register_restorer(ThermometerRestorer())
        head = symphony.log.head
        objects = await (await symphony.at(head)).objects()
        await asyncio.sleep(0)
        reports = [objects.report]
        await symphony.entities.load_all(["Customer:b", "Invoice:i"])
        assert symphony.last_load is not None
        reports += [symphony.last_load, await symphony.resume()]
        await symphony.flush()
        assert symphony.log.head == head
        for report in reports:
            assert [(item.entity, item.paths) for item in report.different] == [
                ("Customer:a", (("friends",),)), ("Invoice:i", (("labels",),)),
            ]  # fmt: skip
        a, b = symphony.entities.get("Customer:a"), symphony.entities.get("Customer:b")
        assert b.boss is a
        a.name, b.name = "A", "B"
        await symphony.flush()
        assert await names_of(symphony, "Customer:a") == ["CustomerCreated", "StateAdopted", "CustomerChanged"]
        assert await names_of(symphony, "Customer:b") == ["CustomerCreated", "CustomerChanged"]
        assert (await symphony.at("latest")).get("Customer:a")["friends"] == ["greeted"]

    async def test_a_restorer_may_only_make_its_own_entity(self, reopen: Opener) -> None:
        """Creating another through the facades is an error: it would be in no log."""

        class Greedy(EntityRestorer):
            entity_type = "Thermometer"  # type: ignore[assignment]

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                context.symphony.entities.add(Customer(id="extra"))

        symphony = await reopen()
        symphony.entities.add(Thermometer("t"))
        await symphony.flush()
        symphony.restore_manager.register_restorer(Greedy())
        with pytest.raises(RestorationError, match="may only make that entity"):
            await symphony.resume(strict=True)
        assert symphony.entities.find("Thermometer:t") is not None

    def test_restorers_of_the_module_are_seen_by_every_symphony(self) -> None:
        """register_entity_restorer registers for the process."""

        class Anywhere(EntityRestorer):
            entity_type = "AnywhereThing"  # type: ignore[assignment]

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                return None

        symphony = Symphony()
        register_entity_restorer(Anywhere())
        try:
            assert "AnywhereThing" in list(symphony.restore_manager)
            assert isinstance(symphony.restore_manager.restorer_for("AnywhereThing"), Anywhere)
            with pytest.raises(RestorationError, match="define upcast"):
                Anywhere().upcast({}, 3)
        finally:
            assert restore_manager.unregister_restorer("AnywhereThing")
        assert not restore_manager.unregister_restorer("AnywhereThing")

    def test_connecting_leads_nowhere_without_harm(self) -> None:
        """Paths that an object is not laid out for change nothing; frozen values and tuples are replaced."""
        reference, target = EntityReference("T", "1"), object()
        plain = types.SimpleNamespace(a=[reference], b={"k": (1, reference)}, c={reference, 2}, d=Money(1))
        connect(plain, ("a", 0), reference, target)
        connect(plain, ("b", "k", 1), reference, target)
        connect(plain, ("c",), reference, target)
        for nowhere in (("x",), ("a", 9), ("b", "z"), ("d", "amount", 0), ("a",), (0,)):
            connect(plain, nowhere, reference, target)
        assert (plain.a, plain.b, plain.c, plain.d) == ([target], {"k": (1, target)}, {target, 2}, Money(1))

        @value(name="Holder")
        class Holder:
            held: Any = None

        held = types.SimpleNamespace(v=Holder(reference), p=Line("x"))
        connect(held, ("v", "held"), reference, target)
        held.p.__dict__["text"] = reference
        connect(held, ("p", "text"), reference, target)
        assert held.v.held is target
        assert held.p.text is target

    async def test_changes_during_a_resume_are_refused(self, reopen: Opener) -> None:
        """The old world is sealed while the new one is built, and open again when that fails."""
        symphony = await reopen()
        customer = symphony.entities.add(Customer(id="c"))
        symphony.entities.add(Thermometer("t"))
        await symphony.flush()

        class Meddling(EntityRestorer):
            entity_type = "Thermometer"  # type: ignore[assignment]

            async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
                with pytest.raises(EntityBusyError, match="a resume"):
                    customer.name = "x"
                raise ValueError("stop")

        symphony.restore_manager.register_restorer(Meddling())
        with pytest.raises(RestorationError, match="stop"):
            await symphony.resume(strict=True)
        customer.name = "open again"
        await symphony.flush()

    async def test_refreshing_what_was_never_created_or_is_not_its_own(self, symphony: Symphony) -> None:
        """An entity whose creation failed is free again; one of a foreign class is put back by its restorer."""
        thermometer = symphony.entities.add(Thermometer("t", 1.0))
        await symphony.flush()
        await symphony.log.append(
            [
                NewEvent(
                    entity_key="Customer:c",
                    version=1,
                    name="X",
                    changes=[(0, (), {"id": "c"})],
                    metadata=EventMetadata(),
                    event_id=b"1" * 16,
                )
            ]
        )
        thermometer.degrees = 5.0
        assert await symphony.refresh(thermometer) == [(0, ("degrees",), 5.0)]  # nobody had recorded it yet
        assert thermometer.degrees == 1.0
        customer = Customer(id="other")
        symphony.entities.add(customer)
        symphony.world.record_for(customer).version = 5
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
        assert len(await symphony.refresh(customer)) == 1
        assert symphony.entities.find("Customer:other") is None
        symphony.entities.add(customer)
        await symphony.flush()


class TestSnapshotter:
    async def test_a_snapshot_that_cannot_be_written_is_told_and_tried_later(
        self, reopen: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The checkpoint stands, the failure is logged, and the next attempt waits."""
        monkeypatch.setattr(snapshotter, "FLOOR_BYTES", 0)
        symphony = await reopen()
        assert symphony._opened is not None
        writer = symphony._opened.snapshotter
        assert writer is not None

        async def full(*arguments: Any) -> Any:
            raise StorageUnavailableError(28, "no space left")

        with monkeypatch.context() as patch:
            patch.setattr(writer.store, "write", full)
            customer = symphony.entities.add(Customer(id="c", name="x" * 100))
            await symphony.create_checkpoint("one")
            await writer.close()
        assert isinstance(writer.failure, StorageUnavailableError)
        assert "snapshot_failed" in caplog.text
        assert not writer.due
        customer.notes["big"] = "x" * 2000
        await symphony.create_checkpoint("two")
        await writer.close()
        assert writer.failure is None
        assert await writer.take(0) is None
        info = writer.store.list()[0]
        assert await writer.take(info.position) == info
        await symphony.resume_from_checkpoint("one")
        assert symphony.entities.get("Customer:c").notes == {}


async def test_the_trace_of_an_active_span_is_kept(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenTelemetry is active its trace id is in the metadata; where it is installed and not active, nothing is."""
    context = types.SimpleNamespace(trace_id=0xABC, is_valid=True)
    span = types.SimpleNamespace(get_span_context=lambda: context)
    trace = types.ModuleType("opentelemetry.trace")
    trace.get_current_span = lambda: span  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    context.is_valid = False
    with attributed(correlation_id="k", user={"a": 1}), attributed(user={"b": 2}):
        customer.name = "x"
    await symphony.flush()
    first, second = await symphony.log.read_entity("Customer:c")
    assert (first.metadata.trace_id, second.metadata.trace_id) == (f"{0xABC:032x}", None)
    assert (second.metadata.correlation_id, second.metadata.user) == ("k", {"a": 1, "b": 2})


class TestThreads:
    async def test_a_change_that_waits_for_a_rollback_of_the_addition_is_refused(self, symphony: Symphony) -> None:
        """It would be the first event of an entity that was never created, and no fold could pass it."""
        customer = Customer(id="c")
        refused: list[BaseException] = []

        def change() -> None:
            try:
                customer.name = "from a thread"
            except DetachedEntityError as error:
                refused.append(error)

        thread = threading.Thread(target=change, daemon=True)
        block = symphony.transaction("T")
        await block.__aenter__()
        symphony.entities.add(customer)
        record, lock = customer.__dict__["_symphony_record"], symphony.world.lock
        with lock:
            thread.start()
            while not thread.is_alive():
                await asyncio.sleep(0)
            time.sleep(0.05)  # it waits for the lock by now; were it slower, it would find no record, and the test would show nothing
            await block.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
            assert symphony.entities.find("Customer:c") is None
        await asyncio.to_thread(thread.join, 10)
        assert record.closed is not None
        await symphony.flush()
        assert symphony.log.head == 0

    async def test_a_block_that_cannot_begin_leaves_no_attribution(self, symphony: Symphony) -> None:
        """A task that outlives its transaction asks for a block of it."""
        ended = asyncio.Event()

        async def late() -> str | None:
            await ended.wait()
            with pytest.raises(TransactionEndedError):
                async with symphony.transaction("Late", actor="eve"):
                    pass
            return current_attribution.get().actor

        async with symphony.transaction("T"):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        ended.set()
        assert await task is None


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("notes", {"a": [1, {"b": object()}]}, ("notes", "a", 1, "b")),
        ("friends", (1, object()), ("friends", 1)),
        ("boss", object(), ("boss",)),
    ],
)
async def test_what_cannot_be_stored_is_named_from_the_entity_on(symphony: Symphony, field: str, value: Any, path: tuple[Any, ...]) -> None:
    """When an object is added, as when a field of a live one is assigned."""
    for step in ("added", "assigned"):
        customer = Customer(id=step)
        with pytest.raises(UnstorableValueError) as caught:
            if step == "added":
                setattr(customer, field, value)
                symphony.entities.add(customer)
            else:
                setattr(symphony.entities.add(customer), field, value)
        assert caught.value.path == path
