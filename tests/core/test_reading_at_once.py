"""What is read or found many at a time, without looking at each thing by itself, is what the plain versions say."""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony_es import Symphony, entity
from symphony_es.core.past.snapshots.format import HEADER_BYTES, BlockEntry, SnapshotIndex, Trailer, encode_index
from symphony_es.core.past.snapshots.frames import decode_block, decode_by_frames, encode_frame
from symphony_es.core.world.shadow import compare_in_slices
from symphony_es.errors import InvalidIdentifierError, SnapshotDamagedError, SymphonyError
from symphony_es.events.codec import encode_value
from symphony_es.events.fold import Damage, EntityState
from tests.events.plain_data import states


@entity(type="ReadAtOnceItem")
class Item:
    """Something with an id."""

    id: str = ""


def told(decode: Any, block: bytes) -> Any:
    """What a decoder makes of a block; that it refuses it, where it does."""
    try:
        return [repr([state.key, state.data, state.version, state.position, state.damage]) for state in decode("snap", memoryview(block))]
    except SnapshotDamagedError as error:
        return str(error)


def frame(key: str, data: bytes, flags: int = 0) -> bytes:
    """A frame whose check value is right, whatever its data are."""
    body = struct.pack(">BQQQQH", flags, 1, 1, 1, 0, len(key.encode())) + key.encode() + data
    return struct.pack(">II", len(body), crc32(body)) + body


damages = st.one_of(st.none(), st.just(Damage(3, 9, "it does not fit")))
MAP = encode_value({"n": 1})


@given(st.lists(st.tuples(st.one_of(st.none(), states), damages), max_size=6))
def test_a_block_decoded_at_once_is_what_its_frames_say(made: list[tuple[dict[Any, Any] | None, Damage | None]]) -> None:
    """States of every kind, tombstones, and damaged entities among them."""
    block = b"".join(encode_frame(EntityState(f"E:{at}", data, at + 1, at + 7, 2, 3, damage)) for at, (data, damage) in enumerate(made))
    assert told(decode_block, block) == told(decode_by_frames, block)
    assert len(told(decode_block, block)) == len(made)


@given(st.lists(st.one_of(st.binary(max_size=12), states.map(encode_value)), min_size=1, max_size=4), st.integers(0, 3))
@example([MAP[:-1], MAP[-1:] + MAP], 0)  # the second has the end of the first
@example([MAP + MAP, b""], 0)
@example([MAP, b"\xc1", MAP], 0)
@example([MAP, encode_value([1])], 0)
@example([MAP, b"\x81\xc3\x01"], 0)  # True is no key
@example([MAP, b"\x82\x01\x01\x01\x02"], 0)  # a key twice
@example([MAP, b"\x81\xa1n" + b"\x91" * 70 + b"\x01"], 0)  # nested too deep
@example([MAP, MAP], 1)
def test_data_that_lie_are_refused_as_by_frames(pieces: list[bytes], flags: int) -> None:
    """Data that end elsewhere than their frame, are no mapping, or no value at all, behind a check value that is right."""
    block = b"".join(frame(f"E:{at}", data, flags if at == len(pieces) - 1 else 0) for at, data in enumerate(pieces))
    assert told(decode_block, block) == told(decode_by_frames, block)


@given(st.lists(states, min_size=1, max_size=3), st.data())
def test_a_block_with_a_changed_byte_is_refused_as_by_frames(made: list[dict[Any, Any]], data: st.DataObject) -> None:
    """Whatever stands in the place of a byte, and wherever the block ends."""
    block = bytearray(b"".join(encode_frame(EntityState(f"E:{at}", held, 1, 1)) for at, held in enumerate(made)))
    block[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(0, 255))
    cut = bytes(block[: data.draw(st.integers(0, len(block)))])
    for each in (bytes(block), cut):
        assert told(decode_block, each) == told(decode_by_frames, each)


@given(st.sets(st.binary(max_size=3).map(lambda key: b"\0" + key), max_size=30), st.lists(st.binary(max_size=5), min_size=1, max_size=30))
def test_many_keys_are_found_where_each_by_itself_is(first_keys: set[bytes], keys: list[bytes]) -> None:
    """Before the first block, in each, and behind the last; also in an index of no blocks."""
    entries = [BlockEntry(HEADER_BYTES + at, 1, 0, 1, key) for at, key in enumerate(sorted(first_keys))]
    data, end = encode_index(entries), HEADER_BYTES + len(entries)
    index = SnapshotIndex("snap", data, Trailer(end, end, len(entries), len(entries), 0, crc32(data), b""))
    asked = [*keys, *first_keys, *(b"\0" + key for key in keys)]
    for count in (1, 10_000):
        assert [index.finder(count)(key) for key in asked] == [index.find(key) for key in asked]


@pytest.mark.usefixtures("no_check_at_each_flush")
async def test_what_is_plainly_alike_is_passed_over_and_nothing_else() -> None:
    """Of many objects in hand, a checkpoint finds those that were changed past their methods, wherever they stand among the others."""
    async with Symphony() as symphony:
        items = [symphony.entities.add(Item(id=f"{number:03d}")) for number in range(200)]
        await symphony.flush()
        for at in (0, 31, 32, 150, 199):
            items[at].__dict__["id"] = f"{at:03d}"  # an equal text is no difference
        for at in (7, 64, 198):
            items[at].__dict__["id"] = "another"
        world = symphony.world
        differ = [at for at, item in enumerate(items) if any(compare_in_slices(world.record_for(item)))]
        assert differ == [7, 64, 198]
        found = [error.entity for error in await world.outbox.suspects.compare(world.lock)]
        assert sorted(found) == [f"ReadAtOnceItem:{at:03d}" for at in differ]
        for at in (7, 64, 198):
            items[at].__dict__["id"] = f"{at:03d}"


@pytest.mark.parametrize(
    ("entity_type", "entity_id"),
    [("ReadAtOnceItem:a", "b"), ("ReadAtOnceItem", ""), ("ReadAtOnceItem", "a\0"), ("", "a"), ("Read At Once", "a"), ("ReadAtOnceItem", 7)],
)
async def test_get_refuses_what_is_no_type_and_id(entity_type: str, entity_id: Any) -> None:
    """Also where type and id together are the key of an entity that there is."""
    async with Symphony() as symphony:
        item = symphony.entities.add(Item(id="a:b"))
        with pytest.raises(InvalidIdentifierError) as refused:
            symphony.entities.get(entity_type, entity_id)
        with pytest.raises(SymphonyError) as said:
            symphony.names.key(entity_type, entity_id)
        assert str(refused.value) == str(said.value)
        assert symphony.entities.get("ReadAtOnceItem", "a:b") is item
