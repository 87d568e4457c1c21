"""One entity's state as a frame of a snapshot, and the frames of a block.

Pure: bytes in, bytes out. The rule kept here: a frame is taken only whole and with its check value right, and whatever is wrong
with it is a `SnapshotDamagedError` that names the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

from symphony_es.errors import DecodeError, LimitExceededError, SnapshotDamagedError
from symphony_es.events.codec import decode_value, decode_values, encode_value
from symphony_es.events.fold import Damage, EntityState

__all__ = ["Frame", "decode_block", "decode_by_frames", "decode_frame", "encode_frame", "split_block"]

_FRAME = struct.Struct(">IIBQQQQH")  # length, CRC, flags, version, position, state version, generation, length of the key
_PREFIX = struct.Struct(">II")  # length and CRC stand before what they are about
_TOMBSTONE = 0x01
_DAMAGED = 0x02  # the data are a list: version, position and reason of the damage, then the last good state, or none
_KNOWN_FLAGS = _TOMBSTONE | _DAMAGED
_AT_ONCE_BYTES = 1024 * 1024  # a block has 64 KiB, and is larger only where a single state is
_MAX_KEY_BYTES = 1024  # a type of 100 characters, a colon and an id of 512 bytes fit well


class Frame(NamedTuple):
    """One entity in a block, not decoded yet: whose it is, where it is, whether it is deleted or damaged."""

    key: str
    start: int
    stop: int
    flags: int

    @property
    def deleted(self) -> bool:
        """Whether it is a tombstone, or what is left of a damaged entity that has no good state."""
        return bool(self.flags & _TOMBSTONE)


def encode_frame(state: EntityState) -> bytes:
    """Return one entity's state, or its tombstone; of a damaged one, the mark beside it.

    Raises:
        LimitExceededError: a number, the key or the state is larger than the format can hold.
    """
    key = state.key.encode()
    data = b"" if state.data is None else encode_value(state.data)
    flags = _TOMBSTONE if state.data is None else 0
    damage = state.damage
    if damage is not None:
        flags |= _DAMAGED
        data = encode_value([damage.version, damage.position, damage.reason, state.data])
    length = _FRAME.size - _PREFIX.size + len(key) + len(data)
    if len(key) > _MAX_KEY_BYTES:
        raise LimitExceededError(f"{state.key[:80]}…: a key in a snapshot has at most {_MAX_KEY_BYTES} bytes")
    try:
        head = _FRAME.pack(length, 0, flags, state.version, state.position, state.state_version, state.generation, len(key))
    except struct.error as error:
        raise LimitExceededError(f"{state.key}: its state does not fit into a snapshot ({error})") from error
    body = head[_PREFIX.size :] + key + data
    return _PREFIX.pack(length, crc32(body)) + body


def split_block(name: str, block: memoryview) -> Iterator[Frame]:
    """Yield the frames of a block in the order of their keys; their check values are verified.

    Raises:
        SnapshotDamagedError: the block is not a row of whole frames with rising keys.
    """
    start, size, last_key = 0, len(block), ""
    while start < size:
        if size - start < _FRAME.size:
            raise SnapshotDamagedError(name, "a frame is cut off")
        length, check, flags, _, _, _, _, key_length = _FRAME.unpack_from(block, start)
        stop = start + _PREFIX.size + length
        key_start = start + _FRAME.size
        if stop > size or key_start + key_length > stop:
            raise SnapshotDamagedError(name, "a frame is longer than its block")
        if crc32(block[start + _PREFIX.size : stop]) != check:
            raise SnapshotDamagedError(name, f"the check value of the frame at byte {start} of its block is wrong")
        if flags & ~_KNOWN_FLAGS:
            raise SnapshotDamagedError(name, f"a frame has flags {flags:#x} that this version does not know")
        try:
            key = str(block[key_start : key_start + key_length], "utf-8")
        except UnicodeDecodeError as error:
            raise SnapshotDamagedError(name, f"a key is no UTF-8 text ({error})") from error
        if key <= last_key:
            raise SnapshotDamagedError(name, f"{key} is out of order in its block")
        yield Frame(key, start, stop, flags)
        start, last_key = stop, key


def decode_frame(name: str, block: memoryview, frame: Frame) -> EntityState:
    """Return the entity state of a frame that `split_block` has found.

    Raises:
        SnapshotDamagedError: its data cannot be decoded.
    """
    _, _, _, version, position, state_version, generation, key_length = _FRAME.unpack_from(block, frame.start)
    encoded, flags = bytes(block[frame.start + _FRAME.size + key_length : frame.stop]), frame.flags
    damage: Damage | None = None
    if flags & _DAMAGED:
        data, damage = _decode_damaged(name, frame.key, flags, encoded)
    else:
        data = _decode_data(name, frame.key, flags, encoded)
    return EntityState(frame.key, data, version, position, state_version, generation, damage)


def decode_block(name: str, block: memoryview) -> list[EntityState]:
    """Return all states of a block, in the order of their keys, for reading everything.

    Raises:
        SnapshotDamagedError: the block is not a row of whole frames with rising keys, or a state cannot be decoded.
    """
    states = _decode_at_once(block)
    return decode_by_frames(name, block) if states is None else states


def decode_by_frames(name: str, block: memoryview) -> list[EntityState]:
    """Return the same, frame after frame. Errors are those of `decode_block`."""
    return [decode_frame(name, block, frame) for frame in split_block(name, block)]


def _decode_at_once(block: memoryview) -> list[EntityState] | None:
    """Return what `decode_by_frames` makes of a block of sound frames that hold a state each, as nearly all do; None of any other block.

    The data of all frames are decoded as one stream, which costs half as much; that copies them, so a large block is left to the other.
    """
    states: list[EntityState] = []
    encoded: list[memoryview] = []
    unpack, head, prefix = _FRAME.unpack_from, _FRAME.size, _PREFIX.size
    start, size, last_key = 0, len(block), ""
    if size > _AT_ONCE_BYTES:
        return None
    try:
        while start < size:
            length, check, flags, version, position, state_version, generation, key_length = unpack(block, start)
            stop = start + prefix + length
            key_stop = start + head + key_length
            if flags or stop > size or key_stop > stop or crc32(block[start + prefix : stop]) != check:
                return None
            key = str(block[start + head : key_stop], "utf-8")
            if key <= last_key:
                return None
            encoded.append(block[key_stop:stop])
            states.append(EntityState(key, None, version, position, state_version, generation))
            start, last_key = stop, key
    except (struct.error, UnicodeDecodeError):
        return None
    values = decode_values(encoded)
    if values is None:
        return None
    for state, value in zip(states, values, strict=True):
        if type(value) is not dict:
            return None
        state.data = value
    return states


def _decode_data(name: str, key: str, flags: int, encoded: bytes) -> dict[str, Any] | None:
    """Return what a frame says of its entity's state; None of a deleted one."""
    if flags & _TOMBSTONE:
        if encoded:
            raise SnapshotDamagedError(name, f"the tombstone of {key} has data")
        return None
    data = _decode(name, key, encoded)
    if type(data) is not dict:
        raise SnapshotDamagedError(name, f"the state of {key} is no mapping")
    return data


def _decode_damaged(name: str, key: str, flags: int, encoded: bytes) -> tuple[dict[str, Any] | None, Damage]:
    """Return what a frame says of a damaged entity: its last good state, or none, and the damage."""
    told = _decode(name, key, encoded)
    if type(told) is not list or [type(item) for item in told[:3]] != [int, int, str] or len(told) != 4:
        raise SnapshotDamagedError(name, f"the damage of {key} has another shape")
    *damage, data = told
    if type(data) is not (type(None) if flags & _TOMBSTONE else dict):
        raise SnapshotDamagedError(name, f"the state of {key} is no mapping")
    return data, Damage(*damage)


def _decode(name: str, key: str, encoded: bytes) -> Any:
    try:
        return decode_value(encoded)
    except DecodeError as error:
        raise SnapshotDamagedError(name, f"the state of {key} cannot be decoded: {error}") from error
