"""Which object stands where: an idiom that plain Python has leaves the objects in hand where plain Python leaves them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from symphony_es import Symphony, entity, part
from symphony_es.core.objects.places import is_node, members
from symphony_es.errors import DetachedPartError, EntityExistsError, SymphonyError, UnstorableValueError
from symphony_es.events.values import plain_equal


@part
class Twig:
    number: int = 0
    tags: list[Any] = field(default_factory=list)
    inner: Any = None


@entity
class Shrub:
    id: str = ""
    items: list[Any] = field(default_factory=list)
    table: dict[Any, Any] = field(default_factory=dict)
    other: Any = None


async def assert_recorded(symphony: Symphony, *trees: Shrub) -> None:
    """Live and folded state are equal, and each node stands at exactly one place, which it knows."""
    await symphony.flush()
    view = await symphony.at("latest")
    for tree in trees:
        record = symphony.world.record_for(tree)
        assert plain_equal(view.get(tree), symphony.world.capture(tree, record.reference))
        stack: list[Any] = [tree]
        while stack:
            node = stack.pop()
            for key, item in members(node):
                if is_node(item):
                    assert item._symphony_owner is node
                    assert node._symphony_key_of(item) == key
                    stack.append(item)


MAKERS: dict[str, Callable[[int], Any]] = {
    "part": lambda number: Twig(number, [number], Twig(number)),
    "list": lambda number: [number, [number]],
    "dict": lambda number: {"number": number, "deep": {"er": number}},
}


def touch(node: Any) -> None:
    """Change a node, and what it holds, in place."""
    if isinstance(node, Twig):
        node.number += 100
        node.tags.append("touched")
    elif isinstance(node, list):
        node.append("touched")
        node[1].append("touched")
    else:
        node["touched"] = True
        node["deep"]["touched"] = True


def number_of(node: Any) -> Any:
    return node.number if isinstance(node, Twig) else node[0] if isinstance(node, list) else node["number"]


def _swap(holder: Any, one: Any, other: Any) -> None:
    holder[one], holder[other] = holder[other], holder[one]


def _swap_by_hand(holder: Any, one: Any, other: Any) -> None:
    mine = holder[one]
    holder[one] = holder[other]
    holder[other] = mine


def _rename(tree: Any) -> None:
    tree.table["new"] = tree.table["a"]
    del tree.table["a"]


def _rename_all(tree: Any) -> None:
    tree.table = {f"{key}!": item for key, item in tree.table.items()}


def _augment(tree: Any) -> None:
    tree.items += [1]
    tree.table |= {"c": 2}
    tree.table["a"] = tree.table["a"]


def _rotate(tree: Any) -> None:
    tree.items.insert(0, tree.items.pop())
    tree.items.append(tree.items.pop(0))


def _fields(tree: Any) -> None:
    tree.other = tree.items.pop(0)
    tree.items.append(tree.other)
    tree.other = None


def _exchange(tree: Any) -> None:
    tree.items, tree.other = tree.other, tree.items


IDIOMS: dict[str, Callable[[Any], Any]] = {
    "swap": lambda tree: _swap(tree.items, 0, 2),
    "swap of neighbours": lambda tree: _swap(tree.items, 1, 2),
    "swap with itself": lambda tree: _swap(tree.items, 1, 1),
    "swap in a dict": lambda tree: _swap(tree.table, "a", "b"),
    "swap by a third name": lambda tree: _swap_by_hand(tree.items, 0, 1),
    "shuffle": lambda tree: random.Random(3).shuffle(tree.items),
    "slice of a filter": lambda tree: tree.items.__setitem__(slice(None), [item for item in tree.items if number_of(item) != 1]),
    "filter": lambda tree: setattr(tree, "items", [item for item in tree.items if number_of(item) != 1]),
    "sorted": lambda tree: setattr(tree, "items", sorted(tree.items, key=number_of, reverse=True)),
    "sort": lambda tree: tree.items.sort(key=number_of, reverse=True),
    "reverse": lambda tree: tree.items.reverse(),
    "reversed": lambda tree: setattr(tree, "items", tree.items[::-1]),
    "itself": lambda tree: setattr(tree, "items", tree.items),
    "a copy of itself": lambda tree: setattr(tree, "items", list(tree.items)),
    "with one more": lambda tree: setattr(tree, "items", [*tree.items, 7]),
    "slice of itself": lambda tree: tree.items.__setitem__(slice(None), tree.items),
    "item itself": lambda tree: tree.items.__setitem__(1, tree.items[1]),
    "key itself": lambda tree: tree.table.__setitem__("a", tree.table["a"]),
    "update with itself": lambda tree: tree.table.update(tree.table),
    "rename by pop": lambda tree: tree.table.__setitem__("new", tree.table.pop("a")),
    "rename": _rename,
    "rename all": _rename_all,
    "dict of itself": lambda tree: setattr(tree, "table", dict(tree.table)),
    "sorted dict": lambda tree: setattr(tree, "table", dict(sorted(tree.table.items(), reverse=True))),
    "augment": _augment,
    "rotate": _rotate,
    "extended slice": lambda tree: tree.items.__setitem__(slice(None, None, 2), tree.items[::2][::-1]),
    "extended deletion": lambda tree: tree.items.__delitem__(slice(0, 3, 2)),
    "from a list to a dict": lambda tree: tree.table.__setitem__("a", tree.items.pop()),
    "to a field and back": _fields,
    "exchange of containers": _exchange,
}


def held_in(tree: Any) -> list[Any]:
    return [*tree.items, *(tree.table[key] for key in sorted(tree.table)), tree.other]


@pytest.mark.exhaustive
@pytest.mark.parametrize("idiom", IDIOMS)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("where", ["outside", "block", "rolled back"])
async def test_objects_in_hand_stay_what_stands_there(symphony: Symphony, idiom: str, kind: str, where: str) -> None:
    """Whatever stands in the entity after an idiom in plain Python is the same object here; changing it is recorded."""
    make = MAKERS[kind]

    def build() -> Shrub:
        return Shrub(items=[make(0), make(1), make(2)], table={"a": make(3), "b": make(4)}, other=[make(5), make(6)])

    tree, plain = build(), _Plain([make(0), make(1), make(2)], {"a": make(3), "b": make(4)}, [make(5), make(6)])
    symphony.entities.add(tree)
    await symphony.flush()
    hand, mirror = [*tree.items, *tree.table.values()], [*plain.items, *plain.table.values()]
    if where == "outside":
        IDIOMS[idiom](tree)
    elif where == "block":
        async with symphony.transaction("Idiom"):
            IDIOMS[idiom](tree)
    else:
        with pytest.raises(KeyError):
            async with symphony.transaction("Idiom"):
                IDIOMS[idiom](tree)
                raise KeyError
    if where != "rolled back":
        IDIOMS[idiom](plain)
    for one, other in zip(hand, mirror, strict=True):
        stands = [position for position, item in enumerate(_walk(held_in(plain))) if item is other]
        assert [position for position, item in enumerate(_walk(held_in(tree))) if item is one] == stands
        touch(one)
    await assert_recorded(symphony, tree)


class _Plain:
    """The same fields, tracked by nobody."""

    def __init__(self, items: list[Any], table: dict[Any, Any], other: Any) -> None:
        self.items, self.table, self.other = items, table, other


def _walk(items: list[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        found.append(item)
        if isinstance(item, list) and item and not isinstance(item[0], int):
            found += item
    return found


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("order", ["take first", "put first"])
async def test_a_part_moves_between_entities(symphony: Symphony, kind: str, order: str) -> None:
    """In either order the object in hand is the one at its new place, and is recorded there alone."""
    one, two = symphony.entities.add(Shrub(items=[MAKERS[kind](1)])), symphony.entities.add(Shrub())
    node = one.items[0]
    if order == "take first":
        two.items.append(one.items.pop())
    else:
        two.items.append(node)
        del one.items[0]
    assert two.items[0] is node
    touch(node)
    assert one.items == []
    await assert_recorded(symphony, one, two)


@pytest.mark.parametrize("name", ["items", "table"])
@pytest.mark.parametrize("outcome", ["kept", "rolled back"])
async def test_entities_exchange_their_containers(symphony: Symphony, name: str, outcome: str) -> None:
    """`a.parts, b.parts = b.parts, a.parts` moves the containers themselves; a rollback moves them back."""
    one = symphony.entities.add(Shrub(items=[Twig(1)], table={"k": Twig(1)}))
    two = symphony.entities.add(Shrub(items=[Twig(2)], table={"k": Twig(2)}))
    mine, yours = getattr(one, name), getattr(two, name)
    try:
        async with symphony.transaction("Exchange"):
            first, second = getattr(two, name), getattr(one, name)
            setattr(one, name, first)
            setattr(two, name, second)
            if outcome == "rolled back":
                raise KeyError
    except KeyError:
        mine, yours = yours, mine
    assert getattr(one, name) is yours
    assert getattr(two, name) is mine
    for container in (mine, yours):
        touch(next(iter(container.values() if isinstance(container, dict) else container)))
    await assert_recorded(symphony, one, two)


async def test_where_something_was_taken_from_a_copy_stands(symphony: Symphony) -> None:
    """A part that is put into a second place stands there; its first place has an equal copy, and both are recorded apart."""
    tree = symphony.entities.add(Shrub(items=[Twig(1, ["a"])]))
    leaf = tree.items[0]
    tree.table["k"] = leaf
    assert tree.table["k"] is leaf
    assert tree.items[0] is not leaf
    assert tree.items[0] == leaf
    leaf.tags.append("b")
    tree.items[0].tags.append("c")
    assert (leaf.tags, tree.items[0].tags) == (["a", "b"], ["a", "c"])
    tree.items.append(leaf)
    tree.items.append(leaf)
    leaf.number = 5
    assert [item.number for item in tree.items] == [1, 1, 5]
    assert tree.table["k"].number == 1
    await assert_recorded(symphony, tree)


async def test_the_same_part_given_twice_stands_at_the_last_place(symphony: Symphony) -> None:
    """In one assignment, too, the last place has the object, and the others have copies."""
    leaf = Twig(1)
    tree = symphony.entities.add(Shrub(items=[leaf, leaf], table={"a": leaf}))
    assert [*tree.items, *tree.table.values()].count(leaf) == 3
    assert [item is leaf for item in (*tree.items, tree.table["a"])] == [False, False, True]
    tree.items = [leaf] * 3
    assert [item is leaf for item in tree.items] == [False, False, True]
    tree.items *= 2
    assert [item is leaf for item in tree.items] == [False] * 5 + [True]
    await assert_recorded(symphony, tree)


async def test_a_part_and_what_holds_it_are_put_beside_each_other(symphony: Symphony) -> None:
    """In either order, also where the part stands already: its last place has it, and a rollback leaves all as it was."""
    for order in (1, -1):
        shrub = symphony.entities.add(Shrub(items=[Twig(1), Twig(2)]))
        twig = shrub.items[0]
        with pytest.raises(LookupError):
            async with symphony.transaction("Undone"):
                shrub.items[0:2] = [[twig], twig][::order]
                twig.number = 5
                raise LookupError
        assert shrub.items == [Twig(1), Twig(2)]
        assert shrub.items[0] is twig
        await assert_recorded(symphony, shrub)
        shrub.items[0:2] = [[twig], twig][::order]
        assert (shrub.items[1] if order == 1 else shrub.items[1][0]) is twig
        twig.number = 6
        await assert_recorded(symphony, shrub)


async def test_what_was_taken_out_is_free_until_it_is_put_somewhere(symphony: Symphony) -> None:
    """A list that was replaced shares its parts with the new one, as in plain Python; put back, it takes them."""
    tree = symphony.entities.add(Shrub(items=[Twig(1), Twig(2)]))
    old = tree.items
    tree.items = [item for item in old if item.number == 1]
    old[1].number = 20
    old.append("nobody's")
    assert old[0] is tree.items[0]
    tree.other = old
    assert tree.other is old
    assert tree.items[0] is not old[0]
    old[0].number = 10
    assert [item.number for item in tree.items] == [1]
    await assert_recorded(symphony, tree)


async def test_what_is_outside_takes_copies(symphony: Symphony) -> None:
    """A new object that is made of an entity's containers gets copies: changing it changes nothing that is recorded."""
    tree = symphony.entities.add(Shrub(items=[Twig(1)]))
    template = Shrub(items=tree.items, other=tree.items[0])
    leaf = Twig(9, tree.items)
    template.items.append("mine")
    template.other.number = 5
    leaf.tags.clear()
    assert [item.number for item in tree.items] == [1]
    symphony.entities.add(template)
    await assert_recorded(symphony, tree, template)


async def test_another_transactions_parts_are_copied(symphony: Symphony) -> None:
    """What another transaction has claimed may be put back by it: nothing is taken from there."""
    one, two = symphony.entities.add(Shrub(items=[Twig(1)])), symphony.entities.add(Shrub())
    leaf = one.items[0]
    async with symphony.transaction("Claims", claim=[one]), Symphony() as stranger:
        copied = stranger.entities.add(Shrub())
        copied.items.append(leaf)
        assert copied.items[0] is not leaf
    assert one.items[0] is leaf
    two.items.append(leaf)
    assert two.items[0] is leaf
    await assert_recorded(symphony, one, two)


async def test_a_refreshed_entity_detaches_what_was_in_hand(symphony: Symphony) -> None:
    """Where something else stands now, changing what stood there is an error that says so, at any depth."""
    tree = symphony.entities.add(Shrub(items=[Twig(1, ["a"])], table={"k": Twig(2)}))
    items, leaf, tags, table = tree.items, tree.items[0], tree.items[0].tags, tree.table
    await symphony.refresh(tree)
    for change in (
        lambda: items.append(1),
        lambda: setattr(leaf, "number", 5),
        lambda: tags.append("lost"),
        lambda: table.clear(),
        lambda: table["k"].tags.append("lost"),
    ):
        with pytest.raises(DetachedPartError, match=f"Shrub:{tree.id}"):
            change()
    assert tree.items == [Twig(1, ["a"])]
    tree.table["leaf"] = leaf
    leaf.number = 7
    assert tree.table["leaf"] is leaf
    await assert_recorded(symphony, tree)


class TestRefusals:
    """A refusal leaves everything as it was: the container, the values given, and the log."""

    @pytest.mark.parametrize(
        "act",
        [
            lambda tree, bad: tree.items.extend([Twig(8), bad]),
            lambda tree, bad: tree.items.__setitem__(slice(None), [Twig(8), bad]),
            lambda tree, bad: tree.items.__setitem__(slice(None, None, 2), [Twig(8), bad]),
            lambda tree, bad: setattr(tree, "items", [Twig(8), bad]),
            lambda tree, bad: tree.table.update({"x": Twig(8), "y": bad}),
            lambda tree, bad: setattr(tree, "table", {"x": Twig(8), "y": bad}),
            lambda tree, bad: tree.other.update([1, 2, bad]),
            lambda tree, bad: tree.other.symmetric_difference_update([1, 2, bad]),
            lambda tree, bad: tree.items[0].tags.__iadd__([1, bad]),
        ],
    )
    @pytest.mark.parametrize("bad", ["object", "entity of another Symphony", "surrogate", "two of one id"])
    async def test_half_of_it_never_happens(self, symphony: Symphony, act: Callable[[Any, Any], Any], bad: str) -> None:
        """Every check comes before the first effect."""
        tree = symphony.entities.add(Shrub(items=[Twig(1), Twig(2), Twig(3)], table={"x": Twig(4)}, other={"a", 1}))
        await symphony.flush()
        before, hand, head = repr(tree), [*tree.items, *tree.table.values()], symphony.log.head
        async with Symphony() as stranger:
            given: Any = {
                "object": object(),
                "entity of another Symphony": stranger.entities.add(Shrub(id="foreign")),
                "surrogate": "\ud800",
                "two of one id": (Shrub(id="twin"), Shrub(id="twin")),
            }[bad]
            with pytest.raises((SymphonyError, TypeError)):
                act(tree, given)
        assert repr(tree) == before
        assert all(one is other for one, other in zip(hand, [*tree.items, *tree.table.values()], strict=True))
        assert symphony.entities.find("Shrub:twin") is None
        await symphony.flush()
        assert symphony.log.head == head
        touch(hand[0])
        await assert_recorded(symphony, tree)

    async def test_two_new_entities_of_one_id(self, symphony: Symphony) -> None:
        """They are refused together, wherever they stand in what is assigned."""
        tree = symphony.entities.add(Shrub())
        one, two = Shrub(id="x", other=1), Shrub(id="x", other=2)
        for act in (
            lambda: setattr(tree, "items", [one, two]),
            lambda: tree.items.extend([one, {"deep": two}]),
            lambda: tree.table.update(a=one, b=[two]),
            lambda: setattr(tree, "other", {one, two}),
            lambda: setattr(tree, "other", (one, Shrub(id="between", other=two))),
        ):
            with pytest.raises(EntityExistsError):
                act()
        assert (tree.items, tree.table, tree.other) == ([], {}, None)
        tree.items = [one, one]
        assert symphony.entities.get("Shrub:x") is one

    async def test_parts_of_a_refused_splice_belong_to_nothing(self, symphony: Symphony) -> None:
        """They can be changed, and be put somewhere as the objects they are."""
        tree, leaf = symphony.entities.add(Shrub()), Twig(1)
        async with Symphony() as stranger:
            with pytest.raises(SymphonyError):
                tree.items.extend([leaf, stranger.entities.add(Shrub())])
        leaf.number = 3
        tree.items.append(leaf)
        assert tree.items[0] is leaf
        await assert_recorded(symphony, tree)

    async def test_a_node_is_not_put_into_itself(self, symphony: Symphony) -> None:
        """Neither into what it holds, nor through something that was taken out."""
        tree = symphony.entities.add(Shrub(items=[Twig(1)]))
        leaf = tree.items[0]
        for act in (
            lambda: leaf.tags.append(tree.items),
            lambda: tree.items.append(tree.items),
            lambda: setattr(leaf, "inner", {"x": [leaf]}),
        ):
            with pytest.raises(UnstorableValueError, match="contain itself"):
                act()
        old = tree.items
        tree.items = [leaf]
        with pytest.raises(UnstorableValueError, match="contain itself"):
            leaf.tags.append(old)
        await assert_recorded(symphony, tree)


async def test_a_heap_is_assigned_as_a_list(symphony: Symphony) -> None:
    """The way that heapq has: work on a plain list, and assign it; only the difference is stored."""
    tree = symphony.entities.add(Shrub(items=[5, 7, 9]))
    heap = list(tree.items)
    heapq.heappush(heap, 1)
    tree.items = heap
    assert list(tree.items) == [1, 5, 9, 7]
    await assert_recorded(symphony, tree)
