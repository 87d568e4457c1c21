"""What runs beside each other: threads, tasks, blocks, resumes and closing; object and log never part in silence."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.objects.plain import plain_at
from symphony_es.errors import (
    ConcurrencyError,
    EntityBusyError,
    EntityNotFoundError,
    EntityOutOfStepError,
    EntityTypeError,
    LimitExceededError,
    RestorationError,
    SymphonyError,
    TransactionEndedError,
    UnstorableValueError,
)
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.values import plain_equal
from tests.application import Customer, Invoice, Line, Thermometer
from tests.conftest import Opener


async def agree(symphony: Symphony, *entities: Any) -> bool:
    await symphony.flush()
    view = await symphony.at(symphony.log.head)
    return all(
        plain_equal(view.get(obj), {name: plain_at(obj.__dict__[name], symphony.world, name) for name in type(obj)._symphony_spec.fields})
        for obj in entities
    )


async def intrude(symphony: Symphony, key: str, version: int) -> None:
    event = NewEvent(entity_key=key, version=version, name="Intruded", changes=[], metadata=EventMetadata(), event_id=b"1" * 16)
    await symphony.log.append([event])


MANY_ROUNDS = 20_000
"""Far more than go by while the others wait for the disk, which a block that is rolled back does not."""


class TestTurns:
    @pytest.mark.parametrize("waiters", [1, 3])
    @pytest.mark.parametrize("outside", [False, True])
    @pytest.mark.parametrize("failing", [False, True])
    async def test_who_waits_for_an_entity_comes_before_who_claims_it_again(
        self, symphony: Symphony, waiters: int, outside: bool, failing: bool
    ) -> None:
        """A task that claims an entity in a loop, its blocks rolled back or not, lets all others have their turns in between."""
        customer = symphony.entities.add(Customer(id="c", notes={"n": 0}))
        await symphony.flush()
        turns = dict.fromkeys(range(waiters), 0)

        async def greedy() -> int:
            for round_ in range(MANY_ROUNDS):
                if all(done == 5 for done in turns.values()):
                    return round_
                try:
                    async with symphony.transaction("Greedy", claim=[customer]):
                        customer.notes["n"] += 1
                        await asyncio.sleep(0)
                        if failing:
                            raise KeyError
                except KeyError:
                    pass
            return MANY_ROUNDS

        async def modest(number: int) -> None:
            while turns[number] < 5:
                if outside:
                    await symphony.world.claim(customer)
                    customer.notes["n"] += 1
                    await symphony.flush()
                else:
                    async with symphony.transaction("Modest", claim=[customer]):
                        customer.notes["n"] += 1
                turns[number] += 1

        others = asyncio.gather(*(modest(number) for number in turns))
        rounds = await greedy()
        await others
        assert rounds < MANY_ROUNDS
        assert await agree(symphony, customer)

    @pytest.mark.parametrize("turns_before", range(6))
    async def test_a_wait_that_is_given_up_holds_up_nobody(self, symphony: Symphony, turns_before: int) -> None:
        """Cancelled before it is woken, between that and its turn, or after it: the next claim goes on."""
        customer = symphony.entities.add(Customer(id="c", notes={"n": 0}))
        await symphony.flush()

        async def wait() -> None:
            async with symphony.transaction("Waits", claim=[customer]):
                customer.notes["n"] += 1

        async with symphony.transaction("Holds", claim=[customer]):
            customer.notes["n"] += 1
            waiting = asyncio.create_task(wait())
            for _ in range(3):
                await asyncio.sleep(0)
        for _ in range(turns_before):
            await asyncio.sleep(0)
        waiting.cancel()
        async with asyncio.timeout(10), symphony.transaction("Next", claim=[customer]):
            customer.notes["n"] += 1
        await asyncio.gather(waiting, return_exceptions=True)
        assert not symphony.world._called
        assert await agree(symphony, customer)


class TestThreads:
    async def test_any_mutation_from_threads_leaves_object_and_log_equal(self, symphony: Symphony) -> None:
        """Inserting, popping, removing and sorting at once: the log can be folded, and gives the same."""
        customer = symphony.entities.add(Customer(id="c", notes={"d": {}}))
        invoice = symphony.entities.add(Invoice(id="i", lines=[Line("x")]))

        def work(number: int) -> None:
            for step in range(60):
                customer.friends.insert(0, number)
                customer.friends.append(step)
                customer.notes["d"][step % 7] = number
                try:
                    customer.friends.pop()
                    customer.friends.remove(number)
                    customer.notes["d"].popitem()
                except (IndexError, ValueError, KeyError):
                    continue
                customer.friends.reverse()
                invoice.labels.add(str(step % 5))
                invoice.labels.discard(str(number))
                invoice.lines[0].tags.append("t")
                invoice.lines.insert(0, Line(str(number)))

        await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
        assert await agree(symphony, customer, invoice)

    async def test_what_a_method_looks_at_is_still_so_when_it_changes_it(self, symphony: Symphony) -> None:
        """A pop that has to wait for another thread's clear finds an empty list."""
        customer = symphony.entities.add(Customer(id="c", friends=[1, 2, 3]))
        await symphony.flush()
        outcome: list[Any] = []

        def pop() -> None:
            try:
                outcome.append(customer.friends.pop())
            except IndexError as error:
                outcome.append(error)

        with symphony.world.lock:
            thread = threading.Thread(target=pop)
            thread.start()
            customer.friends.clear()
        await asyncio.to_thread(thread.join)
        assert isinstance(outcome[0], IndexError)
        assert await agree(symphony, customer)


class TestTransactions:
    async def test_what_a_child_changes_while_the_commit_is_under_way_is_refused(self, symphony: Symphony) -> None:
        """It is no part of the transaction any more."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        refused: list[BaseException] = []
        go = asyncio.Event()

        async def child() -> None:
            await go.wait()
            try:
                customer.boss = 1
            except TransactionEndedError as error:
                refused.append(error)

        async with symphony.transaction("T"):
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
            customer.name = "x"
            go.set()
        await task
        assert await agree(symphony, customer)
        assert refused or customer.boss == 1

    async def test_a_block_that_outlives_its_transaction_undoes_nothing(self, symphony: Symphony) -> None:
        """What has been committed stays, in the object as well."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        inside, ended = asyncio.Event(), asyncio.Event()

        async def child() -> None:
            async with symphony.transaction("Child"):
                customer.name = "x"
                inside.set()
                await ended.wait()
                customer.name = "too late"

        async with symphony.transaction("T"):
            task = asyncio.create_task(child())
            await inside.wait()
        ended.set()
        with pytest.raises(TransactionEndedError):
            await task
        assert customer.name == "x"
        assert await agree(symphony, customer)
        customer.name = "goes on"
        assert await agree(symphony, customer)

    async def test_blocks_beside_each_other_are_undone_alone(self, symphony: Symphony) -> None:
        """One fails, the other's changes stay; on one entity they are refused."""
        a, b = symphony.entities.add(Customer(id="a")), symphony.entities.add(Customer(id="b"))
        await symphony.flush()
        first_in, second_done = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            with pytest.raises(ValueError, match="stop"):
                async with symphony.transaction("First"):
                    a.name = "first"
                    first_in.set()
                    await second_done.wait()
                    raise ValueError("stop")

        async def second() -> None:
            await first_in.wait()
            async with symphony.transaction("Second"):
                b.name = "second"
                with pytest.raises(EntityBusyError, match="First"):
                    a.name = "second"
            second_done.set()

        async with symphony.transaction("Outer"):
            await asyncio.gather(first(), second())
        assert (a.name, b.name) == ("", "second")
        assert await agree(symphony, a, b)

    async def test_transactions_of_two_symphonies_are_each_their_own(self, symphony: Symphony) -> None:
        """One inside the other: a change belongs to the transaction of its Symphony; the other may be resumed."""
        mine = symphony.entities.add(Customer(id="c"))
        async with Symphony() as other:
            theirs = other.entities.add(Customer(id="c"))
            with pytest.raises(ValueError, match="stop"):
                async with symphony.transaction("Mine"), other.transaction("Theirs"):
                    mine.name = theirs.name = "x"
                    raise ValueError("stop")
            assert (mine.name, theirs.name) == ("", "")
            async with symphony.transaction("Mine"):
                await other.resume()
            assert await agree(symphony, mine)

    async def test_a_commit_that_fails_puts_foreign_objects_back(self, symphony: Symphony) -> None:
        """And what is unstorable in an unrelated one is its own trouble."""
        customer = symphony.entities.add(Customer(id="c"))
        thermometer, odd = symphony.entities.add(Thermometer("t", 1.0)), symphony.entities.add(Thermometer("odd", 1.0))
        await symphony.flush()
        await intrude(symphony, "Customer:c", 2)
        with pytest.raises(ConcurrencyError):
            async with symphony.transaction("T", claim=[thermometer]):
                customer.name, thermometer.degrees = "x", 42.0
        assert (customer.name, thermometer.degrees) == ("", 1.0)
        odd.readings.append(object())  # type: ignore[arg-type]
        async with symphony.transaction("Unrelated"):
            symphony.entities.add(Customer(id="new"))
        with pytest.raises(UnstorableValueError, match="Thermometer:odd"):
            await symphony.flush()
        odd.readings.clear()
        await symphony.flush()


class TestResumes:
    async def test_open_transactions_refuse_a_resume(self, symphony: Symphony) -> None:
        """They are named; after their end it works."""
        customer = symphony.entities.add(Customer(id="c"))
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with symphony.transaction("Long"):
                customer.name = "x"
                inside.set()
                await go_on.wait()

        task = asyncio.create_task(work())
        await inside.wait()
        with pytest.raises(RestorationError, match="'Long'"):
            await symphony.resume()
        go_on.set()
        await task
        await symphony.resume()
        assert symphony.entities.get("Customer:c").name == "x"

    async def test_changes_that_race_a_resume_are_in_it_or_refused(self, reopen: Opener) -> None:
        """Never acknowledged and lost: new world and log agree, whenever it comes."""
        symphony = await reopen()
        for number in range(12):
            customer = symphony.entities.add(Customer(id=f"c{number}"))
            done = asyncio.Event()

            async def change(customer: Customer = customer, number: int = number, done: asyncio.Event = done) -> None:
                while not done.is_set():
                    try:
                        customer.friends.append(1)
                        symphony.entities.add(Customer(id=f"new{number}-{len(customer.friends)}"))
                        await symphony.flush()
                    except SymphonyError:
                        return
                    await asyncio.sleep(0)

            task = asyncio.create_task(change())
            for _ in range(number):
                await asyncio.sleep(0)
            await symphony.resume()
            done.set()
            await task
            assert await agree(symphony, *symphony.entities.all("Customer"))
            view = await symphony.at(symphony.log.head)
            assert len(view) == len(symphony.entities.all())

    async def test_a_rewind_that_is_cancelled_is_done_or_not(self, reopen: Opener) -> None:
        """World and log agree at whatever point it was cancelled."""
        symphony = await reopen()
        customer = symphony.entities.add(Customer(id="c", name="before"))
        checkpoint = await symphony.create_checkpoint()
        for point in range(1, 40):
            customer = symphony.entities.get("Customer:c")
            customer.name = f"after {point}"
            await symphony.flush()
            task = asyncio.create_task(symphony.resume_from_checkpoint(checkpoint))
            for _ in range(point):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            customer = symphony.entities.get("Customer:c")
            assert await agree(symphony, customer)
            customer.name = "goes on"
            assert await agree(symphony, customer)

    async def test_a_resume_gives_up_what_could_not_be_appended_and_says_so(self, symphony: Symphony) -> None:
        """An entity out of step does not stand in its way; the report has its changes."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        await intrude(symphony, "Customer:c", 2)
        customer.name = "lost"
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
        report = await symphony.resume()
        assert [change[2] for change in report.dropped["Customer:c"]] == ["lost"]
        customer = symphony.entities.get("Customer:c")
        customer.name = "goes on"
        assert await agree(symphony, customer)

    @pytest.mark.exhaustive
    async def test_many_changed_entities_are_taken_back_in_one_pass(self, reopen: Opener) -> None:
        """2,000 of them; each ends where it was, and goes on from there."""
        symphony = await reopen()
        customers = [symphony.entities.add(Customer(id=str(number))) for number in range(2000)]
        checkpoint = await symphony.create_checkpoint()
        for customer in customers:
            customer.name = "x"
        await symphony.resume_from_checkpoint(checkpoint)
        assert symphony.last_resume is not None
        assert len(symphony.last_resume.rewound) == 2000
        assert {customer.name for customer in symphony.entities.all()} == {""}
        symphony.entities.get("Customer:7").name = "goes on"
        assert await agree(symphony, symphony.entities.get("Customer:7"))

    async def test_closing_refuses_what_comes_too_late(self, symphony: Symphony) -> None:
        """A change made while it flushes is refused, never dropped."""
        customer = symphony.entities.add(Customer(id="c"))
        outcome: list[Any] = []

        async def late() -> None:
            for _ in range(50):
                try:
                    customer.name += "x"
                except SymphonyError as error:
                    outcome.append(error)
                    return
                await asyncio.sleep(0)

        task = asyncio.create_task(late())
        await asyncio.sleep(0)
        await symphony.close()
        await task
        assert outcome


class TestRefreshing:
    async def test_what_a_transaction_claims_is_not_refreshed(self, symphony: Symphony) -> None:
        """It would put back what the transaction is about to commit."""
        customer = symphony.entities.add(Customer(id="c"))
        async with symphony.transaction("T"):
            customer.name = "x"
            with pytest.raises(EntityBusyError):
                await symphony.refresh(customer)
        assert await agree(symphony, customer)

    async def test_changes_made_meanwhile_are_dropped_and_told(self, symphony: Symphony) -> None:
        """And the entity is not stuck afterwards."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        await intrude(symphony, "Customer:c", 2)
        customer.name = "lost"
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
        task = asyncio.create_task(symphony.refresh(customer))
        await asyncio.sleep(0)
        customer.boss = 9
        dropped = await task
        assert [change[2] for change in dropped] in (["lost"], ["lost", 9])
        customer.boss = 5
        assert await agree(symphony, customer)

    async def test_references_inside_parts_are_live_again(self, symphony: Symphony) -> None:
        """As a restore connects them."""
        target = symphony.entities.add(Customer(id="t"))
        invoice = symphony.entities.add(Invoice(id="i", lines=[Line("a")], extra={1: target, 2: (target,)}))
        invoice.lines[0].tags.append("x")
        await symphony.flush()
        await symphony.refresh(invoice)
        assert invoice.extra[1] is invoice.extra[2][0] is target
        assert invoice.lines[0].tags == ["x"]
        assert await agree(symphony, invoice)

    async def test_a_removal_that_failed_is_taken_back(self, symphony: Symphony) -> None:
        """By the key that the error names; what was never there is simply forgotten."""
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        await intrude(symphony, "Customer:c", 2)
        symphony.entities.remove(customer)
        with pytest.raises(EntityOutOfStepError, match="Customer:c"):
            await symphony.flush()
        await symphony.refresh("Customer:c")
        assert symphony.entities.get("Customer:c") is customer
        customer.name = "alive"
        assert await agree(symphony, customer)
        large = symphony.entities.add(Customer(id="large", name="x" * 17_000_000))
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
        symphony.entities.remove(large)
        await symphony.flush()
        with pytest.raises(EntityNotFoundError):
            symphony.entities.get("Customer:large")


class TestAdding:
    async def test_a_part_given_twice_has_two_places(self, symphony: Symphony) -> None:
        """The second is a copy; untouched members of an extended slice stay the objects they are."""
        invoice = symphony.entities.add(Invoice(id="i"))
        line = Line("a")
        invoice.lines.extend([line, line])
        invoice.lines[1].text = "b"
        kept = invoice.lines[1]
        invoice.lines[::2] = [Line("c")]
        assert invoice.lines[1] is kept
        kept.text = "kept"
        assert [each.text for each in invoice.lines] == ["c", "kept"]
        assert await agree(symphony, invoice)
        with pytest.raises(ValueError, match="extended slice"):
            invoice.lines[::2] = []
        with pytest.raises(UnstorableValueError):
            invoice.lines.extend([Line("d"), object()])
        assert await agree(symphony, invoice)

    async def test_a_reference_to_what_cannot_be_added_is_refused_before_anything_changes(self, symphony: Symphony) -> None:
        """Neither the object nor the log has it."""
        customer, bad = symphony.entities.add(Customer(id="c")), Customer(id="bad")
        bad.__dict__["name"] = object()
        with pytest.raises(UnstorableValueError, match="Customer:bad"):
            customer.boss = bad
        with pytest.raises(UnstorableValueError):
            customer.friends.append(bad)
        assert customer.boss is None
        assert await agree(symphony, customer)

    async def test_foreign_objects_bring_their_entities_too(self, symphony: Symphony) -> None:
        """At the addition and at a comparison."""
        first, second = Customer(id="1"), Customer(id="2")
        thermometer = Thermometer("t")
        thermometer.degrees = first  # type: ignore[assignment]
        symphony.entities.add(thermometer)
        thermometer.readings.append(second)  # type: ignore[arg-type]
        symphony.entities.record(thermometer)
        assert {customer.id for customer in symphony.entities.all("Customer")} == {"1", "2"}

    async def test_a_task_of_an_ended_transaction_adds_nothing(self, symphony: Symphony) -> None:
        """The refusal comes before anything is done."""
        ended = asyncio.Event()

        async def late() -> None:
            await ended.wait()
            symphony.entities.add(Customer(id="late"))

        async with symphony.transaction("T"):
            task = asyncio.create_task(late())
        ended.set()
        with pytest.raises(TransactionEndedError):
            await task
        assert symphony.entities.find("Customer:late") is None

    async def test_a_subclass_without_a_declaration_is_refused(self, symphony: Symphony) -> None:
        """Its own fields would be lost; so is an object whose fields are not all set."""

        class Special(Customer):
            extra: int = 0

        with pytest.raises(EntityTypeError, match="decorate it with @entity"):
            symphony.entities.add(Special(id="s"))
        half = Customer.__new__(Customer)
        half.__dict__["id"] = "half"
        with pytest.raises(EntityTypeError, match="has no 'name' yet"):
            symphony.entities.add(half)

    async def test_a_removal_says_what_it_is_given(self, symphony: Symphony) -> None:
        """Name and data, in a block and outside, on one event."""
        for number in range(3):
            symphony.entities.add(Customer(id=str(number)))
        await symphony.flush()
        symphony.world.remove("Customer:0", event_name="Left", data=1)
        async with symphony.transaction("Gone"):
            symphony.world.remove("Customer:1", data=2)
        with symphony.world.recording("Swept", 3):
            symphony.world.remove("Customer:2")
        await symphony.flush()
        events = [(await symphony.log.read_entity(f"Customer:{number}"))[1:] for number in range(3)]
        assert [[(event.name, event.data) for event in each] for each in events] == [[("Left", 1)], [("Gone", 2)], [("Swept", 3)]]


class TestCounting:
    async def test_a_checkpoint_counts_what_its_position_holds(self, reopen: Opener) -> None:
        """While entities come and go beside it."""
        symphony = await reopen()
        done = False

        async def churn() -> None:
            number = 0
            while not done:
                number += 1
                symphony.entities.add(Customer(id=f"c{number}"))
                if number % 3 == 0:
                    symphony.entities.remove(f"Customer:c{number - 1}")
                if number % 5 == 0:
                    async with symphony.transaction("T"):
                        symphony.entities.add(Customer(id=f"t{number}"))
                await asyncio.sleep(0)

        task = asyncio.create_task(churn())
        for _ in range(15):
            await symphony.create_checkpoint()
            for _ in range(3):
                await asyncio.sleep(0)
        done = True
        await task
        for entry in await symphony.list_checkpoints():
            assert entry["entity_count"] == len(await symphony.at(entry["position"])), entry

    async def test_what_is_removed_is_let_go(self) -> None:
        """Objects, records and the memory log's states of deleted entities do not pile up."""
        async with Symphony({"memory_events": 100}) as symphony:
            references = []
            for number in range(400):
                customer = symphony.entities.add(Customer(id=str(number)))
                references.append(weakref.ref(customer))
                symphony.entities.remove(customer)
                await symphony.flush()
            del customer
            gc.collect()
            assert sum(reference() is not None for reference in references) < 5
            assert not symphony.world.removed
            base = symphony.log.base
            assert base is not None
            assert len(base.states) < 150

    @pytest.mark.exhaustive
    async def test_large_turns_do_not_hold_up_the_loop_in_one_piece(self, symphony: Symphony) -> None:
        """They leave in slices; a transaction stays whole."""
        customers = [symphony.entities.add(Customer(id=str(number))) for number in range(3000)]
        await symphony.flush()
        assert symphony.log.head == 3000
        assert len({event.transaction_id async for page in symphony.log.read() for event in page}) == 3
        async with symphony.transaction("All"):
            for customer in customers:
                customer.name = "x"
        assert len({event.transaction_id async for page in symphony.log.read(after=3000) for event in page}) == 1

    async def test_a_value_that_is_too_large_harms_nobody_else(self, symphony: Symphony) -> None:
        """Only its own entity is out of step."""
        good, large = symphony.entities.add(Customer(id="good")), symphony.entities.add(Customer(id="large"))
        await symphony.flush()
        good.name, large.name = "good", "x" * 17_000_000
        with pytest.raises(EntityOutOfStepError, match="Customer:large") as caught:
            await symphony.flush()
        assert isinstance(caught.value.__cause__, LimitExceededError)
        await symphony.world.flush(good)
        await symphony.refresh(large)
        assert (await symphony.at(symphony.log.head)).get(good)["name"] == "good"
