"""References wherever they may stand come back as live objects, or are reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity, part, value
from symphony_es.core.objects.restorers import EntityRestorer, RestorationContext


@entity
class Target:
    id: str = ""


@value
class Pair:
    left: Any = None
    right: Any = None


@part
class Cell:
    held: Any = None


@entity
class Holder:
    id: str = ""
    held: Any = None


@dataclass
class Unhashable:
    """A class whose objects have no hash, as those of most dataclasses and pydantic models."""

    id: str


class UnhashableRestorer(EntityRestorer):
    entity_type = "Unhashable"  # type: ignore[assignment]

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """The object."""
        return Unhashable(**data)


SHAPES: dict[str, Callable[[Any], Any]] = {
    "itself": lambda target: target,
    "list": lambda target: [1, target],
    "dict": lambda target: {"a": target, 1: None},
    "tuple": lambda target: (1, target, target),
    "set": lambda target: {1, target},
    "part": lambda target: Cell(target),
    "value": lambda target: Pair(target, 1),
    "tuple in a tuple": lambda target: ((target, 1), 2),
    "tuple in a set": lambda target: {(1, target), (2, None)},
    "tuple in a tuple in a set": lambda target: {((target,), 1)},
    "value in a set": lambda target: {Pair(target, 1), Pair(1, 2)},
    "value in a tuple in a set": lambda target: {(Pair(1, target),)},
    "tuple in a value in a set": lambda target: {Pair((target,), target)},
    "set in a part in a list": lambda target: [Cell({(target,)})],
    "value in a value in a tuple": lambda target: (Pair(Pair(target)),),
}


def references_in(held: Any) -> list[EntityReference]:
    """What is no live object."""
    if isinstance(held, EntityReference):
        return [held]
    if isinstance(held, dict):
        return [found for item in held.values() for found in references_in(item)]
    if isinstance(held, (list, tuple, set)):
        return [found for item in held for found in references_in(item)]
    if isinstance(held, Pair):
        return [*references_in(held.left), *references_in(held.right)]
    return references_in(held.held) if isinstance(held, Cell) else []


class TestConnecting:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("way", ["resume", "load", "refresh", "past"])
    async def test_every_place_is_connected(self, reopen: Callable[[], Awaitable[Symphony]], shape: str, way: str) -> None:
        """By a resume, a load, a refresh and a look at the past; the state stays what it was."""
        symphony = await reopen()
        symphony.entities.add(Holder(id="h", held=SHAPES[shape](Target(id="t"))))
        await symphony.flush()
        before = (await symphony.past.state_of("Holder:h")).data
        if way != "refresh":
            symphony = await reopen()
        if way == "resume":
            assert (await symphony.resume()).complete
        elif way == "load":
            await symphony.entities.load("Holder:h")
        elif way == "refresh":
            await symphony.refresh("Holder:h")
        world: Any = symphony.entities if way != "past" else await (await symphony.at("latest")).objects()
        holder, target = world.get("Holder:h"), world.get("Target:t")
        assert references_in(holder.held) == []
        expected = SHAPES[shape](target)
        assert type(holder.held).__name__.removeprefix("Tracked").lower() == type(expected).__name__.lower()
        if not isinstance(expected, Cell) and shape != "set in a part in a list":
            assert holder.held == expected
        if way != "past":
            await symphony.flush()
            assert (await symphony.past.state_of("Holder:h")).data == before

    @pytest.mark.parametrize("shape", ["set", "tuple in a set", "value in a set", "tuple in a value in a set"])
    async def test_a_target_that_no_set_can_hold_stays_a_reference_and_is_reported(
        self, reopen: Callable[[], Awaitable[Symphony]], shape: str
    ) -> None:
        """Its class has no hash: the set keeps what it had, whole, and the report names the place."""
        symphony = await reopen()
        symphony.entities.add(Unhashable("u"))
        symphony.entities.add(Holder(id="h", held=SHAPES[shape](EntityReference("Unhashable", "u"))))
        symphony = await reopen()
        symphony.restore_manager.register_restorer(UnhashableRestorer())
        report = await symphony.resume()
        assert [(item.entity, item.path, item.target.key) for item in report.unresolved][:1] == [("Holder:h", ("held",), "Unhashable:u")]
        assert symphony.entities.get("Holder:h").held == SHAPES[shape](EntityReference("Unhashable", "u"))
        assert (await symphony.refresh("Holder:h")) == []
