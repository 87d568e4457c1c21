"""The references projection counts what events change; the plain version is a walk through every state."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, REMOVE, SET, SPLICE, Change, apply_changes
from symphony_es.events.event import Event, EventMetadata
from symphony_es.events.references import EntityReference, find_references
from symphony_es.events.values import copy_plain
from symphony_es.projections import References

leaves = st.one_of(st.integers(0, 3), st.sampled_from([EntityReference("T", name) for name in "abc"]))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
        st.sets(leaves, max_size=3),
        st.tuples(inner),
    ),
    max_leaves=6,
)


def places(state: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Every place of a state with what stands there."""
    found = [(path, state)]
    if type(state) in (dict, list):
        for key, item in state.items() if type(state) is dict else enumerate(state):
            found += places(item, (*path, key))
    return found


def draw_change(data: st.DataObject, state: dict[str, Any]) -> Change:
    """A change that fits a state."""
    path, there = data.draw(st.sampled_from(places(state)))
    if type(there) is dict:
        key = data.draw(st.sampled_from("xyzw"))
        return (REMOVE, (*path, key)) if key in there and data.draw(st.booleans()) else (SET, (*path, key), data.draw(values))
    if type(there) is list:
        start = data.draw(st.integers(0, len(there)))
        stop = data.draw(st.integers(start, len(there)))
        return data.draw(
            st.sampled_from(
                [
                    (APPEND, path, data.draw(values)), (INSERT, path, start, data.draw(values)),
                    (SPLICE, path, start, stop, data.draw(st.lists(values, max_size=2))),
                ]
            )
        )  # fmt: skip
    if type(there) is set:
        return (data.draw(st.sampled_from([ADD, DISCARD])), path, data.draw(leaves))
    return (SET, path, data.draw(values))


def event(position: int, version: int, changes: list[Change]) -> Event:
    """An event of one entity."""
    return Event(
        position=position, entity_key="H:h", version=version, name="HChanged", event_id=bytes(16), time_ns=0, transaction_id=bytes(16),
        changes=tuple(copy_plain(list(changes))), metadata=EventMetadata(),
    )  # fmt: skip


@given(st.data())
def test_counting_what_changes_is_the_same_as_looking_everywhere(data: st.DataObject) -> None:
    """After every event of any changes, in both directions, and where they stand; asked in between or only at the end."""
    state: dict[str, Any] | None = None
    references = References()
    for version in range(1, data.draw(st.integers(2, 8)) + 1):
        changes: list[Change] = []
        for _ in range(data.draw(st.integers(1, 4))):
            if state is None:
                change: Change = (SET, (), data.draw(st.dictionaries(st.sampled_from("xyz"), values, max_size=3)))
            elif data.draw(st.integers(0, 15)) == 0:
                change = (REMOVE, ())
            else:
                change = draw_change(data, state)
            changes.append(copy_plain(change))
            state = apply_changes(state, [change])
        references.feed([event(version, version, changes)])
        if data.draw(st.booleans()):
            continue
        expected = [] if state is None else list(find_references(state))
        assert references.outgoing("H:h") == expected
        assert [(path, target) for _, path, target in references.all()] == expected
        for name in "abc":
            assert (references.incoming(f"T:{name}") == ["H:h"]) is (EntityReference("T", name) in [target for _, target in expected])


def test_an_event_costs_what_it_changes() -> None:
    """Not what the entity holds: the state is not walked through for it."""
    items = [EntityReference("T", str(number)) for number in range(2000)]
    references = References()
    references.feed([event(1, 1, [(SET, (), {"n": 0, "items": items, "tags": {1}})])])
    walked = 0

    class Counted(list[Any]):
        def __iter__(self) -> Any:
            nonlocal walked
            walked += 1
            return super().__iter__()

    state = references._fold.states["H:h"].data
    assert state is not None
    state["items"] = Counted(state["items"])
    references.feed([event(2, 2, [(SET, ("n",), 1), (SET, ("n",), 2), (ADD, ("tags",), 5), (ADD, ("tags",), 6)])])
    assert walked == 0
    assert references.incoming("T:1999") == ["H:h"]
