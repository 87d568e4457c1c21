"""One entity's state as a frame of a snapshot, and the frames of a block.

Pure: bytes in, bytes out. The rule kept here: a frame is taken only whole and with its check value right, and whatever is wrong
with it is a `SnapshotDamagedError` that names the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from symphony_es.errors import DecodeError, LimitExceededError, SnapshotDamagedError
from symphony_es.events.codec import decode_value, encode_value
from symphony_es.events.fold import EntityState

__all__ = ["Frame", "decode_frame", "encode_frame", "split_block"]

_FRAME = struct.Struct(">IIBQQQQH")  # length, CRC, flags, version, position, state version, generation, length of the key
_PREFIX = struct.Struct(">II")  # length and CRC stand before what they are about
_TOMBSTONE = 0x01
_MAX_KEY_BYTES = 1024  # a type of 100 characters, a colon and an id of 512 bytes fit well


class Frame(NamedTuple):
    """One entity in a block, not decoded yet: whose it is, where it is, whether it is deleted."""

    key: str
    start: int
    stop: int
    deleted: bool


def encode_frame(state: EntityState) -> bytes:
    """One entity's state, or its tombstone.

    Raises:
        LimitExceededError: a number, the key or the state is larger than the format can hold.
    """
    key = state.key.encode()
    data = b"" if state.data is None else encode_value(state.data)
    flags = _TOMBSTONE if state.data is None else 0
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
    """The frames of a block in the order of their keys; their check values are verified.

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
        if flags & ~_TOMBSTONE:
            raise SnapshotDamagedError(name, f"a frame has flags {flags:#x} that this version does not know")
        try:
            key = str(block[key_start : key_start + key_length], "utf-8")
        except UnicodeDecodeError as error:
            raise SnapshotDamagedError(name, f"a key is no UTF-8 text ({error})") from error
        if key <= last_key:
            raise SnapshotDamagedError(name, f"{key} is out of order in its block")
        yield Frame(key, start, stop, flags == _TOMBSTONE)
        start, last_key = stop, key


def decode_frame(name: str, block: memoryview, frame: Frame) -> EntityState:
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
    return EntityState(key=frame.key, data=data, version=version, position=position, state_version=state_version, generation=generation)
