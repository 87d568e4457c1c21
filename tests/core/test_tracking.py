"""Objects record their own changes: whatever is done to one, the fold of its events is its state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import EntityReference, Symphony, entity
from symphony_es.core.objects.plain import plain_at
from symphony_es.errors import EntityOwnershipError, UnstorableValueError
from symphony_es.events.values import Tagged, plain_equal
from tests.application import Customer, Invoice, Line, Money, Priority


def state_of(obj: Any, symphony: Symphony) -> dict[str, Any]:
    return {name: plain_at(obj.__dict__[name], symphony.world, name) for name in type(obj)._symphony_spec.fields}


async def folded(symphony: Symphony, obj: Any) -> dict[str, Any]:
    await symphony.flush()
    return (await symphony.at(symphony.log.head)).get(obj)


async def test_every_kind_of_field_comes_out_of_the_fold_as_it_went_in(symphony: Symphony) -> None:
    """Scalars, containers, parts, values, enums and references are recorded as plain data."""
    boss = Customer(id="boss")
    invoice = Invoice(id="1", customer=boss, lines=[Line("a", Money(3), ["x"])], priority=Priority.HIGH, labels={"b"})
    symphony.entities.add(invoice)
    state = await folded(symphony, invoice)
    assert state["customer"] == EntityReference("Customer", "boss")
    assert state["priority"] == Tagged("enum", "tests.application:Priority", "HIGH", value=2)
    assert state["lines"][0].data["price"] == Tagged("value", "tests.application:Money", {"amount": 3, "currency": "EUR"})
    assert plain_equal(state, state_of(invoice, symphony))


async def test_each_assignment_is_a_change_of_its_own(symphony: Symphony) -> None:
    """Assigning A, then B, then C is three changes, in order."""
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    for name in "ABC":
        customer.name = name
    await symphony.flush()
    event = (await symphony.log.read_entity("Customer:c"))[-1]
    assert [change[2] for change in event.changes] == ["A", "B", "C"]
    assert event.name == "CustomerChanged"


async def test_changes_deep_inside_are_recorded_with_their_path(symphony: Symphony) -> None:
    """A part in a list in an entity knows where it stands, also after it has moved."""
    invoice = symphony.entities.add(Invoice(id="1", lines=[Line("a"), Line("b")]))
    second = invoice.lines[1]
    invoice.lines.insert(0, Line("zero"))
    second.tags.append("moved")
    second.price = Money(7)
    assert plain_equal(await folded(symphony, invoice), state_of(invoice, symphony))
    assert (await folded(symphony, invoice))["lines"][2].data["tags"] == ["moved"]


async def test_what_left_a_container_is_recorded_no_more(symphony: Symphony) -> None:
    """A popped part is its holder's own; putting it back adopts it as it is then."""
    invoice = symphony.entities.add(Invoice(id="1", lines=[Line("a"), Line("b")]))
    line = invoice.lines.pop(0)
    line.text = "changed outside"
    invoice.lines.append(line)
    line.text = "and inside"
    assert [item.data["text"] for item in (await folded(symphony, invoice))["lines"]] == ["b", "and inside"]


async def test_two_places_never_share_a_container(symphony: Symphony) -> None:
    """Assigning a container that belongs elsewhere copies it."""
    one = symphony.entities.add(Customer(id="1", notes={"list": [1]}))
    two = symphony.entities.add(Customer(id="2"))
    two.notes = one.notes
    mine = [1]
    one.friends = mine
    mine.append(2)
    two.notes["list"].append(2)
    assert (await folded(symphony, one))["notes"] == {"list": [1]}
    assert (await folded(symphony, one))["friends"] == [1]
    assert (await folded(symphony, two))["notes"] == {"list": [1, 2]}


async def test_entities_that_are_referred_to_come_along(symphony: Symphony) -> None:
    """Adding or assigning brings what is referred to, cycles and self-references included."""
    a, b = Customer(id="a"), Customer(id="b")
    a.boss, b.boss, a.friends = b, a, [a]
    symphony.entities.add(a)
    c = Customer(id="c")
    b.notes["deputy"] = c
    await symphony.flush()
    assert {obj.id for obj in symphony.entities.all("Customer")} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (object(), "no plain data"),
        ({True: 1}, "keys are str or int"),
        ({1.5: 1}, "keys are str or int"),
        (frozenset({1}), "use a set"),
        (([],), "could change without being recorded"),
        ({float("nan")}, "NaN"),
        ("\ud800", "surrogate"),
        (type("Sub", (dict,), {})(), "subclass of dict"),
    ],
)
async def test_what_cannot_be_stored_is_refused_at_the_assignment(symphony: Symphony, wrong: Any, words: str) -> None:
    """The error names entity, path and way out; object and log are as before."""
    customer = symphony.entities.add(Customer(id="c", notes={"a": 1}))
    await symphony.flush()
    head = symphony.log.head
    with pytest.raises(UnstorableValueError, match=words) as caught:
        customer.notes["deep"] = [wrong]
    assert caught.value.entity == "Customer:c"
    assert caught.value.path[:3] == ("notes", "deep", 0)
    await symphony.flush()
    assert symphony.log.head == head
    assert customer.notes == {"a": 1}


async def test_a_container_cannot_contain_itself(symphony: Symphony) -> None:
    """A tree of parts stays a tree."""
    customer = symphony.entities.add(Customer(id="c"))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnstorableValueError, match="contains itself"):
        customer.friends = loop
    invoice = symphony.entities.add(Invoice(id="i", lines=[Line("a")]))
    line = invoice.lines.pop()
    with pytest.raises(UnstorableValueError, match="contain itself"):
        line.tags.append(line)


async def test_undeclared_attributes_are_refused_and_private_ones_are_not_state(symphony: Symphony) -> None:
    """A typo in an attribute's name is an error, never a silent loss."""
    customer = symphony.entities.add(Customer(id="c"))
    with pytest.raises(AttributeError, match="has no field 'nmae'"):
        customer.nmae = "x"
    customer._client = object()
    assert "_client" not in await folded(symphony, customer)
    with pytest.raises(AttributeError, match="cannot change"):
        customer.id = "other"
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del customer.name


async def test_an_object_belongs_to_one_symphony(symphony: Symphony) -> None:
    """Two Symphonies in one process share nothing."""
    customer = symphony.entities.add(Customer(id="c"))
    async with Symphony() as other:
        with pytest.raises(EntityOwnershipError):
            other.entities.add(customer)


def test_ids_are_made_when_left_out_or_empty() -> None:
    """All the ways of declaring and giving the id work."""

    @entity(type="WithRequiredId")
    class WithRequiredId:
        id: str
        name: str

    @entity(type="WithoutId")
    class WithoutId:
        name: str = ""

    assert WithRequiredId("7", "n").id == "7"
    assert len(WithRequiredId(name="n").id) == 26  # type: ignore[call-arg]
    assert len(WithRequiredId("", "n").id) == 26
    assert len(WithoutId().id) == 26  # type: ignore[attr-defined]
    assert WithoutId(id="x").id == "x"  # type: ignore[call-arg]
    assert WithRequiredId(name="a").id < WithRequiredId(name="b").id  # type: ignore[call-arg]


scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3), max_leaves=6
)
indexes = st.integers(-4, 6)
slices = st.builds(slice, st.none() | indexes, st.none() | indexes, st.sampled_from([None, 1, 2, -1]))

list_calls = st.one_of(
    st.tuples(st.just("append"), nested),
    st.tuples(st.just("extend"), st.lists(nested, max_size=3)),
    st.tuples(st.just("insert"), indexes, nested),
    st.tuples(st.just("pop"), indexes),
    st.tuples(st.just("remove"), scalars),
    st.tuples(st.just("clear")),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("sort_by_repr")),
    st.tuples(st.just("__setitem__"), indexes, nested),
    st.tuples(st.just("__setitem__"), slices, st.lists(nested, max_size=3)),
    st.tuples(st.just("__delitem__"), indexes | slices),
    st.tuples(st.just("__iadd__"), st.lists(nested, max_size=2)),
    st.tuples(st.just("__imul__"), st.integers(-1, 2)),
)
dict_calls = st.one_of(
    st.tuples(st.just("__setitem__"), st.text("abc", max_size=1) | st.integers(0, 2), nested),
    st.tuples(st.just("__delitem__"), st.text("abc", max_size=1)),
    st.tuples(st.just("pop"), st.text("abc", max_size=1), st.just(None)),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("setdefault"), st.text("abc", max_size=1), nested),
    st.tuples(st.just("update"), st.dictionaries(st.text("abc", max_size=1), nested, max_size=3)),
    st.tuples(st.just("__ior__"), st.dictionaries(st.text("abc", max_size=1), nested, max_size=3)),
)
members = st.integers(0, 5) | st.text("ab", max_size=1) | st.booleans()
set_calls = st.one_of(
    st.tuples(st.sampled_from(["add", "discard", "remove"]), members),
    st.tuples(st.just("clear")),
    st.tuples(
        st.sampled_from(["update", "difference_update", "intersection_update", "symmetric_difference_update"]), st.sets(members, max_size=4)
    ),
    st.tuples(st.sampled_from(["__ior__", "__iand__", "__isub__", "__ixor__"]), st.sets(members, max_size=4)),
)


def call(target: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        if name == "sort_by_repr":
            return target.sort(key=repr)
        return getattr(target, name)(*arguments)
    except (IndexError, KeyError, ValueError) as error:
        return type(error)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["list", "dict", "set"]), st.data())
def test_containers_behave_as_the_builtin_ones_and_fold_to_the_same(kind: str, data: st.DataObject) -> None:
    """Any sequence of mutating calls leaves builtin, tracked container and fold equal."""
    calls = data.draw(st.lists({"list": list_calls, "dict": dict_calls, "set": set_calls}[kind], max_size=12))

    async def run() -> None:
        async with Symphony() as symphony:
            model: Any = {"list": list, "dict": dict, "set": set}[kind]()
            customer = symphony.entities.add(Customer(id="c", notes={"it": model}))
            for name, *arguments in calls:
                tracked = customer.notes["it"]
                expected = call(model, name, tuple(arguments))
                actual = call(tracked, name, tuple(arguments))
                if name not in ("__iadd__", "__imul__", "__ior__", "__iand__", "__isub__", "__ixor__"):
                    assert actual == expected, name
                assert tracked == model, name
            assert plain_equal(await folded(symphony, customer), state_of(customer, symphony))

    asyncio.run(run())
