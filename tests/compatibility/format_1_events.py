"""What `format_1.rows` says: events with every kind of value, change and metadata that format 1 has."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Encrypted, Redacted, Tagged, UnknownZone

BERLIN = ZoneInfo("Europe/Berlin")
PLAIN: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "text": "žluťoučký kůň 🎉 \u202e",
    "empty": ["", b"", [], {}, (), set()],
    "bytes": bytes(range(256)),
    "integers": [0, 127, 128, -32, -33, 255, 256, 65535, 65536, 2**32, 2**63 - 1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40],
    "floats": [0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf"), float("nan")],
    "decimals": [Decimal("1.00"), Decimal("-0"), Decimal("1E+30"), Decimal("NaN"), Decimal("sNaN7"), Decimal("-Infinity")],
    "uuid": UUID("018f4e2a-0000-7000-8000-0123456789ab"),
    "tuple": (1, ("a", [2])),
    "keys": {-1: "a", 5: "b", 2**70: "c", "5": "d", "": "e"},
    "sets": [
        {1, 2, 300},
        {True, 2.0},
        {("a", 1), ("a", 2)},
        {EntityReference("Task", "t1"), "x", b"x", Tagged("enum", "shop:Color", "RED", value=1)},
    ],
}
MOMENTS: dict[str, Any] = {
    "naive": dt.datetime(2025, 3, 1, 12, 30, 15, 123456),
    "utc": dt.datetime(2025, 3, 1, tzinfo=dt.UTC),
    "named utc": dt.datetime(2025, 3, 1, tzinfo=ZoneInfo("UTC")),
    "offset": dt.datetime(2025, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
    "named offset": dt.datetime(2025, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=3), "Mars/Base")),
    "offset called like a zone": [
        dt.datetime(2025, 3, 1, tzinfo=zone) for zone in (dt.timezone(dt.timedelta(hours=1), "CET"), ZoneInfo("CET"))
    ],
    "unknown zone": dt.datetime(2025, 3, 1, tzinfo=UnknownZone("Mars/Base", dt.timedelta(hours=3))),
    "summer": dt.datetime(2025, 7, 1, tzinfo=BERLIN),
    "twice": [dt.datetime(2025, 10, 26, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1)],
    "gap": dt.datetime(2025, 3, 30, 2, 30, tzinfo=BERLIN),
    "ends": [dt.datetime.min, dt.datetime.max, dt.date.min, dt.date.max, dt.timedelta.min, dt.timedelta.max, dt.time.min, dt.time.max],
    "times": [dt.time(12, 30, fold=1), dt.time(1, tzinfo=dt.UTC), dt.time(1, tzinfo=BERLIN), dt.time(1, tzinfo=UnknownZone("Mars/Base"))],
    "date": dt.date(2025, 3, 1),
    "timedelta": dt.timedelta(days=-1, microseconds=1),
}
SPECIAL: dict[str, Any] = {
    "reference": EntityReference("Memory", "../../x:\u202ey"),
    "members": [
        Tagged("enum", "shop.colours:Color", "RED", value="red"),
        Tagged("enum", "shop.colours:make.<locals>.Größe", "KLEIN", value=(1, 2.5)),
        Tagged("enum", "Given", "NOTHING", value=None),
        Tagged("enum", "shop:Opaque", "ITS_VALUE_IS_NOT_PLAIN"),
    ],
    "flags": Tagged("enum", "shop:Rights", 5),
    "value": Tagged("value", "shop:Money", {"amount": Decimal("9.90"), "currency": "EUR"}),
    "later value": Tagged("value", "shop:Money", {"cents": 990}, state_version=2),
    "part": Tagged("part", "shop:Line", {"to": EntityReference("Task", "t1"), "n": [1]}),
    "later part": Tagged("part", "shop:Line", {}, state_version=300),
    "redacted": Redacted("GDPR Art. 17"),
    "encrypted": Encrypted("key-1", b"\x00\xff"),
}
FULL = EventMetadata(
    run_id="r1",
    step="plan/2",
    attempt=3,
    cause=bytes(range(16)),
    actor="alice",
    reason="wire received",
    correlation_id="c1",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    state_version=2,
    generation=1,
    user={"ticket": 7, "when": dt.date(2025, 3, 1)},
)


def _event(number: int, key: str, version: int, name: str, changes: list[Change], **rest: Any) -> NewEvent:
    rest.setdefault("metadata", EventMetadata())
    event_id = (0x018F4E2A << 96 | 0x7 << 76 | 0x2 << 62 | number).to_bytes(16, "big")
    return NewEvent(entity_key=key, version=version, name=name, changes=changes, event_id=event_id, **rest)


DEFINITION = "0123456789abcdef" * 4
FIRST = _event(1, "Sample:s1", 1, "SampleCreated", [(SET, (), {"plain": PLAIN, "moments": MOMENTS, "special": SPECIAL})])
BORN = _event(8, f"symphony.Definition:{DEFINITION}", 1, "DefinitionCreated", [(SET, (), {"name": "report", "steps": []})])
EVENTS = [
    FIRST,
    _event(
        2,
        "Task:t1",
        1,
        "TaskCreated",
        [(SET, (), {"l": [1], "s": {1}, "d": {}, "p": Tagged("part", "shop:Line", {"n": []})})],
        transaction_id=FIRST.event_id,
    ),
    _event(
        3,
        "Task:t1",
        2,
        "TaskChanged",
        [
            (SET, ("d", "k"), 1),
            (SET, ("d", 5), {"a": [1]}),
            (INSERT, ("l",), 0, "first"),
            (SPLICE, ("l",), 1, 2, [2, 3]),
            (APPEND, ("p", "n"), 9),
            (REMOVE, ("d", "k")),
            (REMOVE, ("l", 0)),
            (ADD, ("s",), 2),
            (DISCARD, ("s",), 1),
            (SET, ("t",), "a text"),
            (EXTEND, ("t",), " that goes on"),
            (SET, ("b",), [b"\x00"]),
            (EXTEND, ("b", 0), b"\xff"),
        ],
        metadata=FULL,
        data={"mail": "sent", "to": EntityReference("Agent", "a1")},
    ),
    _event(4, "Task:t1", 3, "MailSent", [], data="what an event says beyond its effect"),
    _event(5, "Task:t1", 4, "TaskRemoved", [(REMOVE, ())], metadata=EventMetadata(actor="bob")),
    _event(6, "Task:t1", 5, "TaskCreated", [(SET, (), {})], metadata=EventMetadata(state_version=3)),
    _event(7, "symphony.Checkpoint:" + "ž" * 256, 1, "CheckpointCreated", [(SET, (), {"position": 6})], metadata=EventMetadata(user={})),
    BORN,
    _event(
        9,
        "Workflow:r1",
        1,
        "WorkflowCreated",
        [(SET, (), {"name": "report", "definition_hash": DEFINITION, "definition_id": "report"})],
        transaction_id=BORN.event_id,
    ),
]
