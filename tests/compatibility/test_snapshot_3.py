"""Snapshots that were stored in format 3 are read for ever, and written to the same bytes."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from zlib import crc32

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.events.codec import decode_value
from symphony_es.events.fold import Damage, EntityState
from symphony_es.events.values import plain_equal
from tests.compatibility.generate_snapshot_3 import ANCHOR, POSITION, SNAPSHOT, STATES, snapshot_bytes


def test_the_golden_snapshot_is_read(tmp_path: Path) -> None:
    """Anchor, counts and every state."""
    (tmp_path / f"{POSITION:020d}.snap").write_bytes(SNAPSHOT.read_bytes())
    store = SnapshotStore(tmp_path, read_only=True)
    (info,) = store.list()
    assert (info.position, info.anchor, info.entity_count) == (POSITION, ANCHOR, 6)
    states = store.read_all(info)
    assert list(states) == [state.key for state in STATES]
    for state in STATES:
        for name in EntityState.__slots__:
            assert plain_equal(getattr(states[state.key], name), getattr(state, name)), (state.key, name)


def test_the_golden_snapshot_is_written() -> None:
    """The same states give the same bytes."""
    assert snapshot_bytes() == SNAPSHOT.read_bytes()


def test_docs_format_md_is_enough_to_read_a_snapshot() -> None:
    """A reader written from the page's tables alone, with none of the library but its value codec, finds the same states."""
    data = SNAPSHOT.read_bytes()
    magic, version, flags, position, time_ns, event_id, commitment, check = struct.unpack_from(">8sHHQQ16s32sI", data)
    assert (magic, version, flags, position) == (b"\x89SYMSNAP", 3, 0, POSITION)
    assert (event_id, commitment, time_ns) == ANCHOR
    assert check == crc32(data[:76])
    resting_at, index_at, blocks, frames, entities, index_check, trailer_check, digest, end = struct.unpack(">QQQQQII32s8s", data[-88:])
    assert (frames, entities, end) == (len(STATES), 6, b"PANSMYS\x89")
    assert trailer_check == crc32(data[-88:-44])
    assert digest == hashlib.sha256(data[:-40]).digest()
    assert index_check == crc32(data[index_at:-88])
    count, key_bytes = struct.unpack_from(">QQ", data, index_at)
    assert count == blocks
    keys_at = index_at + 16 + 34 * count
    assert keys_at + key_bytes == len(data) - 88
    read = {}
    for number in range(count):
        offset, length, block_check, block_frames, key_at, key_length = struct.unpack_from(">QQIIQH", data, index_at + 16 + 34 * number)
        assert crc32(data[offset : offset + length]) == block_check
        part, first_key = data[keys_at + key_at], data[keys_at + key_at + 1 : keys_at + key_at + key_length].decode()
        assert part == (offset >= resting_at)
        at, found = offset, []
        while at < offset + length:
            size, frame_check, frame_flags, *numbers, name_length = struct.unpack_from(">IIBQQQQH", data, at)
            assert crc32(data[at + 8 : at + 8 + size]) == frame_check
            key = data[at + 43 : at + 43 + name_length].decode()
            encoded = data[at + 43 + name_length : at + 8 + size]
            found.append(key)
            told = decode_value(encoded)
            *damage, state = told if frame_flags & 2 else (None, None, None, told)
            assert (state is None) == bool(frame_flags & 1)
            read[key] = (state, *numbers, damage)
            at += 8 + size
        assert (len(found), found[0]) == (block_frames, first_key)
    expected = {
        each.key: (each.data, each.version, each.position, each.state_version, each.generation, _told(each.damage)) for each in STATES
    }
    assert read.keys() == expected.keys()
    assert all(plain_equal(read[key], expected[key]) for key in expected)


def _told(damage: Damage | None) -> list[int | str | None]:
    return [None, None, None] if damage is None else [damage.version, damage.position, damage.reason]
