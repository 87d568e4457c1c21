"""What an open block has claimed or changed: nobody else takes nodes from there, and what is refused leaves nothing open.

What is in the hand meanwhile does not disturb a rollback.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import EntityBusyError, UnstorableValueError
from tests.core.shadowing import Crate, Parcel, states_agree


class Ended(Exception):
    """Ends a block."""


CHANGES: dict[str, Callable[[Crate], Any]] = {
    "rename a key": lambda crate: crate.named.__setitem__("z", crate.named.pop("p")),
    "insert": lambda crate: crate.parcels.insert(0, Parcel()),
    "field of a part": lambda crate: setattr(crate.named["p"], "weight", 7),
    "list of a part": lambda crate: crate.named["p"].notes.append([1]),
    "replace": lambda crate: setattr(crate, "named", {"p": Parcel(weight=9)}),
}
TAKE: dict[str, Callable[[Crate], Any]] = {
    "dict": lambda crate: crate.named,
    "list": lambda crate: crate.parcels,
    "part": lambda crate: crate.parcels[-1],
    "free list with a part": lambda crate: [crate.parcels[-1]],
    "free part with a dict": lambda crate: Parcel(notes=[crate.named]),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("beside", [False, True], ids=["around", "beside"])
@pytest.mark.parametrize("ends_well", [False, True], ids=["rolled back", "ends"])
@pytest.mark.parametrize("take", TAKE)
@pytest.mark.parametrize("change", CHANGES)
async def test_nodes_of_what_an_inner_block_has_changed_are_not_taken(*, change: str, take: str, ends_well: bool, beside: bool) -> None:
    """The block around it, or one beside it, gets a copy; however the inner block ends, object, shadow and fold agree."""
    async with Symphony() as symphony:
        crate = symphony.entities.add(Crate(id="a", named={"p": Parcel(weight=1)}, parcels=[Parcel(weight=2)]))
        other = symphony.entities.add(Crate(id="b"))
        changed, go_on = asyncio.Event(), asyncio.Event()

        async def inner() -> None:
            async with symphony.transaction("Inner"):
                CHANGES[change](crate)
                changed.set()
                await go_on.wait()
                if not ends_well:
                    raise Ended

        async def takes() -> None:
            async with symphony.transaction("Beside"):
                other.top = TAKE[take](crate)

        async with symphony.transaction("Outer"):
            task = asyncio.create_task(inner())
            await changed.wait()
            if beside:
                await takes()
            else:
                other.top = TAKE[take](crate)
            go_on.set()
            with contextlib.suppress(Ended):
                await task
            crate.number += 1
            crate.parcels.append(1)
        await states_agree(symphony)


IN_THE_HAND: dict[str, Callable[[list[Any]], Any]] = {
    "as it was": lambda hand: None,
    "shorter": lambda hand: hand.pop(0),
    "longer": lambda hand: hand.insert(0, Parcel(weight=8)),
    "other order": lambda hand: hand.reverse(),
    "members exchanged": lambda hand: hand.__setitem__(slice(None), [hand[-1], *hand[:-1]]),
    "member changed": lambda hand: hand[0].notes.append(1),
    "emptied": lambda hand: hand.clear(),
}


@pytest.mark.parametrize("elsewhere", [None, "outside", "inside"])
@pytest.mark.parametrize("in_hand", IN_THE_HAND)
async def test_what_left_its_place_in_a_block_is_as_it_was_after_a_rollback(*, in_hand: str, elsewhere: str | None) -> None:
    """Whatever became of the nodes in the hand: changed, or put into another entity, in the block or outside of it."""
    async with Symphony() as symphony:
        crate = symphony.entities.add(
            Crate(id="a", parcels=[Parcel(weight=1), Parcel(weight=2), [3]], named={"p": Parcel(weight=4), "q": [5]})
        )
        other = symphony.entities.add(Crate(id="b"))
        await symphony.flush()
        before = symphony.world.records["Crate:a"].shadow
        assert before is not None
        before = copy.deepcopy(before)
        changed, go_on = asyncio.Event(), asyncio.Event()
        hand: list[Any] = []

        async def block() -> None:
            async with symphony.transaction("Block"):
                try:
                    hand.append(use(crate, other))
                finally:
                    changed.set()
                await go_on.wait()
                raise Ended

        def use(crate: Crate, other: Crate) -> list[Any]:
            held = crate.parcels
            crate.named["p"].inside = {"x": 1}
            crate.parcels.append(crate.named)
            crate.parcels[0].weight = 9
            del crate.parcels[0:1]
            crate.parcels.append(7)
            crate.parcels = []
            if elsewhere == "inside":
                other.top = held
            IN_THE_HAND[in_hand](held)
            return held

        task = asyncio.create_task(block())
        await changed.wait()
        if elsewhere == "outside":
            other.top = hand[0]
        go_on.set()
        with pytest.raises(Ended):
            await task
        assert symphony.world.records["Crate:a"].shadow == before
        await states_agree(symphony)
        crate.parcels.append(1)
        crate.named["p"].weight = 5
        await states_agree(symphony)


async def test_a_refused_record_leaves_no_transaction_open() -> None:
    """What another block claims, or cannot be stored, is refused; afterwards a resume finds no open transaction."""
    async with Symphony() as symphony:
        crate = symphony.entities.add(Crate(id="a"))
        symphony.entities.add(Crate(id="b"))
        claimed, go_on = asyncio.Event(), asyncio.Event()

        async def claims() -> None:
            async with symphony.transaction("Claimed"):
                crate.number = 1
                claimed.set()
                await go_on.wait()

        task = asyncio.create_task(claims())
        await claimed.wait()
        with pytest.raises(EntityBusyError):
            symphony.entities.record(crate, "Looked")
        with pytest.raises(UnstorableValueError):
            symphony.entities.record("Crate:b", "Looked", data=object())
        go_on.set()
        await task
        assert (await symphony.resume()).complete
        await states_agree(symphony)


async def test_a_refused_record_inside_a_block_leaves_the_block_as_it_was() -> None:
    """The block goes on, and its event is appended; the entity that was refused is not its own."""
    async with Symphony() as symphony:
        crate, other = symphony.entities.add(Crate(id="a")), symphony.entities.add(Crate(id="b"))
        claimed, go_on = asyncio.Event(), asyncio.Event()

        async def inner() -> None:
            async with symphony.transaction("Inner"):
                crate.number = 1
                claimed.set()
                await go_on.wait()

        async with symphony.transaction("Outer"):
            other.number = 2
            task = asyncio.create_task(inner())
            await claimed.wait()
            with pytest.raises(EntityBusyError):
                symphony.entities.record(crate, "Looked")
            other.number = 3
            go_on.set()
            await task
        assert [version.event.name for version in await symphony.history(other)][1:] == ["Outer"]
        await states_agree(symphony)
