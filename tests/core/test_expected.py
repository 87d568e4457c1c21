"""What Python programs expect of objects and containers holds for live entities, parts, values and tracked containers."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastapi
import pydantic
import pytest

from symphony_es import Symphony, entity, part, value
from symphony_es.core.objects.tracked_dict import TrackedDict
from symphony_es.core.objects.tracked_list import TrackedList
from symphony_es.core.objects.tracked_set import TrackedSet
from symphony_es.errors import EntityExistsError


@value
class Price:
    amount: int
    currency: str = "EUR"


@part
class Item:
    text: str
    price: Price = Price(0)
    tags: list[str] = field(default_factory=list)


@entity
class Buyer:
    name: str = ""
    friend: Buyer | None = None


@entity
class Basket:
    id: str = ""
    items: list[Item] = field(default_factory=list)
    by_name: dict[str, list[int]] = field(default_factory=dict)
    codes: set[int] = field(default_factory=set)
    buyer: Buyer | None = None
    pair: tuple[int, str] = (1, "a")
    best: Item | None = None


PICKLES = [lambda obj, protocol=protocol: pickle.loads(pickle.dumps(obj, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {protocol}": made for protocol, made in enumerate(PICKLES)},
}
REPLACERS: dict[str, Any] = {"dataclasses.replace": dataclasses.replace, "copy.replace": getattr(copy, "replace", dataclasses.replace)}


def filled(symphony: Symphony) -> Basket:
    buyer = symphony.entities.add(Buyer(id="b", name="Ann"))
    return symphony.entities.add(
        Basket(
            id="1", items=[Item("nut", Price(3), ["x"]), Item("bolt")], by_name={"k": [1, 2]}, codes={1, 2}, buyer=buyer, best=Item("best")
        )
    )


@pytest.fixture
async def basket(symphony: Symphony) -> Basket:
    return filled(symphony)


async def events(symphony: Symphony) -> int:
    await symphony.flush()
    return symphony.log.head


@pytest.mark.parametrize("way", COPIES)
async def test_a_copied_entity_is_one_of_no_symphony(way: str, basket: Basket, symphony: Symphony) -> None:
    """It has the same id and equal fields, shares nothing that changes, records nothing, and can be added under another id."""
    before = await events(symphony)
    twin = COPIES[way](basket)
    assert (type(twin), twin.id, twin is basket, twin == basket) == (Basket, "1", False, False)
    assert dataclasses.asdict(twin) == dataclasses.asdict(basket)
    assert (twin.buyer is basket.buyer) is (way == "copy")
    twin.items[0].tags.append("y")
    twin.by_name["k"].append(3)
    twin.codes.add(3)
    twin.items.append(Item("new"))
    twin.best.text = "changed"
    assert await events(symphony) == before
    assert (basket.items[0].tags, basket.by_name, basket.codes) == (["x"], {"k": [1, 2]}, {1, 2})
    assert (len(basket.items), basket.best.text) == (2, "best")
    with pytest.raises(EntityExistsError):
        symphony.entities.add(twin)
    twin.id = "2"
    if twin.buyer is not basket.buyer:
        twin.buyer.id = "c"
    symphony.entities.add(twin)
    twin.items[0].tags.append("z")
    assert await events(symphony) > before
    assert (await symphony.at("latest")).get("Basket:2")["codes"] == {1, 2, 3}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("which", ["entity", "part"])
async def test_what_was_put_beside_the_state_is_copied_as_well(way: str, which: str, basket: Basket, symphony: Symphony) -> None:
    """Also where no assignment could have put it: what `object.__setattr__` and `__dict__` keep is no field, and is no change."""
    before = await events(symphony)
    obj = basket if which == "entity" else basket.best
    object.__setattr__(obj, "client", ["a client"])
    vars(obj)["other"] = 5
    twin = COPIES[way](obj)
    assert (twin.client, twin.other) == (["a client"], 5)
    assert await events(symphony) == before


@pytest.mark.parametrize("way", [way for way in COPIES if way != "copy"])
async def test_circles_of_entities_are_copied(way: str, symphony: Symphony) -> None:
    """Two that refer to each other come out as two that refer to each other."""
    one = symphony.entities.add(Buyer(id="1"))
    two = symphony.entities.add(Buyer(id="2", friend=one))
    one.friend = two
    twin = COPIES[way](one)
    assert twin.friend is not two
    assert twin.friend.friend is twin


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", ["items", "by_name", "codes"])
async def test_a_copied_container_is_a_plain_one(way: str, name: str, basket: Basket) -> None:
    """A list, dict or set of the builtin type, equal to what was copied."""
    held = getattr(basket, name)
    twin = COPIES[way](held)
    assert type(twin) in (list, dict, set)
    assert twin == held
    assert held == twin
    assert type(held) is not type(twin)


@pytest.mark.parametrize("way", COPIES)
async def test_a_copied_part_is_new(way: str, basket: Basket, symphony: Symphony) -> None:
    """It stands nowhere: its changes are recorded nowhere until it is put somewhere, and it is put there as it is."""
    twin = COPIES[way](basket.items[0])
    before = await events(symphony)
    assert (type(twin), twin == basket.items[0], twin is basket.items[0]) == (Item, True, False)
    twin.text, twin.price = "other", Price(9)
    twin.tags.append("y")
    assert await events(symphony) == before
    assert basket.items[0] == Item("nut", Price(3), ["x"])
    basket.items.append(twin)
    assert basket.items[-1] is twin
    assert await events(symphony) == before + 1


@pytest.mark.parametrize("way", COPIES)
async def test_a_copied_value_is_equal(way: str, basket: Basket) -> None:
    """Values are equal and hash alike wherever they come from."""
    twin = COPIES[way](basket.items[0].price)
    assert {twin, basket.items[0].price} == {Price(3)}


@pytest.mark.parametrize("way", REPLACERS)
async def test_replace_makes_an_object_of_no_symphony(way: str, basket: Basket, symphony: Symphony) -> None:
    """Of an entity with another id or a new one, of a part, and of a value; what is not replaced is copied."""
    before = await events(symphony)
    replace = REPLACERS[way]
    twin = replace(basket, id="2", codes={7})
    assert (twin.id, twin.codes, twin.items == basket.items, twin.items is basket.items) == ("2", {7}, True, False)
    twin.items[0].text = "changed"
    assert basket.items[0].text == "nut"
    assert len(replace(basket, id="").id) == 26
    assert replace(basket.items[0], text="z") == Item("z", Price(3), ["x"])
    assert replace(Price(3), amount=4) == Price(4)
    assert await events(symphony) == before
    symphony.entities.add(twin)


async def test_dataclass_functions_give_plain_data(basket: Basket) -> None:
    """`asdict` and `astuple` hold builtin containers only; `fields` are those of the class, with the id."""
    told = dataclasses.asdict(basket)
    assert told["items"][0] == {"text": "nut", "price": {"amount": 3, "currency": "EUR"}, "tags": ["x"]}
    assert {type(found) for found in walk(told)} == {dict, list, set, tuple, str, int, type(None)}
    assert {type(found) for found in walk(dataclasses.astuple(basket))} == {dict, list, set, tuple, str, int, type(None)}
    assert [found.name for found in dataclasses.fields(basket)] == ["id", "items", "by_name", "codes", "buyer", "pair", "best"]


def walk(data: Any) -> list[Any]:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, (list, tuple, set)) else ()
    return [data, *(found for item in inner for found in walk(item))]


PLAIN: list[tuple[str, Any]] = [("items", [Item("nut", Price(3), ["x"]), Item("bolt")]), ("by_name", {"k": [1, 2]}), ("codes", {1, 2})]


@pytest.mark.parametrize(("name", "plain"), PLAIN)
async def test_containers_equal_plain_ones_both_ways(name: str, plain: Any, basket: Basket) -> None:
    """Tracked or plain makes no difference to `==` and `!=`; they cannot be hashed, as plain ones; `isinstance` holds."""
    held = getattr(basket, name)
    assert (held == plain, plain == held, held != plain, plain != held) == (True, True, False, False)
    assert isinstance(held, type(plain))
    assert bool(held)
    with pytest.raises(TypeError, match="unhashable"):
        hash(held)


async def test_what_is_equal_and_what_can_be_hashed(basket: Basket, symphony: Symphony) -> None:
    """Entities by identity, parts by value and unhashable, values by value."""
    assert Buyer(id="1") != Buyer(id="1")
    assert {basket: 1}[basket] == 1
    assert basket.items[1] == Item("bolt")
    with pytest.raises(TypeError, match="unhashable"):
        hash(basket.items[0])
    assert {Price(3)} == {basket.items[0].price}
    assert basket.items.index(Item("bolt")) == 1
    assert Item("bolt") in basket.items


OPERATIONS: dict[str, Callable[[Basket], Any]] = {
    "slice": lambda b: b.items[:1],
    "slice with a step": lambda b: b.items[::-1],
    "list + list": lambda b: b.items + [1],  # noqa: RUF005
    "plain + list": lambda b: [1] + b.items,  # noqa: RUF005
    "list * n": lambda b: b.items * 2,
    "n * list": lambda b: 2 * b.items,
    "list.copy": lambda b: b.items.copy(),
    "sorted": lambda b: sorted(b.items, key=lambda item: item.text),
    "dict.copy": lambda b: b.by_name.copy(),
    "dict | dict": lambda b: b.by_name | {"z": [1]},
    "plain | dict": lambda b: {"z": [1]} | b.by_name,
    "fromkeys": lambda b: b.by_name.fromkeys(["a"]),
    "set.copy": lambda b: b.codes.copy(),
    "set | set": lambda b: b.codes | {9},
    "plain | set": lambda b: {9} | b.codes,
    "set & set": lambda b: b.codes & {1},
    "set - set": lambda b: b.codes - {1},
    "set ^ set": lambda b: b.codes ^ {1},
    "union": lambda b: b.codes.union([9]),
    "intersection": lambda b: b.codes.intersection([1]),
    "difference": lambda b: b.codes.difference([1]),
    "symmetric_difference": lambda b: b.codes.symmetric_difference([1]),
    "type(list)(...)": lambda b: type(b.items)(b.items),
    "type(dict)(...)": lambda b: type(b.by_name)(b.by_name),
    "type(set)(...)": lambda b: type(b.codes)(b.codes),
    "set of nothing": lambda b: type(b.codes)(),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_what_operations_give_is_plain(name: str, basket: Basket, symphony: Symphony) -> None:
    """It is of the builtin type, and changing it changes nothing of the entity."""
    before = await events(symphony)
    made = OPERATIONS[name](basket)
    assert type(made) in (list, dict, set)
    assert type(made) not in (TrackedList, TrackedDict, TrackedSet)
    made.clear()
    assert (len(basket.items), basket.by_name, basket.codes) == (2, {"k": [1, 2]}, {1, 2})
    assert await events(symphony) == before


async def test_changing_while_iterating_is_as_with_plain_ones(basket: Basket) -> None:
    """A list goes on; a dict and a set say that they changed."""
    seen = []
    for item in basket.items:
        seen.append(item.text)
        if len(seen) == 1:
            basket.items.append(Item("late"))
    assert seen == ["nut", "bolt", "late"]
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        for key in basket.by_name:
            basket.by_name[key + "2"] = []
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        for code in basket.codes:
            basket.codes.add(code + 10)


async def test_json(basket: Basket) -> None:
    """Lists and dicts are encoded as they are; sets are not, as plain ones; `to_dict` of answers is encoded."""
    assert json.loads(json.dumps(basket.by_name)) == {"k": [1, 2]}
    assert json.dumps(basket.items[0].tags) == '["x"]'
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(basket.codes)


async def test_answers_about_the_past_are_json(basket: Basket, symphony: Symphony) -> None:
    """Versions, differences and states."""
    basket.codes.add(5)
    await symphony.flush()
    versions = await symphony.history("Basket:1")
    difference = await symphony.diff(1, "latest")
    for told in ([version.to_dict() for version in versions], difference.to_dict(), (await symphony.at("latest")).to_dict()):
        assert json.loads(json.dumps(told)) == told


class ItemOut(pydantic.BaseModel):
    model_config = {"from_attributes": True}
    text: str
    tags: list[str]


class BasketOut(pydantic.BaseModel):
    model_config = {"from_attributes": True}
    id: str
    items: list[ItemOut]
    by_name: dict[str, list[int]]
    codes: set[int]
    pair: tuple[int, str]


ADAPTED: list[tuple[Any, str, Any, Any]] = [
    (list[ItemOut], "items", [ItemOut(text="nut", tags=["x"]), ItemOut(text="bolt", tags=[])], list),
    (list[Any], "items", [Item("nut", Price(3), ["x"]), Item("bolt")], list),
    (dict[str, list[int]], "by_name", {"k": [1, 2]}, dict),
    (set[int], "codes", {1, 2}, set),
    (frozenset[int], "codes", frozenset({1, 2}), frozenset),
    (tuple[Any, ...], "items", (Item("nut", Price(3), ["x"]), Item("bolt")), tuple),
    (Mapping[str, list[int]], "by_name", {"k": [1, 2]}, dict),
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("annotation", "name", "expected", "builtin"), ADAPTED)
async def test_pydantic_takes_tracked_containers(
    annotation: Any, name: str, expected: Any, builtin: type, strict: bool, basket: Basket
) -> None:
    """What it validates into is plain; a strict one takes them where it takes a plain one."""
    adapter = pydantic.TypeAdapter(annotation)
    plain = {"items": list, "by_name": dict, "codes": set}[name](getattr(basket, name))
    try:
        found = adapter.validate_python(plain, strict=strict, from_attributes=True)
    except pydantic.ValidationError as error:
        with pytest.raises(pydantic.ValidationError, match=error.errors()[0]["type"].split("_")[0]):
            adapter.validate_python(getattr(basket, name), strict=strict, from_attributes=True)
        return
    assert adapter.validate_python(getattr(basket, name), strict=strict, from_attributes=True) == found == expected
    assert type(found) is builtin


async def test_pydantic_takes_entities(basket: Basket, symphony: Symphony) -> None:
    """By their attributes, as themselves, and by their fields as a dataclass; nothing is recorded by that."""
    before = await events(symphony)
    made = BasketOut.model_validate(basket)
    assert made.model_dump() == {
        "id": "1",
        "items": [{"text": "nut", "tags": ["x"]}, {"text": "bolt", "tags": []}],
        "by_name": {"k": [1, 2]},
        "codes": {1, 2},
        "pair": (1, "a"),
    }
    adapter = pydantic.TypeAdapter(Basket)
    assert adapter.validate_python(basket) is basket
    assert adapter.dump_python(basket, mode="json")["codes"] == [1, 2]
    fresh = adapter.validate_python({"id": "9", "items": [{"text": "q"}], "by_name": {"k": [1]}, "best": {"text": "z"}})
    assert (type(fresh), fresh.items) == (Basket, [Item("q")])
    assert await events(symphony) == before
    symphony.entities.add(fresh)
    fresh.items.append(adapter.validate_python({"items": [{"text": "r"}]}).items[0])
    for part_of_it in (*fresh.items, fresh.best):
        part_of_it.tags.append("new")
    fresh.by_name["k"].append(2)
    await symphony.flush()
    state = (await symphony.at("latest")).get("Basket:9")
    assert [item.data["tags"] for item in (*state["items"], state["best"])] == [["new"]] * 3
    assert state["by_name"] == {"k": [1, 2]}


async def answered(app: fastapi.FastAPI, path: str) -> Any:
    """The JSON that an application sends as its answer to a GET."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "raw_path": path.encode()}
    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    return json.loads(b"".join(message.get("body", b"") for message in sent))


async def test_fastapi_answers(basket: Basket) -> None:
    """An entity, a part, a container, with a response model and without one, and what `to_dict` gives."""
    app = fastapi.FastAPI()
    basket.buyer = None
    answers: dict[str, tuple[Callable[[], Any], Any]] = {
        "plain": (lambda: basket, None),
        "model": (lambda: basket, BasketOut),
        "itself": (lambda: basket, Basket),
        "part": (lambda: basket.items[0], None),
        "list": (lambda: basket.items, list[ItemOut]),
        "dict": (lambda: basket.by_name, None),
        "set": (lambda: basket.codes, None),
    }
    for name, (answer, model) in answers.items():
        app.get(f"/{name}", response_model=model)(answer)
    told = {name: await answered(app, f"/{name}") for name in answers}
    items = [{"text": "nut", "tags": ["x"]}, {"text": "bolt", "tags": []}]
    assert told["model"] == {"id": "1", "items": items, "by_name": {"k": [1, 2]}, "codes": [1, 2], "pair": [1, "a"]}
    assert told["list"] == items
    assert told["part"] == {"text": "nut", "price": {"amount": 3, "currency": "EUR"}, "tags": ["x"]}
    assert (told["dict"], told["set"]) == ({"k": [1, 2]}, [1, 2])
    assert told["plain"] == told["itself"]
    assert told["plain"]["best"]["text"] == "best"


async def test_match(basket: Basket) -> None:
    """Class patterns by position and by name, sequence and mapping patterns."""
    match basket:
        case Basket("1", [Item("nut", Price(amount)), *rest], {"k": [first, _]}):
            assert (amount, len(rest), first) == (3, 1, 1)
        case _:
            pytest.fail("no match")
    match basket.by_name:
        case {"k": [1, *others], **more}:
            assert (others, more) == ([2], {})
        case _:
            pytest.fail("no match")
    assert Basket.__match_args__[:2] == ("id", "items")
    assert isinstance(basket.items, Sequence)
    assert isinstance(basket.by_name, Mapping)


async def test_reprs(basket: Basket, symphony: Symphony) -> None:
    """Containers as plain ones, entities that are referred to by their keys, so that circles end."""
    assert repr(basket.items[0]) == "Item(text='nut', price=Price(amount=3, currency='EUR'), tags=['x'])"
    assert repr(basket.by_name) == "{'k': [1, 2]}"
    assert repr(basket.codes) == "{1, 2}"
    assert repr(type(basket.codes)._symphony_make()) == "set()"
    basket.buyer.friend = basket.buyer
    assert repr(basket.buyer) == "Buyer(name='Ann', friend=<Buyer:b>, id='b')"
    assert "buyer=<Buyer:b>" in str(basket)
    assert f"{basket.by_name}" == "{'k': [1, 2]}"


@dataclass
class Holder:
    """A plain dataclass that holds what is tracked."""

    items: Any
    of: Any


@pytest.mark.parametrize("way", COPIES)
async def test_what_holds_them_is_copied_with_them(way: str, basket: Basket, symphony: Symphony) -> None:
    """A plain object with a tracked list and an entity in it; the copy's list is plain unless the copy is a shallow one."""
    before = await events(symphony)
    twin = COPIES[way](Holder(basket.items, basket))
    assert twin.items == basket.items
    assert (twin.of is basket) is (way == "copy")
    assert type(twin.items) is (TrackedList if way == "copy" else list)
    assert await events(symphony) == before
