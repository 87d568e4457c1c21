"""The bytes of a snapshot file, format 1: header, frames in blocks, index of the blocks, trailer.

Pure: bytes in, bytes out; reading and writing files is done by the modules beside it. docs/format.md, "Snapshots", tells every
byte. The rule kept here: whatever a file says about lengths and offsets is compared with the file's own size before anything is
read or allocated because of it, and everything that is wrong with a file is one `SnapshotDamagedError` that names it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from symphony_es.errors import DecodeError, LimitExceededError, SnapshotDamagedError
from symphony_es.events.codec import decode_value, encode_value
from symphony_es.events.fold import EntityState

__all__ = [
    "BLOCK_BYTES",
    "HEADER_BYTES",
    "TRAILER_BYTES",
    "Anchor",
    "BlockEntry",
    "Frame",
    "SnapshotIndex",
    "SnapshotInfo",
    "Trailer",
    "counts_as_entity",
    "decode_frame",
    "decode_header",
    "decode_trailer",
    "encode_frame",
    "encode_header",
    "encode_index",
    "encode_trailer",
    "split_block",
]

FORMAT = 1
BLOCK_BYTES = 64 * 1024
"""A block is closed by the frame that brings it to this size: small enough to read for one entity, large enough for a small index."""

_MAGIC = b"\x89SYMSNAP"  # the first byte is no ASCII, so no text tool takes the file for text
_END_MAGIC = b"PANSMYS\x89"
_HEADER = struct.Struct(">8sHHQQ16s32s")  # magic, format, flags, position, time_ns, event id, commitment
_CRC = struct.Struct(">I")
_FRAME = struct.Struct(">IIBQQQQH")  # length, CRC, flags, version, position, state version, generation, length of the key
_FRAME_PREFIX_BYTES = 8  # length and CRC stand before what they are about
_BLOCK = struct.Struct(">QQIIQH")  # offset, length, CRC, frames, offset of the first key among the keys, its length
_INDEX = struct.Struct(">QQ")  # number of blocks, bytes of keys
_TRAILER = struct.Struct(">QQQQI")  # index offset, blocks, frames, entities, CRC of the index
_HASH_BYTES = 32
_TOMBSTONE = 0x01
_MAX_KEY_BYTES = 1024  # a type of 100 characters, a colon and an id of 512 bytes fit well

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
        entity_count: the application's entities that are alive at the position (types that begin with `symphony.` are not counted).
        name: name of the file in the snapshot directory.
    """

    position: int
    event_id: bytes
    commitment: bytes
    time_ns: int
    size_bytes: int
    entity_count: int
    name: str

    @property
    def anchor(self) -> Anchor:
        """The event at the position: id, commitment, time in ns."""
        return (self.event_id, self.commitment, self.time_ns)


def counts_as_entity(key: str) -> bool:
    """Whether a live entity of this key is one of the application's."""
    return not key.startswith("symphony.")


# --- header -----------------------------------------------------------------------------------------------------------------------


def encode_header(position: int, anchor: Anchor) -> bytes:
    """The first bytes of a file."""
    event_id, commitment, time_ns = anchor
    assert len(event_id) == 16, "an event id has 16 bytes"
    assert len(commitment) == 32, "a commitment has 32 bytes"
    header = _HEADER.pack(_MAGIC, FORMAT, 0, position, time_ns, event_id, commitment)
    return header + _CRC.pack(crc32(header))


def decode_header(name: str, data: bytes) -> tuple[int, Anchor]:
    """Position and anchor of a file.

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


# --- frames -----------------------------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One entity in a block, not decoded yet: where it is, whose it is, whether it is deleted."""

    key: str
    start: int
    stop: int
    deleted: bool


def encode_frame(state: EntityState) -> bytes:
    """One entity's state, or its tombstone.

    Raises:
        LimitExceededError: a number or the state is larger than the format can hold.
    """
    key = state.key.encode()
    data = b"" if state.data is None else encode_value(state.data)
    flags = _TOMBSTONE if state.data is None else 0
    length = _FRAME.size - _FRAME_PREFIX_BYTES + len(key) + len(data)
    numbers = (flags, state.version, state.position, state.state_version, state.generation, len(key))
    try:
        if len(key) > _MAX_KEY_BYTES:
            raise LimitExceededError(f"{state.key[:80]}…: a key in a snapshot has at most {_MAX_KEY_BYTES} bytes")
        body = _FRAME.pack(length, 0, *numbers)[_FRAME_PREFIX_BYTES:] + key + data
    except struct.error as error:
        raise LimitExceededError(f"{state.key}: its state does not fit into a snapshot ({error})") from error
    return _CRC.pack(length) + _CRC.pack(crc32(body)) + body


def split_block(name: str, block: bytes | memoryview) -> Iterator[Frame]:
    """The frames of a block in their order; their check values are verified.

    Raises:
        SnapshotDamagedError: the block is not a row of whole frames.
    """
    view = memoryview(block)
    start, size = 0, len(view)
    while start < size:
        if size - start < _FRAME.size:
            raise SnapshotDamagedError(name, "a frame is cut off")
        length, check, flags, _, _, _, _, key_length = _FRAME.unpack_from(view, start)
        stop = start + _FRAME_PREFIX_BYTES + length
        if stop > size or start + _FRAME.size + key_length > stop:
            raise SnapshotDamagedError(name, "a frame is longer than its block")
        if crc32(view[start + _FRAME_PREFIX_BYTES : stop]) != check:
            raise SnapshotDamagedError(name, f"the check value of the frame at byte {start} of its block is wrong")
        if flags & ~_TOMBSTONE:
            raise SnapshotDamagedError(name, f"a frame has flags {flags:#x} that this version does not know")
        key_start = start + _FRAME.size
        yield Frame(_decode_key(name, view[key_start : key_start + key_length]), start, stop, flags == _TOMBSTONE)
        start = stop


def _decode_key(name: str, data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise SnapshotDamagedError(name, f"a key is no UTF-8 text ({error})") from error


def decode_frame(name: str, block: bytes | memoryview, frame: Frame) -> EntityState:
    """The entity state of a frame that `split_block` has found.

    Raises:
        SnapshotDamagedError: its data cannot be decoded.
    """
    _, _, _, version, position, state_version, generation, key_length = _FRAME.unpack_from(block, frame.start)
    data = None
    encoded = bytes(block[frame.start + _FRAME.size + key_length : frame.stop])
    if not frame.deleted:
        try:
            data = decode_value(encoded)
        except DecodeError as error:
            raise SnapshotDamagedError(name, f"the state of {frame.key} cannot be decoded: {error}") from error
        if type(data) is not dict:
            raise SnapshotDamagedError(name, f"the state of {frame.key} is no mapping")
    elif encoded:
        raise SnapshotDamagedError(name, f"the tombstone of {frame.key} has data")
    return EntityState(
        key=frame.key, data=data, version=version, position=position, state_version=state_version, generation=generation
    )


# --- index ------------------------------------------------------------------------------------------------------------------------


class BlockEntry(NamedTuple):
    """Where a block is, and what it begins with."""

    offset: int
    length: int
    check: int
    frames: int
    first_key: bytes


def encode_index(blocks: list[BlockEntry]) -> bytes:
    """Entries of a fixed size, then the first keys: one entry is found by binary search, without parsing the rest."""
    entries, keys, at = [], [], 0
    for block in blocks:
        entries.append(_BLOCK.pack(block.offset, block.length, block.check, block.frames, at, len(block.first_key)))
        keys.append(block.first_key)
        at += len(block.first_key)
    return b"".join([_INDEX.pack(len(blocks), at), *entries, *keys])


class SnapshotIndex:
    """A file's index as it is stored; entries are decoded when they are asked for.

    Raises:
        SnapshotDamagedError: it contradicts itself, the trailer or the file's size.
    """

    def __init__(self, name: str, data: bytes, trailer: Trailer) -> None:
        self._name = name
        self._data = data
        if len(data) < _INDEX.size or crc32(data) != trailer.index_check:
            raise SnapshotDamagedError(name, "the check value of its index is wrong")
        count, key_bytes = _INDEX.unpack_from(data)
        self._keys_at = _INDEX.size + count * _BLOCK.size
        if count != trailer.blocks or self._keys_at + key_bytes != len(data):
            raise SnapshotDamagedError(name, "its index and its trailer disagree")
        self._count = count
        self._end = trailer.index_offset

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> BlockEntry:
        """One entry, checked against the limits of the file."""
        offset, length, check, frames, key_at, key_length = _BLOCK.unpack_from(self._data, _INDEX.size + number * _BLOCK.size)
        start = self._keys_at + key_at
        if offset < HEADER_BYTES or offset + length > self._end or start + key_length > len(self._data):
            raise SnapshotDamagedError(self._name, f"entry {number} of its index points outside the file")
        return BlockEntry(offset, length, check, frames, self._data[start : start + key_length])

    def __iter__(self) -> Iterator[BlockEntry]:
        """All entries; they must cover the space between header and index without gaps, in the order of their keys."""
        expected, last_key = HEADER_BYTES, b""
        for number in range(self._count):
            entry = self[number]
            if entry.offset != expected or entry.first_key <= last_key or not entry.length:
                raise SnapshotDamagedError(self._name, f"entry {number} of its index is out of order")
            expected, last_key = entry.offset + entry.length, entry.first_key
            yield entry
        if expected != self._end:
            raise SnapshotDamagedError(self._name, "its index does not cover all blocks")

    def find(self, key: bytes) -> int | None:
        """Number of the block that a key belongs into: the last one that does not begin after it. None before the first."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self[middle].first_key <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1 if low else None


# --- trailer ----------------------------------------------------------------------------------------------------------------------


class Trailer(NamedTuple):
    """The last bytes of a file."""

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


def encode_trailer(index_offset: int, blocks: int, frames: int, entities: int, index_check: int) -> bytes:
    """The trailer up to its hash, which is about everything before it; `close_trailer` adds the rest."""
    trailer = _TRAILER.pack(index_offset, blocks, frames, entities, index_check)
    return trailer + _CRC.pack(crc32(trailer))


def close_trailer(sha256: bytes) -> bytes:
    """What stands after the hashed part of a file."""
    return sha256 + _END_MAGIC


def decode_trailer(name: str, data: bytes, size: int) -> Trailer:
    """The trailer of a file of `size` bytes.

    Raises:
        SnapshotDamagedError: cut off, damaged, or larger than the file.
    """
    if len(data) != TRAILER_BYTES or not data.endswith(_END_MAGIC):
        raise SnapshotDamagedError(name, "it does not end as a snapshot does: it is cut off")
    if _CRC.unpack_from(data, _TRAILER.size)[0] != crc32(data[: _TRAILER.size]):
        raise SnapshotDamagedError(name, "the check value of its trailer is wrong")
    at = _TRAILER.size + _CRC.size
    trailer = Trailer(*_TRAILER.unpack_from(data), data[at : at + _HASH_BYTES])
    if not HEADER_BYTES <= trailer.index_offset <= size - TRAILER_BYTES - trailer.index_bytes:
        raise SnapshotDamagedError(name, "its trailer points outside the file")
    return trailer
