"""Blocks that end in another context than they began in, or before a block inside them: nothing of them is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import TransactionEndedError


@entity
class Tally:
    id: str = ""
    number: int = 0


Block = Callable[[Symphony], Any]

BLOCKS: dict[str, Block] = {
    "acting_as": lambda symphony: symphony.acting_as("ghost"),
    "transaction": lambda symphony: symphony.transaction("Haunted", actor="ghost"),
}


@contextlib.asynccontextmanager
async def as_async(block: Any) -> AsyncIterator[None]:
    async with block:
        yield


async def generator(block: Any) -> AsyncIterator[int]:
    async with block:
        yield 1
        yield 2


async def broken_off(block: Any) -> None:
    """The loop's hook closes the generator in a task of its own."""
    async for _ in generator(block):
        break
    gc.collect()
    await asyncio.sleep(0.01)


async def closed_by_another_task(block: Any) -> None:
    begun = generator(block)
    await anext(begun)
    await asyncio.create_task(begun.aclose())  # type: ignore[attr-defined]


async def read_to_the_end_by_another_task(block: Any) -> None:
    begun = generator(block)
    await anext(begun)

    async def rest() -> None:
        async for _ in begun:
            pass

    await asyncio.create_task(rest())


async def entered_by_another_task(block: Any) -> None:
    stack = contextlib.AsyncExitStack()
    await asyncio.create_task(stack.enter_async_context(as_async(block)))
    await stack.aclose()


WAYS = (broken_off, closed_by_another_task, read_to_the_end_by_another_task, entered_by_another_task)


async def actor_of_a_change(symphony: Symphony, tally: Tally) -> str | None:
    tally.number += 1
    await symphony.flush()
    return (await symphony.history(tally))[-1].event.metadata.actor


@pytest.fixture
async def tally(symphony: Symphony) -> Tally:
    made = symphony.entities.add(Tally(id="1"))
    await symphony.flush()
    return made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
class TestLeftElsewhere:
    async def test_the_next_change_is_nobodys(
        self, symphony: Symphony, tally: Tally, block: Block, way: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Who the block named did not make it."""
        await way(block(symphony))
        assert await actor_of_a_change(symphony, tally) is None

    async def test_a_task_started_afterwards_is_outside(
        self, symphony: Symphony, tally: Tally, block: Block, way: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Also where nothing has read the context since the block ended, so that the task inherits it as it was."""
        await way(block(symphony))
        assert await asyncio.create_task(actor_of_a_change(symphony, tally)) is None

    async def test_the_block_around_counts_again(
        self, symphony: Symphony, tally: Tally, block: Block, way: Callable[[Any], Awaitable[None]]
    ) -> None:
        """It is still open, and what it says holds until its end."""
        with symphony.acting_as("alice"):
            await way(block(symphony))
            assert await actor_of_a_change(symphony, tally) == "alice"
        assert await actor_of_a_change(symphony, tally) is None


async def test_a_block_may_end_before_the_one_inside_it(symphony: Symphony, tally: Tally) -> None:
    """The inner one counts until its own end, and nothing comes back then."""
    begun = generator(symphony.acting_as("ghost"))
    await anext(begun)
    with symphony.acting_as("alice"):
        await begun.aclose()  # type: ignore[attr-defined]
        assert await actor_of_a_change(symphony, tally) == "alice"
    assert await actor_of_a_change(symphony, tally) is None


async def test_a_task_started_inside_keeps_what_it_was_told(symphony: Symphony) -> None:
    """It was started on that person's behalf, wherever the block ends; of a transaction it learns that it is over."""
    ended = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def late(tally: Tally) -> str | None:
        await ended.wait()
        return await actor_of_a_change(symphony, tally)

    async def begin(block: Any, tally: Tally) -> AsyncIterator[int]:
        async with block:
            tasks.append(asyncio.create_task(late(tally)))
            yield 1

    tallies = [symphony.entities.add(Tally(id=str(number))) for number in range(3)]
    for block, tally in zip(BLOCKS.values(), tallies, strict=False):
        begun = begin(block(symphony), tally)
        await anext(begun)
        await asyncio.create_task(begun.aclose())  # type: ignore[attr-defined]
    with symphony.acting_as("carol"):
        tasks.append(asyncio.create_task(late(tallies[2])))
    ended.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert (told[0], type(told[1]), told[2]) == ("ghost", TransactionEndedError, "carol")
