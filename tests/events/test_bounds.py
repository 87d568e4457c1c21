"""What data of a stranger cost: numbers that were made to have one hash, many small parts, and texts that are long."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

import msgpack
import pytest

from symphony_es.core.world.shadow import put_plain
from symphony_es.errors import ChangeError, DamagedEventError, DecodeError, DefinitionError, LimitExceededError, UnstorableValueError
from symphony_es.events import bounds, codec
from symphony_es.events.bounds import MOST_ALIKE, has_room, is_crowded, read_digits
from symphony_es.events.changes import ADD, EXTEND, SET, apply_changes, check_room
from symphony_es.events.codec import decode_value, encode_value, pack
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.paths import parse_path
from symphony_es.events.readable import readable
from symphony_es.events.rows import Row, decode_row, encode_body, seal_state
from symphony_es.events.undo import Undo, revert
from symphony_es.events.values import Tagged, _known_zone, check_plain, plain_equal
from symphony_es.workflow.definitions.json_text import read_json

PRIME = 2**61 - 1
"""Whole numbers that differ by a multiple of it have one hash."""


def _tuples(count: int) -> list[Any]:
    """Tuples of two numbers that have one hash: -1 and -2 have one, and so has each of their rows."""
    return [tuple(-1 - (number >> bit & 1) for bit in range(20)) for number in range(count)]


ALIKE: dict[str, Callable[[int], list[Any]]] = {
    "whole numbers": lambda count: [PRIME * (16 + number) + 5 for number in range(count)],
    "negative ones": lambda count: [-PRIME * (16 + number) for number in range(count)],
    "decimal numbers": lambda count: [Decimal(PRIME * (1 + number)) for number in range(count)],
    "ids": lambda count: [UUID(int=PRIME * (1 + number) + 7) for number in range(count)],
    "tuples": _tuples,
    "tuples of large numbers": lambda count: [(PRIME * (16 + number), "x") for number in range(count)],
}


@pytest.mark.parametrize("members", [*(set(product((-1, -2), repeat=n)) for n in (7, 8)), set(product((-2, -1, 0), repeat=8))])
def test_sets_that_nobody_has_made_for_it_are_taken(members: set[Any]) -> None:
    """Grids of small whole numbers have few hashes, since -1 and -2 have one: written, read, and made one member by one."""
    check_plain(members)
    assert decode_value(encode_value(members)) == members
    grown: set[Any] = set()
    for member in members:
        assert has_room(grown, member)
        grown.add(member)


@pytest.mark.parametrize("kind", ALIKE)
def test_values_of_one_hash(kind: str) -> None:
    """As many as may be honest come back; more of them are refused by whoever writes and whoever reads, before they are compared."""
    few, many = ALIKE[kind](MOST_ALIKE), ALIKE[kind](MOST_ALIKE + 1)
    assert len({hash(value) for value in many}) == 1
    assert decode_value(encode_value(set(few))) == set(few)
    with pytest.raises(UnstorableValueError, match="one hash"):
        encode_value({"s": set(many)})
    crafted = msgpack.packb(msgpack.ExtType(codec.SET, msgpack.Packer().pack_array_header(len(many)) + b"".join(map(pack, many))))
    with pytest.raises(DecodeError, match="one hash"):
        decode_value(crafted)


def test_keys_of_one_hash() -> None:
    """The same of the keys of a dict, wherever it stands."""
    few, many = (dict.fromkeys(ALIKE["whole numbers"](count)) for count in (MOST_ALIKE, MOST_ALIKE + 1))
    assert decode_value(encode_value([few])) == [few]
    with pytest.raises(UnstorableValueError, match="one hash"):
        encode_value([many])
    with pytest.raises(UnstorableValueError, match="one hash"):
        check_plain({"a": many})
    pairs = b"".join(pack(key) + b"\xc0" for key in many)
    with pytest.raises(DecodeError, match="one hash"):
        decode_value(b"\xde" + len(many).to_bytes(2, "big") + pairs)


@pytest.mark.parametrize("kind", ALIKE)
def test_members_that_come_one_by_one(kind: str) -> None:
    """An event that adds one more is refused when it is recorded, and damages its entity when it is read."""
    *few, last = ALIKE[kind](MOST_ALIKE + 1)
    state: dict[str, Any] = {"s": set(few)}
    check_room(state, (ADD, ("s",), few[0]))  # it is there
    with pytest.raises(UnstorableValueError, match="one hash"):
        check_room(state, (ADD, ("s",), last))
    with pytest.raises(ChangeError, match="one hash"):
        apply_changes(state, [(ADD, ("s",), last)])
    assert state == {"s": set(few)}
    assert apply_changes(state, [(ADD, ("s",), "text")]) == {"s": {*few, "text"}}


def test_keys_that_come_one_by_one() -> None:
    """The same of the keys of a dict; the fast way leaves such keys to the one that looks."""
    *few, last = ALIKE["whole numbers"](MOST_ALIKE + 1)
    state: dict[str, Any] = {"d": dict.fromkeys(few)}
    with pytest.raises(UnstorableValueError, match="one hash"):
        check_room(state, (SET, ("d", last), 1))
    with pytest.raises(ChangeError, match="one hash"):
        apply_changes(state, [(SET, ("d", last), 1)])
    assert put_plain(state, (SET, ("d", last), 1)) is None
    assert put_plain(state, (SET, ("d", 7), 1)) is not None


def test_asking_for_room_compares_few() -> None:
    """However many have the hash, and also where the set is full of them."""
    members = set(ALIKE["ids"](3 * MOST_ALIKE))
    assert is_crowded(members)
    assert not has_room(members, UUID(int=7))
    assert has_room(members, UUID(int=8))
    assert has_room(members, "7")


def test_members_of_one_class_have_hashes_of_their_own() -> None:
    """A set of values of one class is compared where two are equal, and grows linearly; equal ones are one member."""
    values = [Tagged("value", "shop:Money", {"amount": number, "of": [number, {"k": -0.0}]}) for number in range(1000)]
    assert len({hash(value) for value in values}) > 990
    assert not is_crowded(values)
    again = decode_value(encode_value(set(values)))
    assert len(again) == 1000
    assert plain_equal(again, set(values))
    assert hash(Tagged("value", "shop:Money", {"a": 1, "b": 2})) == hash(Tagged("value", "shop:Money", {"b": 2, "a": 1}))
    assert hash(Tagged("enum", "E", 1 << 70)) == hash(Tagged("enum", "E", 1 << 70))


PARTS = {"dicts": b"\x80", "lists": b"\x90", "sets": b"\xd4\x02\x90", "decimals": b"\xd4\x07\x31", "tuples": b"\xd4\x01\x90"}


def _row(body: bytes) -> Row:
    return 1, "T:1", 1, "Made", seal_state(1, "T:1", 1, "Made", bytes(16), 1, bytes(16) + body)


@pytest.mark.parametrize(
    "part", [b"\x80", b"\x90", b"\xd4\x02\x90", b"\xd4\x07\x31", b"\xd4\x01\x90"], ids=["dicts", "lists", "sets", "decimals", "tuples"]
)
def test_many_small_parts(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of few bytes takes no hundreds of times as many: beyond so many parts it is refused, and takes no memory before that."""
    monkeypatch.setattr(bounds, "MOST_PARTS", 2000)
    monkeypatch.setattr(codec, "MOST_PARTS", 2000)
    count = 60_000
    data = b"\x94\xc0\x91\x93\x00\x91\xa1f\xdd" + count.to_bytes(4, "big") + part * count + b"\x90\xc0"
    tracemalloc.start()
    try:
        event = decode_row(_row(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert event.fault is not None
    assert "more than" in event.fault
    assert peak < 10 * len(data) + 2_000_000, "some bytes for each"
    fold = Fold()
    fold.apply_rows([_row(data)])
    assert fold.states["T:1"].damage is not None
    value: list[Any] = [[] for _ in range(2001)]
    new = NewEvent(
        entity_key="T:1", version=1, name="Made", changes=[(SET, (), {"l": value})], metadata=EventMetadata(), event_id=bytes(16)
    )  # fmt: skip
    with pytest.raises(LimitExceededError, match="several changes"):
        encode_body(new, bytes(16))
    encode_body(NewEvent(**{**_fields(new), "changes": [(SET, (), {"l": ["\u4e2d" * 5000, b"\x80" * 5000]})]}), bytes(16))


def _fields(new: NewEvent) -> dict[str, Any]:
    return {name: getattr(new, name) for name in NewEvent.__dataclass_fields__}


def test_extending_a_long_text_many_times_keeps_no_copies() -> None:
    """What takes the changes of an event back is as long as they are, and gives the text back as it was."""
    state: dict[str, Any] = {"t": "x" * 100_000, "l": [b"y" * 100_000]}
    undo: Undo = []
    changes = [change for _ in range(100) for change in ((EXTEND, ("t",), "z"), (EXTEND, ("l", 0), b"z"))]
    tracemalloc.start()
    try:
        apply_changes(state, changes, undo=undo)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000, "200 texts of 100 kB would be 20 MB"
    revert(undo)
    assert state == {"t": "x" * 100_000, "l": [b"y" * 100_000]}


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "A" * 65, "a//b", "Mars/Base", "\u0661", "a\nb", "", ".", "UTC\n", "a" * 10**6]
)
def test_zones_that_there_are_not_cost_a_look(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own search, which imports packages named like parts of the zone, is asked for none of them."""
    import zoneinfo

    def refuse(key: str) -> None:
        raise AssertionError(key)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", refuse)
    assert _known_zone(name) is None


def test_zones_that_there_are() -> None:
    """They are what they were."""
    for name in ("Europe/Berlin", "UTC", "Etc/GMT+10", "America/Argentina/Buenos_Aires", "Asia/Kathmandu"):
        found = _known_zone(name)
        assert found is not None
        assert found.key == name
    assert datetime(2026, 7, 1, tzinfo=_known_zone("Europe/Berlin")).utcoffset() == timedelta(hours=2)


def test_digits_are_read_as_far_as_anything_has_so_many() -> None:
    """A longer number is larger than all others; zeros before it do not count."""
    assert read_digits("0" * 10**6 + "42") == 42
    assert read_digits("9" * 600) == 10**600 - 1
    assert read_digits("9" * 10**6) == 10**600
    assert read_digits("0000") == 0


LONG: dict[str, Any] = {
    "number": 10**5000, "inside": {"a": [10**5000]}, "flags": Tagged("enum", "E", 10**5000), "key": {10**5000: 1}, "member": {1, 10**5000}
}  # fmt: skip


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_numbers_that_have_no_digits_for_python_can_be_told(value: Any) -> None:
    """They are written in hexadecimal wherever a value is shown or written as JSON."""
    import json

    from symphony_es.errors import format_path
    from symphony_es.events.people import text_of
    from symphony_es.events.showing import show

    assert "0x" in json.dumps(readable(value))
    assert "0x" in text_of(value)
    assert "0x" in show(value)
    assert "0x" in format_path(("a", 10**5000))


def test_a_definition_of_long_keys_and_many_values_costs_its_size() -> None:
    """The place of a value is written out for a message alone."""
    text = '{"' + "k" * 100_000 + '": [' + ",".join(["0"] * 5_000) + "]}"
    tracemalloc.start()
    try:
        read_json(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000, "500 MB, as paths"
    with pytest.raises(DefinitionError, match=r"\ba\[1\]\.b"):
        read_json('{"a": [0, {"b": 1e999}]}')
    with pytest.raises(DefinitionError, match="nested deeper"):
        read_json('{"a": ' + "[" * 300 + "]" * 300 + "}")


def test_a_path_of_a_megabyte() -> None:
    """It is read, or refused, without a note for each character."""
    key = "k" * 10**6
    tracemalloc.start()
    try:
        assert parse_path(f"a['{key}']") == ("a", key)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_metadata_that_are_no_floats() -> None:
    """A number in its metadata that is larger than any float is a damaged event, as any other wrong one."""
    with pytest.raises(DamagedEventError, match="attempt"):
        decode_row(_row(pack([None, [], [None, None, 10**400], None])))


@pytest.mark.parametrize("told", [b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff\x01", b"\x91\xdd\x7f\xff\xff\xff\x01"])
def test_more_members_than_bytes(told: bytes) -> None:
    """A list or dict that says it has them is refused before anything is made for it, by itself and among others."""
    with pytest.raises(DecodeError, match="exceeds max"):
        decode_value(told)
    stream, _ = codec.decode_stream([told, b"\x01"])
    with pytest.raises(ValueError, match="exceeds max"):
        next(stream)
