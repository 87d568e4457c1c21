"""Tracked lists, dicts and sets beside the builtin ones: what is stored, what it costs, and what never runs under a lock."""

from __future__ import annotations

import asyncio
import enum
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from symphony_es import Symphony, entity, part, value
from symphony_es.core.objects import tracked_list
from symphony_es.core.objects.edits import changes_between, list_changes, list_edits
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import apply_changes
from symphony_es.events.values import plain_equal


class Paint(enum.StrEnum):
    RED = "red"


class Digit(enum.IntEnum):
    ONE = 1


class Text(str):
    """Text of a class of its own."""


@value
class Spot:
    x: Any = 0


@part
class Errand:
    state: str = ""


@entity
class Shelf:
    id: str = ""
    items: list[Any] = field(default_factory=list)
    table: dict[Any, Any] = field(default_factory=dict)
    members: set[Any] = field(default_factory=set)
    number: int = 0


async def folded(symphony: Symphony, shelf: Shelf) -> dict[str, Any]:
    await symphony.flush()
    state: dict[str, Any] = (await symphony.at("latest")).get(shelf)
    return state


async def assert_recorded(symphony: Symphony, shelf: Shelf) -> None:
    record = symphony.world.record_for(shelf)
    assert plain_equal(await folded(symphony, shelf), symphony.world.capture(shelf, record.reference))


# -- sets --------------------------------------------------------------------------------------------------------------

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
TWINS: list[tuple[Any, Any]] = [
    ("red", Paint.RED), (Paint.RED, "red"), ("red", Text("red")), (1, Digit.ONE), (Digit.ONE, 1),
    (1, True), (True, 1.0), (1, Decimal(1)), (Decimal("1.0"), Decimal("1.00")), (1, Fraction(1)), (1.0, Fraction(1)),
    (Spot(1), Spot(1.0)), (Spot(Decimal("1.0")), Spot(Decimal(1))), (Spot("red"), Spot(Paint.RED)),
    ((1, "red"), (True, Paint.RED)), (NOON, NOON.astimezone(timezone(timedelta(hours=1)))), (0.0, -0.0),
]  # fmt: skip
DROPS: dict[str, Callable[[Any, Any], Any]] = {
    "discard": lambda members, twin: members.discard(twin),
    "remove": lambda members, twin: members.remove(twin),
    "-=": lambda members, twin: members.__isub__({twin}),
    "difference_update": lambda members, twin: members.difference_update([twin]),
    "^=": lambda members, twin: members.__ixor__({twin}),
    "symmetric_difference_update": lambda members, twin: members.symmetric_difference_update([twin]),
}


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize(("have", "twin"), TWINS, ids=repr)
async def test_what_equality_drops_is_dropped_in_the_log(symphony: Symphony, have: Any, twin: Any, drop: str) -> None:
    """A member that equals the stored one takes it out, live and in the log; a rollback puts the stored one back."""
    shelf = symphony.entities.add(Shelf(members={have, "other"}))
    with pytest.raises(LookupError):
        async with symphony.transaction("Undone"):
            DROPS[drop](shelf.members, twin)
            raise LookupError
    assert [type(member) for member in shelf.members if member == have] == [type(have)]
    await assert_recorded(symphony, shelf)
    DROPS[drop](shelf.members, twin)
    assert shelf.members == {"other"}
    await assert_recorded(symphony, shelf)


@pytest.mark.parametrize(("have", "twin"), [pair for pair in TWINS if type(pair[1]) not in (Text, Fraction)], ids=repr)
async def test_what_is_there_already_is_kept_as_it_is(symphony: Symphony, have: Any, twin: Any) -> None:
    """Adding an equal member changes nothing, and an intersection keeps what was stored."""
    shelf = symphony.entities.add(Shelf(members={have, "other"}))
    shelf.members.add(twin)
    shelf.members |= {twin}
    shelf.members &= {twin, "more"}
    assert [type(member) for member in shelf.members] == [type(have)]
    await assert_recorded(symphony, shelf)


async def test_operators_take_what_those_of_sets_take(symphony: Symphony) -> None:
    """A view of keys works as for sets, a list is refused as for sets, and a refusal changes nothing."""
    shelf = symphony.entities.add(Shelf(members={"a"}))
    shelf.members |= {"b": 1}.keys()
    shelf.members -= {"a": 1}.keys()
    shelf.members ^= {"c": 1}.keys()
    shelf.members &= {"c": 1, "b": 2}.keys()
    assert shelf.members == {"b", "c"}
    for operator in ("__ior__", "__iand__", "__isub__", "__ixor__"):
        assert getattr(shelf.members, operator)(["x"]) is NotImplemented
    for act in (shelf.members.remove, shelf.members.discard, shelf.members.add):
        with pytest.raises(TypeError):
            act([])
    with pytest.raises(KeyError):
        shelf.members.remove({"b"})
    await assert_recorded(symphony, shelf)


# -- dicts ---------------------------------------------------------------------------------------------------------------

KEYS: list[tuple[Any, Any]] = [
    ("red", Paint.RED),
    ("red", Text("red")),
    (1, True),
    (1, 1.0),
    (1, Digit.ONE),
    (1, Decimal(1)),
    (1, Fraction(1)),
]
WITH_KEYS: dict[str, Callable[[Any, Any], Any]] = {
    "del": lambda table, key: table.__delitem__(key),
    "pop": lambda table, key: table.pop(key),
    "pop default": lambda table, key: table.pop(key, None),
    "[] =": lambda table, key: table.__setitem__(key, "new"),
    "setdefault": lambda table, key: table.setdefault(key, "new"),
    "update": lambda table, key: table.update({key: "new"}),
    "|=": lambda table, key: table.__ior__({key: "new"}),
    "update pairs": lambda table, key: table.update([(key, "new")]),
}


@pytest.mark.parametrize("act", WITH_KEYS)
@pytest.mark.parametrize(("stored", "given"), KEYS, ids=repr)
@pytest.mark.parametrize("block", [False, True])
async def test_a_key_that_equals_a_stored_one_means_it(symphony: Symphony, act: str, stored: Any, given: Any, block: bool) -> None:
    """As in a plain dict, the stored key is used; other entities' changes of the same turn are stored."""
    shelf, other = symphony.entities.add(Shelf(table={stored: "old", "z": 1})), symphony.entities.add(Shelf())
    await symphony.flush()
    plain = dict(shelf.table)
    WITH_KEYS[act](plain, given)
    other.number = 1
    if block:
        with pytest.raises(LookupError):
            async with symphony.transaction("Undone"):
                WITH_KEYS[act](shelf.table, given)
                raise LookupError
        assert {type(key) for key in shelf.table} == {type(stored), str}
        await assert_recorded(symphony, shelf)
    WITH_KEYS[act](shelf.table, given)
    assert dict(shelf.table) == plain
    assert all(type(key) in (str, int) for key in shelf.table)
    await assert_recorded(symphony, shelf)
    await assert_recorded(symphony, other)


@pytest.mark.parametrize("given", [Paint.RED, True, 1.0, Fraction(1), Text("red"), None, (1,)])
async def test_a_key_that_equals_none_is_refused_or_missing(symphony: Symphony, given: Any) -> None:
    """It is put nowhere, and looking for it finds nothing; nothing is recorded."""
    shelf = symphony.entities.add(Shelf(table={"z": 1}))
    await symphony.flush()
    head = symphony.log.head
    for name in ("[] =", "setdefault", "update", "|="):
        with pytest.raises(UnstorableValueError, match="keys are str or int"):
            WITH_KEYS[name](shelf.table, given)
    for name in ("del", "pop"):
        with pytest.raises(KeyError):
            WITH_KEYS[name](shelf.table, given)
    assert shelf.table.pop(given, "default") == "default"
    with pytest.raises(TypeError):
        shelf.table.pop([])
    await symphony.flush()
    assert (symphony.log.head, dict(shelf.table)) == (head, {"z": 1})


# -- what is the user's runs outside ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda shelf, given: shelf.items.extend(given),
        lambda shelf, given: shelf.items.__iadd__(given),
        lambda shelf, given: shelf.items.__setitem__(slice(None), given),
        lambda shelf, given: shelf.items.__setitem__(slice(None, None, 1), given),
        lambda shelf, given: shelf.table.update((str(item), item) for item in given),
        lambda shelf, given: shelf.table.__ior__((str(item), item) for item in given),
        lambda shelf, given: shelf.members.update(given),
        lambda shelf, given: shelf.members.difference_update(given),
        lambda shelf, given: shelf.members.intersection_update(given),
        lambda shelf, given: shelf.members.symmetric_difference_update(given),
        lambda shelf, given: shelf.items.sort(key=lambda item: next(given, item)),
        lambda shelf, given: shelf.items.remove(_Equal(given)),
        lambda shelf, given: shelf.items.pop(_Index(given)),
        lambda shelf, given: shelf.items.insert(_Index(given), 1),
        lambda shelf, given: shelf.items.__setitem__(_Index(given), 1),
        lambda shelf, given: shelf.items.__delitem__(slice(_Index(given), None)),
        lambda shelf, given: shelf.items.__imul__(_Index(given)),
    ],
)
async def test_user_code_never_holds_the_lock(symphony: Symphony, act: Callable[[Any, Any], Any]) -> None:
    """While an iterable, a key, an index or a comparison of the user runs in a thread, the loop changes entities."""
    shelf, other = symphony.entities.add(Shelf(items=[3, 1, 2], members={1, 2})), symphony.entities.add(Shelf())
    begun, changed = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        begun.set()
        assert changed.wait(30), "the loop could not change another entity meanwhile"
        yield 1

    task = asyncio.create_task(asyncio.to_thread(act, shelf, slow()))
    await asyncio.to_thread(begun.wait, 30)
    lock = symphony.world.lock
    assert lock.acquire(timeout=10)
    lock.release()
    other.number = 1
    changed.set()
    await task
    await assert_recorded(symphony, shelf)


class _Equal:
    def __init__(self, given: Iterator[int]) -> None:
        self.given = given

    def __eq__(self, other: object) -> bool:
        return next(self.given, 1) == 1

    __hash__ = object.__hash__


class _Index:
    def __init__(self, given: Iterator[int]) -> None:
        self.given = given

    def __index__(self) -> int:
        return next(self.given, 1)


@pytest.mark.parametrize("change", [lambda items: items.append(9), lambda items: items.pop(), lambda items: items.__setitem__(0, 9)])
async def test_a_sort_key_that_changes_the_list_is_found(symphony: Symphony, change: Callable[[Any], Any]) -> None:
    """It is the ValueError of a list; what the key did is kept."""
    shelf = symphony.entities.add(Shelf(items=[3, 1, 2]))
    done: list[Any] = []

    def key(item: Any) -> Any:
        if not done:
            done.append(change(shelf.items))
        return item

    with pytest.raises(ValueError, match="modified during sort"):
        shelf.items.sort(key=key)
    expected = [3, 1, 2]
    change(expected)
    assert shelf.items == expected
    await assert_recorded(symphony, shelf)


# -- what it costs ------------------------------------------------------------------------------------------------------


async def bytes_of(symphony: Symphony, act: Callable[[], Any]) -> int:
    """What doing something appends, in bytes."""
    await symphony.flush()
    head = symphony.log.head
    act()
    await symphony.flush()
    return sum([len(repr(event.changes)) async for page in symphony.log.read(head) for event in page])


def _swap(items: Any, one: int, other: int) -> None:
    items[one], items[other] = items[other], items[one]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "+=": lambda shelf: setattr(shelf, "items", shelf.items.__iadd__(["m"])),
    "one more": lambda shelf: setattr(shelf, "items", [*shelf.items, "m"]),
    "one less": lambda shelf: setattr(shelf, "items", shelf.items[:-1]),
    "without the first": lambda shelf: setattr(shelf, "items", shelf.items[1:]),
    "filter": lambda shelf: setattr(shelf, "items", [item for at, item in enumerate(shelf.items) if at % 97 != 5 or at > 200]),
    "slice of a filter": lambda shelf: shelf.items.__setitem__(
        slice(None), [item for at, item in enumerate(shelf.items) if at not in (3, 90)]
    ),
    "itself": lambda shelf: setattr(shelf, "items", shelf.items),
    "a copy of itself": lambda shelf: setattr(shelf, "items", list(shelf.items)),
    "sort of what is sorted but for one": lambda shelf: (_swap(shelf.items, 0, 9), shelf.items.sort(key=_order)),
    "swap": lambda shelf: _swap(shelf.items, 0, -1),
    "extended deletion": lambda shelf: shelf.items.__delitem__(slice(0, 4, 3)),
    "extended slice": lambda shelf: shelf.items.__setitem__(slice(0, 4, 3), ["x", "y"]),
    "move": lambda shelf: shelf.items.insert(5, shelf.items.pop(0)),
    "dict |=": lambda shelf: setattr(shelf, "table", shelf.table.__ior__({"new": 1})),
    "dict with one more": lambda shelf: setattr(shelf, "table", {**shelf.table, "new": 1}),
    "dict without one": lambda shelf: setattr(shelf, "table", {key: item for key, item in shelf.table.items() if key != "3"}),
    "update with itself": lambda shelf: shelf.table.update({key: item for key, item in shelf.table.items() if key == "nodes"}),
    "set |=": lambda shelf: setattr(shelf, "members", shelf.members.__ior__({"new"})),
    "set with one more": lambda shelf: setattr(shelf, "members", {*shelf.members, "new"}),
    "set without one": lambda shelf: setattr(shelf, "members", shelf.members - {3}),
}


def _order(item: Any) -> int:
    return int(item.state) if isinstance(item, Errand) else item


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["numbers", "parts"])
async def test_only_the_difference_is_stored(symphony: Symphony, change: str, kind: str) -> None:
    """With ten times as many items, as many bytes are appended."""
    sizes = []
    for size in (200, 2000):
        items: list[Any] = list(range(size)) if kind == "numbers" else [Errand(str(at)) for at in range(size)]
        shelf = symphony.entities.add(
            Shelf(items=items, table={"nodes": {}, **{str(at): at for at in range(size)}}, members=set(range(size)))
        )
        sizes.append(await bytes_of(symphony, lambda shelf=shelf: CHANGES[change](shelf)))  # type: ignore[misc]
        await assert_recorded(symphony, shelf)
    assert sizes[1] <= sizes[0] * 1.3 + 40


@pytest.mark.exhaustive
async def test_adding_in_any_way_costs_what_append_costs(symphony: Symphony) -> None:
    """200 times `+= [m]`, extending by one, and assigning one more cost what 200 times `append(m)` costs."""
    message = {"role": "user", "text": "x" * 50}
    holders = [symphony.entities.add(Shelf(id=name)) for name in ("append", "+=", "extend", "assign", "plain")]
    mine: list[Any] = []
    ways: list[Callable[[Shelf], Any]] = [
        lambda shelf: shelf.items.append(message),
        lambda shelf: setattr(shelf, "items", shelf.items.__iadd__([message])),
        lambda shelf: shelf.items.extend([message]),
        lambda shelf: setattr(shelf, "items", [*shelf.items, message]),
        lambda shelf: (mine.append(message), setattr(shelf, "items", mine)),
    ]
    costs = []
    for shelf, way in zip(holders, ways, strict=True):
        costs.append(await bytes_of(symphony, lambda way=way, shelf=shelf: [way(shelf) for _ in range(200)]))  # type: ignore[misc]
        assert len(shelf.items) == 200
        await assert_recorded(symphony, shelf)
    assert max(costs) <= costs[0] * 1.1


async def test_a_shuffle_stores_its_moves(symphony: Symphony) -> None:
    """At most twice the items, never a square of them."""
    shelf = symphony.entities.add(Shelf(items=[Errand(str(at)) for at in range(100)]))
    once = await bytes_of(symphony, lambda: setattr(shelf, "items", [Errand(str(at + 1000)) for at in range(100)]))
    assert await bytes_of(symphony, lambda: random.Random(1).shuffle(shelf.items)) < once * 3
    assert await bytes_of(symphony, lambda: shelf.items.sort(key=_order)) < once * 1.5
    await assert_recorded(symphony, shelf)


class _Counted:
    """A list's `is` questions, counted."""

    def __init__(self) -> None:
        self.count = 0

    def getter(self, original: Any) -> Any:
        def counted(target: Any, index: Any) -> Any:
            self.count += 1
            return original(target, index)

        return counted


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "shift",
    [
        lambda items: items.pop(0),
        lambda items: items.insert(0, Errand("new")),
        lambda items: items.__delitem__(len(items) // 2),
        lambda items: items.insert(3, items.pop(1)),
        lambda items: items.insert(len(items) // 2, items.pop(0)),
        lambda items: _swap(items, 0, len(items) // 2),
    ],
)
@pytest.mark.parametrize("which", [-1, -7, "same"])
async def test_where_a_part_stands_is_found_near_where_it_stood(
    symphony: Symphony, monkeypatch: pytest.MonkeyPatch, shift: Callable[[Any], Any], which: Any
) -> None:
    """Moving things in a list and changing a part costs a few looks, with ten times as many parts as well."""
    looks = []
    for size in (300, 3000):
        shelf = symphony.entities.add(Shelf(items=[Errand(str(at)) for at in range(size)]))
        same, counted = shelf.items[-3], _Counted()
        with monkeypatch.context() as patch:
            patch.setattr(tracked_list.TrackedList, "__getitem__", counted.getter(list.__getitem__), raising=False)
            for turn in range(60):
                shift(shelf.items)
                node = same if which == "same" else list.__getitem__(shelf.items, which - turn % 5)
                node.state = "changed"
        looks.append(counted.count)
        await assert_recorded(symphony, shelf)
    assert looks[1] <= looks[0] * 4 + 200, "at most by the root of the size"


@pytest.mark.parametrize("seed", range(40))
def test_edits_make_one_container_another(seed: int) -> None:
    """Applied to the one, the changes between two plain values give the other, and are never more than the whole."""
    rng = random.Random(seed)

    def some(depth: int = 0) -> Any:
        kind = rng.random()
        if kind < 0.3 and depth < 3:
            return [some(depth + 1) for _ in range(rng.randrange(8))]
        if kind < 0.5 and depth < 3:
            return {rng.choice("abcdef"): some(depth + 1) for _ in range(rng.randrange(6))}
        if kind < 0.6 and depth < 3:
            return {rng.choice((1, True, 1.0, "a", "b", 7, Decimal("1.0"), 8.5)) for _ in range(rng.randrange(6))}
        return rng.choice((1, True, 1.0, "a", None, -0.0, 0.0, Decimal("1.00"), Decimal("1.0"), NOON))

    for _ in range(200):
        old = some()
        new = some() if rng.random() < 0.5 or not isinstance(old, list) else [item for item in old if rng.random() < 0.8] + [some()]
        changes = changes_between(("x",), old, new)
        state = apply_changes({"x": old}, changes)
        assert state is not None
        assert plain_equal(state["x"], new)
        if isinstance(new, dict):
            assert list(state["x"]) == list(new) or not isinstance(old, dict)
        one, other = [rng.randrange(12) for _ in range(rng.randrange(15))], [rng.randrange(12) for _ in range(rng.randrange(15))]
        edits = list_edits(one, other, lambda mine, yours, one=one, other=other: one[mine] == other[yours])  # type: ignore[misc]
        assert apply_changes({"x": list(one)}, list_changes(("x",), len(one), edits, other)) == {"x": other}
