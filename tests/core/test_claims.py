"""Many wait for one entity: each is called once, in the order in which they came, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.world import world as world_module
from symphony_es.core.world.world import World
from symphony_es.errors import EntityBusyError

MANY = 120


@entity
class Stock:
    """What many want of."""

    id: str
    left: int = 0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often a claim has begun to wait, over all claims."""
    counted: Counter[str] = Counter()
    wait = World._wait_for

    async def counting(self: World, *args: Any) -> None:
        counted["waits"] += 1
        await wait(self, *args)

    monkeypatch.setattr(World, "_wait_for", counting)
    return counted


async def taking(symphony: Symphony, stock: Stock, done: list[int], number: int) -> None:
    async with symphony.transaction("Taken", claim=[stock]):
        await asyncio.sleep(0)
        stock.left -= 1
        done.append(number)


async def test_each_is_called_once(symphony: Symphony, waits: Counter[str]) -> None:
    """A release calls one of those that wait, and not all of them: the work of n claims is n, and their order is kept."""
    stock = symphony.entities.add(Stock(id="tea", left=MANY))
    done: list[int] = []
    await asyncio.gather(*(taking(symphony, stock, done, number) for number in range(MANY)))
    assert (stock.left, done) == (0, list(range(MANY)))
    assert waits["waits"] < 2 * MANY


@pytest.mark.parametrize("which", ["first", "every other", "last", "all but the last"])
async def test_who_gives_up_holds_up_nobody(symphony: Symphony, which: str) -> None:
    """Claims that are cancelled while they wait, also right after they were called, pass their turn on."""
    stock = symphony.entities.add(Stock(id="tea", left=MANY))
    done: list[int] = []
    entered = asyncio.Event()
    leave = asyncio.Event()

    async def holding() -> None:
        async with symphony.transaction("Held", claim=[stock]):
            entered.set()
            await leave.wait()

    holder = asyncio.create_task(holding())
    await entered.wait()
    tasks = [asyncio.create_task(taking(symphony, stock, done, number)) for number in range(20)]
    await asyncio.sleep(0)
    leave.set()
    await holder  # the first one has been called by now
    dropped = {"first": tasks[:1], "every other": tasks[::2], "last": tasks[-1:], "all but the last": tasks[:-1]}[which]
    for task in dropped:
        task.cancel()
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert done == [number for number in range(20) if ended[number] is None]
    assert {number for number in range(20) if tasks[number] not in dropped} <= set(done)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The waits that have begun, in their order: each looks at who holds when a test has it look, and at no time by itself."""
    begun: list[Any] = []
    begin = world_module._Patience._begin

    def kept(self: Any) -> None:
        if self not in begun:
            begun.append(self)
        begin(self)

    monkeypatch.setattr(world_module._Patience, "_begin", kept)
    return begun


async def test_a_queue_that_moves_is_waited_in(symphony: Symphony, patient: list[Any]) -> None:
    """The time limit is one for who holds: an overloaded service is slow, and fails nothing of what has waited long."""
    stock = symphony.entities.add(Stock(id="tea", left=3))
    await symphony.flush()
    taken: list[int] = []
    both_wait = asyncio.Event()

    async def take(number: int) -> None:
        async with symphony.transaction(f"Taken{number}", claim=[stock]):
            taken.append(number)
            await both_wait.wait()
            if number == 1:
                patient[1]._look()  # the third one has waited for its time, though not for one transaction
                await asyncio.sleep(0)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(take(number))
            await asyncio.sleep(0)
        both_wait.set()
    assert taken == [0, 1, 2]


async def test_who_does_not_end_is_named(symphony: Symphony, patient: list[Any]) -> None:
    """A wait for one transaction that hangs ends with an error that says which one, and for how long; those behind it go on."""
    stock = symphony.entities.add(Stock(id="tea", left=3))
    hangs = asyncio.Event()

    async def hang() -> None:
        async with symphony.transaction("Hanging", claim=[stock]):
            await hangs.wait()

    async def wait() -> None:
        async with symphony.transaction("Waiting", claim=[stock]):
            stock.left -= 1

    hanging = asyncio.create_task(hang())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    patient[0]._look()
    with pytest.raises(EntityBusyError, match="'Hanging', for which the transaction 'Waiting' has waited 60 s") as refused:
        await waiting
    assert (refused.value.entity, refused.value.holder) == ("Stock:tea", "Hanging")
    hangs.set()
    await hanging
    async with symphony.transaction("Later", claim=[stock]):
        stock.left -= 1
    assert stock.left == 2


async def test_calls_outside_of_transactions_pass_the_turn_on(symphony: Symphony) -> None:
    """A claim outside of a transaction waits until the entity is free, and takes nothing: whoever waits behind it comes next."""
    stock = symphony.entities.add(Stock(id="tea", left=MANY))
    done: list[int] = []
    entered = asyncio.Event()

    async def holding() -> None:
        async with symphony.transaction("Held", claim=[stock]):
            entered.set()
            for _ in range(5):
                await asyncio.sleep(0)

    holder = asyncio.create_task(holding())
    await entered.wait()
    waiting = [
        asyncio.create_task(symphony.world.claim(stock) if number % 3 else taking(symphony, stock, done, number)) for number in range(12)
    ]
    await asyncio.wait_for(asyncio.gather(holder, *waiting), 30)
    assert done == [0, 3, 6, 9]
    assert not symphony.world._claimants
    assert not symphony.world._called


async def test_a_circle_that_comes_about_later_is_found(symphony: Symphony) -> None:
    """Two tasks of one transaction: one waits for what another transaction holds, which waits for what the other task then takes."""
    mine = symphony.entities.add(Stock(id="mine"))
    theirs = symphony.entities.add(Stock(id="theirs"))
    held, queued, waits = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def third() -> None:
        async with symphony.transaction("Third", claim=[mine]):
            held.set()
            await waits.wait()

    async def second() -> None:
        async with symphony.transaction("Second", claim=[theirs]):
            await queued.wait()
            waits.set()
            await symphony.world.claim(mine)

    async def first() -> None:
        await held.wait()
        async with symphony.transaction("First"):
            taken = asyncio.create_task(symphony.world.claim(mine))  # before `second` waits for it
            other = asyncio.create_task(symphony.world.claim(theirs))
            while len(symphony.world._claimants) < 2:
                await asyncio.sleep(0)
            queued.set()
            await asyncio.gather(taken, other)

    ended = await asyncio.wait_for(asyncio.gather(third(), second(), first(), return_exceptions=True), 30)
    assert sum(isinstance(error, EntityBusyError) for error in ended) == 1


class Ledge:
    """Tracks nothing: an atomic step waits for transactions that were handed it, whether they claim it or not."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.books = 0


async def until_waiting(symphony: Symphony, count: int) -> None:
    """Let the other tasks go on until so many claims wait."""
    while sum(map(len, symphony.world._claimants.values())) < count:
        await asyncio.sleep(0)


@pytest.mark.parametrize("ending", ["ends well", "fails"])
@pytest.mark.parametrize("who", ["transactions", "calls outside"])
async def test_who_waits_behind_an_atomic_step_that_waits_for_a_reader(symphony: Symphony, who: str, ending: str) -> None:
    """The object is free, and only the step has to wait for the reader: those behind it go on. The reader's end calls the step."""
    ledge = symphony.entities.add(Ledge("a"))
    await symphony.flush()
    done: list[str] = []
    read, leave, close = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def reading() -> None:
        async with symphony.transaction("Reading"):
            symphony.entities.get("Ledge:a")
            read.set()
            await close.wait()
            done.append("reader")
            if ending == "fails":
                raise ValueError

    async def holding() -> None:
        async with symphony.transaction("Held", claim=[ledge]):
            await leave.wait()

    async def stepping(name: str) -> None:
        async with symphony.world.transaction(name, claim=[ledge], alone=True):
            done.append(name)

    async def claiming(number: int) -> None:
        if who == "calls outside":
            await symphony.world.claim(ledge)
            done.append(f"claim {number}")
            return
        async with symphony.transaction("Claimed", claim=[ledge]):
            await asyncio.sleep(0)
            done.append(f"claim {number}")

    async with asyncio.timeout(10):
        reader = asyncio.create_task(reading())
        await read.wait()
        holder = asyncio.create_task(holding())
        await asyncio.sleep(0)
        steps = [asyncio.create_task(stepping(f"Step{number}")) for number in range(2)]
        await until_waiting(symphony, 2)
        claims = [asyncio.create_task(claiming(number)) for number in range(3)]
        await until_waiting(symphony, 5)
        leave.set()
        await asyncio.gather(holder, *claims)
        assert done == ["claim 0", "claim 1", "claim 2"]
        close.set()
        await asyncio.gather(reader, *steps, return_exceptions=True)
    assert done[3:] == ["reader", "Step0", "Step1"]
    assert not symphony.world._claimants
    assert not symphony.world._called


@pytest.mark.parametrize("first_claims", [False, True])
async def test_a_circle_by_a_reader_behind_another_is_found(symphony: Symphony, *, first_claims: bool) -> None:
    """A step waits for two others, the second of which waits for what it has: whoever closes the circle is told at once."""
    ledge = symphony.entities.add(Ledge("a"))
    stock = symphony.entities.add(Stock(id="tea"))
    await symphony.flush()
    read, has, close = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def reading(*, then_claim: bool) -> None:
        async with symphony.transaction("Reading"):
            symphony.entities.get("Ledge:a")
            read.set()
            if then_claim:
                await has.wait()
                await symphony.world.claim(stock)
            elif first_claims:
                await symphony.world.claim(ledge)
            await close.wait()

    async def stepping() -> None:
        async with symphony.world.transaction("Step", claim=[stock], alone=True):
            has.set()
            await until_waiting(symphony, 1)
            await symphony.world.claim(ledge)

    async with asyncio.timeout(10):
        first = asyncio.create_task(reading(then_claim=False))
        await read.wait()
        second = asyncio.create_task(reading(then_claim=True))
        with pytest.raises(EntityBusyError, match="is what it waits for"):
            await stepping()
        close.set()
        await asyncio.gather(first, second)
