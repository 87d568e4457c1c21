"""Objects of foreign classes beside each other: who is booked for a change, what a rollback puts back, and what a comparison costs."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import attrs
import pydantic
import pytest

from symphony_es import Symphony
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.errors import UnstorableValueError
from symphony_es.workflow import step
from tests.application import Customer


class PydanticDeed(pydantic.BaseModel):
    id: str
    status: str = "draft"
    lines: list[Any] = []


@dataclass
class DataclassDeed:
    id: str
    status: str = "draft"
    lines: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class SlottedDeed:
    id: str
    status: str = "draft"
    lines: list[Any] = field(default_factory=list)


@attrs.define
class AttrsDeed:
    id: str
    status: str = "draft"
    lines: list[Any] = attrs.field(factory=list)


class PlainDeed:
    def __init__(self, id: str) -> None:
        self.id = id
        self.status = "draft"
        self.lines: list[Any] = []


DEEDS = [PydanticDeed, DataclassDeed, SlottedDeed, AttrsDeed, PlainDeed]
kinds = pytest.mark.parametrize("kind", DEEDS)


async def last(symphony: Symphony, obj: Any) -> tuple[Any, ...]:
    """Name, actor, run and changed values of an object's last event."""
    version = (await symphony.history(obj))[-1]
    metadata = version.event.metadata
    return version.event.name, metadata.actor, metadata.run_id, [(change.where, change.after) for change in version.changes]


async def versions(symphony: Symphony, obj: Any) -> int:
    return len(await symphony.history(obj))


def hand(symphony: Symphony, how: str, obj: Any) -> Any:
    """The object, handed to the running block in one of the ways there are."""
    key = symphony.world.record_for(obj).key
    kind, identity = key.split(":")
    match how:
        case "get":
            return symphony.entities.get(kind, identity)
        case "get by key":
            return symphony.entities.get(key)
        case "find":
            return symphony.entities.find(key)
        case "all":
            return next(found for found in symphony.entities.all(kind) if found is obj)
        case "add":
            return symphony.entities.add(obj)
        case _:
            symphony.entities.record(obj)
            return obj


WAYS = ["get", "get by key", "find", "all", "add", "record"]


@pytest.mark.parametrize("how", WAYS)
@kinds
async def test_a_block_records_what_it_was_handed(symphony: Symphony, kind: Any, how: str) -> None:
    """In each of the ways to be handed an object, and for each kind of class; under the block's name and actor."""
    deed = symphony.entities.add(kind(id="a"))
    await symphony.flush()
    async with symphony.transaction("Signed", actor="ann"):
        hand(symphony, how, deed).status = "signed"
        deed.lines.append(1)
    assert await last(symphony, deed) == ("Signed", "ann", None, [("status", "signed"), ("lines[0]", 1)])


@pytest.mark.parametrize("how", WAYS)
@kinds
async def test_a_rollback_puts_back_what_its_block_was_handed_and_nothing_else(symphony: Symphony, kind: Any, how: str) -> None:
    """Another object, changed meanwhile by somebody else, stays as it is, and is booked on that one."""
    deed, other = symphony.entities.add(kind(id="a")), symphony.entities.add(kind(id="b"))
    await symphony.flush()

    async def bob() -> None:
        other.status = "bob was here"

    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", actor="ann"):
            hand(symphony, how if how != "all" else "get", deed).status = "signed"
            deed.lines += [1, 2]
            await asyncio.gather(bob())
            raise ZeroDivisionError
    assert (deed.status, deed.lines, other.status) == ("draft", [], "bob was here")
    with symphony.acting_as("bob"):
        await symphony.flush()
    name = f"{kind.__name__}Changed"
    assert await last(symphony, other) == (name, "bob", None, [("status", "bob was here")])
    assert await versions(symphony, deed) == 1


@pytest.mark.parametrize("inner", ["beside it", "inside it", "in a thread"])
@kinds
async def test_what_another_changes_is_never_booked_on_the_block(symphony: Symphony, kind: Any, inner: str) -> None:
    """Wherever the other's code runs: what the block was not handed is not its own, and `flush` there says who changed it."""
    deed, other = symphony.entities.add(kind(id="a")), symphony.entities.add(kind(id="b"))
    await symphony.flush()

    async def bob() -> None:
        if inner == "in a thread":
            await asyncio.to_thread(setattr, other, "status", "changed")
        else:
            other.status = "changed"
        with symphony.acting_as("bob", reason="letter"):
            await symphony.flush()

    async def ann() -> None:
        async with symphony.transaction("Signed", actor="ann", claim=[deed]):
            deed.status = "signed"
            if inner != "beside it":
                await bob()
            await asyncio.sleep(0)

    await asyncio.gather(ann(), *([bob()] if inner == "beside it" else []))
    assert await last(symphony, deed) == ("Signed", "ann", None, [("status", "signed")])
    assert await last(symphony, other) == (f"{kind.__name__}Changed", "bob", None, [("status", "changed")])


@pytest.mark.parametrize("ending", ["returns", "fails"])
@pytest.mark.parametrize("atomic", [False, True])
@kinds
async def test_a_step_is_booked_for_what_it_was_handed_alone(symphony: Symphony, kind: Any, atomic: bool, ending: str) -> None:
    """Also when it fails: then a plain step's change stays, as in entities, and an atomic one's is put back."""
    deed, other = symphony.entities.add(kind(id="a")), symphony.entities.add(kind(id="b"))
    others = [other]  # an atomic step is handed what its function names itself
    await symphony.flush()

    async def work() -> None:
        symphony.entities.get(kind.__name__, "a").status = "stepped"
        others[0].status = "not the step's"
        await symphony.flush()
        if ending == "fails":
            raise ZeroDivisionError

    @symphony.workflow
    async def flow() -> None:
        await step(work, atomic=atomic)

    with symphony.acting_as("starter"):
        handle = await symphony.workflows.start(flow)
    await handle.wait()
    name = f"{kind.__name__}Changed"
    assert await last(symphony, other) == (name, None, None, [("status", "not the step's")])
    if atomic and ending == "fails":
        assert (deed.status, await versions(symphony, deed)) == ("draft", 1)
    else:
        assert await last(symphony, deed) == (name, "starter", handle.id, [("status", "stepped")])


@kinds
async def test_nothing_is_lost_without_a_transaction(reopen: Any, kind: Any) -> None:
    """`flush`, a checkpoint and `close` record what has changed, each with the actor in force there or with none."""
    symphony = await reopen()
    deed = symphony.entities.add(kind(id="a"))
    await symphony.flush()
    deed.status = "flushed"
    await symphony.flush()
    assert await last(symphony, deed) == (f"{kind.__name__}Changed", None, None, [("status", "flushed")])
    deed.status = "named"
    with symphony.acting_as("bob"):
        await symphony.create_checkpoint()
    assert await last(symphony, deed) == (f"{kind.__name__}Changed", "bob", None, [("status", "named")])
    deed.status = "closed"
    symphony = await reopen()
    assert (await symphony.at("latest")).get(f"{kind.__name__}:a")["status"] == "closed"


@kinds
async def test_what_was_changed_before_a_block_is_not_the_blocks(symphony: Symphony, kind: Any) -> None:
    """It is found when the object is handed out, is in the log before the block's events, and stays when the block fails."""
    deed = symphony.entities.add(kind(id="a"))
    await symphony.flush()
    deed.status = "before"
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", actor="ann", claim=[deed]):
            deed.status = "within"
            raise ZeroDivisionError
    assert deed.status == "before"
    assert await last(symphony, deed) == (f"{kind.__name__}Changed", None, None, [("status", "before")])


@kinds
async def test_blocks_inside_blocks_book_each_its_own(symphony: Symphony, kind: Any) -> None:
    """What the outer was handed, the inner records and puts back too; what the inner was handed is the outer's after it."""
    deed, other = symphony.entities.add(kind(id="a")), symphony.entities.add(kind(id="b"))
    await symphony.flush()
    async with symphony.transaction("Outer", claim=[deed]):
        deed.status = "outer"
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Undone"):
                deed.status = "undone"
                raise ZeroDivisionError
        assert deed.status == "outer"
        async with symphony.transaction("Inner"):
            deed.status = "inner"
            symphony.entities.get(kind.__name__, "b").status = "inner"
        other.lines.append("outer again")
    assert [version.event.name for version in await symphony.history(deed)][1:] == ["Outer", "Inner"]
    assert [version.event.name for version in await symphony.history(other)][1:] == ["Inner", "Outer"]
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Outer"):
            async with symphony.transaction("Inner"):
                symphony.entities.get(kind.__name__, "b").status = "undone"
            raise ZeroDivisionError
    assert other.status == "inner"


@kinds
async def test_tasks_and_threads_of_a_block_hand_to_it(symphony: Symphony, kind: Any) -> None:
    """What they get is part of the block that they were started in."""
    symphony.entities.add(kind(id="a"))
    symphony.entities.add(kind(id="b"))
    await symphony.flush()

    async def in_a_task() -> None:
        symphony.entities.get(kind.__name__, "a").status = "task"

    def in_a_thread() -> None:
        symphony.entities.get(kind.__name__, "b").status = "thread"

    async with symphony.transaction("Both"):
        await asyncio.gather(in_a_task(), asyncio.to_thread(in_a_thread))
    for which, status in (("a", "task"), ("b", "thread")):
        assert await last(symphony, f"{kind.__name__}:{which}") == ("Both", None, None, [("status", status)])


async def test_of_an_object_that_two_blocks_were_handed_nobody_can_tell_whose_change_it_is(symphony: Symphony) -> None:
    """It is booked on nobody and kept; with `claim=` it is the claimant's. Handing it to the second books and claims nothing."""
    deed = symphony.entities.add(PlainDeed("a"))
    await symphony.flush()
    async with symphony.transaction("First", actor="ann") as _:
        symphony.entities.get("PlainDeed:a").status = "first"

        async def reader() -> None:
            async with symphony.transaction("Second", actor="bob"):
                assert symphony.entities.get("PlainDeed:a").status == "first"

        await asyncio.create_task(reader(), context=_empty())
    assert await last(symphony, deed) == ("PlainDeedChanged", None, None, [("status", "first")])

    looked, changed = asyncio.Event(), asyncio.Event()

    async def looks() -> None:
        async with symphony.transaction("Looked", actor="bob"):
            symphony.entities.get("PlainDeed:a")
            looked.set()
            await changed.wait()

    task = asyncio.create_task(looks())
    await looked.wait()
    async with symphony.transaction("Changed", actor="ann"):
        symphony.entities.get("PlainDeed:a").status = "shared"
    changed.set()
    await task
    assert await last(symphony, deed) == ("PlainDeedChanged", None, None, [("status", "shared")])

    looked.clear(), changed.clear()
    task = asyncio.create_task(looks())
    await looked.wait()
    async with symphony.transaction("Changed", actor="ann", claim=[deed]):
        deed.status = "claimed"
        changed.set()
        await task
    assert await last(symphony, deed) == ("Changed", "ann", None, [("status", "claimed")])


def _empty() -> Any:
    import contextvars

    return contextvars.Context()


@pytest.mark.parametrize("others", [10, 1000])
async def test_a_transaction_reads_what_it_was_handed_however_many_others_there_are(symphony: Symphony, others: int) -> None:
    """Captures are counted: the same for ten others as for a thousand, in a block, a step and a rollback."""
    count = 0

    class Counting(EntityRestorer):
        entity_type = "PlainDeed"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            raise NotImplementedError

        def capture(self, entity: Any) -> dict[str, Any]:
            nonlocal count
            count += 1
            return super().capture(entity)

    symphony.restore_manager.register_restorer(Counting())
    for number in range(others):
        symphony.entities.add(PlainDeed(str(number)))
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    count = 0
    async with symphony.transaction("Nothing"):
        customer.name = "x"
    assert count == 0
    async with symphony.transaction("One"):
        symphony.entities.get("PlainDeed:1").status = "x"
    assert count == 2
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Undone"):
            symphony.entities.get("PlainDeed:1").status = "y"
            raise ZeroDivisionError
    assert count == 4

    async def work() -> None:
        symphony.entities.get("PlainDeed:2").status = "x"

    @symphony.workflow
    async def flow() -> None:
        await step(work)

    await symphony.workflows.execute_workflow(flow, auto_checkpoint=True)
    assert count == 6
    symphony.entities.get("PlainDeed:3")
    await symphony.agents.create_agent(id="ada")
    assert count == 6


async def test_one_object_that_cannot_be_read_harms_no_other(symphony: Symphony) -> None:
    """The others' changes are durable, the error names the object, and when it is mended its change is recorded."""
    good, bad, gone = (symphony.entities.add(PlainDeed(name)) for name in ("a", "b", "c"))
    await symphony.flush()
    bad.status, good.status = object(), "changed"  # type: ignore[assignment]
    with pytest.raises(UnstorableValueError, match="PlainDeed:b"):
        await symphony.flush()
    assert await last(symphony, good) == ("PlainDeedChanged", None, None, [("status", "changed")])
    bad.status = "mended"
    await symphony.flush()
    assert await last(symphony, bad) == ("PlainDeedChanged", None, None, [("status", "mended")])
    async with symphony.transaction("Unrelated"):
        gone.status = object()  # type: ignore[assignment]
    gone.status = "draft"


class Fails:
    def __init__(self) -> None:
        self.id = "f"
        self.works = True

    @property
    def failing(self) -> bool:
        return not self.works


@pytest.mark.parametrize("error", [AttributeError, KeyError, RuntimeError, RecursionError])
async def test_a_capture_that_raises_anything_names_its_object_and_loses_nothing(symphony: Symphony, error: type[Exception]) -> None:
    """Whatever the application's `capture` raises is an UnstorableValueError with the cause chained; afterwards all is recorded."""

    class Raising(EntityRestorer):
        entity_type = "Fails"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            return Fails()

        def capture(self, entity: Any) -> dict[str, Any]:
            if entity.failing:
                raise error("no")
            return super().capture(entity)

    symphony.restore_manager.register_restorer(Raising())
    failing, customer = symphony.entities.add(Fails()), symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    failing.works, customer.name = False, "changed"
    with pytest.raises(UnstorableValueError, match="Fails:f") as raised:
        await symphony.flush()
    assert isinstance(raised.value.__cause__, error)
    assert (await symphony.at("latest")).get(customer)["name"] == "changed"
    failing.works = True
    await symphony.flush()


async def test_objects_are_read_without_the_worlds_lock(symphony: Symphony) -> None:
    """What reads them is the application's code: a thread that changes an entity meanwhile goes on, also when the reader waits for it."""
    customer = symphony.entities.add(Customer(id="c"))

    class Waiting(EntityRestorer):
        entity_type = "PlainDeed"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            raise NotImplementedError

        def capture(self, entity: Any) -> dict[str, Any]:
            thread = threading.Thread(target=lambda: setattr(customer, "name", customer.name + "x"))
            thread.start()
            thread.join(timeout=5)
            assert not thread.is_alive()
            return super().capture(entity)

    deed = symphony.entities.add(PlainDeed("a"))
    symphony.restore_manager.register_restorer(Waiting())
    await symphony.flush()
    deed.status = "flushed"
    await symphony.flush()
    async with symphony.transaction("Signed"):
        symphony.entities.get("PlainDeed:a").status = "signed"
    assert len(customer.name) >= 4
    assert (await last(symphony, deed))[0] == "Signed"


async def test_on_record_is_part_of_a_block_only_when_recorded(symphony: Symphony) -> None:
    """Then the rollback of the block puts it back, too; one that was not recorded is left alone."""
    kept, put_back = (symphony.entities.add(PlainDeed(name), capture="on_record") for name in "ab")
    await symphony.flush()
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[kept, put_back]):
            kept.status = put_back.status = "changed"
            symphony.entities.record(put_back)
            raise ZeroDivisionError
    assert (kept.status, put_back.status) == ("changed", "draft")
    await symphony.flush()
    assert await versions(symphony, kept) == 1
