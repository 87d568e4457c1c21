"""One random program, run on tracked objects and on plain ones: after each operation both are equal, or the operation was refused.

At checks, and at the end, the log's fold and freshly resumed objects are compared as well. Identity is part of it: an object in hand
that plain Python would leave in its place is still in that place.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from symphony_es import Symphony
from symphony_es.errors import SymphonyError
from tests.model.universe import (
    BOX_FIELDS,
    GAUGE_FIELDS,
    LINE_FIELDS,
    Box,
    Colour,
    Gauge,
    Level,
    Line,
    Money,
    PlainBox,
    PlainLine,
    form,
    state_form,
)

LIVE, PLAIN = 0, 1
MOST_ITEMS = 8
DEEPEST_BLOCK = 3
HELD = 5

ATOMS: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 7, -3, 1.0, 2.5, "", "a", "bc", "é", b"x", Decimal("1.0"), datetime(2026, 5, 1, tzinfo=UTC),
    Colour.RED, Colour.BLUE, Level.LOW, Money(1), Money(2, "USD"), (1, "t"),
)  # fmt: skip
KEYS: tuple[Any, ...] = ("a", "b", "c", "k", 1, 2)
MEMBERS: tuple[Any, ...] = ("a", "b", 1, True, 1.0, 2, Level.LOW, Money(1), Decimal(2), (1,))
PLAIN_MEMBERS = ("a", "b", "c", "d", 5, 6)  # no two of them are equal: which of two equal ones an intersection keeps is left open


class Failed(AssertionError):
    """The two universes differ."""


class RolledBack(Exception):
    """Ends a block."""


class Pair(NamedTuple):
    """The same thing in both universes."""

    live: Any
    plain: Any


class Place(NamedTuple):
    """A node that changes in place, and where it stands (in the plain universe: the holder and the key)."""

    node: Pair
    holder: Any
    key: Any


@dataclass
class Outcome:
    """What a program did."""

    operations: int = 0
    checks: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def build(spec: Any, side: int) -> Any:
    """A fresh value of one universe."""
    cls = type(spec)
    if cls is list:
        return [build(item, side) for item in spec]
    if cls is dict:
        return {key: build(item, side) for key, item in spec.items()}
    if cls is PlainLine:
        made = {name: build(getattr(spec, name), side) for name in LINE_FIELDS}
        return Line(**made) if side == LIVE else PlainLine(**made)
    return set(spec) if cls is set else spec


def clone(plain: Any) -> Any:
    """A copy of a plain value whose containers and parts are its own; entities stay what they are."""
    memo = {id(one): one for one in _entities_in(plain)}
    return copy.deepcopy(plain, memo)


def _entities_in(plain: Any) -> Iterator[Any]:
    stack = [plain]
    while stack:
        item = stack.pop()
        if isinstance(item, (PlainBox, Gauge)):
            yield item
        else:
            stack.extend(child for _, child in children(item))


def children(node: Any) -> list[tuple[Any, Any]]:
    """What a node holds, by key; nothing for what cannot change in place."""
    if isinstance(node, list):
        return list(enumerate(node))
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, (Line, PlainLine)):
        return [(name, getattr(node, name)) for name in LINE_FIELDS]
    return []


NODES = (list, dict, set, Line, PlainLine)
"""What changes in place and belongs to one place."""


def is_node(item: Any) -> bool:
    """Whether a value changes in place and belongs to one place."""
    return isinstance(item, NODES)


def nodes_below(node: Any) -> Iterator[Any]:
    """A node and all nodes that it holds."""
    if is_node(node):
        yield node
        for _, child in children(node):
            yield from nodes_below(child)


def _walk(live: Any, plain: Any, holder: Any, key: Any, found: list[Place]) -> None:
    """Add a node and all that it holds."""
    if not isinstance(plain, NODES):
        return
    found.append(Place(Pair(live, plain), holder, key))
    if isinstance(plain, list):
        for at, (one, other) in enumerate(zip(live, plain, strict=True)):
            if isinstance(other, NODES):
                _walk(one, other, plain, at, found)
    elif isinstance(plain, dict):
        assert len(live) == len(plain)
        for name, other in plain.items():
            if isinstance(other, NODES):
                _walk(live[name], other, plain, name, found)
    elif isinstance(plain, PlainLine):
        for name in LINE_FIELDS:
            _walk(getattr(live, name), getattr(plain, name), plain, name, found)


class Program:
    """A random program; the same seed does the same."""

    def __init__(self, seed: int, symphony: Symphony, operations: int) -> None:
        self.rng = random.Random(seed)
        self.symphony = symphony
        self.operations = operations
        self.boxes: dict[str, Pair] = {}
        self.gauges: dict[str, Pair] = {}
        self.held: list[Pair] = []
        self.free: list[Pair] = []
        self.journal: list[str] = []
        self.outcome = Outcome()
        self._loose: list[Any] = []
        self._depth = 0
        self._added = 0

    async def run(self) -> Outcome:
        """Run it to its end."""
        for name in ("g1", "g2"):
            self.gauges[name] = Pair(self.symphony.entities.add(Gauge(name)), Gauge(name))
        for _ in range(2):
            await self.do_add()
        while self.outcome.operations < self.operations:
            await self.step()
        await self.check()
        await self.check_resumed()
        return self.outcome

    async def step(self) -> None:
        """Do one operation, and look whether both universes agree."""
        self.outcome.operations += 1
        operation = self.rng.choices(_OPERATIONS, _WEIGHTS)[0]
        self.journal.append(operation.__name__)
        await operation(self)
        places = self.compare(operation.__name__)
        if self.rng.random() < 0.3:
            self.hold(places)

    # -- choosing -----------------------------------------------------------------------------------------------------

    def box(self) -> Pair:
        return self.boxes[self.rng.choice(sorted(self.boxes))]

    def spec(self, depth: int = 0) -> Any:
        kind = self.rng.random()
        if kind < 0.5 or depth > 2:
            return self.rng.choice(ATOMS)
        if kind < 0.7:
            return [self.spec(depth + 1) for _ in range(self.rng.randrange(3))]
        if kind < 0.8:
            return {self.rng.choice(KEYS): self.spec(depth + 1) for _ in range(self.rng.randrange(3))}
        if kind < 0.85:
            return set(self.rng.sample(PLAIN_MEMBERS, self.rng.randrange(3)))
        return self.line_spec(depth)

    def line_spec(self, depth: int = 0) -> PlainLine:
        inner = self.line_spec(depth + 1) if depth < 2 and self.rng.random() < 0.3 else None
        return PlainLine(self.rng.choice(("", "x", "y")), Money(self.rng.randrange(3)), [self.spec(depth + 1)], {}, inner)

    def fresh(self) -> Pair:
        """A new value for both; now and then a node in hand that stands nowhere."""
        if self.free and self.rng.random() < 0.3:
            chosen = self.free.pop(self.rng.randrange(len(self.free)))
            if self._stands_alone(chosen):
                return chosen
        spec = self.spec()
        return Pair(build(spec, LIVE), build(spec, PLAIN))

    def _stands_alone(self, chosen: Pair) -> bool:
        """Whether nothing that a node in hand holds stands anywhere else: in plain Python it would stand in both places."""
        inside = {id(node) for node in nodes_below(chosen.plain)}
        elsewhere = [place.node.plain for place in self.places()]
        elsewhere += [node for pair in self.free for node in nodes_below(pair.plain)]
        return not any(id(node) in inside for node in elsewhere)

    def places(self) -> list[Place]:
        """Every node of all boxes."""
        found: list[Place] = []
        for name in sorted(self.boxes):
            pair = self.boxes[name]
            for attribute in ("items", "table", "members", "line"):
                _walk(getattr(pair.live, attribute), getattr(pair.plain, attribute), pair.plain, attribute, found)
        return found

    def node(self, *classes: type) -> Pair | None:
        """Some node of these classes, in a box; now and then one that stands nowhere."""
        if self.free and self.rng.random() < 0.15:
            fitting = [pair for pair in self.free if isinstance(pair.plain, classes)]
            if fitting:
                return self.rng.choice(fitting)
        fitting = [place.node for place in self.places() if isinstance(place.node.plain, classes)]
        return self.rng.choice(fitting) if fitting else None

    def hold(self, places: list[Place]) -> None:
        """Take some node into the hand."""
        if places:
            self.held.append(self.rng.choice(places).node)
            del self.held[:-HELD]

    # -- both universes -----------------------------------------------------------------------------------------------

    async def both(self, target: Pair, act: Callable[[Any, int], Any]) -> Pair | None:
        """Do the same to both; None when the tracked one refused it, or both raised."""
        if self._depth:
            self._note_loose(target)
        live, error = await self._live(lambda: act(target.live, LIVE))
        if isinstance(error, SymphonyError):
            self.refuse(error)
            return None
        try:
            plain = act(target.plain, PLAIN)
        except Exception as other:
            if type(other) is not type(error):
                raise Failed(f"plain objects raise {other!r}, tracked ones {error!r}") from other
            return None
        if error is not None:
            raise Failed(f"tracked objects raise {error!r}, plain ones nothing") from error
        return Pair(live, plain)

    def _note_loose(self, target: Pair) -> None:
        """Remember what a node holds that is changed while it stands nowhere: nobody's change, so a rollback may make its members anew."""
        if is_node(target.plain) and not any(place.node.plain is target.plain for place in self.places()):
            self._loose += [node for node in nodes_below(target.live) if node is not target.live]

    async def _live(self, act: Callable[[], Any]) -> tuple[Any, Exception | None]:
        try:
            return (await asyncio.to_thread(act) if self.rng.random() < 0.03 else act()), None
        except Exception as error:
            return None, error

    def refuse(self, error: SymphonyError) -> None:
        self.outcome.refused[f"{self.journal[-1]}: {type(error).__name__}: {error}"] += 1

    def compare(self, after: str) -> list[Place]:
        """Compare values, and the identity of what is in the hand; gives every node of all boxes."""
        for name, pair in self.boxes.items():
            live, plain = form(pair.live, top=True), form(pair.plain, top=True)
            if live != plain:
                raise Failed(f"{after}: Box:{name}\n tracked {live}\n plain   {plain}")
        found = self.places()
        places = {id(place.node.plain): place.node for place in found}
        stay: list[Pair] = []
        for pair in self.held:
            now = places.get(id(pair.plain))
            if now is None:
                self.free.append(pair)
                del self.free[:-HELD]
            elif now.live is not pair.live:
                raise Failed(f"{after}: the {type(pair.plain).__name__} in the hand is not the one that stands in its place any more")
            else:
                stay.append(pair)
        self.held = stay
        return found

    async def check(self) -> None:
        """Compare with the fold of the log."""
        self.outcome.checks += 1
        await self.symphony.flush()
        view = await self.symphony.at("latest")
        for kind, pairs, fields in (("model.Box", self.boxes, BOX_FIELDS), ("Gauge", self.gauges, GAUGE_FIELDS)):
            for name, pair in pairs.items():
                folded, plain = state_form(view.get(f"{kind}:{name}"), fields), form(pair.plain, top=True)
                if folded != plain:
                    raise Failed(f"the fold of {kind}:{name}\n folded {folded}\n plain  {plain}")

    async def check_resumed(self) -> None:
        """Compare with what a resume brings."""
        report = await self.symphony.resume()
        if report.unrestored or report.different:
            raise Failed(f"the resume reports {report}")
        for kind, pairs in (("model.Box", self.boxes), ("Gauge", self.gauges)):
            for name, pair in pairs.items():
                restored, plain = form(self.symphony.entities.get(f"{kind}:{name}"), top=True), form(pair.plain, top=True)
                if restored != plain:
                    raise Failed(f"the resumed {kind}:{name}\n resumed {restored}\n plain   {plain}")

    # -- operations: entities and blocks ------------------------------------------------------------------------------

    async def do_add(self) -> None:
        self._added += 1
        name, items, line = f"b{self._added}", [self.spec()], self.line_spec()
        made = [
            cls(id=name, items=build(items, side), line=build(line, side), table={"a": build(items, side)})
            for side, cls in ((LIVE, Box), (PLAIN, PlainBox))
        ]
        self.symphony.entities.add(made[LIVE])
        self.boxes[name] = Pair(*made)

    async def do_remove(self) -> None:
        if len(self.boxes) > 2:
            name = self.rng.choice(sorted(self.boxes))
            self.symphony.entities.remove(self.boxes.pop(name).live)

    async def do_check(self) -> None:
        if self._depth == 0:
            await self.check()

    async def do_turn(self) -> None:
        await asyncio.sleep(0)

    async def do_checkpoint(self) -> None:
        if self._depth == 0 and self.symphony.persistence_enabled:
            await self.symphony.create_checkpoint("here")

    async def do_block(self) -> None:
        if self._depth >= DEEPEST_BLOCK:
            return
        block = self._block(self.rng.choice(("end", "end", "fail", "fail", "cancel")), self.rng.randrange(1, 8))
        await (asyncio.create_task(block) if self.rng.random() < 0.3 else block)

    async def _block(self, outcome: str, count: int) -> None:
        boxes, gauges, held = dict(self.boxes), dict(self.gauges), list(self.held)
        kept = copy.deepcopy(([pair.plain for pair in (*boxes.values(), *gauges.values())], [pair.plain for pair in held]))
        self._depth += 1
        try:
            async with self.symphony.transaction("Happened", actor="model"):
                for _ in range(count):
                    await self.step()
                if outcome == "fail":
                    raise RolledBack
                if outcome == "cancel":
                    raise asyncio.CancelledError
        except (RolledBack, asyncio.CancelledError):
            plains = iter(kept[0])
            self.boxes = {name: Pair(pair.live, next(plains)) for name, pair in boxes.items()}
            self.gauges = {name: Pair(pair.live, next(plains)) for name, pair in gauges.items()}
            self.held = [Pair(pair.live, plain) for pair, plain in zip(held, kept[1], strict=True)]
            self.free = []  # what was changed while it stood nowhere is nobody's, and is not put back
            places = {id(place.node.plain) for place in self.places()}
            loose = {id(node) for node in self._loose}
            self.held = [pair for pair in self.held if id(pair.plain) in places and id(pair.live) not in loose]
            self.journal.append("rolled back")
        finally:
            self._depth -= 1
            if not self._depth:
                self._loose = []

    async def do_gauge(self) -> None:
        name = self.rng.choice(sorted(self.gauges))
        live = self.symphony.entities.get(f"Gauge:{name}")  # the block is handed it
        number, spec = self.rng.randrange(9), self.rng.choice((1, "a", [1, 2], {"k": [3]}))
        for one, side in ((live, LIVE), (self.gauges[name].plain, PLAIN)):
            one.number = number
            one.items.append(build(spec, side))
            del one.items[:-3]
            one.table["k"] = build(spec, side)
        if self.rng.random() < 0.3:
            self.symphony.entities.record(live)

    # -- operations: fields -------------------------------------------------------------------------------------------

    async def do_field(self) -> None:
        name, item = self.rng.choice(
            (("number", 5), ("number", 2**70), ("text", "new"), ("colour", Colour.BLUE), ("price", Money(9)), ("other", None))
        )
        await self.both(self.box(), lambda box, side: setattr(box, name, item))

    async def do_refer(self) -> None:
        box, other = self.box(), self.box()
        await self.both(box, lambda one, side: setattr(one, "other", other[side]))

    async def do_refer_in_list(self) -> None:
        box, other = self.box(), self.box()
        if len(box.plain.items) < MOST_ITEMS:
            await self.both(box, lambda one, side: one.items.append(other[side]))

    async def do_assign_container(self) -> None:
        name, spec = self.rng.choice(
            (("items", [self.spec(), self.spec()]), ("table", {"a": self.spec()}), ("members", {"a", 5}), ("line", self.line_spec()))
        )
        await self.both(self.box(), lambda box, side: setattr(box, name, build(spec, side)))

    async def do_part_field(self) -> None:
        line = self.node(Line, PlainLine)
        if line is not None:
            name, spec = self.rng.choice(
                (("text", "z"), ("price", Money(4)), ("tags", [self.spec()]), ("notes", {"k": self.spec()}), ("inner", self.line_spec(1)))
            )
            await self.both(line, lambda part, side: setattr(part, name, build(spec, side)))

    # -- operations: lists --------------------------------------------------------------------------------------------

    async def do_list(self) -> None:
        target = self.node(list)
        if target is None:
            return
        size, new, more = len(target.plain), self.fresh(), self.fresh()
        at, to = self.rng.randrange(-size - 1, size + 2), self.rng.randrange(-1, size + 2)
        shrink: list[tuple[str, Callable[[Any, int], Any]]] = [
            ("pop()", lambda one, side: one.pop()),
            (f"pop({at})", lambda one, side: one.pop(at)),
            (f"del [{at}]", lambda one, side: one.__delitem__(at)),
            (f"del [{at}:{to}]", lambda one, side: one.__delitem__(slice(at, to))),
            ("del [::2]", lambda one, side: one.__delitem__(slice(None, None, 2))),
            ("clear", lambda one, side: one.clear()),
        ]
        grow: list[tuple[str, Callable[[Any, int], Any]]] = [
            ("append", lambda one, side: one.append(new[side])),
            (f"insert({at})", lambda one, side: one.insert(at, new[side])),
            ("extend", lambda one, side: one.extend([new[side], more[side]])),
            ("+=", lambda one, side: one.__iadd__([new[side]])),
            (f"[{at}:{to}] =", lambda one, side: one.__setitem__(slice(at, to), [new[side], more[side]])),
        ]
        same: list[tuple[str, Callable[[Any, int], Any]]] = [
            (f"[{at}] =", lambda one, side: one.__setitem__(at, new[side])),
            ("reverse", lambda one, side: one.reverse()),
            ("sort", lambda one, side: one.sort(key=lambda item: repr(form(item)))),
            ("shuffle", lambda one, side: random.Random(at).shuffle(one)),
            ("swap", lambda one, side: swap(one, at, to)),
            ("[:] = itself", lambda one, side: one.__setitem__(slice(None), one)),
            ("[:] = filtered", lambda one, side: one.__setitem__(slice(None), [item for n, item in enumerate(one) if n % 2 == at % 2])),
            ("[:] = sorted", lambda one, side: one.__setitem__(slice(None), sorted(one, key=lambda item: repr(form(item))))),
        ]
        name, act = self.rng.choice(shrink if size >= MOST_ITEMS else grow + same if size == 0 else grow + same + shrink)
        self.journal.append(name)
        before = list(target.plain), list(target.live)
        await self.both(target, act)
        self._let_go(before)

    def _let_go(self, before: tuple[list[Any], list[Any]]) -> None:
        """What was taken out is in the hand now."""
        nodes = [Pair(live, plain) for plain, live in zip(*before, strict=True) if is_node(plain)]
        placed = {id(place.node.plain) for place in self.places()} if nodes else set()
        self.free += [pair for pair in nodes if id(pair.plain) not in placed]
        del self.free[:-HELD]

    # -- operations: dicts and sets -----------------------------------------------------------------------------------

    async def do_dict(self) -> None:
        target = self.node(dict)
        if target is None:
            return
        new, more = self.fresh(), self.fresh()
        key, other = self.rng.choice(KEYS), self.rng.choice(KEYS)
        name, act = self.rng.choice(
            [
                ("[] =", lambda one, side: one.__setitem__(key, new[side])),
                ("del", lambda one, side: one.__delitem__(key)),
                ("pop", lambda one, side: one.pop(key)),
                ("pop default", lambda one, side: one.pop(key, None)),
                ("popitem", lambda one, side: one.popitem()),
                ("setdefault", lambda one, side: one.setdefault(key, new[side])),
                ("update", lambda one, side: one.update({key: new[side], other: more[side]} if key != other else {})),
                ("|=", lambda one, side: one.__ior__({key: new[side]})),
                ("clear", lambda one, side: one.clear()),
                ("[k] = [k]", lambda one, side: one.__setitem__(key, one[key])),
                ("update itself", lambda one, side: one.update(one)),
                ("rename by pop", lambda one, side: one.__setitem__(other, one.pop(key))),
                ("rename by del", lambda one, side: rename(one, key, other)),
                ("[k] += ", lambda one, side: grow_at(one, key, new[side])),
            ]
        )
        self.journal.append(name)
        before = list(target.plain.values()), [target.live[one] for one in target.plain]
        await self.both(target, act)
        self._let_go(before)

    async def do_set(self) -> None:
        target = self.node(set)
        if target is None:
            return
        member, some = self.rng.choice(MEMBERS), set(self.rng.sample(PLAIN_MEMBERS, 2))
        twins = len(target.plain) != len([one for one in target.plain if one in PLAIN_MEMBERS])
        acts: list[tuple[str, Callable[[Any, int], Any]]] = [
            ("add", lambda one, side: one.add(member)),
            ("discard", lambda one, side: one.discard(member)),
            ("remove", lambda one, side: one.remove(member)),
            ("update", lambda one, side: one.update(some)),
            ("|=", lambda one, side: one.__ior__(some)),
            ("-=", lambda one, side: one.__isub__({member})),
            ("clear", lambda one, side: one.clear()),
        ]
        if not twins:
            acts += [("&=", lambda one, side: one.__iand__(some)), ("^=", lambda one, side: one.__ixor__(some))]
        name, act = self.rng.choice(acts)
        self.journal.append(name)
        await self.both(target, act)

    async def do_set_pop(self) -> None:
        target = self.node(set)
        if target is not None and target.plain:
            member, error = await self._live(target.live.pop)
            if error is not None:
                raise Failed(f"pop of a set raises {error!r}") from error
            target.plain.remove(member)

    # -- operations: idioms -------------------------------------------------------------------------------------------

    async def do_idiom(self) -> None:
        box, other, new = self.box(), self.box(), self.fresh()
        full = max(len(box.plain.items), len(other.plain.items)) >= MOST_ITEMS
        acts: list[tuple[str, Callable[[Any, int], Any]]] = [
            ("items = items", lambda one, side: setattr(one, "items", one.items)),
            ("table = table", lambda one, side: setattr(one, "table", one.table)),
            ("line = line", lambda one, side: setattr(one, "line", one.line)),
            ("items = filtered", lambda one, side: setattr(one, "items", [item for n, item in enumerate(one.items) if n % 2])),
            ("items = sorted", lambda one, side: setattr(one, "items", sorted(one.items, key=lambda item: repr(form(item))))),
            ("items = reversed", lambda one, side: setattr(one, "items", one.items[::-1])),
            ("members |=", lambda one, side: augment_members(one)),
            ("table |=", lambda one, side: augment_table(one, new[side])),
        ]
        if not full:
            acts += [("items +=", lambda one, side: augment_items(one, new[side]))] * 3
        name, act = self.rng.choice(acts)
        self.journal.append(name)
        await self.both(box, act)

    async def do_move(self) -> None:
        """What is taken out of one place is put into another one."""
        lists = [place.node for place in self.places() if isinstance(place.node.plain, list)]
        source, target = self.rng.choice(lists), self.rng.choice(lists)
        if not source.plain or len(target.plain) >= MOST_ITEMS or holds(source.plain[-1], target.plain):
            return
        pairs = {LIVE: (source.live, target.live), PLAIN: (source.plain, target.plain)}
        await self.both(target, lambda one, side: pairs[side][1].append(pairs[side][0].pop()))

    async def do_exchange(self) -> None:
        """Two boxes exchange what they hold."""
        box, other = self.box(), self.box()
        if box is not other:
            name = self.rng.choice(("items", "table", "line"))
            await self.both(box, lambda one, side: exchange(one, other[side], name))

    async def do_put_elsewhere(self) -> None:
        """What stands in one place is put into another one: there are two of it then, and the one in the hand is one of them."""
        places = self.places()
        place = self.rng.choice(places)
        lists = [one.node for one in places if isinstance(one.node.plain, list) and len(one.node.plain) < MOST_ITEMS]
        lists = [one for one in lists if not holds(place.node.plain, one.plain)]
        if not lists:
            return
        target = self.rng.choice(lists)
        _, error = await self._live(lambda: target.live.append(place.node.live))
        if isinstance(error, SymphonyError):
            self.refuse(error)
            return
        if error is not None:
            raise Failed(f"append raises {error!r}") from error
        twin = clone(place.node.plain)
        if target.live[-1] is place.node.live:
            target.plain.append(place.node.plain)
            if isinstance(place.holder, (list, dict)):
                place.holder[place.key] = twin
            else:
                setattr(place.holder, place.key, twin)
        else:
            target.plain.append(twin)
        self.held = []  # which of the two is in the hand is not part of the comparison


def swap(items: Any, one: int, other: int) -> None:
    """The idiom."""
    items[one], items[other] = items[other], items[one]


def rename(items: Any, key: Any, other: Any) -> None:
    """The idiom; a key that is renamed to itself stays."""
    if key != other:
        items[other] = items[key]
        del items[key]


def grow_at(items: Any, key: Any, new: Any) -> None:
    """The idiom, where there is a list."""
    if isinstance(items.get(key), list) and len(items[key]) < MOST_ITEMS:
        items[key] += [new]


def augment_items(box: Any, new: Any) -> None:
    """The idiom."""
    box.items += [new]


def augment_table(box: Any, new: Any) -> None:
    """The idiom."""
    box.table |= {"a": new}


def augment_members(box: Any) -> None:
    """The idiom."""
    box.members |= {"a", 6}


def exchange(box: Any, other: Any, name: str) -> None:
    """The idiom."""
    mine, yours = getattr(box, name), getattr(other, name)
    setattr(box, name, yours)
    setattr(other, name, mine)


def holds(node: Any, other: Any) -> bool:
    """Whether a node is another one or holds it."""
    return node is other or any(holds(child, other) for _, child in children(node))


_TABLE: tuple[tuple[Callable[[Program], Awaitable[None]], int], ...] = (
    (Program.do_list, 20), (Program.do_dict, 12), (Program.do_set, 6), (Program.do_set_pop, 1), (Program.do_idiom, 10),
    (Program.do_field, 5), (Program.do_part_field, 8), (Program.do_assign_container, 4), (Program.do_move, 5),
    (Program.do_exchange, 2), (Program.do_put_elsewhere, 3), (Program.do_refer, 2), (Program.do_refer_in_list, 2),
    (Program.do_gauge, 4), (Program.do_block, 7), (Program.do_turn, 3), (Program.do_check, 1), (Program.do_checkpoint, 1),
    (Program.do_add, 1), (Program.do_remove, 1),
)  # fmt: skip
_OPERATIONS = [operation for operation, _ in _TABLE]
_WEIGHTS = [weight for _, weight in _TABLE]
