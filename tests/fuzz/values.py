"""Values, events and what is stored of them, as bytes with their check values right."""

from __future__ import annotations

import json
import random
import struct
from typing import Any
from zlib import crc32

from symphony_es.errors import SymphonyError
from symphony_es.events import codec
from symphony_es.events.codec import decode_value, encode_canonical, encode_value
from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.people import text_of
from symphony_es.events.readable import readable
from symphony_es.events.rows import (
    CHECK_BYTES,
    CONTENT_START,
    HEADER_BYTES,
    Row,
    _columns_crc,
    check_row,
    check_rows,
    decode_changes,
    decode_row,
    encode_body,
    seal_state,
)
from symphony_es.events.showing import show
from symphony_es.events.values import copy_plain, plain_equal
from symphony_es.transfer.text import event_as_json, json_line, plain_as_json
from tests.fuzz.hostile import damaged, number, packed, packed_array, packed_number, packed_text, text

__all__ = ["body", "check_columns", "check_event", "check_fold", "check_value", "sealed"]

ID = bytes(range(16))


def check_value(rng: random.Random) -> None:
    """A value comes back as itself, and can be shown in all ways."""
    data = packed(rng)
    if rng.random() < 0.1:
        data = damaged(rng, data)
    value = decode_value(data)
    encoded = encode_value(value)
    again = decode_value(encoded)
    assert plain_equal(value, again), "another value"
    assert encode_value(again) == encoded, "other bytes"
    assert encode_canonical(again) == encode_canonical(value), "other canonical bytes"
    assert plain_equal(copy_plain(value), value)
    json.dumps(readable(value))
    json_line(plain_as_json(value))
    for shown in (text_of(value), text_of(value, 60), show(value)):
        assert isinstance(shown, str)


def _path(rng: random.Random) -> bytes:
    if rng.random() < 0.03:
        return packed(rng, 1)
    return packed_array(rng, [rng.choice((packed_text, packed_text, packed_number))(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))])


def _change(rng: random.Random) -> bytes:
    if rng.random() < 0.03:
        return packed(rng, 1)
    operation = rng.choice((0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 8))
    path = _path(rng) if rng.random() < 0.5 else packed_array(rng, [packed_text(rng, rng.choice("lsdtpx"))])
    value = packed(rng, 2)
    index = [codec.pack(rng.randrange(4)) if rng.random() < 0.8 else packed_number(rng)]
    values = {1: [*index, value], 2: [*index, *index, packed_array(rng, [value])], 4: []}.get(operation, [value])
    return packed_array(rng, [codec.pack(operation), path, *values])


def body(rng: random.Random, changes: list[bytes] | None = None) -> bytes:
    """A body of an event: salt, and what nearly says a transaction, changes, metadata and data."""
    transaction = rng.choice((b"\xc0", b"\xc0", b"\xc4\x10" + ID, packed(rng, 0)))
    made = packed_array(rng, [_change(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))] if changes is None else changes)
    told = [
        rng.choice((b"\xc0", packed_text(rng), packed_number(rng), b"\xc4\x10" + ID)) for _ in range(rng.choice((0, 0, 1, 7, 10, 11, 12)))
    ]
    if len(told) > 3 and rng.random() < 0.8:
        told = [b"\xc0"] * 8 + [codec.pack(rng.choice((1, 2)))] + ([codec.pack(rng.choice((0, 1)))] if rng.random() < 0.5 else [])
    whole = packed_array(rng, [transaction, made, packed_array(rng, told), rng.choice((b"\xc0", packed(rng, 2)))])
    return bytes(16) + (damaged(rng, whole) if rng.random() < 0.03 else whole)


def sealed(position: int, key: str, version: int, name: str, content: bytes) -> Row:
    """A row whose check value is right."""
    return position, key, version, name, seal_state(position, key, version, name, ID, 1_700_000_000_000_000_000, content)


def check_event(rng: random.Random) -> None:
    """An event that can be read is told in all ways, and is the same when it is written again."""
    name = "Changed" if rng.random() < 0.9 else text(rng)
    key = "Type:id" if rng.random() < 0.8 else text(rng)
    try:
        row = sealed(rng.choice((1, 7, 2**62)), key, rng.choice((1, 2, 2**40)), name, body(rng))
    except UnicodeEncodeError:
        return  # no store holds such a text
    check_rows([row])
    event = decode_row(row)
    json_line(event_as_json(event, row))
    json.dumps(event.to_dict())
    assert repr(event)
    if event.fault is None:
        assert plain_equal(_told(_again(event)), _told(event)), "another event"
        decode_changes(row)


def _told(event: Event) -> list[Any]:
    metadata = {name: getattr(event.metadata, name) for name in EventMetadata.__slots__}
    return [event.name, list(event.changes), metadata, event.data, event.transaction_id]


def _again(event: Event) -> Event:
    """The event as it is after it was written and read once more."""
    new = NewEvent(
        entity_key=event.entity_key,
        version=event.version,
        name=event.name,
        changes=event.changes,
        metadata=event.metadata,
        data=event.data,
        event_id=event.event_id,
        transaction_id=None if event.transaction_id == event.event_id else event.transaction_id,
    )
    content = encode_body(new, bytes(16))
    state = seal_state(event.position, event.entity_key, event.version, event.name, event.event_id, event.time_ns, content)
    return decode_row((event.position, event.entity_key, event.version, event.name, state))


def check_columns(rng: random.Random) -> None:
    """A row of whatever columns is refused, or is right."""
    row: list[Any] = list(sealed(3, "Type:id", 2, "Changed", bytes(16) + codec.pack([None, [], [], None])))
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(5)
        right = (number(rng), text(rng), number(rng), text(rng), damaged(rng, row[4] if type(row[4]) is bytes else b""))[at]
        row[at] = right if rng.random() < 0.7 else rng.choice((None, number(rng), text(rng), 1.5, True, b"abc"))
    if rng.random() < 0.7 and type(row[4]) is bytes and len(row[4]) > HEADER_BYTES:
        try:
            columns = _columns_crc(row[0] if row[4][1] & 1 else 0, *row[1:4], len(row[4]))
        except (TypeError, struct.error, AttributeError, UnicodeEncodeError):
            columns = 0
        row[4] = row[4][:-CHECK_BYTES] + struct.pack("<I", crc32(row[4][:-CHECK_BYTES], columns))
    check_row(tuple(row))  # type: ignore[arg-type]
    check_rows([tuple(row)])  # type: ignore[list-item]
    decode_row(tuple(row))  # type: ignore[arg-type]


STATE = {"l": [1, 2, 3], "s": {1, "a"}, "d": {"a": 1, 5: 2}, "t": "x" * 2000, "p": b"y" * 2000, "x": [[1], {"a": [2]}]}


def check_fold(rng: random.Random) -> None:
    """What does not fit an entity damages it, and its state stays what it was; one by one and all at once give the same."""
    first = sealed(1, "Type:id", 1, "Created", bytes(16) + codec.pack([None, [[0, [], copy_plain(STATE)]], [], None]))
    rows = [first]
    for version in range(2, 5):
        rows.append(sealed(version, "Type:id", version, "Changed", body(rng, [_change(rng) for _ in range(rng.choice((1, 2, 3)))])))
    together, apart = Fold(), Fold()
    together.apply_rows(rows)
    for row in rows:
        apart.apply_rows([row])
    one, other = together.states["Type:id"], apart.states["Type:id"]
    assert (one.version, one.damage, one.generation) == (other.version, other.damage, other.generation), "another fold"
    assert plain_equal(one.data, other.data), "another state"
    if one.data is not None:
        assert plain_equal(decode_value(encode_value(one.data)), one.data)


def content_of(row: Row) -> bytes:
    """The encoded part of a row."""
    return row[4][CONTENT_START:-CHECK_BYTES]


def refused(function: Any, *given: Any) -> bool:
    """Whether a call is refused with a declared error."""
    try:
        function(*given)
    except SymphonyError:
        return True
    return False
