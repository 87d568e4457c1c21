"""Hypothesis strategies for everything a state may consist of, and for rows of a log."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from symphony_es.events.changes import SET, Change
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import CHECK_BYTES, HEADER_BYTES, Row, encode_body, seal_state
from symphony_es.events.values import Encrypted, Redacted, Tagged, UnknownZone

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.one_of(texts, st.sampled_from(["a", "b", "c", "n"]), st.integers(), st.sampled_from([0, 1, -1, 2**64, -(2**70)]))
zones = st.one_of(
    st.none(),
    st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=45)), dt.timezone(dt.timedelta(seconds=-1, microseconds=7))]),
    st.sampled_from(
        [dt.timezone(dt.timedelta(0), "UTC"), dt.timezone(dt.timedelta(hours=1), "Mars/Base"), dt.timezone(dt.timedelta(0), "")]
    ),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), ZoneInfo("America/St_Johns"), ZoneInfo.no_cache("Europe/Berlin")]),
)
datetimes = st.one_of(
    st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(timezones=zones), st.integers(0, 1)),
    # in the hour that comes twice, and in the one that never comes
    st.builds(lambda fold, zone: dt.datetime(2025, 10, 26, 2, 30, fold=fold, tzinfo=zone), st.integers(0, 1), zones),
    st.builds(lambda fold, zone: dt.datetime(2025, 3, 30, 2, 30, fold=fold, tzinfo=zone), st.integers(0, 1), zones),
)
times = st.builds(
    lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone),
    st.times(),
    st.integers(0, 1),
    st.one_of(zones, st.just(UnknownZone("Mars/Base"))),
)
references = st.builds(
    EntityReference,
    st.sampled_from(["Task", "a.B_9", "symphony.Checkpoint"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
)
integers = st.one_of(
    st.integers(), st.sampled_from([0, 1, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, -(2**64), 10**400])
)
floats = st.one_of(st.floats(allow_nan=True), st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")]))
decimals = st.one_of(
    st.decimals(), st.sampled_from([Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal("1E+5"), Decimal("sNaN12"), Decimal("-NaN")])
)
enums = st.builds(lambda data: Tagged("enum", "Colour", data), st.one_of(texts, integers))
simple = st.one_of(
    st.none(), st.booleans(), integers, floats, texts, st.binary(max_size=8), datetimes, st.dates(), times, st.timedeltas(),
    decimals, st.uuids(), references, enums, st.builds(Redacted, texts), st.builds(Encrypted, texts, st.binary(max_size=8)),
)  # fmt: skip
hashable_simple = simple.filter(lambda value: str(value).lower().lstrip("-").rstrip("0123456789") not in ("nan", "snan"))
members = st.recursive(
    st.one_of(hashable_simple, st.sampled_from([0, 1, 2, True, False, 0.0, 1.0, -0.0, Decimal(1), Decimal("1.0")])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=2).map(lambda data: Tagged("value", "Point", data)),
    ),
    max_leaves=4,
)
sets = st.lists(members, max_size=5).map(set)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from(["x", "y", "ž"]), inner, max_size=3)
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        fields.map(lambda data: Tagged("part", "Line", data)),
        fields.map(lambda data: Tagged("value", "Money", data)),
    )


values = st.recursive(st.one_of(simple, sets), _containers, max_leaves=12)
states = st.dictionaries(keys, values, max_size=5)


def twin(value: Any) -> Any:
    """The same value with every dict in the opposite order, and no container shared."""
    if isinstance(value, dict):
        return {key: twin(item) for key, item in reversed(value.items())}
    if type(value) in (list, tuple):
        return type(value)(twin(item) for item in value)
    if type(value) is set:
        members_backwards = list(value)[::-1]
        return set(members_backwards)
    if type(value) is Tagged and value.kind != "enum":
        return Tagged(value.kind, value.name, twin(value.data))
    return value


def row_of(
    position: int = 7,
    key: str = "Task:t1",
    version: int = 3,
    name: str = "TaskChanged",
    changes: tuple[Change, ...] = ((SET, ("status",), "done"),),
    data: Any = None,
    **metadata: Any,
) -> Row:
    """A row of the log as a writer would store it; its event id, salt and time are made of the position."""
    event_id = position.to_bytes(16, "big")
    event = NewEvent(
        entity_key=key, version=version, name=name, changes=changes, metadata=EventMetadata(**metadata), data=data, event_id=event_id
    )
    body = encode_body(event, bytes(16))
    return (position, key, version, name, seal_state(position, key, version, name, event_id, 1_700_000_000_000_000_000 + position, body))


def with_key(row: Row, key: str) -> Row:
    """A row under another key, with the right check value: no writer stores one under a key that is none."""
    position, _, version, name, state = row
    body = state[HEADER_BYTES:-CHECK_BYTES]
    return (position, key, version, name, seal_state(position, key, version, name, state[2:18], int.from_bytes(state[18:26], "big"), body))


def row_with_body(packed: bytes, *, position: int = 7, key: str = "Task:t1", version: int = 1, name: str = "TaskChanged") -> Row:
    """A row with any bytes as its body and the right check value: what an attacker, or a bug of a writer, would leave."""
    return (position, key, version, name, seal_state(position, key, version, name, bytes(16), 1, bytes(16) + packed))
