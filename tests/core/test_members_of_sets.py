"""What a set may hold is decided in one place, whichever way it comes in: what is appended can be rewound, forked and read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity, value
from symphony_es.core.objects.restorers import restore_manager
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, check_change
from symphony_es.events.values import Tagged


@value
class Weight:
    of: Any = None


@entity
class Bag:
    id: str = ""
    members: set[Any] = field(default_factory=set)
    deep: Any = None


@dataclass
class Sack:
    id: str
    members: set[Any] = field(default_factory=set)


class SackRestorer(EntityRestorer):
    entity_type = "Sack"
    restored_class = Sack

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return Sack(**data)


@pytest.fixture(autouse=True)
def restorer() -> Any:
    restore_manager.register_restorer(SackRestorer(), replace=True)
    yield
    restore_manager.unregister_restorer("Sack")


UNEQUAL: dict[str, Callable[[], Any]] = {
    "float": lambda: math.nan,
    "Decimal": lambda: Decimal("NaN"),
    "float in a tuple": lambda: (1, math.nan),
    "Decimal in tuples": lambda: ((Decimal("NaN"),),),
    "float in a value": lambda: Weight(math.nan),
    "Decimal in a value": lambda: Weight((Decimal("NaN"),)),
}


@pytest.mark.parametrize("make", UNEQUAL.values(), ids=UNEQUAL)
class TestWhatDoesNotEqualItself:
    async def test_a_tracked_set_refuses_it(self, symphony: Symphony, make: Callable[[], Any]) -> None:
        """At once, by every way in; the set is as it was."""
        bag = symphony.entities.add(Bag(id="1", members={1}))
        ways: list[Callable[[], Any]] = [
            lambda: bag.members.add(make()),
            lambda: bag.members.update([make()]),
            lambda: setattr(bag, "members", {make()}),
            lambda: setattr(bag, "deep", {"a": ({make()},)}),
            lambda: symphony.entities.add(Bag(id="2", members={make()})),
        ]
        for way in ways:
            with pytest.raises(UnstorableValueError):
                way()
        assert bag.members == {1}
        await symphony.flush()
        assert (await symphony.at("latest")).get(bag) == {"id": "1", "members": {1}, "deep": None}

    async def test_an_adopted_set_refuses_it(self, symphony: Symphony, make: Callable[[], Any]) -> None:
        """When it is compared, and nothing of it is appended."""
        sack = symphony.entities.add(Sack("1"))
        await symphony.flush()
        head = symphony.log.head
        sack.members.add(make())
        with pytest.raises(UnstorableValueError, match="Sack:1"):
            await symphony.flush()
        assert symphony.log.head == head
        sack.members.clear()


async def test_what_was_appended_can_be_rewound_and_forked(tmp_path: Path) -> None:
    """Also over a removal, where the whole set is written at once."""
    async with Symphony({"state_dir": str(tmp_path / "state")}, persistence_enabled=True) as symphony:
        sack = symphony.entities.add(Sack("1"))
        await symphony.flush()
        for member in (1, Decimal("Infinity"), (1, "a"), math.inf):
            sack.members.add(member)
        checkpoint = await symphony.create_checkpoint("full")
        symphony.entities.remove("Sack:1")
        await symphony.flush()
        await symphony.resume_from_checkpoint(checkpoint)
        assert symphony.entities.get("Sack:1").members == {1, Decimal("Infinity"), (1, "a"), math.inf}
        await symphony.fork(at=checkpoint, into=str(tmp_path / "fork"))


@pytest.mark.parametrize(
    "member", [math.nan, Decimal("NaN"), (math.nan,), Tagged("value", "m:V", {"of": math.nan}), Tagged("part", "m:P", {})]
)
def test_writers_and_readers_refuse_the_change(member: Any) -> None:
    """Both check each change in one place."""
    with pytest.raises(UnstorableValueError):
        check_change((ADD, ("members",), member))
