"""Plain data for readers: what JSON encoders take, whatever stands in the log, with the text a person expects."""

from __future__ import annotations

import datetime as dt
import enum
import json
import tracemalloc
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given

from symphony_es import entity, part
from symphony_es.events.comparison import compare_states, each_difference
from symphony_es.events.paths import ABSENT
from symphony_es.events.readable import readable
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Encrypted, Redacted, Tagged
from tests.events.plain_data import values


class Colour(enum.Enum):
    RED = "red"
    ODD = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    """A text with a class of its own."""


class Count(int):
    """A number with a class of its own."""


class Share(float):
    """A fraction with a class of its own."""


@dataclass
class Point:
    x: int
    at: dt.date


@part
class Leg:
    length: int = 0
    notes: list[Any] = field(default_factory=list)


@entity(type="ReadableTable")
class Table:
    id: str = ""


@pytest.mark.exhaustive
@given(values)
def test_json_takes_whatever_stands_in_the_log(value: Any) -> None:
    """Without an encoder of one's own, and nothing that is not a number of JSON; containers are the reader's to change."""
    before = repr(value)
    shown = readable(value)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    for one in _containers(shown):
        one.clear()
    assert repr(value) == before


def _containers(shown: Any) -> list[Any]:
    members = shown.values() if isinstance(shown, dict) else shown if isinstance(shown, list) else []
    return [inner for member in members for inner in _containers(member)] + ([shown] if isinstance(shown, (dict, list)) else [])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("inf"), "inf"),
        (Share("nan"), "nan"),
        (Share(0.5), 0.5),
        (Name("n"), "n"),
        (Count(3), 3),
        (ABSENT, None),
        (Colour.RED, "red"),
        (Colour.ODD, "ODD"),
        (Level.LOW, 1),
        (Tagged("enum", "shop:Colour", "RED", value="red"), "red"),
        (Tagged("enum", "shop:Colour", "ODD"), "ODD"),
        (Tagged("part", "shop:Leg", {"length": 2}), {"length": 2}),
        ({1: {True: {2, 1}}}, {"1": {"True": [1, 2]}}),
        ((1, [b"\x00"]), [1, ["AA=="]]),
        (bytearray(b"\x01"), "AQ=="),
        (dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC), "2026-05-01T12:00:00+00:00"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (EntityReference("Order", "7"), "Order:7"),
        (Redacted("law"), "(redacted: law)"),
        (Encrypted("k1", b"\x00"), "(encrypted with k1)"),
        (Point(1, dt.date(2026, 5, 1)), {"x": 1, "at": "2026-05-01"}),
        (Leg(2, [Table(id="t")]), {"length": 2, "notes": ["ReadableTable:t"]}),
    ],
    ids=repr,
)
def test_each_kind_of_value_reads_as_a_person_expects(value: Any, shown: Any) -> None:
    """An enum member by its value, an object by its fields, a moment by its ISO text, an entity by its key."""
    assert readable(value) == shown
    assert type(readable(value)) is type(shown)


@pytest.mark.parametrize("change", ["grown", "shrunk"])
def test_a_difference_of_many_items_is_told_one_by_one(change: str) -> None:
    """Who only tells it holds neither all that is told nor a copy of it."""
    many = list(range(50_000))
    one, other = ([], many) if change == "grown" else (many, [])
    tracemalloc.start()
    try:
        count = sum(1 for _ in each_difference({"items": one}, {"items": other}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(many)
    assert count == len(many) == len(compare_states({"items": one}, {"items": other}))
