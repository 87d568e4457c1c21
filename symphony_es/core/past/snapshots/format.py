"""The bytes around the blocks of a snapshot file, format 3: header, index of the blocks, trailer.

Pure: bytes in, bytes out; reading and writing files is done by the modules beside it. docs/format.md, "Snapshots", tells every
byte. The rule kept here: whatever a file says about lengths and offsets is compared with the file's own size before anything is
read or allocated because of it, and everything that is wrong with a file is one `SnapshotDamagedError` that names it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

from symphony_es.errors import SnapshotDamagedError
from symphony_es.late_dataclasses import dataclass

__all__ = [
    "ALIVE",
    "HEADER_BYTES",
    "RESTING",
    "TRAILER_BYTES",
    "Anchor",
    "BlockEntry",
    "SnapshotIndex",
    "SnapshotInfo",
    "Trailer",
    "close_trailer",
    "counts_as_entity",
    "decode_header",
    "decode_trailer",
    "encode_header",
    "encode_index",
    "encode_trailer",
    "hashed_trailer_bytes",
]

FORMAT = 3

ALIVE, RESTING = b"\x00", b"\x01"
"""The two parts of a file: the first byte of the keys in the index, so that what is alive comes before what is at rest."""

_MAGIC = b"\x89SYMSNAP"  # the first byte is no ASCII, so no text tool takes the file for text
_END_MAGIC = b"PANSMYS\x89"
_HEADER = struct.Struct(">8sHHQQ16s32s")  # magic, format, flags, position, time_ns, event id, commitment
_CRC = struct.Struct(">I")
_BLOCK = struct.Struct(">QQIIQH")  # offset, length, CRC, frames, offset of the first key among the keys, its length
_INDEX = struct.Struct(">QQ")  # number of blocks, bytes of keys
_TRAILER = struct.Struct(">QQQQQI")  # offset of what is at rest, index offset, blocks, frames, entities, CRC of the index
_HASH_BYTES = 32

HEADER_BYTES = _HEADER.size + _CRC.size
TRAILER_BYTES = _TRAILER.size + _CRC.size + _HASH_BYTES + len(_END_MAGIC)

Anchor = tuple[bytes, bytes, int]
"""The event at a snapshot's position: its id (16 bytes), its commitment (32 bytes), its time in ns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """What a snapshot file says of itself.

    Attributes:
        position: the last event folded into the states.
        event_id: id of the event there (16 bytes).
        commitment: SHA-256 commitment of that event.
        time_ns: the event's time.
        size_bytes: of the whole file.
        resting_bytes: of it, what is at rest.
        entity_count: the application's entities that are alive at the position (types that begin with `symphony.` are not counted).
        name: name of the file in the snapshot directory.
    """

    position: int
    event_id: bytes
    commitment: bytes
    time_ns: int
    size_bytes: int
    resting_bytes: int
    entity_count: int
    name: str

    @property
    def anchor(self) -> Anchor:
        """The event at the position: id, commitment, time in ns."""
        return (self.event_id, self.commitment, self.time_ns)


def counts_as_entity(key: str) -> bool:
    """Return whether a live entity of this key is one of the application's."""
    return not key.startswith("symphony.")


def encode_header(position: int, anchor: Anchor) -> bytes:
    """Return the first bytes of a file."""
    event_id, commitment, time_ns = anchor
    assert len(event_id) == 16, "an event id has 16 bytes"
    assert len(commitment) == 32, "a commitment has 32 bytes"
    header = _HEADER.pack(_MAGIC, FORMAT, 0, position, time_ns, event_id, commitment)
    return header + _CRC.pack(crc32(header))


def decode_header(name: str, data: bytes) -> tuple[int, Anchor]:
    """Return position and anchor of a file.

    Raises:
        SnapshotDamagedError: no snapshot, of a format this version does not know, or damaged.
    """
    if len(data) != HEADER_BYTES:
        raise SnapshotDamagedError(name, "it is shorter than its header")
    magic, version, flags, position, time_ns, event_id, commitment = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise SnapshotDamagedError(name, "it does not begin as a snapshot does")
    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):
        raise SnapshotDamagedError(name, "the check value of its header is wrong")
    if version != FORMAT or flags:
        raise SnapshotDamagedError(name, f"it has format {version} with flags {flags:#x}, this version reads format {FORMAT} without flags")
    return position, (event_id, commitment, time_ns)


class BlockEntry(NamedTuple):
    """Where a block is, and what it begins with: the byte of its part, then the key."""

    offset: int
    length: int
    check: int
    frames: int
    first_key: bytes


def encode_index(blocks: list[BlockEntry]) -> bytes:
    """Return entries of a fixed size, then the first keys: one entry is found by binary search, without parsing the rest."""
    entries, keys, at = [], [], 0
    for block in blocks:
        entries.append(_BLOCK.pack(block.offset, block.length, block.check, block.frames, at, len(block.first_key)))
        keys.append(block.first_key)
        at += len(block.first_key)
    return b"".join([_INDEX.pack(len(blocks), at), *entries, *keys])


_PROBES = 8
"""About so many entries are decoded to find one key."""


class SnapshotIndex:
    """A file's index as it is stored; entries are decoded when they are asked for.

    Attributes:
        data: the index as bytes.

    Raises:
        SnapshotDamagedError: it contradicts itself, the trailer or the file's size.
    """

    def __init__(self, name: str, data: bytes, trailer: Trailer) -> None:
        self._name = name
        self.data = data
        if len(data) < _INDEX.size or crc32(data) != trailer.index_check:
            raise SnapshotDamagedError(name, "the check value of its index is wrong")
        count, key_bytes = _INDEX.unpack_from(data)
        self._keys_at = _INDEX.size + count * _BLOCK.size
        if count != trailer.blocks or self._keys_at + key_bytes != len(data):
            raise SnapshotDamagedError(name, "its index and its trailer disagree")
        self._count: int = count
        self._end, self._resting = trailer.index_offset, trailer.resting_offset

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> BlockEntry:
        """Return one entry, checked against the limits of the file."""
        offset, length, check, frames, key_at, key_length = _BLOCK.unpack_from(self.data, _INDEX.size + number * _BLOCK.size)
        start = self._keys_at + key_at
        if offset < HEADER_BYTES or offset + length > self._end or start + key_length > len(self.data):
            raise SnapshotDamagedError(self._name, f"entry {number} of its index points outside the file")
        return BlockEntry(offset, length, check, frames, self.data[start : start + key_length])

    def __iter__(self) -> Iterator[BlockEntry]:
        """Yield all entries; they must cover the space between header and index without gaps, in the order of their keys."""
        expected, last_key = HEADER_BYTES, b""
        for number in range(self._count):
            entry = self[number]
            if entry.offset != expected or entry.first_key <= last_key or not entry.length:
                raise SnapshotDamagedError(self._name, f"entry {number} of its index is out of order")
            if entry.first_key[:1] != (ALIVE if entry.offset < self._resting else RESTING):
                raise SnapshotDamagedError(self._name, f"entry {number} of its index is of the other part")
            expected, last_key = entry.offset + entry.length, entry.first_key
            yield entry
        if expected != self._end:
            raise SnapshotDamagedError(self._name, "its index does not cover all blocks")

    def find(self, key: bytes) -> int | None:
        """Return number of the block that a key belongs into: the last one that does not begin after it. None before the first."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self[middle].first_key <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1 if low else None

    def finder(self, keys: int) -> Callable[[bytes], int | None]:
        """Return what does as `find` does, for so many keys: where these are many, all entries are decoded once, and none for each key
        again.

        Raises:
            SnapshotDamagedError: the entries are out of order.
        """
        if keys * _PROBES < self._count:
            return self.find
        first_keys = [entry.first_key for entry in self]
        return lambda key: bisect_right(first_keys, key) - 1 if first_keys and first_keys[0] <= key else None


class Trailer(NamedTuple):
    """The last bytes of a file."""

    resting_offset: int
    index_offset: int
    blocks: int
    frames: int
    entities: int
    index_check: int
    sha256: bytes

    @property
    def index_bytes(self) -> int:
        """The least an index of this many blocks can weigh."""
        return _INDEX.size + self.blocks * _BLOCK.size


def encode_trailer(resting_offset: int, index_offset: int, blocks: int, frames: int, entities: int, index_check: int) -> bytes:
    """Return the trailer up to its hash, which is about everything before it; `close_trailer` adds the rest."""
    trailer = _TRAILER.pack(resting_offset, index_offset, blocks, frames, entities, index_check)
    return trailer + _CRC.pack(crc32(trailer))


def hashed_trailer_bytes() -> int:
    """Return how many bytes of a trailer the hash is about."""
    return _TRAILER.size + _CRC.size


def close_trailer(sha256: bytes) -> bytes:
    """Return what stands after the hashed part of a file."""
    return sha256 + _END_MAGIC


def decode_trailer(name: str, data: bytes, size: int) -> Trailer:
    """Return the trailer of a file of `size` bytes.

    Raises:
        SnapshotDamagedError: cut off, damaged, or larger than the file.
    """
    if len(data) != TRAILER_BYTES or not data.endswith(_END_MAGIC):
        raise SnapshotDamagedError(name, "it does not end as a snapshot does: it is cut off")
    if _CRC.unpack_from(data, _TRAILER.size)[0] != crc32(data[: _TRAILER.size]):
        raise SnapshotDamagedError(name, "the check value of its trailer is wrong")
    at = _TRAILER.size + _CRC.size
    resting_offset, index_offset, blocks, frames, entities, index_check = _TRAILER.unpack_from(data)
    trailer = Trailer(resting_offset, index_offset, blocks, frames, entities, index_check, data[at : at + _HASH_BYTES])
    if not HEADER_BYTES <= resting_offset <= trailer.index_offset <= size - TRAILER_BYTES - trailer.index_bytes:
        raise SnapshotDamagedError(name, "its trailer points outside the file")
    return trailer
