"""Random logs: entities that are deleted and made again, lists whose items move, transactions, rewinds, forks, equal times."""

from __future__ import annotations

import contextlib
import random
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from symphony_es import Symphony, entity, part, value
from symphony_es.errors import ConcurrencyError, EntityExistsError, PositionInsideTransactionError

__all__ = ["ACTORS", "NAMES", "World", "opened", "shape"]

ACTORS = ("ann", "bob", "é'; DROP TABLE audit--")
NAMES = ("same", "é b", "[x]", None)
BEGIN_NS = 1_790_000_000_000_000_000


@part
class PastPart:
    """Something that belongs to one entity."""

    v: Any = 0
    inner: list[Any] = field(default_factory=list)


@value
class PastValue:
    """Something that is only a value."""

    x: Any = 0


@entity
class PastThing:
    """An entity with one of each kind."""

    id: str = ""
    n: Any = 0
    text: str = ""
    items: list[Any] = field(default_factory=list)
    table: dict[Any, Any] = field(default_factory=dict)
    members: set[Any] = field(default_factory=set)
    other: Any = None


def opened(directory: Path, *, read_only: bool = False) -> Symphony:
    """A Symphony over a directory."""
    return Symphony({"state_dir": str(directory)}, persistence_enabled=True, read_only=read_only)


class World:
    """A log that is made at random, and what its live objects held at some positions.

    Attributes:
        seen: by position, the states of the live entities there, by key.
        checkpoints: ids, with the position each names.
    """

    def __init__(self, symphony: Symphony, chance: random.Random) -> None:
        self.symphony = symphony
        self.chance = chance
        self.seen: dict[int, dict[str, dict[str, Any]]] = {}
        self.checkpoints: list[tuple[str, str | None, int]] = []
        self.rewinds = 0
        self._ticks = 0
        if chance.random() < 0.6:  # else the clock's own times
            symphony.log._writer._clock_ns = self._tick  # type: ignore[union-attr]

    def _tick(self) -> int:
        """Times that often are equal, within a microsecond too."""
        self._ticks += self.chance.choice([0, 0, 0, 1, 999, 1_000, 1_000_000_007])
        return BEGIN_NS + self._ticks

    async def work(self, steps: int) -> None:
        """Do so many things."""
        chance, symphony = self.chance, self.symphony
        for _ in range(steps):
            kind = chance.random()
            if kind < 0.66:
                with symphony.acting_as(chance.choice(ACTORS)):
                    self._change()
                if chance.random() < 0.6:
                    await self._look()
            elif kind < 0.82:
                await self._transaction()
            elif kind < 0.92:
                name = chance.choice(NAMES)
                await symphony.flush()
                position = symphony.log.head
                self.checkpoints.append((await symphony.create_checkpoint(name), name, position))
            else:
                await self._rewind()
        await self._look()

    async def _look(self) -> None:
        await self.symphony.flush()
        self.seen[self.symphony.log.head] = {
            f"PastThing:{thing.id}": {
                "length": len(thing.items),
                "keys": sorted(thing.table, key=repr),
                "members": set(thing.members),
                "text": thing.text,
            }
            for thing in self.symphony.entities.all("PastThing")
        }

    async def _transaction(self) -> None:
        chance = self.chance
        try:
            async with self.symphony.transaction(chance.choice(["Bought", "Sold"]), actor=chance.choice(ACTORS)):
                for _ in range(chance.randrange(1, 5)):
                    self._change()
                if chance.random() < 0.1:
                    raise KeyError
        except KeyError:
            pass

    async def _rewind(self) -> None:
        await self.symphony.flush()
        head = self.symphony.log.head
        if self.checkpoints and self.chance.random() < 0.7:
            to: Any = f"id:{self.chance.choice(self.checkpoints)[0]}"
        else:
            to = self.chance.randint(max(head - 12, 0), head)
        try:
            await self.symphony.rewind(to)
        except (PositionInsideTransactionError, ConcurrencyError):
            return
        self.rewinds += 1

    # -- changes ------------------------------------------------------------------------------------------------------------

    def _value(self, depth: int = 0) -> Any:
        chance = self.chance
        kind = chance.random()
        if kind < 0.15 and depth < 2:
            return [self._value(depth + 1) for _ in range(chance.randrange(3))]
        if kind < 0.3 and depth < 2:
            return {chance.choice(["a", "b c", 1, -1]): self._value(depth + 1) for _ in range(chance.randrange(3))}
        if kind < 0.38:
            return PastValue(chance.randrange(3))
        if kind < 0.44 and not depth:
            return PastPart(chance.randrange(3), [1, 2])
        return chance.choice([0, 1, True, None, "x", 1.0, (1, "a"), datetime(2020, 1, 1, tzinfo=UTC)])

    def _change(self) -> None:
        chance, entities = self.chance, self.symphony.entities
        things: list[Any] = entities.all("PastThing")
        if not things or chance.random() < 0.12:
            name = str(chance.randrange(5))
            new = PastThing(id=name, items=[self._value() for _ in range(chance.randrange(4))], table={"k": [1]}, members={1})
            with contextlib.suppress(EntityExistsError):  # it is there, or was removed in this transaction
                entities.add(new)
            return
        thing = chance.choice(things)
        if chance.random() < 0.05:
            entities.remove(thing)
        elif chance.random() < 0.55:
            self._move(thing.items)
        else:
            self._set(thing, things)

    def _move(self, items: list[Any]) -> None:
        """Change a list; what stands at an index comes from anywhere."""
        chance = self.chance
        kind, length = chance.randrange(11), len(items)
        if kind == 0 or not length:
            items.append(self._value())
        elif kind == 1:
            items.insert(chance.randrange(length + 1), self._value())
        elif kind == 2:
            items.pop(chance.randrange(length))
        elif kind == 3:
            begin = chance.randrange(length)
            items[begin : begin + chance.randrange(3)] = [self._value() for _ in range(chance.randrange(3))]
        elif kind == 4:
            items.sort(key=lambda item: (type(item).__name__, str(item)), reverse=chance.random() < 0.5)
        elif kind == 5:
            items.reverse()
        elif kind == 6 and all(not isinstance(item, PastPart) for item in items):
            one, other = chance.randrange(length), chance.randrange(length)
            items[one], items[other] = items[other], items[one]
        elif kind == 7:
            items.insert(chance.randrange(length), items.pop(chance.randrange(length)))
        elif kind == 8:
            items[chance.randrange(length)] = self._value()
        elif kind == 9:
            del items[: chance.randrange(length + 1)]
        else:
            inside = chance.choice(items)
            if isinstance(inside, PastPart):
                inside.v = self._value(1)
                inside.inner.insert(0, chance.randrange(9))
            elif isinstance(inside, list):
                inside.append(self._value(1))
            elif isinstance(inside, dict):
                inside[chance.choice(["a", 1])] = self._value(1)

    def _set(self, thing: Any, things: list[Any]) -> None:
        chance = self.chance
        kind = chance.randrange(10)
        if kind == 0:
            thing.n = self._value()
        elif kind == 1:
            thing.table[chance.choice(["k", "a b", 3, -3])] = self._value()
        elif kind == 2 and thing.table:
            key = chance.choice(sorted(thing.table, key=repr))
            moved = thing.table.pop(key)
            thing.table[chance.choice(["z", 7])] = moved
        elif kind == 3 and thing.table:
            del thing.table[chance.choice(sorted(thing.table, key=repr))]
        elif kind == 4:
            thing.members.add(chance.randrange(4))
        elif kind == 5:
            thing.members.discard(chance.randrange(4))
        elif kind == 6:
            thing.other = chance.choice([None, *things])
        elif kind == 7:
            thing.items = [item for item in thing.items if not isinstance(item, PastPart)][:2]
        elif kind == 8:
            thing.text += chance.choice(["", "x", "é"])
        else:
            thing.table = {"k": [1]}


def shape(state: dict[str, Any]) -> dict[str, Any]:
    """What `World.seen` would have of a state in plain data."""
    return {
        "length": len(state["items"]),
        "keys": sorted(state["table"], key=repr),
        "members": set(state["members"]),
        "text": state["text"],
    }
