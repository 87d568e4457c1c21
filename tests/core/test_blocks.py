"""Blocks: who may change what while they are open, and that what is rolled back is as it was, to the last node and key."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.core.world.scopes import Scope
from symphony_es.errors import DetachedPartError, EntityBusyError, TransactionEndedError
from symphony_es.events.values import plain_equal
from tests.core.shadowing import Crate, Parcel, order_of, states_agree


def crate_with_much() -> Crate:
    """An entity that holds something of every kind, nested."""
    return Crate(
        id="a",
        number=1,
        top=Parcel(weight=1, notes=[1, [2, 3], Parcel(weight=5)], inside={"x": [1], "y": 2, "z": {"q": Parcel(weight=7)}}),
        parcels=[Parcel(weight=10, notes=["n"]), [1, 2, 3], {"k": [9], "l": 8, "m": 7}, "text", Parcel(weight=11)],
        named={"one": [1, 2], "two": Parcel(weight=20, notes=[1]), "three": {"a": 1, "b": {"c": [3]}}, 4: "four"},
        labels={"red", "green"},
    )


# -- what is taken out, changed and put back --------------------------------------------------------------------------

Take = Callable[[Crate], Any]
TAKE_OUT: dict[str, Take] = {
    "assign": lambda crate: (crate.top, setattr(crate, "top", None))[0],
    "assign another": lambda crate: (crate.top, setattr(crate, "top", Parcel(weight=99)))[0],
    "pop": lambda crate: crate.parcels.pop(0),
    "pop last": lambda crate: crate.parcels.pop(),
    "delete item": lambda crate: (crate.parcels[2], crate.parcels.__delitem__(2))[0],
    "set item": lambda crate: (crate.parcels[1], crate.parcels.__setitem__(1, [4]))[0],
    "slice": lambda crate: (crate.parcels[2], crate.parcels.__setitem__(slice(0, 3), ["other"]))[0],
    "delete slice": lambda crate: (crate.parcels[4], crate.parcels.__delitem__(slice(0, 5, 2)))[0],
    "clear list": lambda crate: (crate.parcels[0], crate.parcels.clear())[0],
    "replace list": lambda crate: (crate.parcels, setattr(crate, "parcels", []))[0],
    "pop key": lambda crate: crate.named.pop("two"),
    "pop first key": lambda crate: crate.named.pop("one"),
    "delete key": lambda crate: (crate.named["three"], crate.named.__delitem__("three"))[0],
    "popitem": lambda crate: (crate.named["three"], crate.named.popitem(), crate.named.popitem())[0],
    "set key": lambda crate: (crate.named["one"], crate.named.__setitem__("one", 5))[0],
    "clear dict": lambda crate: (crate.named["two"], crate.named.clear())[0],
    "replace dict": lambda crate: (crate.named, setattr(crate, "named", {"new": 1}))[0],
    "deep in a part": lambda crate: (crate.top.inside["z"], crate.top.inside.__delitem__("z"))[0],
    "deep in a list": lambda crate: crate.top.notes.pop(1),
    "attribute of a part": lambda crate: (crate.top.notes, setattr(crate.top, "notes", []))[0],
    "sort": lambda crate: (crate.top.notes[1], crate.top.notes.reverse(), crate.top.notes.pop(1))[0],
}


def scribble(node: Any, depth: int = 0) -> None:
    """Change everything that a node holds."""
    if isinstance(node, Parcel):
        node.weight += 1000
        scribble(node.notes, depth + 1)
        scribble(node.inside, depth + 1)
        if depth == 0:
            node.notes = ["other", Parcel(weight=3)]
    elif isinstance(node, list):
        for item in list(node):
            scribble(item, depth + 1)
        node.append("scribbled")
        del node[0]
        node.insert(0, [Parcel()])
    elif isinstance(node, dict):
        for item in list(node.values()):
            scribble(item, depth + 1)
        for key in list(node)[:1]:
            node[key] = node.pop(key)
        node["scribbled"] = {"x": 1}


ELSEWHERE: dict[str, Callable[[Symphony, Crate, Any], Any]] = {
    "nowhere": lambda symphony, crate, node: None,
    "the same entity": lambda symphony, crate, node: crate.parcels.append(node),
    "the same entity, deeper": lambda symphony, crate, node: crate.named.__setitem__("deep", {"er": [node]}),
    "another entity": lambda symphony, crate, node: setattr(symphony.entities.get("Crate:b"), "top", node),
    "a new entity": lambda symphony, crate, node: symphony.entities.add(Crate(id="new", parcels=[node])),
    "there and back": lambda symphony, crate, node: (crate.parcels.append(node), crate.parcels.pop(), crate.parcels.insert(0, node)),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("take_out", TAKE_OUT)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_is_taken_out_and_changed_comes_back_as_it_was(symphony: Symphony, take_out: str, elsewhere: str, when: str) -> None:
    """A rollback puts nodes back with the content that they had, the very objects, and keys in their order; then they are tracked again."""
    crate, other = symphony.entities.add(crate_with_much()), symphony.entities.add(Crate(id="b"))
    await symphony.flush()
    before, order = repr(crate), order_of(crate.named) + order_of(crate.parcels) + order_of(crate.top)
    hands = [crate.top, crate.parcels, crate.parcels[0], crate.parcels[2], crate.named, crate.named["two"], crate.top.inside]
    with pytest.raises(RuntimeError, match="back"):
        async with symphony.transaction("Tried"):
            node = TAKE_OUT[take_out](crate)
            inside = [id(item) for item in node] if isinstance(node, list) else []  # these may leave it while it is nobody's
            if when == "before":
                scribble(node)
            ELSEWHERE[elsewhere](symphony, crate, node)
            if when == "after":
                scribble(node)
            raise RuntimeError("back")
    assert (repr(crate), other.top) == (before, None)
    assert order_of(crate.named) + order_of(crate.parcels) + order_of(crate.top) == order
    await states_agree(symphony)
    now = [crate.top, crate.parcels, crate.parcels[0], crate.parcels[2], crate.named, crate.named["two"], crate.top.inside]
    assert all(one is two or id(one) in inside for one, two in zip(hands, now, strict=True))
    scribble(crate.top)
    scribble(crate.parcels)
    scribble(crate.named)
    await states_agree(symphony)
    await symphony.resume()
    await states_agree(symphony)


# -- an entity belongs to the innermost open block that has changed it ------------------------------------------------


@pytest.mark.parametrize("who", ["outer", "sibling", "outside"])
@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("inner_kind", ["transaction", "step inside"])
async def test_only_the_block_that_has_changed_an_entity_may_go_on(symphony: Symphony, who: str, ends: str, inner_kind: str) -> None:
    """While an inner block is open, others are refused what it has changed, by both names; when it ends, the outer one may go on."""
    crate = symphony.entities.add(crate_with_much())
    await symphony.flush()
    changed, go_on = asyncio.Event(), asyncio.Event()

    async def inner() -> None:
        async with symphony.transaction("Inner"):
            if inner_kind == "transaction":
                crate.number = 2
                crate.parcels.append("inner")
            else:
                async with symphony.transaction("Innermost"):
                    crate.number = 2
                    crate.parcels.append("inner")
            changed.set()
            await go_on.wait()
            if ends == "badly":
                raise RuntimeError("back")

    async def meddle(name: str) -> None:
        await changed.wait()
        for change in (lambda: setattr(crate, "number", 3), lambda: crate.parcels.pop(), lambda: symphony.entities.remove(crate)):
            with pytest.raises(EntityBusyError) as caught:
                change()
            assert caught.value.holder in ("Inner", "Outer")
            assert "Crate:a" in str(caught.value)
            assert name in str(caught.value) or who == "outside"
        go_on.set()

    async def sibling() -> None:
        async with symphony.transaction("Sibling"):
            await meddle("Sibling")

    outside = asyncio.create_task(meddle("")) if who == "outside" else None
    async with symphony.transaction("Outer"):
        crate.labels.add("outer")
        task = asyncio.create_task(inner())
        if who == "outer":
            await meddle("Outer")
        elif who == "sibling":
            await asyncio.create_task(sibling())
        elif outside is not None:
            await outside
        await asyncio.wait([task])
        assert crate.number == (2 if ends == "well" else 1)
        crate.number += 10
    assert task.exception() is None if ends == "well" else isinstance(task.exception(), RuntimeError)
    assert crate.number == (12 if ends == "well" else 11)
    assert ("inner" in crate.parcels) == (ends == "well")
    await states_agree(symphony)


async def test_a_straggler_of_a_block_that_was_rolled_back_is_refused(symphony: Symphony) -> None:
    """A task begun in an inner block changes things for the outer one when that has ended well, and is refused when it has not."""
    crate = symphony.entities.add(Crate(id="a"))
    await symphony.flush()
    ended = asyncio.Event()

    async def straggle() -> None:
        await ended.wait()
        crate.number += 1

    async with symphony.transaction("Outer"):
        async with symphony.transaction("Good"):
            good = asyncio.create_task(straggle())
        with contextlib.suppress(RuntimeError):
            async with symphony.transaction("Bad"):
                bad = asyncio.create_task(straggle())
                raise RuntimeError
        ended.set()
        await asyncio.wait([good, bad])
    assert isinstance(bad.exception(), TransactionEndedError)
    assert crate.number == 1
    await states_agree(symphony)


async def test_an_inner_block_that_outlives_a_rollback_says_so(symphony: Symphony) -> None:
    """What an inner block had done is rolled back with the outer one: it raises at its end instead of seeming to have succeeded."""
    crate, other = symphony.entities.add(Crate(id="a")), symphony.entities.add(Crate(id="b"))
    await symphony.flush()
    changed, ended = asyncio.Event(), asyncio.Event()

    async def inner() -> None:
        async with symphony.transaction("Inner"):
            other.number = 5
            changed.set()
            await ended.wait()

    with contextlib.suppress(RuntimeError):
        async with symphony.transaction("Outer"):
            crate.number = 1
            task = asyncio.create_task(inner())
            await changed.wait()
            raise RuntimeError
    ended.set()
    await asyncio.wait([task])
    assert isinstance(task.exception(), TransactionEndedError)
    assert (crate.number, other.number) == (0, 0)
    other.number = 1
    await states_agree(symphony)


@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("leaves", ["a task begun inside", "a task begun before"])
async def test_a_block_left_by_another_task_releases_what_it_claimed(symphony: Symphony, ends: str, leaves: str) -> None:
    """Entered in one task and left in another (as test fixtures do): nothing stays claimed, and the one that entered it can go on."""
    crate = symphony.entities.add(Crate(id="a"))
    await symphony.flush()
    block = symphony.transaction("Lent")
    entered = asyncio.Event()

    async def leave() -> None:
        await entered.wait()
        await (block.__aexit__(None, None, None) if ends == "well" else block.__aexit__(RuntimeError, RuntimeError(), None))
        crate.named["leaver"] = 1

    task = asyncio.create_task(leave()) if leaves == "a task begun before" else None
    await block.__aenter__()
    crate.number = 5
    task = task or asyncio.create_task(leave())
    entered.set()
    await task
    assert crate.number == (5 if ends == "well" else 0)
    assert not symphony.world.open_transactions
    assert symphony.world.record_for(crate).holder is None
    crate.number += 1
    async with symphony.transaction("Next"):
        crate.number += 1
    await asyncio.create_task(asyncio.sleep(0))
    await states_agree(symphony)


# -- the cost of a rollback -------------------------------------------------------------------------------------------


def calls_of(function: Callable[[], Any]) -> int:
    """How many functions of Python a call calls."""
    count = 0

    def count_calls(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(count_calls)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", ["changes", "entities", "events"])
async def test_rolling_back_an_inner_block_costs_what_it_did(symphony: Symphony, shape: str) -> None:
    """What the outer block has done before, however much, is not looked at."""
    crates = [symphony.entities.add(Crate(id=f"{number}")) for number in range(401)]
    await symphony.flush()
    costs = []
    for size in (10, 400):
        async with symphony.transaction("Outer"):
            for number in range(size):
                if shape == "changes":
                    crates[0].number = number
                    crates[0].parcels.append(number)
                elif shape == "entities":
                    crates[number].number = size + number
                else:
                    with symphony.world.recording("Small"):
                        crates[0].number = number

            async def inner() -> None:
                async with symphony.transaction("Inner"):
                    crates[-1].number = -1
                    crates[-1].parcels.append(1)
                    raise RuntimeError

            runs = [calls_of(lambda: inner_run(inner)) for _ in range(3)]
            costs.append(min(runs))
    assert costs[0] == costs[1]
    await states_agree(symphony)


def inner_run(inner: Callable[[], Any]) -> None:
    """Run a coroutine that waits for nothing."""
    with contextlib.suppress(RuntimeError):
        inner().send(None)


# -- random programs of blocks ----------------------------------------------------------------------------------------


class Program:
    """A random program over two entities, in nested blocks, some of which are rolled back."""

    def __init__(self, symphony: Symphony, seed: int) -> None:
        self.symphony = symphony
        self.random = random.Random(seed)
        self.crates = [symphony.entities.add(crate_with_much()), symphony.entities.add(Crate(id="b", parcels=[[1], Parcel()]))]
        self.hands: list[Any] = []
        self.serial = 0

    def a_value(self, depth: int = 0) -> Any:
        """Something new, something in hand, or an entity."""
        kinds: list[Callable[[], Any]] = [
            lambda: self.random.randrange(9),
            lambda: "t" * self.random.randrange(3),
            lambda: self.random.choice(self.crates),
            lambda: Parcel(weight=self.random.randrange(9), notes=[self.random.randrange(3)]),
        ]
        if depth < 2:
            kinds += [
                lambda: [self.a_value(depth + 1) for _ in range(self.random.randrange(3))],
                lambda: {self.random.choice("abc"): self.a_value(depth + 1) for _ in range(self.random.randrange(3))},
                lambda: Parcel(inside={"i": self.a_value(depth + 1)}),
            ]
        if self.hands and self.random.random() < 0.2:
            return self.random.choice(self.hands)
        return self.random.choice(kinds)()

    def a_node(self) -> Any:
        """A node of an entity, or one in hand that may stand nowhere."""
        if self.hands and self.random.random() < 0.2:
            return self.random.choice(self.hands)
        node: Any = self.random.choice(self.crates)
        for _ in range(self.random.randrange(4)):
            if isinstance(node, (Crate, Parcel)):
                inner = [item for item in vars(node).values() if isinstance(item, (list, dict, Parcel))]
            else:
                inner = [item for item in (node.values() if isinstance(node, dict) else node) if isinstance(item, (list, dict, Parcel))]
            if not inner:
                break
            node = self.random.choice(inner)
        return node

    def act(self) -> None:
        """One change, or one that is refused."""
        node = self.a_node()
        choose = self.random.randrange
        if isinstance(node, Crate):
            name = self.random.choice(["number", "top", "labels", "parcels", "named"])
            new: Any = {"number": choose(9), "top": None, "parcels": [1, [2]], "named": {"n": [1]}}.get(name)
            if name == "labels":
                node.labels.symmetric_difference_update({choose(3), "red"})
            else:
                setattr(node, name, self.a_value() if name == "top" else new)
        elif isinstance(node, Parcel):
            name = self.random.choice(["weight", "notes", "inside"])
            setattr(node, name, {"weight": choose(9), "notes": [self.a_value()], "inside": {"z": self.a_value()}}[name])
        elif isinstance(node, list):
            self.act_on_list(node)
        else:
            self.act_on_dict(node)

    def act_on_list(self, node: list[Any]) -> None:
        """One of a list's ways to change."""
        choose, at = self.random.randrange(8), self.random.randrange(len(node) + 1)
        if choose == 0:
            node.append(self.a_value())
        elif choose == 1:
            node.insert(at, self.a_value())
        elif choose == 2 and node:
            self.hands.append(node.pop(at % len(node)))
        elif choose == 3:
            node.reverse()
        elif choose == 4:
            node[at : at + 2] = [self.a_value(), self.a_value()]
        elif choose == 5 and node:
            node[at % len(node)] = self.a_value()
        elif choose == 6:
            self.random.shuffle(node)
        elif choose == 7 and self.random.random() < 0.3:
            node.clear()

    def act_on_dict(self, node: dict[Any, Any]) -> None:
        """One of a dict's ways to change."""
        choose, key = self.random.randrange(6), self.random.choice([*node, "k", "l"])
        if choose < 2:
            node[key] = self.a_value()
        elif choose == 2 and key in node:
            self.hands.append(node.pop(key))
        elif choose == 3 and node:
            self.hands.append(node.popitem()[1])
        elif choose == 4:
            node.update({"u": self.a_value(), key: self.a_value()})
        elif choose == 5 and self.random.random() < 0.3:
            node.clear()

    async def run(self, depth: int = 0) -> None:
        """A few changes, some of them in an inner block, which may be rolled back."""
        for _ in range(self.random.randrange(1, 8)):
            self.hands = [hand for hand in self.hands[-4:] if isinstance(hand, (list, dict, Parcel))]
            if depth < 3 and self.random.random() < 0.3:
                await self.block(depth)
            else:
                with contextlib.suppress(TypeError, DetachedPartError):  # it would contain itself, or a copy stands in its place
                    self.act()

    async def block(self, depth: int) -> None:
        """An inner block; when it is rolled back, all is as it was before."""
        before = [self.symphony.world.capture(crate, self.symphony.world.record_for(crate).reference) for crate in self.crates]
        shown = [(order_of(crate.named), order_of(crate.parcels), order_of(crate.top)) for crate in self.crates]
        back = self.random.random() < 0.5
        with contextlib.suppress(KeyboardInterrupt):
            async with self.symphony.transaction(f"Level{depth}"):
                await self.run(depth + 1)
                if back:
                    raise KeyboardInterrupt
        if back:
            after = [self.symphony.world.capture(crate, self.symphony.world.record_for(crate).reference) for crate in self.crates]
            assert all(plain_equal(one, two) for one, two in zip(before, after, strict=True))
            assert shown == [(order_of(crate.named), order_of(crate.parcels), order_of(crate.top)) for crate in self.crates]


@pytest.mark.exhaustive
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
@example(44904)  # a node that was held twice in a list, of which one place is another one's
@example(2346)
@example(5802)
@example(69123)
def test_random_programs_of_blocks(seed: int) -> None:
    """Nested blocks, rolled back at random, over nested parts, lists, dicts and sets: object == shadow == fold, and a rollback is exact."""

    async def main() -> None:
        async with Symphony() as symphony:
            program = Program(symphony, seed)
            for _ in range(4):
                await program.block(0)
                await program.run()
                await states_agree(symphony)
            await symphony.resume()
            await states_agree(symphony)

    asyncio.run(main())


async def test_the_order_of_keys_is_noted_once_in_a_block(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs the number of keys: taking all of them out costs what they are, not their square. A rollback gives the order back."""
    crate = symphony.entities.add(Crate(id="a", named={number: {"n": number} for number in range(50)}))
    noted: list[int] = []
    note = Scope.note_order

    def counted(scope: Scope, record: Any, live: Any, holder: Any, order: list[Any]) -> None:
        noted.append(len(order))
        note(scope, record, live, holder, order)

    monkeypatch.setattr(Scope, "note_order", counted)
    with pytest.raises(RuntimeError, match="back"):
        async with symphony.transaction("Emptied"):
            for number in (7, 3, 40, 0, 11):
                del crate.named[number]
            async with symphony.transaction("EmptiedMore"):
                for number in (20, 10):
                    del crate.named[number]
            raise RuntimeError("back")
    assert noted == [50, 45]
    assert list(crate.named) == list(range(50))
    await states_agree(symphony)
