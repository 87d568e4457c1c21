"""Entering a change of a container without a search for its place does what the plain version does, which is `Mutation.enter_anywhere`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from symphony_es import Symphony, entity, part
from symphony_es.core.objects.mutation import Mutation
from symphony_es.errors import SymphonyError


@part
class Bolt:
    """A part with a list of its own."""

    sizes: list[Any] = field(default_factory=list)


@entity(type="FastEntryCrate")
class Crate:
    """Containers in fields, in each other, and in a part."""

    id: str = ""
    items: list[Any] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    marks: set[Any] = field(default_factory=set)
    bolt: Bolt = field(default_factory=Bolt)


VALUES = (0, "a", "é", None, 2.5, b"x", "surrogate \ud800", object(), ["in"], {"in": 1}, (1, 2))


def _change(crate: Crate, chance: random.Random) -> None:
    """One change, of which some are refused, and some are made past the methods."""
    value = chance.choice(VALUES)
    operations: list[Callable[[], Any]] = [
        lambda: crate.items.append(value),
        lambda: crate.notes.__setitem__(chance.choice(["k", "l", "ü", "\ud800"]), value),
        lambda: crate.marks.add(chance.choice([1, "m", (1, 2)])),
        lambda: crate.items.pop(),
        lambda: crate.notes.pop("k"),
        lambda: crate.bolt.sizes.append(value),
        lambda: setattr(crate, "items", [value, []]),
        lambda: crate.items[-1].append(value),
        lambda: setattr(crate, "bolt", Bolt()),
        lambda: list.append(crate.items, 7),
        lambda: dict.__setitem__(crate.notes, "past", 7),
        lambda: list.reverse(crate.items),
        lambda: crate.__dict__.__setitem__("notes", {"k": 1}),
    ]
    chance.choice(operations[:9] if chance.random() < 0.9 else operations[9:])()


async def _run(seed: int) -> tuple[list[Any], list[Any]]:
    """What a random program has recorded, and what was refused."""
    chance, refused = random.Random(seed), list[Any]()
    async with Symphony() as symphony:
        crate = symphony.entities.add(Crate(id="1"))
        await symphony.flush()
        taken = crate.items
        for step in range(40):
            try:
                if step % 9 == 8:
                    with symphony.world.recording("Packed"):
                        _change(crate, chance)
                        taken.append(step)
                else:
                    _change(crate, chance)
            except (SymphonyError, LookupError, AttributeError, TypeError) as error:
                refused.append((step, type(error), getattr(error, "path", None)))
        taken = crate.items
        try:
            await symphony.flush()
        except SymphonyError as error:
            refused.append(type(error))
        record = symphony.world.record_for("FastEntryCrate:1")
        recorded = [record.shadow, record.version, [(part.name, part.changes) for part in record.pending]]
        differing = await symphony.world.compare_objects(everything=True)
        refused += [error.path for error in differing]
        if differing:
            await symphony.refresh(crate)  # so that closing has nothing to say
        return recorded, refused


@pytest.mark.usefixtures("no_check_at_each_flush")
@pytest.mark.parametrize("seed", range(60))
def test_the_fast_entry_does_what_the_plain_one_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is recorded and the same is refused, whatever is changed, also past the methods and inside blocks."""
    fast = asyncio.run(_run(seed))
    monkeypatch.setattr(Mutation, "__enter__", Mutation.enter_anywhere)
    assert asyncio.run(_run(seed)) == fast
