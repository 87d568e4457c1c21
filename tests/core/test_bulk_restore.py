"""Restoring many entities: the short way of the library's own restorer makes what the long way makes, and nobody waits for it."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import EntityReference, Symphony, entity
from symphony_es.core.objects.declared_restorer import FLAT, DeclaredEntityRestorer
from symphony_es.core.objects.making import Making
from symphony_es.core.objects.plain import plain_of
from symphony_es.core.objects.restorers import RestorationContext, restore_manager
from symphony_es.errors import UnknownValueError
from symphony_es.events.codec import encode_canonical
from symphony_es.events.values import Tagged, copy_plain
from symphony_es.gc_pause import FEW, kept_objects
from tests.application import Customer
from tests.conftest import Opener


@entity(type="BulkThing")
class Thing:
    """Three fields that hold anything."""

    first: Any
    id: str = ""
    second: Any = None


APP = "tests.application"

atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.just(datetime(2026, 1, 1, tzinfo=UTC)), st.just(EntityReference("Customer", "a")),
    st.just(Tagged("enum", f"{APP}:Priority", "HIGH", value=2)), st.just(Tagged("enum", f"{APP}:Priority", "old", value=2)),
    st.just(Tagged("enum", f"{APP}:Priority", "gone")), st.just(Tagged("enum", "Unknown", "X")),
)  # fmt: skip
plain = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3),
        st.tuples(atoms, atoms),
        st.sets(st.integers(0, 5) | st.text(max_size=1), max_size=3),
        st.builds(lambda item: Tagged("part", f"{APP}:Line", {"text": "t", "price": None, "tags": [item]}), inner),
        st.builds(lambda item: Tagged("part", f"{APP}:Line", {"text": item, "price": None}), inner),
        st.builds(lambda item: Tagged("part", "Nobody", {"text": item}), inner),
    ),
    max_leaves=8,
)


@given(first=plain, second=plain, turned=st.booleans())
def test_the_short_way_makes_what_the_long_way_makes(first: Any, second: Any, turned: bool) -> None:
    """For any state: the same objects, whose plain data are the state where nothing says otherwise, or the same names that nobody knows."""
    state = {"first": first, "id": "1", "second": second}
    if turned:
        state = dict(reversed(state.items()))
    restorer = restore_manager.restorer_for("BulkThing")
    assert isinstance(restorer, DeclaredEntityRestorer)
    assert restorer.is_exact
    making = Making(restore_manager.types)
    flat = FLAT.issuperset(map(type, state.values()))
    before = copy_plain(state)
    short = restorer.make("1", state, making, flat=flat)
    assert encode_canonical(before) == encode_canonical(state), "the state is left as it was"
    try:
        long = asyncio.run(restorer.restore("1", copy_plain(state), RestorationContext(Symphony())))
    except UnknownValueError as error:
        refused = set(error.classes)
    else:
        refused = set()
    assert set(making.unmade) == refused
    if refused:
        return
    made = {name: plain_of(item, None) for name, item in vars(short).items()}
    assert encode_canonical(made) == encode_canonical({name: plain_of(item, None) for name, item in vars(long).items()})
    assert (encode_canonical(made) != encode_canonical(before)) == making.changed, "a difference is never passed over"
    assert list(vars(short)) == ["first", "id", "second"]


@pytest.mark.parametrize("state", [{"first": 1, "id": "1"}, {"first": 1, "id": "1", "second": 2, "third": 3}])
def test_a_state_of_other_fields_takes_the_long_way(state: dict[str, Any]) -> None:
    """A default, or a report of what the class lacks, is not for the short way."""
    restorer = restore_manager.restorer_for("BulkThing")
    assert isinstance(restorer, DeclaredEntityRestorer)
    assert restorer.make("1", state, Making(restore_manager.types), flat=True) is None


def test_the_collector_is_put_back() -> None:
    """Off inside, on afterwards, also after an error; where the application had turned it off, it stays off."""
    assert gc.isenabled()
    with pytest.raises(KeyError), kept_objects():
        assert not gc.isenabled()
        with kept_objects():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the inner block leaves it to the outer one"
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with kept_objects():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_kept_counts_as_old_and_can_still_be_collected() -> None:
    """No pass over young objects looks at it, nothing is frozen, and a cycle of it that nobody holds any more goes."""

    class Node:
        alive = 0

        def __init__(self) -> None:
            self.me = self
            type(self).alive += 1

        def __del__(self) -> None:
            type(self).alive -= 1

    with kept_objects():
        kept = [Node() for _ in range(FEW * 3)]
    assert gc.get_count()[0] < FEW, "none of them waits for a pass"
    assert gc.get_freeze_count() == 0
    assert Node.alive == len(kept)
    del kept
    gc.collect()
    assert Node.alive == 0


async def test_others_have_their_turn_while_thousands_are_restored(reopen: Opener) -> None:
    """The event loop goes on between slices of the work, of the connecting and of the comparing."""
    symphony = await reopen()
    previous = None
    for number in range(3000):
        previous = symphony.entities.add(Customer(id=f"{number:04d}", name="x" * 50, boss=previous))
    await symphony.flush()
    symphony = await reopen()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    report = await symphony.resume()
    task.cancel()
    assert report.complete
    assert report.restored == 3000
    assert turns > 5
    chain = symphony.entities.get("Customer:2999")
    for _ in range(2999):
        chain = chain.boss
    assert chain is symphony.entities.get("Customer:0000")
    assert chain.boss is None
