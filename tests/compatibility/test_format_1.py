"""The golden file of format 1: logs written by the first release stay readable, to the byte."""

from __future__ import annotations

import struct
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from symphony_es.events.event import NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.rows import Row, commitment, decode_row, encode_body, seal_state
from symphony_es.events.values import Tagged, plain_equal
from tests.compatibility.format_1_events import EVENTS, FULL, MOMENTS, PLAIN, SPECIAL

DATA = Path(__file__).with_name("format_1.rows").read_bytes()
ROW = struct.Struct(">QQHHI")


def stored_rows() -> list[Row]:
    """The rows of the file."""
    rows: list[Row] = []
    offset = 0
    while offset < len(DATA):
        position, version, key_bytes, name_bytes, state_bytes = ROW.unpack_from(DATA, offset)
        offset += ROW.size
        parts = []
        for size in (key_bytes, name_bytes, state_bytes):
            parts.append(DATA[offset : offset + size])
            offset += size
        rows.append((position, parts[0].decode(), version, parts[1].decode(), parts[2]))
    return rows


ROWS = stored_rows()


def test_the_file_is_the_one_that_was_released() -> None:
    """A golden file that changes protects nothing; a new shape of an event is a new format with a file of its own."""
    assert sha256(DATA).hexdigest() == "717e1461643fd07d2f1bf3d07bb96c5271a56c6d55541d44e2844fb219827fbd"
    assert len(ROWS) == len(EVENTS)


@pytest.mark.parametrize(
    ("row", "event"), list(zip(ROWS, EVENTS, strict=True)), ids=lambda item: "" if isinstance(item, NewEvent) else item[3]
)
def test_stored_events_say_what_they_said(row: Row, event: NewEvent) -> None:
    """Each stored event is decoded as what was written, and encodes to the same bytes again."""
    found = decode_row(row)
    assert (found.entity_key, found.version, found.name, found.event_id) == (event.entity_key, event.version, event.name, event.event_id)
    assert found.time_ns == 1_700_000_000_123_456_789 + found.position
    assert found.transaction_id == (event.transaction_id or event.event_id)
    assert plain_equal(list(found.changes), list(event.changes))
    assert plain_equal(found.data, event.data)
    assert found.metadata == event.metadata
    again = NewEvent(
        entity_key=found.entity_key, version=found.version, name=found.name, changes=found.changes, metadata=found.metadata,
        data=found.data, event_id=found.event_id, transaction_id=None if found.transaction_id == found.event_id else found.transaction_id,
    )  # fmt: skip
    body = encode_body(again, row[4][26:42])
    assert seal_state(found.position, found.entity_key, found.version, found.name, found.event_id, found.time_ns, body) == row[4]


def test_the_fold_of_the_file_is_known() -> None:
    """States, versions, state versions and generations after the stored events."""
    fold = Fold()
    fold.apply_rows(ROWS)
    sample, task = fold.states["Sample:s1"], fold.states["Task:t1"]
    assert plain_equal(sample.data, {"plain": PLAIN, "moments": MOMENTS, "special": SPECIAL})
    assert (task.data, task.version, task.position, task.state_version, task.generation) == ({}, 5, 6, 3, 1)
    assert FULL.generation == 1
    earlier = Fold()
    earlier.apply_rows(ROWS[:3])
    grown = {"t": "a text that goes on", "b": [b"\x00\xff"]}
    expected = {"l": [2, 3], "s": {2}, "d": {5: {"a": [1]}}, "p": Tagged("part", "shop:Line", {"n": [9]}), **grown}
    assert plain_equal(earlier.states["Task:t1"].data, expected)


def test_one_row_by_hand() -> None:
    """The bytes of the smallest stored event, as docs/format.md lays them out."""
    state = ROWS[3][4]
    assert state[:2] == b"\xd4\x01"
    assert state[2:18] == EVENTS[3].event_id
    assert state[18:26] == struct.pack(">Q", 1_700_000_000_123_456_789 + 4)
    assert state[26:42] == b"\x04" * 16
    assert state[42:-4] == b"\x94\xc0\x90\x90\xd9\x24what an event says beyond its effect"
    position, key, version, name, _ = ROWS[3]
    columns = struct.pack(">QQHI", position, version, len(name), len(state)) + name.encode() + key.encode()
    assert state[-4:] == struct.pack("<I", crc32(columns + state[:-4]))
    assert crc32(columns + state) == 0x2144DF1C
    assert commitment(state) == sha256(state[26:-4]).digest()
