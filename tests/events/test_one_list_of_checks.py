"""Writers refuse exactly what readers refuse: events at and beyond each limit are read back as they were, or refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symphony_es.errors import ChangeError, DamagedEventError, InvalidIdentifierError, UnstorableValueError
from symphony_es.events.changes import APPEND, SET
from symphony_es.events.codec import pack
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import decode_row, encode_body, seal_state
from symphony_es.events.values import Tagged, plain_equal

SALT = bytes(16)
REFUSALS = (UnstorableValueError, ChangeError, InvalidIdentifierError)

LEAVES: dict[str, Any] = {
    "number": 1,
    "large number": 2**70,
    "decimal": Decimal("1.5"),
    "date": date(2025, 1, 1),
    "moment": datetime(2025, 1, 1, tzinfo=UTC),
    "duration": timedelta(1),
    "longest duration": timedelta.max,
    "uuid": UUID(int=1),
    "reference": EntityReference("A", "a"),
    "enum": Tagged("enum", "C", "RED"),
    "flags": Tagged("enum", "C", 2**70),
    "empty list": [],
    "empty tuple": (),
}
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"x": inner},
    "dict by number": lambda inner: {1: inner},
    "part": lambda inner: Tagged("part", "P", {"x": inner}),
    "value": lambda inner: Tagged("value", "V", {"x": inner}),
}


def nested(leaf: Any, *wrappers: str) -> Any:
    for name in wrappers:
        leaf = WRAPPERS[name](leaf)
    return leaf


def event(**given: Any) -> NewEvent:
    return NewEvent(
        **{"entity_key": "E:e", "version": 1, "name": "Said", "changes": [], "metadata": EventMetadata(), "event_id": bytes(16), **given}
    )


PLACES: dict[str, Callable[[Any], NewEvent]] = {
    "data": lambda value: event(data=value),
    "metadata": lambda value: event(metadata=EventMetadata(user={"x": value})),
    "state": lambda value: event(changes=[(SET, (), {"x": value})]),
    "field": lambda value: event(changes=[(SET, ("x",), value)]),
    "deep field": lambda value: event(changes=[(SET, ("x", *[0] * 29), value)]),
    "item": lambda value: event(changes=[(APPEND, ("x",), value)]),
}


def sealed(new: NewEvent, body: bytes) -> tuple[int, str, int, str, bytes]:
    return (1, new.entity_key, new.version, new.name, seal_state(1, new.entity_key, new.version, new.name, new.event_id, 0, body))


def unchecked(new: NewEvent) -> bytes:
    """The body as it would be without any check."""
    fields = [None] * 10 + [new.metadata.user] if new.metadata.user is not None else []
    return SALT + pack([None, [[operation, [*path], *values] for operation, path, *values in new.changes], fields, new.data])


def agree(new: NewEvent) -> bool:
    """Whether an event can be stored; asserts that writer and reader say the same."""
    try:
        read = decode_row(sealed(new, unchecked(new)))
        readable = read.fault is None
    except DamagedEventError:
        readable = False
    if not readable:
        with pytest.raises(REFUSALS):
            encode_body(new, SALT)
        return False
    body = encode_body(new, SALT)
    assert decode_row(sealed(new, body)) == read
    assert plain_equal([list(change) for change in read.changes], [list(change) for change in new.changes])
    assert plain_equal([read.data, read.metadata.user], [new.data, new.metadata.user])
    return True


@pytest.mark.exhaustive
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("place", PLACES)
def test_the_deepest_value_that_is_taken_is_read(place: str, leaf: str, wrapper: str) -> None:
    """Around the limit, one level after the other: what is taken is read back, what is refused would not be read."""
    taken = [agree(PLACES[place](nested(LEAVES[leaf], *[wrapper] * depth))) for depth in (20, *range(31, 36), *range(61, 67))]
    assert taken == sorted(taken, reverse=True)
    assert taken[0]
    assert not taken[-1]


@settings(deadline=None)
@given(st.sampled_from(list(PLACES)), st.sampled_from(list(LEAVES)), st.lists(st.sampled_from(list(WRAPPERS)), min_size=28, max_size=67))
@example("data", "decimal", ["tuple"] * 64)
@example("data", "longest duration", ["value"] * 64)
def test_mixed_nesting(place: str, leaf: str, wrappers: list[str]) -> None:
    """Whatever containers are nested in each other."""
    agree(PLACES[place](nested(LEAVES[leaf], *wrappers)))


names = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,140}", fullmatch=True),
    st.text(max_size=5),
    st.sampled_from(["", "1", "Ä", "a b", "A" * 100, "A" * 127, "A" * 128, "a\n", "a\0"]),
)
ids = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.sampled_from(["x" * 512, "x" * 513, "ä" * 256, "ä" * 257])
)


@settings(deadline=None)
@given(names, names, ids, st.sampled_from([":", "", "::"]))
def test_names_and_keys(name: str, entity_type: str, identifier: str, colon: str) -> None:
    """What names an event or an entity."""
    agree(event(name=name, entity_key=f"{entity_type}{colon}{identifier}"))


@pytest.mark.parametrize("length", range(90, 101))
@pytest.mark.parametrize("suffix", ["Created", "Changed", "Deleted", "Rewound"])
def test_every_type_has_names_for_its_events(length: int, suffix: str) -> None:
    """The default names of the longest types are names."""
    assert agree(event(name="T" * length + suffix, entity_key=f"{'T' * length}:a"))


@pytest.mark.parametrize(
    "change",
    [
        (SET, ("x",) * 64, 1), (SET, ("x",) * 65, 1), (SET, (True,), 1), (SET, (1.0,), 1), (SET, ("x",)), (9, ("x",), 1), (True, ("x",), 1),
        (2, ("x",), 0, 0, ()), (2, ("x",), 0, 0, []), (SET, ("x", 2**70), 1), (SET, (None,), 1),
    ],
)  # fmt: skip
def test_changes(change: tuple[Any, ...]) -> None:
    """What is no change for a reader is none for a writer."""
    agree(event(changes=[change]))
