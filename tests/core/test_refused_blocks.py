"""What an open block has claimed or changed: nobody else takes nodes from there, and what is refused leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
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
