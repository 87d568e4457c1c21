"""What a transaction says and what it gives back, and recording behind another one's claim."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import ConfigurationError


@entity
class Counted:
    id: str = ""
    n: int = 0


async def test_changes_and_data_are_one_event(symphony: Symphony) -> None:
    """And the block gives the position and the versions of what was appended; what it was given is a copy."""
    one, other = symphony.entities.add(Counted(id="a")), symphony.entities.add(Counted(id="b"))
    await symphony.flush()
    data: dict[str, Any] = {"why": ["x"]}
    async with symphony.transaction("Moved", data=data) as moved:
        one.n = 1
        other.n = 2
        data["why"].append("y")
        assert moved.position is None
        assert moved.versions == {}
    events = await symphony.log.read_entity("Counted:a")
    assert (events[-1].name, events[-1].data) == ("Moved", {"why": ["x"]})
    assert moved.position == symphony.log.head == 4
    assert moved.versions == {"Counted:a": 2, "Counted:b": 2}


async def test_data_that_no_event_can_say_is_not_lost(symphony: Symphony) -> None:
    """A block without a change refuses; one that fails has no position."""
    one = symphony.entities.add(Counted(id="a"))
    await symphony.flush()
    with pytest.raises(ConfigurationError, match="nothing changed"):
        async with symphony.transaction("Moved", data={"k": 1}):
            pass
    async with symphony.transaction("Moved") as nothing:
        pass
    assert (nothing.position, nothing.versions) == (None, {})
    with pytest.raises(KeyError):
        async with symphony.transaction("Moved", data={"k": 1}) as failed:
            one.n = 1
            raise KeyError
    assert (failed.position, failed.versions, one.n) == (None, {}, 0)


async def test_a_name_is_not_needed_and_with_says_what_to_write(symphony: Symphony) -> None:
    """Its events are named by their types then; acting_as is entered either way."""
    one = symphony.entities.add(Counted(id="a"))
    async with symphony.transaction(actor="ann"):
        one.n = 1
    async with symphony.acting_as("bob"):
        one.n = 2
    await symphony.flush()
    told = [(event.name, event.metadata.actor) for event in await symphony.log.read_entity("Counted:a")]
    assert told == [("CountedCreated", None), ("CountedChanged", "ann"), ("CountedChanged", "bob")]
    with pytest.raises(ConfigurationError, match="async with"), symphony.transaction("Moved"):
        pass


async def test_a_record_queues_behind_anothers_claim(symphony: Symphony) -> None:
    """In the order of the calls, after the block's own event, and without a claim of its own."""
    one = symphony.entities.add(Counted(id="a"))
    await symphony.flush()
    inside = asyncio.Event()

    async def block() -> None:
        async with symphony.transaction("Moved", claim=[one]):
            inside.set()
            for _ in range(5):
                await asyncio.sleep(0)
            one.n = 1

    task = asyncio.create_task(block())
    await inside.wait()
    await asyncio.gather(*(symphony.entities.record_when_free(one, f"Said{number}", {"n": number}) for number in range(5)), task)
    names = [event.name for event in await symphony.log.read_entity("Counted:a")]
    assert names == ["CountedCreated", "Moved", *(f"Said{number}" for number in range(5))]
