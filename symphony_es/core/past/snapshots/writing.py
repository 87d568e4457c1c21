"""Putting a snapshot file together: frames are gathered in blocks, ranges of blocks are taken over as they are.

Runs in a worker thread and yields bytes; writing them is the part of `files.atomic`. Nothing but the block under construction, the one
before it and the index is held in memory, however many entities there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from zlib import crc32

from symphony_es.core.past.resting import may_rest
from symphony_es.core.past.snapshots.format import (
    ALIVE,
    RESTING,
    Anchor,
    BlockEntry,
    close_trailer,
    counts_as_entity,
    encode_header,
    encode_index,
    encode_trailer,
)
from symphony_es.core.past.snapshots.frames import encode_frame
from symphony_es.errors import ConfigurationError
from symphony_es.events.fold import EntityState
from symphony_es.shown import quoted

__all__ = ["BLOCK_BYTES", "SnapshotAssembler", "is_left_out", "part_of", "snapshot_chunks"]

BLOCK_BYTES = 64 * 1024
"""A block is closed by the frame that brings it to this size: small enough to read for one entity, large enough for a small index."""

_SMALLEST_BLOCK_BYTES = BLOCK_BYTES // 4  # a smaller rest joins the block before it, so merges do not crumble a file


class SnapshotAssembler:
    """The bytes of one snapshot file, in the order they are written.

    Every method returns the bytes that are due, which may be none.

    Attributes:
        entities: the application's live entities among the frames; the caller counts.
    """

    def __init__(self, position: int, anchor: Anchor) -> None:
        self.entities = 0
        self._hash = sha256()
        self._blocks: list[BlockEntry] = []
        self._offset = 0
        self._full: list[bytes] = []
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._first_keys: list[bytes] = []
        self._last_key = b""
        self._resting_offset: int | None = None
        self._header = encode_header(position, anchor)

    def begin(self) -> bytes:
        """Return the header."""
        return self._emit(self._header)

    def _emit(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._offset += len(data)
        return data

    def add_frame(self, part: bytes, key: str, frame: bytes) -> bytes:
        """Take one frame; keys must rise, and what is at rest comes after all that is alive.

        Raises:
            ConfigurationError: the key does not come after the one before it.
        """
        placed = part + key.encode()
        if placed <= self._last_key:
            before = self._last_key[1:].decode()
            raise ConfigurationError(f"{quoted(key)} comes after {quoted(before)}: the states of a snapshot are sorted by key")
        begun = self.begin_resting() if part == RESTING else b""
        self._last_key = placed
        return begun + self._take(placed, frame)

    def begin_resting(self) -> bytes:
        """Close the blocks of what is alive; nothing where that has been done."""
        if self._resting_offset is not None:
            return b""
        closed = self.close_blocks()
        self._resting_offset = self._offset
        return closed

    def _take(self, placed: bytes, frame: bytes) -> bytes:
        if not self._open:
            self._first_keys.append(placed)
        self._open.append(frame)
        self._open_bytes += len(frame)
        if self._open_bytes < BLOCK_BYTES:
            return b""
        due = self._close(self._full) if self._full else b""
        self._full, self._open, self._open_bytes = self._open, [], 0
        return due

    def _close(self, frames: list[bytes]) -> bytes:
        block = b"".join(frames)
        self._blocks.append(BlockEntry(self._offset, len(block), crc32(block), len(frames), self._first_keys.pop(0)))
        return self._emit(block)

    def close_blocks(self) -> bytes:
        """Close what is under construction: before a range is taken over, and at the end."""
        if self._full and self._open and self._open_bytes < _SMALLEST_BLOCK_BYTES:
            self._full += self._open
            self._open = []
            self._first_keys.pop()
        due = b"".join([self._close(frames) for frames in (self._full, self._open) if frames])
        self._full, self._open, self._open_bytes = [], [], 0
        return due

    def take_over(self, entries: Sequence[BlockEntry], data: bytes) -> bytes:
        """Take over whole blocks of another snapshot, side by side in `data`; `close_blocks` has been called before."""
        shift = self._offset - entries[0].offset
        self._blocks.extend([entry._replace(offset=entry.offset + shift) for entry in entries])
        return self._emit(data)

    def end(self) -> bytes:
        """Return the last blocks, the index and the trailer."""
        blocks = self.close_blocks()
        index_offset = self._offset
        resting_offset = index_offset if self._resting_offset is None else self._resting_offset
        index = self._emit(encode_index(self._blocks))
        frames = sum(entry.frames for entry in self._blocks)
        trailer = self._emit(encode_trailer(resting_offset, index_offset, len(self._blocks), frames, self.entities, crc32(index)))
        return b"".join([blocks, index, trailer, close_trailer(self._hash.digest())])


def is_left_out(state: EntityState) -> bool:
    """Return whether a snapshot has no frame of an entity: of a deleted one, whose version the log tells when its id is used again.

    So what has been deleted weighs nothing, however much it is.
    """
    return state.data is None and state.damage is None


def part_of(state: EntityState) -> bytes:
    """Return the part of a file that a state stands in."""
    return RESTING if may_rest(state) else ALIVE


def snapshot_chunks(position: int, anchor: Anchor, states: Iterable[EntityState]) -> Iterator[bytes]:
    """Yield a whole snapshot of states that are sorted by key; what `is_left_out` is not in it.

    Raises:
        ConfigurationError: they are not sorted.
        LimitExceededError: a state does not fit the format.
    """
    assembler = SnapshotAssembler(position, anchor)
    yield assembler.begin()
    resting: list[EntityState] = []
    last_key = ""
    for state in states:
        if state.key <= last_key:
            raise ConfigurationError(f"{quoted(state.key)} comes after {quoted(last_key)}: the states of a snapshot are sorted by key")
        last_key = state.key
        if is_left_out(state):
            continue
        assembler.entities += state.data is not None and counts_as_entity(state.key)
        if may_rest(state):
            resting.append(state)
        elif block := assembler.add_frame(ALIVE, state.key, encode_frame(state)):
            yield block
    for state in resting:
        if block := assembler.add_frame(RESTING, state.key, encode_frame(state)):
            yield block
    yield assembler.end()
